"""Bounded work on a stream of units: so many at once, results as they come or in order.

Units are read only when a place is free, so a slow consumer slows the work down and the input
is never held whole. Whatever way the iteration ends, no task of it is left.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
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
    try:
        while True:
            crew.hire(stopped=stopped())
            task = crew.pick(ordered=ordered and not stopped())
            if task is not None:
                result = crew.finish(task)
                if result is not _END:
                    yield cast("R", result)
            elif crew.idle(stopped=stopped()):
                break
            else:
                await crew.progress()
    finally:
        await crew.dismiss()
    if crew.failure is not None:
        raise crew.failure


class _Crew:
    """The tasks of one fan-out: one that reads, and those that work."""

    def __init__(
        self,
        units: AsyncGenerator[Any, None],
        work: Callable[[Any], Awaitable[Any]],
        concurrency: int,
        scope: TaskScope,
    ) -> None:
        self._work = work
        self._concurrency = concurrency
        self._scope = scope
        self._reader = _Reader(units, scope)
        self._workers: list[asyncio.Task[Any]] = []  # in the order of their units
        self._exhausted = False
        self._broken = False
        self.failure: BaseException | None = None

    def hire(self, *, stopped: bool) -> None:
        """Put the unit that was read to work, and have the next one read if a place is free."""
        answer = self._reader.take()
        if answer is not None:
            unit = self._outcome(answer)  # a source that fails ends the reading, not the work
            self._exhausted = unit is _END
            if not self._exhausted:
                self._workers.append(self._scope.spawn(self._run(unit)))
        ended = self._exhausted or stopped or self._broken
        if not ended and self._reader.answer is None and len(self._workers) < self._concurrency:
            self._reader.ask()

    def pick(self, *, ordered: bool) -> asyncio.Task[Any] | None:
        """Take the next worker that is done, if any."""
        candidates = self._workers[:1] if ordered and not self._broken else self._workers
        for task in candidates:
            if task.done():
                self._workers.remove(task)
                return task
        return None

    def finish(self, task: asyncio.Task[Any]) -> Any:
        """Return a worker's result, or ``_END`` for its failure, with which all others end."""
        result = self._outcome(task)
        self._broken = self._broken or result is _END
        return result

    def _outcome(self, done: asyncio.Future[Any]) -> Any:
        if done.cancelled():
            self._scope.check_open()  # closed under our feet
            raise asyncio.CancelledError
        error = done.exception()
        if error is None:
            return done.result()
        if self.failure is None:
            self.failure = error
        return _END

    def idle(self, *, stopped: bool) -> bool:
        """Say whether nothing more is to be waited for."""
        return stopped or self._broken or (self._exhausted and not self._workers)

    async def progress(self) -> None:
        """Wait until something more is done; in order, some may be done and not yet due."""
        awaited = [*self._workers, *([self._reader.answer] if self._reader.answer else [])]
        pending = [future for future in awaited if not future.done()]
        if not self._reader.has_answered and pending:
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    async def dismiss(self) -> None:
        """End every task."""
        await cancel(*self._workers, self._reader.task)
        self._reader.forget()

    async def _run(self, unit: Any) -> Any:
        return await self._work(unit)


class _Reader:
    """Reads one unit whenever it is asked to, and closes the source at the end.

    All in one task: a source may hold a timeout or a context from one unit to the next.
    """

    def __init__(self, units: AsyncGenerator[Any, None], scope: TaskScope) -> None:
        self._units = units
        self._asked = asyncio.Event()
        self.answer: asyncio.Future[Any] | None = None
        self.task = scope.spawn(self._read())
        self.task.add_done_callback(lambda _: self._give_up())

    @property
    def has_answered(self) -> bool:
        """Whether there is an answer to take."""
        return self.answer is not None and self.answer.done()

    def ask(self) -> None:
        """Have the next unit read; ``answer`` will be that unit, or ``_END``."""
        self.answer = asyncio.get_running_loop().create_future()
        self._asked.set()
        if self.task.done():
            self._give_up()

    def take(self) -> "asyncio.Future[Any] | None":
        """Return the answer, once, if it is there."""
        if not self.has_answered:
            return None
        answer, self.answer = self.answer, None
        return answer

    def forget(self) -> None:
        """Drop an answer that nobody will take."""
        answer = self.take()
        if answer is not None and not answer.cancelled():
            answer.exception()  # else asyncio reports that nobody looked

    async def _read(self) -> None:
        async with aclosing(self._units):
            unit: Any = None
            while unit is not _END:
                await self._asked.wait()
                self._asked.clear()
                unit = await self._next(cast("asyncio.Future[Any]", self.answer))

    async def _next(self, answer: "asyncio.Future[Any]") -> Any:
        try:
            unit = await anext(self._units, _END)
        except Exception as error:  # noqa: BLE001 - whatever the caller's source raises
            answer.set_exception(error)
            return _END
        answer.set_result(unit)
        return unit

    def _give_up(self) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.cancel()
