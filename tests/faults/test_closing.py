"""Closing the client, and the loop itself, with work under way."""

import asyncio
import gc
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from braze_export import BrazeClient, ClientClosedError
from braze_export.sandbox import Fault, Sandbox
from tests.contract.exporting import at_work
from tests.faults import clockwork, places
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import (
    TRANSPORTS,
    Spoiler,
    World,
    a_client,
    a_link,
    a_sandbox,
    no_task_left,
    until_closed,
    until_idle,
)

_HOUR = str(int(clockwork.EPOCH) + 3600)


@frozen
class Moment:
    """Where an operation is when the client is closed.

    Attributes:
        fault: brings it there.
        asleep: whether it waits in the client, and not for an answer.
    """

    fault: Fault
    asleep: bool

    def is_for(self, operation: Operation) -> bool:
        """Say whether an operation ever comes there."""
        fatal = operation.endpoint.starts_export and self.fault.status == 503
        limit = operation.of_links and self.fault.status == 429
        return not (fatal or limit)


MOMENTS = {
    "under way": Moment(Fault(delay=1e6), asleep=False),
    "before a retry": Moment(Fault(status=503, headers={"retry-after": "60"}), asleep=True),
    "for the limit": Moment(
        Fault(status=429, headers={"x-ratelimit-reset": _HOUR}), asleep=True
    ),
}  # fmt: skip


async def turns(count: int = 20) -> None:
    """Let everything come to where it waits; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)


async def there(spoiler: Spoiler, sandbox: Sandbox, *, asleep: bool) -> None:
    """Return when the first request was spoilt, and its answer, if there is one, taken in."""
    while not spoiler.seen:
        await asyncio.sleep(0.001)  # a thread may have to get on
    await turns(200 if asleep else 5)
    assert sandbox.open_connections or asleep


async def closed_while(
    moment: Moment, operation: Operation, transport: str, directory: Path
) -> None:
    spoiler = Spoiler()
    async with no_task_left(), a_sandbox(spoiler) as sandbox:
        link = await a_link(sandbox)
        braze = a_client(sandbox.url, TRANSPORTS[transport]())
        spoiler.arm(moment.fault, of_links=operation.of_links, after=0, times=float("inf"))
        world = World(sandbox, braze, link, directory)
        task = asyncio.ensure_future(operation.run(world, []))
        await there(spoiler, sandbox, asleep=moment.asleep)
        seen = spoiler.seen
        assert not task.done()
        await asyncio.gather(braze.aclose(), braze.aclose())
        with pytest.raises(ClientClosedError):
            await task
        await braze.aclose()
        assert not at_work()
        await until_idle(braze)
        await until_closed(sandbox)
        assert spoiler.seen == seen  # nothing was sent afterwards
        with pytest.raises(ClientClosedError):
            await operation.run(world, [])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_client_closed_while_a_call_waits(operation: str, tmp_path: Path) -> None:
    chosen = OPERATIONS[operation]
    for number, moment in enumerate(MOMENTS.values(), list(OPERATIONS).index(operation)):
        transport = list(TRANSPORTS)[number % 2]
        if moment.is_for(chosen):
            clockwork.run(lambda: closed_while(moment, chosen, transport, tmp_path))  # noqa: B023
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_handshake_that_is_broken_off_leaves_no_connection(transport: str) -> None:
    async def main() -> None:
        # The place itself holds that nothing is open when it is left.
        async with (
            places.served()() as url,
            places.trusting(transport) as given,
            a_client(url, given) as braze,
        ):
            call = asyncio.ensure_future(braze.segments.details("any"))
            await asyncio.sleep(1.0)  # of the five that a connection may take
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    places.make_certificates()
    clockwork.run(main)


# --- the loop ends


async def work(sandbox: Sandbox, name: str, transport: str, begun: asyncio.Future[None]) -> None:
    """Work that nobody ends: it has to be cancelled."""
    async with a_client(sandbox.url, TRANSPORTS[transport]()) as braze:
        world = World(sandbox, braze, await a_link(sandbox), Path())
        asyncio.get_running_loop().call_later(3.0, begun.set_result, None)
        await OPERATIONS[name].run(world, [])
        raise AssertionError("it was not disturbed")


def delayed() -> Sandbox:
    """A local Braze that answers single calls at once, and others after an hour."""
    starts = "/users/export/segment"
    return a_sandbox(lambda _, path: None if path == starts else Fault(delay=3600.0))


def leave(name: str, transport: str, how: Callable[[], object]) -> None:
    """Leave the loop, in whatever way, while an operation is under way."""
    loop = clockwork.PatientLoop()

    async def main() -> None:
        async with delayed() as sandbox:
            begun = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(work(sandbox, name, transport, begun))
            await begun
            assert not task.done()
            assert at_work()
            how()
            await asyncio.sleep(0)  # a signal is heard here

    try:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(main())
    finally:
        loop.check()
        gc.collect()  # what was left open complains now


UNDER_WAY = pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("export_ids", "aiohttp"),
        ("export_ids yielding", "httpx"),
        ("get_many", "aiohttp"),
        ("get", "httpx"),
        ("segments.list", "httpx"),
        ("job.profiles", "aiohttp"),
        ("job.raw", "httpx"),
        ("job.download", "aiohttp"),
    ],
)


@UNDER_WAY
def test_a_loop_that_ends_under_way_leaves_nothing(name: str, transport: str) -> None:
    leave(name, transport, lambda: None)


@UNDER_WAY
def test_an_interrupt_from_the_keyboard_leaves_nothing(name: str, transport: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        leave(name, transport, lambda: signal.raise_signal(signal.SIGINT))


def test_an_iteration_that_is_given_up_ends_with_its_client() -> None:
    async def main() -> None:
        async with no_task_left(), a_sandbox() as sandbox:
            async with BrazeClient(sandbox.api_key, sandbox.url) as braze:
                export = aiter(braze.users.export_ids(sandbox.external_ids()))
                await anext(export)
            assert not at_work()
            await until_closed(sandbox)
            await export.aclose()

    clockwork.run(main)
