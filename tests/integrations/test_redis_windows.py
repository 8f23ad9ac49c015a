"""The rules of the shared limit, in virtual time: the script runs on a real Redis."""

import asyncio
import random
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve

from braze_export.answers import RateWindow
from braze_export.integrations.redis import RedisLimits
from braze_export.limiting.limits import Permit
from tests import virtual
from tests.integrations.virtual_redis import EPOCH, World, limiter
from tests.simulated import Server, perfect, work


def serving(limit: int = 10, period: int = 60, **options: Any) -> Server:
    return Server(limit, period, skew=EPOCH + options.pop("skew", 0.37), **options)


async def phase(server: Server, seconds: float) -> None:
    """Sleep until so long after a window began."""
    await asyncio.sleep((seconds - server.now()) % server.period)


async def together(
    world: World, server: Server, processes: int, requests: int, **options: Any
) -> float:
    """Have processes send so many requests; return the seconds that it took."""
    concurrency = options.pop("concurrency", 32)
    limits = [limiter(world, server.limit, server.period, **options) for _ in range(processes)]
    began = asyncio.get_running_loop().time()
    each = requests // processes
    await asyncio.gather(*(work(one, server, each, concurrency=concurrency) for one in limits))
    took = asyncio.get_running_loop().time() - began
    for one in limits:
        await one.aclose()
    assert [record for record in world.state() if record.startswith("p:")] == []
    return took


async def quietly(limits: RedisLimits, seconds: float) -> bool:
    """Say whether nothing is granted for so long."""
    try:
        async with asyncio.timeout(seconds):
            await limits.acquire("ids", "bulk")
    except TimeoutError:
        return True
    return False


