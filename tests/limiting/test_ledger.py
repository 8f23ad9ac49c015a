"""The server's clock shows the same as ours here, windows of a minute turn at 0, 60, 120."""

import math
from typing import Any

import pytest
from attrs import Factory, define, field
from hypothesis import given
from hypothesis import strategies as st

from braze_export.answers import RateWindow
from braze_export.limiting.ledger import Ledger
from braze_export.limiting.server_clock import ServerClock
from braze_export.limiting.window import Sent

MANY = 1000  # waiting, where it does not matter how many
HOUR = 3600.0


@define
class Scene:
    """A ledger, and the time. Answers tell the exact time, so that nothing is held back."""

    limit: int = 100
    period: float = 60.0
    reserve: float = 0.0
    now: float = 0.0
    exact: bool = True
    ledger: Ledger = field(
        default=Factory(
            lambda self: Ledger(self.limit, self.period, self.reserve, ServerClock()),
            takes_self=True,
        )
    )

    def room(self, bulk: int = MANY, interactive: int = 0) -> int:
        return self.ledger.room(self.now, bulk=bulk, interactive=interactive)

    def left(self) -> int | None:
        return self.ledger.spendable(self.now)

    def opens_in(self) -> float:
        """Seconds until there may be room; to be asked where there is none."""
        assert self.room() == 0
        return self.ledger.opens_at(self.now) - self.now

    def send(self, requests: int = 1) -> list[Sent]:
        self.room()  # begins the next window, if it is time
        return [self.ledger.send(self.now) for _ in range(requests)]

    def answer(
        self,
        sent: Sent,
        remaining: int | None = None,
        reset: float | None = None,
        *,
        limit: int | None = None,
        refused: bool = False,
        clock: float | None = None,
        pause: float | None = None,
    ) -> None:
        clock = self.now if clock is None else clock
        told = RateWindow(
            limit=limit,
            remaining=remaining,
            reset=reset,
            clock=clock if self.exact else float(math.floor(clock)),
            dated=not self.exact,
            pause=pause,
        )
        self.ledger.answered(sent, self.now, told, refused=refused)

    def ask(self, *told: Any, **more: Any) -> None:
        """Send one request that is answered at once."""
        (sent,) = self.send()
        self.answer(sent, *told, **more)

    def refuse(self, *told: Any, **more: Any) -> None:
        self.ask(*told, refused=True, **more)


def known(remaining: int = 99, **scene: Any) -> Scene:
    """So much is left of the first window, which turns at 60."""
    made = Scene(**scene)
    made.ask(remaining, 60.0)
    return made


def alone(**scene: Any) -> Scene:
    """The second window has just begun, after one that nobody else used."""
    made = known(scene.get("limit", 100) - 1, now=59.0, **scene)
    made.now = 60.01
    return made


# A window of which nothing is known ----------------------------------------------------------


def test_at_first_one_request_asks_and_the_others_wait() -> None:
    scene = Scene()
    assert scene.room() == 1
    scene.send()
    assert scene.room() == 0


