"""What a process holds over time, as samples and as an SVG picture of several lines."""

import os
import resource
import time
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from attrs import frozen

_LEFT, _WIDTH, _HEIGHT, _TOP, _GAP = 70, 640, 110, 46, 44
_INK, _PALE = "#2f5d7d", "#dfe5ea"


@frozen
class Sample:
    """One moment: seconds since the beginning, and what is held."""

    seconds: float
    memory_mb: float
    descriptors: float
    tasks: float


def sample(began: float, tasks: int) -> Sample:
    """Look at this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return Sample(
        time.monotonic() - began,
        pages * resource.getpagesize() / 1e6,
        len(list(os.scandir("/proc/self/fd"))),
        tasks,
    )


_LINES: tuple[tuple[str, Callable[[Sample], float]], ...] = (
    ("memory, MB", lambda s: s.memory_mb),
    ("open descriptors", lambda s: s.descriptors),
    ("tasks", lambda s: s.tasks),
)


def draw(title: str, samples: Sequence[Sample], path: Path) -> None:
    """Write the picture: a strip for each line, all from zero."""
    height = _TOP + len(_LINES) * (_HEIGHT + _GAP)
    width = _LEFT + _WIDTH + 40
    size = f'width="{width}" height="{height}"'
    style = 'font-family="sans-serif" font-size="12" fill="#222"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}" {style}>',
        f'<rect {size} fill="white"/>',
        f'<text x="16" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, read) in enumerate(_LINES):
        top = _TOP + number * (_HEIGHT + _GAP)
        parts += _strip(name, [(s.seconds, read(s)) for s in samples], top)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", "utf-8")


def _strip(name: str, points: list[tuple[float, float]], top: int) -> list[str]:
    bottom = top + 16 + _HEIGHT - 20
    last = max(seconds for seconds, _ in points) or 1.0
    most = max(1.0, *(value for _, value in points)) * 1.1
    line = " ".join(
        f"{_LEFT + seconds / last * _WIDTH:.1f},{bottom - value / most * (_HEIGHT - 20):.1f}"
        for seconds, value in points
    )
    right = _LEFT + _WIDTH
    return [
        f'<text x="{_LEFT}" y="{top + 8}">{escape(name)}</text>',
        f'<path d="M{_LEFT} {top + 16}V{bottom}H{right}" fill="none" stroke="{_PALE}"/>',
        f'<polyline points="{line}" fill="none" stroke="{_INK}" stroke-width="1.5"/>',
        f'<text x="{_LEFT - 8}" y="{top + 24}" text-anchor="end">{most:,.0f}</text>',
        f'<text x="{_LEFT - 8}" y="{bottom}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{bottom + 16}">0</text>',
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{last / 60:,.0f} min</text>',
    ]
