"""The link to an export's archive: whether it is ready, and the archive behind it.

A link belongs to an object storage, not to Braze's API: it takes no key, answers in XML, and
says 403 where the export is not ready, where the link has run out, and where it came to nothing.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urljoin, urlsplit

from attrs import evolve, field, frozen

from braze_export.answers import read_retry_after
from braze_export.archives.archive import harmless
from braze_export.downloads.fetching import EXPORT_LINK, Opened, changed
from braze_export.errors import (
    APIError,
    ExportExpiredError,
    InputError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)
from braze_export.instances import has_host, is_loopback
from braze_export.wire import BROKEN, Download, Streamed, Timeouts, Transport

_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ERROR_PAGE: Final = 8_192  # bytes of one that are read
_CODE: Final = re.compile(rb"<Code>\s*(\w{1,60})\s*</Code>")
_MESSAGE: Final = re.compile(rb"<Message>([^<]{1,300})")
_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)

# What storages say of a link that once was good, and of one that never will be.
_EXPIRED: Final = frozenset({"ExpiredToken", "TokenRefreshRequired", "AuthenticationFailed"})
_BROKEN: Final = frozenset(
    {
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "InvalidToken",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "MalformedSecurityHeader",
        "NoSuchBucket",
    }
)


@frozen
class NotReady:
    """There is no archive behind the link, or not yet.

    Attributes:
        status: 403 or 404.
        code: the storage's own word, such as ``AccessDenied``, or ``None``.
    """

    status: int
    code: str | None


@frozen
class Link:
    """The link to one archive.

    Attributes:
        url: of the archive. Whoever has it can read the profiles.
        transport: fetches it.
        timeouts: of each request.
        user_agent: says who asks.
        wall_clock: seconds since the epoch, for a ``Retry-After`` that is a date.
    """

    url: str = field(repr=False)
    transport: Transport
    timeouts: Timeouts
    user_agent: str
    wall_clock: Callable[[], float] = field(repr=False)

    @property
    def name(self) -> str:
        """The last part of the link's path."""
        return harmless(urlsplit(self.url).path.rpartition("/")[2]) or "archive"

    async def probe(self) -> NotReady | None:
        """Ask for the first byte. ``None``: the archive is there.

        Raises:
            ExportExpiredError: the link has run out.
            TransportError: no whole answer came.
            APIError: the storage refuses otherwise.
        """
        try:
            async with asyncio.timeout(self.timeouts.total):
                refusal = await self._probed()
        except TimeoutError as error:
            if isinstance(error, TransportError):
                raise
            raise RequestTimeoutError(
                "the answer did not come in time", endpoint=EXPORT_LINK.label, hint=BROKEN
            ) from None
        if isinstance(refusal, APIError):
            raise refusal
        return refusal

    async def _probed(self) -> NotReady | APIError | None:
        # A link is signed for GET: HEAD would be refused for ever.
        async with self._ask({"Range": "bytes=0-0"}) as answer:
            if answer.status in {200, 206, 416}:  # 416: there is no first byte
                return None
            return await _refusal(answer, self.wall_clock)

    @asynccontextmanager
    async def open(self, start: int, version: str | None) -> AsyncIterator[Opened]:
        """Open the archive. See ``Source``."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and version and not version.startswith("W/"):
            headers["If-Match"] = version
        async with self._ask(headers) as answer:
            if answer.status in {412, 416} and start:
                if _part(answer.headers)[1] != start:
                    raise changed()
                # All of it has come already; what there is here is a page that says so.
                await answer.chunks.aclose()
                yield Opened(start, start, None, answer.chunks)
                return
            if answer.status not in {200, 206}:
                refusal = await _refusal(answer, self.wall_clock)
                raise _expired(refusal) if isinstance(refusal, NotReady) else refusal
            yield _opened(answer)

    @asynccontextmanager
    async def _ask(self, headers: Mapping[str, str]) -> AsyncIterator[Streamed]:
        # No local holds the link itself: a log with locals would show it.
        download = Download(
            url=self.url,
            # Identity, for a length and ranges that mean the object as it is.
            headers={"User-Agent": self.user_agent, "Accept-Encoding": "identity", **headers},
            timeouts=self.timeouts,
            label=EXPORT_LINK.label,
        )
        for _ in range(_MOST_REDIRECTS):
            async with self.transport.stream(download) as answer:
                if answer.status not in _REDIRECTS or "location" not in answer.headers:
                    yield answer
                    return
            download = evolve(download, url=redirected(download.url, answer.headers["location"]))
        raise _error(310, "the storage redirects for ever", "Start the export anew")


def check_link(url: str, *, plain_http: bool = False) -> str:
    """Return the link if profiles may be fetched through it.

    Args:
        url: as Braze gave it.
        plain_http: accept plain HTTP from another machine.

    Raises:
        InputError: it is no link, or one of plain HTTP.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"https", "http"} and has_host(parts) and parts.port != 0
    except ValueError:
        fine = False
    # Never shown: whoever has the link can read the profiles.
    if not fine or not url.isprintable() or " " in url or "\\" in url:
        raise InputError("the export's link is no URL that starts with https://")
    if parts.username is not None or parts.password is not None:
        raise InputError("the export's link must not hold a user name or password")
    if parts.scheme == "http" and not plain_http and not is_loopback(parts.hostname or ""):
        raise InputError("the export's link is plain HTTP: the network would see the profiles")
    return url


