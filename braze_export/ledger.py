"""What is known of one pool's window, and how many requests may be sent now.

Pure: times are given, on the event loop's clock. What the server said last, less what it may
have counted since, is what is left: the lowest ``remaining`` of a window counts every request
that was answered in it, so only those under way have to be taken off.

Where answers say nothing of the limit the ledger is ``blind``, and a bucket has to do
(``governor``).
"""

import math
from typing import Final

from attrs import Factory, define, frozen

from braze_export.answers import RateWindow
from braze_export.server_clock import ServerClock

_LONGEST_WINDOW: Final = 3600.0  # seconds: Braze documents no limit with a longer window
_PAUSE: Final = 1.0  # seconds, after a refusal that says nothing of its window; doubles
_PATIENCE: Final = 2.0  # seconds without an answer until one more request may ask
_GREEDIEST: Final = 4.0  # requests of others for one of ours that are reckoned with at most
_SOONEST, _LATEST = 0.05, 2.0  # seconds that a turn may come later than the server's clock says
_HELD: Final = 8  # requests that may be kept for looking at the server's clock


@frozen
class Sent:
    """One request that was let through: in which window, and when."""

    window: int
    at: float


@define
class _Window:
    """What is known of one window: before the first answer, only how many may ask."""

    number: int
    opening: int
    whole: bool  # whether we saw it begin
    reset: float = math.inf  # on the server's clock
    remaining: int | None = None
    known_at: float = math.inf  # when ``remaining`` was learned
    first: int = 0  # what remained when we first heard of it
    spent_by_then: int = 0
    spent: int = 0  # answered
    asking: int = 0  # sent before anything was known, and not yet answered
    asked_at: float = 0.0
    refused: bool = False

    def learn(self, remaining: int, reset: float, now: float) -> None:
        """Take the server's word for it."""
        if self.remaining is None or remaining > self.remaining:
            self.first, self.spent_by_then = remaining, self.spent
        self.remaining, self.reset, self.known_at = remaining, reset, now

    def count(self) -> None:
        """Count a request of which the server said nothing."""
        self.spent += 1
        if self.remaining is not None:
            self.remaining = max(0, self.remaining - 1)

    def pace(self, in_flight: float) -> float:
        """Return how many requests others send for each of ours.

        Args:
            in_flight: how many of those under way what remains may account for.
        """
        ours = self.spent - self.spent_by_then
        others = self.first - (self.remaining or 0) - ours - in_flight
        return 0.0 if others <= 0 else min(_GREEDIEST, others / max(1, ours))

    def shared(self, limit: int, in_flight: int) -> bool:
        """Say whether others of the workspace use it too, or nobody knows."""
        if self.remaining is None or self.refused or self.pace(in_flight) > 0:
            return True
        return limit - self.remaining - self.spent - in_flight > 0


