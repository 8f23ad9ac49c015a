"""Where a cell of the matrix takes place: a local Braze, a client of it, and all that is logged."""

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from attrs import define, field

from braze_export import AiohttpTransport, BrazeClient, ExportSettings, Polling, RetryPolicy
from braze_export.sandbox import Fault, Sandbox, Window
from braze_export.sandbox.exports import DOWNLOADS
from braze_export.sandbox.settings import FaultSource
from braze_export.transports.httpx import HttpxTransport
from braze_export.wire import Timeouts, Transport
from tests.contract.exporting import at_work
from tests.faults.clockwork import wall_clock

KEY = "k3y-0f-th3-w0rksp4c3"
STRANGER = "str4nger-n0body-kn0ws"  # an external id
TRIES = 3
LOOKS = 10  # in a row that may fail while an export is waited for

_RETRY = RetryPolicy(max_attempts=TRIES, max_refusals=TRIES, max_seconds=1e5, base=0.1, cap=0.2)
_EXPORTS = ExportSettings(polling=Polling(base=1.0, cap=200.0))
_TIMEOUTS = Timeouts(connect=5.0, read=5.0, total=20.0)
_WORTH_A_SEARCH = 6  # characters: shorter values stand in any text

MakeTransport: TypeAlias = Callable[[], Transport]
TRANSPORTS: dict[str, MakeTransport] = {"aiohttp": AiohttpTransport, "httpx": HttpxTransport}


@define
class Spoiler:
    """Spoils answers, of Braze's API or of links: those of one kind, after some, so many.

    Attributes:
        seen: requests of the kind since it was armed.
    """

    fault: Fault | None = None
    of_links: bool = False
    after: int = 0
    times: float = float("inf")
    seen: int = 0

    def __call__(self, _number: int, path: str) -> Fault | None:
        if path.startswith(DOWNLOADS) != self.of_links:
            return None
        self.seen += 1
        due = self.after < self.seen <= self.after + self.times
        return self.fault if due else None

    def arm(self, fault: Fault | None, *, of_links: bool, after: int, times: float) -> None:
        self.fault, self.of_links, self.after, self.times = fault, of_links, after, times
        self.seen = 0

    def disarm(self) -> None:
        self.fault = None


@define
class World:
    """What an operation needs.

    Attributes:
        braze: the client under test.
        link: to an archive.
        directory: for files.
    """

    sandbox: Sandbox
    braze: BrazeClient
    link: str
    directory: Path


@define
class Log(logging.Handler):
    """Keeps everything that any logger says."""

    lines: list[str] = field(factory=list)

    def __attrs_pre_init__(self) -> None:
        super().__init__(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        trace = (
            "" if record.exc_info is None else "".join(traceback.format_exception(*record.exc_info))
        )
        self.lines.append(f"{record.name}: {record.getMessage()} {trace}")

    __hash__ = logging.Handler.__hash__


def a_sandbox(faults: FaultSource | None = None, **options: Any) -> Sandbox:
    """Return a small local Braze: 30 users, two pages of segments, archives of some 2 KB."""
    defaults: dict[str, Any] = {
        "users": 30,
        "segments": 101,
        "profile": "small",
        "api_key": KEY,
        "default_window": Window(250_000, 60.0),
    }
    return Sandbox(faults=faults, clock=wall_clock, **(defaults | options))


def a_client(url: str, transport: Transport, **options: Any) -> BrazeClient:
    """Return a client that waits in the loop's time alone."""
    defaults: dict[str, Any] = {"retry": _RETRY, "timeouts": _TIMEOUTS, "exports": _EXPORTS}
    braze = BrazeClient(KEY, url, transport=transport, **(defaults | options))
    set_wall_clock(braze, wall_clock)
    return braze


def set_wall_clock(braze: BrazeClient, clock: Callable[[], float]) -> None:
    """Give a client another wall clock than this machine's."""
    object.__setattr__(braze._caller, "wall_clock", clock)


async def a_link(sandbox: Sandbox) -> str:
    """Return the link to an archive of all users, made with nothing but the sandbox."""
    async with BrazeClient(KEY, sandbox.url) as braze:
        job = await braze.users.export_segment(sandbox.segment_id(1), fields=["external_id"])
    assert job.url is not None
    return job.url


def secrets_of(sandbox: Sandbox, link: str) -> list[str]:
    """Return what must stand in no log and no error."""
    people = [sandbox.user(n) for n in range(1, sandbox.users + 1)]
    personal = [v for p in people for v in (p.email, p.phone, p.device_id, p.braze_id)]
    signature = link.rpartition("=")[2]
    found = [KEY, STRANGER, signature, *personal]
    return [text for text in found if len(text) >= _WORTH_A_SEARCH]


def everything_of(error: BaseException) -> str:
    """Return all that an error can show."""
    shown = "".join(traceback.format_exception(error))
    return f"{shown} {error!r} {error.args!r} {getattr(error, 'message', '')}"


async def until_closed(sandbox: Sandbox) -> None:
    """Wait until the server has noticed that its connections are closed."""
    for _ in range(100):
        if not sandbox.open_connections:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"{sandbox.open_connections} connections are open")


async def until_idle(braze: BrazeClient) -> None:
    """Wait until no permit is held, nobody waits for one, and no task is at work.

    A request of look-ups that is under way is not broken off when the last who asked leaves.
    """
    for _ in range(100):
        if not _held(braze):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"held: {_held(braze)}")


def _held(braze: BrazeClient) -> list[object]:
    pools = braze.limits.snapshot()
    return [*(pools[p] for p in pools if pools[p].in_flight or pools[p].waiting), *at_work()]


@contextmanager
def listening() -> Iterator[Log]:
    """Hear everything that is logged."""
    log, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.setLevel(level)
        root.removeHandler(log)


@asynccontextmanager
async def no_task_left() -> AsyncIterator[None]:
    """What is begun within has ended with it."""
    before = asyncio.all_tasks()
    yield
    for _ in range(100):  # a server notices only now that it is left
        if asyncio.all_tasks() <= before:
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"left behind: {asyncio.all_tasks() - before}")
