"""What only one transport can show: its library's exceptions, and the caller's own session."""

import asyncio
import gzip
import inspect
import socket
import ssl
import warnings
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest
import respx
import trustme
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InputError,
    RequestTimeoutError,
    RetryPolicy,
    Timeouts,
    TransportError,
)
from braze_export.endpoints import SEGMENTS_LIST
from braze_export.sandbox import Sandbox
from braze_export.transports import aiohttp as over_aiohttp
from braze_export.transports import httpx as over_httpx
from braze_export.transports.httpx import HttpxTransport
from braze_export.wire import ApiKey, Download, Request
from tests.cli.conftest import serving

ONCE = RetryPolicy(max_attempts=1)
URL = "https://rest.iad-01.braze.com"


def request(url: str = f"{URL}/segments/list") -> Request:
    return Request(SEGMENTS_LIST, url, ApiKey("key"), "tests", Timeouts())


# --- every exception lands in our tree

KEY: Any = ConnectionKey("h", 443, True, True, None, None, None)
OS = OSError(111, "refused")
AIOHTTP: dict[type[Exception], tuple[Any, ...]] = {
    aiohttp.ClientConnectorError: (KEY, OS),
    aiohttp.ClientConnectorDNSError: (KEY, OS),
    aiohttp.ClientProxyConnectionError: (KEY, OS),
    aiohttp.ClientConnectorSSLError: (KEY, OS),
    aiohttp.ClientSSLError: (KEY, OS),
    aiohttp.ClientConnectorCertificateError: (KEY, ssl.SSLCertVerificationError("no")),
    aiohttp.ServerFingerprintMismatch: (b"a", b"b", "h", 443),
}


def instance(kind: type[Exception]) -> Exception:
    if kind in AIOHTTP:
        return kind(*AIOHTTP[kind])
    if issubclass(kind, aiohttp.ClientResponseError):
        nothing: Any = None
        return kind(nothing, ())
    if issubclass(kind, aiohttp.InvalidURL):
        return kind("url")
    return kind()


def kinds_of(module: Any, base: type[Exception]) -> list[type[Exception]]:
    return [k for _, k in inspect.getmembers(module, inspect.isclass) if issubclass(k, base)]


@pytest.mark.parametrize("kind", [*kinds_of(aiohttp, aiohttp.ClientError), TimeoutError, OSError])
async def test_every_exception_of_aiohttp_is_translated(kind: type[Exception]) -> None:
    class Session:
        closed = False
        auto_decompress = True
        auth = None
        headers: dict[str, str] = {}  # noqa: RUF012

        def request(self, *args: Any, **kwargs: Any) -> Any:
            raise instance(kind)

    transport = AiohttpTransport(Session())  # type: ignore[arg-type]
    with pytest.raises(TransportError) as caught:
        await transport.send(request())
    assert caught.value.endpoint == "GET /segments/list"
    assert caught.value.hint.startswith("Check ")
    # An answer that is no HTTP carries the request's headers, with the key: it is not chained.
    assert (caught.value.__cause__ is None) == issubclass(kind, aiohttp.ClientResponseError)
    assert (caught.value.__context__ is None) == issubclass(kind, aiohttp.ClientResponseError)


@pytest.mark.parametrize(
    ("kind", "ours", "sent"),
    [
        (aiohttp.ConnectionTimeoutError, RequestTimeoutError, False),
        (aiohttp.SocketTimeoutError, RequestTimeoutError, True),
        (aiohttp.ServerTimeoutError, RequestTimeoutError, True),
        (TimeoutError, RequestTimeoutError, True),
        (aiohttp.ClientConnectorDNSError, ConnectError, False),
        (aiohttp.ClientConnectorCertificateError, ConnectError, False),
        (aiohttp.ServerDisconnectedError, ConnectionLostError, True),
        (aiohttp.ClientPayloadError, ConnectionLostError, True),
        (aiohttp.ClientOSError, ConnectionLostError, True),
    ],
)
def test_which_of_ours_an_exception_of_aiohttp_is(
    kind: type[Exception], ours: type[TransportError], sent: bool
) -> None:
    error = over_aiohttp.translate(instance(kind), "GET /x")
    assert type(error) is ours
    assert error.sent is sent


