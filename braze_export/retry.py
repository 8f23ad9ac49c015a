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
    The pause is drawn at random between 0 and ``base * 2 ** (attempt - 1)``, at most ``cap``
    (full jitter), on top of what the server asks for.

    Attributes:
        max_attempts: tries in all, the first included.
        max_seconds: from the first try on; no pause is begun that would end after it.
        base: seconds, the longest first pause.
        cap: seconds, the longest pause of our own.
    """

    max_attempts: int = field(default=6, validator=whole_above_zero)
    max_seconds: float = field(default=300.0, validator=zero_or_more)
    base: float = field(default=0.5, validator=above_zero)
    cap: float = field(default=30.0, validator=above_zero)

    def delay(
        self,
        error: BrazeError,
        endpoint: Endpoint,
        *,
        attempt: int,
        elapsed: float,
        rng: Callable[[], float] = random.random,
    ) -> float | None:
        """Return the seconds to wait before the next try, or ``None`` to give up.

        Args:
            error: how the last try ended.
            endpoint: what was called.
            attempt: the number of the last try, counted from 1.
            elapsed: seconds since the first try began.
            rng: gives a number from 0 up to 1.
        """
        if attempt >= self.max_attempts or not is_retryable(error, endpoint):
            return None
        longest = min(self.cap, self.base * 2.0 ** min(attempt - 1, 60))
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
