"""What a process holds of the shared limit, and gives back: in virtual time."""

import asyncio
import random
from typing import Any, Final

import pytest

from braze_export.integrations.redis import RedisLimits
from braze_export.integrations.redis_words import Heard
from braze_export.limiting.limits import Lane
from tests import virtual
from tests.integrations.test_redis_windows import phase, quietly, serving, told
from tests.integrations.virtual_redis import World, kill, limiter
from tests.simulated import work

LANES: Final[list[Lane]] = ["bulk", "interactive"]


def test_a_process_that_dies_is_forgotten_after_90_seconds(world: World) -> None:
    async def main() -> tuple[bool, bool, int, int]:
        server = serving(20, 3600)
        dying, alive = limiter(world, 20, 3600), limiter(world, 20, 3600)
        await phase(server, 1)
        (await dying.acquire("ids", "bulk")).answered(told(server, 19))
        await asyncio.gather(*(dying.acquire("ids", "bulk") for _ in range(15)))
        kill(dying)
        permits = await asyncio.gather(*(alive.acquire("ids", "bulk") for _ in range(4)))
        held = await quietly(alive, 85)
        still = await quietly(alive, 20)  # for its requests may have been counted
        permits[0].answered(told(server, 15))  # they were not
        await alive.acquire("ids", "bulk")
        return held, still, world.flying(), len(world.processes())

    assert virtual.run(main) == (True, True, 4, 1)


def test_requests_that_take_minutes_are_not_taken_for_dead(world: World) -> None:
    async def main() -> int:
        server = serving(20, 3600)
        limits = limiter(world, 20, 3600)
        await phase(server, 1)
        (await limits.acquire("ids", "bulk")).answered(told(server, 19))
        slow = [await limits.acquire("ids", "bulk") for _ in range(3)]
        await asyncio.sleep(200)
        (await limiter(world, 20, 3600).acquire("ids", "bulk")).unanswered(sent=False)
        flying = world.flying()
        for permit in slow:
            permit.unanswered(sent=True)
        return flying

    assert virtual.run(main) == 4


def test_a_lost_reply_heals_and_news_count_once(world: World) -> None:
    async def main() -> tuple[str, int]:
        server = serving(100)
        limits = limiter(world, 100)
        await phase(server, 1)
        (await limits.acquire("ids", "bulk")).answered(told(server, 99))
        await asyncio.sleep(0.1)
        permits = [await limits.acquire("ids", "bulk") for _ in range(5)]
        world.loses_replies = 1
        for remaining, permit in enumerate(permits, 94):
            permit.answered(told(server, remaining))
        await asyncio.sleep(1)
        (await limits.acquire("ids", "bulk")).unanswered(sent=False)
        await asyncio.sleep(2)
        return world.state()["spent"], world.flying()

    assert virtual.run(main) == ("6", 0)


def test_leases_are_kept_for_a_moment_so_that_not_every_request_calls_redis(world: World) -> None:
    async def main() -> tuple[int, int, int]:
        server = serving(2500)
        limits = limiter(world, 2500)
        await phase(server, 1)
        (await limits.acquire("ids", "interactive")).answered(told(server, 2499))
        await asyncio.sleep(0.1)
        before = world.calls
        for number in range(85):  # so that some are left over
            permit = await limits.acquire("ids", "interactive")
            permit.answered(told(server, 2498 - number))
        calls, kept = world.calls - before, world.flying()
        await asyncio.sleep(1.2)
        return calls, kept, world.flying()

    calls, kept, later = virtual.run(main)

    assert calls <= 20
    assert 0 < kept <= 9
    assert later == 0


def test_processes_take_turns(world: World) -> None:
    async def main() -> list[int]:
        server = serving(10, 6)
        limits = [limiter(world, 10, 6) for _ in range(2)]
        workers = [asyncio.create_task(work(one, server, 1000)) for one in limits]
        await asyncio.sleep(60)
        sent = [one.snapshot()["ids"].sent for one in limits]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return sent

    sent = virtual.run(main)

    assert min(sent) > 0.3 * sum(sent)


def test_who_waits_for_a_single_answer_overtakes_bulk_work(world: World) -> None:
    async def main() -> list[str]:
        server = serving(6)
        limits = limiter(world, 6)
        await phase(server, 1)
        permit = await limits.acquire("ids", "bulk")
        permit.answered(told(server, 0))
        order: list[str] = []

        async def one(lane: Any) -> None:
            permit = await limits.acquire("ids", lane)
            order.append(lane)
            permit.unanswered(sent=True)

        waiting = [asyncio.create_task(one("bulk")) for _ in range(4)]
        await asyncio.sleep(1)
        waiting.append(asyncio.create_task(one("interactive")))
        await asyncio.wait(waiting)
        return order

    assert virtual.run(main).index("interactive") == 0


