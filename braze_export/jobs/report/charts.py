"""Charts of a run as SVG: bars and steps, for what comes in bursts is no smooth curve. Pure.

Colours and letters are the page's: the shapes have classes.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

from attrs import define, field, frozen

from braze_export.jobs.report.course import Stretch
from braze_export.jobs.report.scales import number, span, ticks, time_ticks

_LETTER: Final = 7.0  # the width of a digit of the axes' type
_UNDER: Final = 38.0  # for the time axis
_RIBBON: Final = 16.0
_BETWEEN: Final = 26.0  # panels; the name of the lower one stands there


@frozen
class Format:
    """The size of a chart, in the units that its letters are 12 of.

    Attributes:
        name: tells charts of different sizes apart.
        width: of the whole chart.
        ticks: of the time axis, at most.
    """

    name: str
    width: float
    ticks: int


WIDE: Final = Format("wide", 780.0, 12)
NARROW: Final = Format("narrow", 350.0, 6)


def throughput(run: Sequence[Stretch], form: Format) -> str:
    """Draw the identifiers per second over time.

    Args:
        run: at least one stretch.
        form: the size.
    """
    mean = _mean(run, lambda part: part.done)
    chart = _Chart(run, form, ticks(max(part.done for part in run), 5))
    panel = chart.panel(170.0, chart.ticks, "identifiers/s")
    chart.bars(panel, lambda part: part.done, "done", "identifiers/s")
    chart.level(panel, mean, f"mean: {number(mean)} identifiers/s")
    told = (
        f"Bars of {span(run[0].end - run[0].begin)} over {span(run[-1].end)}: {number(mean)} a "
        f"second on the average, {number(max(part.done for part in run))} in the fastest bar, "
        f"{number(min(part.done for part in run))} in the slowest."
    )
    return chart.drawn("throughput", "Identifiers per second over time", told)


def rate_limit(run: Sequence[Stretch], form: Format) -> str:
    """Draw the requests per second over time, the use of the window, waiting and refusals.

    Args:
        run: at least one stretch.
        form: the size.
    """
    chart = _Chart(run, form, ticks(max(part.requests for part in run), 5))
    chart.bars(
        chart.panel(120.0, chart.ticks, "requests/s"), lambda p: p.requests, "sent", "requests/s"
    )
    refused = sum(part.refused for part in run)
    waiting = _mean(run, lambda part: part.waiting)
    mean, most = _mean(run, lambda part: part.requests), max(part.requests for part in run)
    told = [f"{number(mean)} requests a second on the average, {number(most)} at most."]
    if any(part.use for part in run):
        chart.use(chart.panel(80.0, [0.0, 0.5, 1.0], "window used", percent=True))
        used = _mean([p for p in run if p.use], lambda part: part.use.mean if part.use else 0.0)
        told.append(f"Of the window {used:.0%} was used up on the average.")
    if waiting:
        chart.ribbon("waiting", _waiting, opaque=lambda part: part.waiting)
        told.append(f"Requests waited for {waiting:.0%} of the time.")
    if refused:
        chart.marks("refused", lambda part: part.refused)
    told.append(f"{refused:,} refused by the rate limit.")
    return chart.drawn("limit", "Requests and the rate limit over time", " ".join(told))


def _waiting(part: Stretch) -> str:
    return f"requests waited for {part.waiting:.0%} of the time"


def _mean(run: Sequence[Stretch], value: Callable[[Stretch], float]) -> float:
    seconds = sum(part.end - part.begin for part in run)
    return sum(value(part) * (part.end - part.begin) for part in run) / seconds


@frozen
class _Panel:
    """A part of a chart with an axis of its own: from ``top`` down, values up to ``highest``."""

    top: float
    height: float
    highest: float

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - value / self.highest)


@define
class _Chart:
    """A chart that is drawn from the top down."""

    run: Sequence[Stretch]
    form: Format
    ticks: list[float]
    _parts: list[str] = field(factory=list, init=False)
    _bottom: float = field(default=0.0, init=False)

    @property
    def _left(self) -> float:
        return _LETTER * max(7, *(len(number(tick)) for tick in self.ticks)) + 8

    def _x(self, seconds: float) -> float:
        width = self.form.width - self._left - 12
        return self._left + width * seconds / self.run[-1].end

    def panel(
        self, height: float, ticks: Sequence[float], name: str, *, percent: bool = False
    ) -> _Panel:
        """Begin a panel below what is there: its name, its grid, its numbers."""
        panel = _Panel(self._bottom + _BETWEEN, height, ticks[-1])
        self._text(name, self._left, panel.top - 9, "start")
        for tick in ticks:
            y = panel.y(tick)
            text = f"{tick:.0%}" if percent else number(tick)
            self._across("grid", y)
            self._text(text, self._left - 6, y + 4, "end")
        self._bottom = panel.top + panel.height
        return panel

    def bars(self, panel: _Panel, value: Callable[[Stretch], float], kind: str, unit: str) -> None:
        """Draw a bar for each stretch."""
        for part in self.run:
            height = max(1.0, panel.y(0) - panel.y(value(part)))  # what is there is seen
            y = panel.y(0) - height
            bar = self._rect(kind, part, y, height, gap=True) if value(part) else ""
            self._told(part, f"{number(value(part))} {unit}", panel.top, panel.height, bar)

    def level(self, panel: _Panel, value: float, text: str) -> None:
        """Draw a line at a value."""
        y = panel.y(value)
        self._across("level", y, text)

    def use(self, panel: _Panel) -> None:
        """Draw how much of the window was used up: steps, and around them from least to most."""
        path, before = [], False
        for part in self.run:
            if part.use is None:
                before = False
                continue
            top, low, y = (panel.y(s) for s in (part.use.high, part.use.low, part.use.mean))
            bar = self._rect("range", part, top, low - top)
            text = f"{part.use.mean:.0%} of the window used"
            if part.use.high - part.use.low >= 0.01:
                text += f", from {part.use.low:.0%} to {part.use.high:.0%}"
            self._told(part, text, panel.top, panel.height, bar)
            path.append(f"{'L' if before else 'M'}{self._x(part.begin):.1f} {y:.1f}")
            path.append(f"H{self._x(part.end):.1f}")
            before = True
        self._parts.append(f'<path class="use" d="{"".join(path)}"/>')

    def ribbon(
        self, name: str, text: Callable[[Stretch], str], opaque: Callable[[Stretch], float]
    ) -> None:
        """Draw a strip that is the darker the more there is."""
        top = self._strip(name)
        for part in self.run:
            if share := opaque(part):
                bar = self._rect(name, part, top, _RIBBON - 5, more=f' opacity="{share:.2f}"')
                self._told(part, text(part), top, _RIBBON, bar)

    def marks(self, name: str, value: Callable[[Stretch], int]) -> None:
        """Draw a strip with a dot wherever there is something."""
        top = self._strip(name)
        for part in self.run:
            if number_ := value(part):
                x = (self._x(part.begin) + self._x(part.end)) / 2
                dot = f'<circle class="{name}" cx="{x:.1f}" cy="{top + 5.5:.1f}" r="3"/>'
                self._told(part, f"{number_:,} {name}", top, _RIBBON, dot)

    def _strip(self, name: str) -> float:
        """Begin a strip below what is there."""
        top = self._bottom + 8
        self._text(name, self._left - 6, top + 10, "end")
        self._bottom = top + _RIBBON - 1
        return top

    def drawn(self, name: str, title: str, description: str) -> str:
        """Return the whole chart, its time axis below."""
        bottom, end = self._bottom, self.run[-1].end
        unit, ticks = time_ticks(end, self.form.ticks)
        for at, text in ticks:
            self._parts.append(f'<path class="axis" d="M{self._x(at):.1f} {bottom:.1f}v5"/>')
            self._text(text, self._x(at), bottom + 17, "middle")
        self._across("axis", bottom)
        self._text(f"{unit} since the start", self._x(end), bottom + 33, "end")
        key = f"{name}-{self.form.name}"
        return (
            f'<svg class="{self.form.name}" viewBox="0 0 {self.form.width:g} '
            f'{bottom + _UNDER:g}" role="img" aria-labelledby="{key} {key}-told">'
            f'<title id="{key}">{escape(title)}</title>'
            f'<desc id="{key}-told">{escape(description)}</desc>{"".join(self._parts)}</svg>'
        )

    def _told(self, part: Stretch, text: str, top: float, height: float, shape: str) -> None:
        """Put a shape down, with what is told where somebody points anywhere above or below."""
        when = f"{span(part.begin)} to {span(part.end)}: {text}"
        area = self._rect("area", part, top, height)
        self._parts.append(f"<g><title>{escape(when)}</title>{area}{shape}</g>")

    def _rect(
        self,
        kind: str,
        part: Stretch,
        y: float,
        height: float,
        *,
        gap: bool = False,
        more: str = "",
    ) -> str:
        x, end = self._x(part.begin), self._x(part.end)
        width = end - x - (1 if gap and end - x > 5 else 0)
        return (
            f'<rect class="{kind}" x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" '
            f'height="{height:.1f}"{more}/>'
        )

    def _across(self, kind: str, y: float, title: str = "") -> None:
        inside = f"<title>{escape(title)}</title>" if title else ""
        self._parts.append(
            f'<line class="{kind}" x1="{self._left:.1f}" y1="{y:.1f}" '
            f'x2="{self._x(self.run[-1].end):.1f}" y2="{y:.1f}">{inside}</line>'
        )

    def _text(self, text: str, x: float, y: float, anchor: str) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )
