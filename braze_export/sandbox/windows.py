"""Rate limits: windows fixed on the clock, and the three headers that tell of them.

https://www.braze.com/docs/api/api_limits/
"""

import math
from typing import Literal, Self, TypeAlias

import attrs
from attrs import validators

PoolName: TypeAlias = Literal["ids", "fast_ids", "default"]


@attrs.frozen
class Window:
    """At most ``max_requests`` in each ``period`` seconds."""

    max_requests: int = attrs.field(validator=validators.gt(0))
    period: float = attrs.field(converter=float, validator=validators.gt(0))

    def __attrs_post_init__(self) -> None:
        """Refuse an endless window: it would have no end to tell the client."""
        if not math.isfinite(self.period):
            raise ValueError(f"a window must end: {self.period}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"2500/60"``: requests, a slash, seconds."""
        requests, _, period = text.partition("/")
        try:
            return cls(int(requests), float(period))
        except ValueError as error:
            raise ValueError(f"not REQUESTS/SECONDS: {text!r}") from error


@attrs.frozen
class Rate:
    """What the ``x-ratelimit-*`` headers of one answer say."""

    limit: int
    remaining: int
    reset: int


class Pool:
    """Counts the requests of the current window.

    Documented: hourly limits reset on the clock hour. Undocumented: how those by minute and by
    second do; here they reset on the clock minute and second alike.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._index = -1
        self._used = 0

    def take(self, now: float) -> bool:
        """Count one request, unless the window is full: a refused request does not count."""
        self._turn(now)
        if self._used >= self._window.max_requests:
            return False
        self._used += 1
        return True

    def change(self, window: Window) -> None:
        """Set another limit. What was used stays used, unless the period is another."""
        if window.period != self._window.period:
            self._index = -1
        self._window = window

    def rate(self, now: float) -> Rate:
        """Tell what is left, and the epoch second in which it starts anew, rounded up."""
        self._turn(now)
        limit = self._window.max_requests
        left = max(0, limit - self._used)  # less than used, where the limit was lowered
        return Rate(limit, left, math.ceil((self._index + 1) * self._window.period))

    def _turn(self, now: float) -> None:
        index = math.floor(now / self._window.period)
        if index != self._index:
            self._index, self._used = index, 0
