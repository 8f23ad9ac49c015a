"""How far a long export is: live on a terminal, plain lines elsewhere."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from braze_export.cli.screen import Screen, is_live
from braze_export.jobs.pace import Countable, Pace

_LIVE_TICK: Final = 0.1
_PLAIN_TICK: Final = 1.0
_LONGEST_PLAIN_TICK: Final = 60.0
_BESIDE: Final = 7  # columns beside the words: the spinner, the shortest bar, the gaps


class Reading(Countable, Protocol):
    """How far it is at one moment. The kinds of them are in ``readings``."""

    def parts(self, pace: Pace, *, narrow: bool) -> list[str]:
        """Say it in words; in few where the terminal is narrow."""
        ...


def duration(seconds: float) -> str:
    """Return a time as people write it: ``4 s``, ``2:05``, ``1:02:05``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    clock = f"{minutes:02}" if hours else f"{minutes}"
    return f"{hours}:{clock}:{whole % 60:02}" if hours else f"{clock}:{whole % 60:02}"


class _Display(Protocol):
    tick: float

    def show(self, reading: Reading, pace: Pace, elapsed: float) -> None: ...

    def close(self) -> None: ...


class _Live:
    """A line that is drawn anew."""

    tick = _LIVE_TICK

    def __init__(self, screen: Screen) -> None:
        self._bars = RichProgress(
            SpinnerColumn(finished_text="✓"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            console=screen.err,
            auto_refresh=False,  # or it would draw in a thread of its own
            expand=True,
        )
        self._narrow = screen.err.width < 78
        self._room = screen.err.width - _BESIDE
        self._task = self._bars.add_task("", total=None, text="")
        self._bars.start()

    def show(self, reading: Reading, pace: Pace, elapsed: float) -> None:
        parts = reading.parts(pace, narrow=self._narrow)
        if pace.left(reading) is None:
            parts.append(duration(elapsed) + ("" if self._narrow else " elapsed"))
        text = _fitting(parts, self._room)
        self._bars.update(self._task, completed=reading.done, total=reading.total, text=text)
        self._bars.refresh()

    def close(self) -> None:
        self._bars.stop()


def _fitting(parts: list[str], room: int) -> str:
    """Join parts; where there is no room for all, without the third and those that follow it.

    The first say how far it is, the last how long it takes: these are kept.
    """
    while len(text := " · ".join(parts)) > room and len(parts) > 3:
        parts = parts[:2] + parts[3:]
    return text


class _Plain:
    """A line now and then, ever more rarely: a log of an hour is not to be drowned."""

    def __init__(self, screen: Screen) -> None:
        self.tick = _PLAIN_TICK
        self._screen = screen
        self._last = ""

    def show(self, reading: Reading, pace: Pace, elapsed: float) -> None:
        if elapsed < _PLAIN_TICK:
            return  # over before it was long; the summary is enough
        parts = ", ".join(reading.parts(pace, narrow=False))
        line = f"[{elapsed:5.1f} s] {parts}"
        if line != self._last:  # the end may come just after a tick
            self._screen.say(line)
        self._last = line
        self.tick = min(max(_PLAIN_TICK, elapsed / 10), _LONGEST_PLAIN_TICK)

    def close(self) -> None:
        pass


class _Silent:
    tick = _LONGEST_PLAIN_TICK

    def show(self, reading: Reading, pace: Pace, elapsed: float) -> None:
        pass

    def close(self) -> None:
        pass


class Progress:
    """Shows readings while its ``async with`` block runs, and a last one at its end.

    Args:
        screen: where.
        read: takes a reading.
        shown: false for silence.
    """

    def __init__(self, screen: Screen, read: Callable[[], Reading], *, shown: bool = True) -> None:
        self._screen = screen
        self._read = read
        self._shown = shown
        self._pace = Pace()

    async def __aenter__(self) -> Self:
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._pace.mark(self._began, 0)
        self._display = self._make_display()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)
        try:
            self._show()
        finally:
            self._display.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._display.tick)
            self._show()

    def _show(self) -> None:
        now, reading = self._clock(), self._read()
        self._pace.mark(now, reading.done)
        self._display.show(reading, self._pace, now - self._began)

    def _make_display(self) -> _Display:
        if not self._shown:
            return _Silent()
        return _Live(self._screen) if is_live(stderr=True) else _Plain(self._screen)
