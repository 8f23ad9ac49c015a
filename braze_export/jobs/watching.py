"""How far a job is: readings for whoever wants to know, and what the report tells."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

from attrs import Factory, define, evolve, field

from braze_export.endpoints import Pool
from braze_export.jobs.journal import Record
from braze_export.jobs.pace import Pace
from braze_export.jobs.report.course import Course
from braze_export.jobs.values import JobProgress, Moment, Phase
from braze_export.limiting.limits import PoolSnapshot
from braze_export.models.results import ExportStats
from braze_export.tasks import tell

Hook: TypeAlias = Callable[[JobProgress], object]
"""Is told how far a job is. A plain function, or an async one, which is awaited."""

_TICK: Final = 0.25  # seconds between points of the course


class Patient(Protocol):
    """Knows whether anything comes through, on the same clock, and how long that is borne."""

    @property
    def trouble(self) -> str:
        """Why nothing comes through; empty while something does."""
        ...

    def silence(self, now: float, *, waiting: bool) -> float:
        """Return for how many seconds nothing came, not counting a wait for the limit."""
        ...

    def patience_left(self, now: float) -> float | None:
        """Return the seconds after which a failure ends the job."""
        ...


@define
class Watch:
    """Takes readings of a job.

    Attributes:
        snapshot: tells how the limits stand.
        clock: seconds.
        stats: counts the requests of this run.
        phase: what is being done.
        total: identifiers to be asked for, once they are counted.
        repeated: left out.
        record: what is written.
        already: of it, identifiers that earlier runs have written.
        written: the share of the output that is made, 0 to 1.
        course: of this run.
        judge: knows whether anything comes through, once something is asked for.
    """

    snapshot: Callable[[], Mapping[Pool, PoolSnapshot]]
    clock: Callable[[], float]
    stats: ExportStats = Factory(ExportStats)
    phase: Phase = "reading"
    total: int | None = None
    repeated: int = 0
    record: Record = Factory(Record)
    already: int = 0
    written: float = 0.0
    course: Course = Factory(Course)
    judge: Patient | None = None
    _pace: Pace = field(factory=Pace, init=False)
    _began: float = field(init=False)
    _sent_before: dict[Pool, int] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin."""
        self._began = self.clock()
        self._pace.mark(self._began, 0)
        self._sent_before = {pool: seen.sent for pool, seen in self.snapshot().items()}

    @property
    def elapsed(self) -> float:
        """Seconds since this run began."""
        return self.clock() - self._began

    @property
    def whole(self) -> int | None:
        """Identifiers in all, once they are counted: also those that nobody is asked for."""
        return None if self.total is None else self.total + self.record.carried

    @property
    def pool(self) -> PoolSnapshot | None:
        """How the limit stands that this job draws on most; ``None`` before it does."""
        used = [
            (seen.sent - self._sent_before.get(pool, 0), seen)
            for pool, seen in self.snapshot().items()
        ]
        most, seen = max(used, key=lambda pair: (pair[0], pair[1].waiting))
        return seen if most or seen.waiting else None

    def going_on(self, record: Record) -> None:
        """Note what earlier runs have written."""
        self.record, self.already = record, record.done
        self._pace = Pace()
        self._pace.mark(self.clock(), 0)

    def saw(self, record: Record) -> None:
        """Note what is written by now."""
        self.record = record

    def wrote(self, size: int) -> None:
        """Note how many bytes of profiles are in the output by now."""
        self.written = min(1.0, size / max(1, self.record.bytes))

    def note(self) -> None:
        """Take a point of the course."""
        self._pace.mark(self.clock(), self.record.done - self.already)
        pool = self.pool
        self.course.note(
            Moment(
                at=self.elapsed,
                done=self.record.done - self.already,
                requests=self.stats.requests,
                rate_limited=self.stats.rate_limited,
                limit=pool.limit if pool else None,
                remaining=pool.remaining if pool else None,
                waiting=pool.waiting if pool else 0,
            )
        )

    def reading(self) -> JobProgress:
        """Return how far the job is."""
        record, stats, pool = self.record, self.stats, self.pool
        reading = JobProgress(
            phase=self.phase,
            done=record.done,
            total=self.whole,
            profiles=record.profiles,
            unknown=record.unknown,
            failed=record.failed,
            repeated=self.repeated,
            already=self.already,
            requests=stats.requests,
            retries=stats.retries,
            rate_limited=stats.rate_limited,
            elapsed=self.elapsed,
            rate=self._pace.rate,
            written=self.written,
            pool=pool,
        )
        return self._with_trouble(evolve(reading, seconds_left=self._left(reading)))

    def _with_trouble(self, reading: JobProgress) -> JobProgress:
        judge, now = self.judge, self.clock()
        if judge is None or reading.phase != "exporting":
            return reading
        waiting = reading.pool is not None and reading.pool.next_window is not None
        return evolve(
            reading,
            silent=judge.silence(now, waiting=waiting),
            trouble=judge.trouble,
            patience_left=judge.patience_left(now),
        )

    def _left(self, reading: JobProgress) -> float | None:
        left, pool = self._pace.left(reading), reading.pool
        if left is None or reading.phase != "exporting":
            return None
        # While everything waits the pace still says what it was before.
        return max(left, (pool and pool.next_window) or 0.0)

    async def show(self, hook: Hook | None, every: float) -> None:
        """Take points of the course, and tell a hook, until cancelled."""
        told = 0.0
        while True:
            self.note()
            if hook is not None and self.elapsed - told >= every:
                told = self.elapsed
                await tell(hook, self.reading())
            await asyncio.sleep(min(_TICK, every))


async def ended(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end; what it raised itself is raised."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        ours = asyncio.current_task()
        if ours is not None and ours.cancelling():
            raise  # it was not the task alone
