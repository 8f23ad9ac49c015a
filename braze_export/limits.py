"""The rate limits: how many requests may leave, and when.

Each pool of requests has a gate. Its guard is a token bucket, so tight that no window of the
period ever sees more requests than the limit; its authority is what the server says: no
request passes once nothing remains, until the window turns.
https://www.braze.com/docs/api/api_limits
"""

import asyncio
from typing import Protocol

from aiolimiter import AsyncLimiter
from attrs import field, frozen

from braze_export.answers import RateWindow
from braze_export.endpoints import Endpoint, Pool
from braze_export.validators import above_zero, whole_above_zero

_LONGEST_WINDOW = 3600.0  # seconds: Braze documents no limit with a longer window
_BLIND_PAUSE = 1.0  # seconds, after a 429 that says nothing of its window


@frozen
class RateLimit:
    """So many requests per so many seconds.

    Attributes:
        max_requests: allowed in any window.
        period: length of the window, in seconds.
    """

    max_requests: int = field(validator=whole_above_zero)
    period: float = field(validator=above_zero)

    def bucket(self) -> AsyncLimiter:
        """Return a bucket that starts full and refills so slowly that the limit always holds.

        A bucket of the limit itself would let through almost twice as much in the first
        window: all it holds at once, and what flows in meanwhile. With room for ``burst`` and
        a refill of ``max_requests - burst`` per period, no window sees more than the limit.
        """
        burst = max(1, self.max_requests // 10)
        if self.max_requests == burst:
            return AsyncLimiter(1, self.period)
        return AsyncLimiter(burst, burst * self.period / (self.max_requests - burst))


@frozen
class Limits:
    """The documented limits of a workspace. The server's own words override them.

    Attributes:
        ids: ``/users/export/ids``. 2,500 a minute where the workspace was made before
            2024-08-22.
        default: every other endpoint together.
        ids_fast: ``/users/export/ids`` with named fields that hold neither
            ``campaigns_received`` nor ``canvases_received``; ``None`` where the workspace has
            no such tier.
    """

    ids: RateLimit = RateLimit(2500, 60)
    default: RateLimit = RateLimit(250_000, 3600)
    ids_fast: RateLimit | None = None

    @classmethod
    def new_workspace(cls) -> "Limits":
        """Return the limits of a workspace made on or after 2024-08-22.

        250 requests a minute, or 40 a second for requests of the fast tier.
        """
        return cls(ids=RateLimit(250, 60), ids_fast=RateLimit(40, 1))

    def pool_of(self, endpoint: Endpoint, *, fast: bool) -> Pool:
        """Return the pool that a request counts against.

        Args:
            endpoint: what is called.
            fast: whether the request's shape is that of the fast tier.
        """
        if endpoint.pool == "ids" and fast and self.ids_fast is not None:
            return "ids_fast"
        return endpoint.pool


class Limiter(Protocol):
    """Grants requests, and learns from answers."""

    async def acquire(self, pool: Pool) -> None:
        """Return when a request of this pool may be sent."""
        ...

    def observe(self, pool: Pool, window: RateWindow, *, refused: bool) -> None:
        """Take in what an answer said of the pool's window; ``refused`` if its status was 429."""
        ...


class LocalLimiter:
    """The limits within one process, for one event loop."""

    def __init__(self, limits: Limits) -> None:
        """Make a gate for each pool of these limits."""
        self._gates: dict[Pool, _Gate] = {
            "ids": _Gate(limits.ids),
            "default": _Gate(limits.default),
        }
        if limits.ids_fast is not None:
            self._gates["ids_fast"] = _Gate(limits.ids_fast)

    async def acquire(self, pool: Pool) -> None:
        """Return when a request of this pool may be sent."""
        await self._gates[pool].acquire()

    def observe(self, pool: Pool, window: RateWindow, *, refused: bool) -> None:
        """Take in what an answer said of the pool's window."""
        self._gates[pool].observe(window, refused=refused)


class _Gate:
    """One pool: a bucket, and the moment until which nothing passes."""

    def __init__(self, limit: RateLimit) -> None:
        self._bucket = limit.bucket()
        self._closed_until = 0.0  # on the event loop's clock

    async def acquire(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Closed first, then the token: tokens taken while closed would all leave at once.
            while (seconds := self._closed_until - loop.time()) > 0:  # noqa: ASYNC110 - a time
                await asyncio.sleep(seconds)
            await self._bucket.acquire()
            if self._closed_until <= loop.time():
                return

    def observe(self, window: RateWindow, *, refused: bool) -> None:
        if not refused and window.remaining != 0:
            return
        pause = window.resets_in
        if pause is None:
            pause = _BLIND_PAUSE if refused else 0.0
        until = asyncio.get_running_loop().time() + min(pause, _LONGEST_WINDOW)
        self._closed_until = max(self._closed_until, until)
