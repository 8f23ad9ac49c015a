"""Deadlines: what fails at once, what fails when the time is over, and what is left alone."""

import asyncio
import contextvars
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from braze_export import (
    BrazeError,
    DeadlineExceededError,
    InputError,
    Limits,
    LookupSettings,
    RateLimit,
    RateLimitError,
    ServerError,
    deadline,
    deadlines,
)
from braze_export.retry import RetryPolicy
from braze_export.wire import Response
from tests import virtual
from tests.lookups.stage import (
    LATENCY,
    Braze,
    Gates,
    Stage,
    answer,
    first,
    known,
    outcome,
    run,
    turns,
)

LIMITS = Limits(ids=RateLimit(100, 60), default=RateLimit(100, 60))
PATIENT = RetryPolicy(base=0.01, cap=0.01)
OPEN = {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "90", "x-ratelimit-reset": "60"}
REFUSED = Response(429, {"retry-after": "30"}, b"{}")
CLOSED = known(remaining=0, resets_in=60.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def told(body: Any) -> Response:
    """An answer that says how the limit stands."""
    return Response(200, OPEN, answer(body).body)


async def within(seconds: float, call: Any) -> Any:
    with deadline(seconds):
        return await call


# --- the deadline itself


@pytest.mark.parametrize("seconds", [0, 0.0, -1, math.nan, -math.inf, True, None, "5", [1], 1j])
def test_a_deadline_is_a_number_above_zero(seconds: Any) -> None:
    with pytest.raises(InputError, match="above zero"), deadline(seconds):
        raise AssertionError


def test_an_earlier_deadline_around_it_stays_in_force() -> None:
    async def main() -> None:
        assert deadlines.left() is deadlines.ends() is None
        with deadline(10):
            ends = deadlines.ends()
            with deadline(20):
                assert deadlines.ends() == ends
            with deadline(5):
                assert deadlines.left() == pytest.approx(5)
                assert [deadlines.over_in(s) for s in (4.9, 5.1)] == [False, True]
            assert deadlines.ends() == ends
        with pytest.raises(LookupError), deadline(1):
            raise LookupError
        assert deadlines.ends() is None
        assert not deadlines.over_in(math.inf)

    virtual.run(main)


def test_tasks_begun_within_have_it_too_and_others_do_not() -> None:
    async def main() -> None:
        async def ends() -> float | None:
            await asyncio.sleep(1)
            return deadlines.ends()

        outside = asyncio.create_task(ends())
        with deadline(10):
            inside, expected = asyncio.create_task(ends()), deadlines.ends()
            assert expected is not None
        assert [await outside, await inside] == [None, expected]

    virtual.run(main)


def test_it_may_end_in_another_context_than_it_began_in() -> None:
    async def block() -> AsyncIterator[None]:
        with deadline(10):
            yield

    async def main() -> None:
        blocks = block()
        await anext(blocks)
        elsewhere = contextvars.copy_context()
        await asyncio.create_task(anext(blocks, None), context=elsewhere)
        assert elsewhere.run(deadlines.ends) is None

    virtual.run(main)


def test_a_block_that_is_cancelled_or_has_a_timeout_of_its_own_is_left_alone() -> None:
    async def main() -> None:
        with deadline(10):
            with pytest.raises(TimeoutError) as caught:
                async with deadlines.kept(), asyncio.timeout(1):
                    await asyncio.sleep(5)
            assert not isinstance(caught.value, BrazeError)
            with pytest.raises(asyncio.CancelledError):
                async with deadlines.kept():
                    raise asyncio.CancelledError
            with pytest.raises(DeadlineExceededError) as late:
                async with deadlines.kept(), asyncio.timeout(100):
                    await asyncio.sleep(50)
            assert late.value.__cause__ is None
            assert late.value.retry_after is None
        async with deadlines.kept():
            await asyncio.sleep(1000)

    virtual.run(main)


# --- calls that the limit would make wait


@pytest.mark.parametrize("what", ["direct", "look-up", "many", "several"])
def test_a_call_that_the_limit_holds_up_for_too_long_fails_at_once(what: str) -> None:
    async def main(stage: Stage) -> None:
        client = stage.client
        waits = asyncio.create_task(
            client.segments.details("s") if what == "direct" else stage.get("u0")
        )
        await asyncio.sleep(2 * LATENCY)
        calls = {
            "direct": client.segments.details("s"),
            "look-up": stage.get("u1"),
            "many": client.users.get_many(["u1", "u2"]),
            "several": stage.get_all("u1", "u2"),
        }
        began = now()
        answered = await within(5, outcome(calls.pop(what)))
        for call in calls.values():
            call.close()
        errors = answered if what == "several" else [answered]
        for error in errors:
            assert isinstance(error, DeadlineExceededError)
            assert isinstance(error, TimeoutError)
            assert error.retry_after == pytest.approx(30, abs=1)
            assert "rate limit" in str(error)
        assert now() - began < 0.01
        assert len(stage.braze.bodies) == 1
        waits.cancel()
        await outcome(waits)

    run(main, braze=Braze(lambda _: REFUSED), limits=LIMITS, retry=PATIENT)


def test_a_call_that_the_limit_lets_through_in_time_waits_for_it() -> None:
    async def main(stage: Stage) -> None:
        waits = stage.begin("u0")
        await asyncio.sleep(2 * LATENCY)
        found = await within(40, stage.get("u1"))
        assert found.email == "u1@users.example"
        await waits

    run(main, braze=Braze(first(REFUSED)), limits=LIMITS, retry=PATIENT)


def test_look_ups_that_wait_already_fail_when_the_limit_closes_and_those_under_way_do_not() -> None:
    refusals = [REFUSED]

    def reply(body: Any) -> Response:
        return refusals.pop() if "refused" in body["external_ids"] and refusals else told(body)

    async def main(stage: Stage) -> None:
        await stage.get("u0")  # tells how the limit stands
        began = now()
        refused = [asyncio.create_task(within(s, stage.get("refused"))) for s in (5, 50)]
        await asyncio.sleep(LATENCY / 2)  # sent later, and answered after the limit has closed
        under_way = asyncio.create_task(within(5, stage.get("u1", fields=["first_name"])))
        await asyncio.sleep(LATENCY / 4)
        stage.client.users._lookup._sharing.settings = LookupSettings(linger=LATENCY)
        hasty, patient = (asyncio.create_task(within(s, stage.get("u2"))) for s in (5, 50))
        endless = stage.begin("u3")
        for call, kind in ((hasty, DeadlineExceededError), (refused[0], RateLimitError)):
            error = await outcome(call)
            assert isinstance(error, kind)
            assert error.retry_after == pytest.approx(30, abs=1)
            assert now() - began == pytest.approx(LATENCY, abs=1e-3)
        assert (await under_way).first_name == "Ann 1"
        assert now() - began < 2 * LATENCY
        assert all(await asyncio.gather(patient, endless, refused[1]))
        assert ["u2", "u3"] in stage.braze.asked

    lookups = LookupSettings(linger=0.0)
    run(main, braze=Braze(reply), limits=LIMITS, lookups=lookups, retry=PATIENT)


def test_a_limit_that_closes_is_nothing_to_look_ups_that_count_against_another() -> None:
    def reply(body: Any) -> Response:
        return answer(body) if "fields_to_export" in body else REFUSED

    async def main(stage: Stage) -> None:
        refused = stage.begin("u0", fields=None)
        await asyncio.sleep(LATENCY / 2)
        found = await within(5, stage.get("u1"))  # lingers until after the refusal
        assert found.email == "u1@users.example"
        refused.cancel()
        await outcome(refused)

    lookups = LookupSettings(linger=LATENCY)
    run(main, braze=Braze(reply), limits=Limits.new_workspace(), lookups=lookups, retry=PATIENT)


def test_the_answer_that_closes_the_limit_is_given_to_whoever_is_in_a_hurry() -> None:
    def reply(body: Any) -> Response:
        return Response(200, OPEN | {"x-ratelimit-remaining": "0"}, answer(body).body)

    async def main(stage: Stage) -> None:
        assert (await within(5, stage.get("u1"))).email == "u1@users.example"
        assert isinstance(await outcome(within(5, stage.get("u1"))), DeadlineExceededError)

    run(main, braze=Braze(reply), limits=LIMITS, retry=PATIENT)


def test_whoever_is_in_a_hurry_waits_for_a_request_under_way_though_the_limit_has_closed() -> None:
    async def main(stage: Stage) -> None:
        patient = stage.begin("u1")
        await asyncio.sleep(LATENCY / 2)
        stage.gates.known = CLOSED
        assert isinstance(await outcome(within(5, stage.get("u2"))), DeadlineExceededError)
        assert (await within(5, stage.get("u1"))).email == "u1@users.example"
        await patient

    run(main)


def test_whoever_is_in_a_hurry_does_not_wait_for_a_request_that_the_limit_holds_up() -> None:
    async def main(stage: Stage) -> None:
        patient = stage.begin("u1")
        await turns()
        stage.gates.known = CLOSED
        began = now()
        assert isinstance(await outcome(within(5, stage.get("u1"))), DeadlineExceededError)
        assert now() - began < 0.01
        stage.gates.open()
        await patient

    run(main, gates=Gates(shut=True))


@pytest.mark.parametrize(
    ("limit", "remaining", "closed"),
    [(100, 0, 30), (2, 0, 30 + 60), (1, 0, 30 + 3 * 60), (0, 0, 30 + 3 * 60), (1, 1, 0)],
)
def test_each_window_that_those_who_wait_will_fill_is_a_minute_more(
    limit: int, remaining: int, closed: float
) -> None:
    async def main(stage: Stage) -> None:
        under_way = stage.begin("u0")
        await asyncio.sleep(LATENCY / 2)
        stage.gates.shut = True
        waiting = [stage.begin(f"u{n}", fields=["email", f"{n}"]) for n in range(3)]
        waiting += [stage.begin("u0", fields=None), stage.begin("u1", fields=["canvases_received"])]
        await turns()
        stage.gates.known = known(limit=limit, remaining=remaining, resets_in=30.0)
        sharing = stage.client.users._lookup._sharing
        assert sharing.closed_for("ids_fast") == closed
        stage.gates.open()
        await asyncio.gather(under_way, *waiting)

    limits = Limits(ids=RateLimit(7, 7), ids_fast=RateLimit(250, 60))
    run(main, gates=Gates(limits), lookups=LookupSettings(linger=0.0))


def test_windows_that_others_will_fill_are_reckoned_with() -> None:
    limits = Limits(ids=RateLimit(1, 60))

    async def main(stage: Stage) -> None:
        waiting = [stage.begin(f"u{n}") for n in range(101)]
        await asyncio.sleep(2 * LATENCY)
        error = await outcome(within(80, stage.get("v", fields=["first_name"])))
        assert isinstance(error, DeadlineExceededError)
        assert error.retry_after is not None
        assert error.retry_after > 80
        for call in waiting:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(main, braze=Braze(lambda _: REFUSED), limits=limits, retry=PATIENT)


# --- time that is over


def test_the_time_is_over_while_the_call_waits_for_the_limit() -> None:
    async def main(stage: Stage) -> None:
        began = now()
        for call in (stage.get("u1"), stage.client.segments.details("s")):
            error = await outcome(within(3, call))
            assert isinstance(error, DeadlineExceededError)
            assert error.retry_after is None
        assert now() - began == pytest.approx(6, abs=1e-3)
        await turns()
        assert not stage.gates.waiting
        assert stage.braze.bodies == []

    run(main, gates=Gates(shut=True))


@pytest.mark.parametrize("sent", [False, True])
def test_who_was_not_sent_in_time_is_told_when_the_limit_opens(sent: bool) -> None:
    async def main(stage: Stage) -> None:
        call = asyncio.create_task(within(LATENCY / 2, stage.get("u1")))
        await turns()
        stage.gates.known = CLOSED
        error = await outcome(call)
        assert isinstance(error, DeadlineExceededError)
        assert error.identifiers == ("u1",)
        assert error.retry_after == (None if sent else 60.0)
        await asyncio.sleep(LATENCY)

    run(main, gates=Gates(shut=not sent))


def test_the_time_may_be_over_in_any_turn_of_the_loop_in_which_the_answer_comes() -> None:
    async def main(stage: Stage) -> None:
        late = []
        for turn in range(12):
            seconds = LATENCY + turn * virtual._TICK
            (given,) = await within(seconds, stage.get_all("u1"))
            late.append(isinstance(given, DeadlineExceededError))
            assert late[-1] or given.email == "u1@users.example"
            await turns()
        assert late == sorted(late, reverse=True)
        assert {*late} == {True, False}

    run(main)


@pytest.mark.parametrize("what", ["direct", "look-up"])
def test_the_time_is_over_while_the_request_is_under_way(what: str) -> None:
    async def main(stage: Stage) -> None:
        other = stage.begin("u1") if what == "look-up" else None
        call = stage.get("u1") if what == "look-up" else stage.client.segments.details("s")
        began = now()
        error = await outcome(within(LATENCY / 2, call))
        assert isinstance(error, DeadlineExceededError)
        assert now() - began == pytest.approx(LATENCY / 2, abs=1e-3)
        if other is not None:
            assert (await other).email == "u1@users.example"

    run(main)


def test_it_is_told_that_an_export_may_have_begun_all_the_same() -> None:
    async def main(stage: Stage) -> None:
        start = stage.client.users.export_segment("s", fields=["email"])
        with pytest.raises(DeadlineExceededError, match="may have begun all the same"):
            await within(LATENCY / 2, start)
        stage.gates.shut = True
        start = stage.client.users.export_segment("s", fields=["email"])
        with pytest.raises(DeadlineExceededError) as never_sent:
            await within(LATENCY / 2, start)
        assert "begun" not in str(never_sent.value)
        assert len(stage.braze.bodies) == 1

    run(main)


def test_nothing_is_sent_once_the_time_is_over() -> None:
    async def main(stage: Stage) -> None:
        with deadline(1):
            await asyncio.sleep(2)
            users = stage.client.users
            for call in (
                stage.get("u1"),
                stage.client.segments.details("s"),
                users.get_many(["u1"]),
            ):
                with pytest.raises(DeadlineExceededError, match="was over") as caught:
                    await call
                assert caught.value.retry_after is None
        await turns()
        assert stage.braze.bodies == []

    run(main)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(Response(503, {"retry-after": "20"}, b"{}"), ServerError), (REFUSED, RateLimitError)],
)
def test_a_try_that_would_come_too_late_is_not_waited_for(
    trouble: Response, kind: type[BrazeError]
) -> None:
    async def main(stage: Stage) -> None:
        began = now()
        error = await outcome(within(5, stage.client.segments.details("s")))
        assert isinstance(error, kind)
        assert now() - began == pytest.approx(LATENCY, abs=1e-3)
        assert len(stage.braze.bodies) == 1

    run(main, braze=Braze(lambda _: trouble), limits=LIMITS, retry=PATIENT)


def test_a_deadline_without_end_changes_nothing() -> None:
    async def main(stage: Stage) -> None:
        assert (await within(math.inf, stage.get("u1"))).email == "u1@users.example"

    run(main)
