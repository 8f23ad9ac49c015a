"""Interrupts an operation at its n-th turn of the event loop, for every n until it is done.

Whatever an operation and the tasks behind it wait for, they wait for it at least from one turn to
the next: at every place where something can be interrupted, it is.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from attrs import frozen

from braze_export import BrazeClient, ClientClosedError
from tests.contract.exporting import at_work
from tests.faults import clockwork
from tests.faults.operations import OPERATIONS
from tests.faults.troubles import TROUBLES
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

How: TypeAlias = Literal["cancel", "close"]


@frozen
class Trial:
    """An operation over a transport, to be interrupted.

    Attributes:
        how: by cancelling its task, or by closing the client.
        trouble: happens to its first request, so that it waits for the limit or a second try.
    """

    operation: str
    transport: str
    how: How
    directory: Path
    trouble: str | None = None

    def turns(self) -> int:
        """Return how many turns of the loop it takes, uninterrupted."""
        return clockwork.run(self._count)

    def interrupt(self, turns: Iterable[int]) -> None:
        """Interrupt it at each of these turns; all that must hold afterwards is held."""
        clockwork.run(lambda: self._interrupt(turns))
        assert not list(self.directory.glob("*.partial"))

    async def _count(self) -> int:
        spoiler = Spoiler()
        async with _place(self.directory, spoiler) as world, _client(self, world) as there:
            self._spoil(spoiler)
            before = _loop().turns
            await OPERATIONS[self.operation].run(there, [])
            return _loop().turns - before

    async def _interrupt(self, turns: Iterable[int]) -> None:
        spoiler = Spoiler()
        async with _place(self.directory, spoiler) as world:
            for turn in turns:
                self._spoil(spoiler)
                try:
                    await self._once(turn, world)
                except AssertionError as error:
                    error.add_note(f"interrupted at turn {turn}")
                    raise
            gc.collect()  # now is the time to complain of what was left

    def _spoil(self, spoiler: Spoiler) -> None:
        fault = None if self.trouble is None else TROUBLES[self.trouble].fault
        links = OPERATIONS[self.operation].of_links
        spoiler.arm(fault, of_links=links, after=0, times=1)

    async def _once(self, turn: int, world: World) -> None:
        run = OPERATIONS[self.operation].run
        async with _client(self, world) as there:
            task = asyncio.ensure_future(run(there, []))
            stopping: list[asyncio.Future[Any]] = []
            _loop().alarm(turn, lambda: stopping.extend(self._stop(task, there)))
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            await asyncio.gather(*stopping, return_exceptions=True)
            _loop().alarm(0, lambda: None)
            if stopping:
                assert type(outcome) in _ENDS[self.how], repr(outcome)
            else:
                assert outcome is None, repr(outcome)
            if self.how == "cancel":
                await until_idle(there.braze)
                await run(there, [])  # it goes on as if nothing had been
        assert not at_work()
        await until_idle(there.braze)
        await until_closed(world.sandbox)

    def _stop(self, task: "asyncio.Future[Any]", world: World) -> "Iterator[asyncio.Future[Any]]":
        """Stop the operation, if it is not done; yield what ends when that has happened."""
        if task.done():
            return
        if self.how == "cancel":
            task.cancel()
            yield task
        else:
            yield asyncio.gather(world.braze.aclose(), world.braze.aclose())


# What an operation that is stopped under way may end with. Closing may come too late.
_ENDS: dict[How, set[type]] = {
    "cancel": {asyncio.CancelledError},
    "close": {ClientClosedError, type(None)},
}


def _loop() -> clockwork.PatientLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, clockwork.PatientLoop)
    return loop


@asynccontextmanager
async def _place(directory: Path, spoiler: Spoiler) -> AsyncIterator[World]:
    async with no_task_left(), a_sandbox(spoiler) as sandbox:
        link = await a_link(sandbox)
        async with BrazeClient(sandbox.api_key, sandbox.url) as nobody:
            yield World(sandbox, nobody, link, directory)


@asynccontextmanager
async def _client(trial: Trial, world: World) -> AsyncIterator[World]:
    async with a_client(world.sandbox.url, TRANSPORTS[trial.transport]()) as braze:
        yield World(world.sandbox, braze, world.link, world.directory)
