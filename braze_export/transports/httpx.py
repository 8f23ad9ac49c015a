"""The second transport, for services that already hold an ``httpx.AsyncClient``.

Needs the extra ``httpx``: ``pip install "braze-export[httpx]"``.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, TypeVar

import httpx

from braze_export.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InputError,
    RequestTimeoutError,
    TransportError,
)
from braze_export.tasks import ONE_LOOP
from braze_export.validators import check_class
from braze_export.wire import (
    BROKEN,
    UNREACHABLE,
    Download,
    Request,
    Response,
    Streamed,
    Timeouts,
    causes,
    check_encoding,
    gathered,
    without_frames,
)

E = TypeVar("E", bound=BaseException)

_FAILURES = (
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    TimeoutError,
    OSError,
    UnicodeError,  # a host name that cannot be looked up
)
_UNCONNECTED = (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)

# httpx logs the address of every request: not the link of an export. httpcore logs the headers of
# every answer: not where one leads on to, nor the key that it repeats.
_HEADERS: Final = ("httpcore",)
_LINKS: Final = ("httpcore", "httpx")
_hidden: ContextVar[tuple[str, ...]] = ContextVar("hidden", default=())
for _name in ("httpx", "httpcore.http11", "httpcore.http2"):
    logging.getLogger(_name).addFilter(lambda record: not record.name.startswith(_hidden.get()))


class HttpxTransport:
    """Sends requests with httpx.

    Args:
        client: your own client, which stays open when the transport closes. Without one, a
            client is opened with the first request. Pass one to go through a proxy or to use
            your own certificates.
    """

    def __init__(self, client: httpx.AsyncClient | None = None) -> None:
        check_class(client, httpx.AsyncClient, "the httpx client", optional=True)
        if client is not None and client.auth is not None:
            raise InputError("the httpx client must not have auth=: it would replace the key")
        if client is not None and "Authorization" in client.headers:
            raise InputError("the httpx client must not have an Authorization header of its own")
        self._client = client
        self._owned = client is None
        self._loop: asyncio.AbstractEventLoop | None = None  # of our own client
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send one request and return its answer, whatever its status.

        Raises:
            TransportError: no whole answer came.
            DecodeError: it is too large, or packed otherwise than asked for.
        """
        client = await self._ready()
        outer = sys.exception()
        hiding = _hidden.set(_HEADERS)
        try:
            async with asyncio.timeout(request.timeouts.total):
                return await _answer(client, request)
        except httpx.ProtocolError as error:
            failure = translate(error, request.endpoint.label)
        except _FAILURES as error:
            raise translate(error, request.endpoint.label) from _bare(error, outer)
        except asyncio.CancelledError as error:
            raise _bare(error, outer)  # noqa: B904 - it is the same
        finally:
            _hidden.reset(hiding)
        raise failure  # not from the other, which quotes what came, and that may be a profile

    @asynccontextmanager
    async def stream(self, download: Download) -> AsyncIterator[Streamed]:
        """Send a GET, and give its answer as it comes; leaving the block ends it.

        Raises:
            TransportError: no whole answer came.
        """
        answer = await _get(await self._ready(), download)
        try:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            async with aclosing(_chunks(answer, download.label)) as chunks:
                yield Streamed(answer.status_code, headers, chunks)
        finally:
            await answer.aclose()

    async def aclose(self) -> None:
        """Close the client, if the transport has opened it."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._owned:
            await client.aclose()

    async def _ready(self) -> httpx.AsyncClient:
        if self._closed:
            raise ClientClosedError("the transport is closed: make a new client")
        loop = asyncio.get_running_loop()
        client = self._client or await self._open()
        self._loop = self._loop or loop
        if self._owned and self._loop is not loop:
            raise InputError(ONE_LOOP)
        if client.is_closed:
            raise ClientClosedError("the httpx client that the transport was given is closed")
        return client

    async def _open(self) -> httpx.AsyncClient:
        # Making a client reads the certificates from disk, which must not hold up the loop.
        client = await asyncio.to_thread(
            httpx.AsyncClient,
            trust_env=False,
            limits=httpx.Limits(max_connections=None),
            # None: those of one host have no business at another, nor in the next request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
        if self._client is not None:  # another request was quicker
            await client.aclose()
            return self._client
        if self._closed:
            await client.aclose()
        else:
            self._client = client
        return client  # a closed one is refused where it is used


class _Handshake:
    """Closes a connection whose TLS handshake is broken off: httpcore leaves it open.

    Told by httpcore of each step of one request (its extension ``trace``).
    """

    def __init__(self) -> None:
        self._stream: Any = None

    async def __call__(self, step: str, info: Mapping[str, Any]) -> None:
        if step == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif step == "connection.start_tls.complete":
            self._stream = None
        elif step == "connection.start_tls.failed" and self._stream is not None:
            await self._stream.aclose()


async def _answer(client: httpx.AsyncClient, request: Request) -> Response:
    answer = await client.send(
        client.build_request(
            request.endpoint.method,
            request.url,
            content=request.body,
            headers=request.headers,
            timeout=_timeout(request.timeouts),
            extensions={"trace": _Handshake()},
        ),
        stream=True,
        follow_redirects=False,
    )
    try:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        check_encoding(headers, request.endpoint)
        body = await gathered(answer.aiter_bytes(), request.endpoint)
    finally:
        await answer.aclose()
    return Response(answer.status_code, headers, body)


def _timeout(timeouts: Timeouts) -> httpx.Timeout:
    return httpx.Timeout(timeouts.read, connect=timeouts.connect, pool=None)


async def _get(client: httpx.AsyncClient, download: Download) -> httpx.Response:
    outer = sys.exception()
    hiding = _hidden.set(_LINKS)
    try:
        return await client.send(
            client.build_request(  # in no local: its repr shows the link
                "GET",
                download.url,
                headers=download.headers,
                timeout=_timeout(download.timeouts),
                extensions={"trace": _Handshake()},
            ),
            stream=True,
            follow_redirects=False,
        )
    except _FAILURES as error:
        failure = translate(error, download.label)
    except asyncio.CancelledError as error:
        raise _bare(error, outer)  # noqa: B904 - it is the same
    finally:
        _hidden.reset(hiding)
    raise failure  # not from the other, which shows the link


async def _chunks(answer: httpx.Response, label: str) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except _FAILURES as error:
        failure = translate(error, label)
    else:
        return
    raise failure  # not from the other, which shows the link


def _bare(error: E, outer: BaseException | None) -> E:
    """Return an error without its frames and requests, which hold the key: it may be pickled."""
    for behind in causes(error, outer):
        if isinstance(behind, httpx.RequestError):
            behind._request = None  # noqa: SLF001 - there is no other way to let go of it
    return without_frames(error, outer)


def translate(error: Exception, endpoint: str) -> TransportError:
    """Return our error for one of httpx's. The text keeps to what holds no address or data."""
    cause = type(error).__name__
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        timeout = RequestTimeoutError("no connection in time", endpoint=endpoint, hint=UNREACHABLE)
        timeout.sent = False
        return timeout
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return RequestTimeoutError(
            "the answer did not come in time", endpoint=endpoint, hint=BROKEN
        )
    if isinstance(error, _UNCONNECTED):
        return ConnectError(f"could not connect ({cause})", endpoint=endpoint, hint=UNREACHABLE)
    return ConnectionLostError(f"the connection was lost ({cause})", endpoint=endpoint, hint=BROKEN)
