"""Bounded work on a stream of units: so many at once, results as they come or in order.

Units are read only when a place is free, so a slow consumer slows the work down and the input
is never held whole. Whatever way the iteration ends, no task of it is left.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar, cast

from braze_export.tasks import TaskScope, cancel

U = TypeVar("U")
R = TypeVar("R")

_END: Final = object()


async def fan_out(
    units: AsyncGenerator[U, None],
    work: Callable[[U], Awaitable[R]],
    *,
    concurrency: int,
    ordered: bool,
    scope: TaskScope,
    stopped: Callable[[], bool],
) -> AsyncGenerator[R, None]:
    """Yield ``await work(unit)`` for each unit.

    Args:
        units: read one at a time, and closed at the end.
        work: is run for up to ``concurrency`` units at once.
        concurrency: bounds the units read and not yet yielded.
        ordered: yield in the order of the units.
        scope: runs the tasks.
        stopped: once true, no further unit is read; what is done by then is still yielded.

    Raises:
        Exception: whatever ``units`` or ``work`` raised first, once everything that was
            done by then has been yielded.
    """
    crew = _Crew(units, work, concurrency, scope)
    async with aclosing(units):
        try:
            while True:
                crew.hire(stopped=stopped())
                task = crew.pick(ordered=ordered)
                if task is not None:
                    result = crew.settle(task)
                    if result is not _END:
                        yield cast("R", result)
                elif crew.idle(stopped=stopped()):
                    break
                else:
                    await crew.progress()
        finally:
            await cancel(*crew.everyone())
    if crew.failure is not None:
        raise crew.failure


class _Crew:
    """The tasks of one fan-out: at most one that reads, and those that work."""

    def __init__(
        self,
        units: AsyncIterator[Any],
        work: Callable[[Any], Awaitable[Any]],
        concurrency: int,
        scope: TaskScope,
    ) -> None:
        self._units = units
        self._work = work
        self._concurrency = concurrency
        self._scope = scope
        self._reader: asyncio.Task[Any] | None = None
        self._workers: list[asyncio.Task[Any]] = []  # in the order of their units
        self._exhausted = False
        self.failure: BaseException | None = None

    def hire(self, *, stopped: bool) -> None:
        """Put the unit that was read to work, and have the next one read if a place is free."""
        if self._reader is not None and self._reader.done():
            reader, self._reader = self._reader, None
            unit = self.settle(reader)
            self._exhausted = unit is _END
            if not self._exhausted:
                self._workers.append(self._scope.spawn(self._run(unit)))
        ended = self._exhausted or stopped or self.failure is not None
        if self._reader is None and not ended and len(self._workers) < self._concurrency:
            self._reader = self._scope.spawn(self._read())

    def pick(self, *, ordered: bool) -> asyncio.Task[Any] | None:
        """Take the next worker that is done, if any."""
        candidates = self._workers[:1] if ordered and self.failure is None else self._workers
        for task in candidates:
            if task.done():
                self._workers.remove(task)
                return task
        return None

    def settle(self, task: asyncio.Task[Any]) -> Any:
        """Return the result of a task that is done, or note its failure and return ``_END``."""
        if task.cancelled():
            self._scope.check_open()  # the client was closed under our feet
            raise asyncio.CancelledError
        error = task.exception()
        if error is None:
            return task.result()
        if self.failure is None:
            self.failure = error
        return _END

    def idle(self, *, stopped: bool) -> bool:
        """Say whether nothing more is to be waited for."""
        if stopped or self.failure is not None:
            return True
        return self._reader is None and not self._workers

    async def progress(self) -> None:
        """Wait until another task is done; in order, some may be done and not yet due."""
        pending = [task for task in self.everyone() if not task.done()]
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    def everyone(self) -> list[asyncio.Task[Any]]:
        """Return every task that is not settled."""
        return [*self._workers, *([self._reader] if self._reader is not None else [])]

    async def _read(self) -> Any:
        return await anext(self._units, _END)

    async def _run(self, unit: Any) -> Any:
        return await self._work(unit)
