"""Many users by identifier, in one mapping."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import attrs
import pytest

from braze_export import (
    BadRequestError,
    BrazeId,
    ClientClosedError,
    DeadlineExceededError,
    DecodeError,
    EmailAddress,
    InputError,
    InvalidIdentifierError,
    LookupSettings,
    ProfileCache,
    RetryPolicy,
    ServerError,
    deadline,
)
from braze_export.wire import Response
from tests.lookups.stage import (
    LATENCY,
    Braze,
    Gates,
    Stage,
    alias,
    answer,
    names_in,
    outcome,
    run,
    turns,
)


async def get_many(stage: Stage, identifiers: Any, **options: Any) -> Any:
    return await stage.client.users.get_many(identifiers, **({"fields": ["email"]} | options))


def test_the_mapping_is_in_the_order_asked_with_each_once() -> None:
    ids = [alias(3), "u2", "nobody", EmailAddress("u9@users.example"), "u1", "u2", alias(3)]

    async def main(stage: Stage) -> None:
        found = await get_many(stage, (i for i in ids))
        assert list(found) == ids[:5]
        emails = [user and user.email for user in found.values()]
        assert emails == [f"u{n}@users.example" if n else None for n in (3, 2, 0, 9, 1)]
        assert sorted(stage.braze.asked, key=len) == [
            ["u9@users.example"],
            ["u2", "nobody", "u1", "a3"],
        ]

    run(main)


@pytest.mark.parametrize("empty", [[], (), set(), iter([])])
def test_of_nobody_there_is_nothing(empty: Any) -> None:
    async def main(stage: Stage) -> None:
        assert await get_many(stage, empty) == {}
        assert stage.braze.bodies == []

    run(main)


def test_it_shares_requests_with_other_look_ups() -> None:
    async def main(stage: Stage) -> None:
        many, other, same = await asyncio.gather(
            get_many(stage, ["u1", "u2"], into=dict), get_many(stage, ["u2", "u3"]), stage.get("u1")
        )
        assert many["u1"]["email"] == same.email
        assert [user.email[:2] for user in other.values()] == ["u2", "u3"]
        assert stage.braze.asked == [["u1", "u2", "u3"]]

    run(main)


def test_those_of_one_call_leave_together_though_nobody_lingers() -> None:
    async def main(stage: Stage) -> None:
        ids = [f"u{n}" for n in range(20)]
        await get_many(stage, ids)
        assert stage.braze.asked == [ids]

    run(main, lookups=LookupSettings(linger=0.0))


@attrs.define
class Short:
    email: str

    def __attrs_post_init__(self) -> None:
        if self.email.startswith("u2@"):
            raise ValueError("not this one")


def test_what_failed_does_not_take_the_rest_with_it() -> None:
    async def main(stage: Stage) -> None:
        with pytest.raises(BadRequestError) as caught:
            await get_many(stage, ["u1", "bad1", "nobody", "bad2", "u3"], into=dict)
        assert caught.value.identifiers == ("bad1", "bad2")
        emails = {"email": "u1@users.example"}, {"email": "u3@users.example"}
        assert caught.value.partial == {"u1": emails[0], "nobody": None, "u3": emails[1]}
        with pytest.raises(DecodeError) as misfit:
            await get_many(stage, ["u1", "u2", "u3"], into=Short)
        assert misfit.value.identifiers == ("u2",)
        assert list(misfit.value.partial or ()) == ["u1", "u3"]  # type: ignore[call-overload]

    run(main)


class PeculiarError(Exception):
    """An error that is made of something else than its arguments."""

    def __new__(cls, *, code: int) -> Self:
        return super().__new__(cls, code)

    def __init__(self, *, code: int) -> None:
        super().__init__(code)


def test_an_error_that_cannot_be_copied_is_shared() -> None:
    error = PeculiarError(code=5)

    async def main(stage: Stage) -> None:
        ends = [outcome(get_many(stage, [name])) for name in ("u1", "u2")]
        assert await asyncio.gather(*ends) == [error, error]

    run(main, braze=Braze(lambda body: error))


def test_what_is_no_error_of_ours_is_raised_as_it_is() -> None:
    async def main(stage: Stage) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            await get_many(stage, ["u1", "nobody"])
        assert vars(caught.value) == {}

    run(main, braze=Braze(lambda body: ZeroDivisionError()))


def test_each_caller_has_an_error_of_his_own() -> None:
    async def main(stage: Stage) -> None:
        one, two = await asyncio.gather(
            outcome(get_many(stage, ["u1", "u2"])), outcome(get_many(stage, ["u2", "u3"]))
        )
        assert isinstance(one, ServerError)
        assert isinstance(two, ServerError)
        assert (one.identifiers, two.identifiers) == (("u1", "u2"), ("u2", "u3"))
        assert one.partial == two.partial == {}

    run(main, braze=Braze(lambda body: Response(500, {}, b"{}")))


async def later() -> AsyncIterator[str]:
    yield "u1"


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("u1", r"\[identifier\]"),
        (b"u1", r"\[identifier\]"),
        ({"u1": 1}, r"\[identifier\]"),
        (5, "iterable"),
        (None, "iterable"),
        (later(), "async"),
    ],
)
def test_what_is_no_list_of_identifiers_is_bad_input(bad: Any, said: str) -> None:
    async def main(stage: Stage) -> None:
        with pytest.raises(InputError, match=said):
            await get_many(stage, bad)

    run(main)


@pytest.mark.parametrize("bad", ["", "  ", None, 5, b"u1", "\ud800"])
def test_a_bad_identifier_is_found_before_anything_is_sent(bad: Any) -> None:
    async def main(stage: Stage) -> None:
        with pytest.raises(InvalidIdentifierError, match="position 60"):
            await get_many(stage, [*(f"u{n}" for n in range(60)), bad])
        await turns()
        assert stage.braze.bodies == []

    run(main)


def test_what_the_source_raises_is_raised() -> None:
    def source() -> Iterator[str]:
        yield "u1"
        raise LookupError

    async def main(stage: Stage) -> None:
        with pytest.raises(LookupError):
            await get_many(stage, source())

    run(main)


def test_giving_up_leaves_nothing_and_disturbs_nobody() -> None:
    async def main(stage: Stage) -> None:
        call = asyncio.create_task(get_many(stage, [f"u{n}" for n in range(200)]))
        await turns(500)
        other = stage.begin("u7")
        await turns()
        call.cancel()
        assert isinstance(await outcome(call), asyncio.CancelledError)
        stage.gates.open()
        assert (await other).email == "u7@users.example"
        assert stage.braze.asked == [["u7"]]

    run(main, gates=Gates(shut=True))


def test_giving_up_on_somebody_named_twice_leaves_nothing() -> None:
    async def main(stage: Stage) -> None:
        call = asyncio.create_task(get_many(stage, ["u1", "u2", "u1"]))
        await turns()
        call.cancel()
        assert isinstance(await outcome(call), asyncio.CancelledError)
        await turns()
        stage.check_nothing_left()

    run(main, gates=Gates(shut=True))


def test_at_the_deadline_what_has_come_is_kept() -> None:
    async def main(stage: Stage) -> None:
        with deadline(LATENCY * 2), pytest.raises(DeadlineExceededError) as caught:
            await get_many(stage, ["u1", BrazeId("slow"), "u2"], into=dict)
        assert caught.value.identifiers == (BrazeId("slow"),)
        assert list(caught.value.partial or ()) == ["u1", "u2"]  # type: ignore[call-overload]
        assert caught.value.retry_after is None

    def reply(body: Any) -> Response:
        return Response(503, {}, b"{}") if names_in(body) == ["slow"] else answer(body)

    stubborn = RetryPolicy(max_attempts=100, base=0.001, cap=0.001)
    run(main, braze=Braze(reply), retry=stubborn)


def test_closing_the_client_keeps_what_has_come() -> None:
    async def main(stage: Stage) -> None:
        call = asyncio.create_task(get_many(stage, ["u1", BrazeId("slow")], into=dict))
        await asyncio.sleep(LATENCY * 2)
        await stage.client.aclose()
        with pytest.raises(ClientClosedError) as caught:
            await call
        assert caught.value.partial == {"u1": {"email": "u1@users.example"}}
        assert caught.value.identifiers == (BrazeId("slow"),)

    def reply(body: Any) -> Response:
        return Response(503, {}, b"{}") if names_in(body) == ["slow"] else answer(body)

    run(main, braze=Braze(reply), retry=RetryPolicy(base=100.0, cap=100.0))


def test_joining_waiting_and_collecting_give_way_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braze_export.turns._TURN", -1.0)  # each turn is over at once

    async def main(stage: Stage) -> None:
        ids = [f"u{n}" for n in range(20)]
        await get_many(stage, ids)
        call = asyncio.create_task(get_many(stage, ids))  # nothing has to be waited for
        passed = 0
        while not call.done():
            await asyncio.sleep(0)
            passed += 1
        assert len(stage.braze.bodies) == 1
        assert passed >= 3 * len(ids)

    run(main, lookups=LookupSettings(cache=ProfileCache(max_profiles=100, seconds=60.0)))


def test_ten_thousand_do_not_hold_the_loop() -> None:
    async def longest_hold() -> float:
        """As a share of the whole, for a machine may be slow; 0.06 where it is quiet."""
        stage = Stage(braze=Braze(latency=0.0))
        call = asyncio.create_task(get_many(stage, [f"u{n}" for n in range(10_000)]))
        longest, start = 0.0, time.perf_counter()
        while not call.done():
            began = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - began)
        whole = time.perf_counter() - start
        assert len(await call) == 10_000
        assert len(stage.braze.bodies) == 200
        await turns()
        stage.check_nothing_left()
        await stage.client.aclose()
        return longest / whole

    gc.disable()  # its pauses are those of all that the tests have made
    try:
        assert min(asyncio.run(longest_hold()) for _ in range(2)) < 0.2
    finally:
        gc.enable()
