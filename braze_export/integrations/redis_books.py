"""What one process keeps of one pool: leases that it holds, news to tell, what it heard last.

Pure: times are given, on the event loop's clock.
"""

import math
from collections import Counter
from typing import Final

from attrs import Factory, define

from braze_export.answers import RateWindow
from braze_export.integrations.redis_words import Call, Heard, Lease, News
from braze_export.limiting.limits import RateLimit
from braze_export.limiting.server_clock import ServerClock

_LOT: Final = 50  # requests that are asked for at once, at most
_STOCK: Final = 8  # leases that are kept though nobody waits yet
_FRESH: Final = 1.0  # seconds that they are kept
_SOON, _LATER = 0.01, 0.05  # seconds until news are told, while somebody waits here and else
_SHORTEST: Final = 0.002  # seconds between two calls, the first of which got too little
_SIGN_OF_LIFE: Final = 30.0  # seconds between calls while requests are under way


@define
class Books:
    """One pool.

    Attributes:
        process: its id.
        limit: as set.
        reserve: share of each window that is left to others.
        clock: the server's.
        out: leases given to those who waited, and not yet done with.
        heard: what Redis said last.
        heard_at: when it said so.
        recorded: whether Redis knows of this process.
    """

    process: str
    limit: RateLimit
    reserve: float
    clock: ServerClock
    out: int = 0
    heard: Heard = Factory(Heard)
    heard_at: float = -math.inf
    recorded: bool = False
    _ask_at: float = -math.inf  # when those who wait may get something
    _tell_at: float = math.inf
    _called_at: float = -math.inf
    _calls: int = 0
    _batch: int = 0
    _wanted: int = 0  # in the call that is under way
    _news: News = Factory(News)
    _told: News | None = None  # what the last call told; kept until it was surely heard
    _stock: list[Lease] = Factory(list)
    _stock_until: float = math.inf
    _behind: bool = False  # whether there are news that the call under way does not tell
    _apart: bool = False  # whether requests were sent without Redis since it was heard
    _asking: "Counter[int]" = Factory(Counter)  # leases that ask, by window

    def due(self, waiting: int) -> float:
        """Return when Redis is to be called, while so many wait; infinity if for nothing."""
        return min(
            self._tell_at,
            self._ask_at if waiting else math.inf,
            self._stock_until if self._stock else math.inf,
            self._called_at + _SIGN_OF_LIFE if self.out else math.inf,
        )

    def call(self, now: float, *, bulk: int, interactive: int, leave: bool = False) -> Call:
        """Return what to say, while so many wait."""
        self.void_stock(now)
        if self._told is None:
            self._told, self._news = self._news, News()
            self._batch += 1
        else:  # the last call may have been heard, or not: it is told again, and the rest later
            self._behind = True
        self._calls += 1
        self._called_at, self._tell_at, self.recorded = now, math.inf, not leave
        self._wanted = min(bulk + interactive, _LOT)
        low = now - self.clock.surely_at(0.0, now)
        high = now - self.clock.perhaps_at(0.0, now)
        return Call(
            id=self.process,
            calls=self._calls,
            batch=self._batch,
            news=self._told,
            flying=self.out + len(self._stock) + (self._news.leases if self._behind else 0),
            asking=self._asking[self.heard.number],
            number=self.heard.number,
            want=self._wanted,
            urgent=min(interactive, self._wanted),
            stock=_STOCK if self._wanted else 0,
            limit=self.limit.max_requests,
            period=self.limit.period,
            reserve=self.reserve,
            server=(low, high) if high < math.inf else None,
            apart=self._apart,
            sharp=self.clock.sharp(now),
            patience=self.clock.patience(),
            leave=leave,
        )

    def hear(self, heard: Heard, now: float, *, waiting: int) -> list[Lease]:
        """Take in what was answered, and return leases for those who wait now."""
        self._told, self.heard, self.heard_at = None, heard, now
        self._apart = self._apart and self._behind
        if self._behind:
            self._behind = False
            self._tell_by(now)
        self._ask_at = now + max(_SHORTEST, heard.wait) if heard.granted < self._wanted else now
        lease = heard.lease()
        given = min(heard.granted, waiting)
        over = heard.granted - given + heard.stock  # some may have left meanwhile
        if over and not lease.asks:
            lasts = min(_FRESH, _FRESH if heard.resets_in is None else heard.resets_in)
            self._stock, self._stock_until = [lease] * over, self._called_at + lasts
        elif over:
            self._tell_by(now)
        return [self._give(lease) for _ in range(given)]

    def take(self, now: float) -> Lease | None:
        """Return a lease from the stock, if there is one."""
        self.void_stock(now)
        return self._give(self._stock.pop()) if self._stock else None

    def void_stock(self, now: float) -> None:
        """Give back the stock if it is old: by not counting it when Redis is called."""
        if self._stock and now >= self._stock_until:
            self._stock.clear()
            self._tell_by(now)

    def gone(self) -> None:
        """Note that Redis is gone: nothing is kept, and it is asked again once it is back."""
        self._stock.clear()
        self._ask_at = -math.inf

    def hurry(self, now: float) -> None:
        """Note that somebody waits for a single answer, who may get what is kept from others."""
        if self.heard.left:
            self._ask_at = min(self._ask_at, now)

    def apart(self) -> Lease:
        """Return a lease that was granted without Redis."""
        self._apart = True
        return self._give(Lease())

    def answered(
        self,
        lease: Lease,
        sent: float,
        now: float,
        told: RateWindow,
        *,
        refused: bool,
        waiting: int,
    ) -> None:
        """Take in an answer; ``refused`` if by the rate limit."""
        self._done(lease)
        if told.dated or told.reset is not None:
            self.clock.observe(sent=sent, received=now, clock=told.clock, whole=told.dated)
        self._news.answered(lease, told, refused=refused)
        if refused or (lease.asks and self.heard.asks):  # everybody waits for it
            self._tell_by(now)
        else:
            self._tell_by(now + (_SOON if waiting else _LATER))

    def unanswered(self, lease: Lease, now: float, *, counted: bool) -> None:
        """Note that no answer comes; ``counted`` if the server may have counted the request."""
        self._done(lease)
        if counted:
            self._news.unanswered(lease)
        self._tell_by(now if lease.asks else now + _LATER)

    def resets_in(self, now: float) -> float | None:
        """Return the seconds until the next window, if known."""
        if self.heard.resets_in is None:
            return None
        seconds = self.heard_at + self.heard.resets_in - now
        return seconds if seconds > 0 else None

    def left(self, now: float) -> int | None:
        """Return how many requests may still be sent in this window, if known."""
        return None if self.resets_in(now) is None else self.heard.left

    def _give(self, lease: Lease) -> Lease:
        self.out += 1
        if lease.asks:
            self._asking[lease.window] += 1
        return lease

    def _done(self, lease: Lease) -> None:
        self.out -= 1
        if lease.asks:
            self._asking[lease.window] -= 1
            self._asking += Counter()  # forgets windows without any

    def _tell_by(self, when: float) -> None:
        self._tell_at = min(self._tell_at, when)