def test_whoever_asks_in_vain_is_joined_by_one_more_every_two_seconds() -> None:
    scene, joined = Scene(), []
    scene.send()
    for scene.now in range(1, 10):
        joined.append(scene.room())
        scene.send(scene.room())
    assert joined == [0, 1, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(("asked", "now", "wait"), [(1, 0.5, 1.5), (2, 1.0, 1.0), (2, 2.5, 1.5)])
def test_those_who_wait_are_woken_for_it(asked: int, now: float, wait: float) -> None:
    scene = Scene()
    scene.send(asked)
    scene.now = now
    assert scene.opens_in() == pytest.approx(wait)


def test_who_asks_in_vain_is_joined_by_no_more_than_the_limit_allows() -> None:
    scene = Scene(limit=3)
    scene.send()
    scene.now = 1000.0
    assert scene.room() == 2


@pytest.mark.parametrize("counted", [True, False])
def test_a_question_that_got_no_answer_lets_the_next_one_ask(counted: bool) -> None:
    scene = Scene()
    for _ in range(3):
        (asked,) = scene.send()
        assert scene.room() == 0
        scene.ledger.unanswered(asked, counted=counted)
        assert scene.room() == 1
    assert scene.ledger.in_flight == 0


def test_two_seconds_count_from_the_question_that_is_open() -> None:
    scene = Scene()
    (lost,) = scene.send()
    scene.now = 1.5
    scene.ledger.unanswered(lost, counted=True)
    scene.send()
    scene.now = 2.5
    assert scene.opens_in() == pytest.approx(1.0)


# A window that is known -----------------------------------------------------------------------


def test_an_answer_opens_the_window_for_what_remains() -> None:
    assert known(99).room() == 99


def test_requests_under_way_are_taken_off() -> None:
    scene = known(99)
    scene.send(3)
    assert scene.room() == 96


def test_the_lowest_answer_counts_in_whatever_order_they_come() -> None:
    scene = known(99)
    first, second, third = scene.send(3)
    scene.now = 1.0
    scene.answer(third, 96, 60.0)
    scene.answer(first, 98, 60.0)
    scene.answer(second, 97, 60.0)
    assert scene.room() == 96


def test_a_lower_answer_counts_though_it_comes_later() -> None:
    scene = known(99)
    first, second = scene.send(2)
    scene.answer(first, 98, 60.0)
    scene.answer(second, 90, 60.0)
    assert scene.room() == 90


@pytest.mark.parametrize("now", [0.0, 1.0])
def test_the_answer_to_a_later_request_is_news_and_may_tell_of_more(now: float) -> None:
    scene = known(10)
    scene.now = now
    scene.ask(150, 60.0, limit=200)
    assert scene.room() == 150
    assert scene.ledger.limit == 200


def test_the_lowest_answer_counts_though_nothing_is_left_by_it() -> None:
    scene = known(2)
    first, second = scene.send(2)
    scene.now = 1.0
    scene.answer(second, 0, 60.0)
    scene.answer(first, 1, 60.0)
    assert scene.left() == 0


def test_the_answer_to_an_earlier_request_is_no_news() -> None:
    scene = known(99)
    first, second = scene.send(2)
    scene.now = 1.0
    scene.answer(first, 50, 60.0, limit=100)
    scene.answer(second, 150, 60.0, limit=200)
    assert scene.room() == 50
    assert scene.ledger.limit == 100


def test_an_answer_from_the_window_before_says_nothing_of_this_one() -> None:
    scene = alone()
    before = known(98, now=59.0)
    (late,) = before.send()
    before.now = 60.01
    before.ask(99, 120.0)
    before.answer(late, 3, 60.0)
    scene.ask(99, 120.0)
    assert before.room() == scene.room() == 99


def test_an_answer_from_the_window_before_does_not_open_this_one() -> None:
    scene = known(98, now=59.8)
    (late,) = scene.send()
    scene.now = 60.01
    assert scene.room() == 99  # all but the one under way
    scene.answer(late, 3, 60.0)
    assert scene.left() is None
    assert scene.room() == 100


@pytest.mark.parametrize("clock", [60.0, 59.9])  # the hour may be told just before the reset
def test_an_answer_from_the_next_window_begins_it_where_it_may_have_turned(clock: float) -> None:
    scene = Scene(exact=False, now=50.5)
    scene.ask(99, 60.0)  # the server's clock shows at least 50.0: it turns from 59.5 to 60.5
    first, second = scene.send(2)
    scene.now = 60.0
    scene.answer(first, 99, 120.0, clock=clock)
    assert scene.left() == 98  # the second may be of this window as well
    scene.answer(second, 97, 60.0)
    assert scene.left() == 99


def test_a_reset_that_moves_before_its_time_begins_no_window() -> None:
    scene = known(50, now=10.0)
    (first,) = scene.send()
    scene.now = 11.0
    scene.ask(48, 61.0)
    scene.answer(first, 49, 62.0)
    assert scene.left() == 48


def test_the_window_turns_when_the_server_s_clock_surely_shows_its_reset() -> None:
    scene = Scene(exact=False, now=50.7)
    scene.ask(0, 60.0)
    scene.now = 60.6
    assert scene.room() == 0
    scene.now = 60.8
    assert scene.room() > 0


def test_whoever_waits_for_the_turn_is_woken_for_it() -> None:
    assert known(0).opens_in() == pytest.approx(60.0, abs=0.01)


@pytest.mark.parametrize("lost", [True, False])
def test_a_request_without_an_answer_counts_unless_it_cannot_have_arrived(lost: bool) -> None:
    scene = known(99)
    (sent,) = scene.send()
    scene.ledger.unanswered(sent, counted=lost)
    assert scene.room() == 99 - lost


def test_a_request_lost_in_the_window_before_counts_no_more() -> None:
    scene = known(99, now=59.0)
    (sent,) = scene.send()
    scene.now = 60.01
    scene.ask(99, 120.0)
    scene.ledger.unanswered(sent, counted=True)
    assert scene.room() == 99


def test_an_answer_that_is_the_first_word_of_the_turn_counts_in_the_window_begun() -> None:
    scene = known(99, now=59.8)
    (silent,) = scene.send()
    scene.now = 60.1
    scene.answer(silent)
    assert scene.room() == 99


def test_where_turns_come_late_an_answer_may_tell_of_the_next_window_before() -> None:
    scene = alone()
    scene.refuse()  # so turns come 0.05 later
    scene.now = 119.0
    scene.ask(99, 120.0)
    (first, second) = scene.send(2)
    scene.now = 120.03
    assert scene.room() == 97
    scene.answer(first, 99, 180.0)
    assert scene.left() == 98
    scene.answer(second, 97, 120.0)
    assert scene.left() == 99


def test_nothing_is_left_rather_than_less() -> None:
    scene = known(1)
    first, second = scene.send(2)
    scene.ledger.unanswered(first, counted=True)
    scene.ledger.unanswered(second, counted=True)
    assert scene.left() == 0


def test_an_answer_that_says_nothing_counts_as_a_request() -> None:
    scene = known(99)
    scene.ask()
    assert scene.room() == 98
    assert not scene.ledger.blind


# How a window opens ----------------------------------------------------------------------------


def test_a_window_after_one_that_was_ours_alone_opens_with_all_of_it_but_those_under_way() -> None:
    scene = known(99, now=59.8)
    scene.send(5)
    scene.now = 60.01
    assert scene.room() == 95


def test_all_of_it_is_what_the_server_says_not_what_was_set() -> None:
    scene = Scene(now=59.0)
    scene.ask(29, 60.0, limit=30)
    scene.now = 60.01
    assert scene.room() == 30


def test_requests_lost_as_a_window_opens_are_not_sent_twice() -> None:
    scene = alone()
    for sent in scene.send(60):
        scene.ledger.unanswered(sent, counted=True)
    assert scene.room() == 40


def others_took() -> Scene:
    scene = known(80, now=58.0)
    scene.ask(60, 60.0)
    return scene


def somebody_took() -> Scene:
    """Before we came."""
    return known(70, now=58.0)


def refused() -> Scene:
    scene = known(1, now=58.0)
    scene.refuse(0, 60.0)
    return scene


def took_more_than_those_under_way() -> Scene:
    scene = known(99, now=58.0)
    scene.send(10)
    scene.ask(87, 60.0)
    return scene


def took_as_much_as_those_under_way() -> Scene:
    scene = known(99, now=59.7)
    scene.send(10)
    scene.ask(88, 60.0)
    return scene


def lost() -> Scene:
    scene = known(99, now=58.0)
    scene.ledger.unanswered(*scene.send(), counted=True)
    return scene


def took_beside_requests_that_got_lost() -> Scene:
    scene = known(99, now=58.0)
    for sent in scene.send(10):
        scene.ledger.unanswered(sent, counted=True)
    scene.ask(98, 60.0)  # the server has seen none of them
    scene.ask(95, 60.0)
    return scene


def refused_with_nothing_of_others() -> Scene:
    scene = known(1, limit=2, now=58.0)
    scene.ask(0, 60.0)
    scene.refuse(0, 60.0)
    return scene


@pytest.mark.parametrize(
    ("before", "room"),
    [
        (lambda: known(99, now=58.0), 100),
        (lost, 100),
        (took_as_much_as_those_under_way, 90),
        (took_more_than_those_under_way, 1),
        (others_took, 1),
        (somebody_took, 1),
        (took_beside_requests_that_got_lost, 1),
        (refused, 1),
        (refused_with_nothing_of_others, 1),
    ],
)
def test_a_window_opens_with_one_request_after_a_shared_or_refused_one(
    before: Any, room: int
) -> None:
    scene = before()
    scene.now = 60.1
    assert scene.room() == room


@pytest.mark.parametrize(("now", "room"), [(61.9, 100), (62.1, 1), (500.0, 1)])
def test_a_window_opens_with_one_request_if_nobody_saw_it_begin(now: float, room: int) -> None:
    scene = known(99, now=59.0)
    scene.now = now
    assert scene.room() == room


def test_where_requests_are_under_way_it_is_seen_to_begin() -> None:
    scene = known(99, now=59.8)
    scene.send()
    scene.now = 70.0
    assert scene.room() == 99


def test_a_window_known_to_be_ours_from_its_beginning_opens_the_next_with_all_of_it() -> None:
    scene = alone()
    scene.ask(99, 120.0)
    scene.now = 120.1
    assert scene.room() == 100


def test_a_window_of_which_nothing_was_heard_never_turns() -> None:
    scene = Scene()
    scene.now = 1e9
    assert scene.room() == 1
    assert scene.ledger.resets_in(scene.now) is None


def test_a_request_lost_in_the_window_before_lets_nobody_ask_in_this_one() -> None:
    scene = others_took()
    (late,) = scene.send()
    scene.now = 60.1
    scene.send()
    scene.ledger.unanswered(late, counted=False)
    assert scene.room() == 0


# Other users -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vanished", "under_way", "left"),
    [
        (0, 10, 80),  # 90 remained, those under way are taken off
        (10, 10, 65),  # of 80 with 10 ours: half of those under way account for 5, one each else
        (30, 10, 25),
        (70, 2, 10),  # no more than four of others for each of ours
        (85, 1, 0),
    ],
)
def test_requests_of_others_are_reckoned_with_for_those_under_way(
    vanished: int, under_way: int, left: int
) -> None:
    scene = known(100, limit=1000)
    for number in range(1, 11):
        scene.ask(100 - number - vanished * number // 10, 60.0)
    scene.send(under_way)
    assert scene.left() == left


@pytest.mark.parametrize("remained", [100, 3])
def test_the_pace_of_others_is_expected_of_them_in_the_next_window_too(remained: int) -> None:
    scene = known(remained, limit=1000, now=59.0)
    scene.ask(remained - 3, 60.0)  # two of others for one of ours
    scene.now = 60.1
    scene.ask(900, 120.0)
    scene.send(10)
    assert scene.left() == 870


def test_more_that_remains_than_before_is_a_new_beginning_for_the_pace_of_others() -> None:
    scene = known(50, limit=1000)
    scene.ask(500, 60.0, limit=600)
    scene.ask(496, 60.0)  # three of others for one of ours
    scene.send(2)
    assert scene.left() == 490


@pytest.mark.parametrize(
    ("limit", "reserve", "ours"),
    [(100, 0.0, 100), (100, 0.25, 75), (10, 0.99, 1), (1, 0.5, 1), (3, 0.5, 1), (10, 0.1, 9)],
)
def test_what_is_reserved_is_left_to_others(limit: int, reserve: float, ours: int) -> None:
    scene = Scene(limit=limit, reserve=reserve)
    assert scene.ledger.allowance() == ours
    scene.ask(limit - 1, 60.0)
    spent = 1
    while scene.room():
        spent += 1
        scene.ask(limit - spent, 60.0)
    assert spent == ours


def test_what_is_reserved_is_left_to_others_as_a_window_opens() -> None:
    assert alone(reserve=0.25).room() == 75


def test_what_others_use_beyond_their_reserve_is_not_ours() -> None:
    scene = known(20, reserve=0.25)
    assert scene.room() == 20


# Refusals --------------------------------------------------------------------------------------


def test_a_refusal_closes_the_window_until_its_reset() -> None:
    scene = known(50)
    scene.refuse(0, 30.0)
    assert scene.opens_in() == pytest.approx(60.0, abs=0.01)  # of two resets the later
    scene = known(50)
    scene.refuse(0, 90.0)
    assert scene.opens_in() == pytest.approx(90.0, abs=0.02)


def test_a_refused_request_is_not_counted() -> None:
    scene = known(50)
    scene.refuse(0, 60.0)
    assert scene.ledger.gone() == 1


def test_a_refusal_of_the_first_request_closes_until_its_reset() -> None:
    scene = Scene()
    scene.refuse(None, 30.0)
    assert scene.opens_in() == pytest.approx(30.0, abs=0.01)


def test_a_refusal_tells_of_the_limit_too() -> None:
    scene = known(99)
    scene.refuse(0, 60.0, limit=40)
    assert scene.ledger.limit == 40


def test_a_refusal_from_a_window_that_is_over_closes_nothing() -> None:
    scene = known(99, now=59.0)
    (late,) = scene.send()
    scene.now = 60.01
    scene.room()
    scene.answer(late, 0, 60.0, refused=True)
    assert scene.ledger.resets_in(scene.now) is None
    assert scene.room() > 0


@pytest.mark.parametrize("clock", [60.0, 59.9])
def test_a_refusal_from_the_window_before_does_not_close_the_one_that_is_known(
    clock: float,
) -> None:
    scene = Scene(exact=False, now=50.5)
    scene.ask(99, 60.0)
    first, second = scene.send(2)
    scene.now = 60.0  # it may have turned, but it is not sure
    scene.answer(first, 99, 120.0, clock=clock)
    scene.answer(second, 0, 60.0, clock=clock, refused=True)
    assert scene.left() == 99


def test_a_refusal_in_the_window_that_is_known_closes_it_though_its_reset_is_early() -> None:
    scene = known(99)
    scene.refuse(None, 5.0)
    assert scene.left() == 0


@pytest.mark.parametrize(("reset", "left"), [(30.0, 40), (60.0, 0)])
def test_a_refusal_of_a_request_from_before_a_pause_counts_if_it_is_of_the_same_window(
    reset: float, left: int
) -> None:
    scene = known(50)
    (late,) = scene.send()
    scene.refuse()
    scene.now = 2.0
    scene.ask(40, 60.0)
    scene.answer(late, 0, reset, refused=True)
    assert scene.left() == left


def test_a_refusal_of_a_request_from_before_a_pause_may_tell_of_a_window_not_known_yet() -> None:
    scene = Scene()
    (late,) = scene.send()
    scene.refuse()
    scene.now = 2.0
    scene.answer(late, 0, 60.0, refused=True)
    assert scene.room() == 0
    assert scene.ledger.resets_in(scene.now) == pytest.approx(58.0, abs=0.01)


def test_after_a_refusal_that_its_window_explains_only_the_next_one_begins_with_one_request() -> (
    None
):
    scene = known(1, now=59.0)
    scene.refuse(0, 60.0)
    rooms = []
    for number in (1, 2, 3):
        scene.now = 60.0 * number + 0.1
        rooms.append(scene.room())
        scene.now = 60.0 * number + 59
        scene.ask(99, 60.0 * number + 60)
    assert rooms == [1, 100, 100]


def test_refusals_that_say_nothing_pause_for_longer_and_longer_up_to_the_period() -> None:
    scene, pauses = Scene(period=60.0), []
    for _ in range(9):
        scene.refuse()
        pauses.append(scene.opens_in())
        scene.now += scene.opens_in()
        assert scene.room() == 1
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_the_pause_is_a_second_at_least_though_the_period_is_shorter() -> None:
    scene = Scene(period=0.1)
    for _ in range(3):
        scene.refuse()
        assert scene.opens_in() == pytest.approx(1.0)
        scene.now += 1.0


def test_after_a_good_answer_pauses_are_short_again() -> None:
    scene = Scene()
    for _ in range(3):
        scene.refuse()
        scene.now += 10.0
    scene.ask(50, 60.0)
    scene.refuse()
    assert scene.opens_in() == pytest.approx(1.0)


def test_refusals_of_requests_sent_before_the_pause_count_once() -> None:
    scene = alone()
    first, second, third = scene.send(3)
    scene.now = 60.5
    scene.answer(first, refused=True)
    scene.now = 60.9
    scene.answer(second, refused=True)
    scene.now = 61.4
    assert scene.opens_in() == pytest.approx(0.1)
    scene.now = 61.6
    scene.answer(third, refused=True)
    assert scene.room() == 1
    scene.refuse()
    assert scene.opens_in() == pytest.approx(2.0)


def test_what_was_left_before_the_pause_is_forgotten() -> None:
    scene = known(50)
    scene.refuse()
    scene.now = 1.1
    assert scene.room() == 1
    assert scene.left() is None


def test_news_during_a_pause_does_not_end_it() -> None:
    scene = known(50)
    (under_way,) = scene.send()
    scene.refuse()
    scene.answer(under_way, 40, 60.0)
    assert scene.opens_in() == pytest.approx(1.0)
    scene.now = 1.1
    assert scene.room() == 40


def test_nothing_left_without_a_reset_says_nothing() -> None:
    scene = Scene()
    scene.ask(0)
    assert scene.ledger.blind


@pytest.mark.parametrize("reset", [HOUR, 1e6, 1e300])
def test_no_refusal_is_waited_for_longer_than_an_hour(reset: float) -> None:
    scene = Scene()
    scene.refuse(0, reset)
    assert scene.opens_in() == pytest.approx(HOUR, abs=0.4)


@pytest.mark.parametrize(("reset", "blind"), [(HOUR, False), (HOUR + 30, False), (HOUR + 90, True)])
def test_a_reset_in_more_than_an_hour_makes_no_sense(reset: float, blind: bool) -> None:
    scene = Scene()
    scene.ask(5, reset)
    assert scene.ledger.blind is blind


# Refusals that the window does not explain -------------------------------------------------------


@pytest.mark.parametrize(("pause", "wait"), [(None, 1.0), (7.0, 7.0), (1e9, HOUR)])
@pytest.mark.parametrize("told", [(), (50, 60.0), (50,)])
def test_it_pauses_for_as_long_as_the_server_asks(
    told: tuple[Any, ...], pause: float | None, wait: float
) -> None:
    scene = known(99)
    scene.refuse(*told, pause=pause)
    assert scene.opens_in() == pytest.approx(wait, abs=0.4)


def test_a_pause_that_is_longer_than_the_window_is_kept() -> None:
    scene = known(99)
    scene.refuse(0, 60.0, pause=90.0)
    scene.now = 61.0
    assert scene.opens_in() == pytest.approx(29.0)


def test_headers_that_two_refusals_gave_the_lie_are_not_believed_for_a_while() -> None:
    scene = known(99, limit=40, now=1.0)
    scene.ask(248, 60.0, limit=250)
    limits, blind = [scene.ledger.limit], []
    for now in (1.0, 4.0):
        scene.now = now
        scene.refuse(200, 60.0)
        scene.now += 2.5
        scene.ask(199, 60.0)
        limits.append(scene.ledger.limit)
        blind.append(scene.ledger.blind)
    for now in (603.9, 604.1):
        scene.now = now
        scene.ask(249, 660.0)
        blind.append(scene.ledger.blind)
    assert blind == [False, True, True, False]
    assert limits == [250, 250, 40]


def test_while_headers_are_not_believed_a_refusal_s_are_not_either() -> None:
    scene = known(99, limit=40)
    for scene.now in (1.0, 4.0):
        scene.refuse(200, 60.0)
    scene.now = 10.0
    scene.refuse(0, 60.0, pause=5.0)
    assert scene.opens_in() == pytest.approx(5.0)
    scene.now = 15.1
    assert scene.room() == 1


def test_headers_that_are_believed_again_have_two_refusals_to_lose() -> None:
    scene, blind = known(99), []
    for scene.now in (1.0, 4.0, 700.0):
        scene.refuse(200, scene.now + 50)
    for scene.now in (710.0, 720.0):
        scene.ask(99, 760.0)
        blind.append(scene.ledger.blind)
        scene.refuse(200, 760.0)
    scene.now = 730.0
    scene.ask(99, 760.0)
    assert [*blind, scene.ledger.blind] == [False, True, True]


def spent_40() -> Scene:
    scene = known(99, reserve=0.5)
    for left in range(98, 58, -1):
        scene.ask(left, 60.0)
    return scene


def test_what_was_spent_before_a_pause_counts_no_more_if_the_window_turns_meanwhile() -> None:
    scene = spent_40()
    scene.refuse(50, 60.0, pause=70.0)
    scene.now = 71.0
    scene.ask(90, 120.0)
    assert scene.room() == 49


def test_what_was_spent_counts_though_the_reset_moves() -> None:
    scene = spent_40()
    scene.refuse(50, 60.0, pause=1.0)
    scene.now = 2.0
    scene.ask(57, 60.0)
    scene.now = 3.0
    scene.ask(56, 61.0)
    assert scene.room() == 50 - 43


def test_what_was_spent_before_a_pause_counts_until_the_window_turns() -> None:
    scene = known(99, reserve=0.5)
    for left in range(98, 58, -1):
        scene.ask(left, 60.0)
    scene.refuse(50, 60.0, pause=1.0)
    scene.now = 2.0
    scene.ask(57, 60.0)
    assert scene.room() == 50 - 42
    scene.now = 60.1
    scene.ask(99, 120.0)
    assert scene.room() == 49


# How long is waited ------------------------------------------------------------------------------


def test_no_window_lasts_longer_than_an_hour_though_a_clock_is_set_meanwhile() -> None:
    scene = Scene()
    (early,) = scene.send()
    scene.now = 1.0
    scene.ask(0, 1e9 + 60, clock=1e9)
    scene.now = 2.0
    scene.answer(early, 5, 61.0, clock=2.0)
    assert scene.opens_in() == pytest.approx(HOUR - 1)


def test_a_reset_that_is_past_turns_the_window() -> None:
    scene = Scene(now=10.0)
    scene.ask(99, 9.0)
    assert scene.room() == 100


@pytest.mark.parametrize("turns", [1, 2, 3, 8])
def test_a_refusal_right_after_the_turn_tells_that_turns_come_later(turns: int) -> None:
    scene = alone()
    late = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    for turn in range(1, turns + 1):
        scene.refuse()  # the server has not turned yet, and so names no reset to come
        scene.now += 1.5
        scene.ask(99, scene.now + 60)
        wait = scene.ledger.resets_in(scene.now)
        assert wait == pytest.approx(60 + late[turn - 1], abs=0.01)
        scene.now += 60.01 + late[turn - 1]
        assert scene.room() == 1  # for a while no window is opened at once


@pytest.mark.parametrize("told", [(), (0, 60.0), (50, 120.0)])
def test_after_a_turn_that_came_too_early_ten_windows_begin_with_one_request(
    told: tuple[Any, ...],
) -> None:
    scene = alone()
    scene.refuse(*told)
    rooms = []
    for number in range(2, 15):
        scene.now = 60.0 * number - 1
        scene.ask(99, 60.0 * number)
        scene.now = 60.0 * number + 0.1
        rooms.append(scene.room())
    assert rooms == [1] * 10 + [100] * 3


@pytest.mark.parametrize("clock", [60.0, 59.9])
def test_a_window_that_an_answer_begins_is_one_of_the_ten(clock: float) -> None:
    scene = Scene(exact=False, now=50.5)
    scene.refuse()
    scene.now = 52.5
    scene.ask(99, 60.0)
    (early,) = scene.send()
    scene.now = 60.0  # it may have turned, but it is not sure
    scene.answer(early, 99, 120.0, clock=clock)
    rooms = []
    for number in range(2, 13):
        scene.now = 60.0 * number - 0.5
        scene.ask(99, 60.0 * number)
        scene.now = 60.0 * number + 1.1
        rooms.append(scene.room())
    assert rooms == [1] * 9 + [100] * 2


def test_refusals_while_nothing_is_known_tell_nothing_of_the_turn() -> None:
    scene = Scene()
    for _ in range(3):
        scene.refuse()
        scene.now += 10
    scene.ask(99, scene.now + 60)
    assert scene.ledger.resets_in(scene.now) == pytest.approx(60, abs=0.01)


def test_a_refusal_in_a_window_that_has_answered_already_tells_nothing_of_the_turn() -> None:
    scene = alone()
    scene.ask(99, 120.0)
    scene.refuse()
    scene.now += 10
    scene.ask(97, 120.0)
    assert scene.ledger.resets_in(scene.now) == pytest.approx(120 - scene.now, abs=0.01)


@pytest.mark.parametrize("whose", ["first", "known", "before"])
def test_other_refusals_that_say_nothing_tell_nothing_of_the_turn(whose: str) -> None:
    scene = Scene() if whose == "first" else known(99, now=59.0)
    (sent,) = scene.send()
    scene.now += 0 if whose == "first" else 0.5 if whose == "known" else 1.01
    scene.room()
    scene.answer(sent, refused=True)
    scene.now += 10
    scene.ask(99, scene.now + 60)
    assert scene.ledger.resets_in(scene.now) == pytest.approx(60, abs=0.01)


def test_a_refusal_within_the_time_that_turns_are_late_closes_until_then() -> None:
    scene = alone()
    scene.refuse()  # 0.05 late from now on
    scene.now = 70.0
    scene.ask(99, 120.0)
    scene.send()
    scene.now = 120.03
    scene.refuse(0, 120.0)
    assert scene.room() == 0
    scene.now = 120.07
    assert scene.room() == 1


# A server that says nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("told", [(), (99,), (None, 60.0)])
def test_answers_without_the_headers_make_it_blind(told: tuple[Any, ...]) -> None:
    scene = Scene()
    scene.ask(*told)
    assert scene.ledger.blind
    assert scene.ledger.gone() == 1


def test_an_answer_with_headers_ends_it_and_what_went_meanwhile_is_forgotten() -> None:
    scene = Scene()
    for scene.now in range(300):
        scene.ask()
    scene.ask(50, 360.0)
    assert not scene.ledger.blind
    assert scene.room() == 50


@pytest.mark.parametrize(("seconds", "room"), [(59.0, 50 - 6), (61.0, 50 - 1)])
def test_what_went_meanwhile_counts_unless_it_lasted_longer_than_a_window(
    seconds: float, room: int
) -> None:
    scene = Scene(reserve=0.5, now=40.0)
    for _ in range(5):
        scene.ask()
    scene.now += seconds
    scene.ask(90, 160.0)
    assert scene.room() == room


def test_the_pace_of_others_is_not_known_any_more_when_an_answer_ends_it() -> None:
    scene = known(100, limit=1000, now=59.0)
    scene.ask(97, 60.0)  # two of others for one of ours
    scene.now = 60.1
    scene.ask()
    scene.ask(900, 120.0)
    scene.send(10)
    assert scene.left() == 890


@pytest.mark.parametrize(("told", "wait"), [((0, 60.0), 60.0), ((None, 60.0), 60.0), ((), 1.0)])
def test_a_refusal_ends_it_too_so_that_it_is_heeded(told: tuple[Any, ...], wait: float) -> None:
    scene = Scene()
    scene.ask()
    scene.refuse(*told)
    assert not scene.ledger.blind
    assert scene.opens_in() == pytest.approx(wait, abs=0.01)


@pytest.mark.parametrize("dated", [True, False])
def test_silent_answers_tell_of_the_clock_if_they_are_dated(dated: bool) -> None:
    scene = Scene(exact=not dated)
    scene.ask()
    turns = 60.0 if dated else math.inf  # else the time is ours
    assert scene.ledger.clock.surely_at(60.0, 0.0) == turns


def test_a_silent_answer_from_the_window_before_does_not_make_it_blind() -> None:
    scene = known(99, now=59.8)
    (late,) = scene.send()
    scene.now = 60.01
    assert scene.room() == 99
    scene.answer(late)
    assert not scene.ledger.blind


def test_what_may_have_been_counted_is_what_was_spent_and_what_is_under_way() -> None:
    scene = alone()
    sent = scene.send(10)
    scene.ledger.unanswered(sent[0], counted=True)
    scene.ledger.unanswered(sent[1], counted=False)
    scene.answer(sent[2])
    assert scene.ledger.gone() == 9


# Holding the last requests back -------------------------------------------------------------------


def coarse(remaining: int, *, now: float = 30.5, limit: int = 100) -> Scene:
    """The next window begins from 59.5 to 60.5, for answers tell whole seconds."""
    return known(remaining, limit=limit, exact=False, now=now)


@pytest.mark.parametrize(
    ("limit", "left", "room"),
    [(100, 50, 42), (100, 9, 1), (100, 8, 0), (7, 3, 2), (4, 3, 2), (3, 2, 2)],
)
def test_if_more_wait_than_may_go_the_last_few_are_held_back(
    limit: int, left: int, room: int
) -> None:
    assert coarse(left, limit=limit).room() == room


@pytest.mark.parametrize("left", [1, 8, 50])
def test_nothing_is_held_back_if_all_that_wait_may_go(left: int) -> None:
    assert coarse(left).room(bulk=left) == left
    assert coarse(left).room(bulk=0, interactive=left) == left


def test_while_some_are_under_way_the_last_few_wait_for_their_answers() -> None:
    scene = coarse(10)
    first, second = scene.send(2)
    assert scene.room(bulk=8) == 0
    scene.answer(first, 9, 60.0)
    assert scene.room(bulk=8) == 0
    scene.answer(second, 8, 60.0)
    assert scene.room(bulk=8) == 8


@pytest.mark.parametrize(("bulk", "interactive", "room"), [(8, 0, 8), (5, 3, 8), (6, 3, 3)])
def test_answers_that_do_not_come_are_waited_for_a_moment_only_if_all_may_go(
    bulk: int, interactive: int, room: int
) -> None:
    scene = coarse(10)
    scene.send(2)
    assert scene.room(bulk, interactive) == interactive
    scene.now = scene.ledger.opens_at(scene.now)
    assert scene.room(bulk, interactive) == room


@pytest.mark.parametrize(("bulk", "interactive", "room"), [(MANY, 3, 3), (MANY, 9, 8), (5, 3, 3)])
def test_interactive_calls_are_never_held_back(bulk: int, interactive: int, room: int) -> None:
    scene = coarse(9)
    scene.send()
    assert scene.room(bulk, interactive) == room


def test_nothing_is_held_back_where_the_clock_is_known_well() -> None:
    assert known(8).room() == 8


@pytest.mark.parametrize(("now", "room"), [(59.4, 0), (59.6, 8), (60.4, 8)])
def test_nothing_is_held_back_once_the_window_may_turn(now: float, room: int) -> None:
    scene = coarse(8)
    scene.now = now
    assert scene.room() == room


@pytest.mark.parametrize(
    ("now", "left", "looks"), [(30.5, 8, 1), (53.4, 8, 2), (57.4, 8, 4), (58.8, 8, 8), (58.8, 3, 3)]
)
def test_those_held_back_are_looks_at_the_clock_spread_over_the_rest_of_the_window(
    now: float, left: int, looks: int
) -> None:
    scene = coarse(left)
    scene.now = now
    clock = scene.ledger.clock
    until_release = clock.perhaps_at(60.0, now) - now
    expected = min(clock.next_look(now, looks) - now, until_release)
    assert scene.opens_in() == pytest.approx(expected)


def test_one_look_at_a_time_when_it_is_time() -> None:
    scene = coarse(8)
    scene.now += scene.opens_in()
    assert scene.room() == 1
    scene.send()
    assert scene.opens_in() > 0.5


def test_a_look_that_is_planned_is_not_put_off() -> None:
    scene = coarse(8)
    planned = scene.now + scene.opens_in()
    scene.now += 0.1
    assert scene.now + scene.opens_in() == pytest.approx(planned)


def test_a_look_that_was_planned_in_the_window_before_is_not_taken_in_the_next() -> None:
    scene = coarse(9, now=50.5)
    (sent,) = scene.send()
    assert scene.room() == 0
    scene.now = 61.0
    scene.answer(sent, 8, 120.0)
    assert scene.room() == 0


def test_looks_tell_when_the_window_turns() -> None:
    scene = coarse(8)
    while scene.now < 40 and not scene.ledger.clock.sharp(scene.now):
        if scene.room() == 0:
            scene.now += scene.opens_in()
        scene.ask(8, 60.0)  # as if none were used up
    assert scene.ledger.clock.sharp(scene.now)
    assert scene.ledger.clock.surely_at(60.0, 60.0) == pytest.approx(60.0, abs=0.03)


# What is told of it -------------------------------------------------------------------------------


def test_the_seconds_until_requests_flow_again_are_known_from_the_reset_or_the_pause() -> None:
    assert Scene().ledger.resets_in(0.0) is None
    assert known(99).ledger.resets_in(0.0) == pytest.approx(60)
    scene = Scene()
    scene.refuse()
    assert scene.ledger.resets_in(0.0) == pytest.approx(1)
    assert scene.ledger.resets_in(1.5) is None


def test_a_pause_that_ends_after_the_reset_is_what_is_waited_for() -> None:
    scene = Scene(now=59.9)
    (under_way,) = scene.send()
    scene.refuse()
    scene.answer(under_way, 9, 60.0)
    assert scene.ledger.resets_in(59.9) == pytest.approx(1)


# Whatever happens ---------------------------------------------------------------------------------

few = st.integers(0, 20)
moments = st.none() | st.floats(-100, 5000) | st.sampled_from([0.0, -1.0, 1e-9, 1e5, 1e12, 1e300])
garbage = st.fixed_dictionaries(
    {
        "limit": st.none() | st.integers(1, 30) | st.just(10**12),
        "remaining": st.none() | few | st.just(10**12),
        "reset": moments,  # from now on
        "clock": st.just(0.0) | st.floats(-10, 10) | st.floats(-1e9, 1e9),  # beyond ours
        "dated": st.booleans(),
        "refused": st.booleans(),
    }
)
sensible = st.fixed_dictionaries(
    {
        "limit": st.just(10),
        "remaining": st.integers(0, 10),
        "reset": st.floats(0.01, 60),
        "clock": st.just(0.0),
        "dated": st.just(True),
        "refused": st.just(False),
    }
)
events = st.lists(
    st.tuples(st.just("wait"), st.floats(0, 5) | st.floats(0, 5000))
    | st.tuples(st.just("send"), st.integers(1, 5))
    | st.tuples(st.just("answer"), st.tuples(few, garbage | sensible))
    | st.tuples(st.just("lose"), st.tuples(few, st.booleans())),
    max_size=40,
)


class Story:
    """A ledger to which anything happens."""

    def __init__(self, limit: int, period: float, reserve: float) -> None:
        self.ledger = Ledger(limit, period, reserve, ServerClock())
        self.now = 0.0
        self.out: list[Sent] = []

    def happens(self, what: str, how: Any) -> None:
        if what == "wait":
            self.now += how
        elif what == "send":
            self.out += [self.ledger.send(self.now) for _ in range(how)]
        elif self.out:
            which, told = how
            sent = self.out.pop(which % len(self.out))
            if what == "lose":
                self.ledger.unanswered(sent, counted=told)
            else:
                self.answer(sent, **told)

    def answer(
        self, sent: Sent, *, reset: float | None, clock: float, refused: bool, **told: Any
    ) -> None:
        clock += self.now
        if told["dated"]:
            clock = float(math.floor(clock))
        window = RateWindow(reset=None if reset is None else clock + reset, clock=clock, **told)
        self.ledger.answered(sent, self.now, window, refused=refused)

    def check(self) -> None:
        ledger = self.ledger
        assert ledger.in_flight == len(self.out)
        left, seconds = ledger.spendable(self.now), ledger.resets_in(self.now)
        assert left is None or 0 <= left <= ledger.allowance() <= ledger.limit
        assert seconds is None or 0 < seconds <= HOUR + 3

    def wakes(self, bulk: int, interactive: int) -> None:
        """Follow the alarms until somebody may go."""
        for _ in range(30):
            if self.ledger.room(self.now, bulk=bulk, interactive=interactive) > 0:
                return
            opens = self.ledger.opens_at(self.now)
            assert self.now < opens <= self.now + HOUR + 3
            self.now = opens
        raise AssertionError("never")


@given(
    story=st.builds(
        Story, st.integers(1, 30), st.floats(0.1, 3600), st.sampled_from([0.0, 0.5, 0.99])
    ),
    events=events,
    bulk=st.integers(1, 50),
    interactive=st.integers(0, 3),
)
def test_whoever_waits_is_woken_whatever_the_server_says(
    story: Story, events: list[tuple[str, Any]], bulk: int, interactive: int
) -> None:
    for what, how in events:
        story.happens(what, how)
        story.check()
    while story.out:
        story.happens("lose", (0, True))
    if not story.ledger.blind:
        story.wakes(bulk, interactive)
