"""The limits within one process: who is let through, and when."""

import asyncio
import logging
import math
from typing import Final

from aiolimiter import AsyncLimiter
from attrs import frozen

from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.limiting.lanes import Lanes
from braze_export.limiting.ledger import Ledger
from braze_export.limiting.limits import Lane, Limits, PoolSnapshot, RateLimit
from braze_export.limiting.server_clock import ServerClock
from braze_export.limiting.window import Sent

_BURST: Final = 20  # one part in so many of a limit may leave at once where the server is silent
_JITTER: Final = 0.1  # seconds that a request may be quicker on its way than the one before
_log = logging.getLogger("braze_export")


class LocalLimiter:
    """The limits of one process, for one event loop: a gate for each pool."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        clock = ServerClock()
        self._gates = {
            pool: _Gate(pool, limit, limits.reserve, clock)
            for pool, limit in limits.by_pool().items()
        }

    async def start(self) -> None:
        """Do nothing: it can always work."""

    async def acquire(self, pool: Pool, lane: Lane) -> "_Permit":
        """Return when a request of this pool may be sent."""
        return await self._gates[pool].acquire(lane)

    def snapshot(self) -> dict[Pool, PoolSnapshot]:
        """Return how each pool stands now."""
        now = asyncio.get_running_loop().time()
        return {pool: gate.snapshot(now) for pool, gate in self._gates.items()}

    async def aclose(self) -> None:
        """Do nothing: timers are there only while somebody waits, maybe at another client."""


@frozen
class _Permit:
    """See ``limits.Permit``."""

    gate: "_Gate"
    sent: Sent

    def answered(self, window: RateWindow, *, refused: bool = False) -> None:
        self.gate.answered(self.sent, window, refused=refused)

    def unanswered(self, *, sent: bool) -> None:
        self.gate.unanswered(self.sent, counted=sent)


class _Gate:
    """One pool: those who wait, and the ledger that says how many may pass."""

    def __init__(self, pool: Pool, limit: RateLimit, reserve: float, clock: ServerClock) -> None:
        self._pool = pool
        self._ledger = Ledger(limit.max_requests, limit.period, reserve, clock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lanes: Lanes[Sent] = Lanes()
        self._bucket: AsyncLimiter | None = None  # where the server is silent
        self._dry_until = 0.0
        self._alarm: asyncio.TimerHandle | asyncio.Task[None] | None = None  # if somebody waits
        self._told = {limit.max_requests}  # limits that the log has told of, or need not
        self._waiting = self._sent = self._refused = 0
        self._waited = 0.0  # seconds, by those who wait no more
        self._since = 0.0  # sum of the times at which those who wait began to

    async def acquire(self, lane: Lane) -> _Permit:
        """Wait in a lane."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if loop is not self._loop:
            self._begin_in(loop, began)
        joined = lane == "bulk" and self._lanes.waiting("bulk") and self._alarm is not None
        waiter = self._lanes.join(lane)
        self._waiting += 1
        self._since += began
        if not joined:  # else those before it will be woken, and it with them
            self._pump(began)
        try:
            sent = await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it was its turn already
                self._ledger.unanswered(waiter.result(), counted=False)
            self._pump(loop.time())
            raise
        finally:
            self._waiting -= 1
            self._since -= began
            self._waited += loop.time() - began
        self._sent += 1
        return _Permit(self, sent)

    def _begin_in(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Leave to a loop that is closed who waited there, its alarm, and its bucket."""
        if self._loop is not None and self._loop.is_closed():
            self._lanes, self._alarm, self._bucket = Lanes(), None, None
            self._hang_bucket(now)
        self._loop = loop

    def answered(self, sent: Sent, window: RateWindow, *, refused: bool) -> None:
        """Learn from an answer, and let through who may pass now."""
        now = asyncio.get_running_loop().time()
        self._refused += refused
        self._ledger.answered(sent, now, window, refused=refused)
        self._hang_bucket(now)
        self._tell_limit(self._ledger.limit)
        self._pump(now)

    def _tell_limit(self, limit: int) -> None:
        if limit not in self._told:
            self._told.add(limit)
            _log.info(
                "rate limit of %s: the server allows %d requests per window; its word counts",
                self._pool,
                limit,
            )

    def unanswered(self, sent: Sent, *, counted: bool) -> None:
        """Note that no answer comes."""
        self._ledger.unanswered(sent, counted=counted)
        self._pump(asyncio.get_running_loop().time())

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return how the pool stands."""
        ledger = self._ledger
        return PoolSnapshot(
            limit=ledger.limit,
            remaining=ledger.spendable(now),
            resets_in=ledger.resets_in(now),
            waiting=self._waiting,
            in_flight=ledger.in_flight,
            sent=self._sent,
            refused=self._refused,
            seconds_waited=max(0.0, self._waited + self._waiting * now - self._since),
        )

    def _pump(self, now: float) -> None:
        """Let through who may pass, and see to it that the next one is woken."""
        ledger, lanes = self._ledger, self._lanes
        waiting = len(lanes)
        if waiting and self._bucket is None:
            bulk, interactive = lanes.waiting("bulk"), lanes.waiting("interactive")
            for _ in range(min(ledger.room(now, bulk=bulk, interactive=interactive), waiting)):
                lanes.next(ledger.send(now))
                waiting -= 1
        self._set_alarm(now, waiting)

    def _set_alarm(self, now: float, waiting: int) -> None:
        loop, alarm, when = asyncio.get_running_loop(), self._alarm, math.inf
        if waiting:
            when = self._ledger.opens_at(now) if self._bucket is None else self._dry_until
        if isinstance(alarm, asyncio.TimerHandle) and now < alarm.when() <= when < math.inf:
            return  # it will look again then
        if isinstance(alarm, asyncio.Task) and waiting and self._bucket is not None:
            return  # it waits for a drop
        if alarm is not None:
            alarm.cancel()
            self._alarm = None
        if waiting and self._bucket is not None and now >= when:
            self._alarm = loop.create_task(self._drop(self._bucket))
        elif when < math.inf:
            self._alarm = loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._pump(asyncio.get_running_loop().time())

    def _hang_bucket(self, now: float) -> None:
        ledger = self._ledger
        if not ledger.blind:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = _bucket(ledger.allowance(), ledger.period)
            drop = self._bucket.time_period / self._bucket.max_rate
            self._dry_until = now + min(ledger.period + _JITTER, drop * ledger.gone())

    async def _drop(self, bucket: AsyncLimiter) -> None:
        """Let one through as soon as there is a drop for it."""
        await asyncio.sleep(0)  # an eager task would be done before it is known as the alarm
        await bucket.acquire()
        now = asyncio.get_running_loop().time()
        self._alarm = None
        if self._lanes:  # else whoever waited has been cancelled just now
            self._lanes.next(self._ledger.send(now))
        self._pump(now)


def _bucket(most: int, period: float) -> AsyncLimiter:
    """Return a bucket that lets no more through in any time as long as the period.

    A bucket of the limit itself would let through almost twice as much in its first window:
    all that it holds at once, and what flows in meanwhile. With room for ``burst`` and a refill
    of ``most - burst`` per period, no window sees more than ``most``.
    """
    burst = max(1, most // _BURST)
    flow = most - burst
    return AsyncLimiter(burst, burst * period / flow if flow else period + _JITTER)
