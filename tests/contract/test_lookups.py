"""Look-ups that share requests, over real sockets and either transport."""

import asyncio
import math
import time
from typing import Any

import attrs
import pytest

from braze_export import (
    BadRequestError,
    BrazeClient,
    BrazeId,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    DecodeError,
    DeviceId,
    EmailAddress,
    Limits,
    LookupSettings,
    PhoneNumber,
    ProfileCache,
    RateLimit,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    Timeouts,
    UserAlias,
    deadline,
)
from braze_export.sandbox import Fault, Sandbox, Window
from tests.contract.conftest import QUICK, Connect
from tests.contract.exporting import Clock, until

FIELDS = ["email"]


async def get_all(braze: BrazeClient, *identifiers: Any, **options: Any) -> list[Any]:
    calls = (braze.users.get(i, **({"fields": FIELDS} | options)) for i in identifiers)
    return list(await asyncio.gather(*calls, return_exceptions=True))


def sizes(sandbox: Sandbox) -> list[int]:
    """Identifiers of each request."""
    bodies = [record.body for record in sandbox.log]
    return [len(b.get("external_ids", ())) + len(b.get("user_aliases", ())) or 1 for b in bodies]


def nothing_left(braze: BrazeClient) -> bool:
    lookup, pools = braze.users._lookup, braze.limits.snapshot().values()
    return (
        not lookup._sharing.requests
        and all(not s.asked and s.open is None for s in lookup._shapes.values())
        and not any(pool.in_flight or pool.waiting for pool in pools)
    )


async def test_hundreds_at_once_take_few_requests(braze: BrazeClient, sandbox: Sandbox) -> None:
    found = await get_all(braze, *(f"u{n}" for n in range(1, 301)))
    assert [user.email for user in found] == [sandbox.user(n).email for n in range(1, 301)]
    assert sandbox.counters.requests == 6
    assert sizes(sandbox) == [50] * 6
    assert nothing_left(braze)


async def test_each_kind_of_identifier_has_its_own_answer(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    person = sandbox.user(5)
    ids: list[Any] = [
        "u5",
        UserAlias(person.alias.name, person.alias.label),
        BrazeId(person.braze_id),
        DeviceId(person.device_id),
        EmailAddress(person.email),
        PhoneNumber(person.phone),
    ]
    found = await braze.users.get_many(
        [*ids, "nobody", UserAlias("no", "one"), EmailAddress("no@one.example")], fields=FIELDS
    )
    assert all(found[i].email == person.email for i in ids)  # type: ignore[union-attr]
    assert list(found.values())[6:] == [None] * 3
    assert all(user is None or user.external_id is None for user in found.values())
    assert sorted(sizes(sandbox)) == [1, 1, 1, 1, 1, 4]


async def test_one_bad_identifier_fails_its_own_caller_only(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    *found, bad = await get_all(braze, *(f"u{n}" for n in range(1, 50)), "poison")
    assert isinstance(bad, BadRequestError)
    assert bad.identifiers == ("poison",)
    assert [user.email for user in found] == [sandbox.user(n).email for n in range(1, 50)]
    assert nothing_left(braze)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=500), ServerError),
        (Fault(status=502, body=b"<html>"), ServerError),
        (Fault(drop="before"), ConnectionLostError),
        (Fault(drop="headers"), ConnectionLostError),
        (Fault(drop="body"), ConnectionLostError),
        (Fault(garbage=True), DecodeError),
        (Fault(truncate=40), DecodeError),
        (Fault(delay=5.0), RequestTimeoutError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
async def test_trouble_is_outlived_or_an_error_for_each(
    connect: Connect, sandbox: Sandbox, fault: Fault, kind: type[Exception]
) -> None:
    timeouts = Timeouts(read=0.15) if fault.delay else Timeouts()
    braze = connect(sandbox, timeouts=timeouts)
    sandbox.inject(fault, times=3)
    assert [user.email for user in await get_all(braze, "u1", "u2")] == [
        sandbox.user(n).email for n in (1, 2)
    ]
    sandbox.inject(fault, times=4)
    errors = await get_all(braze, "u1", "u2")
    assert [type(error) for error in errors] == [kind] * 2
    assert [error.identifiers for error in errors] == [("u1",), ("u2",)]
    assert errors[0] is not errors[1]
    assert sandbox.counters.requests == 8
    assert nothing_left(braze)


async def test_a_server_that_is_not_there_is_an_error_for_each(
    connect: Connect, sandbox: Sandbox
) -> None:
    braze = connect(sandbox)
    await sandbox.aclose()
    errors = await get_all(braze, "u1", "u2")
    assert [type(error) for error in errors] == [ConnectError] * 2
    assert nothing_left(braze)


async def test_while_the_window_is_used_up_a_request_goes_on_filling(connect: Connect) -> None:
    clock = Clock(math.floor(time.time() / 60) * 60 + 30.0)
    async with Sandbox(users=1_000, ids_window=Window(5, 60), clock=clock) as sandbox:
        braze = connect(sandbox, limits=Limits(ids=RateLimit(5, 60)))
        sandbox.use_up(4)
        assert await braze.users.get("u1", fields=FIELDS)
        calls = []
        for n in range(1, 61):
            calls.append(asyncio.create_task(braze.users.get(f"u{n}", fields=FIELDS)))
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert sandbox.counters.requests == 1
        assert braze.limits.snapshot()["ids"].waiting == 2
        with deadline(1), pytest.raises(DeadlineExceededError) as caught:
            await braze.users.get("u99", fields=FIELDS)
        assert caught.value.retry_after == pytest.approx(30, abs=2)
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        assert braze.limits.snapshot()["ids"].waiting == 1
        assert sandbox.counters.requests == 1
        await braze.aclose()
        with pytest.raises(ClientClosedError):
            await calls[0]
        assert nothing_left(braze)


async def test_a_window_that_turns_lets_the_filled_requests_go(connect: Connect) -> None:
    async with Sandbox(users=1_000, ids_window=Window(2, 1)) as sandbox:
        braze = connect(sandbox, limits=Limits(ids=RateLimit(2, 1)))
        sandbox.use_up(2)
        found = await get_all(braze, *(f"u{n}" for n in range(1, 101)))
        assert [user.email for user in found] == [sandbox.user(n).email for n in range(1, 101)]
        assert sum(record.status == 200 for record in sandbox.log) == 2
        assert nothing_left(braze)


async def test_a_refusal_with_a_time_is_waited_for_by_those_who_can(
    connect: Connect, sandbox: Sandbox
) -> None:
    braze = connect(sandbox)
    sandbox.inject(Fault(status=429, headers={"retry-after": "0.3", "x-ratelimit-reset": None}))

    async def hasty() -> Any:
        with deadline(0.2):
            return await braze.users.get("u1", fields=FIELDS)

    began = asyncio.get_running_loop().time()
    calls = [
        asyncio.create_task(hasty()),
        asyncio.create_task(braze.users.get("u2", fields=FIELDS)),
    ]
    with pytest.raises(RateLimitError) as caught:
        await calls[0]
    assert caught.value.retry_after == pytest.approx(0.3, abs=0.05)
    assert asyncio.get_running_loop().time() - began < 0.2
    assert (await calls[1]).email == sandbox.user(2).email
    assert nothing_left(braze)


async def test_giving_up_under_way_leaves_the_others_their_answers(connect: Connect) -> None:
    async with Sandbox(users=1_000, latency=0.05) as sandbox:
        braze = connect(sandbox)
        calls = [asyncio.create_task(braze.users.get(f"u{n}", fields=FIELDS)) for n in range(1, 21)]
        await until(lambda: sandbox.open_connections > 0)
        for call in calls[::2]:
            call.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(a, asyncio.CancelledError) for a in answers[::2])
        emails = [sandbox.user(n).email for n in range(2, 21, 2)]
        assert [user.email for user in answers[1::2]] == emails  # type: ignore[union-attr]
        assert sandbox.counters.requests == 1
        assert nothing_left(braze)


