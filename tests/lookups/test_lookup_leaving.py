"""Callers that give up, clients that are closed: what goes on, what ends, what is left."""

import asyncio
from typing import Any

import anyio
import pytest

from braze_export import (
    ClientClosedError,
    DeadlineExceededError,
    LimiterError,
    LookupSettings,
    deadline,
)
from braze_export.endpoints import Pool
from braze_export.limiting.limits import Lane
from braze_export.wire import Response
from tests.lookups.stage import (
    LATENCY,
    QUICK,
    Braze,
    Gates,
    Stage,
    answer,
    first,
    is_closed,
    outcome,
    run,
    turns,
)

BUSY = Response(503, {}, b"{}")


async def give_up(*calls: "asyncio.Task[Any]") -> None:
    for call in calls:
        call.cancel()
    for call in calls:
        assert isinstance(await outcome(call), asyncio.CancelledError)


# --- giving up before the request is sealed


def test_who_gives_up_before_is_not_asked_for() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(5)]
        await turns()
        await give_up(calls[1], calls[3])
        stage.gates.open()
        assert [await outcome(calls[n]) is not None for n in (0, 2, 4)] == [True] * 3
        assert stage.braze.asked == [["u0", "u2", "u4"]]

    run(main, gates=Gates(shut=True))


def test_somebody_else_who_wants_the_same_keeps_it_in_the_request() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin("u1"), stage.begin("u1")]
        await turns()
        await give_up(calls[0])
        stage.gates.open()
        assert (await calls[1]).email == "u1@users.example"

    run(main, gates=Gates(shut=True))


def test_room_that_was_given_up_is_filled_again() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(49)]
        await turns()
        await give_up(*calls[:9])
        calls += [stage.begin(f"u{n}") for n in range(100, 110)]
        await turns()
        assert len(stage.gates.waiting) == 1
        stage.gates.open()
        await asyncio.gather(*calls[9:])
        assert [len(asked) for asked in stage.braze.asked] == [50]

    run(main, gates=Gates(shut=True))


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_when_everybody_gives_up_the_request_ends_and_the_next_is_a_new_one(pause: float) -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin("u1"), stage.begin("u2")]
        await asyncio.sleep(pause)
        await give_up(*calls)
        later = stage.begin("u1")
        await turns()
        stage.check_task_count(1)
        assert len(stage.gates.waiting) == 1
        stage.gates.open()
        assert (await later).email == "u1@users.example"
        assert stage.braze.asked == [["u1"]]

    run(main, gates=Gates(shut=True))


def test_who_comes_in_the_turn_in_which_everybody_gives_up_has_a_request_of_his_own() -> None:
    async def main(stage: Stage) -> None:
        call = stage.begin("u1")
        await turns()
        call.cancel()
        later = stage.begin("u2")
        await turns()
        stage.gates.open()
        assert (await later).email == "u2@users.example"
        assert stage.braze.asked == [["u2"]]

    run(main, gates=Gates(shut=True))


def test_everybody_gives_up_while_the_request_lingers() -> None:
    async def main(stage: Stage) -> None:
        first_call = stage.begin("u1")
        await asyncio.sleep(0.01)
        second = stage.begin("u2")
        await asyncio.sleep(0.01)
        await give_up(second)
        await first_call
        assert stage.braze.asked == [["u1"]]

    run(main, lookups=LookupSettings(linger=5.0))


def test_giving_up_in_the_moment_of_the_grant_gives_the_permit_back() -> None:
    async def main(stage: Stage) -> None:
        call = stage.begin("u1")
        await turns()
        call.cancel()
        stage.gates.grant()
        assert isinstance(await outcome(call), asyncio.CancelledError)
        assert (stage.gates.in_flight, stage.gates.granted, stage.braze.bodies) == (0, [], [])

    run(main, gates=Gates(shut=True))


# --- giving up afterwards


def test_others_are_answered_when_one_gives_up_under_way() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(3)]
        await asyncio.sleep(LATENCY / 2)
        await give_up(calls[0])
        again = stage.begin("u0")  # it is being asked for
        found = await asyncio.gather(*calls[1:], again)
        assert [user.email[:2] for user in found] == ["u1", "u2", "u0"]
        assert len(stage.braze.bodies) == 1

    run(main)