@pytest.mark.parametrize("seed", range(8))
def test_the_cancelled_give_back_what_they_held(world: World, seed: int) -> None:
    dice = random.Random(seed)
    server = serving(30, 6, latency=(0.01, 0.05))

    async def hesitant(limits: RedisLimits) -> None:
        while True:
            task = asyncio.create_task(limits.acquire("ids", dice.choice(LANES)))
            try:
                await asyncio.sleep(dice.choice([0, 0, 0.0002, 0.0005, 0.001, 0.002, 0.1]))
            finally:
                task.cancel()
                (end,) = await asyncio.gather(task, return_exceptions=True)
                if not isinstance(end, BaseException):
                    end.unanswered(sent=False)
            await asyncio.sleep(dice.uniform(0, 0.2))

    async def main() -> tuple[int, int]:
        limits = [limiter(world, 30, 6) for _ in range(3)]
        disturbing = [asyncio.create_task(hesitant(one)) for one in limits for _ in range(2)]
        await asyncio.gather(*(work(one, server, 30) for one in limits))
        for task in disturbing:
            task.cancel()
        await asyncio.gather(*disturbing, return_exceptions=True)
        await asyncio.sleep(2)
        return world.flying(), sum(one.snapshot()["ids"].in_flight for one in limits)

    assert virtual.run(main) == (0, 0)
    assert (server.refused, len(server.served)) == (0, 90)


@pytest.mark.parametrize("others", [0, 1])
def test_a_lease_of_one_who_is_cancelled_goes_to_the_next(world: World, others: int) -> None:
    async def main() -> tuple[bool, int]:
        limits = limiter(world)
        first, *rest = (
            asyncio.create_task(limits.acquire("ids", "bulk")) for _ in range(1 + others)
        )
        gate = limits._gates["ids"]
        hear = gate._hear

        def hear_and_cancel(heard: Heard, now: float) -> None:
            hear(heard, now)
            first.cancel()

        gate._hear = hear_and_cancel  # type: ignore[method-assign]
        for permit in await asyncio.gather(*rest):
            permit.unanswered(sent=False)
        await asyncio.wait([first])
        await asyncio.sleep(0.1)
        return first.cancelled(), world.flying()

    assert virtual.run(main) == (True, 0)


def test_requests_without_an_answer_are_reckoned_with(world: World) -> None:
    server = serving(40, 6, latency=(0.01, 0.3))

    async def worker(limits: RedisLimits, left: Any) -> None:
        for _ in left:
            permit = await limits.acquire("ids", "bulk")
            answer, refused = await server.ask()
            if server.dice.random() < 0.3:
                permit.unanswered(sent=True)
            else:
                permit.answered(answer, refused=refused)

    async def main() -> None:
        limits = [limiter(world, 40, 6) for _ in range(3)]
        lefts = [iter(range(50)) for _ in limits]
        pairs = [(one, left) for one, left in zip(limits, lefts, strict=True) for _ in range(16)]
        await asyncio.gather(*(worker(*pair) for pair in pairs))

    virtual.run(main)

    assert (server.refused, len(server.served)) == (0, 150)


def test_a_snapshot_tells_of_the_shared_window_and_of_this_process(world: World) -> None:
    async def main() -> None:
        server = serving(10)
        limits, other = limiter(world), limiter(world)
        await phase(server, 10)
        assert limits.snapshot()["ids"].remaining is None
        first = await limits.acquire("ids", "bulk")
        first.answered(told(server, 9))
        theirs = [await other.acquire("ids", "bulk") for _ in range(4)]
        ours = [await limits.acquire("ids", "bulk") for _ in range(5)]
        waiting = asyncio.create_task(limits.acquire("ids", "bulk"))
        await asyncio.sleep(10)
        pool = limits.snapshot()["ids"]
        assert (pool.limit, pool.remaining) == (10, 0)
        assert pool.resets_in == pytest.approx(40, abs=1)
        assert (pool.waiting, pool.in_flight, pool.sent, pool.refused) == (1, 5, 6, 0)
        assert pool.seconds_waited == pytest.approx(10, abs=0.1)
        waiting.cancel()
        for permit in theirs + ours:
            permit.unanswered(sent=False)

    virtual.run(main)


def test_who_waits_is_told_of_a_reply_that_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        limits = limiter(world)
        waiting = [asyncio.create_task(limits.acquire("ids", "bulk")) for _ in range(2)]
        await asyncio.sleep(0)
        monkeypatch.setattr(Heard, "read", lambda reply: int("x"))
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [ValueError, ValueError]

    virtual.run(main)
