"""Requests against a limit: refusals, and the time against that of a perfect scheduler.

What such a scheduler needs without any limit is measured in the same run: same client, same
number, one request ahead of the others.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median
from typing import Any

from attrs import evolve

from benchmarks.chart import draw
from benchmarks.limited import LimitedServer, Setting, limited
from benchmarks.limiters import AsksFirst, Bucket, Free
from benchmarks.processes import Share, a_redis, exporting
from benchmarks.scenarios import Outcome, Scenario, perfect, windows
from benchmarks.table import Row, show
from braze_export import BrazeClient, Limits, RateLimit
from braze_export.answers import RateWindow
from braze_export.limiting.governor import LocalLimiter
from braze_export.limiting.limits import Limiter

CHART = Path(__file__).with_suffix(".svg")
CONCURRENCY = 32
OPEN = Setting(10**8, 3600)


async def export(server: LimitedServer, limiter: Limiter, requests: int) -> float:
    """Make so many requests; return the seconds that they took."""
    ids = (f"u{number}" for number in range(1, 50 * requests + 1))
    async with BrazeClient(server.api_key, server.url, limits=limiter) as braze:
        export = braze.users.export_ids(
            ids, fields=["external_id"], into=bytes, concurrency=CONCURRENCY
        )
        began = time.perf_counter()
        answered = len([1 async for _ in export])
        seconds = time.perf_counter() - began
    assert answered == 50 * requests, f"{answered} of {50 * requests}"
    return seconds


class Service:
    """How long requests take where there is no limit, measured once for each number."""

    def __init__(self, server: LimitedServer) -> None:
        self._server = server
        self._known: dict[int, float] = {}

    def __call__(self, requests: int) -> float:
        if requests not in self._known:
            self._known[requests] = median(self._measured(requests) for _ in range(5))
        return self._known[requests]

    def _measured(self, requests: int) -> float:
        time.sleep(2)  # a process that has rested is slower, and the other side rests as well
        return asyncio.run(export(self._server, AsksFirst(CONCURRENCY), requests))


def wait_for_phase(server: LimitedServer, phase: float) -> None:
    """Sleep until a share of a window is over, and a little more, lest it has not begun."""
    period = server.setting.period
    time.sleep((phase * period - server.now()) % period + 0.003)


async def changed(server: LimitedServer, change: tuple[float, float] | None) -> None:
    """Change the limit under way."""
    if change is not None:
        await asyncio.sleep(change[0])
        limit = int(server.setting.limit * change[1])
        await asyncio.to_thread(lambda: server.say(do="change", limit=limit))


async def under_way(server: LimitedServer, scenario: Scenario) -> float:
    """Export as the scenario says."""
    setting = server.setting
    limits = Limits(ids=RateLimit(setting.limit, setting.period))
    change = asyncio.create_task(changed(server, scenario.change))
    seconds = await export(server, scenario.limiter(limits), scenario.requests)
    await change
    return seconds


def play(scenario: Scenario, service: Service) -> Outcome:
    """Measure one scenario: what fits into a window five times, of which the median counts."""
    setting = scenario.setting
    seconds = []
    with limited(setting) as server:
        asyncio.run(export(server, Free(), min(20, setting.limit)))  # warms it up
        time.sleep(setting.period)
        server.say(do="forget")
        for _ in range(5 if scenario.multiple <= 1 else 1):
            wait_for_phase(server, scenario.phase)
            if scenario.used:
                server.say(do="use", requests=int(setting.limit * scenario.used))
            began = server.now()
            seconds.append(asyncio.run(under_way(server, scenario)))
        report = server.report()
    events = windows(scenario, began, report)
    best = perfect(events, scenario.requests, service)
    return Outcome(scenario, median(seconds), best, report)


def play_together(scenario: Scenario, service: Service, redis: str | None) -> Outcome:
    """Measure eight processes that share the scenario's requests."""
    setting = scenario.setting
    each = scenario.requests // 8
    with limited(setting) as server:
        shares = [
            Share(server.url, server.api_key, setting.limit, setting.period,
                  1 + 50 * each * number, each, redis)
            for number in range(8)
        ]  # fmt: skip
        began, ended = exporting(shares)
        report = server.report()
    events = windows(scenario, began, report)
    return Outcome(scenario, ended - began, perfect(events, 8 * each, service), report)


