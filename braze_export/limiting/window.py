"""What is known of one window of a limit. Pure.

The window is the server's; where we only lost sight of it, two of ours are one of the server's.
"""

import math
from typing import Final

from attrs import define, frozen

_GREEDIEST: Final = 4.0  # requests of others for one of ours that are reckoned with at most


def ours(requests: int, reserve: float) -> int:
    """Return how many of the requests of a window are not left to others: one at the least."""
    return max(1, math.floor((1 - reserve) * requests))


@frozen
class Sent:
    """One request that was let through: in which window, and when."""

    window: int
    at: float


@define
class Window:
    """What is known of one window: before the first answer, only how many may ask."""

    number: int
    opening: int
    whole: bool  # whether we saw it begin
    reset: float = math.inf  # on the server's clock
    remaining: int | None = None
    known_at: float = math.inf  # when ``remaining`` was learned
    first: int = 0  # what remained when we first heard of it
    spent_by_then: int = 0
    spent: int = 0  # answered
    asking: int = 0  # sent before anything was known, and not yet answered
    asked_at: float = 0.0
    refused: bool = False
    carried: float = math.inf  # the reset up to which ``spent`` of the window before counts too

    def learn(self, remaining: int, reset: float, now: float, *, counted: bool) -> None:
        """Take the server's word for it; ``counted`` if the request counts, too."""
        if self.remaining is None and reset > self.carried:
            self.spent = 0
        self.spent += counted
        if self.remaining is None or remaining > self.remaining:
            self.first, self.spent_by_then = remaining, self.spent
        self.remaining, self.reset, self.known_at = remaining, reset, now

    def count(self) -> None:
        """Count a request of which the server said nothing."""
        self.spent += 1
        if self.remaining is not None:
            self.remaining = max(0, self.remaining - 1)

    def pace(self, in_flight: float) -> float:
        """Return how many requests others send for each of ours.

        Args:
            in_flight: how many of those under way what remains may account for.
        """
        ours = self.spent - self.spent_by_then
        others = self.first - (self.remaining or 0) - ours - in_flight
        return 0.0 if others <= 0 else min(_GREEDIEST, others / max(1, ours))

    def shared(self, limit: int, in_flight: int) -> bool:
        """Say whether others of the workspace use it too, or nobody knows."""
        if self.remaining is None or self.refused or self.pace(in_flight) > 0:
            return True
        return limit - self.remaining - self.spent - in_flight > 0
