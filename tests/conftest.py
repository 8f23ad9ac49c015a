"""What holds for every test: nothing blocks the event loop, and nothing is left behind."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from functools import cache
from typing import Any

import httpx
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from httpx._transports import default as httpx_transport
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from braze_export.sandbox import samples

# Few examples each time, and many in a session of their own (nox -s deep).
settings.register_profile("short", max_examples=30)
settings.register_profile("deep", max_examples=1_000, deadline=None)
_LOOKING = {"_get_local_constants"}
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_configure() -> None:
    """Compiled code is kept, also where the environment says not to.

    The tests start the package some hundred times, and every worker reads all tests.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core, for they wait much: for processes, connections and the disk."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return 2 * (cores or 1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """A file stays in one worker, as with the option itself; so do all that start the stores."""
    return _ByServers(config, log) if config.getvalue("dist") == "loadfile" else None


class _ByServers(LoadFileScheduling):  # type: ignore[misc]
    """The servers of object stores take seconds to start, and each worker has its own."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return "tests/storage" if scope.startswith("tests/storage/") else scope


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays, and is never looked through for garbage.

    What comes later is, but rarely: a tenth of the time of all tests went into it.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _samples_are_made_once() -> Iterator[None]:
    """They follow from size, number and seed alone, and take longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "profile", cache(samples.profile))
        yield


@pytest.fixture(autouse=True, scope="session")
def _certificates_are_read_once() -> Iterator[None]:
    """Every client of httpx reads them anew, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx_transport, "create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture(scope="session")
def _blockbuster() -> Iterator[BlockBuster]:
    """To replace the functions that block takes longer than most tests, so it is done once."""
    with blockbuster_ctx() as blockbuster:
        # Where coverage is measured, threads hold its lock now and then.
        lock = blockbuster.functions["threading.Lock.acquire"]
        lock.can_block_in("coverage/collector.py", {"lock_data"})
        for function in blockbuster.functions.values():  # it looks for constants in our files
            function.can_block_in("hypothesis/internal/conjecture/providers.py", _LOOKING)
        yield blockbuster


@pytest.fixture(autouse=True)
def blocking_calls_fail(_blockbuster: BlockBuster) -> Iterator[BlockBuster]:
    """A blocking call in the event loop fails the test that made it.

    A test may allow some, or switch this off. The next one finds it as it was.
    """
    each = list(_blockbuster.functions.values())
    before = [(one, one.activated, len(one.can_block_functions)) for one in each]
    yield _blockbuster
    for one, activated, allowed in before:
        del one.can_block_functions[allowed:]
        (one.activate if activated else one.deactivate)()


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """The test leaves no task behind."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"left behind: {left}"
