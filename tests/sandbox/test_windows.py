import math

import pytest

from braze_export.sandbox import Sandbox, Window
from braze_export.sandbox.windows import Pool

from .conftest import IDS, Clock, Connect

FAST = {"fields_to_export": ["email"]}
SLOW = {"fields_to_export": ["email", "campaigns_received"]}


@pytest.mark.parametrize(
    ("requests", "period"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, math.inf), (1, math.nan)]
)
def test_windows_are_checked(requests: int, period: float) -> None:
    with pytest.raises(ValueError, match=r"max_requests|period|window"):
        Window(requests, period)


def test_windows_are_read() -> None:
    assert Window.parse("2500/60") == Window(2_500, 60.0)
    for text in ("2500", "a/b", "1/0", "/", ""):
        with pytest.raises(ValueError, match="REQUESTS/SECONDS"):
            Window.parse(text)


def test_a_pool_starts_anew_on_the_clock_and_not_after_a_period() -> None:
    pool = Pool(Window(2, 60.0))
    assert [pool.take(119.0), pool.take(119.5), pool.take(119.9)] == [True, True, False]
    assert pool.take(120.0)
    assert pool.rate(120.0).reset == 180


def test_the_reset_is_rounded_up() -> None:
    assert Pool(Window(1, 0.25)).rate(10.0).reset == 11
    assert Pool(Window(1, 1.5)).rate(0.0).reset == 2


async def test_refused_requests_do_not_count(connect: Connect, clock: Clock) -> None:
    client = await connect(ids_window=Window(2, 60.0))
    got = [await client.ids("u1") for _ in range(4)]
    assert [g.status for g in got] == [200, 200, 429, 429]
    assert [g.rate[:2] for g in got] == [(2, 1), (2, 0), (2, 0), (2, 0)]
    assert got[2].json == {"message": "Rate Limited"}
    reset = got[2].rate[2]
    assert reset == 1_700_000_100 - 1_700_000_100 % 60
    clock.now = reset - 0.001
    assert (await client.ids("u1")).status == 429
    clock.now = reset
    got_again = await client.ids("u1")
    assert (got_again.status, got_again.rate[1]) == (200, 1)


async def test_ids_and_the_other_endpoints_have_pools_of_their_own(connect: Connect) -> None:
    client = await connect(ids_window=Window(1, 60.0), default_window=Window(2, 3_600.0))
    assert [(await client.ids("u1")).status for _ in range(2)] == [200, 429]
    assert (await client.get("/segments/list")).status == 200
    assert (await client.get("/segments/details", segment_id="?")).status == 400
    assert (await client.get("/segments/list")).status == 429


async def test_the_fast_limit_counts_for_requests_of_its_shape(connect: Connect) -> None:
    client = await connect(ids_window=Window(3, 60.0), fast_ids_window=Window(1, 1.0))
    assert (await client.ids("u1", **FAST)).rate[:2] == (1, 0)
    assert (await client.ids("u1", **FAST)).status == 429
    assert (await client.ids("u1", **SLOW)).rate[:2] == (3, 2)
    assert (await client.ids("u1")).rate[:2] == (3, 1)
    assert (await client.post(IDS, [])).rate[:2] == (3, 0)


async def test_without_a_fast_limit_there_is_only_one(connect: Connect) -> None:
    client = await connect()
    assert (await client.ids("u1", **FAST)).rate[:2] == (2_500, 2_499)


async def test_a_new_workspace(connect: Connect, clock: Clock) -> None:
    client = await connect(Sandbox.new_workspace(users=5, clock=clock))
    assert (await client.ids("u1", **FAST)).rate[:2] == (40, 39)
    assert (await client.ids("u1", **SLOW)).rate[:2] == (250, 249)
    refused = await client.ids("u1")
    assert (refused.status, refused.json["message"]) == (400, "fields_to_export is required")


async def test_who_has_no_access_does_not_use_up_the_window(connect: Connect) -> None:
    client = await connect()
    no_key = {"Authorization": ""}
    assert (await client.call("POST", IDS, headers=no_key)).rate[1] == 2_500
    assert (await client.get("/nowhere")).rate[:2] == (250_000, 250_000)


async def test_others_use_the_same_window(connect: Connect, clock: Clock) -> None:
    client = await connect(ids_window=Window(5, 60.0))
    sandbox = client.sandbox
    assert sandbox.use_up(3) == 3
    assert (await client.ids("u1")).rate[:2] == (5, 1)
    assert sandbox.use_up(3) == 1
    assert (await client.ids("u1")).status == 429
    assert sandbox.use_up(1, "default") == 1
    with pytest.raises(LookupError, match="no limit 'fast_ids': there are default, ids"):
        sandbox.use_up(1, "fast_ids")


async def test_a_limit_can_change_under_way(connect: Connect, clock: Clock) -> None:
    client = await connect(ids_window=Window(3, 60.0))
    sandbox = client.sandbox
    assert sandbox.use_up(2) == 2
    sandbox.change_limit(Window(10, 60.0))
    assert (await client.ids("u1")).rate[:2] == (10, 7)
    sandbox.change_limit(Window(2, 60.0))
    refused = await client.ids("u1")
    assert (refused.status, refused.rate[:2]) == (429, (2, 0))
    sandbox.change_limit(Window(2, 1.0))
    assert (await client.ids("u1")).rate[:2] == (2, 1)
