import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import attrs
import pytest

from braze_export import (
    APIError,
    AuthenticationError,
    BadRequestError,
    BrazeClient,
    BrazeError,
    BrazeId,
    ClientClosedError,
    DecodeError,
    DeviceId,
    EmailAddress,
    FailedBatch,
    Identifier,
    IdsResult,
    InputError,
    InvalidUserId,
    PermissionDeniedError,
    PhoneNumber,
    RetryPolicy,
    ServerError,
    UserAlias,
    UserProfile,
)
from braze_export.sandbox import Fault, Sandbox
from tests.contract.conftest import Connect

IDS = "/users/export/ids"


def ids(count: int, start: int = 1) -> Iterator[str]:
    return (f"u{n}" for n in range(start, start + count))


def at_work() -> set[str]:
    """The client's tasks that still run."""
    coros = [task.get_coro() for task in asyncio.all_tasks()]
    names = {str(getattr(coro, "__qualname__", "")) for coro in coros}
    return {name for name in names if name.startswith(("_Crew", "_Reader", "Caller"))}


async def test_every_known_user_and_every_unknown_id_comes_once(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    asked = [*ids(230), "nobody", "no one"]
    users, unknown = [], []
    async for item in braze.users.export_ids(asked):
        match item:
            case InvalidUserId(identifier=identifier):
                unknown.append(identifier)
            case UserProfile():
                users.append(item.external_id)
    assert sorted(map(str, users)) == sorted(asked[:230])
    assert sorted(map(str, unknown)) == ["no one", "nobody"]
    assert sandbox.counters.requests == 5
    assert sandbox.counters.rate_limited == 0


async def test_requests_are_full_and_name_the_fields(braze: BrazeClient, sandbox: Sandbox) -> None:
    await braze.users.export_ids(ids(101), fields=["email", "external_id"]).collect()
    bodies = [record.body for record in sandbox.log]
    assert sorted(len(body["external_ids"]) for body in bodies) == [1, 50, 50]
    assert all(body["fields_to_export"] == ["email", "external_id"] for body in bodies)


async def test_without_fields_none_are_sent(braze: BrazeClient, sandbox: Sandbox) -> None:
    await braze.users.export_ids(["u1"]).collect()
    assert "fields_to_export" not in sandbox.log[-1].body


async def test_every_kind_of_identifier(braze: BrazeClient, sandbox: Sandbox) -> None:
    person = sandbox.user(7)
    kinds: list[Identifier] = [
        person.external_id,
        UserAlias(person.alias.name, person.alias.label),
        BrazeId(sandbox.user(8).braze_id),
        DeviceId(sandbox.user(9).device_id),
        EmailAddress(sandbox.user(12).email),
        PhoneNumber(sandbox.user(13).phone),
    ]
    result = await braze.users.export_ids(kinds).collect()
    assert {u.external_id for u in result.users} == {"u7", "u8", "u9", "u12", "u13"}
    assert sandbox.counters.requests == 5


async def test_unknown_identifiers_of_every_kind_are_named_as_asked(braze: BrazeClient) -> None:
    kinds: list[Identifier] = [
        "nobody",
        UserAlias("no", "one"),
        BrazeId("0"),
        DeviceId("0"),
        EmailAddress("no@one.example"),
        PhoneNumber("+1"),
    ]
    export = braze.users.export_ids(kinds)
    assert await export.collect() == IdsResult([], list(export.invalid_user_ids), [])
    assert set(export.invalid_user_ids) == set(kinds)


async def test_one_address_may_give_several_users(braze: BrazeClient, sandbox: Sandbox) -> None:
    shared = next(
        sandbox.user(n).email
        for n in range(2, 100)
        if sandbox.user(n).email == sandbox.user(n - 1).email
    )
    result = await braze.users.export_ids([EmailAddress(shared)]).collect()
    assert len(result.users) == 2
    assert {u.email for u in result.users} == {shared}


async def test_duplicates_are_asked_for_once(braze: BrazeClient, sandbox: Sandbox) -> None:
    export = braze.users.export_ids(["u1", "u2", "u1", "u1"])
    assert len((await export.collect()).users) == 2
    assert export.stats.duplicates == 2
    assert sandbox.counters.identifiers == 2


async def test_an_empty_list_is_an_empty_result_and_no_request(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    assert await braze.users.export_ids([]).collect() == IdsResult()
    assert sandbox.counters.requests == 0


async def test_async_sources_and_slow_consumers(braze: BrazeClient, sandbox: Sandbox) -> None:
    read = 0

    async def source() -> AsyncIterator[str]:
        nonlocal read
        for identifier in ids(1000):
            read += 1
            yield identifier

    async with braze.users.export_ids(source(), concurrency=2) as export:
        taken = 0
        async for _ in export:
            taken += 1
            if taken == 60:
                break
            await asyncio.sleep(0)
        assert read <= 5 * 50
    assert sandbox.counters.requests <= 5


async def test_ordered_keeps_the_order_of_the_requests(connect: Connect) -> None:
    faults = [Fault(delay=0.05), None, Fault(delay=0.02), None]

    async with Sandbox(users=200, faults=lambda n, _: faults[n - 1]) as sandbox:
        braze = connect(sandbox)
        export = braze.users.export_ids(ids(200), ordered=True, fields=["external_id"])
        order = [str(user.external_id) async for user in export.profiles()]
    for batch in range(4):
        chunk = order[batch * 50 : batch * 50 + 50]
        assert set(chunk) == set(ids(50, 1 + 50 * batch))


async def test_raw_is_what_braze_sent(braze: BrazeClient) -> None:
    raws = [raw async for raw in braze.users.export_ids(["u1", "u2", "nobody"]).raw()]
    profiles = [p async for p in braze.users.export_ids(["u1", "u2"]).profiles()]
    assert {p.raw for p in profiles} == set(raws)
    assert {json.loads(raw)["external_id"] for raw in raws} == {"u1", "u2"}


async def test_into_a_class_asks_for_its_fields(braze: BrazeClient, sandbox: Sandbox) -> None:
    @dataclass
    class Row:
        external_id: str
        email: str | None
        created_at: datetime | None
        push_opted_in_at: datetime | None = None

    @attrs.frozen
    class Attributes:
        loyalty_points: int | None = None

    @attrs.frozen
    class Mine:
        external_id: str
        custom_attributes: Attributes = Attributes()

    rows = (await braze.users.export_ids(ids(20), into=Row).collect()).users
    assert {r.external_id for r in rows} == set(ids(20))
    assert sandbox.log[-1].body["fields_to_export"] == [
        "external_id", "email", "created_at", "push_subscribe",
    ]  # fmt: skip
    mine = (await braze.users.export_ids(ids(20), into=Mine).collect()).users
    assert all(isinstance(m.custom_attributes, Attributes) for m in mine)


async def test_into_bytes_gives_raw_json_beside_unknown_ids(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    items = [item async for item in braze.users.export_ids(["u1", "nobody"], into=bytes)]
    raws = [item for item in items if isinstance(item, bytes)]
    assert [json.loads(raw)["external_id"] for raw in raws] == ["u1"]
    assert [i for i in items if not isinstance(i, bytes)] == [InvalidUserId("nobody")]
    assert "fields_to_export" not in sandbox.log[-1].body


async def test_into_dict(braze: BrazeClient) -> None:
    result = await braze.users.export_ids(["u1"], into=dict).collect()
    assert result.users[0]["external_id"] == "u1"


async def test_a_class_that_does_not_fit_costs_that_user_only(braze: BrazeClient) -> None:
    @dataclass
    class Row:
        external_id: str
        email: int

    export = braze.users.export_ids(["u1", "u2"], into=Row, on_error="yield")
    items = [item async for item in export]
    assert all(isinstance(i, FailedBatch) and isinstance(i.error, DecodeError) for i in items)
    assert {i.identifiers for i in items if isinstance(i, FailedBatch)} == {("u1",), ("u2",)}
    with pytest.raises(DecodeError, match="email") as caught:
        await braze.users.export_ids(["u1"], into=Row).collect()
    assert b"u1" in caught.value.raw
    assert caught.value.identifiers == ("u1",)


async def test_a_poisoned_identifier_stands_alone(braze: BrazeClient, sandbox: Sandbox) -> None:
    asked = [*ids(49), "poison", *ids(100, 50)]
    export = braze.users.export_ids(asked, on_error="yield")
    users, failed = 0, []
    async for item in export:
        match item:
            case FailedBatch():
                failed.append(item)
            case UserProfile():
                users += 1
    assert users == 149
    assert [f.identifiers for f in failed] == [("poison",)]
    assert isinstance(failed[0].error, BadRequestError)
    assert export.failed == tuple(failed)
    assert sandbox.counters.requests <= 3 + 12


async def test_by_default_the_error_comes_after_what_was_fetched(braze: BrazeClient) -> None:
    with pytest.raises(BadRequestError) as caught:
        await braze.users.export_ids([*ids(49), "poison"]).collect()
    assert caught.value.identifiers == ("poison",)
    partial = caught.value.partial
    assert isinstance(partial, IdsResult)
    assert len(partial.users) > 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, PermissionDeniedError), (500, ServerError)],
)
async def test_a_failure_for_good_is_raised_or_yielded(
    connect: Connect, status: int, kind: type[BrazeError]
) -> None:
    async with Sandbox(users=100, faults=lambda *_: Fault(status=status)) as sandbox:
        braze = connect(sandbox)
        with pytest.raises(kind):
            await braze.users.export_ids(ids(100)).collect()
        items = [i async for i in braze.users.export_ids(ids(100), on_error="yield")]
    assert all(isinstance(i, FailedBatch) and isinstance(i.error, kind) for i in items)
    assert sum(len(i.identifiers) for i in items if isinstance(i, FailedBatch)) == 100


