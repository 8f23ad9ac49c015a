"""What a process and the script (``redis_window.lua``) say to each other of one pool.

Pure: no Redis, no clock. Answers are put together, by window, until the next call tells of them.
"""

from typing import Any, Final, TypeVar

from attrs import Factory, define, field, frozen

from braze_export._json import dumps
from braze_export.answers import RateWindow

K = TypeVar("K", int, float)
V = TypeVar("V")

_LONGEST_WINDOW: Final = 3600.0  # seconds: Braze documents no limit with a longer window
_SLACK: Final = 60.0  # seconds that a reset may be further away, for clocks that differ
_MOST: Final = 10**9  # requests: no limit is that high, and every language holds the number
_KEPT: Final = 8  # windows that are told of; while Redis is gone there may be many


@frozen
class Lease:
    """Lets one request be sent, and says from when on: the answer cannot be older.

    Attributes:
        window: number of the window in which it was granted; no window has the default.
        granted: when, in seconds on Redis's clock; 0 where Redis was not asked.
        asks: whether nothing was known of the window, and the answer is to tell.
    """

    window: int = -1
    granted: float = 0.0
    asks: bool = False


@define
class _Answers:
    """Those of one window, which ends at the same reset."""

    number: int = 0
    lowest: int = _MOST  # remaining requests
    granted: float = 0.0  # the latest
    limit: int = 0
    window: int = -1


@define
class _Refusals:
    """Those that name the same reset, or none."""

    window: int = -1
    granted: float = 0.0  # the latest: it decides whether an earlier pause had foreseen it
    limit: int = 0
    remaining: int = 0  # against all sense
    pause: float = 0.0  # seconds that are asked for


@define
class News:
    """What has happened to leases since it was last reported.

    Attributes:
        leases: how many were answered, or may have been counted without an answer.
    """

    leases: int = 0
    _told: dict[float, _Answers] = Factory(dict)  # by reset
    _counted: dict[int, int] = Factory(dict)  # by number of the window
    _silent: dict[int, int] = Factory(dict)  # the same
    _refused: dict[float, _Refusals] = Factory(dict)  # by reset, 0: not said

    def answered(self, lease: Lease, window: RateWindow, *, refused: bool) -> None:
        """Take in an answer; ``refused`` if by the rate limit."""
        self.leases += 1
        too_far = (window.resets_in or 0.0) > _LONGEST_WINDOW + _SLACK
        if refused:
            self._add_refusal(lease, window)
        elif window.remaining is None or window.reset is None or too_far:
            _count(self._silent, lease)
        else:
            self._add_told(lease, window, window.remaining, window.reset)

    def unanswered(self, lease: Lease) -> None:
        """Take in that no answer comes, though the request may have been counted."""
        self.leases += 1
        _count(self._counted, lease)

    def words(self) -> dict[str, list[list[float]]]:
        """Return what the script reads, windows in their order."""
        return {
            "told": [
                [reset, a.number, a.lowest, a.granted, a.limit, a.window]
                for reset, a in sorted(self._told.items())
            ],
            "counted": [[*item] for item in sorted(self._counted.items())],
            "silent": [[*item] for item in sorted(self._silent.items())],
            "refused": [
                [reset, r.window, r.granted, r.limit, r.remaining, r.pause]
                for reset, r in sorted(self._refused.items())
            ],
        }

    def _add_told(self, lease: Lease, window: RateWindow, remaining: int, reset: float) -> None:
        answers = self._told.setdefault(reset, _Answers())
        answers.number += 1
        answers.lowest = min(answers.lowest, remaining)
        answers.granted = max(answers.granted, lease.granted)
        answers.limit = min(window.limit or answers.limit, _MOST)
        answers.window = max(answers.window, lease.window)
        _forget_oldest(self._told)

    def _add_refusal(self, lease: Lease, window: RateWindow) -> None:
        reset = min(window.reset or 0.0, window.clock + _LONGEST_WINDOW)
        refusals = self._refused.setdefault(reset, _Refusals())
        if lease.granted >= refusals.granted:
            refusals.window, refusals.granted = lease.window, lease.granted
        refusals.limit = min(window.limit or refusals.limit, _MOST)
        refusals.remaining = max(refusals.remaining, min(window.remaining or 0, _MOST))
        refusals.pause = max(refusals.pause, min(window.pause or 0.0, _LONGEST_WINDOW))
        _forget_oldest(self._refused)


def _forget_oldest(windows: dict[K, V]) -> None:
    if len(windows) > _KEPT:
        del windows[min(windows)]


def _count(windows: dict[int, int], lease: Lease) -> None:
    windows[lease.window] = windows.get(lease.window, 0) + 1
    _forget_oldest(windows)


@frozen(kw_only=True)
class Call:
    """What one call of the script says.

    Attributes:
        id: of the process.
        calls: number of the call, from 1: one that is held up on its way counts no more.
        batch: number of the news: news that are told twice count once.
        news: what has happened since.
        flying: leases that the process holds, the requests under way among them, or has news
            of that it does not tell yet.
        asking: those of the window that it heard of last which ask.
        number: that window.
        want: requests that wait.
        urgent: those of them for single answers.
        stock: leases that it would keep beyond.
        limit: requests per window, as set.
        period: seconds that a window takes, as set.
        reserve: share of each window that is left to others.
        server: what Braze's clock shows now at least and at most; ``None`` before any answer.
        apart: whether it has sent requests without Redis since the last call.
        sharp: whether further looks at it would not tell it more exactly.
        patience: seconds after which most answers under way have come.
        leave: whether the process ends.
    """

    id: str
    calls: int
    batch: int
    news: News = field(factory=News)
    flying: int = 0
    asking: int = 0
    number: int = -1
    want: int = 0
    urgent: int = 0
    stock: int = 0
    limit: int
    period: float
    reserve: float
    server: tuple[float, float] | None = None
    apart: bool = False
    sharp: bool = False
    patience: float = 1.0
    leave: bool = False

    def encode(self) -> bytes:
        """Return it as the script's argument."""
        words: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("id", "calls", "batch", "flying", "asking", "number", "want", "urgent",
                         "stock", "limit", "period", "reserve", "apart", "sharp",
                         "patience", "leave")
        }  # fmt: skip
        if self.server is not None:
            words["low"], words["high"] = self.server
        return dumps(words | self.news.words())


@frozen
class Heard:
    """What the script returned.

    Attributes:
        granted: requests that may be sent for those that waited.
        stock: leases beyond.
        number: of the window.
        asks: whether nothing is known of it.
        wait: seconds until there may be more.
        now: Redis's clock.
        limit: requests per window: Braze's word, before the first answer the setting.
        left: requests that may still be sent in this window; ``None`` if not known.
        resets_in: seconds until the next window; ``None`` if not known.
    """

    granted: int = 0
    stock: int = 0
    number: int = -1
    asks: bool = True
    wait: float = 0.0
    now: float = 0.0
    limit: int = 0
    left: int | None = None
    resets_in: float | None = None

    @classmethod
    def read(cls, reply: list[Any]) -> "Heard":
        """Read a reply. The client may have made texts of its bytes."""
        granted, stock, number, asks, wait, now, limit, left, resets_in = reply
        return cls(
            granted=int(granted),
            stock=int(stock),
            number=int(number),
            asks=bool(int(asks)),
            wait=float(wait),
            now=float(now),
            limit=int(limit),
            left=int(left) if left not in ("", b"") else None,
            resets_in=float(resets_in) if resets_in else None,
        )

    def lease(self) -> Lease:
        """Return one of those that were granted."""
        return Lease(self.number, self.now, self.asks)
