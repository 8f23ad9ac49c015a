import math

import pytest

from braze_export.limiting.window import Window, ours


def window(
    remaining: int | None = None, *, spent: int = 0, first: int = 0, spent_by_then: int = 0
) -> Window:
    return Window(
        number=1,
        opening=1,
        whole=True,
        remaining=remaining,
        first=first,
        spent_by_then=spent_by_then,
        spent=spent,
    )


@pytest.mark.parametrize(
    ("requests", "reserve", "allowed"),
    [(100, 0.0, 100), (100, 0.255, 74), (3, 0.5, 1), (1, 0.999, 1), (0, 0.0, 1)],
)
def test_what_is_not_left_to_others_is_ours(requests: int, reserve: float, allowed: int) -> None:
    assert ours(requests, reserve) == allowed


# How many requests others send for each of ours ----------------------------------------------


@pytest.mark.parametrize(
    ("first", "remaining", "spent", "in_flight", "pace"),
    [
        (100, 90, 10, 0, 0.0),  # all of them were ours
        (100, 89, 10, 0, 0.1),
        (100, 80, 10, 0, 1.0),
        (100, 80, 10, 6, 0.4),
        (100, 80, 10, 10, 0.0),
        (100, 95, 10, 0, 0.0),  # what remains was told before some of ours were counted
        (100, 50, 10, 0, 4.0),
        (100, 10, 10, 0, 4.0),  # no more than that is reckoned with
        (100, 99, 0, 0, 1.0),
        (100, None, 10, 0, 4.0),
    ],
)
def test_how_fast_others_are(
    first: int, remaining: int | None, spent: int, in_flight: float, pace: float
) -> None:
    assert window(remaining, spent=spent, first=first).pace(in_flight) == pace


def test_others_are_reckoned_from_the_first_answer_on() -> None:
    known = window(spent=3)
    known.learn(50, 60.0, now=1.0, counted=True)
    assert known.pace(0) == 0.0
    known.learn(48, 60.0, now=2.0, counted=True)
    assert known.pace(0) == 1.0  # two fewer, one of them ours


@pytest.mark.parametrize(("remaining", "pace"), [(47, 0.0), (46, 1.0), (45, 1.5)])
def test_only_an_answer_that_tells_of_more_begins_the_reckoning_anew(
    remaining: int, pace: float
) -> None:
    known = window()
    for at, told in enumerate((50, 46, remaining)):
        known.learn(told, 60.0, now=float(at), counted=True)
    assert known.pace(0) == pace


# Whether anybody else uses the workspace -----------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "spent", "in_flight", "shared"),
    [
        (90, 10, 0, False),
        (89, 10, 0, True),  # one request is not ours
        (88, 10, 2, False),
        (87, 10, 2, True),
        (95, 10, 0, False),
        (None, 10, 0, True),  # nobody knows
    ],
)
def test_a_window_is_shared_where_requests_are_not_ours(
    remaining: int | None, spent: int, in_flight: int, shared: bool
) -> None:
    first = remaining or 0
    known = window(remaining, spent=spent, first=first, spent_by_then=spent)
    assert known.shared(100, in_flight) is shared


def test_a_window_of_which_others_took_a_little_is_shared_though_the_limit_has_grown() -> None:
    known = window(88, spent=10, first=99)
    assert known.pace(0) < 1
    assert known.shared(98, 0)


def test_a_window_that_refused_us_is_shared() -> None:
    known = window(100)
    assert not known.shared(100, 0)
    known.refused = True
    assert known.shared(100, 0)


# What is counted -----------------------------------------------------------------------------


def test_a_request_of_which_the_server_said_nothing_is_counted_all_the_same() -> None:
    known = window(1)
    for left in (0, 0):
        known.count()
        assert known.remaining == left
    assert known.spent == 2
    unknown = window()
    unknown.count()
    assert (unknown.remaining, unknown.spent) == (None, 1)


@pytest.mark.parametrize(("reset", "spent"), [(60.0, 6), (60.5, 1)])
def test_what_was_spent_before_counts_where_the_window_is_still_the_same(
    reset: float, spent: int
) -> None:
    known = window(spent=5)
    assert known.carried == math.inf
    known.carried = 60.0
    known.learn(90, reset, now=1.0, counted=True)
    assert known.spent == spent
    assert (known.reset, known.known_at) == (reset, 1.0)


def test_a_refused_request_is_not_counted() -> None:
    known = window(spent=5)
    known.learn(0, 60.0, now=1.0, counted=False)
    assert known.spent == 5
