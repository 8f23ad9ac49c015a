import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import InputError, Limits, RateLimit
from braze_export.answers import RateWindow
from braze_export.endpoints import EXPORT_IDS, EXPORT_SEGMENT, Pool
from braze_export.governor import LocalLimiter
from tests import virtual


def times_of(
    count: int,
    limits: Limits,
    pool: Pool,
    told: Callable[[LocalLimiter, int], None] = lambda *_: None,
) -> list[float]:
    """When each of so many requests may leave, all of them waiting from the start."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limiter = LocalLimiter(limits)
        began = loop.time()
        left: list[float] = []

        async def one() -> None:
            await limiter.acquire(pool)
            left.append(loop.time() - began)
            told(limiter, len(left))

        await asyncio.gather(*(one() for _ in range(count)))
        return left

    return virtual.run(main)


def busiest(times: list[float], period: float) -> int:
    """The most requests in any window of the period, wherever it begins."""
    return max(sum(start <= t < start + period for t in times) for start in times)


@given(
    limit=st.integers(1, 60),
    period=st.floats(0.5, 3600),
    factor=st.integers(1, 3),
)
def test_no_window_ever_sees_more_than_the_limit(limit: int, period: float, factor: int) -> None:
    times = times_of(limit * factor + 1, Limits(ids=RateLimit(limit, period)), "ids")

    # The bucket's arithmetic is in floats: a window a millionth shorter takes rounding out.
    assert busiest(times, period * (1 - 1e-6)) <= limit


@pytest.mark.parametrize(("limit", "period"), [(2500, 60), (250, 60), (40, 1)])
def test_a_tenth_leaves_at_once_and_the_rest_at_nine_tenths_of_the_limit(
    limit: int, period: float
) -> None:
    times = times_of(limit * 2, Limits(ids=RateLimit(limit, period)), "ids")

    assert sum(t < 1e-3 for t in times) == limit // 10
    assert times[-1] == pytest.approx(period * (2 - 0.1) / 0.9, rel=0.01)


def test_ten_thousand_ids_wait_for_nothing_under_the_default_limit() -> None:
    assert max(times_of(200, Limits(), "ids")) < 1e-3


def test_pools_do_not_wait_for_each_other() -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits(ids=RateLimit(1, 60), default=RateLimit(1, 60)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await limiter.acquire("ids")
        limiter.observe("ids", RateWindow(remaining=0, resets_in=60), refused=False)
        await limiter.acquire("default")
        return loop.time() - began

    assert virtual.run(main) < 1e-3


def test_nothing_passes_once_the_server_says_that_nothing_remains() -> None:
    def told(limiter: LocalLimiter, number: int) -> None:
        if number == 3:
            limiter.observe("ids", RateWindow(remaining=0, resets_in=17.0), refused=False)

    async def main() -> list[float]:
        limiter = LocalLimiter(Limits())
        loop = asyncio.get_running_loop()
        began, left = loop.time(), []
        for number in range(1, 6):
            await limiter.acquire("ids")
            left.append(loop.time() - began)
            told(limiter, number)
        return left

    assert virtual.run(main) == pytest.approx([0, 0, 0, 17, 17], abs=1e-3)


@pytest.mark.parametrize(
    ("window", "refused", "pause"),
    [
        (RateWindow(remaining=0, resets_in=5.0), False, 5.0),
        (RateWindow(remaining=0, resets_in=5.0), True, 5.0),
        (RateWindow(remaining=7, resets_in=5.0), True, 5.0),
        (RateWindow(remaining=7, resets_in=5.0), False, 0.0),
        (RateWindow(resets_in=5.0), False, 0.0),
        (RateWindow(), True, 1.0),
        (RateWindow(remaining=0), False, 0.0),
        (RateWindow(remaining=0, resets_in=1e9), True, 3600.0),
    ],
)
def test_how_long_an_answer_closes_the_pool(
    window: RateWindow, refused: bool, pause: float
) -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits())
        loop = asyncio.get_running_loop()
        began = loop.time()
        limiter.observe("ids", window, refused=refused)
        await limiter.acquire("ids")
        return loop.time() - began

    assert virtual.run(main) == pytest.approx(pause, abs=1e-3)


def test_a_later_answer_never_opens_the_pool_earlier() -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits())
        loop = asyncio.get_running_loop()
        began = loop.time()
        limiter.observe("ids", RateWindow(remaining=0, resets_in=30), refused=True)
        limiter.observe("ids", RateWindow(remaining=0, resets_in=2), refused=True)
        await limiter.acquire("ids")
        return loop.time() - began

    assert virtual.run(main) == pytest.approx(30)


def test_a_pool_that_closes_again_while_one_waits_keeps_it_waiting() -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits())
        loop = asyncio.get_running_loop()
        began = loop.time()
        limiter.observe("ids", RateWindow(remaining=0, resets_in=10), refused=True)
        waiter = asyncio.create_task(limiter.acquire("ids"))
        await asyncio.sleep(5)
        limiter.observe("ids", RateWindow(remaining=0, resets_in=10), refused=True)
        await waiter
        return loop.time() - began

    assert virtual.run(main) == pytest.approx(15)


def test_a_cancelled_waiter_takes_no_turn() -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits(ids=RateLimit(10, 9)))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await limiter.acquire("ids")
        waiters = [asyncio.create_task(limiter.acquire("ids")) for _ in range(3)]
        await asyncio.sleep(0)
        for waiter in waiters[:2]:
            waiter.cancel()
        await asyncio.wait(waiters)
        return loop.time() - began

    assert virtual.run(main) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), float("inf"), "5", None, True])
@pytest.mark.parametrize("name", ["max_requests", "period"])
def test_a_limit_or_period_not_above_zero_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        RateLimit(**{"max_requests": 5, "period": 5, name: value})


def test_a_fraction_of_a_request_is_refused() -> None:
    with pytest.raises(InputError, match="whole number"):
        RateLimit(2.5, 60)  # type: ignore[arg-type]


def test_the_defaults_are_the_documented_limits() -> None:
    assert Limits() == Limits(ids=RateLimit(2500, 60), default=RateLimit(250_000, 3600))
    new = Limits.new_workspace()
    assert (new.ids, new.ids_fast) == (RateLimit(250, 60), RateLimit(40, 1))


@pytest.mark.parametrize(
    ("limits", "fast", "pool"),
    [
        (Limits(), True, "ids"),
        (Limits(), False, "ids"),
        (Limits.new_workspace(), True, "ids_fast"),
        (Limits.new_workspace(), False, "ids"),
    ],
)
def test_the_shape_of_a_request_chooses_its_pool(limits: Limits, fast: bool, pool: str) -> None:
    assert limits.pool_of(EXPORT_IDS, fast=fast) == pool
    assert limits.pool_of(EXPORT_SEGMENT, fast=fast) == "default"


@given(waiting=st.integers(1, 120), pause=st.floats(1, 100), limit=st.integers(2, 40))
def test_a_closed_pool_saves_up_no_requests(waiting: int, pause: float, limit: int) -> None:
    async def main() -> list[float]:
        limiter = LocalLimiter(Limits(ids=RateLimit(limit, 10)))
        loop = asyncio.get_running_loop()
        left: list[float] = []

        async def one() -> None:
            await limiter.acquire("ids")
            left.append(loop.time())

        limiter.observe("ids", RateWindow(remaining=0, resets_in=pause), refused=True)
        await asyncio.gather(*(one() for _ in range(waiting)))
        return left

    assert busiest(virtual.run(main), 10 * (1 - 1e-6)) <= limit


def test_a_pool_that_closes_while_one_waits_for_its_token_keeps_it_waiting() -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits(ids=RateLimit(1, 10)))
        loop = asyncio.get_running_loop()
        await limiter.acquire("ids")
        began = loop.time()
        waiter = asyncio.create_task(limiter.acquire("ids"))
        await asyncio.sleep(1)
        limiter.observe("ids", RateWindow(remaining=0, resets_in=50), refused=True)
        await waiter
        return loop.time() - began

    assert virtual.run(main) >= 51
