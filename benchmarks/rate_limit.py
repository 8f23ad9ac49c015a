"""Requests against a limit: refusals, and the time against that of a perfect scheduler.

The perfect scheduler knows everything. Of N requests it sends what the first window has left at
once, and what each later window holds the moment it turns. With ``events`` the moments at which
requests become available, and how many, it is done at

    moment of the first event by which N requests were available
    + time that the requests sent from then on take without any limit

The latter is measured in the same run: same client, same number, no limit, one request ahead of
the others. For what others have left nobody can know before a first answer.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from aiolimiter import AsyncLimiter
from attrs import evolve, frozen

from benchmarks.chart import Bar, draw
from benchmarks.limited import LimitedServer, Report, Setting, limited
from benchmarks.processes import Share, a_redis, exporting
from benchmarks.table import Row, show
from braze_export import BrazeClient, Limits, RateLimit
from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.governor import LocalLimiter
from braze_export.limits import Lane, Limiter, PoolSnapshot

CHART = Path(__file__).with_suffix(".svg")
CONCURRENCY = 32
OPEN = Setting(10**8, 3600)


class _Free:
    """Lets everything through."""

    limits = Limits()

    async def start(self) -> None:
        """Nothing to start."""

    async def acquire(self, _pool: Pool, _lane: Lane) -> "_Free":
        return self

    def answered(self, _window: RateWindow, *, refused: bool = False) -> None:
        """Learn nothing."""

    def unanswered(self, *, sent: bool) -> None:
        """Learn nothing."""

    def snapshot(self) -> Mapping[Pool, PoolSnapshot]:
        return {}

    async def aclose(self) -> None:
        """Nothing to close."""


class _AsksFirst(_Free):
    """Lets everything through once the first answer is here."""

    def __init__(self) -> None:
        self._first = asyncio.Semaphore(1)

    async def acquire(self, _pool: Pool, _lane: Lane) -> "_AsksFirst":
        await self._first.acquire()
        return self

    def answered(self, _window: RateWindow, *, refused: bool = False) -> None:  # noqa: ARG002 - the protocol's
        for _ in range(CONCURRENCY):
            self._first.release()


class _Bucket(_Free):
    """What one writes by hand: a token bucket of the limit, and nothing learned."""

    def __init__(self, requests: float, period: float) -> None:
        self._bucket = AsyncLimiter(requests, period)

    async def acquire(self, _pool: Pool, _lane: Lane) -> "_Bucket":
        await self._bucket.acquire()
        return self


@frozen
class Scenario:
    """One row of the table.

    Attributes:
        name: says what happens.
        setting: of the server.
        multiple: requests, in limits.
        phase: share of the window that is over at the start.
        used: share of the window that others have used by then.
        change: seconds after the start, and the share of the limit that it changes to.
        slowest: times the perfect scheduler's time.
        refusals: share of the requests that may be refused; requests, where above one.
        limiter: made of the limits set.
    """

    name: str
    setting: Setting
    multiple: float = 4
    phase: float = 0.0
    used: float = 0.0
    change: tuple[float, float] | None = None
    slowest: float | None = 1.05
    refusals: float = 0.0
    limiter: Callable[[Limits], Limiter] = LocalLimiter

    @property
    def requests(self) -> int:
        """How many requests are to be made."""
        return int(self.multiple * self.setting.limit)


@frozen
class Outcome:
    """What came of a scenario."""

    scenario: Scenario
    seconds: float
    perfect: float
    report: Report

    @property
    def ratio(self) -> float:
        """Time against the perfect scheduler's."""
        return self.seconds / self.perfect

    def rows(self) -> list[Row]:
        """Return the figures, with their bounds."""
        scenario, setting = self.scenario, self.scenario.setting
        label = f"{scenario.name}, {scenario.requests} requests, {setting.limit}/{setting.period} s"
        allowed = scenario.refusals
        allowed = allowed if allowed >= 1 else allowed * scenario.requests
        bound = None if scenario.slowest is None else allowed
        rows = [
            Row(f"{label}: refused", self.report.refused, bound, "answers"),
            Row(f"{label}: {self.seconds:.2f} s of {self.perfect:.2f}", self.ratio,
                scenario.slowest, "times"),
        ]  # fmt: skip
        if not setting.headers:
            busiest = self.report.busiest(setting.period)
            rows.append(Row(f"{label}: busiest window", busiest, setting.limit, "requests"))
        return rows

    def bar(self) -> Bar:
        """Return it for the chart."""
        scenario, setting = self.scenario, self.scenario.setting
        return Bar(
            f"{scenario.name}, {scenario.requests} at {setting.limit}/{setting.period} s",
            self.ratio,
            self.report.refused,
            scenario.requests,
            scenario.slowest,
            all(row.kept for row in self.rows()),
        )


def perfect(
    events: Iterator[tuple[float, int]], requests: int, service: Callable[[int], float]
) -> float:
    """Return the perfect scheduler's time. See above for the formula."""
    available = 0
    for moment, more in events:
        if available + more >= requests:
            return moment + service(requests - available)
        available += more
    raise AssertionError("the windows never end")


def windows(scenario: Scenario, began: float, report: Report) -> Iterator[tuple[float, int]]:
    """Yield when requests become available after the start, and how many."""
    setting = scenario.setting
    limit, at = setting.limit, began
    number = int(began // setting.period)
    taken = int(limit * scenario.used)
    for window in count(number):
        turn = (window + 1) * setting.period
        yield at - began, max(0, limit - taken - report.others.get(window, 0))
        if scenario.change and at <= began + scenario.change[0] < turn:
            changed = int(setting.limit * scenario.change[1])
            if changed > limit:
                yield scenario.change[0], changed - limit
            limit = changed
        at, taken = turn, 0


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
        return asyncio.run(export(self._server, _AsksFirst(), requests))


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
        asyncio.run(export(server, _Free(), min(20, setting.limit)))  # warms it up
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
             limiter=lambda _: _Bucket(250, 6)),
    Scenario("by hand: even pacing", USUAL, slowest=None, limiter=lambda _: _Bucket(1, 6 / 250)),
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
