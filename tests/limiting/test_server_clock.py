import math

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from braze_export.limiting.server_clock import ServerClock

EPOCH = 1_767_225_600.0
ROUNDING = 1e-6  # seconds: floats of this size are no more exact
DRIFT = 1e-4  # seconds per second


@frozen
class Answer:
    """One look at the server's clock: seconds until the request leaves, there, and back."""

    pause: float
    there: float
    back: float
    whole: bool = True


@frozen
class Server:
    """A clock that is ahead of ours by ``ahead`` at time 0, and parts from it by ``rate``."""

    ahead: float
    rate: float = 0.0

    def offset(self, ours: float) -> float:
        return self.ahead + self.rate * ours

    def shows(self, ours: float, *, whole: bool = True) -> float:
        shown = ours + self.offset(ours)
        return float(math.floor(shown)) if whole else shown


def bounds(clock: ServerClock, now: float) -> tuple[float, float]:
    """How far the server's clock is ahead of ours, at least and at most."""
    return -clock.surely_at(0.0, now), -clock.perhaps_at(0.0, now)


def look(clock: ServerClock, server: Server, answer: Answer, now: float) -> float:
    """Observe one answer; return when it was here."""
    sent = now + answer.pause
    received = sent + answer.there + answer.back
    shown = server.shows(sent + answer.there, whole=answer.whole)
    clock.observe(sent=sent, received=received, clock=shown, whole=answer.whole)
    return received


def known(low: float, high: float) -> ServerClock:
    """A clock with these bounds, at time 0: as if of one answer."""
    clock = ServerClock()
    clock.observe(sent=low - high + 1, received=0.0, clock=low, whole=True)
    return clock


delays = st.floats(0, 5) | st.floats(0, 0.05)
answers = st.builds(Answer, st.floats(0, 100), delays, delays, st.booleans())
offsets = st.floats(-1e5, 1e5) | st.floats(EPOCH - 1000, EPOCH + 1000)
servers = st.builds(Server, offsets)


@given(
    server=st.builds(Server, offsets, st.floats(-0.9 * DRIFT, 0.9 * DRIFT)),
    answers=st.lists(answers, min_size=1, max_size=30),
    later=st.floats(0, 1e4),
)
def test_the_true_difference_lies_within_the_bounds_at_any_time(
    server: Server, answers: list[Answer], later: float
) -> None:
    clock, now = ServerClock(), 0.0
    for answer in answers:
        now = look(clock, server, answer, now)
        for moment in (now, now + later):
            low, high = bounds(clock, moment)
            assert low - ROUNDING <= server.offset(moment) <= high + ROUNDING


@given(server=servers, answers=st.lists(answers, min_size=2, max_size=30))
def test_no_answer_makes_the_bounds_wider(server: Server, answers: list[Answer]) -> None:
    clock, now = ServerClock(), look(ServerClock(), server, answers[0], 0.0)
    for answer in answers:
        received = now + answer.pause + answer.there + answer.back
        low, high = bounds(clock, received)
        now = look(clock, server, answer, now)
        narrowed = bounds(clock, received)
        assert narrowed[0] >= low - ROUNDING
        assert narrowed[1] <= high + ROUNDING


def test_before_any_answer_nothing_is_sure_and_everything_possible() -> None:
    clock = ServerClock()
    assert clock.surely_at(EPOCH, 5.0) == math.inf
    assert clock.perhaps_at(EPOCH, 5.0) == -math.inf
    assert not clock.sharp(5.0)


@pytest.mark.parametrize(
    ("whole", "low", "high"), [(True, 98.0, 99.5 + 5e-5), (False, 98.0, 98.5 + 5e-5)]
)
def test_an_answer_bounds_the_difference_by_its_way_and_the_fraction_left_out(
    whole: bool, low: float, high: float
) -> None:
    clock = ServerClock()
    clock.observe(sent=1.5, received=2.0, clock=100.0, whole=whole)
    assert bounds(clock, 2.0) == pytest.approx((low, high), abs=1e-9)


def test_the_bounds_part_again_as_time_goes_by_and_only_then() -> None:
    clock = known(0.0, 0.25)
    assert bounds(clock, 0.0) == pytest.approx((0.0, 0.25), abs=1e-3)
    assert bounds(clock, -50.0) == bounds(clock, 0.0)
    low, high = bounds(clock, 0.0)
    assert bounds(clock, 1000.0) == pytest.approx((low - 0.1, high + 0.1))


