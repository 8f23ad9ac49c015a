"""Stopping in good order: nothing more is sent, what was sent is waited for."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from braze_export.endpoints import Pool
from braze_export.limits import Lane, Limiter, Limits, Permit, PoolSnapshot


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
