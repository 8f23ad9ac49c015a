"""The course of a run over time: few moments kept of many, and what came between them. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from attrs import define, field, frozen

from braze_export.jobs.values import Moment

_MOST_MOMENTS: Final = 600
_MOST_STRETCHES: Final = 160

# Doubled often enough this is a minute, as Braze's windows are: spacings beside it would hold
# one window here and two there, and show a pattern that is not in the run.
_FIRST_SPACING: Final = 60 / 512

# Looks at a window that are further apart than this miss what happened in it.
_CLOSE: Final = 10.0

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0
_LENGTHS: Final = (
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
)


@define
class Course:
    """Keeps moments of a run of any length, evenly spaced: 600 at most."""

    _kept: list[Moment] = field(factory=list, init=False)
    _last: Moment | None = field(default=None, init=False)
    _spacing: float = field(default=_FIRST_SPACING, init=False)

    def note(self, moment: Moment) -> None:
        """Take in a moment, which is not before those that were noted already."""
        self._last = moment
        if self._kept and self._slot(moment) <= self._slot(self._kept[-1]):
            return
        self._kept.append(moment)
        while len(self._kept) >= _MOST_MOMENTS:  # one place is the last one's
            self._spacing *= 2
            self._thin()

    @property
    def moments(self) -> tuple[Moment, ...]:
        """What is kept; the last moment always is."""
        if self._last is None or self._last is self._kept[-1]:
            return tuple(self._kept)
        return (*self._kept, self._last)

    def _slot(self, moment: Moment) -> int:
        return int(moment.at // self._spacing)

    def _thin(self) -> None:
        """Keep the first moment of each slot."""
        kept = self._kept[:1]
        kept += [b for a, b in pairwise(self._kept) if self._slot(a) < self._slot(b)]
        self._kept = kept


@frozen(kw_only=True)
class Use:
    """How much of the window was used up, as shares from 0 to 1, at the looks in a stretch."""

    low: float
    mean: float
    high: float


@frozen(kw_only=True)
class Stretch:
    """What came in a part of a run.

    Attributes:
        begin: seconds since the run began.
        end: the same.
        done: identifiers per second.
        requests: per second.
        refused: requests.
        waiting: the share of the looks, 0 to 1, at which requests waited.
        use: of the window; ``None`` where it was not said, or looked at too rarely.
    """

    begin: float
    end: float
    done: float
    requests: float
    refused: int
    waiting: float
    use: Use | None


def stretches(moments: Sequence[Moment]) -> list[Stretch]:
    """Cut a run into stretches of equal, round length, 160 at most; none if it took no time.

    A stretch is not shorter than the moments are apart on the average, so that it tells what was
    seen and not how often somebody looked. A rest at the end is a stretch of its own from half the
    length on, and else belongs to the last one.
    """
    start = Moment(at=0.0, done=0, requests=0, rate_limited=0)
    # Of moments at the same time the last one counts.
    by_time = {0.0: start} | {moment.at: moment for moment in moments if moment.at > 0}
    points = sorted(by_time.values(), key=lambda moment: moment.at)
    end = points[-1].at
    if not end:
        return []
    apart = end / (len(points) - 1)
    edges = _edges(end, _round_length(max(apart, end / _MOST_STRETCHES)))
    times = [point.at for point in points]
    return [_stretch(points, times, a, b, close=apart <= _CLOSE) for a, b in pairwise(edges)]


def _round_length(least: float) -> float:
    for length in _LENGTHS:
        if length >= least:
            return length
    return _DAY * -(-least // _DAY)


def _edges(end: float, length: float) -> list[float]:
    whole = max(1, int(end / length + 0.5))
    return [*(number * length for number in range(whole)), end]


def _stretch(
    points: Sequence[Moment], times: Sequence[float], begin: float, end: float, *, close: bool
) -> Stretch:
    first, beyond = bisect_right(times, begin), bisect_right(times, end)
    looks = points[first:beyond] or points[first - 1 : first]
    shares = [share for look in looks if (share := _used(look)) is not None]
    seconds = end - begin
    (done, requests), (all_done, all_requests) = (
        _counts(points, times, edge) for edge in (begin, end)
    )
    return Stretch(
        begin=begin,
        end=end,
        done=(all_done - done) / seconds,
        requests=(all_requests - requests) / seconds,
        refused=points[beyond - 1].rate_limited - points[first - 1].rate_limited,
        waiting=sum(look.waiting > 0 for look in looks) / len(looks),
        use=_use(shares) if close and shares else None,
    )


def _use(shares: Sequence[float]) -> Use:
    return Use(low=min(shares), mean=sum(shares) / len(shares), high=max(shares))


def _used(look: Moment) -> float | None:
    if not look.limit or look.remaining is None:
        return None
    return min(1.0, max(0.0, 1 - look.remaining / look.limit))


def _counts(points: Sequence[Moment], times: Sequence[float], at: float) -> tuple[float, float]:
    """Return identifiers and requests up to a time, as if they came evenly between two looks."""
    after = min(bisect_left(times, at), len(points) - 1)
    b, a = points[after], points[max(0, after - 1)]
    share = (at - a.at) / (b.at - a.at) if after else 0.0
    return (
        a.done + share * (b.done - a.done),
        a.requests + share * (b.requests - a.requests),
    )
