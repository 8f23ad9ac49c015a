import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from attrs import asdict, evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from braze_export import Limits, RateLimit
from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.limiting.governor import LocalLimiter
from braze_export.limiting.limits import Lane, Permit, PoolSnapshot
from tests import virtual
from tests.simulated import Server, asking_first, busiest, company, perfect, timed, work


def of(limit: int, period: float, *, reserve: float = 0.0) -> LocalLimiter:
    return LocalLimiter(Limits(ids=RateLimit(limit, period), reserve=reserve))


def now() -> float:
    """Seconds since the test began."""
    return asyncio.get_running_loop().time() - 1000


def told(remaining: int | None, resets_in: float | None = 60.0, **more: Any) -> RateWindow:
    """What an answer says whose server's clock is ours, to the millisecond."""
    reset = None if resets_in is None else 1000 + resets_in
    return RateWindow(remaining=remaining, reset=reset, clock=1000 + now(), **more)


def take(limiter: LocalLimiter, lane: Lane = "bulk", pool: Pool = "ids") -> asyncio.Task[Permit]:
    return asyncio.create_task(limiter.acquire(pool, lane))


async def known(limiter: LocalLimiter, remaining: int, **more: Any) -> None:
    """Let it ask, and tell it so."""
    (await take(limiter)).answered(told(remaining, **more))


async def moment() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


def alarms() -> int:
    """How many timers and other tasks there are."""
    loop: Any = asyncio.get_running_loop()
    timers = sum(not handle.cancelled() for handle in loop._scheduled)
    return timers + len(asyncio.all_tasks()) - 1


# One user of the workspace, whatever the setting ------------------------------------------------


@frozen
class Setting:
    """A server, and a job. Shares are of the limit, or of the window."""

    limit: int
    period: int
    phase: float
    skew: float
    latency: tuple[float, float]
    concurrency: int
    multiple: float
    used: float
    seed: int

    @property
    def requests(self) -> int:
        return max(1, int(self.limit * self.multiple))

    @property
    def used_up(self) -> int:
        return int(self.limit * self.used)

    def server(self, **more: Any) -> Server:
        dice = random.Random(self.seed)
        return Server(self.limit, self.period, self.skew, self.latency, dice=dice, **more)

    def play(self, server: Server, limiter: LocalLimiter) -> float:
        async def main() -> None:
            server.turn()
            server.used = self.used_up
            await work(limiter, server, self.requests, concurrency=self.concurrency)

        return timed(server, main, phase=self.phase * self.period)


latencies = st.tuples(
    st.floats(0, 0.3) | st.sampled_from([0.0, 0.001, 0.02]), st.just(0.0) | st.floats(0, 0.3)
).map(lambda two: (two[0], two[0] + two[1]))
settings = st.builds(
    Setting,
    limit=st.integers(1, 60),
    period=st.integers(1, 60) | st.integers(1, 3),
    phase=st.floats(0, 0.9999),
    skew=st.just(0.0) | st.floats(-100, 100),
    latency=latencies,
    concurrency=st.integers(1, 64),
    multiple=st.floats(0.3, 4) | st.sampled_from([1.0, 2.0, 4.0]),
    used=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
    seed=st.integers(0, 2**32),
)


@given(settings)
def test_no_request_is_refused_but_one_that_asks_where_nothing_is_left(setting: Setting) -> None:
    server = setting.server()
    setting.play(server, of(setting.limit, setting.period))
    assert len(server.served) == setting.requests
    assert server.refused <= (setting.used_up == setting.limit)