@define
class Ledger:
    """One pool.

    Attributes:
        limit: requests per window: as set, until the server says otherwise.
        period: seconds that a window takes, where the server does not say.
        reserve: share of each window that is left to others.
        clock: the server's.
        blind: whether the answers of late said nothing of the limit.
        in_flight: requests sent and not yet answered.
    """

    limit: int
    period: float
    reserve: float
    clock: ServerClock
    blind: bool = False
    in_flight: int = 0
    _window: _Window = Factory(lambda: _Window(number=0, opening=1, whole=False))
    _pace: float = 0.0  # of others, in the window before
    _closed_at: float = -math.inf
    _closed_until: float = -math.inf
    _pause: float = _PAUSE
    _late: float = 0.0  # seconds that turns come later than the server's clock says
    _next_look: float = math.inf

    def room(self, now: float, *, bulk: int, interactive: int = 0) -> int:
        """Return how many of so many waiting requests may be sent now."""
        self._turn(now)
        if now < self._closed_until:
            return 0
        window = self._window
        if window.remaining is None:
            unsent = self._share(window.opening) - self.gone()
            if not window.asking:
                return max(1, unsent)
            more = 1 + int((now - window.asked_at) / _PATIENCE) - window.asking
            return max(0, unsent, min(more, self.allowance() - self.gone()))
        left = self._left()
        if left >= bulk + interactive + self.in_flight or self.clock.sharp(now):
            return left
        return self._unless_held(left, bulk, interactive, now)

    def opens_at(self, now: float) -> float:
        """Return when there may be room though no answer comes; infinity if never.

        To be asked when ``room`` has just given too little.
        """
        if now < self._closed_until:
            return self._closed_until
        window = self._window
        if window.remaining is None:
            tries = int((now - window.asked_at) / _PATIENCE) + 1
            return window.asked_at + tries * _PATIENCE if window.asking else math.inf
        release = self.clock.perhaps_at(window.reset, now)  # nothing is held from then on
        moments = (self._turns_at(now), self._next_look, release)
        return min((moment for moment in moments if moment > now), default=math.inf)

    def send(self, now: float) -> Sent:
        """Note that a request is sent."""
        self.in_flight += 1
        self._next_look = math.inf
        window = self._window
        if window.remaining is None:
            window.asked_at = window.asked_at if window.asking else now
            window.asking += 1
        return Sent(window.number, now)

    def answered(self, sent: Sent, now: float, told: RateWindow, *, refused: bool) -> None:
        """Take in what an answer said; ``refused`` if by the rate limit."""
        self._done(sent)
        if told.dated or told.reset is not None:
            self.clock.observe(sent=sent.at, received=now, clock=told.clock, whole=told.dated)
        self._turn(now)
        if told.resets_in is not None and told.resets_in > _LONGEST_WINDOW:
            told = told.closed_for(_LONGEST_WINDOW)
        if refused:
            self._refused(sent, now, told)
        elif told.remaining is None or told.reset is None:
            self._told_nothing(sent, now, told.remaining)
        else:
            self._pause = _PAUSE
            self._sees()
            self._told(sent, now, told, told.remaining, told.reset)

    def unanswered(self, sent: Sent, *, counted: bool) -> None:
        """Note that no answer comes; ``counted`` if the server may have counted the request."""
        self._done(sent)
        if counted and sent.window == self._window.number:
            self._window.count()

    def gone(self) -> int:
        """Return how many requests this window may have counted."""
        return self._window.spent + self.in_flight

    def allowance(self) -> int:
        """Return how many requests of a window are ours."""
        return self._share(self.limit)

    def resets_in(self, now: float) -> float | None:
        """Return the seconds until the next window, or until requests flow again, if known."""
        at = max(self._closed_until, self._turns_at(now))
        seconds = (self._closed_until if at == math.inf else at) - now
        return seconds if seconds > 0 else None

    def spendable(self) -> int | None:
        """Return how many requests are left to us in this window, as far as is known."""
        return None if self._window.remaining is None else self._left()

    def _share(self, requests: int) -> int:
        return max(1, math.floor((1 - self.reserve) * requests))

    def _left(self) -> int:
        window, in_flight = self._window, self.in_flight
        left = window.remaining or 0
        if in_flight:
            left -= math.ceil(in_flight * (1 + max(self._pace, window.pace(in_flight / 2))))
        return max(0, min(left, self.allowance() - self.gone()))

    def _unless_held(self, left: int, bulk: int, interactive: int, now: float) -> int:
        """Return how many of those left may go at once.

        If the next window is needed anyway, it is to begin at the right moment: the last bulk
        requests of this one are kept, and sent when their answers tell when a second of the
        server turns. Whether it is needed shows when those under way are answered.
        """
        release = self.clock.perhaps_at(self._window.reset, now)
        held = min(left, _HELD, self.limit // 4) if now < release else 0
        if held < left or not held:
            return left - held
        urgent = min(left, interactive)
        if bulk + interactive <= left:
            return urgent
        if self._next_look == math.inf:
            looks = math.ceil(held / max(1, int(release - now)))  # for each second to come
            self._next_look = self.clock.next_look(now, looks)
        return max(int(now >= self._next_look), urgent)

    def _turns_at(self, now: float) -> float:
        window = self._window
        longest = window.known_at + _LONGEST_WINDOW  # where one of the clocks was set meanwhile
        return min(self.clock.surely_at(window.reset, now), longest) + self._late

    def _turn(self, now: float) -> None:
        """Begin the next window, if it is time."""
        late = now - self._turns_at(now)
        if late >= 0:
            idle = late > _PATIENCE and not self.in_flight
            shared = self._window.shared(self.limit, self.in_flight)
            self._begin(opening=1 if idle or shared else self.limit, whole=not idle)

    def _begin(self, *, opening: int, whole: bool) -> None:
        self._pace = self._window.pace(self.in_flight)
        self._window = _Window(self._window.number + 1, opening, whole)
        self._next_look = math.inf

    def _close(self, now: float, seconds: float) -> None:
        """Let nothing through for a while, and then ask anew."""
        self._closed_at, self._closed_until = now, now + seconds
        self._begin(opening=1, whole=False)
        self.blind = False

    def _done(self, sent: Sent) -> None:
        self.in_flight -= 1
        if sent.window == self._window.number and self._window.asking:
            self._window.asking -= 1

    def _told(self, sent: Sent, now: float, told: RateWindow, remaining: int, reset: float) -> None:
        window = self._window
        if window.remaining is None:
            if sent.window < window.number and self.clock.surely_at(reset, now) <= now:
                return  # of an earlier window
        elif reset > window.reset and self.clock.perhaps_at(window.reset, now) <= now:
            self._begin(opening=1, whole=True)  # the window has turned sooner than was sure
            window = self._window
        elif sent.at < window.known_at and (
            reset < window.reset or remaining > (window.remaining or 0)
        ):
            # It may have been counted before what is known was: the lower number is right.
            window.spent += reset >= window.reset
            return
        self.limit = told.limit or self.limit
        window.spent += 1
        window.learn(remaining, reset, now)

    def _told_nothing(self, sent: Sent, now: float, remaining: int | None) -> None:
        if remaining == 0:
            self._pause_blindly(sent, now)
            return
        window = self._window
        window.count()
        self.blind = window.remaining is None and (self.blind or sent.window == window.number)

    def _refused(self, sent: Sent, now: float, told: RateWindow) -> None:
        window = self._window
        if told.reset is None:
            if window.remaining is None and window.whole and sent.window == window.number:
                self._late = min(_LATEST, max(_SOONEST, 2 * self._late))  # not turned yet
            self._pause_blindly(sent, now)
        elif sent.window < window.number and told.reset < window.reset < math.inf:
            return  # of an earlier window
        elif self.clock.surely_at(told.reset, now) + self._late > now:
            self._sees()
            self.limit = told.limit or self.limit
            window = self._window
            reset = told.reset if window.remaining is None else max(told.reset, window.reset)
            window.learn(0, reset, now)
            window.refused = True

    def _sees(self) -> None:
        if self.blind:
            self.blind = False
            self._begin(opening=1, whole=False)

    def _pause_blindly(self, sent: Sent, now: float) -> None:
        if sent.at >= self._closed_at:  # else it was sent before an earlier pause
            self._close(now, self._pause)
            self._pause = min(2 * self._pause, max(self.period, _PAUSE))