TROUBLE = {
    "500": Fault(status=500),
    "html 502": Fault(status=502, body=b"<html>bad gateway</html>"),
    "429": Fault(status=429, headers={"retry-after": "0.01", "x-ratelimit-reset": None}),
    "dropped before": Fault(drop="before"),
    "dropped in the headers": Fault(drop="headers"),
    "dropped in the body": Fault(drop="body"),
    "dropped after": Fault(drop="after"),
    "truncated": Fault(truncate=100),
    "garbage": Fault(garbage=True),
    "not gzip": Fault(content_encoding="gzip"),
    "empty": Fault(body=b""),
    "no rate headers": Fault(
        headers={f"x-ratelimit-{h}": None for h in ("limit", "remaining", "reset")}
    ),
    "garbage rate headers": Fault(
        headers={f"x-ratelimit-{h}": "soon" for h in ("limit", "remaining", "reset")}
    ),
    "skewed clock": Fault(clock_skew=-86_400),
}


@pytest.mark.parametrize("name", TROUBLE)
async def test_passing_trouble_loses_nothing(name: str, connect: Connect) -> None:
    def faults(number: int, _: str) -> Fault | None:
        return TROUBLE[name] if number % 3 == 1 else None

    async with Sandbox(users=500, faults=faults) as sandbox:
        braze = connect(sandbox, retry=RetryPolicy(max_attempts=12, base=0.001, cap=0.002))
        # A pause of the pool, which a 429 makes, would be a real one here.
        export = braze.users.export_ids([*ids(500), "nobody"], concurrency=4)
        result = await export.collect()
    assert {u.external_id for u in result.users} == set(ids(500))
    assert result.invalid_user_ids == ["nobody"]
    assert export.stats.requests == 11 + export.stats.retries