@given(settings)
def test_it_takes_a_second_longer_than_who_knows_the_server_and_three_round_trips(
    setting: Setting,
) -> None:
    server = setting.server()
    seconds = setting.play(server, of(setting.limit, setting.period))
    best = asking_first(
        setting.requests,
        server,
        concurrency=setting.concurrency,
        phase=setting.phase * setting.period,
        used=setting.used_up,
        lost=min(8, setting.limit // 4),
    )
    round_trip = 2 * setting.latency[1] + 0.005
    assert seconds <= best + 1 + 3 * round_trip


@given(settings, st.floats(0, 0.99))
def test_no_window_sees_more_of_ours_than_our_share(setting: Setting, reserve: float) -> None:
    server = setting.server()
    setting.play(server, of(setting.limit, setting.period, reserve=reserve))
    windows = Counter(math.floor((t + server.skew) / server.period) for t in server.served)
    assert max(windows.values()) <= max(1, math.floor((1 - reserve) * setting.limit))
    assert len(server.served) == setting.requests


@pytest.mark.parametrize("phase", [0.0, 0.3, 0.71])
@pytest.mark.parametrize(("limit", "period", "late"), [(250, 6, 0.05), (25, 6, 0.3), (40, 1, 1.0)])
@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_a_job_takes_little_longer_than_a_perfect_scheduler(
    limit: int, period: int, late: float, multiple: int, phase: float
) -> None:
    server, limiter = Server(limit, period), of(limit, period)
    seconds = timed(server, lambda: work(limiter, server, multiple * limit), phase=phase * period)
    service = limit / 32 * 0.008
    assert seconds <= perfect(multiple * limit, server, phase=phase * period) + service + late
    assert server.refused == 0


@given(settings.map(lambda s: evolve(s, used=0.0)), st.sampled_from([0.1, 1.0, 5.0]))
def test_requests_that_are_lost_cost_no_more_refusals_than_they_are(
    setting: Setting, timeout: float
) -> None:
    server, limiter = setting.server(), of(setting.limit, setting.period)
    left, lost = iter(range(setting.requests)), 0

    async def send() -> bool:
        nonlocal lost
        permit = await limiter.acquire("ids", "bulk")
        if server.dice.random() > 0.1:
            window, refused = await server.ask()
            permit.answered(window, refused=refused)
            return not refused
        lost += 1
        await asyncio.sleep(server.dice.uniform(*setting.latency))
        if server.dice.random() > 0.5:  # the answer is lost, not the request
            server.take()
        await asyncio.sleep(timeout)
        permit.unanswered(sent=True)
        return False

    async def worker() -> None:
        for _ in left:
            while not await send():
                pass

    async def main() -> None:
        await asyncio.gather(*(worker() for _ in range(setting.concurrency)))

    timed(server, main, phase=setting.phase * setting.period)
    assert len(server.served) == setting.requests
    assert server.refused <= lost


# Those who stop waiting ---------------------------------------------------------------------------


async def impatient(limiter: LocalLimiter, server: Server, lane: Lane) -> None:
    permit = await limiter.acquire("ids", lane)
    try:
        window, refused = await server.ask()
    except asyncio.CancelledError:
        permit.unanswered(sent=True)
        raise
    permit.answered(window, refused=refused)


cancellations = st.lists(
    st.tuples(st.floats(0, 8), st.floats(0, 8), st.sampled_from(["bulk", "interactive"])),
    min_size=1,
    max_size=60,
)


@given(limit=st.integers(1, 20), headers=st.booleans(), people=cancellations)
def test_whoever_is_cancelled_takes_nothing_along(
    limit: int, headers: bool, people: list[tuple[float, float, Lane]]
) -> None:
    server = Server(limit, 2, latency=(0.01, 0.1), headers=headers)
    limiter = of(limit, 2)

    async def person(comes: float, stays: float, lane: Lane) -> None:
        await asyncio.sleep(comes)
        try:
            async with asyncio.timeout(stays):
                await impatient(limiter, server, lane)
        except TimeoutError:
            pass

    async def main() -> tuple[PoolSnapshot, int, float]:
        await asyncio.gather(*(person(*who) for who in people))
        snapshot, left = limiter.snapshot()["ids"], alarms()
        server.headers = True
        await work(limiter, server, 1)
        await asyncio.sleep(10.01 - server.now() % 2)  # just after a turn
        began = now()
        await work(limiter, server, limit)
        return snapshot, left, now() - began

    snapshot, left, seconds = virtual.run(main)
    assert (snapshot.waiting, snapshot.in_flight, left) == (0, 0, 0)
    assert seconds < 1.9  # the whole limit, in one window


def test_a_turn_that_came_as_its_owner_was_cancelled_is_somebody_else_s() -> None:
    async def main() -> tuple[float, int]:
        limiter = of(10, 60)
        asking, first, second = take(limiter), take(limiter), take(limiter)
        permit = await asking
        permit.answered(told(1))  # one more may go, and it is the first's turn
        first.cancel()
        await second
        return now(), limiter.snapshot()["ids"].in_flight

    assert virtual.run(main) == pytest.approx((0, 1), abs=1e-3)


def test_an_answer_in_the_moment_that_the_only_one_who_waits_is_cancelled_is_taken_in() -> None:
    async def main() -> PoolSnapshot:
        limiter = of(10, 60)
        asking, waiting = take(limiter), take(limiter)
        permit = await asking
        waiting.cancel()
        permit.answered(told(9))
        await moment()
        return limiter.snapshot()["ids"]

    snapshot = virtual.run(main)
    assert (snapshot.waiting, snapshot.in_flight, snapshot.remaining) == (0, 0, 9)


def test_a_drop_in_the_moment_that_the_only_one_who_waits_is_cancelled_hurts_nobody() -> None:
    async def main() -> tuple[list[Any], int]:
        trouble: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: trouble.append(what))
        limiter = of(1, 10)
        (await take(limiter)).answered(RateWindow())
        (await take(limiter)).answered(RateWindow())
        waiting = take(limiter)
        loop = asyncio.get_running_loop()
        await moment()
        gate: Any = limiter._gates["ids"]
        drop = min(handle.when() for handle in loop._scheduled)  # type: ignore[attr-defined]
        loop.call_at(drop, waiting.cancel)
        await asyncio.wait([waiting])
        await moment()
        assert gate._alarm is None
        return trouble, alarms()

    assert virtual.run(main) == ([], 0)


