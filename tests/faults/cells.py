"""One cell of the matrix: one fault, one operation, one transport, and all that must hold."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from braze_export import (
    APIError,
    ArchiveError,
    BadRequestError,
    BrazeError,
    ConnectionLostError,
    DecodeError,
    ExportNotReadyError,
    FailedBatch,
    PayloadTooLargeError,
    RateLimitError,
    TransportError,
)
from tests.contract.exporting import at_work
from tests.faults import clockwork
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.places import make_certificates, trusting
from tests.faults.troubles import TROUBLES, Trouble
from tests.faults.world import (
    TRANSPORTS,
    Log,
    Spoiler,
    World,
    a_client,
    a_link,
    a_sandbox,
    everything_of,
    listening,
    no_task_left,
    secrets_of,
    until_closed,
    until_idle,
)

_FOREVER: Final = float("inf")
_NARROWING: Final = (BadRequestError, PayloadTooLargeError)
_PIECES: Final = 40  # requests of a download that gets on a little with each


@frozen
class Cell:
    """A fault at an operation over a transport."""

    trouble: Trouble
    operation: Operation
    transport: str
    directory: Path

    @property
    def kind(self) -> type[BrazeError] | None:
        """What is raised, if the fault does not pass."""
        return self.trouble.raises(self.operation, self.transport)

    @property
    def is_tried_again(self) -> bool:
        """Whether the same may work another time."""
        return self.trouble.is_tried_again(self.operation, self.transport)

    @property
    def tries(self) -> int:
        """How often one request is tried, at most."""
        return self.trouble.tries(self.operation, self.transport)


@frozen
class Came:
    """What came of an operation."""

    items: list[str]
    error: BrazeError | None
    seen: int  # requests


def check(trouble: str, operation: str, transport: str, directory: Path) -> None:
    """Hold one cell: with the fault for good, and, where it can pass, with it passing."""
    cell = Cell(TROUBLES[trouble], OPERATIONS[operation], transport, directory)
    if cell.trouble.calls_only and cell.operation.of_links:
        return
    if cell.trouble.place is None:
        clockwork.run(lambda: _answers(cell))
    else:
        make_certificates()
        clockwork.run(lambda: _place(cell))
    assert not list(directory.glob("*.partial"))


# --- the three ways to disturb an operation


async def _answers(cell: Cell) -> None:
    async with _world(cell) as (world, spoiler, log):
        secrets = secrets_of(world.sandbox, world.link)
        whole = await _done(cell, world, spoiler)
        assert whole.error is None
        assert whole.seen == cell.operation.requests
        for times in (1, _FOREVER):
            links, after = cell.operation.of_links, cell.operation.first
            if times > 1 and cell.operation.keeps != "nothing":
                after = 0
            spoiler.arm(cell.trouble.fault, of_links=links, after=after, times=times)
            came = await _done(cell, world, spoiler)
            spoiler.disarm()
            if times == 1:
                _check_passing(cell, came, whole)
            else:
                _check_lasting(cell, came, whole, after)
            _check_secrets(came, log, secrets)
            await until_idle(world.braze)
        await _check_usable(cell, world, spoiler, whole)


async def _place(cell: Cell) -> None:
    async with _world(cell) as (world, spoiler, log):
        secrets = secrets_of(world.sandbox, world.link)
        came = await _done(cell, world, spoiler)
        _check_error(cell, came.error)
        _check_secrets(came, log, secrets)
        await until_idle(world.braze)
        assert came.items == []


@asynccontextmanager
async def _world(cell: Cell) -> AsyncIterator[tuple[World, Spoiler, Log]]:
    spoiler = Spoiler()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(no_task_left())
        sandbox = await stack.enter_async_context(a_sandbox(spoiler))
        link = await a_link(sandbox) if cell.operation.of_links else ""
        if cell.trouble.place is None:
            url, transport = sandbox.url, TRANSPORTS[cell.transport]()
        else:
            url = await stack.enter_async_context(cell.trouble.place())
            link = link.replace(sandbox.url, url)
            transport = await stack.enter_async_context(trusting(cell.transport))
        log = stack.enter_context(listening())
        braze = a_client(url, transport)
        stack.push_async_callback(until_closed, sandbox)
        async with braze:
            yield World(sandbox, braze, link, cell.directory), spoiler, log
        assert not at_work()


async def _done(cell: Cell, world: World, spoiler: Spoiler) -> Came:
    came: list[Any] = []
    error: BrazeError | None = None
    if spoiler.fault is None:
        spoiler.arm(None, of_links=cell.operation.of_links, after=0, times=0)
    try:
        await cell.operation.run(world, came)
    except BrazeError as raised:
        error = raised
    items = sorted(repr(item) for item in came if not isinstance(item, FailedBatch))
    return Came(items, error, spoiler.seen)


# --- what must hold


def _check_passing(cell: Cell, came: Came, whole: Came) -> None:
    """A fault that passes costs one more request, or what that request would have brought."""
    operation, trouble = cell.operation, cell.trouble
    kind = cell.kind
    # What is refused is asked for in halves, and those of whom nothing is said once more.
    again = kind in _NARROWING or trouble.spoilt == "errors"
    narrowed = operation.narrows and again
    if kind is None or cell.is_tried_again or narrowed:
        assert came.error is None, repr(came.error)
        if kind is None and trouble.stands_in:
            return
        assert came.items == whole.items
        more = 0 if kind is None else 2 if narrowed and kind in _NARROWING else 1
        assert 0 <= came.seen - whole.seen - more <= trouble.poisons
        return
    _check_error(cell, came.error, lasting=False)
    assert set(came.items) <= set(whole.items)
    if operation.keeps == "others":
        assert len(came.items) == len(whole.items) - 1
    elif operation.keeps == "before":
        assert len(came.items) >= operation.first
    assert came.seen <= whole.seen + operation.narrows


def _check_lasting(cell: Cell, came: Came, whole: Came, after: int) -> None:
    """A fault that stays ends in the right error, after a bounded number of requests."""
    operation = cell.operation
    if cell.kind is None:
        assert came.error is None, repr(came.error)
        if not cell.trouble.stands_in:
            assert came.items == whole.items
            # What an answer before it left on the connection costs one request.
            assert 0 <= came.seen - whole.seen <= cell.trouble.poisons
        return
    _check_error(cell, came.error)
    tries = cell.tries
    if operation.endpoint.starts_export:
        assert came.seen == tries  # never repeated blindly
    if isinstance(came.error, ExportNotReadyError) or operation.of_links:
        assert came.seen <= _PIECES
        return
    assert set(came.items) <= set(whole.items)
    # aiohttp itself asks once more where a connection that was kept open has broken.
    twice = 1 + (operation.endpoint.method == "GET" and cell.transport == "aiohttp")
    most = after + tries * operation.requests * twice + 4 * operation.narrows
    assert after + tries <= came.seen <= most, came.seen


def _check_error(cell: Cell, error: BrazeError | None, *, lasting: bool = True) -> None:
    """The error is the right one, and tells what it is documented to tell."""
    operation, trouble = cell.operation, cell.trouble
    if trouble.poisons and type(error) is ConnectionLostError:
        return  # what was left on the connection came first
    assert type(error) is cell.kind, repr(error)
    if not isinstance(error, APIError | TransportError):
        return
    if isinstance(error, ArchiveError):
        assert error.file  # it may be read from anywhere, and is of no endpoint
        return
    assert error.hint
    if operation.of_links and isinstance(error, DecodeError):
        assert error.file  # one line of it, and not the link, is at fault
        return
    assert error.endpoint == operation.endpoint.label
    assert error.attempts == (cell.tries if lasting else 1)
    if isinstance(error, TransportError):
        assert error.sent is trouble.sent
    elif trouble.status is not None:
        assert error.status == trouble.status
    if isinstance(error, APIError) and not operation.of_links and trouble.message is not None:
        assert error.message == trouble.message
        assert error.errors == trouble.errors
    if isinstance(error, RateLimitError):
        assert error.retry_after is None or error.retry_after >= 0


async def _check_usable(cell: Cell, world: World, spoiler: Spoiler, whole: Came) -> None:
    """The client goes on as if nothing had been."""
    for _ in range(3 * cell.trouble.poisons):  # each connection has trouble once more
        await _done(cell, world, spoiler)
    came = await _done(cell, world, spoiler)
    assert (came.items, came.error, came.seen) == (whole.items, None, whole.seen)
    await until_idle(world.braze)


def _check_secrets(came: Came, log: Log, secrets: list[str]) -> None:
    shown = "\n".join(log.lines) + ("" if came.error is None else everything_of(came.error))
    assert [secret for secret in secrets if secret in shown] == []