def redirected(url: str, location: str) -> str:
    """Return where a link leads on to.

    Raises:
        APIError: from https to anything else, or to what is no place for profiles.
    """
    target = _joined(url, location)
    if target is not None:
        return target
    del url, location  # links, which a traceback with locals would show
    raise _error(
        302, "the storage redirects to where profiles must not be fetched from", "Use https://"
    )


def _joined(url: str, location: str) -> str | None:
    try:
        before, target = urlsplit(url), urljoin(url, location)
        after = urlsplit(target)
        stays = before.scheme == after.scheme and before.hostname == after.hostname
        if after.scheme == "https" or stays:
            return check_link(target, plain_http=True)
    except ValueError:  # InputError is one
        pass
    return None


def _opened(answer: Streamed) -> Opened:
    headers = answer.headers
    start, total = 0, _whole(headers.get("content-length", ""))
    if answer.status == 206:
        first, total = _part(headers)
        if first is None:
            raise _error(206, "the storage does not say which part it sent", "Try again")
        start = first
    return Opened(start, total, headers.get("etag"), answer.chunks)


def _part(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the offset of the part that was sent, and the size of the whole."""
    found = _RANGE.fullmatch(headers.get("content-range", "").strip())
    return (None, None) if found is None else (_whole(found[1] or ""), _whole(found[2]))


async def _refusal(answer: Streamed, wall_clock: Callable[[], float]) -> NotReady | APIError:
    """Return what the storage says, where it does not give the archive."""
    status, page = answer.status, await _first_bytes(answer.chunks)
    found = _CODE.search(page)
    code = found[1].decode() if found else None
    message = _MESSAGE.search(page)
    if status in {408, 429} or status >= 500:
        busy = ServerError(
            _said("the storage is busy", code), status=status, hint="Try again later"
        )
        busy.endpoint = EXPORT_LINK.label
        busy.retry_after = read_retry_after(answer.headers, now=wall_clock())
        return busy
    if code in _EXPIRED or (message is not None and b"expired" in message[1].lower()):
        return _expired(NotReady(status, code))
    if status in {403, 404, 410} and code not in _BROKEN:
        return NotReady(status, code)
    return _error(status, _said("the storage refuses the link", code), "Use it whole and unchanged")


def _expired(refusal: NotReady) -> ExportExpiredError:
    return expired("the link does not give the archive any more", refusal.status, refusal.code)


def expired(message: str, status: int, code: str | None) -> ExportExpiredError:
    """Make the error of a link that gives nothing any more."""
    error = ExportExpiredError(
        _said(message, code),
        status=status,
        endpoint=EXPORT_LINK.label,
        hint="Braze keeps archives for about four hours, and gives none where an export failed, as "
        "one too large does. Start it anew, with fewer fields or a smaller segment if it failed. "
        f"{EXPORT_LINK.docs}",
    )
    error.code = code
    return error


async def _first_bytes(chunks: AsyncGenerator[bytes, None]) -> bytes:
    page = b""
    async for chunk in chunks:
        page += chunk
        if len(page) >= _ERROR_PAGE:
            break
    return page[:_ERROR_PAGE]


def _said(message: str, code: str | None) -> str:
    return f"{message} ({code})" if code else message


def _error(status: int, message: str, hint: str) -> APIError:
    return APIError(message, status=status, endpoint=EXPORT_LINK.label, hint=hint)


def _whole(text: str) -> int | None:
    return int(text) if _LENGTH.fullmatch(text) else None