@given(
    server=servers,
    answers=st.lists(answers, min_size=1, max_size=10),
    after=answers,
    ahead=st.booleans(),
    by=st.floats(12, 1e6),
)
def test_a_clock_that_was_set_is_followed_with_the_first_answer(
    server: Server, answers: list[Answer], after: Answer, ahead: bool, by: float
) -> None:
    clock, now = ServerClock(), 0.0
    for answer in answers:
        now = look(clock, server, answer, now)
    was_set = Server(server.ahead + (by if ahead else -by))
    now = look(clock, was_set, after, now)
    low, high = bounds(clock, now)
    assert low - ROUNDING <= was_set.offset(now) <= high + ROUNDING
    assert high - low <= 1 + (1 + DRIFT) * (after.there + after.back) + ROUNDING


@pytest.mark.parametrize(
    ("width", "way", "sharp"),
    [
        (1.0, 0.001, False),
        (0.021, 0.001, False),
        (0.019, 0.001, True),
        (0.21, 0.1, False),
        (0.19, 0.1, True),
    ],
)
def test_looks_are_of_use_until_the_bounds_are_as_narrow_as_the_quickest_answer_allows(
    width: float, way: float, sharp: bool
) -> None:
    clock = ServerClock()
    for sent, shown in ((0.0, 100.0), (width - way, 101.0)):  # a second turned in between
        clock.observe(sent=sent, received=sent + way, clock=shown, whole=True)
    low, high = bounds(clock, width)
    assert high - low == pytest.approx(width, abs=5e-4)
    assert clock.sharp(width) is sharp


@pytest.mark.parametrize(
    ("way", "patience"), [(0.001, 0.05), (0.0125, 0.05), (0.1, 0.4), (0.2, 0.8), (1.0, 1.0)]
)
def test_answers_are_waited_for_four_times_as_long_as_the_quickest_took(
    way: float, patience: float
) -> None:
    clock = ServerClock()
    assert clock.patience() == 1.0
    for longer in (2 * way, way, 3 * way):
        clock.observe(sent=0.0, received=longer, clock=EPOCH, whole=True)
    assert clock.patience() == pytest.approx(patience)


@given(
    server=servers,
    first=st.builds(Answer, st.floats(0, 100), delays, delays),
    waited=st.floats(0, 10),
    looks=st.integers(1, 8),
)
def test_the_next_look_is_to_come(server: Server, first: Answer, waited: float, looks: int) -> None:
    clock = ServerClock()
    now = look(clock, server, first, 0.0) + waited
    low, high = bounds(clock, now)
    assert now < clock.next_look(now, looks) <= now + 1 + high - low + ROUNDING


@given(
    server=servers,
    first=st.builds(Answer, st.floats(0, 100), delays, delays),
    waited=st.floats(0, 10),
)
def test_a_single_look_halves_the_bounds_at_least(
    server: Server, first: Answer, waited: float
) -> None:
    clock = ServerClock()
    now = look(clock, server, first, 0.0) + waited
    low, high = bounds(clock, now)
    when = clock.next_look(now, 1)
    look(clock, server, Answer(0, 0, 0), when)
    narrowed = bounds(clock, when)
    assert narrowed[1] - narrowed[0] <= (high - low) / 2 + 4 * DRIFT + 2 * ROUNDING


def test_the_looks_of_a_second_are_spread_evenly_over_where_it_may_turn() -> None:
    clock = ServerClock()
    clock.observe(sent=10.0, received=10.0, clock=10.0, whole=True)  # it turns at 10 to 11
    times = [10.0]
    for _ in range(5):
        times.append(clock.next_look(times[-1], 3))
    assert times == pytest.approx([10, 10.25, 10.5, 10.75, 11.25, 11.5], abs=1e-3)


def test_a_look_too_late_for_this_second_is_the_first_of_the_next() -> None:
    clock = known(0.25, 0.5)  # a second turns at 0.5 to 0.75 of ours
    assert clock.next_look(0.0, 1) == pytest.approx(0.625, abs=1e-3)
    assert clock.next_look(0.7, 1) == pytest.approx(1.625, abs=1e-3)


def test_bounds_seconds_apart_are_looked_into_all_the_same() -> None:
    clock = known(0.0, 4.0)  # some second turns at any time
    assert clock.next_look(0.85, 3) == pytest.approx(1.0, abs=0.01)
    assert clock.next_look(0.95, 3) == pytest.approx(2.0, abs=0.01)
