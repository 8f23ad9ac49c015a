"""An event loop whose clock jumps, for work on real sockets and in threads.

Where ``tests.virtual`` jumps at once, this waits a moment first: what was written to a socket of
this machine may be on its way, and a thread may be at work. No timeout, pause or window takes its
time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_800_000_000.0  # seconds: the wall clock when the loop's begins
_MOMENT = 0.001  # seconds, real ones: by then anything sent on this machine has arrived
_NEVER = 5.0  # seconds, real ones, without timers: nothing will happen any more
_TICK = 1e-8  # seconds that a turn of the loop takes; none at all would let rounding stop time


class _Threads(ThreadPoolExecutor):
    """Knows how many threads are at work."""

    def __init__(self) -> None:
        super().__init__(max_workers=4)
        self.busy = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.busy += 1
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._is_done)
        return future

    def _is_done(self, _: object) -> None:
        self.busy -= 1


class _Selector(selectors.DefaultSelector):
    def __init__(self, threads: _Threads) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self.alarm: tuple[int, Callable[[], object]] | None = None
        self._threads = threads

    def select(self, timeout: float | None = None) -> Any:
        self.now += _TICK
        self.turns += 1
        if self.alarm is not None and self.turns >= self.alarm[0]:
            (_, ring), self.alarm = self.alarm, None
            ring()
            timeout = 0
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        while not events and self._threads.busy > 0:
            events = super().select(_MOMENT)
        if not events:
            events = super().select(_NEVER if timeout is None else _MOMENT)
        if not events and timeout is None:
            raise AssertionError("everything waits for something that never comes")
        if not events and timeout is not None:
            self.now += timeout
        return events


class PatientLoop(asyncio.SelectorEventLoop):
    """Moves its clock to the next timer once nothing else is going to happen.

    Attributes:
        complaints: what asyncio reports because nobody else heard of it.
    """

    def __init__(self) -> None:
        threads = _Threads()
        self._jumping = _Selector(threads)
        super().__init__(self._jumping)
        self.set_default_executor(threads)
        self.complaints: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.complaints.append(context))

    def time(self) -> float:
        return self._jumping.now

    async def shutdown_default_executor(self, *_: object) -> None:
        """Wait for the threads to end, which from Python 3.12 on has a timeout of this clock."""
        await super().shutdown_default_executor()

    def check(self) -> None:
        """Hold that nothing went unheard."""
        assert not self.complaints, self.complaints

    @property
    def turns(self) -> int:
        """How often it went round."""
        return self._jumping.turns

    def alarm(self, turns: int, ring: Callable[[], object]) -> None:
        """Have something called between two turns, so many from now on. There is one alarm."""
        self._jumping.alarm = (self.turns + turns, ring)


def wall_clock() -> float:
    """Return the time of a clock that goes with the loop's."""
    return EPOCH + asyncio.get_running_loop().time()


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end; nothing may be left unheard."""
    loop = PatientLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main())
    loop.check()
    return result
