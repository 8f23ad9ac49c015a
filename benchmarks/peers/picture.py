"""The chart: for each work, bars of everybody's time against the perfect scheduler's."""

from html import escape
from pathlib import Path
from typing import Final

from benchmarks.peers.cells import Outcome
from benchmarks.peers.figures import Figures
from benchmarks.peers.works import Work

CHART: Final = Path(__file__).parents[1] / "peers.svg"
_ROW, _LEFT, _WIDTH, _TOP, _GAP = 20, 300, 380, 66, 34
_LONGEST = 6.0  # times the perfect scheduler's time; longer bars are cut, and say so
_OURS, _OTHERS, _SHORT = "#2f7d4f", "#8a8f98", "#b3402e"


def draw(figures: Figures) -> None:
    """Write the picture."""
    parts, y = [], _TOP
    for work, outcomes in figures.works():
        parts.append(f'<text x="16" y="{y}" font-weight="bold">{escape(work.name)}</text>')
        y += 8
        parts += [
            part
            for number, outcome in enumerate(outcomes)
            for part in _bar(y + number * _ROW, figures, work, outcome)
        ]
        x, bottom = f"{_x(1.0):.1f}", y + _ROW * len(outcomes)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{y}" y2="{bottom}" stroke="#222"/>')
        y = bottom + _GAP
    CHART.write_text("\n".join([*_frame(y), *parts, "</svg>"]) + "\n", "utf-8")


def _frame(height: int) -> list[str]:
    width = _LEFT + _WIDTH + 330
    size = f'width="{width}" height="{height}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    title = "10,000 identifiers: time against a perfect scheduler (the line at 1)"
    legend = (
        f'<tspan fill="{_OURS}">■</tspan> ours  <tspan fill="{_OTHERS}">■</tspan> others  '
        f'<tspan fill="{_SHORT}">■</tspan> did not answer everything'
    )
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" {style}>',
        f'<rect {size} fill="white"/>',
        f'<text x="16" y="22" font-size="15" font-weight="bold">{title}</text>',
        f'<text x="16" y="42">{legend}</text>',
    ]


def _x(ratio: float) -> float:
    return _LEFT + min(ratio, _LONGEST) / _LONGEST * _WIDTH


def _bar(y: int, figures: Figures, work: Work, outcome: Outcome) -> list[str]:
    ratio = figures.ratio(work, outcome)
    ours = outcome.side.startswith("braze_export")
    colour = _SHORT if not outcome.whole else _OURS if ours else _OTHERS
    end = _x(ratio)
    size = f'width="{max(1.0, end - _LEFT):.1f}" height="{_ROW - 6}"'
    told = escape(_told(ratio, outcome))
    name = escape(outcome.side.replace("`", ""))
    return [
        f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{name}</text>',
        f'<rect x="{_LEFT}" y="{y + 2}" {size} fill="{colour}"/>',
        f'<text x="{max(end, _x(1.0)) + 6:.1f}" y="{y + 13}">{told}</text>',
    ]


def _told(ratio: float, outcome: Outcome) -> str:
    cut = "→ " if ratio > _LONGEST else ""
    refused = f" · {outcome.counts.refused} refused" if outcome.counts.refused else ""
    if outcome.whole:
        return f"{cut}{ratio:.2f}{refused}"
    missing = outcome.asked - outcome.answered - outcome.unknown
    ended = "ended, " if outcome.ended else ""
    return f"{cut}{ended}{missing:,} without an answer{refused}"
