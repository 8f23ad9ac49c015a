"""The limits within one process: who is let through, and when."""

import asyncio
import logging
from typing import Final, TypeAlias

from aiolimiter import AsyncLimiter
from attrs import frozen

from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.lanes import Lanes
from braze_export.ledger import Ledger, Sent
from braze_export.limits import Lane, Limits, PoolSnapshot, RateLimit
from braze_export.server_clock import ServerClock

_BURST: Final = 20  # one part in so many of a limit may leave at once where the server is silent
_JITTER: Final = 0.1  # seconds that a request may be quicker on its way than the one before
_log = logging.getLogger("braze_export")

_Turn: TypeAlias = Sent | None  # None: at the bucket


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
        """Forget the timers. Whoever still waits is to be cancelled by whoever made it wait."""
        for gate in self._gates.values():
            gate.forget_timer()


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
        self._limit, self._reserve = limit, reserve
        self._ledger = Ledger(limit.max_requests, limit.period, reserve, clock)
        self._lanes: Lanes[_Turn] = Lanes()
        self._bucket: AsyncLimiter | None = None
        self._at_bucket = False
        self._timer: asyncio.TimerHandle | None = None
        self._sent = self._refused = 0
        self._waited = 0.0  # seconds, by those who wait no more
        self._since = 0.0  # sum of the times at which those who wait began to

    async def acquire(self, lane: Lane) -> _Permit:
        """Wait in a lane."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiter = self._lanes.join(lane)
        self._since += began
        self._pump(began)
        try:
            sent = await self._granted(waiter, lane)
        finally:
            self._since -= began
            self._waited += loop.time() - began
        self._sent += 1
        return _Permit(self, sent)

    def answered(self, sent: Sent, window: RateWindow, *, refused: bool) -> None:
        """Learn from an answer, and let through who may pass now."""
        now = asyncio.get_running_loop().time()
        known = self._ledger.limit
        self._refused += refused
        self._ledger.answered(sent, now, window, refused=refused)
        if self._ledger.limit != known:
            _log.info(
                "rate limit of %s: the server allows %d requests per window, not %d; its word "
                "counts", self._pool, self._ledger.limit, known,
            )  # fmt: skip
        self._pump(now)

    def unanswered(self, sent: Sent, *, counted: bool) -> None:
        """Note that no answer comes."""
        self._ledger.unanswered(sent, counted=counted)
        self._pump(asyncio.get_running_loop().time())

    def snapshot(self, now: float) -> PoolSnapshot:
        """Return how the pool stands."""
        ledger, waiting = self._ledger, len(self._lanes) + self._at_bucket
        return PoolSnapshot(
            limit=ledger.limit,
            remaining=ledger.spendable(),
            resets_in=ledger.resets_in(now),
            waiting=waiting,
            in_flight=ledger.in_flight,
            sent=self._sent,
            refused=self._refused,
            seconds_waited=max(0.0, self._waited + waiting * now - self._since),
        )

    def forget_timer(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pump(self, now: float) -> None:
        """Let through who may pass, and see to it that the next one is woken."""
        ledger, lanes = self._ledger, self._lanes
        while lanes and not ledger.blind:
            bulk, interactive = lanes.waiting("bulk"), lanes.waiting("interactive")
            room = min(ledger.room(now, bulk=bulk, interactive=interactive), len(lanes))
            if room <= 0:
                break
            for _ in range(room):
                lanes.next(ledger.send(now))
        self.forget_timer()
        if not lanes:
            return
        if not ledger.blind:
            self._wake_at(ledger.opens_at(now))
        elif not self._at_bucket:  # one at a time: so the lanes keep their order there
            self._at_bucket = True
            lanes.next(None)

    def _wake_at(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        if when != float("inf"):
            self._timer = loop.call_at(when, lambda: self._pump(loop.time()))

    async def _granted(self, waiter: "asyncio.Future[_Turn]", lane: Lane) -> Sent:
        try:
            sent = await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._lanes.leave(lane)
            else:
                self._give_back(waiter.result())
            self._pump(asyncio.get_running_loop().time())
            raise
        return sent or await self._drop()

    def _give_back(self, sent: _Turn) -> None:
        if sent is None:
            self._at_bucket = False
        else:
            self._ledger.unanswered(sent, counted=False)

    async def _drop(self) -> Sent:
        """Wait for a drop of the bucket."""
        try:
            if self._bucket is None:
                self._bucket = await _dripping(self._limit, self._reserve)
            await self._bucket.acquire()
            return self._ledger.send(asyncio.get_running_loop().time())
        finally:
            self._at_bucket = False
            self._pump(asyncio.get_running_loop().time())


async def _dripping(limit: RateLimit, reserve: float) -> AsyncLimiter:
    """Return a bucket that never lets more than the limit through in any window of its period.

    A bucket of the limit itself would let through almost twice as much in its first window:
    all that it holds at once, and what flows in meanwhile. With room for ``burst`` and a refill
    of ``most - burst`` per period, no window sees more than ``most``. It begins empty, for some
    requests have gone before the server was found to be silent.
    """
    most = max(1, int((1 - reserve) * limit.max_requests))
    burst = max(1, most // _BURST)
    flow = most - burst
    refill = burst * limit.period / flow if flow else limit.period + _JITTER
    bucket = AsyncLimiter(burst, refill)
    await bucket.acquire(burst)
    return bucket