@pytest.mark.parametrize("fate", ["unanswered", "lost", "cancelled"])
def test_one_who_asked_and_got_no_answer_lets_the_next_one_ask(fate: str) -> None:
    async def main() -> float:
        limiter = of(10, 60)
        first, second = take(limiter), take(limiter)
        await moment()
        assert (first.done(), second.done()) == (True, False)
        if fate == "cancelled":
            third = take(limiter)
            second.cancel()
            second = third
        (await first).unanswered(sent=fate != "unanswered")
        await second
        return now()

    assert virtual.run(main) == pytest.approx(0, abs=1e-3)


def test_one_who_asks_and_waits_for_ever_is_joined_after_two_seconds() -> None:
    async def main() -> float:
        limiter = of(10, 60)
        await asyncio.gather(take(limiter), take(limiter))
        return now()

    assert virtual.run(main) == pytest.approx(2)


# Who is next --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", ["bulk", "interactive"])
@pytest.mark.parametrize("headers", [True, False])
def test_first_come_first_served(lane: Lane, headers: bool) -> None:
    server, limiter = Server(5, 1, headers=headers), of(5, 1)

    async def main() -> list[int]:
        order: list[int] = []

        async def one(number: int) -> None:
            permit = await limiter.acquire("ids", lane)
            order.append(number)
            window, refused = await server.ask()
            permit.answered(window, refused=refused)

        await asyncio.gather(*(one(number) for number in range(30)))
        return order

    assert virtual.run(main) == list(range(30))


@pytest.mark.parametrize("headers", [True, False])
def test_an_interactive_call_waits_for_no_queue_of_bulk_work(headers: bool) -> None:
    server, limiter = Server(10, 1, headers=headers), of(10, 1)

    async def main() -> list[float]:
        job = asyncio.create_task(work(limiter, server, 200, concurrency=50))
        waits = []
        for _ in range(10):
            await asyncio.sleep(0.77)
            began = now()
            await work(limiter, server, 1, lane="interactive")
            waits.append(now() - began)
        job.cancel()
        return waits

    assert max(virtual.run(main)) < 1.1  # the window's rest, where nothing was left


def test_an_interactive_call_waits_for_no_bulk_work_that_is_held_back() -> None:
    """The last requests of a window are kept, to be sent when a second of the server turns."""

    async def main() -> tuple[bool, bool]:
        limiter = of(40, 60)
        window = RateWindow(remaining=8, reset=1060.0, clock=1000.0, dated=True)
        (await take(limiter)).answered(window)
        bulk = [take(limiter) for _ in range(20)]
        await moment()
        held = limiter.snapshot()["ids"].remaining
        call = take(limiter, "interactive")
        await moment()
        passed = call.done()
        for task in bulk:
            task.cancel()
        await moment()
        return bool(held), passed

    assert virtual.run(main) == (True, True)


def test_bulk_work_has_every_fourth_request_however_many_interactive_calls_there_are() -> None:
    server, limiter = Server(20, 1), of(20, 1)

    async def main() -> int:
        job = asyncio.create_task(work(limiter, server, 1000, concurrency=10))
        await asyncio.sleep(0.5)
        bulk = limiter.snapshot()["ids"].sent
        await work(limiter, server, 150, concurrency=50, lane="interactive")
        job.cancel()
        return limiter.snapshot()["ids"].sent - 150 - bulk

    assert 45 <= virtual.run(main) <= 75


