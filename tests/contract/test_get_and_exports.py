import asyncio
from typing import Any

import pytest

from braze_export import (
    AuthenticationError,
    BadRequestError,
    BrazeClient,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    EmailAddress,
    ExportInProgressError,
    InputError,
    PermissionDeniedError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Timeouts,
    UserAlias,
)
from braze_export.sandbox import Fault, Sandbox
from tests.contract.conftest import QUICK, Connect


async def test_get_gives_a_profile_or_none(braze: BrazeClient, sandbox: Sandbox) -> None:
    user = await braze.users.get("u1", fields=["external_id", "email"])
    assert user is not None
    assert (user.external_id, user.email) == ("u1", sandbox.user(1).email)
    assert await braze.users.get("nobody") is None
    assert await braze.users.get(EmailAddress("no@one.example")) is None
    alias = sandbox.user(5).alias
    found = await braze.users.get(UserAlias(alias.name, alias.label), into=dict)
    assert found is not None
    assert found["external_id"] == "u5"


@pytest.mark.parametrize("bad", ["", None, 5, ["u1"]])
async def test_get_refuses_what_is_no_identifier(
    braze: BrazeClient, sandbox: Sandbox, bad: Any
) -> None:
    with pytest.raises(InputError):
        await braze.users.get(bad)
    assert sandbox.counters.requests == 0


async def test_a_wrong_key(connect: Connect, sandbox: Sandbox) -> None:
    braze = BrazeClient("wrong", sandbox.url, transport=connect(sandbox)._transport)
    with pytest.raises(AuthenticationError, match="instance"):
        await braze.users.get("u1")


async def test_a_key_without_the_permission(connect: Connect) -> None:
    async with Sandbox(permissions={"segments.list"}) as sandbox:
        braze = connect(sandbox)
        with pytest.raises(PermissionDeniedError, match=r"users\.export\.ids"):
            await braze.users.get("u1")
        assert [s async for s in braze.segments.list()]


async def test_a_server_that_is_not_there(connect: Connect, sandbox: Sandbox) -> None:
    braze = connect(sandbox)
    await sandbox.aclose()
    with pytest.raises(ConnectError) as caught:
        await braze.users.get("u1")
    assert caught.value.attempts == 4
    assert caught.value.sent is False


@pytest.mark.parametrize(
    "timeouts", [Timeouts(read=0.02), Timeouts(total=0.02)], ids=["read", "total"]
)
async def test_a_server_that_hangs(connect: Connect, timeouts: Timeouts) -> None:
    async with Sandbox(latency=30) as sandbox:
        braze = connect(sandbox, timeouts=timeouts)
        with pytest.raises(RequestTimeoutError):
            await braze.users.get("u1")
        await braze.aclose()


async def test_a_trickle_meets_the_total_timeout(connect: Connect) -> None:
    async with Sandbox(faults=lambda *_: Fault(slow=200)) as sandbox:
        braze = connect(sandbox, timeouts=Timeouts(read=5, total=0.05))
        with pytest.raises(RequestTimeoutError):
            await braze.users.get("u1")
        await braze.aclose()


async def test_redirects_are_not_followed(connect: Connect) -> None:
    async with Sandbox() as elsewhere:
        fault = Fault(status=307, headers={"location": f"{elsewhere.url}/users/export/ids"})
        async with Sandbox(faults=lambda *_: fault) as sandbox:
            with pytest.raises(Exception, match="Redirects are not followed"):
                await connect(sandbox).users.get("u1")
        assert elsewhere.connections_made == 0


# --- exports in the background


async def test_a_segment_export_is_started(braze: BrazeClient, sandbox: Sandbox) -> None:
    job = await braze.users.export_segment(
        sandbox.segment_id(1),
        fields=["email"],
        custom_attributes=["a", "b"],
        callback_url="https://example.com/done",
        output_format="gzip",
    )
    assert job.segment_id == sandbox.segment_id(1)
    assert job.url is not None
    assert job.object_prefix
    assert job.object_prefix in job.url
    assert job.url not in repr(job)
    assert sandbox.log[-1].body == {
        "segment_id": sandbox.segment_id(1),
        "fields_to_export": ["email"],
        "custom_attributes_to_export": ["a", "b"],
        "callback_endpoint": "https://example.com/done",
        "output_format": "gzip",
    }


async def test_the_control_group_is_exported(braze: BrazeClient, sandbox: Sandbox) -> None:
    job = await braze.users.export_global_control_group(fields=["email"])
    assert job.segment_id is None
    assert sandbox.log[-1].body == {"fields_to_export": ["email"]}


