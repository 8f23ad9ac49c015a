"""What is known of one pool's window, and how many requests may be sent now.

Pure: times are given, on the event loop's clock. What the server said last, less what it may
have counted since, is what is left: the lowest ``remaining`` of a window counts every request
that was answered in it, so only those under way have to be taken off.

Where answers say nothing of the limit the ledger is ``blind``, and a bucket has to do
(``governor``).
"""

import math
from typing import Final

from attrs import Factory, define, field

from braze_export.answers import RateWindow
from braze_export.limiting.server_clock import ServerClock
from braze_export.limiting.window import Sent, Window, ours

_LONGEST_WINDOW: Final = 3600.0  # seconds: Braze documents no limit with a longer window
_SLACK: Final = 60.0  # seconds that a reset may be further away, for clocks that differ
_PAUSE: Final = 1.0  # seconds, after a refusal that says nothing of its window; doubles
_PATIENCE: Final = 2.0  # seconds without an answer until one more request may ask
_SOONEST, _LATEST = 0.05, 2.0  # seconds that a turn may come later than the server's clock says
_WARY: Final = 10  # windows that begin with one request after a refusal
_UNTRUE: Final = 2  # refusals against the headers' word, from which on it is not believed
_DEAF: Final = 600.0  # seconds, for so long
_HELD: Final = 8  # requests that may be kept for looking at the server's clock


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
    _window: Window = Factory(lambda: Window(number=0, opening=1, whole=False))
    _pace: float = 0.0  # of others, in the window before
    _closed_at: float = -math.inf
    _closed_until: float = -math.inf
    _pause: float = _PAUSE
    _late: float = 0.0  # seconds that turns come later than the server's clock says
    _next_look: float = math.inf
    _wary: int = 0  # windows still to begin with one request
    _untrue: int = 0  # refusals though requests remained
    _deaf_until: float = -math.inf  # until then headers are not believed
    _blind_since: float = -math.inf
    _over: float = -math.inf  # the reset of the window before
    _set: int = field(init=False)  # the limit as it was set

    def __attrs_post_init__(self) -> None:
        self._set = self.limit

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
        if refused:
            self._refused(sent, now, told)
        elif told.remaining is None or told.reset is None or self._is_untold(told, now):
            self._told_nothing(sent, now)
        else:
            self._pause = _PAUSE
            self._sees(now)
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

    def spendable(self, now: float) -> int | None:
        """Return how many requests are left to us in this window, as far as is known."""
        over = now >= self._turns_at(now)
        return None if self._window.remaining is None or over else self._left()

    def _share(self, requests: int) -> int:
        return ours(requests, self.reserve)

    def _is_untold(self, told: RateWindow, now: float) -> bool:
        """Say whether what was told makes no sense, or has proved wrong of late."""
        return now < self._deaf_until or (told.resets_in or 0.0) > _LONGEST_WINDOW + _SLACK

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
        looked = now >= self._next_look
        if bulk + interactive <= left:
            self._next_look = min(self._next_look, now + self.clock.patience())
            return left if looked else urgent
        if self._next_look == math.inf:
            looks = math.ceil(held / max(1, int(release - now)))  # for each second to come
            self._next_look = self.clock.next_look(now, looks)
        return max(int(looked), urgent)

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
            reset = self._window.reset
            self._begin(opening=1 if idle or shared or self._wary else self.limit, whole=not idle)
            self._turn_over(reset)

    def _turn_over(self, reset: float) -> None:
        """Note that the window whose reset this was is over."""
        self._over, self._wary = reset, max(0, self._wary - 1)
        self._window.spent, self._window.carried = 0, math.inf

    def _begin(self, *, opening: int, whole: bool) -> None:
        """Know nothing, but what was spent."""
        old = self._window
        self._pace = old.pace(self.in_flight)
        carried = min(old.reset, old.carried)
        self._window = Window(old.number + 1, opening, whole, spent=old.spent, carried=carried)
        self._next_look = math.inf

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
            over = window.reset
            self._begin(opening=1, whole=True)  # the window has turned sooner than was sure
            self._turn_over(over)
            window = self._window
        elif sent.at < window.known_at and (
            reset < window.reset or remaining > (window.remaining or 0)
        ):
            # It may have been counted before what is known was: the lower number is right.
            window.spent += reset >= window.reset
            return
        self.limit = told.limit or self.limit
        window.learn(remaining, reset, now, counted=True)

    def _told_nothing(self, sent: Sent, now: float) -> None:
        window = self._window
        window.count()
        if window.remaining is None and sent.window == window.number:
            self._blind_since = self._blind_since if self.blind else now
            self.blind = True

    def _refused(self, sent: Sent, now: float, told: RateWindow) -> None:
        window, reset = self._window, told.reset
        if (
            reset is not None
            and sent.window < window.number
            and (reset <= self._over or reset < window.reset < math.inf)
        ):
            return  # of an earlier window
        if reset is None or told.remaining or reset <= self._over:
            self._wary = _WARY  # turned too early, or something else is wrong
        over = reset is None or self.clock.surely_at(reset, now) + self._late <= now
        if over or told.remaining or now < self._deaf_until:
            self._refused_in_vain(sent, now, told)
            return
        self._sees(now)
        self.limit = told.limit or self.limit
        window = self._window
        soonest = min(reset or 0.0, told.clock + _LONGEST_WINDOW)
        latest = soonest if window.remaining is None else max(soonest, window.reset)
        window.learn(0, latest, now, counted=False)
        window.refused = True
        self._closed_until = max(self._closed_until, now + (told.pause or 0.0))

    def _refused_in_vain(self, sent: Sent, now: float, told: RateWindow) -> None:
        """Pause after a refusal that is not explained by a window that is spent."""
        if sent.at < self._closed_at:
            return  # it was sent before an earlier pause
        window = self._window
        if window.remaining is None and window.whole and sent.window == window.number:
            self._late = min(_LATEST, max(_SOONEST, 2 * self._late))  # not turned yet
        self._untrue += bool(told.remaining)
        if self._untrue >= _UNTRUE:  # another limit than the one that is told of
            self._untrue, self._deaf_until, self.limit = 0, now + _DEAF, self._set
        self._closed_at = now
        self._closed_until = now + min(told.pause or self._pause, _LONGEST_WINDOW)
        self._pause = min(2 * self._pause, max(self.period, _PAUSE))
        self._begin(opening=1, whole=False)
        self.blind = False

    def _sees(self, now: float) -> None:
        if self.blind:
            self.blind = False
            self._begin(opening=1, whole=False)
            if now - self._blind_since > self.period:
                self._window.spent = 0
