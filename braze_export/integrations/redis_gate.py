"""One pool in one process: who waits here, and when Redis is called.

One call at a time. What has happened is told with the next call, and so is how many wait: the
busier the process, the more does a call serve.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from attrs import define

from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.errors import LimiterError
from braze_export.integrations.redis_aside import Aside
from braze_export.integrations.redis_books import Books
from braze_export.integrations.redis_link import Link
from braze_export.integrations.redis_words import Heard, Lease
from braze_export.lanes import Lanes
from braze_export.limits import Lane, Permit, PoolSnapshot
from braze_export.tasks import cancel

_log = logging.getLogger("braze_export")

_Turn: TypeAlias = Lease | Exception | None  # None: ask the one who grants while Redis is gone


@define(eq=False)
class _Permit:
    """See ``limits.Permit``."""

    gate: "Gate"
    lease: Lease
    sent: float
    aside: Permit | None

    def answered(self, window: RateWindow, *, refused: bool = False) -> None:
        if self.aside is not None:
            self.aside.answered(window, refused=refused)
        self.gate.answered(self.lease, self.sent, window, refused=refused)

    def unanswered(self, *, sent: bool) -> None:
        if self.aside is not None:
            self.aside.unanswered(sent=sent)
        self.gate.unanswered(self.lease, counted=sent)


class Gate:
    """One pool.

    Args:
        pool: its name.
        key: its key in Redis.
        books: what is kept of it.
        link: the way to Redis.
        aside: grants requests while Redis is gone; ``None``: they wait.
        patience: seconds that they wait for Redis at most.
    """

    def __init__(
        self, pool: Pool, key: str, books: Books, link: Link, aside: Aside | None, patience: float
    ) -> None:
        self._pool, self._key, self._books, self._link = pool, key, books, link
        self._aside, self._patience = aside, patience
        self._lanes: Lanes[_Turn] = Lanes()
        self._patient: set[asyncio.Timeout] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = self._sent = self._refused = 0
        self._waited = 0.0  # seconds, by those who wait no more
        self._since = 0.0  # sum of the times at which those who wait began to
        link.watchers.append(self._switch)

    async def acquire(self, lane: Lane) -> _Permit:
        """Wait in a lane.

        Raises:
            LimiterError: Redis was gone for too long.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._waiting += 1
        self._since += began
        try:
            lease, aside = await self._granted(lane)
        finally:
            now = loop.time()
            self._waiting -= 1
            self._since -= began
            self._waited += now - began
        self._sent += 1
        return _Permit(self, lease, now, aside)

    def answered(self, lease: Lease, sent: float, told: RateWindow, *, refused: bool) -> None:
        """Learn from an answer."""
        self._refused += refused
        now = asyncio.get_running_loop().time()
        waiting = len(self._lanes)
        self._books.answered(lease, sent, now, told, refused=refused, waiting=waiting)
        self._look()

    def unanswered(self, lease: Lease, *, counted: bool) -> None:
        """Note that no answer comes."""
        now = asyncio.get_running_loop().time()
        self._books.unanswered(lease, now, counted=counted)
        self._look()

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return how the pool stands."""
        books, aside = self._books, self._aside.snapshot(self._pool) if self._aside else None
        heard = books.heard
        return PoolSnapshot(
            limit=aside.limit if aside else heard.limit or books.limit.max_requests,
            remaining=aside.remaining if aside else heard.left,
            resets_in=aside.resets_in if aside else books.resets_in(now),
            waiting=self._waiting,
            in_flight=books.out,
            sent=self._sent,
            refused=self._refused,
            seconds_waited=max(0.0, self._waited + self._waiting * now - self._since),
        )

    async def aclose(self) -> None:
        """Call Redis no more, unless somebody else still waits here."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await cancel(self._task)

    async def check(self) -> None:
        """Call Redis.

        Raises:
            LimiterError: it cannot be reached, or refuses.
        """
        await self._link.check(self._key, self._last_words())

    async def leave(self) -> None:
        """Have Redis forget this process, and learn what it has not been told yet."""
        if not self._books.idle:
            await self._link.run(self._key, self._last_words())