SCALES = [Setting(250, 6), Setting(25, 6), Setting(40, 1)]
USUAL = SCALES[0]
SCENARIOS = [
    *(
        Scenario("fresh window", setting, multiple=multiple)
        for setting in SCALES
        for multiple in (0.5, 1, 2, 4)
    ),
    *(
        Scenario("window half used by others", setting, multiple=2, phase=phase, used=0.5)
        for setting, phase in ((USUAL, 0.5), (USUAL, 0.31), (SCALES[1], 0.43))
    ),
    Scenario("the server's clock 90 s ahead", evolve(USUAL, skew=90.4), multiple=2, phase=0.3),
    Scenario("the server's clock 90 s behind", evolve(USUAL, skew=-90.4), multiple=2, phase=0.3),
    Scenario("limit halved under way", USUAL, change=(7.0, 0.5), slowest=1.1, refusals=32),
    Scenario("limit doubled under way", USUAL, multiple=6, change=(7.0, 2.0), slowest=1.1,
             refusals=32),
    Scenario("no rate headers", evolve(USUAL, headers=False), slowest=1.45),
    Scenario("no rate headers", Setting(40, 1, headers=False), slowest=1.45),
    *(
        Scenario(f"others take half, {how}", evolve(setting, others=0.5, manner=manner),
                 slowest=1.1, refusals=0.02)
        for setting in (USUAL, SCALES[2])
        for how, manner in (("at once", "burst"), ("evenly", "even"))
    ),
    Scenario("by hand: AsyncLimiter(250, 6)", USUAL, slowest=None,
             limiter=lambda _: Bucket(250, 6)),
    Scenario("by hand: even pacing", USUAL, slowest=None, limiter=lambda _: Bucket(1, 6 / 250)),
]  # fmt: skip


def cost() -> list[Row]:
    """Measure the governor's own processor time per request."""
    free = min(asyncio.run(_own_time(10**9)) for _ in range(3))
    full = min(asyncio.run(_own_time(8)) for _ in range(3))
    what = "governor's processor time per request"
    return [
        Row(f"{what}, nobody has to wait", free, 20, "us"),
        Row(f"{what}, 24 of 32 always wait", full, 20, "us"),
    ]


async def _own_time(left: int) -> float:
    """Return the microseconds for each request of 32 workers of which so many fit at once."""
    requests, reset = 50_000, time.time() + 3600
    limiter = LocalLimiter(Limits(ids=RateLimit(10**9, 3600)))

    under_way = 0

    async def governed(_number: int) -> None:
        nonlocal under_way
        permit = await limiter.acquire("ids", "bulk")
        under_way += 1
        await asyncio.sleep(0)
        remaining = left + under_way - 1  # so that always so many fit
        under_way -= 1
        told = RateWindow(10**9, remaining, reset, clock=time.time())
        permit.answered(told)

    async def idle(_number: int) -> None:
        await asyncio.sleep(0)

    async def timed(work: Callable[[int], Coroutine[Any, Any, None]]) -> float:
        numbers = iter(range(requests))

        async def worker() -> None:
            for number in numbers:
                await work(number)

        began = time.process_time()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        return time.process_time() - began

    return 1e6 * (await timed(governed) - await timed(idle)) / requests


def measure() -> list[Row]:
    """Play all scenarios, and draw the chart."""
    outcomes = []
    with limited(OPEN) as free:
        service = Service(free)
        for scenario in SCENARIOS:
            outcomes.append(play(scenario, service))
            _tell(outcomes[-1])
        with a_redis() as redis:
            together = [
                ("8 processes, one Redis", redis, 1.1),
                ("8 processes, no Redis", None, None),
            ]
            for name, url, bound in together if redis else together[1:]:
                scenario = Scenario(name, USUAL, slowest=bound)
                outcomes.append(play_together(scenario, service, url))
                _tell(outcomes[-1])
    draw([outcome.bar() for outcome in outcomes], CHART)
    return [row for outcome in outcomes for row in outcome.rows()] + cost()


def _tell(outcome: Outcome) -> None:
    scenario, setting = outcome.scenario, outcome.scenario.setting
    print(
        f"  {scenario.name}, {scenario.requests} at {setting.limit}/{setting.period} s: "
        f"{outcome.ratio:.3f} times, {outcome.report.refused} refused",
        flush=True,
    )


if __name__ == "__main__":
    show(measure())
