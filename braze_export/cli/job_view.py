"""How far a bulk job is: live on a terminal, plain lines in a log, JSON for machines.

What came of it in the end is told in ``job_report``.
"""

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from attrs import frozen
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from braze_export.cli.job_report import JsonLines, progress_object, tell
from braze_export.cli.job_words import (
    giving_up,
    going_on,
    ids,
    is_silent,
    limit,
    next_window,
    plain,
    seconds_left,
    share,
    silence,
    silence_and_why,
    writing,
)
from braze_export.cli.progress import duration
from braze_export.cli.screen import Screen, count, is_live
from braze_export.jobs.values import JobProgress, JobReport

_PLAIN_TICK: Final = 1.0
_LONGEST_PLAIN_TICK: Final = 60.0
_JSON_TICK: Final = 1.0

_LONGEST_BAR: Final = 60
_BESIDE_BAR: Final = 22  # columns kept for "100 %  123:04:05 left", so that the bar stands still
_GAUGE: Final = 8
_NARROW: Final = 60
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class View(Protocol):
    """Shows a job while its ``with`` block runs, and what came of it at the end."""

    def show(self, progress: JobProgress) -> None:
        """Take in how far the job is. Cheap enough for a few times a second."""
        ...

    def report(self, report: JobReport) -> None:
        """Tell what came of the job; nothing is shown after it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def job_view(
    screen: Screen, *, quiet: bool, as_json: bool, target: str = "the Parquet file"
) -> View:
    """Return the view that fits where it is shown.

    Args:
        screen: where. JSON goes to its standard output, everything else to standard error.
        quiet: nothing for people. JSON is no talk: ``as_json`` goes before it.
        as_json: a JSON object a line.
        target: what is written in the last phase, in words.
    """
    if as_json:
        return _Json(screen)
    if quiet:
        return _View()
    return _Live(screen, target) if is_live(stderr=True) else _Plain(screen, target)


class _View:
    """A view that shows nothing."""

    def show(self, progress: JobProgress) -> None:
        pass

    def report(self, report: JobReport) -> None:
        pass

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Json(_View):
    """A line a second at most, and whenever the phase changes."""

    def __init__(self, screen: Screen) -> None:
        self._lines = JsonLines(screen)
        self._phase = ""
        self._next = -math.inf

    def show(self, progress: JobProgress) -> None:
        if progress.phase != self._phase or progress.elapsed >= self._next:
            self._phase, self._next = progress.phase, progress.elapsed + _JSON_TICK
            self._lines.write(progress_object(progress))

    def report(self, report: JobReport) -> None:
        self._lines.write_report(report)


class _Plain(_View):
    """A line now and then, ever more rarely: a log of thirteen hours is not to be drowned."""

    def __init__(self, screen: Screen, target: str) -> None:
        self._screen = screen
        self._target = target
        self._phase, self._line = "", ""
        self._next = _PLAIN_TICK
        self._told_already = False
        self._latest: JobProgress | None = None

    def show(self, progress: JobProgress) -> None:
        self._latest = progress
        changed = progress.phase != self._phase and progress.elapsed >= _PLAIN_TICK
        resumed = progress.already and not self._told_already
        if changed or resumed or progress.elapsed >= self._next:
            self._say(progress)

    def report(self, report: JobReport) -> None:
        self.close()
        tell(report, self._screen)

    def close(self) -> None:
        if self._latest is not None and self._latest.elapsed >= _PLAIN_TICK:
            self._say(self._latest)
        self._latest = None

    def _say(self, progress: JobProgress) -> None:
        line = f"[{progress.elapsed:5.1f} s] {', '.join(plain(progress, self._target))}"
        if line != self._line:  # the end may come just after a tick
            self._screen.say(line + self._earlier(progress))
        self._phase, self._line = progress.phase, line
        pause = min(max(_PLAIN_TICK, progress.elapsed / 10), _LONGEST_PLAIN_TICK)
        self._next = progress.elapsed + pause

    def _earlier(self, progress: JobProgress) -> str:
        if not progress.already or self._told_already:
            return ""
        self._told_already = True
        return f", {going_on(progress)}"


class _Live(_View):
    """Four lines that are drawn anew. They are four at any time, or the terminal would jump."""

    def __init__(self, screen: Screen, target: str) -> None:
        self._screen = screen
        self._target = target
        self._live = Live(
            console=screen.err,
            auto_refresh=False,  # or it would draw in a thread of its own
            redirect_stdout=False,  # what is printed there is data
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def show(self, progress: JobProgress) -> None:
        width = self._screen.err.width
        self._live.update(_drawn(progress, self._target, width), refresh=True)

    def report(self, report: JobReport) -> None:
        self.close()
        tell(report, self._screen)

    def close(self) -> None:
        self._live.stop()


@frozen
class _Part:
    """A part of a line: where there is no room for all, the highest ranks are left out."""

    text: str
    rank: int
    style: str = ""


def _fitted(parts: Sequence[_Part], room: int) -> Text:
    parts = list(parts)
    while len(parts) > 1 and sum(len(p.text) for p in parts) + 3 * (len(parts) - 1) > room:
        parts.remove(max(parts, key=lambda part: part.rank))
    line = Text(" · ", no_wrap=True).join(Text(part.text, style=part.style) for part in parts)
    line.truncate(room, overflow="ellipsis")
    return line


def _drawn(progress: JobProgress, target: str, width: int) -> RenderableType:
    return Group(
        _bar(progress, target, width),
        _fitted(_pace(progress, width), width),
        _fitted(_standing(progress, width), width),
        _fitted(_outcome(progress), width),
    )


def _bar(progress: JobProgress, target: str, width: int) -> RenderableType:
    part = share(progress)
    text = _beside_bar(progress, target)
    kept = max(_BESIDE_BAR, len(text))
    length = max(4, min(_LONGEST_BAR, width - kept - 1))
    if part is None:
        bar = ProgressBar(total=None, pulse=True, width=length)
    else:
        bar = ProgressBar(total=1.0, completed=part, width=length)
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_column(width=length)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_row(bar, Text(text))
    return line


def _beside_bar(progress: JobProgress, target: str) -> str:
    if progress.phase == "writing":
        return writing(progress, target)
    part = share(progress)
    if part is None:
        return "counting the identifiers"
    return f"{math.floor(100 * part):3} %  {_when(progress)}"


def _when(progress: JobProgress) -> str:
    if is_silent(progress) and giving_up(progress):
        return giving_up(progress)
    left = seconds_left(progress)
    return duration(progress.elapsed) if left is None else f"{duration(left)} left"


def _pace(progress: JobProgress, width: int) -> list[_Part]:
    silent = is_silent(progress)
    parts = [_Part(ids(progress), 1 if silent else 0)]
    if silent:
        why = silence_and_why(progress)
        parts.append(_Part(why if len(why) <= width else silence(progress), 0, "bold red"))
    elif progress.phase == "exporting":
        parts.append(_Part(f"{progress.rate:,.0f}/s", 1))
    if progress.already:
        parts.append(_Part(going_on(progress), 2))
    return parts


def _standing(progress: JobProgress, width: int) -> list[_Part]:
    parts = []
    pool, window = progress.pool, next_window(progress)
    if pool is not None and pool.remaining is not None and progress.phase == "exporting":
        # An empty gauge says less than the time until it fills.
        plain_words = window is not None and width < _NARROW
        gauge = "" if plain_words else f"{_gauge(pool.remaining, pool.limit)} "
        parts.append(_Part(f"limit {gauge}{limit(pool)}", 0))
    if window is not None:
        parts.append(_Part(f"next window in {duration(window)}", 1, "yellow"))
    parts.append(_Part(count(progress.requests, "request"), 2))
    if progress.retries:
        parts.append(_Part(f"{progress.retries:,} again", 3))
    if progress.rate_limited:
        parts.append(_Part(f"{progress.rate_limited:,} refused", 4))
    return parts


def _gauge(remaining: int, of: int) -> str:
    eighths = round(min(1.0, max(0.0, remaining / of)) * 8 * _GAUGE) if of > 0 else 0
    full, rest = divmod(eighths, 8)
    return f"▕{(_EIGHTHS[8] * full + (_EIGHTHS[rest] if rest else '')).ljust(_GAUGE)}▏"


def _outcome(progress: JobProgress) -> list[_Part]:
    parts = [_Part(count(progress.profiles, "profile"), 1)]
    parts.append(_Part(f"{progress.unknown:,} unknown", 2))
    parts.append(_Part(f"{progress.failed:,} failed", 0, "bold red" if progress.failed else ""))
    if progress.repeated:
        parts.append(_Part(f"{progress.repeated:,} repeated", 3))
    return parts