def test_pools_do_not_wait_for_each_other() -> None:
    async def main() -> float:
        limiter = LocalLimiter(Limits())
        (await take(limiter)).answered(told(0), refused=True)
        waiting = take(limiter)
        (await take(limiter, pool="default")).answered(told(9))
        await asyncio.gather(*(take(limiter, pool="default") for _ in range(9)))
        assert not waiting.done()
        return now()

    assert virtual.run(main) < 1e-3


# A server that says nothing of its limit ----------------------------------------------------------


@given(
    setting=settings.map(lambda s: evolve(s, used=0.0)),
    share=st.floats(0, 0.9),
)
def test_without_headers_no_period_sees_more_than_our_share(setting: Setting, share: float) -> None:
    server = setting.server(headers=False)
    setting.play(server, of(setting.limit, setting.period, reserve=share))
    jitter = setting.latency[1] - setting.latency[0]
    allowed = max(1, int((1 - share) * setting.limit))
    assert busiest(server.served, setting.period - jitter) <= allowed
    assert len(server.served) == setting.requests


@pytest.mark.parametrize(("limit", "period"), [(40, 1), (40, 6), (250, 6)])
def test_without_headers_a_job_takes_not_half_as_long_again(limit: int, period: int) -> None:
    server, limiter = Server(limit, period, headers=False), of(limit, period)
    seconds = timed(server, lambda: work(limiter, server, 4 * limit))
    assert seconds <= 1.45 * perfect(4 * limit, server, phase=0.0)
    assert busiest(server.served, period) <= limit
    assert server.refused == 0


@given(
    setting=settings.map(lambda s: evolve(s, used=0.0)),
    silences=st.lists(st.floats(0.01, 3), min_size=1, max_size=10),
)
def test_headers_may_come_and_go(setting: Setting, silences: list[float]) -> None:
    server, limiter = setting.server(), of(setting.limit, setting.period)

    async def flicker() -> None:
        for seconds in silences * 200:
            await asyncio.sleep(seconds)
            server.headers = not server.headers

    async def main() -> None:
        flickering = asyncio.create_task(flicker())
        await work(limiter, server, setting.requests, concurrency=setting.concurrency)
        flickering.cancel()

    timed(server, main, phase=setting.phase * setting.period)
    assert len(server.served) == setting.requests
    assert server.refused <= 1 + setting.limit // 5


def test_what_went_before_the_silence_is_taken_off() -> None:
    """A window opens with the whole limit, and its answers turn out to say nothing."""
    server, limiter = Server(40, 6), of(40, 6)

    async def main() -> None:
        await work(limiter, server, 40)
        server.headers = False
        await work(limiter, server, 60)

    timed(server, main)
    assert server.refused == 0
    assert busiest(server.served[40:], 6) <= 40


