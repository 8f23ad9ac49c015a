"""The default transport: aiohttp."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp
from yarl import URL

from braze_export.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InputError,
    RequestTimeoutError,
    TransportError,
)
from braze_export.tasks import ONE_LOOP
from braze_export.validators import called
from braze_export.wire import (
    BROKEN,
    UNREACHABLE,
    Download,
    Request,
    Response,
    Streamed,
    check_encoding,
    gathered,
    without_frames,
)

_NEEDED = ("auto_decompress", "headers", "closed")  # of a session
_BUFFER = 256 * 1024  # bytes of a download that wait to be taken
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)


class AiohttpTransport:
    """Sends requests with aiohttp.

    Args:
        session: your own session, which stays open when the transport closes. Without one, a
            session is opened with the first request. Pass one to go through a proxy or to use
            your own certificates.
    """

    def __init__(self, session: aiohttp.ClientSession | None = None) -> None:
        if session is not None and (
            isinstance(session, type) or not all(hasattr(session, name) for name in _NEEDED)
        ):
            raise InputError(
                f"the aiohttp session must be ClientSession(...) or None, not {called(session)}"
            )
        if session is not None and not session.auto_decompress:
            raise InputError("the aiohttp session must not have auto_decompress=False")
        if getattr(session, "auth", None) is not None:  # gone in aiohttp 4
            raise InputError("the aiohttp session must not have auth=: it would replace the key")
        if session is not None and "Authorization" in session.headers:
            raise InputError("the aiohttp session must not have an Authorization header of its own")
        self._session = session
        self._owned = session is None
        self._loop: asyncio.AbstractEventLoop | None = None  # of our own session
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send one request and return its answer, whatever its status.

        Raises:
            TransportError: no whole answer came.
            DecodeError: it is too large, or packed otherwise than asked for.
        """
        session = self._open()
        outer = sys.exception()
        try:
            async with session.request(
                request.endpoint.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=request.headers,
                timeout=aiohttp.ClientTimeout(
                    total=request.timeouts.total,
                    connect=request.timeouts.connect,
                    sock_read=request.timeouts.read,
                ),
                allow_redirects=False,
                raise_for_status=False,
            ) as answer:
                headers = {name.lower(): value for name, value in answer.headers.items()}
                check_encoding(headers, request.endpoint)
                body = await gathered(answer.content.iter_any(), request.endpoint)
                return Response(answer.status, headers, body)
        except aiohttp.ClientResponseError as error:
            failure = translate(error, request.endpoint.label)
        except _FAILURES as error:
            raise translate(error, request.endpoint.label) from without_frames(error, outer)
        except asyncio.CancelledError as error:
            raise without_frames(error, outer)  # noqa: B904 - it is the same
        raise failure  # not from the other, whose repr shows the headers that were sent

    @asynccontextmanager
    async def stream(self, download: Download) -> AsyncIterator[Streamed]:
        """Send a GET, and give its answer as it comes; leaving the block ends it.

        Raises:
            TransportError: no whole answer came.
        """
        answer = await _get(self._open(), download)
        try:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            async with aclosing(_chunks(answer, download.label)) as chunks:
                yield Streamed(answer.status, headers, chunks)
        finally:
            answer.close()  # what is left of the body is not waited for

    async def aclose(self) -> None:
        """Close the session, if the transport has opened it."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None and self._owned:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ClientClosedError("the transport is closed: make a new client")
        loop = asyncio.get_running_loop()
        if self._session is None:
            self._loop = loop
            # The fan-out bounds how many connections there are, not the pool.
            # No cookies: those of one host have no business at another, nor in the next request.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        if self._owned and self._loop is not loop:
            raise InputError(ONE_LOOP)
        if self._session.closed:
            raise ClientClosedError("the aiohttp session that the client was given is closed")
        return self._session


async def _get(session: aiohttp.ClientSession, download: Download) -> aiohttp.ClientResponse:
    outer = sys.exception()
    try:
        return await session.get(
            URL(download.url, encoded=True),
            headers=download.headers,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=download.timeouts.connect, sock_read=download.timeouts.read
            ),
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=False,
            read_bufsize=_BUFFER,
        )
    except _FAILURES as error:
        failure = translate(error, download.label)
    except asyncio.CancelledError as error:
        raise without_frames(error, outer)  # noqa: B904 - it is the same
    raise failure  # not from the other, which shows the link


async def _chunks(answer: aiohttp.ClientResponse, label: str) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except _FAILURES as error:
        failure = translate(error, label)
    else:
        return
    raise failure  # not from the other, which may show the link


def translate(error: Exception, endpoint: str) -> TransportError:
    """Return our error for one of aiohttp's. The text keeps to what holds no address or data."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        timeout = RequestTimeoutError("no connection in time", endpoint=endpoint, hint=UNREACHABLE)
        timeout.sent = False
        return timeout
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(
            "the answer did not come in time", endpoint=endpoint, hint=BROKEN
        )
    # UnicodeError: a host name that cannot be looked up.
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL | UnicodeError):
        return ConnectError(
            f"could not connect ({_cause(error)})", endpoint=endpoint, hint=UNREACHABLE
        )
    return ConnectionLostError(
        f"the connection was lost ({_cause(error)})", endpoint=endpoint, hint=BROKEN
    )


def _cause(error: BaseException) -> str:
    """Name the innermost reason: ``ConnectionRefusedError``, ``gaierror``, ..."""
    inner = getattr(error, "os_error", None) or error
    return type(inner).__name__