# Not raised by sending: by reading a cookie jar, and by asking for the status to be raised.
_NEVER = {httpx.CookieConflict, httpx.HTTPStatusError}
HTTPX = [kind for kind in kinds_of(httpx, Exception) if kind not in _NEVER]


@pytest.mark.parametrize("kind", [*HTTPX, TimeoutError, OSError])
async def test_every_exception_of_httpx_is_translated(kind: type[Exception]) -> None:
    no_arguments = issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError
    error = kind() if no_arguments else kind("no")
    with respx.mock:
        respx.get(f"{URL}/segments/list").mock(side_effect=error)
        transport = HttpxTransport()
        with pytest.raises(TransportError) as caught:
            await transport.send(request())
        await transport.aclose()
    # An answer that is no HTTP is quoted, and it may be a profile: it is not chained.
    quotes = issubclass(kind, httpx.ProtocolError)
    assert caught.value.__cause__ is (None if quotes else error)
    assert caught.value.__context__ is (None if quotes else error)


@pytest.mark.parametrize(
    ("error", "ours", "sent"),
    [
        (httpx.ConnectTimeout("x"), RequestTimeoutError, False),
        (httpx.PoolTimeout("x"), RequestTimeoutError, False),
        (httpx.ReadTimeout("x"), RequestTimeoutError, True),
        (TimeoutError(), RequestTimeoutError, True),
        (httpx.ConnectError("x"), ConnectError, False),
        (httpx.UnsupportedProtocol("x"), ConnectError, False),
        (httpx.ReadError("x"), ConnectionLostError, True),
        (httpx.RemoteProtocolError("x"), ConnectionLostError, True),
        (httpx.DecodingError("x"), ConnectionLostError, True),
    ],
)
def test_which_of_ours_an_exception_of_httpx_is(
    error: Exception, ours: type[TransportError], sent: bool
) -> None:
    translated = over_httpx.translate(error, "GET /x")
    assert type(translated) is ours
    assert translated.sent is sent


# --- httpx by respx


@respx.mock
async def test_httpx_sends_the_request_as_it_is() -> None:
    route = respx.post(f"{URL}/users/export/ids").respond(
        json={"message": "success", "users": [{"external_id": "u1"}]}
    )
    async with BrazeClient("key", "US-01", transport=HttpxTransport()) as braze:
        user = await braze.users.get("u1", fields=["email"])
    assert user is not None
    assert user.external_id == "u1"
    sent = route.calls.last.request
    assert sent.headers["Authorization"] == "Bearer key"
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.headers["User-Agent"].startswith("braze-export/")
    assert sent.content == b'{"external_ids":["u1"],"fields_to_export":["email"]}'