async def test_when_everybody_gives_up_nothing_more_is_sent(connect: Connect) -> None:
    async with Sandbox(faults=lambda *_: Fault(status=503)) as sandbox:
        braze = connect(sandbox, retry=attrs.evolve(QUICK, base=100.0, cap=100.0))
        call = asyncio.create_task(braze.users.get("u1", fields=FIELDS))
        await until(lambda: sandbox.counters.requests == 1)
        await asyncio.sleep(0.005)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await until(lambda: nothing_left(braze))
        assert sandbox.counters.requests == 1


async def test_a_deadline_under_way_is_one_caller_s_own(connect: Connect) -> None:
    async with Sandbox(users=1_000, latency=0.1) as sandbox:
        braze = connect(sandbox)
        other = asyncio.create_task(braze.users.get("u1", fields=FIELDS))
        with deadline(0.03), pytest.raises(DeadlineExceededError) as caught:
            await braze.users.get("u1", fields=FIELDS)
        assert caught.value.retry_after is None
        found = await other
        assert found is not None
        assert found.email == sandbox.user(1).email
        assert sandbox.counters.requests == 1


async def test_closing_ends_look_ups_under_way(connect: Connect) -> None:
    async with Sandbox(latency=5) as sandbox:
        braze = connect(sandbox)
        calls = [asyncio.create_task(braze.users.get(f"u{n}", fields=FIELDS)) for n in range(60)]
        await until(lambda: sandbox.open_connections > 0)
        await braze.aclose()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, ClientClosedError) for answer in answers)
        assert nothing_left(braze)


@attrs.define
class Mine:
    email: str
    first_name: str | None


async def test_different_classes_share_one_request(braze: BrazeClient, sandbox: Sandbox) -> None:
    fields = ["first_name", "email"]
    mine, plain, raw, typed = await asyncio.gather(
        braze.users.get("u1", into=Mine),
        braze.users.get("u1", fields=fields, into=dict),
        braze.users.get("u2", fields=fields, into=bytes),
        braze.users.get("u2", fields=fields),
    )
    assert mine == Mine(sandbox.user(1).email, plain["first_name"])  # type: ignore[index]
    assert set(plain or ()) <= set(fields)
    assert raw is not None
    assert b"external_id" not in raw
    assert typed is not None
    assert typed.email == sandbox.user(2).email
    assert sandbox.counters.requests == 1


async def test_what_is_kept_is_not_asked_for_again(connect: Connect, sandbox: Sandbox) -> None:
    braze = connect(sandbox, lookups=LookupSettings(cache=ProfileCache(seconds=60)))
    before = await get_all(braze, "u1", "nobody", "u2")
    assert await get_all(braze, "u2", "nobody", "u1") == before[::-1]
    assert sandbox.counters.requests == 1


async def test_large_profiles_are_told_apart_and_cut_right(connect: Connect) -> None:
    async with Sandbox(users=1_000, profile="full") as sandbox:
        braze = connect(sandbox)
        ids: list[Any] = [f"u{n}" for n in range(1, 41)]
        ids += [UserAlias(a.name, a.label) for a in (sandbox.user(n).alias for n in range(41, 51))]
        fields = ["email", "custom_events", "devices"]
        found = await braze.users.get_many(ids, fields=fields, into=dict)
        emails = [user["email"] for user in found.values() if user]
        assert emails == [sandbox.user(n).email for n in range(1, 51)]
        assert all(set(user or ()) <= set(fields) for user in found.values())
        assert sandbox.counters.requests == 1