async def test_leaving_the_loop_early_leaves_nothing_behind(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    async for _ in braze.users.export_ids(ids(1000), concurrency=8):
        break
    for _ in range(1000):
        if not at_work():
            break
        await asyncio.sleep(0.001)
    assert not at_work()


async def test_a_block_left_early_has_ended_its_requests(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    class OwnError(Exception):
        pass

    with pytest.raises(OwnError):
        async with braze.users.export_ids(ids(1000), concurrency=8) as export:
            async for _ in export:
                assert at_work()
                raise OwnError
    assert not at_work()


async def test_cancelling_leaves_nothing_behind(connect: Connect) -> None:
    async with Sandbox(users=1000) as sandbox:
        braze = connect(sandbox)
        await braze.users.get("u1")  # asks what is left, so that the rest goes at once
        sandbox.latency = 5
        task = asyncio.create_task(braze.users.export_ids(ids(1000)).collect())
        while sandbox.open_connections < 8:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await braze.aclose()
        for _ in range(1000):
            if not sandbox.open_connections:
                break
            await asyncio.sleep(0.001)
        assert sandbox.open_connections == 0


async def test_closing_the_client_ends_an_export_with_our_error(connect: Connect) -> None:
    async with Sandbox(users=1000, latency=5) as sandbox:
        braze = connect(sandbox)
        task = asyncio.create_task(braze.users.export_ids(ids(1000)).collect())
        while sandbox.open_connections < 1:
            await asyncio.sleep(0.001)
        await braze.aclose()
        with pytest.raises(ClientClosedError):
            await task
    with pytest.raises(ClientClosedError):
        braze.users.export_ids(["u1"]).profiles()
    with pytest.raises(ClientClosedError):
        await braze.users.get("u1")


async def test_an_export_is_read_once(braze: BrazeClient) -> None:
    export = braze.users.export_ids(["u1"])
    await export.collect()
    with pytest.raises(InputError, match="once"):
        export.raw()


@pytest.mark.parametrize(
    "options",
    [
        {"identifiers": "u1"},
        {"identifiers": 5},
        {"concurrency": 0},
        {"concurrency": True},
        {"on_error": "ignore"},
        {"fields": "email"},
        {"fields": []},
        {"fields": [5]},
        {"into": int},
        {"into": "UserProfile"},
    ],
)
async def test_bad_arguments_are_refused_before_anything_is_sent(
    braze: BrazeClient, sandbox: Sandbox, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        braze.users.export_ids(**({"identifiers": ["u1"]} | options))
    assert sandbox.counters.requests == 0


async def test_a_bad_identifier_deep_in_a_list_is_found_before_anything_is_sent(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    with pytest.raises(InputError, match="position 900"):
        await braze.users.export_ids([*ids(900), 5]).collect()  # type: ignore[list-item]
    assert sandbox.counters.requests == 0


async def test_a_bad_identifier_in_a_stream_costs_only_itself(braze: BrazeClient) -> None:
    def source() -> Iterator[Any]:
        yield from ids(10)
        yield ""
        yield from ids(10, 11)

    export = braze.users.export_ids(source(), on_error="yield")
    result = await export.collect()
    assert len(result.users) == 20
    assert [f.identifiers for f in result.failed] == [("",)]
    assert export.stats.failed == 1


async def test_nonfatal_errors_are_told(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    body = {"message": "success", "users": [], "errors": ["u1 is odd", {"message": "so is u2"}]}
    async with Sandbox(faults=lambda *_: Fault(status=200, body=body)) as sandbox:
        export = connect(sandbox).users.export_ids(["u1", "u2"])
        assert await export.collect() == IdsResult()
    assert export.errors == ("u1 is odd", "so is u2")
    assert export.stats.unaccounted == 2
    assert "2 non-fatal errors" in caplog.text
    assert "odd" not in caplog.text


async def test_several_exports_share_a_client(braze: BrazeClient) -> None:
    results = await asyncio.gather(
        *(braze.users.export_ids(ids(100, 100 * n + 1)).collect() for n in range(5))
    )
    assert [len(r.users) for r in results] == [100] * 5


async def test_the_stats_tell_how_far_it_is(braze: BrazeClient) -> None:
    export = braze.users.export_ids([*ids(120), "nobody"])
    await export.collect()
    stats = export.stats
    assert (stats.identifiers, stats.users, stats.invalid_user_ids) == (121, 120, 1)
    assert (stats.requests, stats.retries, stats.rate_limited, stats.failed) == (3, 0, 0, 0)


async def test_a_new_workspace_refuses_requests_without_fields(connect: Connect) -> None:
    async with Sandbox.new_workspace(users=10) as sandbox:
        braze = connect(sandbox)
        with pytest.raises(APIError) as caught:
            await braze.users.get("u1")
        assert caught.value.status == 400
        assert await braze.users.get("u1", fields=["email"]) is not None


async def test_what_costs_the_fast_tier_is_said_once(
    braze: BrazeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "braze_export")
    await braze.users.get("u1", fields=["email"])
    assert "slower limit" not in caplog.text
    await braze.users.get("u1", fields=["email", "campaigns_received"])
    await braze.users.get("u1")
    assert caplog.text.count("slower limit") == 1


async def test_after_the_first_error_nothing_more_is_asked(connect: Connect) -> None:
    def faults(number: int, _: str) -> Fault | None:
        return Fault(status=401) if number == 1 else None

    async with Sandbox(users=5000, faults=faults) as sandbox:
        braze = connect(sandbox)
        with pytest.raises(AuthenticationError):
            async for _ in braze.users.export_ids(ids(5000), concurrency=4):
                await asyncio.sleep(0)
        assert sandbox.counters.requests <= 12


async def test_users_may_be_left_out_beside_unknown_ids(connect: Connect) -> None:
    body = {"message": "success", "invalid_user_ids": ["a", "b"]}
    async with Sandbox(faults=lambda *_: Fault(status=200, body=body)) as sandbox:
        result = await connect(sandbox).users.export_ids(["a", "b"]).collect()
    assert result == IdsResult([], ["a", "b"], [])


async def test_a_block_left_while_another_task_iterates_ends_that_too(connect: Connect) -> None:
    async with Sandbox(users=1000, latency=5) as sandbox:
        export = connect(sandbox).users.export_ids(ids(1000))

        async def iterate() -> None:
            async for _ in export:
                raise AssertionError

        async with export:
            child = asyncio.create_task(iterate())
            while sandbox.open_connections < 1:
                await asyncio.sleep(0.001)
        with pytest.raises(ClientClosedError, match="export"):
            await child
        assert not at_work()