@pytest.fixture
def own_certificate() -> ssl.SSLContext:
    """A server's certificate that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


# --- sessions


async def test_an_own_session_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Sandbox(users=1) as sandbox, aiohttp.ClientSession() as session:
        async with BrazeClient(
            sandbox.api_key, sandbox.url, transport=AiohttpTransport(session)
        ) as braze:
            assert await braze.users.get("u1")
        assert not session.closed


async def test_an_own_httpx_client_stays_open() -> None:
    client = await asyncio.to_thread(httpx.AsyncClient)
    async with Sandbox(users=1) as sandbox, client:
        async with BrazeClient(
            sandbox.api_key, sandbox.url, transport=HttpxTransport(client)
        ) as braze:
            assert await braze.users.get("u1")
        assert not client.is_closed


async def test_a_session_that_its_owner_has_closed() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    braze = BrazeClient("key", "US-01", transport=AiohttpTransport(session))
    with pytest.raises(ClientClosedError, match="session"):
        await braze.users.get("u1")
    client = await asyncio.to_thread(httpx.AsyncClient)
    await client.aclose()
    braze = BrazeClient("key", "US-01", transport=HttpxTransport(client))
    with pytest.raises(ClientClosedError, match="client"):
        await braze.users.get("u1")


async def test_sessions_that_would_spoil_requests_are_refused() -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        with pytest.raises(InputError, match="auto_decompress"):
            AiohttpTransport(session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer versions
        owner = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with owner as session:
        with pytest.raises(InputError, match="auth"):
            AiohttpTransport(session)


async def test_an_httpx_client_that_would_replace_the_key_is_refused() -> None:
    client = await asyncio.to_thread(httpx.AsyncClient, auth=("a", "b"))
    with pytest.raises(InputError, match="auth"):
        HttpxTransport(client)
    await client.aclose()


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
async def test_a_closed_transport_opens_nothing_again(transport: Any) -> None:
    closed = transport()
    await closed.aclose()
    with pytest.raises(ClientClosedError):
        await closed.send(request())


async def test_a_transport_closed_while_it_opens_leaves_nothing_open() -> None:
    transport = HttpxTransport()
    sending = asyncio.create_task(transport.send(request()))
    await asyncio.sleep(0)
    await transport.aclose()
    with pytest.raises(ClientClosedError):
        await sending


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize("host", ["rest..braze.com", f"{'x' * 70}.com"])
async def test_a_host_that_cannot_be_looked_up(transport: Any, host: str) -> None:
    async with BrazeClient("key", f"https://{host}", transport=transport(), retry=ONCE) as braze:
        with pytest.raises(ConnectError):
            await braze.users.get("u1")


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
async def test_a_transport_that_was_never_used_closes(transport: Any) -> None:
    await transport().aclose()


async def test_two_first_requests_share_one_httpx_client() -> None:
    transport = HttpxTransport()
    async with Sandbox(users=10) as sandbox:
        async with BrazeClient(sandbox.api_key, sandbox.url, transport=transport) as braze:
            users = await asyncio.gather(*(braze.users.get(f"u{n}") for n in range(1, 6)))
        assert all(users)


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
async def test_a_certificate_that_is_not_trusted(
    transport: Any, own_certificate: ssl.SSLContext
) -> None:
    context = own_certificate
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    host, port = runner.addresses[0][:2]
    try:
        async with BrazeClient(
            "key", f"https://{host}:{port}", transport=transport(), retry=ONCE
        ) as braze:
            with pytest.raises(ConnectError):
                await braze.users.get("u1")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
async def test_a_name_that_is_unknown(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with BrazeClient("key", "US-01", transport=transport(), retry=ONCE) as braze:
        with pytest.raises(ConnectError):
            await braze.users.get("u1")


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
async def test_gzip_answers_are_decompressed(transport: Any) -> None:
    async with Sandbox(users=100, gzip=True) as sandbox:
        async with BrazeClient(sandbox.api_key, sandbox.url, transport=transport()) as braze:
            result = await braze.users.export_ids(sandbox.external_ids()).collect()
        assert len(result.users) == 100
        assert "gzip" in sandbox.log[-1].headers["accept-encoding"]


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
async def test_proxies_of_the_environment_are_not_used(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(users=1) as proxy, Sandbox(users=1) as sandbox:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with BrazeClient(sandbox.api_key, sandbox.url, transport=transport()) as braze:
            assert await braze.users.get("u1")
        assert proxy.connections_made == 0


# --- downloads

BOTH = pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])


def download(url: str = f"{URL}/x.zip?s1gn4ture", **headers: str) -> Download:
    return Download(url, headers, Timeouts(connect=2, read=0.3), "link of the export")


async def drained(transport: Any, what: Download) -> bytes:
    async with transport.stream(what) as answer:
        return b"".join([chunk async for chunk in answer.chunks])


def check_unchained(error: BaseException) -> None:
    assert error.__context__ is None
    assert error.__cause__ is None
    assert "s1gn4ture" not in f"{error!r} {error} {vars(error)}"


@pytest.mark.parametrize("kind", [*kinds_of(aiohttp, aiohttp.ClientError), TimeoutError, OSError])
async def test_every_exception_of_aiohttp_is_translated_for_downloads(
    kind: type[Exception],
) -> None:
    class Session:
        closed = False
        auto_decompress = True
        auth = None
        headers: dict[str, str] = {}  # noqa: RUF012

        async def get(self, *args: Any, **kwargs: Any) -> Any:
            raise instance(kind)

    with pytest.raises(TransportError) as caught:
        await drained(AiohttpTransport(Session()), download())  # type: ignore[arg-type]
    assert caught.value.endpoint == "link of the export"
    check_unchained(caught.value)


@pytest.mark.parametrize("kind", [*HTTPX, TimeoutError, OSError])
async def test_every_exception_of_httpx_is_translated_for_downloads(
    kind: type[Exception],
) -> None:
    no_arguments = issubclass(kind, httpx.StreamError) and kind is not httpx.StreamError
    with respx.mock:
        respx.get(f"{URL}/x.zip").mock(side_effect=kind() if no_arguments else kind("no"))
        transport = HttpxTransport()
        with pytest.raises(TransportError) as caught:
            await drained(transport, download())
        await transport.aclose()
    assert caught.value.endpoint == "link of the export"
    check_unchained(caught.value)


async def spoken(say: bytes, transport: Any, hang: bool = False) -> tuple[list[bytes], Any]:
    """Return what a download asks of a server that says this, and how it ended."""
    asked: list[bytes] = []
    done = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(say)
        if hang:
            await done.wait()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    over = transport()
    async with server:
        try:
            url = f"http://127.0.0.1:{port}/x.zip?s1gn4ture"
            return asked, await drained(over, download(url, Range="bytes=5-"))
        except TransportError as error:
            return asked, error
        finally:
            done.set()
            await over.aclose()


@BOTH
@pytest.mark.parametrize(
    "say",
    [
        b"",
        b"HTTP/1.1 200",
        b"garbage s1gn4ture\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
    ids=range(8),
)
async def test_an_answer_that_breaks_off_is_a_lost_connection(transport: Any, say: bytes) -> None:
    _, error = await spoken(say, transport)
    assert isinstance(error, ConnectionLostError)
    check_unchained(error)


@BOTH
@pytest.mark.parametrize(
    "say", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nabc"]
)
async def test_an_answer_that_stops_is_a_timeout(transport: Any, say: bytes) -> None:
    _, error = await spoken(say, transport, hang=True)
    assert isinstance(error, RequestTimeoutError)
    check_unchained(error)


@BOTH
async def test_the_body_is_taken_as_it_is_on_the_wire(transport: Any) -> None:
    packed = gzip.compress(b"abc")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    asked, body = await spoken(head.encode() + packed, transport)
    assert body == packed
    request = asked[0].lower()
    assert b"range: bytes=5-" in request
    assert b"authorization" not in request
    assert b"cookie" not in request


@BOTH
@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb/c%20d/%7Euser/x.zip?X-Amz-Signature=a%2Bb%2Fc%3D&X-Amz-Security-Token=%2F%2B",
        "/x.zip?sig=a+b/c=&se=2026-01-01T00:00:00Z&sr=b&sp=r",
        "/x.zip?a=1&a=2&b&c=&=d&&e",
        "/%E2%9C%93/x.zip?response-content-disposition=attachment%3B%20filename%3D%22x%22",
        "/x.zip?q=%zz%2",
        "/x.zip?q=!$'()*,;:@~._-",
        "/x.zip",
        "/",
        "//double//x.zip?y",
    ],
)
async def test_the_address_is_sent_as_it_was_signed(transport: Any, target: str) -> None:
    seen: list[bytes] = []

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    over = transport()
    async with server:
        await drained(over, download(f"http://127.0.0.1:{port}{target}#fragment"))
        await over.aclose()
    assert seen[0].decode() == f"GET {target} HTTP/1.1\r\n"


@BOTH
async def test_leaving_a_download_hangs_up(transport: Any) -> None:
    gone = asyncio.Event()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        assert await reader.read() == b""
        gone.set()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    over = transport()
    async with server:
        for how in ("chunk", "head"):
            gone.clear()
            async with over.stream(download(f"http://127.0.0.1:{port}/")) as answer:
                if how == "chunk":
                    assert await anext(answer.chunks) == b"abc"
            await asyncio.wait_for(gone.wait(), 5)
        await over.aclose()


@BOTH
async def test_downloads_that_do_not_get_anywhere(
    transport: Any, own_certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    server = await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=own_certificate)
    port = server.sockets[0].getsockname()[1]
    closed = await asyncio.start_server(nothing, "127.0.0.1", 0)
    nobody = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    over = transport()
    async with server:
        for host in (f"127.0.0.1:{port}", f"127.0.0.1:{nobody}", "storage.example"):
            if host == "storage.example":
                monkeypatch.setattr(socket, "getaddrinfo", unknown)
            with pytest.raises(ConnectError) as caught:
                await drained(over, download(f"https://{host}/x.zip?s1gn4ture"))
            check_unchained(caught.value)
        await over.aclose()


@BOTH
async def test_a_closed_transport_downloads_nothing(transport: Any) -> None:
    closed = transport()
    await closed.aclose()
    with pytest.raises(ClientClosedError):
        await drained(closed, download())


@BOTH
async def test_an_own_session_with_a_key_of_its_own_is_refused(transport: Any) -> None:
    headers = {"authorization": "Bearer other"}
    if transport is AiohttpTransport:
        async with aiohttp.ClientSession(headers=headers) as session:
            with pytest.raises(InputError, match="Authorization header"):
                AiohttpTransport(session)
        async with aiohttp.ClientSession(headers={"X-Other": "fine"}) as session:
            AiohttpTransport(session)
    else:
        client = await asyncio.to_thread(httpx.AsyncClient, headers=headers)
        with pytest.raises(InputError, match="Authorization header"):
            HttpxTransport(client)
        await client.aclose()


async def test_an_own_session_stays_open_after_a_download() -> None:
    client = await asyncio.to_thread(httpx.AsyncClient)
    async with (
        Sandbox(users=5) as sandbox,
        aiohttp.ClientSession(raise_for_status=True) as session,
        client,
    ):
        for transport in (AiohttpTransport(session), HttpxTransport(client)):
            async with BrazeClient(sandbox.api_key, sandbox.url, transport=transport) as braze:
                job = await braze.users.export_segment(sandbox.segment_id(1), fields=["email"])
                assert len([user async for user in job.profiles()]) == 5
        assert not session.closed
        assert not client.is_closed


# --- one event loop

CALLS: dict[str, Any] = {
    "get": lambda braze: braze.users.get("u1"),
    "export_ids": lambda braze: braze.users.export_ids(["u1"]).collect(),
    "segments.list": lambda braze: anext(braze.segments.list()),
    "export_segment": lambda braze: braze.users.export_segment("s1", fields=["email"]),
    "aclose": lambda braze: braze.aclose(),
}


@pytest.fixture
def served() -> Iterator[Sandbox]:
    """A local Braze in an event loop of its own."""
    with serving(users=3) as sandbox:
        yield sandbox


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_in_an_event_loop_beside_is_told_so(
    call: str, transport: Any, served: Sandbox
) -> None:
    async def main() -> None:
        async with BrazeClient(served.api_key, served.url, transport=transport()) as braze:
            await braze.users.get("u1")
            with pytest.raises(InputError, match="a client is for one event loop"):
                await asyncio.to_thread(lambda: asyncio.run(CALLS[call](braze)))
            assert await braze.users.get("u2") is not None

    asyncio.run(main())


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize("call", [name for name in CALLS if name != "aclose"])
def test_a_call_in_a_second_event_loop_is_told_so(
    call: str, transport: Any, served: Sandbox
) -> None:
    braze = BrazeClient(served.api_key, served.url, transport=transport())

    async def first() -> None:
        assert await braze.users.get("u1") is not None
        for its_own in ("_session", "_client"):  # or it would complain that it is not closed
            if session := getattr(braze._transport, its_own, None):
                await (session.close if its_own == "_session" else session.aclose)()

    async def second() -> None:
        with pytest.raises(InputError, match="a client is for one event loop"):
            await CALLS[call](braze)

    asyncio.run(first())
    asyncio.run(second())


# --- what is none is told when the client is made


class Sending:
    async def send(self, request: Request) -> Any: ...


class Tuned(httpx.AsyncClient):
    """A client of somebody's own."""


