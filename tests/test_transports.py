"""What only one transport can show: its library's exceptions, and the caller's own session."""

import asyncio
import inspect
import socket
import ssl
import warnings
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
from braze_export.wire import ApiKey, Request

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
    assert caught.value.__cause__ is error


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
