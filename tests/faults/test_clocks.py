"""Clocks that jump: this machine's, while work is under way."""

import itertools
from pathlib import Path

import pytest

from braze_export.sandbox import Fault
from tests.faults import clockwork
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.world import (
    TRANSPORTS,
    Spoiler,
    World,
    a_client,
    a_link,
    a_sandbox,
    set_wall_clock,
    until_idle,
)

_DAY = 86_400.0
#: Seconds that the clock is off, from one look at it to the next.
JUMPS = {
    "back and forth": (0.0, -5 * _DAY, 5 * _DAY),
    "an hour back for good": (0.0, *[-3600.0] * 1000),
    "a year ahead for good": (0.0, *[365 * _DAY] * 1000),
    "to its beginning": (0.0, -clockwork.EPOCH),
}
#: What an answer says of the time: where it has no date, this machine's clock has to do.
ANSWERS = {"dated": None, "undated": Fault(headers={"date": None})}


async def jumping(operation: Operation, jumps: str, answers: str, transport: str) -> None:
    spoiler = Spoiler()
    async with a_sandbox(spoiler) as sandbox:
        link = await a_link(sandbox)
        spoiler.arm(ANSWERS[answers], of_links=False, after=0, times=float("inf"))
        async with a_client(sandbox.url, TRANSPORTS[transport]()) as braze:
            off = itertools.cycle(JUMPS[jumps])
            set_wall_clock(braze, lambda: clockwork.wall_clock() + next(off))
            world = World(sandbox, braze, link, Path())
            came: list[object] = []
            for _ in range(3):
                await operation.run(world, came)
            assert came
            await until_idle(braze)
        assert sandbox.counters.rate_limited == 0


@pytest.mark.parametrize("answers", ANSWERS)
@pytest.mark.parametrize("jumps", JUMPS)
def test_a_wall_clock_that_jumps_disturbs_nothing(jumps: str, answers: str) -> None:
    names = ("export_ids", "get_many", "segments.list", "job.profiles", "export_segment")
    number = list(JUMPS).index(jumps) * len(ANSWERS) + list(ANSWERS).index(answers)
    operation = OPERATIONS[names[number % len(names)]]
    transport = list(TRANSPORTS)[number % 2]
    clockwork.run(lambda: jumping(operation, jumps, answers, transport))
    if number % len(names):  # the one with the most to lose, each time
        clockwork.run(lambda: jumping(OPERATIONS["export_ids"], jumps, answers, transport))