@pytest.mark.parametrize("make", [httpx.AsyncClient, Tuned, httpx.Client])
def test_a_bare_client_of_httpx_is_no_transport(make: Any) -> None:
    with pytest.raises(InputError) as caught:
        BrazeClient("key", "US-01", transport=make(verify=False))
    assert str(caught.value) == "transport must be HttpxTransport(client), not the client itself"


async def test_a_bare_session_of_aiohttp_is_no_transport() -> None:
    async with aiohttp.ClientSession() as session:
        wrong: Any = session
        with pytest.raises(InputError) as caught:
            BrazeClient("key", "US-01", transport=wrong)
    assert (
        str(caught.value) == "transport must be AiohttpTransport(session), not the session itself"
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (AiohttpTransport, "AiohttpTransport is a class, give an object of it"),
        (httpx.AsyncClient, "AsyncClient is a class, give an object of it"),
        (Sending(), "Sending lacks stream, aclose"),
        ("http://user:hush@proxy", "str lacks send, stream, aclose"),
        (0, "int lacks send, stream, aclose"),
    ],
)
def test_what_has_not_the_methods_is_no_transport(wrong: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        BrazeClient("key", "US-01", transport=wrong)
    assert str(caught.value) == f"transport must have the methods of Transport: {told}"


WRONG = [
    (3, "int"),
    ("http://user:hush@proxy", "str"),
    (aiohttp.ClientSession, "the class ClientSession"),
    (httpx.AsyncClient, "the class AsyncClient"),
]


@pytest.mark.parametrize(("wrong", "told"), WRONG)
def test_what_no_transport_can_send_with(wrong: Any, told: str) -> None:
    with pytest.raises(InputError, match=f"session must be .* or None, not {told}$"):
        AiohttpTransport(wrong)
    with pytest.raises(InputError, match=f"client must be .* or None, not {told}$"):
        HttpxTransport(wrong)


async def test_the_transports_do_not_take_what_the_other_takes() -> None:
    make: Any = httpx.AsyncClient
    async with make(verify=False) as client:
        with pytest.raises(InputError, match=r"ClientSession\(\.\.\.\) or None, not AsyncClient$"):
            AiohttpTransport(client)
    async with aiohttp.ClientSession() as session:
        wrong: Any = session
        with pytest.raises(InputError, match=r"AsyncClient\(\.\.\.\) or None, not ClientSession$"):
            HttpxTransport(wrong)


def test_a_client_of_httpx_that_blocks_is_refused() -> None:
    make: Any = httpx.Client
    with make(verify=False) as client, pytest.raises(InputError, match=r"not Client$"):
        HttpxTransport(client)
