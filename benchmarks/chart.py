"""Bars as an SVG picture: one for each scenario, with its bound and its refusals."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from attrs import frozen

_ROW, _LEFT, _WIDTH, _TOP = 26, 430, 420, 82
_LONGEST = 1.6  # times the perfect scheduler's time that the scale ends at
_GOOD, _MISSED, _OTHER = "#2f7d4f", "#b3402e", "#8a8f98"
_LEGEND = (
    (_GOOD, "within its bounds"), (_MISSED, "beyond one of them"), (_OTHER, "for comparison"),
    ("#222", "the thick stroke: the longest time allowed"),
)  # fmt: skip


@frozen
class Bar:
    """One scenario.

    Attributes:
        name: what it is.
        ratio: time against the perfect scheduler's.
        refused: answers of 429.
        requests: all that were needed.
        bound: the largest ratio allowed; ``None`` for what is shown for comparison.
        kept: whether all bounds were kept.
    """

    name: str
    ratio: float
    refused: int
    requests: int
    bound: float | None
    kept: bool


def draw(bars: Sequence[Bar], path: Path) -> None:
    """Write the picture."""
    height = _TOP + _ROW * len(bars) + 34
    width = _LEFT + _WIDTH + 170
    size = f'width="{width}" height="{height}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    title = "Time against a perfect scheduler that asks first, and answers of 429"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" {style}>',
        f'<rect {size} fill="white"/>',
        f'<text x="16" y="22" font-size="15" font-weight="bold">{title}</text>',
        *_legend(),
        *_axis(height),
        *(part for number, bar in enumerate(bars) for part in _bar(number, bar)),
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n", "utf-8")


def _x(ratio: float) -> float:
    return _LEFT + min(ratio, _LONGEST) / _LONGEST * _WIDTH


def _legend() -> list[str]:
    parts, x = [], 16
    for colour, meaning in _LEGEND:
        parts += [
            f'<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/>',
            f'<text x="{x + 15}" y="43">{meaning}</text>',
        ]
        x += 40 + 6 * len(meaning)
    return parts


def _axis(height: int) -> list[str]:
    parts = []
    for tenth in range(0, 17, 2):
        ratio = tenth / 10
        colour, dash = ("#222", "") if tenth == 10 else ("#ddd", ' stroke-dasharray="2 3"')
        x = f"{_x(ratio):.1f}"
        ends = f'x1="{x}" x2="{x}" y1="{_TOP - 8}" y2="{height - 28}"'
        place = f'x="{x}" y="{_TOP - 14}" text-anchor="middle" fill="#666"'
        parts += [
            f'<line {ends} stroke="{colour}"{dash}/>',
            f"<text {place}>{ratio:.1f}</text>",
        ]
    return parts


def _bar(number: int, bar: Bar) -> list[str]:
    y = _TOP + number * _ROW
    colour = _OTHER if bar.bound is None else _GOOD if bar.kept else _MISSED
    end = _x(bar.ratio)
    beyond = max(end, _x(max(1.0, bar.bound or 0)))  # of whatever is drawn: there is room for text
    told = f"{bar.ratio:.3f} · {bar.refused} of {bar.requests} refused"
    size = f'width="{max(1.0, end - _LEFT):.1f}" height="{_ROW - 9}"'
    parts = [
        f'<text x="{_LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(bar.name)}</text>',
        f'<rect x="{_LEFT}" y="{y + 3}" {size} fill="{colour}"/>',
        f'<text x="{beyond + 6:.1f}" y="{y + 15}">{escape(told)}</text>',
    ]
    if bar.bound is not None:
        x = f"{_x(bar.bound):.1f}"
        ends = f'x1="{x}" x2="{x}" y1="{y}" y2="{y + _ROW - 4}"'
        parts.append(f'<line {ends} stroke="#222" stroke-width="2"/>')
    return parts
