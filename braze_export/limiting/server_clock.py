"""The server's clock, known ever better from answers that tell whole seconds only.

Pure: times are given. An answer that left the server between ``sent`` and ``received`` of our
clock bounds how far the two clocks are apart; every answer narrows the bounds, most of all one
that comes just before or just after a second has turned.
"""

import math

from attrs import define, field

_DRIFT = 1e-4  # seconds per second that two clocks may part
_SHARP = 0.02  # seconds: bounds as narrow as this need no further looks


@define
class ServerClock:
    """Bounds of the difference between the server's clock and ours.

    The server's clock shows at least ``ours + low`` and at most ``ours + high``.
    """

    _low: float = -math.inf
    _high: float = math.inf
    _at: float = 0.0  # when the bounds were last brought up to date
    _quickest: float = field(default=math.inf)  # seconds from sending to answer

    def observe(self, *, sent: float, received: float, clock: float, whole: bool) -> None:
        """Take in an answer.

        Args:
            sent: when its request left, on our clock.
            received: when it was here.
            clock: what the server's clock showed in between.
            whole: whether the fraction of the second was left out.
        """
        self._quickest = min(self._quickest, received - sent)
        low = clock - received
        high = clock - sent + whole + _DRIFT * (received - sent)
        aged_low, aged_high = self._bounds(received)
        if low > aged_high or high < aged_low:
            aged_low, aged_high = low, high  # one of the clocks was set
        self._low, self._high, self._at = max(low, aged_low), min(high, aged_high), received

    def surely_at(self, moment: float, now: float) -> float:
        """Return our time from which on the server's clock surely shows ``moment``."""
        return moment - self._bounds(now)[0]

    def perhaps_at(self, moment: float, now: float) -> float:
        """Return our time before which the server's clock surely does not show ``moment``."""
        return moment - self._bounds(now)[1]

    def sharp(self, now: float) -> bool:
        """Say whether looks at the clock would not narrow the bounds any more."""
        low, high = self._bounds(now)
        return high - low < max(_SHARP, 2 * self._quickest)

    def patience(self) -> float:
        """Return the seconds after which most answers under way have come."""
        return min(1.0, max(0.05, 4 * self._quickest))

    def next_look(self, now: float, looks: int) -> float:
        """Return when an answer would narrow the bounds, with so many looks for each second.

        The server's second turns somewhere between two times of ours: the looks are spread
        evenly there, so that the only one of them halves the bounds.
        """
        low, high = self._bounds(now)
        step = (high - low) / (looks + 1)
        begins = math.floor(now + low) + 1 - high  # of the turn that has not surely been yet
        soon = now + step / 10  # lest the look that is just being taken is taken again
        number = max(1, math.floor((soon - begins) / step) + 1)
        if number > looks:  # the first look at a later turn; the bounds may be seconds apart
            number, begins = 1, begins + math.floor(soon - begins - step) + 1
        return begins + number * step

    def _bounds(self, now: float) -> tuple[float, float]:
        drift = _DRIFT * max(0.0, now - self._at)
        return self._low - drift, self._high + drift
