"""Numbers, times and ticks as people read them. Pure."""

import math
from typing import Final

from attrs import frozen

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0


@frozen
class _Unit:
    """A unit of the time axis: for runs up to how long, its seconds, what ticks may be apart."""

    name: str
    longest: float
    seconds: float
    steps: tuple[float, ...]


_SUBSECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_UNITS: Final = (
    _Unit("seconds", 3 * _MINUTE, 1.0, (*_SUBSECONDS, 1, 2, 5, 10, 20, 30)),
    _Unit("minutes", 3 * _HOUR, _MINUTE, (0.5, 1, 2, 5, 10, 15, 20, 30)),
    _Unit("hours", 3 * _DAY, _HOUR, (0.5, 1, 2, 3, 4, 6, 12)),
    _Unit("days", math.inf, _DAY, tuple(0.5 * 2**power for power in range(30))),
)


def number(value: float) -> str:
    """Return a number as people read it: ``1,234``, ``2.5``, ``0.03``."""
    if value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"


def span(seconds: float) -> str:
    """Return a time in words: ``2.5 s``, ``1 min 5 s``, ``13 h 20 min``."""
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    parts = [f"{hours:,} h"] if hours else []
    parts += [f"{minutes} min"] if minutes else []
    parts += [f"{rest} s"] if rest and not hours else []
    return " ".join(parts)


def ticks(highest: float, most: int) -> list[float]:
    """Return round numbers from 0 to the highest value or the next round one above it."""
    if not highest:
        return [0.0, 1.0]
    tenfold = 10.0 ** math.floor(math.log10(highest / most))
    step = next(s * tenfold for s in (1, 2, 5, 10) if s * tenfold * most >= highest * 0.999999)
    return [step * count for count in range(math.ceil(highest / step - 1e-6) + 1)]


def time_ticks(end: float, most: int) -> tuple[str, list[tuple[float, str]]]:
    """Return the unit of the time axis, and where it has which numbers."""
    unit = next(unit for unit in _UNITS if end <= unit.longest)
    length = end / unit.seconds
    step = next((step for step in unit.steps if length / step <= most), unit.steps[-1])
    numbers = (count * step for count in range(int(length / step + 1e-9) + 1))
    return unit.name, [(value * unit.seconds, f"{value:,.10g}") for value in numbers]