def test_a_request_under_way_that_nobody_waits_for_ends_by_itself() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin("gone"), stage.begin("u2")]
        await asyncio.sleep(LATENCY / 2)
        await give_up(*calls)
        assert (stage.gates.in_flight, stage.braze.under_way) == (1, 1)
        await asyncio.sleep(LATENCY)
        stage.check_nothing_left()
        assert len(stage.braze.bodies) == 1  # nobody is asked for once more

    run(main)


@pytest.mark.parametrize("joined", [False, True])
def test_a_request_that_hangs_is_not_waited_for_without_end_when_nobody_wants_it(
    joined: bool,
) -> None:
    async def main(stage: Stage) -> None:
        stage.braze.latency = 60
        call = stage.begin("u1")
        await asyncio.sleep(LATENCY)
        await give_up(call)
        await asyncio.sleep(1)
        assert (stage.gates.in_flight, stage.braze.under_way) == (1, 1)
        other = stage.begin("u1") if joined else None
        await asyncio.sleep(5)
        assert (stage.gates.in_flight, stage.braze.under_way) == (joined, joined)
        assert other is None or (await other).email == "u1@users.example"
        stage.check_nothing_left()
        assert len(stage.braze.bodies) == 1

    run(main)


def test_who_comes_later_does_not_wait_for_a_request_that_hangs() -> None:
    async def main(stage: Stage) -> None:
        stage.braze.latency = 60
        early = stage.begin("u1")
        await asyncio.sleep(1.9)
        joined = stage.begin("u1")
        await asyncio.sleep(0.2)
        stage.braze.latency = LATENCY
        async with asyncio.timeout(1):
            assert (await stage.get("u1")).email == "u1@users.example"
            assert stage.braze.asked == [["u1"], ["u1"]]
            again = [stage.begin("u1") for _ in range(3)]  # the last request is joined as ever
            await asyncio.gather(*again)
        assert len(stage.braze.bodies) == 3
        assert not any(call.done() for call in (early, joined))
        for call in (early, joined):
            assert (await call).email == "u1@users.example"

    run(main)


def test_who_joined_a_request_that_hangs_and_gives_up_as_well_does_not_keep_it_either() -> None:
    async def main(stage: Stage) -> None:
        stage.braze.latency = 60
        call = stage.begin("u1")
        await asyncio.sleep(LATENCY)
        await give_up(call)
        await asyncio.sleep(1)
        other = stage.begin("u1")
        await asyncio.sleep(2)
        await give_up(other)
        await asyncio.sleep(4)
        assert (stage.gates.in_flight, stage.braze.under_way) == (1, 1)
        await asyncio.sleep(2)
        assert (stage.gates.in_flight, stage.braze.under_way) == (0, 0)

    run(main)


@pytest.mark.parametrize(
    "stays",
    [
        [(0, 1), (0, 4)],  # both from the beginning
        [(0, 1), (1.2, 1.5), (1.8, 7)],  # the second gives up soon after the first, the third joins
    ],
)
def test_a_request_that_hangs_is_waited_for_from_when_nobody_wants_it(
    stays: list[tuple[float, float]],
) -> None:
    async def main(stage: Stage) -> None:
        stage.braze.latency = 60
        began = asyncio.get_running_loop().time()

        async def one(comes: float, goes: float) -> None:
            await asyncio.sleep(comes)
            with anyio.move_on_after(goes - comes):
                await stage.get("u1")

        await asyncio.gather(*(one(*stay) for stay in stays))
        left = asyncio.get_running_loop().time() - began
        assert left == pytest.approx(stays[-1][1], abs=1e-3)
        await asyncio.sleep(4.9)
        assert (stage.gates.in_flight, stage.braze.under_way) == (1, 1)
        await asyncio.sleep(0.2)
        assert (stage.gates.in_flight, stage.braze.under_way) == (0, 0)

    run(main)


