"""What is told of how far something is: of identifiers, of waiting, of a download."""

import time
from collections.abc import Callable
from typing import Final

from attrs import Factory, define, frozen
from rich.filesize import decimal

from braze_export import DownloadStats, ExportState, ExportStats, PoolSnapshot
from braze_export.cli.progress import duration
from braze_export.cli.screen import count
from braze_export.jobs.pace import Pace

#: What a storage says of an archive that is not there yet: to people it sounds like a fault.
_USUAL_CODES: Final = frozenset({None, "AccessDenied", "NoSuchKey"})


@frozen
class IdsReading:
    """How far an export by identifiers is.

    Attributes:
        done: identifiers answered.
        total: of all identifiers, ``None`` while nobody knows.
        exact: whether the total is counted, not guessed.
        requests: sent.
        again: of these, those that were sent again.
        pool: how the rate limit stands, if it is to be told.
    """

    done: int
    total: int | None
    exact: bool
    requests: int
    again: int
    pool: PoolSnapshot | None = None

    @classmethod
    def of(
        cls,
        stats: ExportStats,
        total: int | None,
        *,
        exact: bool = True,
        pool: PoolSnapshot | None = None,
    ) -> "IdsReading":
        """Read the counters of an export. What was asked for counts once it was answered."""
        answered = stats.users + stats.invalid_user_ids + stats.failed + stats.unaccounted
        # One e-mail address may give several users, so that more comes back than was asked for.
        done = min(answered, stats.identifiers) + stats.duplicates
        return cls(done, total, exact, stats.requests, stats.retries, pool)

    def parts(self, pace: Pace, *, narrow: bool) -> list[str]:
        """Say it in words. See ``Reading``."""
        of = "" if self.total is None else f"/{'' if self.exact else '~'}{self.total:,}"
        parts = [f"{self.done:,}{of} ids", f"{pace.rate:,.0f}/s"]
        if not narrow:
            again = f" ({self.again:,} again)" if self.again else ""
            parts.append(f"{count(self.requests, 'request')}{again}")
            parts += self._standing()
        left, window = pace.left(self), self._next_window
        # While everything waits the pace still says what it was before.
        return parts + _left(left if left is None or window is None else max(left, window))

    @property
    def _next_window(self) -> float | None:
        """As the limit has it, if it is to be told."""
        return self.pool.next_window if self.pool else None

    def _standing(self) -> list[str]:
        pool, window = self.pool, self._next_window
        parts = []
        if pool is not None and pool.remaining is not None:
            parts.append(f"limit {pool.remaining:,}/{pool.limit:,}")
        if window is not None:
            parts.append(f"next window in {duration(window)}")
        return parts


@define
class Waiting:
    """How far an export is that Braze prepares: a reading that is brought up to date.

    Attributes:
        task: what is waited for, before anything is known of the export.
        resumed: whether it was begun by an earlier run, so that its age is worth a word.
    """

    task: str
    resumed: bool = False
    clock: Callable[[], float] = time.monotonic
    _state: ExportState | None = None
    _seen: float = 0.0

    def saw(self, state: ExportState) -> None:
        """Note what a look gave."""
        self._state, self._seen = state, self.clock()

    @property
    def done(self) -> int:
        """Whether it is ready."""
        return int(self.total is not None)

    @property
    def total(self) -> int | None:
        """Nobody knows how long it takes, before it is over."""
        return 1 if self._state is not None and self._state.phase == "ready" else None

    def parts(self, _pace: Pace, *, narrow: bool) -> list[str]:
        """Say it in words. See ``Reading``."""
        state = self._state
        if state is None:
            return [self.task]
        if state.phase == "ready":
            return ["the export is ready"]
        since = self.clock() - self._seen
        odd = state.code not in _USUAL_CODES and not narrow
        word = f" (the storage says {state.code})" if odd else ""
        parts = [f"Braze is preparing the export{word}"]
        if self.resumed and not narrow:
            parts.append(f"begun {duration(state.elapsed + since)} ago")
        left = max(0.0, (state.next_look or 0.0) - since)
        return [*parts, f"next look in {duration(left)}"]


@define
class Download:
    """How far the reading of an archive is: a reading that is always up to date.

    Attributes:
        stats: its counters.
        of_one: whether it is a single object, so that its size is that of all.
    """

    stats: DownloadStats
    of_one: bool
    clock: Callable[[], float] = time.monotonic
    _pace: Pace = Factory(Pace)

    def __attrs_post_init__(self) -> None:
        """Measure profiles from now on."""
        self._pace.mark(self.clock(), 0)

    @property
    def done(self) -> int:
        """Bytes received. The last one counts once all of them are read as well."""
        stats = self.stats
        return stats.bytes_received - (self._all_received and not stats.objects_done)

    @property
    def total(self) -> int | None:
        """Bytes of the archive."""
        return (self.stats.bytes_total or None) if self.of_one else None

    def parts(self, pace: Pace, *, narrow: bool) -> list[str]:
        """Say it in words. See ``Reading``."""
        stats = self.stats
        self._pace.mark(self.clock(), stats.users)
        size = decimal(stats.bytes_received)
        if self.total is not None:
            size = f"{size} of {decimal(self.total)}"
        elif not self.of_one:
            size = f"{size} of {count(stats.objects, 'file')}"
        parts = [size, count(stats.users, "profile")]
        if not narrow:
            parts.append(f"{self._pace.rate:,.0f}/s")
            if stats.resumed:
                parts.append(f"{count(stats.resumed, 'connection')} lost")
        return parts + _left(None if self._all_received else pace.left(self))

    @property
    def _all_received(self) -> bool:
        return self.total is not None and self.stats.bytes_received >= self.total


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{duration(seconds)} left"]
