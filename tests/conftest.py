"""What holds for every test: nothing blocks the event loop, and nothing is left behind."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

# Few examples each time, and many in a session of their own (nox -s deep).
settings.register_profile("short", max_examples=30)
settings.register_profile("deep", max_examples=1_000, deadline=None)
_LOOKING = {"_get_local_constants"}
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    """A blocking call in the event loop fails the test that made it."""
    with blockbuster_ctx() as blockbuster:
        # Where coverage is measured, threads hold its lock now and then.
        lock = blockbuster.functions["threading.Lock.acquire"]
        lock.can_block_in("coverage/collector.py", {"lock_data"})
        for function in blockbuster.functions.values():  # it looks for constants in our files
            function.can_block_in("hypothesis/internal/conjecture/providers.py", _LOOKING)
        yield blockbuster


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """The test leaves no task behind."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"left behind: {left}"