@pytest.mark.parametrize("moment", ["before the answer", "in the pause"])
@pytest.mark.parametrize(
    "trouble", [BUSY, Response(429, {}, b"{}"), Response(400, {}, b"{}"), OSError("x")]
)
def test_for_nobody_nothing_is_tried_again(moment: str, trouble: Any) -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin("u1"), stage.begin("u2")]
        await asyncio.sleep(LATENCY / 2)
        if moment == "before the answer":
            await give_up(*calls)
            await asyncio.sleep(LATENCY)
        else:
            await asyncio.sleep(LATENCY / 2 + 0.001)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(100)
        stage.check_nothing_left()
        assert len(stage.braze.bodies) <= (1 if moment == "before the answer" else 2)

    slow = type(QUICK)(max_attempts=5, base=50.0, cap=50.0)
    run(main, braze=Braze(lambda body: trouble), retry=slow)


def test_garbage_for_nobody_is_asked_for_again_once_at_most() -> None:
    async def main(stage: Stage) -> None:
        call = stage.begin("u1")
        await asyncio.sleep(LATENCY / 2)
        await give_up(call)
        await asyncio.sleep(10)
        assert len(stage.braze.bodies) <= 2

    retry = type(QUICK)(max_attempts=6, base=0.01)
    run(main, braze=Braze(lambda body: Response(200, {}, b"<")), retry=retry)


def test_one_who_stays_keeps_the_tries_going() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(3)]
        await asyncio.sleep(LATENCY / 2)
        await give_up(*calls[1:])
        assert (await calls[0]).email == "u0@users.example"
        assert stage.braze.asked == [["u0", "u1", "u2"]] * 3

    run(main, braze=Braze(first(BUSY, BUSY)))


def test_giving_up_while_a_refused_request_is_narrowed_ends_the_narrowing() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"bad{n}") for n in range(50)]
        while len(stage.braze.bodies) < 4:
            await asyncio.sleep(0.01)
        sent = len(stage.braze.bodies)
        await give_up(*calls)
        await asyncio.sleep(2 * LATENCY)
        stage.check_nothing_left()
        assert len(stage.braze.bodies) == sent < 99

    run(main)


def test_giving_up_while_answers_are_handed_out() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(50)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        left = [call for call in calls if not call.done()]
        assert left
        for call in left[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        cancelled = [isinstance(a, asyncio.CancelledError) for a in answers]
        assert sum(cancelled) == len(left[::2])
        assert all(c or a.email for c, a in zip(cancelled, answers, strict=True))  # type: ignore[union-attr]

    run(main)


# --- a limiter that cannot work


def test_when_nothing_can_be_granted_each_has_the_error_and_later_ones_ask_anew() -> None:
    class Broken(Gates):
        async def acquire(self, pool: Pool, lane: Lane) -> Any:
            await asyncio.sleep(0.1)
            if self.shut:
                raise LimiterError("it is gone")
            return await super().acquire(pool, lane)

    async def main(stage: Stage) -> None:
        for _ in range(2):
            errors = await stage.get_all("u1", "u2")
            assert [type(error) for error in errors] == [LimiterError] * 2
            assert [error.identifiers for error in errors] == [("u1",), ("u2",)]
        stage.gates.shut = False
        assert [user.email[:2] for user in await stage.get_all("u1", "u2")] == ["u1", "u2"]
        assert len(stage.braze.bodies) == 1

    run(main, gates=Broken(shut=True))


# --- closing the client


@pytest.mark.parametrize("where", ["limit", "linger", "answer", "pause", "narrowing"])
def test_closing_ends_look_ups_wherever_they_wait(where: str) -> None:
    async def main(stage: Stage) -> None:
        stage.gates.shut = where == "limit"
        if where == "pause":
            stage.braze.reply = lambda body: BUSY
        ids = ["u1", "u2", "bad" if where == "narrowing" else "u3"]
        calls = [stage.begin("u0")] if where == "linger" else []
        await asyncio.sleep(LATENCY / 10)
        calls += [stage.begin(identifier) for identifier in ids]
        await asyncio.sleep(LATENCY * (1.5 if where in {"pause", "narrowing"} else 0.5))
        assert not any(call.done() for call in calls)
        many = asyncio.create_task(stage.client.users.get_many(["u1", "x"], fields=["email"]))
        await turns()
        await stage.client.aclose()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(is_closed(a) for a in answers)
        assert len({id(a) for a in answers}) == len(calls)
        with pytest.raises(ClientClosedError) as caught:
            await many
        assert caught.value.identifiers == ("u1", "x")
        made = len(stage.braze.bodies)
        for refused in (stage.get("u1"), stage.client.users.get_many(["u1"])):
            with pytest.raises(ClientClosedError):
                await refused
        assert len(stage.braze.bodies) == made

    retry = type(QUICK)(max_attempts=5, base=5000.0, cap=5000.0)
    run(main, lookups=LookupSettings(linger=5.0), retry=retry)


def test_closing_in_the_turn_in_which_look_ups_begin() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(f"u{n}") for n in range(3)]
        await asyncio.sleep(0)
        await stage.client.aclose()
        assert all([is_closed(await outcome(call)) for call in calls])
        assert stage.braze.bodies == []

    run(main)


