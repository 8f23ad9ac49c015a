"""One pool in one process: who waits here, and when Redis is called.

One call at a time. What has happened is told with the next call, and so is how many wait: the
busier the process, the more does a call serve.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeAlias

from attrs import frozen

from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.errors import LimiterError
from braze_export.integrations.redis_aside import Aside
from braze_export.integrations.redis_books import Books
from braze_export.integrations.redis_link import Link
from braze_export.integrations.redis_words import Heard, Lease
from braze_export.limiting.lanes import Lanes
from braze_export.limiting.limits import Lane, Permit, PoolSnapshot
from braze_export.tasks import cancel

_FAREWELL: Final = 1.0  # seconds that taking leave of Redis may take
_log = logging.getLogger("braze_export")

_Turn: TypeAlias = Lease | Exception | None  # None: ask the one who grants while Redis is gone


@frozen
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
        self,
        pool: Pool,
        *,
        key: str,
        books: Books,
        link: Link,
        aside: Aside | None,
        patience: float,
    ) -> None:
        self._pool, self._key, self._books, self._link = pool, key, books, link
        self._aside, self._patience = aside, patience
        self._lanes: Lanes[_Turn] = Lanes()
        self._patient: set[asyncio.Timeout] = set()
        self._told = {books.limit.max_requests}  # limits that the log has told of, or need not
        self._open = False
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
            remaining=aside.remaining if aside else books.left(now),
            resets_in=aside.resets_in if aside else books.resets_in(now),
            waiting=self._waiting,
            in_flight=books.out,
            sent=self._sent,
            refused=self._refused,
            seconds_waited=max(0.0, self._waited + self._waiting * now - self._since),
        )

    async def check(self) -> None:
        """Call Redis, for nothing but to see whether it can be done.

        Raises:
            LimiterError: it cannot be reached, or refuses.
        """
        await self._link.check(self._key, self._words(leave=True))

    async def pause(self) -> None:
        """Call Redis no more; tell it what it does not know yet, and that this process leaves."""
        self._open = False
        self._forget_timer()
        if self._task is not None:
            await cancel(self._task)
        if self._books.recorded and not self._link.gone and not self._waiting:
            with suppress(LimiterError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._link.check(self._key, self._words(leave=not self._books.out))

    def resume(self) -> None:
        """Go on if somebody still waits: another client may use the same limits."""
        if self._waiting:
            self._open = True
            self._look()

    async def _granted(self, lane: Lane) -> tuple[Lease, Permit | None]:
        self._open = True
        while True:
            if self._aside is not None and self._link.gone:
                self._look()  # for Redis may be back
                aside = await self._aside.acquire(self._pool, lane)
                if aside is not None:
                    return self._books.apart(), aside
            elif (lease := await self._leased(lane)) is not None:
                return lease, None

    async def _leased(self, lane: Lane) -> Lease | None:
        """Wait for a lease; ``None`` when Redis is gone and others grant requests."""
        now = asyncio.get_running_loop().time()
        if not self._lanes and (lease := self._books.take(now)):
            return lease
        waiter = self._lanes.join(lane)
        if lane == "interactive":
            self._books.hurry(now)
        self._look()
        async with self._patiently():
            try:
                turn = await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled() and isinstance(turn := waiter.result(), Lease):
                    self._pass_on(turn)  # it was its turn already
                raise
        if isinstance(turn, Exception):
            raise turn
        return turn

    @asynccontextmanager
    async def _patiently(self) -> AsyncIterator[None]:
        """Wait while Redis is there; while it is gone only for so long, if it is needed."""
        if self._aside is not None:
            yield
            return
        try:
            async with asyncio.timeout(None) as patient:
                if self._link.gone:
                    patient.reschedule(self._patience_ends())
                self._patient.add(patient)
                try:
                    yield
                finally:
                    self._patient.discard(patient)
        except TimeoutError:
            raise LimiterError(
                f"Redis at {self._link.place} has been gone for {self._patience:g} s "
                f"({self._link.reason}): no request can be granted"
            ) from None

    def _patience_ends(self) -> float:
        return asyncio.get_running_loop().time() + self._patience

    def _pass_on(self, lease: Lease) -> None:
        if self._lanes:
            self._lanes.next(lease)
        else:
            self.unanswered(lease, counted=False)

    def _switch(self, gone: bool) -> None:
        """Take in that Redis is gone, or back."""
        if gone:
            self._books.gone()
            if self._aside is not None:
                self._go_aside(self._aside)
        for patient in self._patient:
            if not patient.expired():
                patient.reschedule(self._patience_ends() if gone else None)
        self._look()

    def _go_aside(self, aside: Aside) -> None:
        now = asyncio.get_running_loop().time()
        left, resets_in = self._books.left(now), self._books.resets_in(now)
        if left is not None and resets_in is not None:
            aside.ration(self._pool, left, now + resets_in)
        while self._lanes:
            self._lanes.next(None)

    def _due(self) -> float:
        if self._link.gone:
            return self._link.next_try if self._waiting else float("inf")
        return self._books.due(len(self._lanes))

    def _look(self) -> None:
        """See to it that Redis is called when it is time."""
        if not self._open or self._task is not None:
            return
        loop, due = asyncio.get_running_loop(), self._due()
        if due <= loop.time():
            self._forget_timer()
            self._task = loop.create_task(self._calls())
            self._task.add_done_callback(self._called)
        elif self._timer is None or self._timer.when() > due:
            self._forget_timer()
            if due < float("inf"):
                self._timer = loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._look()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _calls(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due() <= loop.time():
            reply = await self._link.run(self._key, self._words())
            if reply is not None:
                self._hear(Heard.read(reply), loop.time())

    def _called(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        while error is not None and self._lanes:
            self._lanes.next(error if isinstance(error, Exception) else None)
        self._look()

    def _words(self, *, leave: bool = False) -> bytes:
        now = asyncio.get_running_loop().time()
        bulk, interactive = self._lanes.waiting("bulk"), self._lanes.waiting("interactive")
        if leave:
            bulk = interactive = 0
        return self._books.call(now, bulk=bulk, interactive=interactive, leave=leave).encode()

    def _hear(self, heard: Heard, now: float) -> None:
        if heard.limit not in self._told:
            self._told.add(heard.limit)
            _log.info(
                "rate limit of %s: the server allows %d requests per window; its word counts",
                self._pool,
                heard.limit,
            )
        for lease in self._books.hear(heard, now, waiting=len(self._lanes)):
            self._lanes.next(lease)
