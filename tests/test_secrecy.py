"""The key, and the profiles, show nowhere: not in logs, reprs, errors or tracebacks."""

import asyncio
import copy
import logging
import pickle
import socket
import ssl
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    BrazeError,
    DecodeError,
    ExportJob,
    ExportSettings,
    InputError,
    Polling,
    RetryPolicy,
    Timeouts,
    TransportError,
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


# --- the link to an archive, which opens it for everyone

SIGNATURE = "s1gn4ture0fth3l1nk"
BOTH = pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
PATIENT = ExportSettings(polling=Polling(base=0.001, cap=0.002))

LINK_FAULTS = {
    "expired": Fault(status=403, body=b"<Error><Message>Request has expired</Message></Error>"),
    "broken": Fault(status=403, body=b"<Error><Code>SignatureDoesNotMatch</Code></Error>"),
    "echo": Fault(status=400, body=f"<Error><Code>X</Code>{SIGNATURE}</Error>".encode()),
    "echo in the message": Fault(status=400, body=f"<Message>{SIGNATURE}</Message>".encode()),
    "busy": Fault(status=503, body=SIGNATURE.encode()),
    "dropped before": Fault(drop="before"),
    "dropped in the headers": Fault(drop="headers"),
    "malformed length": Fault(headers={"content-length": SIGNATURE}),
    "malformed part": Fault(status=206, headers={"content-range": SIGNATURE}),
    "no archive": Fault(body=SIGNATURE.encode()),
    "redirect to nowhere": Fault(
        status=302, headers={"location": f"https://127.0.0.1:1/x?{SIGNATURE}"}
    ),
    "redirect refused": Fault(status=302, headers={"location": f"ftp://x/?{SIGNATURE}"}),
    "redirect without end": Fault(status=302, headers={"location": f"?{SIGNATURE}"}),
    "slow": Fault(slow=10),
}


def everything_of(error: BaseException) -> str:
    """All that can be shown of an error and of those behind it."""
    texts, left, seen = [], [error], set()
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        texts.append(f"{one!r} {one} {one.args!r} {vars(one)!r}")
        left += [e for e in (one.__cause__, one.__context__) if e is not None]
    return "".join([*texts, *traceback.format_exception(error)])


async def use_badly(braze: BrazeClient, url: str, path: Path) -> list[BaseException]:
    """Use a link in every way there is; return what was raised."""
    errors: list[BaseException] = []

    async def profiles(job: ExportJob) -> None:
        _ = [user async for user in job.profiles(timeout=0.02)]

    for use in (
        lambda job: job.wait(timeout=0.02),
        lambda job: job.download(path, timeout=0.02),
        profiles,
    ):
        try:
            await use(braze.users.resume_export(url))
        except BrazeError as error:
            errors.append(error)
    return errors


@BOTH
@pytest.mark.parametrize("name", LINK_FAULTS)
async def test_neither_link_nor_key_shows_when_a_download_goes_wrong(
    name: str, transport: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)  # of every library
    fault = LINK_FAULTS[name]
    async with Sandbox(
        api_key=KEY,
        users=20,
        log_size=100,
        faults=lambda _, path: fault if path.startswith("/exports/") else None,
    ) as sandbox:
        async with (
            BrazeClient(KEY, sandbox.url, transport=transport()) as patient,
            BrazeClient(
                KEY,
                sandbox.url,
                retry=QUICK,
                exports=PATIENT,
                transport=transport(),
                timeouts=Timeouts(read=0.02, connect=0.5),
            ) as braze,
        ):
            job = await patient.users.export_segment(sandbox.segment_id(1), fields=["email"])
            assert job.url is not None
            url = f"{job.url}&x={SIGNATURE}"
            errors = await use_badly(braze, url, tmp_path / "x.zip")
            signed = job.url.partition("Signature=")[2]
        downloads = [r for r in sandbox.log if r.path.startswith("/exports/")]
    assert errors
    assert downloads
    assert not any(record.authorized for record in downloads)
    assert all(KEY not in str(record.headers) for record in downloads)
    logs = "\n".join(f"{r.getMessage()} {r.exc_text}" for r in caplog.records)
    for text in (*map(everything_of, errors), logs, caplog.text):
        for secret in (SIGNATURE, signed, KEY):
            assert secret not in text


@BOTH
async def test_the_link_shows_in_no_log_of_what_goes_well(
    transport: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Sandbox(api_key=KEY, users=20) as sandbox:
        async with BrazeClient(KEY, sandbox.url, exports=PATIENT, transport=transport()) as braze:
            job = await braze.users.export_segment(sandbox.segment_id(1), fields=["email"])
            assert job.url is not None
            _ = [user async for user in job.profiles()]
            await job.download(tmp_path / "x.zip")
            parts: list[Any] = [job, job._context, job._link(), job.stats, job._endpoint]
            for part in parts:
                assert job.url not in f"{part!r} {part}"
                assert "Signature" not in f"{part!r} {part}"
        assert len([r for r in sandbox.log if r.path.startswith("/exports/")]) == 4
    assert "Signature" not in caplog.text
    assert KEY not in caplog.text


async def test_other_requests_are_still_logged_by_httpx(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with (
        Sandbox(users=1) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, transport=HttpxTransport()) as braze,
    ):
        await braze.users.get("u1")
    assert "HTTP Request: POST" in caplog.text


@pytest.fixture
def own_certificate() -> ssl.SSLContext:
    """A server's certificate that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


@BOTH
@pytest.mark.parametrize("kind", ["refused", "unknown", "untrusted", "hangs"])
async def test_the_link_is_in_nothing_chained(
    kind: str,
    transport: Any,
    own_certificate: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    caplog.set_level(logging.DEBUG)
    server = await asyncio.start_server(
        hang, "127.0.0.1", 0, ssl=own_certificate if kind == "untrusted" else None
    )
    port = server.sockets[0].getsockname()[1]
    if kind == "refused":
        server.close()
    host = "storage.example" if kind == "unknown" else f"127.0.0.1:{port}"
    if kind == "unknown":
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    braze = BrazeClient(
        KEY,
        "US-01",
        exports=PATIENT,
        transport=transport(),
        retry=QUICK,
        timeouts=Timeouts(read=0.01, connect=0.5),
    )
    scheme = "http" if kind == "hangs" else "https"
    async with server, braze:
        job = braze.users.resume_export(f"{scheme}://{host}/11-1700000000.zip?{SIGNATURE}")
        with pytest.raises(TransportError) as caught:
            await job.wait()
        assert caught.value.__context__ is None
        text = everything_of(caught.value)
    assert SIGNATURE not in text + caplog.text
    assert KEY not in text + caplog.text
    assert "GET link of the export" in str(caught.value)


async def test_a_job_and_its_link_are_not_shown_by_their_reprs() -> None:
    async with BrazeClient(KEY, "US-01") as braze:
        job = braze.users.resume_export(f"https://storage.example/11-1700000000.zip?{SIGNATURE}")
        assert repr(job) == "ExportJob(object_prefix=None, segment_id=None)"
        assert SIGNATURE not in f"{job._link()!r} {job._context!r}"
        assert KEY not in f"{job._link()!r} {job._context!r}"
        for bad in ("http://storage.example/x", "https://u:p@storage.example/x", "ftp://x"):
            with pytest.raises(InputError) as caught:
                braze.users.resume_export(f"{bad}?{SIGNATURE}")
            assert SIGNATURE not in everything_of(caught.value)