def test_without_headers_one_in_twenty_of_the_limit_may_leave_at_once() -> None:
    async def main() -> int:
        limiter = of(380, 60)
        (await take(limiter)).answered(RateWindow())
        await asyncio.sleep(60)
        waiting = [take(limiter) for _ in range(40)]
        await asyncio.sleep(0.01)
        at_once = sum(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        return at_once

    assert virtual.run(main) == 19


def test_without_headers_requests_go_on_though_answers_are_slow() -> None:
    async def main() -> float:
        limiter = of(100, 60)
        (await take(limiter)).answered(RateWindow())
        began = now()
        await asyncio.gather(*(take(limiter) for _ in range(95)))  # none of them is answered
        return now() - began

    assert 30 < virtual.run(main) < 61


def test_headers_that_come_back_let_everybody_go_at_once() -> None:
    async def main() -> float:
        limiter = of(2, 1000)
        first = await take(limiter)
        first.answered(RateWindow())
        late = await take(limiter)
        waiting = [take(limiter) for _ in range(10)]
        await asyncio.sleep(1)
        began = now()
        late.answered(told(50, now() + 60, limit=100))
        await asyncio.gather(*waiting)
        return now() - began

    assert virtual.run(main) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(("resets_in", "pause"), [(100.0, 100.0), (None, 1.0)])
def test_a_refusal_is_heeded_where_the_server_is_silent_otherwise(
    resets_in: float | None, pause: float
) -> None:
    async def main() -> float:
        limiter = of(10, 10)
        (await take(limiter)).answered(RateWindow())
        waiting = take(limiter)
        permit = await waiting
        others = [take(limiter) for _ in range(3)]
        await moment()
        began = now()
        permit.answered(told(None, resets_in and began + resets_in), refused=True)
        await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        return now() - began

    assert virtual.run(main) == pytest.approx(pause, abs=0.02)


# Others in the workspace --------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [True, False])
def test_others_who_take_half_of_every_window_cost_few_refusals(at_once: bool) -> None:
    refused = []
    for seed in range(21):
        dice = random.Random(seed)
        server, limiter = Server(250, 6, dice=dice), of(250, 6)

        async def main(server: Server = server, limiter: LocalLimiter = limiter) -> None:
            others = asyncio.create_task(company(server, 0.5, at_once=at_once))
            await asyncio.sleep(0)
            await work(limiter, server, 1000)
            others.cancel()

        seconds = timed(server, main, phase=dice.uniform(0, 6))
        assert len(server.served) == 1000
        assert seconds <= 8 * 6
        refused.append(server.refused)
    assert max(refused) <= 0.01 * 1000


@given(
    limit=st.integers(1, 60),
    share=st.floats(0, 0.9),
    at_once=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_others_never_keep_a_job_from_its_end(
    limit: int, share: float, at_once: bool, seed: int
) -> None:
    dice = random.Random(seed)
    server, limiter = Server(limit, 2, dice=dice), of(limit, 2)

    async def main() -> None:
        others = asyncio.create_task(company(server, share, at_once=at_once))
        await work(limiter, server, 2 * limit)
        others.cancel()

    seconds = timed(server, main, phase=dice.uniform(0, 2))
    windows = math.ceil(2 * limit / (limit - int(limit * share)))
    assert seconds <= (windows + 2) * 2
    assert len(server.served) == 2 * limit


@pytest.mark.parametrize("change", [0.5, 2.0, 0.1, 10.0])
@pytest.mark.parametrize("at", [0.01, 3.0, 6.5, 8.0])
def test_a_limit_that_changes_costs_those_under_way_at_most(
    change: float, at: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "braze_export")
    server, limiter = Server(250, 6), of(250, 6)

    async def main() -> None:
        job = asyncio.create_task(work(limiter, server, 1000))
        await asyncio.sleep(at)
        server.limit = int(250 * change)
        await job

    timed(server, main)
    assert server.refused <= 32
    assert len(server.served) == 1000
    (record,) = caplog.records
    assert record.getMessage() == (
        f"rate limit of ids: the server allows {int(250 * change)} requests per window; "
        "its word counts"
    )


def test_a_limit_that_goes_up_and_down_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "braze_export")

    async def main() -> None:
        limiter = of(100, 60)
        for limit in (100, 80, 100, 80, 120):
            await known(limiter, 70, limit=limit)

    virtual.run(main)
    assert [record.args for record in caplog.records] == [("ids", 80), ("ids", 120)]


@pytest.mark.parametrize(("limit", "period"), [(1, 6), (10, 600), (5000, 6), (200, 1)])
def test_the_server_s_word_counts_whatever_was_set(limit: int, period: float) -> None:
    server, limiter = Server(100, 6), of(limit, period)
    seconds = timed(server, lambda: work(limiter, server, 300))
    assert seconds <= perfect(300, server, phase=0.0) + 0.2
    assert server.refused == 0
    assert virtual.run(_snapshot(limiter)).limit == 100


def _snapshot(limiter: LocalLimiter) -> Callable[[], Coroutine[Any, Any, PoolSnapshot]]:
    async def main() -> PoolSnapshot:
        return limiter.snapshot()["ids"]

    return main


@pytest.mark.parametrize(
    ("resets_in", "most"),
    [(10.0, 7), (None, 7), (3600.0, 1)],
)
def test_a_server_that_refuses_for_ever_is_asked_less_and_less(
    resets_in: float | None, most: int
) -> None:
    async def main() -> int:
        limiter = of(100, 60)
        asked = 0

        async def worker() -> None:
            nonlocal asked
            while True:
                permit = await limiter.acquire("ids", "bulk")
                asked += 1
                await asyncio.sleep(0.01)
                permit.answered(told(0, resets_in and now() + resets_in), refused=True)

        workers = [asyncio.create_task(worker()) for _ in range(32)]
        await asyncio.sleep(60)
        for each in workers:
            each.cancel()
        return asked

    assert virtual.run(main) <= most


# What is shown ------------------------------------------------------------------------------------


def shown(limiter: LocalLimiter) -> dict[str, Any]:
    return asdict(limiter.snapshot()["ids"])


def test_a_snapshot_shows_how_a_pool_stands() -> None:
    async def main() -> None:
        limiter = of(100, 60, reserve=0.1)

        def check(**expected: Any) -> None:
            found = shown(limiter)
            assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.02)

        check(limit=100, waiting=0, in_flight=0, sent=0, refused=0, seconds_waited=0)
        assert (shown(limiter)["remaining"], shown(limiter)["resets_in"]) == (None, None)
        first, second, third = (take(limiter) for _ in range(3))
        await moment()
        check(waiting=2, in_flight=1, sent=1, seconds_waited=0)
        await asyncio.sleep(1)
        check(waiting=2, in_flight=1, sent=1, seconds_waited=2)
        (await first).answered(told(70, 60, limit=80))
        check(limit=80, in_flight=2, remaining=68, resets_in=59, seconds_waited=2)
        await moment()
        check(limit=80, waiting=0, in_flight=2, sent=3, seconds_waited=2)
        (await second).answered(told(0), refused=True)
        check(remaining=0, in_flight=1, refused=1, resets_in=59)
        (await third).unanswered(sent=True)
        fourth = take(limiter)
        await asyncio.sleep(9)
        check(waiting=1, in_flight=0, sent=3, resets_in=50, seconds_waited=11)
        fourth.cancel()
        await moment()
        check(waiting=0, in_flight=0, sent=3, seconds_waited=11)

    virtual.run(main)