# --- contexts: task groups, cancel scopes, deadlines


def test_one_task_group_that_fails_does_not_disturb_another() -> None:
    async def failing(stage: Stage) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stage.get, "u1")
            group.start_soon(stage.get, "u2")
            await asyncio.sleep(LATENCY / 2)
            raise LookupError

    async def main(stage: Stage) -> None:
        broken = asyncio.create_task(failing(stage))
        await turns()
        call = stage.begin("u3")
        assert isinstance(await outcome(broken), ExceptionGroup)
        assert (await call).email == "u3@users.example"
        assert stage.braze.asked[0][:2] == ["u1", "u2"]

    run(main)


def test_a_cancel_scope_of_anyio_ends_its_own_look_up_only() -> None:
    async def hasty(stage: Stage) -> None:
        with anyio.fail_after(LATENCY / 2):
            await stage.get("u1")

    async def main(stage: Stage) -> None:
        first_call = asyncio.create_task(hasty(stage))  # the request is made from within
        await asyncio.sleep(LATENCY / 4)
        call = stage.begin("u1")
        with anyio.move_on_after(LATENCY / 8):
            await stage.get("u1")
            raise AssertionError
        assert isinstance(await outcome(first_call), TimeoutError)
        assert (await call).email == "u1@users.example"
        assert len(stage.braze.bodies) == 1

    run(main)


def test_the_deadline_of_the_first_does_not_bind_the_request_he_began() -> None:
    async def hasty(stage: Stage) -> None:
        with deadline(LATENCY / 2):
            await stage.get("u1")

    async def main(stage: Stage) -> None:
        first_call = asyncio.create_task(hasty(stage))
        await turns()
        calls = [stage.begin("u1"), stage.begin("u2")]
        error = await outcome(first_call)
        assert isinstance(error, DeadlineExceededError)
        assert error.retry_after is None
        found = await asyncio.gather(*calls)
        assert [user.email[:2] for user in found] == ["u1", "u2"]

    run(main, braze=Braze(first(BUSY)))


def test_look_ups_under_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        stage = Stage(braze=Braze(answer, latency=0.002))
        stage.gates.shut = True
        with deadline(float("inf")):
            calls = [stage.begin(f"u{n}") for n in range(120)]
            await turns()
        await give_up(*calls[100:])
        stage.gates.open()
        found = await asyncio.gather(*calls[:100])
        assert [user.email for user in found] == [f"u{n}@users.example" for n in range(100)]
        assert [len(asked) for asked in stage.braze.asked] == [50, 50]
        stage.braze.latency = 0.5  # so that the deadline comes first, however busy the machine is
        with deadline(0.05), pytest.raises(DeadlineExceededError):
            await stage.get("u1")
        async with asyncio.timeout(10):
            while stage.braze.under_way or stage.client._scope._tasks:
                await asyncio.sleep(0.01)
        stage.check_nothing_left()
        await stage.client.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
