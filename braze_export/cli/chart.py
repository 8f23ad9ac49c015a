"""A small picture of numbers over time, in block characters."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"


def chart(values: Sequence[int], *, width: int, height: int = 8) -> list[str]:
    """Return the lines of a column chart from the smallest value to the largest.

    Args:
        values: at least one.
        width: columns to use, labels included; more values than fit are averaged.
        height: lines.
    """
    low, high = min(values), max(values)
    labels = [f"{high:,}", *[""] * (height - 2), f"{low:,}"]
    margin = max(map(len, labels))
    points = _resampled(values, max(1, width - margin - 2))
    # The smallest value gets an eighth of a line, so that it is seen to be there.
    steps = [1 + round((p - low) / ((high - low) or 1) * (8 * height - 1)) for p in points]
    return [
        f"{label:>{margin}} ┤{''.join(_EIGHTHS[min(8, max(0, s - floor))] for s in steps)}".rstrip()
        for label, floor in zip(labels, range(8 * (height - 1), -1, -8), strict=True)
    ]


def _resampled(values: Sequence[int], width: int) -> list[float]:
    """Return at most ``width`` values, or few ones each several times."""
    if len(values) <= width:
        times = min(4, width // len(values))
        return [float(v) for v in values for _ in range(times)]
    edges = [i * len(values) // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