def test_the_seconds_waited_never_become_fewer() -> None:
    async def main() -> list[float]:
        limiter = of(3, 60)
        waiting = [take(limiter) for _ in range(3)]
        await asyncio.sleep(1)
        waited = [shown(limiter)["seconds_waited"]]
        (await waiting[0]).answered(told(2))
        for _ in range(5):
            waited.append(shown(limiter)["seconds_waited"])
            await asyncio.sleep(0)
        return waited

    waited = virtual.run(main)
    assert waited == pytest.approx([2] * 6)


def test_of_a_window_that_is_over_nothing_is_shown() -> None:
    async def main() -> list[Any]:
        limiter = of(100, 60)
        await known(limiter, 70)
        before = shown(limiter)
        await asyncio.sleep(60.1)
        after = shown(limiter)
        return [before["remaining"], after["remaining"], after["resets_in"]]

    assert virtual.run(main) == [70, None, None]


def test_every_pool_is_shown() -> None:
    async def main() -> set[Pool]:
        return set(LocalLimiter(Limits.new_workspace()).snapshot())

    assert virtual.run(main) == Limits.new_workspace().by_pool().keys()


# Closing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [True, False])
def test_an_alarm_is_set_only_while_somebody_waits(headers: bool) -> None:
    async def main() -> list[int]:
        limiter = of(2, 60)
        window = told(1) if headers else RateWindow()
        asking = await take(limiter)
        assert alarms() == 0  # it need not be joined by one more
        asking.answered(window)
        set_ = [alarms()]
        waiting = [take(limiter) for _ in range(4)]
        await asyncio.sleep(1)
        set_.append(alarms() - sum(not task.done() for task in waiting))
        await limiter.aclose()
        for task in waiting:
            task.cancel()
        await moment()
        return [*set_, alarms()]

    before, during, after = virtual.run(main)
    assert during > 0
    assert before == after == 0


def test_another_client_that_waits_goes_on_when_one_is_closed() -> None:
    async def main() -> float:
        limiter = of(10, 60)
        await limiter.start()
        await limiter.start()
        (await take(limiter)).answered(told(0, 30.0))
        waiting = take(limiter)
        await moment()
        await limiter.aclose()
        await waiting
        return now()

    assert virtual.run(main) == pytest.approx(30, abs=0.01)


def test_it_goes_on_in_another_event_loop_after_one_that_is_closed() -> None:
    limiter = of(2, 10)

    async def one() -> None:
        (await take(limiter)).answered(RateWindow())

    for _ in range(3):  # where the server is silent, there is a bucket, which is for one loop
        virtual.run(one)


def test_it_is_made_without_an_event_loop_and_tells_what_was_set() -> None:
    limits = Limits(ids=RateLimit(1, 1))
    assert LocalLimiter(limits).limits is limits
