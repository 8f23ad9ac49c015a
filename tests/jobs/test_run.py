"""Runs over slices that are there already, on a clock that jumps; nothing is sent or written."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import msgspec
import pytest
from attrs import Factory, define, field

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.errors import (
    AuthenticationError,
    BadRequestError,
    BrazeError,
    InputError,
    JobStorageError,
    ServerError,
)
from braze_export.jobs import run as rooms
from braze_export.jobs.halting import Halted
from braze_export.jobs.recorder import Settled
from braze_export.jobs.run import Run
from braze_export.jobs.slices import Slice
from braze_export.jobs.values import Unusable
from braze_export.jobs.verdicts import Judge
from braze_export.models.results import FailedBatch, InvalidUserId
from tests import virtual

DOWN = ServerError("down", status=503)
REFUSED = BadRequestError("no", status=400)
MODES = pytest.mark.parametrize(
    ("concurrency", "ordered"), [(1, False), (1, True), (2, False), (4, True), (8, False)]
)


@define
class Slices:
    """A source of slices that are there."""

    left: list[Slice]
    known: Batch | None = None
    error: Exception | None = None

    @property
    def exhausted(self) -> bool:
        return not self.left

    async def take(self) -> Slice | None:
        await asyncio.sleep(0)
        if self.left:
            return self.left.pop(0)
        if self.error is not None:
            raise self.error
        return None


@define
class Written:
    """A recorder that keeps in mind what it is given; in order, if it is to."""

    ordered: bool
    full: int | None = None  # the slice that there is no room for
    slices: dict[int, Settled] = field(factory=dict)
    closed: bool = False
    _turn: asyncio.Condition = field(factory=asyncio.Condition)
    _released: bool = False

    async def write(self, settled: Settled) -> None:
        assert not self.closed
        number = settled.piece.number
        async with self._turn:
            while self.ordered and number != len(self.slices):
                if self._released:
                    raise Halted
                await self._turn.wait()
            if number == self.full:
                raise JobStorageError("full")
            assert number not in self.slices, "recorded twice"
            self.slices[number] = settled
            self._turn.notify_all()

    def release(self) -> None:
        self._released = True
        self._wake = asyncio.ensure_future(self._notify())

    _wake: Any = None

    async def _notify(self) -> None:
        async with self._turn:
            self._turn.notify_all()

    async def aclose(self) -> None:
        if self._wake is not None:
            await self._wake
        self.closed = True

    @property
    def failed(self) -> list[int]:
        return sorted(n for n, settled in self.slices.items() if settled.outcome.failed)


@define
class Gate:
    """Stands for the limiter."""

    halted: bool = False

    def halt(self) -> None:
        self.halted = True


@define
class Braze:
    """Answers for slices as it is told: what is wrong with this one, at this time?"""

    wrong: Callable[[str, float], BrazeError | None] = lambda *_: None
    seconds: float = 1.0
    asked: list[tuple[str, float]] = Factory(list)
    halts: Callable[[str], object] = lambda _: None

    async def ask(self, batch: Batch) -> Outcome:
        (name,) = batch.identifiers
        assert isinstance(name, str)
        now = asyncio.get_running_loop().time() - 1000.0
        self.asked.append((name, now))
        self.halts(name)
        await asyncio.sleep(self.seconds)
        error = self.wrong(name, now)
        if error is not None:
            return Outcome(failed=[FailedBatch((name,), error)])
        return Outcome([msgspec.Raw(b"{}")])

    outcome = ask


@define
class Course:
    """What came of a run."""

    written: Written
    braze: Braze
    error: BaseException | None
    seconds: float


def numbered(count: int) -> list[Slice]:
    return [Slice(n, Batch((f"u{n}",))) for n in range(count)]


def go(
    count: int | Iterable[Slice],
    braze: Braze,
    *,
    concurrency: int = 4,
    ordered: bool = False,
    patience: float = 900.0,
    accepted: bool = False,
    known: Batch | None = None,
    full: int | None = None,
    broken: Exception | None = None,
    beside: Callable[[Run], Coroutine[Any, Any, None]] | None = None,
) -> Course:
    async def main() -> Course:
        pieces = numbered(count) if isinstance(count, int) else list(count)
        written = Written(ordered, full)
        run = Run(
            Slices(pieces, known, broken),  # type: ignore[arg-type]
            braze,  # type: ignore[arg-type]
            written,  # type: ignore[arg-type]
            Judge(patience, accepted),
            Gate(),  # type: ignore[arg-type]
            concurrency,
        )
        other: asyncio.Task[None] = asyncio.create_task(beside(run) if beside else _nothing())
        began, error = asyncio.get_running_loop().time(), None
        try:
            async with asyncio.timeout(100_000):  # else it hangs
                await run.all()
        except (BrazeError, asyncio.CancelledError) as raised:
            error = raised
        seconds = asyncio.get_running_loop().time() - began
        await other
        assert len(asyncio.all_tasks()) == 1
        assert written.closed
        return Course(written, braze, error, seconds)

    return virtual.run(main)


async def _nothing() -> None:
    """Do nothing."""


def down(*names: str) -> Callable[[str, float], BrazeError | None]:
    return lambda name, _: DOWN if name in names else None


def outage(begin: float, end: float) -> Callable[[str, float], BrazeError | None]:
    return lambda _, now: DOWN if begin <= now < end else None


@MODES
def test_every_slice_is_asked_for_and_recorded(concurrency: int, ordered: bool) -> None:
    course = go(20, Braze(), concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert sorted(course.written.slices) == list(range(20))
    assert len(course.braze.asked) == 20
    assert course.seconds == pytest.approx(-(-20 // concurrency), abs=0.1)


@MODES
@pytest.mark.parametrize(
    "bad", [["u3"], ["u3", "u4", "u5"], ["u19"], ["u18", "u19"], ["u1", "u19"]]
)
def test_a_slice_that_always_fails_does_not_stop_the_others(
    concurrency: int, ordered: bool, bad: list[str]
) -> None:
    course = go(20, Braze(down(*bad)), concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert sorted(course.written.slices) == list(range(20))
    assert [f"u{n}" for n in course.written.failed] == bad
    assert course.seconds < 120  # nobody's patience is tried


@MODES
def test_half_of_all_slices_may_fail(concurrency: int, ordered: bool) -> None:
    bad = [f"u{n}" for n in range(1, 40, 2)]
    course = go(40, Braze(down(*bad)), concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert [f"u{n}" for n in course.written.failed] == bad


@MODES
@pytest.mark.parametrize("begin", [2.0, 4.5, 18.5])
def test_an_outage_of_minutes_fails_nobody(concurrency: int, ordered: bool, begin: float) -> None:
    count = 20 * concurrency
    braze = Braze(outage(begin, begin + 600))
    course = go(count, braze, concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert course.written.failed == []
    assert sorted(course.written.slices) == list(range(count))
    assert course.seconds > 600
    assert len(course.braze.asked) < count + 30 * 3 * concurrency


@MODES
def test_an_outage_that_outlasts_patience_ends_the_job_and_fails_nobody(
    concurrency: int, ordered: bool
) -> None:
    braze = Braze(outage(5, 1e9))
    course = go(60, braze, concurrency=concurrency, ordered=ordered, patience=300)
    assert isinstance(course.error, ServerError)
    assert course.written.failed == []
    assert 0 < len(course.written.slices) < 60
    assert 300 < course.seconds < 500


@MODES
def test_a_small_job_does_not_fail_in_an_outage_either(concurrency: int, ordered: bool) -> None:
    braze = Braze(lambda name, now: DOWN if name != "u0" and now < 200 else None)
    braze.wrong = lambda name, now: DOWN if 1 <= now < 200 or (name != "u0" and now < 200) else None
    course = go(3, braze, concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert course.written.failed == []


@MODES
@pytest.mark.parametrize("error", [DOWN, AuthenticationError("no", status=401)])
def test_nothing_from_the_beginning_ends_the_job_at_once(
    concurrency: int, ordered: bool, error: BrazeError
) -> None:
    course = go(60, Braze(lambda *_: error), concurrency=concurrency, ordered=ordered)
    assert course.error is error
    assert course.written.slices == {}
    assert course.seconds < 5
    assert len(course.braze.asked) <= concurrency


@MODES
def test_a_key_that_is_refused_later_ends_the_job_at_once(concurrency: int, ordered: bool) -> None:
    error = AuthenticationError("no", status=401)
    braze = Braze(lambda _, now: error if now >= 3 else None)
    course = go(60, braze, concurrency=concurrency, ordered=ordered)
    assert course.error is error
    assert len(course.written.slices) == 3 * concurrency
    assert course.written.failed == []
    assert course.seconds < 6


# --- a run that goes on


@MODES
@pytest.mark.parametrize("count", [1, 3])
def test_a_run_that_goes_on_with_bad_slices_alone_has_them_recorded(
    concurrency: int, ordered: bool, count: int
) -> None:
    course = go(
        count,
        Braze(down("u0", "u1", "u2")),
        concurrency=concurrency,
        ordered=ordered,
        accepted=True,
        known=Batch(("known",)),
    )
    assert course.error is None
    assert course.written.failed == list(range(count))
    assert course.seconds < 120


@MODES
@pytest.mark.parametrize("known", [None, Batch(("known",))])
def test_a_run_that_goes_on_into_an_outage_ends_and_fails_nobody(
    concurrency: int, ordered: bool, known: Batch | None
) -> None:
    course = go(
        3,
        Braze(outage(0, 1e9)),
        concurrency=concurrency,
        ordered=ordered,
        accepted=True,
        known=known,
    )
    assert course.error is DOWN
    assert course.written.slices == {}
    assert course.seconds < 10


# --- refusals


@MODES
def test_a_refused_slice_costs_itself(concurrency: int, ordered: bool) -> None:
    braze = Braze(lambda name, _: REFUSED if name in ("u7", "u19") else None)
    course = go(20, braze, concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert course.written.failed == [7, 19]
    assert len(course.braze.asked) == 20


@MODES
@pytest.mark.parametrize("first", [1, 5, 20])
def test_slices_refused_before_any_was_accepted_are_recorded_in_the_end(
    concurrency: int, ordered: bool, first: int
) -> None:
    bad = [f"u{n}" for n in range(first)]
    braze = Braze(lambda name, _: REFUSED if name in bad else None)
    course = go(20, braze, concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert course.written.failed == list(range(first))
    assert len(course.written.slices) == 20


@MODES
def test_if_everything_is_refused_the_job_ends(concurrency: int, ordered: bool) -> None:
    course = go(5000, Braze(lambda *_: REFUSED), concurrency=concurrency, ordered=ordered)
    assert course.error is REFUSED
    assert course.written.slices == {}
    assert len(course.braze.asked) < 170


@MODES
def test_what_is_unusable_is_recorded_and_tells_nothing(concurrency: int, ordered: bool) -> None:
    bad = (Unusable("?", "line 1: is none"),)
    pieces = [Slice(n, None, bad) if n % 2 else Slice(n, Batch((f"u{n}",))) for n in range(10)]
    course = go(pieces, Braze(lambda *_: REFUSED), concurrency=concurrency, ordered=ordered)
    assert course.error is None
    assert sorted(course.written.slices) == list(range(10))
    pieces = [Slice(0, None, bad), *numbered(3)[1:]]
    course = go(pieces, Braze(lambda *_: DOWN), concurrency=concurrency, ordered=ordered)
    assert course.error is DOWN  # from the beginning: nobody has answered


# --- stopping


@MODES
def test_stopping_sends_nothing_more_and_records_what_is_under_way(
    concurrency: int, ordered: bool
) -> None:
    async def stop(run: Run) -> None:
        await asyncio.sleep(3.5)
        run.halt()

    course = go(60, Braze(), concurrency=concurrency, ordered=ordered, beside=stop)
    assert course.error is None
    assert len(course.written.slices) == len(course.braze.asked) == 4 * concurrency
    assert course.seconds == pytest.approx(4, abs=0.1)


@MODES
def test_stopping_is_quick_while_nothing_comes_through(concurrency: int, ordered: bool) -> None:
    async def stop(run: Run) -> None:
        await asyncio.sleep(300)
        run.halt()

    braze = Braze(outage(3, 1e9))
    course = go(60, braze, concurrency=concurrency, ordered=ordered, beside=stop)
    assert course.error is None
    assert course.written.failed == []
    assert course.seconds < 302


def test_in_order_those_behind_one_that_was_not_sent_do_not_hold_up_the_end() -> None:
    async def halted_before(self: Braze, batch: Batch) -> Outcome:
        if batch.identifiers == ("u5",):
            await asyncio.sleep(3)
            raise Halted
        return await self.ask(batch)

    class Late(Braze):
        outcome = halted_before

    async def stop(run: Run) -> None:
        await asyncio.sleep(3.5)
        run.halt()

    course = go(60, Late(), concurrency=4, ordered=True, beside=stop)
    assert course.error is None
    assert sorted(course.written.slices) == [0, 1, 2, 3, 4]
    assert course.seconds < 6


def test_a_request_that_does_not_come_back_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def stop(run: Run) -> None:
        await asyncio.sleep(1)
        run.halt()

    course = go(4, Braze(seconds=1e6), beside=stop)
    assert course.error is None
    assert course.written.slices == {}
    assert course.seconds == pytest.approx(1 + rooms._GRACE, abs=0.1)


@MODES
def test_a_full_disk_ends_the_job_and_the_others_are_recorded(
    concurrency: int, ordered: bool
) -> None:
    course = go(60, Braze(), concurrency=concurrency, ordered=ordered, full=9)
    assert isinstance(course.error, JobStorageError)
    assert 9 not in course.written.slices
    assert set(range(9)) <= set(course.written.slices)
    assert course.seconds < 20


@MODES
def test_an_input_that_breaks_off_ends_the_job_after_what_was_read(
    concurrency: int, ordered: bool
) -> None:
    broken = InputError("it breaks off")
    course = go(9, Braze(), concurrency=concurrency, ordered=ordered, broken=broken)
    assert course.error is broken
    assert sorted(course.written.slices) == list(range(9))


def test_a_run_that_is_cancelled_leaves_nothing_behind() -> None:
    async def main() -> None:
        written = Written(ordered=False)
        run = Run(Slices(numbered(60)), Braze(), written, Judge(900, False), Gate(), 4)  # type: ignore[arg-type]
        task = asyncio.create_task(run.all())
        await asyncio.sleep(2.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1
        assert written.closed
        assert sorted(written.slices) == list(range(8))

    virtual.run(main)


def test_who_is_unknown_shows_as_well_that_the_way_is_there() -> None:
    class Strangers(Braze):
        async def outcome(self, batch: Batch) -> Outcome:
            found = await self.ask(batch)
            unknown = [InvalidUserId(identifier) for identifier in batch.identifiers]
            return found if found.failed else Outcome(invalid=unknown)

    course = go(4, Strangers(down("u3")), concurrency=1)
    assert course.error is None
    assert course.written.failed == [3]
