from typing import Any

import pytest

from braze_export import InputError, Limits, RateLimit
from braze_export.endpoints import (
    EXPORT_IDS,
    EXPORT_SEGMENT,
    SEGMENTS_LIST,
    Endpoint,
    Pool,
)
from braze_export.limiting.limits import PoolSnapshot


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), float("inf"), "5", None, True])
@pytest.mark.parametrize("name", ["max_requests", "period"])
def test_a_limit_or_period_not_above_zero_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        RateLimit(**{"max_requests": 5, "period": 5, name: value})


def test_a_fraction_of_a_request_is_refused() -> None:
    with pytest.raises(InputError, match="whole number"):
        RateLimit(2.5, 60)  # type: ignore[arg-type]


def test_a_fraction_of_a_second_is_a_period() -> None:
    assert RateLimit(1, 0.5).period == 0.5


@pytest.mark.parametrize("reserve", [-0.01, 1, 1.5, float("nan"), float("inf"), "0.5", None, True])
def test_a_reserve_that_is_no_share_below_one_is_refused(reserve: Any) -> None:
    for make in (Limits, Limits.new_workspace, Limits.oldest_workspace):
        with pytest.raises(InputError, match="reserve"):
            make(reserve=reserve)


@pytest.mark.parametrize("reserve", [0, 0.0, 0.5, 0.999])
def test_a_reserve_from_zero_to_below_one_is_kept(reserve: float) -> None:
    for make in (Limits, Limits.new_workspace, Limits.oldest_workspace):
        assert make(reserve=reserve).reserve == reserve


def test_the_defaults_are_the_documented_limits() -> None:
    assert Limits() == Limits(
        ids=RateLimit(2500, 60),
        default=RateLimit(250_000, 3600),
        ids_fast=None,
        campaign_series=RateLimit(50_000, 60),
        lists=RateLimit(1000, 3600),
        reserve=0.0,
    )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("ids", 2500, "ids must be a RateLimit or None, such as"),
        ("ids_fast", (40, 1), "ids_fast must be a RateLimit or None, such as"),
        ("default", None, "default must be a RateLimit, such as"),
        ("campaign_series", None, "campaign_series must be a RateLimit, such as"),
        ("lists", 1000, "lists must be a RateLimit, such as"),
    ],
)
def test_what_is_no_limit_is_refused(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(InputError) as caught:
        Limits(**{name: value})
    assert str(caught.value).startswith(allowed)


def test_new_workspaces_have_a_fast_tier() -> None:
    new = Limits.new_workspace()
    assert new == Limits(ids=RateLimit(250, 60), ids_fast=RateLimit(40, 1))


def test_the_oldest_workspaces_have_no_limit_of_their_own_for_exports_by_identifiers() -> None:
    assert Limits.oldest_workspace() == Limits(ids=None)


@pytest.mark.parametrize(
    ("limits", "endpoint", "fast", "pool"),
    [
        (Limits(), EXPORT_IDS, True, "ids"),
        (Limits(), EXPORT_IDS, False, "ids"),
        (Limits.new_workspace(), EXPORT_IDS, True, "ids_fast"),
        (Limits.new_workspace(), EXPORT_IDS, False, "ids"),
        (Limits.oldest_workspace(), EXPORT_IDS, True, "default"),
        (Limits.oldest_workspace(), EXPORT_IDS, False, "default"),
        (Limits(ids=None, ids_fast=RateLimit(40, 1)), EXPORT_IDS, True, "ids_fast"),
        (Limits.new_workspace(), EXPORT_SEGMENT, True, "default"),
        (Limits.new_workspace(), SEGMENTS_LIST, False, "default"),
    ],
)
def test_the_shape_of_a_request_chooses_its_pool(
    limits: Limits, endpoint: Endpoint, fast: bool, pool: Pool
) -> None:
    assert limits.pool_of(endpoint, fast=fast) == pool
    assert pool in limits.by_pool()


def test_pools_without_a_limit_are_no_pools() -> None:
    assert Limits().by_pool() == {
        "ids": RateLimit(2500, 60),
        "default": RateLimit(250_000, 3600),
        "campaign_series": RateLimit(50_000, 60),
        "lists": RateLimit(1000, 3600),
    }
    assert Limits.new_workspace().by_pool()["ids_fast"] == RateLimit(40, 1)
    assert "ids" not in Limits.oldest_workspace().by_pool()


def snapshot(
    *, remaining: int | None, resets_in: float | None, waiting: int = 0, waited: float = 0.0
) -> PoolSnapshot:
    return PoolSnapshot(
        limit=250,
        remaining=remaining,
        resets_in=resets_in,
        waiting=waiting,
        in_flight=0,
        sent=0,
        refused=0,
        seconds_waited=waited,
    )


@pytest.mark.parametrize(
    ("remaining", "resets_in", "waiting", "next_window", "closed_for"),
    [
        (0, 7.0, 1, 7.0, 7.0),
        (0, 7.0, 0, None, 7.0),  # nobody waits for it
        (5, 7.0, 1, None, 0.0),
        (None, 7.0, 1, 7.0, 7.0),  # after a refusal
        (None, None, 1, None, 0.0),
        (0, None, 1, None, 0.0),
    ],
)
def test_when_requests_go_on(
    remaining: int | None,
    resets_in: float | None,
    waiting: int,
    next_window: float | None,
    closed_for: float,
) -> None:
    pool = snapshot(remaining=remaining, resets_in=resets_in, waiting=waiting)
    assert pool.next_window == next_window
    assert pool.closed_for == closed_for


@pytest.mark.parametrize(("at_once", "seconds"), [(0, 12.0), (1, 12.0), (2, 6.0), (32, 0.375)])
def test_requests_that_wait_side_by_side_wait_once(at_once: int, seconds: float) -> None:
    pool = snapshot(remaining=0, resets_in=None, waited=12.0)
    assert pool.surely_waited(at_once) == seconds
