"""The rate limits as values, and what grants requests: ``Limiter``.

https://www.braze.com/docs/api/api_limits
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

from attrs import Attribute, field, frozen

from braze_export.answers import RateWindow
from braze_export.endpoints import Endpoint, Pool
from braze_export.errors import InputError
from braze_export.validators import above_zero, share_of_one, whole_above_zero

Lane: TypeAlias = Literal["interactive", "bulk"]
"""Who waits: somebody for a single answer, or a long job."""


@frozen
class RateLimit:
    """So many requests per so many seconds.

    Attributes:
        max_requests: allowed in any window.
        period: length of the window, in seconds.
    """

    max_requests: int = field(validator=whole_above_zero)
    period: float = field(validator=above_zero)


def _limit(_: object, attribute: "Attribute[Any]", value: object) -> None:
    """Take a ``RateLimit``, and ``None`` where there need not be one."""
    optional = attribute.name in {"ids", "ids_fast"}
    if not (isinstance(value, RateLimit) or (optional and value is None)):
        allowed = "a RateLimit or None" if optional else "a RateLimit"
        raise InputError(
            f"{attribute.name} must be {allowed}, such as RateLimit(250, 60), not {value!r}"
        )


@frozen
class Limits:
    """The documented limits of a workspace. The server's own words override the numbers.

    The defaults are those of a workspace made from 2021-08-16 to 2024-08-21.

    Attributes:
        ids: ``/users/export/ids``; ``None`` where its requests count against ``default``.
        default: every other endpoint together.
        ids_fast: ``/users/export/ids`` with named fields that hold neither
            ``campaigns_received`` nor ``canvases_received``; ``None`` where the workspace has
            no such tier.
        campaign_series: ``/campaigns/data_series``.
        lists: the lists of events, custom attributes and products together.
        reserve: the share of each window, from 0 up to but not including 1, that is left to
            other users of the workspace.
    """

    ids: RateLimit | None = field(default=RateLimit(2500, 60), validator=_limit)
    default: RateLimit = field(default=RateLimit(250_000, 3600), validator=_limit)
    ids_fast: RateLimit | None = field(default=None, validator=_limit)
    campaign_series: RateLimit = field(default=RateLimit(50_000, 60), validator=_limit)
    lists: RateLimit = field(default=RateLimit(1000, 3600), validator=_limit)
    reserve: float = field(default=0.0, validator=share_of_one)

    @classmethod
    def new_workspace(cls, *, reserve: float = 0.0) -> "Limits":
        """Return the limits of a workspace made on or after 2024-08-22.

        250 requests a minute, or 40 a second for requests of the fast tier.
        """
        return cls(ids=RateLimit(250, 60), ids_fast=RateLimit(40, 1), reserve=reserve)

    @classmethod
    def oldest_workspace(cls, *, reserve: float = 0.0) -> "Limits":
        """Return the limits of a workspace made before 2021-08-16.

        No limit of its own is documented for ``/users/export/ids`` there: its requests count
        among the 250,000 an hour.
        """
        return cls(ids=None, reserve=reserve)

    def pool_of(self, endpoint: Endpoint, *, fast: bool = False) -> Pool:
        """Return the pool that a request counts against.

        Args:
            endpoint: what is called.
            fast: whether the request's shape is that of the fast tier.
        """
        if endpoint.pool != "ids":
            return endpoint.pool
        if fast and self.ids_fast is not None:
            return "ids_fast"
        return "default" if self.ids is None else "ids"

    def by_pool(self) -> dict[Pool, RateLimit]:
        """Return the limit of each pool that there is."""
        pools: dict[Pool, RateLimit | None] = {
            "ids": self.ids,
            "ids_fast": self.ids_fast,
            "default": self.default,
            "campaign_series": self.campaign_series,
            "lists": self.lists,
        }
        return {pool: limit for pool, limit in pools.items() if limit is not None}


@frozen
class PoolSnapshot:
    """One pool at one moment.

    Attributes:
        limit: requests per window: the server's word, before the first answer the setting.
        remaining: requests that may still be sent in this window as far as is known, those
            left to others taken off; ``None`` before the first answer, and where the server
            does not say.
        resets_in: seconds until the next window; ``None`` where it is not known.
        waiting: requests that wait for their turn.
        in_flight: requests sent and not yet answered.
        sent: requests granted so far.
        refused: answers so far by which the rate limit refused a request.
        seconds_waited: by all requests together, those that still wait included.
    """

    limit: int
    remaining: int | None
    resets_in: float | None
    waiting: int
    in_flight: int
    sent: int
    refused: int
    seconds_waited: float

    @property
    def next_window(self) -> float | None:
        """Seconds until requests go on, if all that is left of the limit is to wait."""
        return self.resets_in if self.waiting and not self.remaining else None

    @property
    def closed_for(self) -> float:
        """Seconds for which, as far as is known, no request can be sent; 0 if one can be now."""
        return 0.0 if self.remaining else self.resets_in or 0.0

    def surely_waited(self, at_once: int) -> float:
        """Return the seconds during which requests surely waited, of so many at most at once."""
        return self.seconds_waited / max(1, at_once)


class Permit(Protocol):
    """Lets one request be sent. Exactly one of its methods is to be called, once."""

    def answered(self, window: RateWindow, *, refused: bool = False) -> None:
        """Take in what the answer said of the window; ``refused`` if by the rate limit."""
        ...

    def unanswered(self, *, sent: bool) -> None:
        """Note that no answer came; unless ``sent``, the request cannot have arrived."""
        ...


class Limiter(Protocol):
    """Grants requests, and learns from answers."""

    @property
    def limits(self) -> Limits:
        """The limits as they were set."""
        ...

    async def start(self) -> None:
        """Make sure that it can work; called by every client that uses it, before anything else.

        Raises:
            LimiterError: it cannot.
        """
        ...

    async def acquire(self, pool: Pool, lane: Lane) -> Permit:
        """Return when a request of this pool may be sent.

        After a refusal this waits for as long as the server said.
        """
        ...

    def snapshot(self) -> Mapping[Pool, PoolSnapshot]:
        """Return how each pool stands now. To be called in the event loop."""
        ...

    async def aclose(self) -> None:
        """Let go of what it holds."""
        ...
