import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import Estimate, InputError, Limits, RateLimit, UnknownFieldWarning, estimate

NEW, OLDEST = Limits.new_workspace(), Limits.oldest_workspace()


def last_sent(requests: int, per_window: int, period: float, begin: float = 0.0) -> float:
    """When the last request leaves if all leave as soon as their window lets them.

    Windows follow each other from 0 on. Work begins somewhere in the first of them, which is
    taken for used up unless it is fresh.
    """
    sent, now, left = 0, begin, 0 if begin else per_window
    while sent < requests:
        if not left:
            now, left = (math.floor(now / period) + 1) * period, per_window
        sent, left = sent + 1, left - 1
    return now - begin


FAST, SLOW, OLD = RateLimit(40, 1), RateLimit(250, 60), RateLimit(2500, 60)


@pytest.mark.parametrize(
    ("number", "options", "expected"),
    [
        (0, {}, (0, "ids", OLD, 0)),
        (1, {}, (1, "ids", OLD, 0)),
        (50, {}, (1, "ids", OLD, 0)),
        (51, {}, (2, "ids", OLD, 0)),
        (125_000, {}, (2500, "ids", OLD, 0)),
        (125_001, {}, (2501, "ids", OLD, 60)),
        (10**6, {}, (20_000, "ids", OLD, 420)),
        (10**6, {"fields": ["email"]}, (20_000, "ids", OLD, 420)),
        (10**6, {"limits": NEW}, (20_000, "ids", SLOW, 4740)),
        (10**6, {"limits": NEW, "fields": ["dob"]}, (20_000, "ids_fast", FAST, 499)),
        (10**6, {"limits": NEW, "fields": iter(["dob"])}, (20_000, "ids_fast", FAST, 499)),
        (10**6, {"limits": NEW, "fields": ["canvases_received"]}, (20_000, "ids", SLOW, 4740)),
        (10**6, {"limits": OLDEST}, (20_000, "default", RateLimit(250_000, 3600), 0)),
        (1000, {"one_each": True, "limits": NEW}, (1000, "ids", SLOW, 180)),
    ],
)
def test_estimates(
    number: int, options: dict[str, Any], expected: tuple[int, str, RateLimit, float]
) -> None:
    made = estimate(number, **options)
    assert (made.requests, made.pool, made.limit, made.seconds) == expected
    assert made.identifiers == number
    assert made.per_window == made.limit.max_requests
    assert made.minutes == made.seconds / 60


@pytest.mark.parametrize(
    ("most", "reserve", "ours"),
    [(250, 0.0, 250), (250, 0.2, 200), (250, 0.999, 1), (1, 0.5, 1), (3, 0.5, 1), (40, 0.1, 36)],
)
def test_what_is_left_to_others(most: int, reserve: float, ours: int) -> None:
    limits = Limits(ids=RateLimit(most, 60), reserve=reserve)
    assert estimate(50, limits=limits).per_window == ours


@given(
    number=st.integers(0, 5000),
    most=st.integers(1, 60),
    period=st.integers(1, 3600),
    reserve=st.sampled_from([0.0, 0.2, 0.5, 0.99]),
    phase=st.floats(0, 1, exclude_max=True),
    one_each=st.booleans(),
)
def test_the_time_is_that_of_a_perfect_scheduler(
    *, number: int, most: int, period: int, reserve: float, phase: float, one_each: bool
) -> None:
    limits = Limits(ids=RateLimit(most, period), reserve=reserve)
    made = estimate(number, limits=limits, one_each=one_each)
    assert made.seconds == last_sent(made.requests, made.per_window, period)
    # In a window that has begun it takes one period longer at most.
    late = last_sent(made.requests, made.per_window, period, phase * period)
    assert late <= made.seconds + period + 1e-6


@given(number=st.integers(0, 10**15), more=st.integers(0, 10**6), fast=st.booleans())
def test_more_identifiers_never_take_less(number: int, more: int, fast: bool) -> None:
    options: Any = {"limits": NEW, "fields": ["email"] if fast else None}
    few, many = estimate(number, **options), estimate(number + more, **options)
    assert few.requests * 50 >= number > few.requests * 50 - 50
    assert few.requests <= many.requests
    assert few.seconds <= many.seconds
    assert few.segment_wiser <= many.segment_wiser


def test_a_reserve_never_makes_it_quicker() -> None:
    times = [estimate(10**6, limits=Limits(reserve=r / 10)).seconds for r in range(10)]
    assert times == sorted(times)
    assert times[0] < times[-1]


def advice(number: int, **options: Any) -> tuple[bool, bool]:
    """Whether fields are advised, and a segment."""
    made = estimate(number, **options)
    segment = "If a segment can describe these users" in made.advice
    assert segment == made.segment_wiser
    return "With fields named, and neither" in made.advice, segment


@pytest.mark.parametrize(
    ("number", "options", "advised"),
    [
        (0, {"limits": NEW}, (False, False)),
        (12_500, {"limits": NEW}, (False, False)),  # one window: there is nothing to wait for
        (12_501, {"limits": NEW}, (True, False)),
        (12_501, {"limits": NEW, "fields": ["email"]}, (False, False)),
        (12_501, {"limits": NEW, "fields": ["campaigns_received"]}, (True, False)),
        (12_501, {"limits": Limits(ids=RateLimit(250, 60))}, (False, False)),  # no such tier
        (387_500, {"limits": NEW}, (True, False)),  # just half an hour
        (387_501, {"limits": NEW}, (True, True)),
        (10_000_000, {"limits": NEW, "fields": ["email"]}, (False, True)),
        (10_000_000, {}, (False, True)),
    ],
)
def test_advice(number: int, options: dict[str, Any], advised: tuple[bool, bool]) -> None:
    assert advice(number, **options) == advised


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (20_000, "it takes 9 s instead of 60 s"),
        (1_000_000, "it takes 8 min instead of 79 min"),
        (10_000_000, "it takes 83 min instead of 13.3 h"),
        (1_000_000, "one request instead of 20,000, prepared by Braze in the background"),
    ],
)
def test_advice_says_how_much_it_saves(number: int, words: str) -> None:
    assert words in estimate(number, limits=NEW).advice


def test_no_advice_is_no_words() -> None:
    assert estimate(1000).advice == ""


@pytest.mark.parametrize("number", [-1, 1.0, 1.5, math.nan, True, False, "5", None, [1]])
def test_what_is_no_number_of_identifiers(number: Any) -> None:
    with pytest.raises(InputError, match="a whole number of zero or more, not"):
        estimate(number)


@pytest.mark.parametrize("fields", ["email", [], [""], 5])
def test_fields_that_cannot_be_sent(fields: Any) -> None:
    with pytest.raises(InputError, match="fields"):
        estimate(1, fields=fields)


@pytest.mark.parametrize("limits", [250, RateLimit(250, 60), {"ids": 250}])
def test_what_are_no_limits(limits: Any) -> None:
    with pytest.raises(InputError, match=r"limits must be Limits\(\.\.\.\), not "):
        estimate(1, limits=limits)


def test_a_misspelt_field_is_told_of_where_it_stands() -> None:
    with pytest.warns(UnknownFieldWarning, match="'emial'") as told:
        assert isinstance(estimate(1, fields=["emial"]), Estimate)
    assert [warning.filename for warning in told] == [__file__]
