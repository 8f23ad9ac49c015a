"""How many requests and how much time an export by identifiers takes, before anything is sent.

Pure: nothing but arithmetic on the limits.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier#rate-limit
"""

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from braze_export.batches.batching import BATCH_SIZE
from braze_export.endpoints import EXPORT_IDS, Pool
from braze_export.errors import InputError
from braze_export.limiting.limits import Limits, RateLimit
from braze_export.limiting.window import ours
from braze_export.models.fields import check_fields, costs_fast_tier

_LONG: Final = 1800.0  # seconds, from which on another way is worth a thought


@frozen
class Estimate:
    """What an export by identifiers takes at least.

    Attributes:
        identifiers: to be asked for.
        requests: that this takes if none has to be sent again.
        pool: the limit that the requests count against, by its name in ``Limits``.
        limit: this limit.
        per_window: requests of each window that are ours, those left to others taken off.
        seconds: that pass while requests wait for their window, from the first request sent to
            the last, if windows are used up as they open and the first of them is fresh. The
            time that the requests themselves take comes on top. If part of the first window is
            gone, at most one more period does.
        advice: a sentence or two on a quicker way; empty where there is none.
    """

    identifiers: int
    requests: int
    pool: Pool
    limit: RateLimit
    per_window: int
    seconds: float
    advice: str

    @property
    def minutes(self) -> float:
        """``seconds``, in minutes."""
        return self.seconds / 60

    @property
    def segment_wiser(self) -> bool:
        """Whether it takes so long, over 30 minutes, that a segment's export would be wiser.

        It can only take its place if a segment describes the users.
        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
        """
        return self.seconds > _LONG


def estimate(
    n_identifiers: int,
    *,
    fields: Iterable[str] | None = None,
    limits: Limits | None = None,
    one_each: bool = False,
) -> Estimate:
    """Estimate what ``export_ids`` takes. Nothing is sent.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier#rate-limit

    Args:
        n_identifiers: how many identifiers, each counted once.
        fields: as for ``export_ids``: they decide which limit counts.
        limits: those of the client. Default: the client's default.
        one_each: the identifiers are braze ids, device ids, e-mail addresses or phone numbers.
            Braze takes 50 external ids and aliases in a request, but of these only one.

    Raises:
        InputError: a number of identifiers that is none, fields that cannot be sent, or limits
            that are none.

    Warns:
        UnknownFieldWarning: a field that Braze does not document and that resembles one it does.
    """
    if not isinstance(n_identifiers, int) or isinstance(n_identifiers, bool) or n_identifiers < 0:
        raise InputError(
            f"n_identifiers must be a whole number of zero or more, not {n_identifiers!r}"
        )
    slow = costs_fast_tier(None if fields is None else check_fields(fields))
    limits = limits or Limits()
    if not isinstance(limits, Limits):
        raise InputError(f"limits must be Limits(...), not {type(limits).__name__}")
    requests = _parts(n_identifiers, 1 if one_each else BATCH_SIZE)
    pool = limits.pool_of(EXPORT_IDS, fast=not slow)
    limit = limits.by_pool()[pool]
    return Estimate(
        identifiers=n_identifiers,
        requests=requests,
        pool=pool,
        limit=limit,
        per_window=_ours(limit, limits),
        seconds=_seconds(requests, limit, limits),
        advice=_advice(requests, limit, limits),
    )


def _parts(whole: int, size: int) -> int:
    """Return how many parts of a size a whole has, the last one perhaps smaller."""
    return -(-whole // size)  # exact, where floats would round


def _ours(limit: RateLimit, limits: Limits) -> int:
    """Return the requests of a window that are not left to others."""
    return ours(limit.max_requests, limits.reserve)


def _seconds(requests: int, limit: RateLimit, limits: Limits) -> float:
    windows = _parts(requests, _ours(limit, limits))
    return float(max(0, windows - 1) * limit.period)


def _advice(requests: int, limit: RateLimit, limits: Limits) -> str:
    seconds = _seconds(requests, limit, limits)
    told = []
    if limits.ids_fast is not None:
        fast = _seconds(requests, limits.ids_fast, limits)
        if fast < seconds:  # a few requests are through one large window sooner
            told.append(
                "With fields named, and neither campaigns_received nor canvases_received among "
                f"them, it takes {_about(fast)} instead of {_about(seconds)}."
            )
    if seconds > _LONG:
        told.append(
            "If a segment can describe these users, its export is wiser: one request instead of "
            f"{requests:,}, prepared by Braze in the background."
        )
    return " ".join(told)


def _about(seconds: float) -> str:
    """Return a time with the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