def told(server: Server, remaining: int, *, windows: int = 0) -> RateWindow:
    """What an answer says at this moment."""
    reset = (server.now() // server.period + 1 + windows) * server.period
    return RateWindow(server.limit, remaining, reset, clock=server.now(), dated=False)


def busiest(times: list[float], period: float) -> int:
    """The most requests in any window of the period, wherever it begins."""
    return max(sum(start <= t < start + period - 1e-6 for t in times) for start in times)


@pytest.mark.parametrize(
    ("server", "at", "longest"),
    [
        (serving(250, 60, latency=(0.05, 0.15)), 0.3, 1.02),
        (serving(250, 6, latency=(0.002, 0.01)), 3.0, 1.05),
        (serving(250, 6, latency=(0.01, 0.03)), 5.2, 1.1),
        # The same in small is the first one.
        pytest.param(serving(1000, 60, latency=(0.05, 0.15)), 20.0, 1.04, marks=pytest.mark.slow),
    ],
)
def test_eight_processes_lose_next_to_nothing_against_a_perfect_one(
    world: World, server: Server, at: float, longest: float
) -> None:
    requests = server.limit * 3 // 8 * 8

    async def main() -> float:
        await phase(server, at)
        return await together(world, server, 8, requests)

    took = virtual.run(main)

    assert (server.refused, len(server.served)) == (0, requests)
    assert took <= longest * perfect(requests, server, phase=at)


@pytest.mark.parametrize("seed", range(16))
def test_nothing_is_refused_and_nothing_lost(world: World, seed: int) -> None:
    dice = random.Random(seed)
    server = serving(
        dice.choice([1, 2, 5, 10, 40, 100]),
        dice.choice([1, 6, 60]),
        skew=dice.uniform(0, 1000),
        latency=dice.choice([(0.002, 0.01), (0.05, 0.3), (0.1, 1.5)]),
        dice=dice,
    )
    world.latency = dice.choice([(0.0002, 0.001), (0.01, 0.03), (0.0001, 0.2)])
    processes = dice.choice([1, 2, 4, 8])
    requests = max(1, server.limit * dice.choice([2, 3]) // processes) * processes
    options = {"reserve": dice.choice([0.0, 0.3]), "concurrency": dice.choice([1, 4, 32])}

    virtual.run(lambda: together(world, server, processes, requests, **options))

    assert (server.refused, len(server.served)) == (0, requests)


def test_while_nothing_is_known_one_request_of_all_processes_asks(world: World) -> None:
    server = serving(100)

    async def main() -> tuple[int, int]:
        waiting = [
            asyncio.create_task(limiter(world, 100).acquire("ids", "bulk"))
            for _ in range(3)
            for _ in range(4)
        ]
        await asyncio.sleep(1.9)
        (first,) = [task for task in waiting if task.done()]
        await asyncio.sleep(0.3)  # without an answer for two seconds, one more may ask
        asked = sum(task.done() for task in waiting)
        first.result().answered(told(server, 99))
        await asyncio.sleep(0.25)
        granted = sum(task.done() for task in waiting)
        await cancelled(*waiting)
        return asked, granted

    assert virtual.run(main) == (2, 12)


async def cancelled(*tasks: "asyncio.Task[Permit]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_window_after_one_of_our_own_opens_at_once(world: World) -> None:
    server = serving(100, latency=(0.1, 0.1))

    async def main() -> list[float]:
        await phase(server, 1)
        await together(world, server, 4, 200)
        return sorted(at + server.skew for at in server.served)[100:]

    second = virtual.run(main)

    # Within the time of one answer: none had to wait for another one.
    assert second[80] - second[0] < 0.15
    assert (second[0] - 0.1) % 60 < 0.3


def test_a_window_after_one_that_others_used_begins_with_one_request(world: World) -> None:
    server = serving(100, latency=(0.1, 0.1))

    async def main() -> list[float]:
        await phase(server, 1)
        others = asyncio.create_task(take(server))
        await together(world, server, 2, 140)
        others.cancel()
        return sorted(at + server.skew for at in server.served)[-60:]

    async def take(server: Server) -> None:
        await asyncio.sleep(0.25)
        server.take(20)

    second = virtual.run(main)

    assert server.refused == 0
    assert second[1] - second[0] > 0.2  # the second waited for the first one's answer


def test_others_are_seen_early_enough(world: World) -> None:
    server = serving(250, 6, latency=(0.02, 0.05))

    async def main() -> None:
        async def others() -> None:
            while True:
                await asyncio.sleep(server.dice.expovariate(10))
                server.take()

        busy = asyncio.create_task(others())
        await together(world, server, 8, 1000)
        busy.cancel()

    virtual.run(main)

    assert server.refused <= 5


def test_the_server_overrides_the_limit_for_all(world: World) -> None:
    async def main() -> list[int]:
        server = serving(40)
        first, second = limiter(world, 10), limiter(world, 10)
        await phase(server, 1)
        (await first.acquire("ids", "bulk")).answered(told(server, 39))
        await asyncio.sleep(0.1)
        permits = [await second.acquire("ids", "bulk") for _ in range(30)]
        seen = [one.snapshot()["ids"].limit for one in (first, second)]
        for permit in permits:
            permit.unanswered(sent=False)
        return [len(permits), *seen]

    assert virtual.run(main) == [30, 40, 40]


def test_a_refusal_closes_the_pool_for_all_until_the_reset(world: World) -> None:
    async def main() -> tuple[bool, float]:
        server = serving(40)
        first, second = limiter(world, 40), limiter(world, 40)
        await phase(server, 20)
        permit = await first.acquire("ids", "bulk")
        permit.answered(told(server, 0), refused=True)
        await asyncio.sleep(0.1)
        quiet = await quietly(second, 35)
        await second.acquire("ids", "bulk")
        return quiet, (server.now() - 1e-9) % 60

    quiet, at = virtual.run(main)

    assert quiet
    assert at < 0.3


def test_while_all_wait_for_the_turn_redis_is_hardly_called(world: World) -> None:
    async def main() -> int:
        server = serving(40)
        limits = [limiter(world, 40) for _ in range(4)]
        await phase(server, 1)
        (await limits[0].acquire("ids", "bulk")).answered(told(server, 0))
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(one.acquire("ids", "bulk")) for one in limits]
        await asyncio.sleep(1)
        before = world.calls
        await asyncio.sleep(56)
        calls = world.calls - before
        await cancelled(*waiting)
        return calls

    assert virtual.run(main) == 0


def test_a_refusal_may_ask_for_a_longer_pause(world: World) -> None:
    async def main() -> float:
        server = serving(40, 6)
        first, second = limiter(world, 40, 6), limiter(world, 40, 6)
        await phase(server, 5)
        permit = await first.acquire("ids", "bulk")
        permit.answered(evolve(told(server, 0), pause=20.0), refused=True)
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await second.acquire("ids", "bulk")
        return asyncio.get_running_loop().time() - began

    assert virtual.run(main) == pytest.approx(20, abs=0.2)


def test_headers_that_refusals_prove_wrong_are_not_believed(world: World) -> None:
    async def main() -> list[float]:
        server = serving(40)
        limits = [limiter(world, 20), limiter(world, 20)]
        await phase(server, 1)
        times = []
        for number in range(3):
            permit = await limits[number % 2].acquire("ids", "bulk")
            times.append(asyncio.get_running_loop().time())
            permit.answered(told(server, 30), refused=True)
            await asyncio.sleep(0.1)
        for number in range(4):  # now at an even pace: 20 a minute
            permit = await limits[number % 2].acquire("ids", "bulk")
            times.append(asyncio.get_running_loop().time())
            permit.answered(told(server, 30 - number))
            await asyncio.sleep(0.1)
        return [late - early for early, late in pairwise(times)]

    gaps = virtual.run(main)

    assert gaps[:3] == pytest.approx([1, 2, 4], abs=0.2)
    assert min(gaps[3:]) > 3


def test_refusals_that_say_nothing_pause_all_for_ever_longer(world: World) -> None:
    async def main() -> list[float]:
        limits = [limiter(world), limiter(world)]
        times = []
        for number in range(5):
            permit = await limits[number % 2].acquire("ids", "bulk")
            times.append(asyncio.get_running_loop().time())
            permit.answered(RateWindow(), refused=True)
            await asyncio.sleep(0.1)
        return [late - early for early, late in pairwise(times)]

    assert virtual.run(main) == pytest.approx([1, 2, 4, 8], abs=0.2)


def test_what_is_reserved_is_left_to_others(world: World) -> None:
    server = serving(100)

    async def main() -> None:
        await phase(server, 1)
        await together(world, server, 4, 100, reserve=0.4)

    virtual.run(main)
    counts = [int((at + server.skew) // 60) for at in server.served]

    assert sorted(counts.count(window) for window in set(counts)) == [40, 60]


@pytest.mark.parametrize(("limit", "period", "processes"), [(40, 1, 4), (2, 6, 2), (100, 6, 8)])
def test_where_the_server_is_silent_no_window_sees_more_than_the_limit(
    world: World, limit: int, period: int, processes: int
) -> None:
    server = serving(limit, period, headers=False, latency=(0.01, 0.03))

    took = virtual.run(
        lambda: together(world, server, processes, 3 * limit // processes * processes)
    )

    assert server.refused == 0
    assert busiest(server.served, period) <= limit
    assert took < 4.3 * period
