"""What docs/security.md promises and no other test holds: hostile hosts, logs with locals, memory.

Each over real sockets and both transports.
"""

import asyncio
import copy
import gzip
import json
import pickle
import re
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import httpx
import pytest
import trustme
from attrs import frozen
from packaging.version import Version

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    BrazeError,
    ConnectError,
    DecodeError,
    InputError,
    Limits,
    RetryPolicy,
    Timeouts,
    deadline,
    wire,
)
from braze_export.endpoints import SEGMENTS_LIST
from braze_export.sandbox import Fault, Sandbox
from braze_export.transports.httpx import HttpxTransport

KEY = "s3cr3t-key-of-the-workspace"
EMAIL = "ada.lovelace@example.com"
SIGNATURE = "s1gn4ture0fth3l1nk"
ONCE = RetryPolicy(max_attempts=1)
MEGABYTE = 1024 * 1024
#: It knows gzip in lower case only.
OLD_AIOHTTP = Version(aiohttp.__version__) < Version("3.14.4")
BOTH = pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])


def client(url: str, transport: Any, **options: Any) -> BrazeClient:
    return BrazeClient(KEY, url, transport=transport, **{"retry": ONCE, **options})


@asynccontextmanager
async def saying(
    *parts: bytes, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that says this to whoever connects; its port, and what it was asked."""
    asked: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            for part in parts:
                writer.write(part)
                await writer.drain()
        except (OSError, EOFError):  # the other side had enough
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


# --- logs with locals


def chain(error: BaseException) -> Iterator[BaseException]:
    left, seen = [error], set()
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            left += [e for e in (one.__cause__, one.__context__) if e is not None]


def frames(error: BaseException) -> Iterator[FrameType]:
    for one in chain(error):
        link = one.__traceback__
        while link is not None:
            if link.tb_frame.f_code.co_filename != __file__:
                yield link.tb_frame
            link = link.tb_next


def serialised(value: Any, depth: int = 5) -> str:
    """What services that collect errors make of a local: containers entered, the rest by repr."""
    if isinstance(value, str | bytes):
        return str(value) + repr(value)
    if depth and isinstance(value, Mapping):
        return "".join(serialised(v, depth - 1) for pair in value.items() for v in pair)
    if depth and isinstance(value, list | tuple | set):
        return "".join(serialised(item, depth - 1) for item in value)
    return repr(value)


def locals_of(error: BaseException) -> str:
    return "".join(serialised(dict(frame.f_locals)) for frame in frames(error))


async def closed_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


FAULTS = {
    "before": Fault(drop="before"),
    "headers": Fault(drop="headers"),
    "body": Fault(drop="body"),
    "slow": Fault(delay=5),
    "not gzip": Fault(content_encoding="gzip", body=b"x" * 100),
    "not json": Fault(body=b"x"),
    "refused": Fault(status=401),
    "failing": Fault(status=503),
    "redirect": Fault(status=302, headers={"location": f"http://127.0.0.1:1/{KEY}"}),
}


async def failing(name: str, url: str, transport: Any) -> list[BaseException]:
    """What a call and a look-up raise, which share the way but not the tasks."""
    errors: list[BaseException] = []
    if name == "nobody":
        url = f"http://127.0.0.1:{await closed_port()}"
    async with client(url, transport, timeouts=Timeouts(read=0.05)) as braze:
        for call in (braze.segments.details("x"), braze.users.get("u1")):
            with pytest.raises(BrazeError) as caught:
                await call
            errors.append(caught.value)
    return errors


@BOTH
@pytest.mark.parametrize("name", ["nobody", *FAULTS])
async def test_no_frame_of_a_request_that_fails_holds_the_key(name: str, transport: Any) -> None:
    async with Sandbox(api_key=KEY, users=1, faults=lambda *_: FAULTS.get(name)) as sandbox:
        errors = await failing(name, sandbox.url, transport())
    for error in errors:
        assert any(frames(error))
        assert KEY not in locals_of(error)


@BOTH
@pytest.mark.parametrize("how", ["cancelled", "closed", "deadline", "timeout"])
async def test_no_frame_of_a_request_that_is_ended_holds_the_key(how: str, transport: Any) -> None:
    async with (
        Sandbox(api_key=KEY, users=1, faults=lambda *_: Fault(delay=5)) as sandbox,
        client(sandbox.url, transport()) as braze,
    ):

        async def call() -> None:
            if how == "deadline":
                with deadline(0.05):
                    await braze.segments.details("x")
            elif how == "timeout":
                async with asyncio.timeout(0.05):
                    await braze.segments.details("x")
            else:
                await braze.segments.details("x")

        task = asyncio.create_task(call())
        while not sandbox.connections_made:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)  # so that it waits for the answer
        if how == "cancelled":
            task.cancel()
        elif how == "closed":
            await braze.aclose()
        with pytest.raises((BrazeError, TimeoutError, asyncio.CancelledError)) as caught:
            await task
    assert KEY not in locals_of(caught.value)


@BOTH
async def test_no_frame_of_a_download_that_is_cancelled_holds_the_link(transport: Any) -> None:
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, client(url, transport()) as braze:
        job = braze.users.resume_export(f"{url}/11-1700000000.zip?{SIGNATURE}")
        task = asyncio.create_task(job.wait())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert SIGNATURE not in locals_of(caught.value)


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 No\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://x/?" + SIGNATURE.encode() + b"\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
    ids=["500", "redirects", "redirect refused", "garbage", "nothing"],
)
async def test_no_frame_of_a_download_that_fails_holds_the_link(
    answer: bytes, transport: Any, tmp_path: Path
) -> None:
    async with saying(answer) as (port, _):
        url = f"http://127.0.0.1:{port}"
        async with client(url, transport()) as braze:
            job = braze.users.resume_export(f"{url}/11-1700000000.zip?{SIGNATURE}")
            for use in (job.wait(timeout=0.02), job.download(tmp_path / "x.zip", timeout=0.02)):
                with pytest.raises(BrazeError) as caught:
                    await use
                assert SIGNATURE not in locals_of(caught.value)


@BOTH
async def test_frames_of_what_the_caller_was_handling_stay(transport: Any) -> None:
    request = wire.Request(
        SEGMENTS_LIST, f"http://127.0.0.1:{await closed_port()}", wire.ApiKey(KEY), "t", Timeouts()
    )
    over = transport()
    try:
        int("of the caller")
    except ValueError as error:
        with pytest.raises(ConnectError) as caught:
            await over.send(request)
        assert error.__traceback__ is not None
    assert any(type(one) is ValueError for one in chain(caught.value))
    await over.aclose()


@pytest.mark.parametrize(
    ("key", "url", "options"),
    [
        (KEY, "US-99", {}),
        (KEY, "http://elsewhere.example", {}),
        (f"{KEY}\n", "US-01", {}),
        (f'"{KEY}"', "US-01", {}),
        (KEY, "US-01", {"limits": "redis://:pass@host"}),
    ],
)
def test_no_frame_of_a_client_that_cannot_be_made_holds_the_key(
    key: str, url: str, options: Any
) -> None:
    with pytest.raises(InputError) as caught:
        BrazeClient(key, url, **options)
    assert any(frames(caught.value))
    assert KEY not in locals_of(caught.value)
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.args!r}"


def test_headers_that_are_shown_do_not_show_the_key() -> None:
    request = wire.Request(SEGMENTS_LIST, "http://x", wire.ApiKey(KEY), "tests", Timeouts())
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in f"{request.headers!r} {request!r}"


# --- copies


@pytest.mark.parametrize("how", [pickle.dumps, copy.deepcopy])
async def test_what_has_the_key_is_not_copied_elsewhere(how: Callable[[Any], Any]) -> None:
    async with BrazeClient(KEY, "US-01") as braze:
        job = braze.users.resume_export(f"https://storage.example/11-1700000000.zip?{SIGNATURE}")
        request = wire.Request(SEGMENTS_LIST, "http://x", wire.ApiKey(KEY), "t", Timeouts())
        for whole in (braze, braze._caller, braze.users, job, request):
            with pytest.raises(TypeError):
                how(whole)
        assert KEY not in f"{copy.copy(request)!r} {vars(copy.copy(braze))!r}"


@BOTH
@pytest.mark.parametrize("name", ["nobody", "failing", "not json"])
async def test_a_pickled_error_is_without_the_key(name: str, transport: Any) -> None:
    async with Sandbox(api_key=KEY, users=1, faults=lambda *_: FAULTS.get(name)) as sandbox:
        for error in await failing(name, sandbox.url, transport()):
            assert KEY.encode() not in pickle.dumps(error)
            behind = error.__cause__  # which Dask's way to pickle takes along
            while behind is not None:
                assert KEY.encode() not in pickle.dumps(vars(behind))
                behind = behind.__cause__ or behind.__context__
            assert str(pickle.loads(pickle.dumps(error))) == str(error)


# --- logs


@BOTH
async def test_every_logger_at_debug_shows_neither_key_nor_profile(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0  # tells of every step
    caplog.set_level(1)
    echo = {"x-echo": f"Bearer {KEY}", "location": f"http://127.0.0.1:1/{KEY}"}
    faults = [None, Fault(headers=echo), Fault(status=302, headers=echo), Fault(drop="body")]
    for fault in faults:
        async with (
            Sandbox(api_key=KEY, users=3, faults=lambda *_, f=fault: f) as sandbox,
            client(sandbox.url, transport()) as braze,
        ):
            async for _ in braze.users.export_ids(["u1", EMAIL], on_error="yield"):
                pass
            looking = asyncio.create_task(braze.users.get("u2"))
            await asyncio.sleep(0)
            looking.cancel()
    shown = "\n".join(f"{r.getMessage()} {r.exc_text} {r.args!r}" for r in caplog.records)
    assert any(record.name == "asyncio" for record in caplog.records)
    for secret in (KEY, EMAIL, "user1@example.com"):
        assert secret not in shown + caplog.text


@BOTH
async def test_messages_of_braze_are_one_line_that_steers_nothing(transport: Any) -> None:
    said = "no\r\n2026-01-01 ERROR forged \x1b[2J\x9b2J \u202e"
    body = {"message": said, "errors": [said, {"message": said}]}
    async with (
        Sandbox(api_key=KEY, faults=lambda *_: Fault(status=400, body=body)) as sandbox,
        client(sandbox.url, transport()) as braze,
    ):
        with pytest.raises(BrazeError) as caught:
            await braze.segments.details("x")
    assert "forged" in str(caught.value)
    assert str(caught.value).isprintable()


# --- other hosts


@BOTH
@pytest.mark.parametrize("cookie", ["s=1", "s=1; Domain=localhost; Path=/", "s=1; Secure"])
async def test_cookies_are_not_kept(cookie: str, transport: Any) -> None:
    async with Sandbox(
        api_key=KEY, users=1, faults=lambda *_: Fault(headers={"set-cookie": cookie})
    ) as sandbox:
        url = sandbox.url.replace("127.0.0.1", "localhost")
        async with client(url, transport()) as braze:
            job = await braze.users.export_segment(sandbox.segment_id(1), fields=["email"])
            assert [user async for user in job.profiles()]
            assert await braze.users.get("u1")
        assert len(sandbox.log) >= 3
        assert not any("cookie" in record.headers for record in sandbox.log)


@frozen
class Certificates:
    """Servers' certificates, for this host and for another, and who trusts both."""

    here: ssl.SSLContext
    elsewhere: ssl.SSLContext
    trusting: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    authority = trustme.CA()

    def issued(name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return Certificates(issued("127.0.0.1"), issued("braze.example"), trusting)


@asynccontextmanager
async def own_session(transport: Any, trusting: ssl.SSLContext) -> AsyncIterator[Any]:
    if transport is AiohttpTransport:
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
            yield AiohttpTransport(session)
    else:
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as session:
            yield HttpxTransport(session)


@BOTH
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("upward", [False, True])
async def test_between_http_and_https_no_redirect_is_followed(
    status: int, upward: bool, transport: Any, certificates: Certificates
) -> None:
    tls = certificates.here
    schemes = ("http", "https") if upward else ("https", "http")
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n", tls=tls if upward else None) as (there, seen):
        location = f"{schemes[1]}://u:p@127.0.0.1:{there}/"
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        async with (
            saying(answer.encode(), tls=None if upward else tls) as (here, asked),
            own_session(transport, certificates.trusting) as over,
            client(f"{schemes[0]}://127.0.0.1:{here}", over) as braze,
        ):
            with pytest.raises(BrazeError, match="Redirects are not followed"):
                await braze.users.get("u1")
    assert KEY.encode() in asked[0]
    assert seen == []


@BOTH
async def test_a_certificate_for_another_host_is_refused(
    transport: Any, certificates: Certificates
) -> None:
    async with (
        saying(b"HTTP/1.1 200 OK\r\n\r\n", tls=certificates.elsewhere) as (port, asked),
        own_session(transport, certificates.trusting) as over,
        client(f"https://127.0.0.1:{port}", over) as braze,
    ):
        with pytest.raises(ConnectError):
            await braze.users.get("u1")
    assert asked == []


@pytest.fixture
def netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file with a login for every host, which some libraries look for."""
    (tmp_path / "netrc").write_text("default login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@BOTH
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nothing_of_the_environment_gets_between(
    scheme: str,
    transport: Any,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    netrc: None,
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")
    tls = certificates.here if scheme == "https" else None
    async with saying() as (proxy, tempted), saying(tls=tls) as here:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy}")
        url = f"{scheme}://127.0.0.1:{here[0]}"
        async with client(url, transport()) as braze:
            with pytest.raises(BrazeError):
                await braze.users.get("u1")
            job = braze.users.resume_export(f"{url}/11-1700000000.zip?x")
            with pytest.raises(BrazeError):
                await job.wait(timeout=0.02)
    assert tempted == []
    sent = [asked.lower().count(b"authorization: bearer") for asked in here[1]]
    assert sum(sent) == sum(sent[:1]) == (scheme == "http")
    assert not any(b"basic" in asked.lower() for asked in here[1])


# --- bombs


def bomb(megabytes: int) -> bytes:
    """Zeros packed by gzip to a thousandth, without an end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(MEGABYTE)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands alone
    return gzip.compress(b"")[:10] + block * megabytes


def packed(body: bytes, encoding: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@BOTH
async def test_an_answer_that_unpacks_to_more_than_any_is_left(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", 4 * MEGABYTE)
    body = bomb(10_000)
    async with (
        saying(packed(body, "gzip")) as (port, _),
        client(f"http://127.0.0.1:{port}", transport()) as braze,
    ):
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError, match="the body is over 4,194,304 bytes"):
                await braze.segments.details("x")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    # httpx unpacks what one read of its socket gives, 64 KB, in one piece.
    assert peak < 200 * MEGABYTE


@BOTH
async def test_an_answer_without_end_is_left(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_ANSWER", MEGABYTE)
    async with (
        saying(b"HTTP/1.1 200 OK\r\n\r\n", *[b" " * 65_536] * 32) as (port, _),
        client(f"http://127.0.0.1:{port}", transport()) as braze,
    ):
        with pytest.raises(DecodeError, match="the body is over 1,048,576 bytes"):
            await braze.segments.details("x")


@BOTH
@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip", "gzip, deflate", "compress"])
async def test_only_what_was_asked_for_is_unpacked(encoding: str, transport: Any) -> None:
    body = packed(zlib.compress(b"{}"), encoding)
    async with (
        saying(body) as (port, asked),
        client(f"http://127.0.0.1:{port}", transport()) as braze,
    ):
        # aiohttp may know before us that it cannot unpack it.
        with pytest.raises(BrazeError, match=r"was not asked for|connection was lost"):
            await braze.segments.details("x")
    assert b"accept-encoding: gzip, deflate\r\n" in asked[0].lower()


@BOTH
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZIP", ""])
async def test_what_was_asked_for_is_unpacked(encoding: str, transport: Any) -> None:
    if encoding == "GZIP" and transport is AiohttpTransport and OLD_AIOHTTP:
        pytest.skip("this aiohttp knows gzip in lower case only")
    plain = json.dumps({"message": "success", "segments": []}).encode()
    kind = encoding.lower()
    wbits = {"gzip": 31, "deflate": 15}.get(kind)
    packer = None if wbits is None else zlib.compressobj(9, zlib.DEFLATED, wbits)
    body = plain if packer is None else packer.compress(plain) + packer.flush()
    async with (
        saying(packed(body, encoding)) as (port, _),
        client(f"http://127.0.0.1:{port}", transport()) as braze,
    ):
        assert [segment async for segment in braze.segments.list()] == []


# --- hostile headers


@BOTH
@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: x\r\n" % number for number in range(100_000)),
        b"X: " + b"x" * 2_000_000 + b"\r\n",
        b"X: a\r\n b\r\n" * 50_000,
        b"X\r\n",
        b": x\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 99999999999999999999999999\r\n",
        b"Content-Length: 100\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    ],
    ids=range(10),
)
async def test_headers_that_no_server_sends_are_an_error_of_ours(
    headers: bytes, transport: Any
) -> None:
    async with (
        saying(b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n{}") as (port, _),
        client(f"http://127.0.0.1:{port}", transport(), timeouts=Timeouts(read=1)) as braze,
    ):
        with pytest.raises(BrazeError) as caught:
            await braze.segments.details("x")
    assert len(str(caught.value)) < 1_000


FAR = "9" * 300
ODD: list[dict[str, str | None]] = [
    {"x-ratelimit-reset": "1e308"},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": FAR},
    {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "32503680000"},
    {"x-ratelimit-limit": "1e308", "x-ratelimit-remaining": "1e308"},
    {"x-ratelimit-limit": FAR, "x-ratelimit-remaining": FAR},
    {"date": "Mon, 01 Jan 0001 00:00:00 GMT"},
    {"date": "Fri, 31 Dec 9999 23:59:59 -2359"},
]


@BOTH
@pytest.mark.parametrize("headers", ODD)
async def test_odd_rate_headers_stop_nobody(headers: dict[str, str | None], transport: Any) -> None:
    async with (
        Sandbox(api_key=KEY, users=3, faults=lambda *_: Fault(headers=headers)) as sandbox,
        client(sandbox.url, transport()) as braze,
    ):
        with deadline(5):
            assert all([await braze.users.get(f"u{number}") for number in (1, 2, 3)])


@BOTH
@pytest.mark.parametrize("after", ["1e308", "Fri, 31 Dec 9999 23:59:59 GMT", "86400"])
async def test_no_answer_closes_the_limit_for_ever(after: str, transport: Any) -> None:
    fault = Fault(status=429, headers={"retry-after": after})
    async with (
        Sandbox(api_key=KEY, users=1, faults=lambda *_: fault) as sandbox,
        client(sandbox.url, transport(), limits=Limits()) as braze,
    ):
        with pytest.raises(BrazeError):
            await braze.users.get("u1")
        closed = max(pool.closed_for for pool in braze.limits.snapshot().values())
    assert 7_000 < closed <= 7_200


# --- the page


def test_each_promise_names_tests_that_are_there() -> None:
    here = Path(__file__).parent
    page = (here.parent / "docs" / "security.md").read_text("utf-8")
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > 50
    tests = {file: (here / file).read_text("utf-8") for file, _ in named}
    assert [name for name in named if f"def {name[1]}(" not in tests[name[0]]] == []
