"""Stopping in good order: nothing more is sent, what was sent is waited for."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from braze_export.endpoints import Pool
from braze_export.errors import InputError
from braze_export.limiting.limits import Lane, Limiter, Limits, Permit, PoolSnapshot
from braze_export.validators import check_methods

T = TypeVar("T")


def check_stop(stop: asyncio.Event | None) -> None:
    """Accept what a job can be stopped with, or ``None``.

    Raises:
        InputError: it is something else, such as an event for threads, which would hold the loop.
    """
    if stop is None:
        return
    check_methods(stop, "asyncio.Event", "stop", ("is_set", "wait"))
    if not inspect.iscoroutinefunction(stop.wait):
        raise InputError("stop must be asyncio.Event(), whose wait is async; that of this is not")


async def to_its_end(work: Callable[[], T], give_up: Callable[[], object] = bool) -> T:
    """Run in a thread, and be there until it ends, also if cancelled: what it uses is closed then.

    Args:
        work: blocks.
        give_up: tells it, when cancelled, that it may end sooner.
    """
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        give_up()
        await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # nobody is left to be told of it
        raise


class Halted(Exception):  # noqa: N818 - nothing went wrong
    """A request was not sent, because the job is to stop."""


class Halting:
    """A limiter that grants nothing more once it is told to. Otherwise as the one it stands for."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._waiting: set[asyncio.Task[Any]] = set()
        self.halted = False

    @property
    def limits(self) -> Limits:
        """The limits that are kept."""
        return self._limiter.limits

    async def start(self) -> None:
        """Do nothing: the client starts its limiter."""

    async def acquire(self, pool: Pool, lane: Lane) -> Permit:
        """Wait for the right to send one request.

        Raises:
            Halted: it is not to be sent any more.
        """
        if self.halted:
            raise Halted
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting.add(task)
        try:
            return await self._limiter.acquire(pool, lane)
        except asyncio.CancelledError:
            self._raise_halted(task)
            raise
        finally:
            self._waiting.discard(task)

    def _raise_halted(self, task: asyncio.Task[Any]) -> None:
        if self.halted and not task.uncancel():  # else somebody else has cancelled it as well
            raise Halted from None

    def halt(self) -> None:
        """Grant nothing more."""
        self.halted = True
        for task in self._waiting:
            task.cancel()

    def snapshot(self) -> Mapping[Pool, PoolSnapshot]:
        """Return how each limit stands."""
        return self._limiter.snapshot()

    async def aclose(self) -> None:
        """Do nothing: the client closes its limiter."""
