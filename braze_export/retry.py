"""When to try again, as a pure function of the error, the attempt and the time gone by."""

import random
from collections.abc import Callable

from attrs import field, frozen

from braze_export.endpoints import Endpoint
from braze_export.errors import (
    BrazeError,
    DecodeError,
    ExportInProgressError,
    RateLimitError,
    ServerError,
    TransportError,
)
from braze_export.validators import above_zero, whole_above_zero, zero_or_more


@frozen
class RetryPolicy:
    """How often and how long a failed request is tried again.

    Tried again are requests without a whole answer, 5xx, 429 and bodies that cannot be read.
    The pause is drawn at random between 0 and ``base * 2 ** (tries - 1)``, at most ``cap``
    (full jitter), on top of what the server asks for. After the first refusal by the rate limit
    that says how long to wait there is no pause but that.

    Attributes:
        max_attempts: tries in all, the first included, refusals by the rate limit apart.
        max_refusals: refusals by the rate limit that say how long to wait. Nothing has failed
            then, and a long job that shares its workspace with others meets many of them.
        max_seconds: from the first try on, waits for the rate limit included; no pause is begun
            that would end after it. The default is two of Braze's longest windows; put
            ``asyncio.timeout`` around a call that must be quicker.
        base: seconds, the longest first pause.
        cap: seconds, the longest pause of our own.
    """

    max_attempts: int = field(default=6, validator=whole_above_zero)
    max_refusals: int = field(default=60, validator=whole_above_zero)
    max_seconds: float = field(default=7200.0, validator=zero_or_more)
    base: float = field(default=0.5, validator=above_zero)
    cap: float = field(default=30.0, validator=above_zero)

    def delay(
        self,
        error: BrazeError,
        endpoint: Endpoint,
        *,
        failures: int,
        refusals: int = 0,
        elapsed: float,
        rng: Callable[[], float] = random.random,
    ) -> float | None:
        """Return the seconds to wait before the next try, or ``None`` to give up.

        Args:
            error: how the last try ended.
            endpoint: what was called.
            failures: tries so far that ended in an error, refusals apart.
            refusals: tries so far that the rate limit refused (``is_refusal``).
            elapsed: seconds since the first try began.
            rng: gives a number from 0 up to 1.
        """
        spent = failures >= self.max_attempts or refusals >= self.max_refusals
        if spent or not is_retryable(error, endpoint):
            return None
        # A refusal says when to come again; only if that was not true there is doubt.
        doubts = failures + refusals - 1 - is_refusal(error)
        longest = min(self.cap, self.base * 2.0 ** min(doubts, 60)) if doubts >= 0 else 0.0
        asked = getattr(error, "retry_after", None) or 0.0
        delay = asked + rng() * longest
        return delay if elapsed + delay <= self.max_seconds else None


def is_retryable(error: BrazeError, endpoint: Endpoint) -> bool:
    """Say whether the same request may be sent again after this error."""
    if isinstance(error, ExportInProgressError):
        return False
    if isinstance(error, RateLimitError):
        return True
    if isinstance(error, TransportError):
        return not (endpoint.starts_export and error.sent)
    return isinstance(error, ServerError | DecodeError) and not endpoint.starts_export


def is_refusal(error: BrazeError) -> bool:
    """Say whether an error is the rate limit's word to come again after a known time."""
    return type(error) is RateLimitError and error.retry_after is not None
