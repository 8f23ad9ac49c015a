"""The key, and the profiles, show nowhere: not in logs, reprs, errors or tracebacks."""

import asyncio
import copy
import logging
import pickle
import traceback
from dataclasses import dataclass
from typing import Any

import pytest

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    BrazeError,
    DecodeError,
    RetryPolicy,
)
from braze_export.sandbox import Fault, Sandbox
from braze_export.transports.httpx import HttpxTransport

KEY = "s3cr3t-key-of-the-workspace"
EMAIL = "ada.lovelace@example.com"
QUICK = RetryPolicy(max_attempts=2, max_refusals=2, base=0.001)

FAULTS = {
    "echo in message": Fault(status=400, body={"message": f"no: Bearer {KEY}"}),
    "echo in errors": Fault(status=400, body={"message": "no", "errors": [KEY, {"message": KEY}]}),
    "echo in error": Fault(status=400, body={"error": KEY}),
    "echo in text": Fault(status=500, body=f"Authorization: Bearer {KEY}".encode()),
    "unauthorised": Fault(status=401),
    "forbidden": Fault(status=403),
    "limited": Fault(status=429, headers={"retry-after": "0", "x-ratelimit-reset": None}),
    "failing": Fault(status=503),
    "dropped": Fault(drop="body"),
    "garbage": Fault(garbage=True),
    "profile that is none": Fault(body={"message": "success", "users": [[EMAIL]]}),
    "json that breaks off": Fault(body=f'{{"users": [{{"email": "{EMAIL}'.encode()),
    "redirect": Fault(status=302, headers={"location": f"http://127.0.0.1:1/?key={KEY}"}),
}


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize("name", FAULTS)
async def test_neither_key_nor_profile_shows_when_something_goes_wrong(
    name: str, transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "braze_export")
    async with Sandbox(api_key=KEY, faults=lambda *_: FAULTS[name]) as sandbox:
        braze = BrazeClient(KEY, sandbox.url, retry=QUICK, transport=transport())
        async with braze:
            with pytest.raises(BrazeError) as caught:
                await braze.users.export_ids([EMAIL]).collect()
    shown = "".join(traceback.format_exception(caught.value))
    for text in (shown, repr(caught.value), repr(caught.value.args), caplog.text):
        assert KEY not in text
        assert EMAIL not in text


async def test_a_profile_that_does_not_fit_shows_in_no_traceback() -> None:
    @dataclass
    class Row:
        email: int

    body = {"message": "success", "users": [{"email": EMAIL}]}
    async with (
        Sandbox(api_key=KEY, faults=lambda *_: Fault(body=body)) as sandbox,
        BrazeClient(KEY, sandbox.url) as braze,
    ):
        with pytest.raises(DecodeError, match=r"profile\.email") as caught:
            await braze.users.get("u1", into=Row)
    assert EMAIL not in "".join(traceback.format_exception(caught.value))
    assert EMAIL.encode() in caught.value.raw


MALFORMED = [
    b"garbage\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n bad header\r\n\r\n",
]


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize("sent", MALFORMED)
async def test_the_key_is_in_nothing_chained_to_an_error(sent: bytes, transport: Any) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        BrazeClient(KEY, f"http://127.0.0.1:{port}", retry=QUICK, transport=transport()) as braze,
    ):
        with pytest.raises(BrazeError) as caught:
            await braze.users.get("u1")
    link: BaseException | None = caught.value
    while link is not None:
        assert KEY not in f"{link!r} {link!s} {vars(link)!r}"
        link = link.__cause__ or link.__context__


async def test_the_key_is_in_no_repr_of_anything_reachable() -> None:
    braze = BrazeClient(KEY, "US-01")
    parts: list[Any] = [braze, braze.users, braze.segments, braze._caller, braze._caller.key]
    parts += [braze._transport, braze._scope, braze.users.export_ids(["u1"])]
    for part in parts:
        assert KEY not in f"{part!r} {part!s}"
    frames = traceback.StackSummary.extract(
        traceback.walk_stack(None), capture_locals=True, limit=3
    )
    own = [v for f in frames for n, v in (f.locals or {}).items() if n in {"braze", "parts"}]
    assert own
    assert not any(KEY in value for value in own)
    await braze.aclose()


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy])
def test_the_key_is_not_pickled(copying: Any) -> None:
    key = BrazeClient(KEY, "US-01")._caller.key
    with pytest.raises(TypeError, match="not pickled"):
        copying(key)


async def test_the_key_goes_to_its_host_only() -> None:
    async with Sandbox() as elsewhere:
        for status in (301, 302, 303, 307, 308):
            fault = Fault(status=status, headers={"location": elsewhere.url})
            async with Sandbox(faults=lambda *_, f=fault: f) as sandbox:
                for transport in (AiohttpTransport(), HttpxTransport()):
                    async with BrazeClient(
                        sandbox.api_key, sandbox.url, transport=transport
                    ) as braze:
                        with pytest.raises(BrazeError):
                            await braze.users.get("u1")
                        with pytest.raises(BrazeError):
                            _ = [s async for s in braze.segments.list()]
        assert elsewhere.connections_made == 0
    await asyncio.sleep(0)


async def test_what_goes_well_is_not_logged_with_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "braze_export")
    async with Sandbox(users=10, api_key=KEY) as sandbox, BrazeClient(KEY, sandbox.url) as braze:
        users = (await braze.users.export_ids([*sandbox.external_ids(), EMAIL]).collect()).users
    assert KEY not in caplog.text
    assert EMAIL not in caplog.text
    assert not any(str(user.email) in caplog.text for user in users)