@pytest.mark.parametrize("own_storage", ["null", "absent"])
async def test_with_own_storage_there_is_no_url(connect: Connect, own_storage: Any) -> None:
    async with Sandbox(own_storage=own_storage) as sandbox:
        job = await connect(sandbox).users.export_segment(sandbox.segment_id(1), fields=["email"])
    assert job.url is None
    assert job.object_prefix


async def test_a_second_export_of_a_segment_is_in_progress(connect: Connect) -> None:
    async with Sandbox(export_seconds=3600) as sandbox:
        users = connect(sandbox).users
        segment = sandbox.segment_id(1)
        await users.export_segment(segment, fields=["email"])
        with pytest.raises(ExportInProgressError, match="already running"):
            await users.export_segment(segment, fields=["email"])
        assert sandbox.counters.requests == 2
        await users.cancel_segment_export(segment)
        await users.export_segment(segment, fields=["email"])


@pytest.mark.parametrize("operation", ["segment", "control group"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=500), ServerError),
        (Fault(drop="before"), ConnectionLostError),
        (Fault(drop="body"), ConnectionLostError),
        (Fault(garbage=True), DecodeError),
        (Fault(status=200, body={"message": "success"}), DecodeError),
    ],
)
async def test_a_start_that_may_have_worked_is_not_repeated(
    braze: BrazeClient, sandbox: Sandbox, operation: str, fault: Fault, kind: type[Exception]
) -> None:
    sandbox.inject(fault)
    with pytest.raises(kind):
        if operation == "segment":
            await braze.users.export_segment(sandbox.segment_id(1), fields=["email"])
        else:
            await braze.users.export_global_control_group(fields=["email"])
    assert sandbox.counters.requests == 1


async def test_an_unknown_segment_is_a_bad_request(braze: BrazeClient) -> None:
    with pytest.raises(BadRequestError):
        await braze.users.export_segment("nothing", fields=["email"])
    with pytest.raises(BadRequestError):
        await braze.users.cancel_segment_export("nothing")


@pytest.mark.parametrize(
    "options",
    [
        {"segment_id": ""},
        {"segment_id": None},
        {"fields": []},
        {"fields": "email"},
        {"custom_attributes": "a"},
        {"custom_attributes": [""]},
        {"custom_attributes": [str(n) for n in range(501)]},
        {"callback_url": "ftp://x"},
        {"callback_url": 5},
        {"output_format": "rar"},
    ],
)
async def test_bad_arguments_of_an_export(
    braze: BrazeClient, sandbox: Sandbox, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        await braze.users.export_segment(**({"segment_id": "s", "fields": ["email"]} | options))
    assert sandbox.counters.requests == 0


async def test_passing_trouble_is_outlived_by_cancel(braze: BrazeClient, sandbox: Sandbox) -> None:
    sandbox.inject(Fault(status=503))
    await braze.users.cancel_segment_export(sandbox.segment_id(1))
    assert sandbox.counters.requests == 2


def test_the_policy_of_these_tests_waits_for_nothing() -> None:
    assert QUICK.cap <= 0.01


async def test_closing_the_client_ends_single_calls(connect: Connect) -> None:
    async with Sandbox(latency=5) as sandbox:
        braze = connect(sandbox)
        calls = [
            asyncio.create_task(braze.users.get("u1")),
            asyncio.create_task(braze.users.export_segment("s", fields=["email"])),
            asyncio.create_task(braze.segments.details("s")),
        ]
        while sandbox.open_connections < 3:
            await asyncio.sleep(0.001)
        made = sandbox.connections_made
        await braze.aclose()
        for call in calls:
            with pytest.raises(ClientClosedError):
                await call
        with pytest.raises(ClientClosedError):
            _ = [s async for s in braze.segments.list()]
        assert sandbox.connections_made == made


async def test_closing_the_client_ends_a_wait_for_the_next_try(connect: Connect) -> None:
    async with Sandbox(faults=lambda *_: Fault(status=503)) as sandbox:
        braze = connect(sandbox, retry=RetryPolicy(base=1e6, cap=1e6, max_seconds=1e9))
        call = asyncio.create_task(braze.users.get("u1"))
        while not sandbox.counters.requests:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        await braze.aclose()
        with pytest.raises(ClientClosedError):
            await call


async def test_a_job_without_a_prefix_is_kept(connect: Connect) -> None:
    body = {"message": "success", "url": "https://example.com/x.zip"}
    async with Sandbox(faults=lambda *_: Fault(status=200, body=body)) as sandbox:
        job = await connect(sandbox).users.export_segment("s", fields=["email"])
    assert (job.object_prefix, job.url) == (None, "https://example.com/x.zip")
