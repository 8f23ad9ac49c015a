"""The bytes of one object, from its first to its last, however often the connection breaks.

An object is what lies behind a link or in a store; whichever it is, a ``Source`` opens it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from attrs import field, frozen

from braze_export.endpoints import EXPORT_SEGMENT, Endpoint
from braze_export.errors import APIError, BrazeError, ConnectionLostError, TransportError
from braze_export.models.results import DownloadStats
from braze_export.retry import RetryPolicy
from braze_export.wire import BROKEN

#: No endpoint of Braze's API, but what errors and retries know as one.
EXPORT_LINK: Final = Endpoint("GET", "link of the export", "default", "", EXPORT_SEGMENT.docs)

_log = logging.getLogger("braze_export")


class ObjectChangedError(ConnectionLostError):
    """The object is not the one whose first bytes were fetched."""


@frozen
class Opened:
    """An object that is being read.

    Attributes:
        start: the offset of the first byte of ``chunks``.
        total: bytes of the whole object, ``None`` where nobody says.
        version: the object's ETag: another object has another.
        chunks: its bytes.
    """

    start: int
    total: int | None
    version: str | None
    chunks: AsyncGenerator[bytes, None] = field(repr=False)


class Source(Protocol):
    """Where an object is."""

    @property
    def name(self) -> str:
        """What to call it in messages. No secret."""
        ...

    def open(self, start: int, version: str | None) -> AbstractAsyncContextManager[Opened]:
        """Open the object, from an offset on if the server can.

        Args:
            start: wanted; what comes may start earlier.
            version: must be the same where the server can tell.

        Raises:
            ObjectChangedError: it is another object by now.
            TransportError: no whole answer came.
            APIError: there is no such object, or it is refused.
        """
        ...


async def fetch(
    source: Source, retry: RetryPolicy, stats: DownloadStats
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of an object, each once and in order.

    After a lost connection it goes on where it was, or, where the server cannot, reads past
    what has come already. As long as more comes from try to try, it goes on trying.

    Args:
        source: where the object is.
        retry: how often to try again without anything more coming.
        stats: is told of bytes and of connections lost.

    Raises:
        ObjectChangedError: the object was replaced under way. Nothing can be joined to what
            has come; begin anew.
        TransportError: it could not be fetched to its end.
        APIError: there is no such object, or it is refused.
    """
    at = failures = counted = 0
    total = version = None
    while True:
        before = at
        try:
            async with source.open(at, version) as opened:
                _check_same(opened, at, total, version)
                # A later answer may say less than an earlier one.
                total = total if opened.total is None else opened.total
                version = opened.version or version
                if total is not None:
                    stats.bytes_total += total - counted
                    counted = total
                skip = at - opened.start
                async for chunk in opened.chunks:
                    fresh = chunk[skip:]
                    skip -= len(chunk) - len(fresh)
                    if fresh:
                        at += len(fresh)
                        stats.bytes_received += len(fresh)
                        yield fresh
            if total is None or at == total:
                return
            raise ConnectionLostError(
                f"{at:,} of {total:,} bytes came", endpoint=EXPORT_LINK.label, hint=BROKEN
            )
        except BrazeError as error:
            if at == 0:
                total = version = None  # nothing came of it: the next may be another one
            elif at == total:
                return
            failures = 1 if at > before else failures + 1
            delay = retry.delay(error, EXPORT_LINK, failures=failures, elapsed=0.0)
            if delay is None or isinstance(error, ObjectChangedError):
                if isinstance(error, TransportError | APIError):
                    error.attempts = failures
                raise
            _log.info(
                "download: %s at byte %d, next try in %.1f s", type(error).__name__, at, delay
            )
        stats.resumed += 1
        await asyncio.sleep(delay)


def _check_same(opened: Opened, at: int, total: int | None, version: str | None) -> None:
    if opened.start > at:
        raise ConnectionLostError(
            "the server skipped a part", endpoint=EXPORT_LINK.label, hint=BROKEN
        )
    pairs = ((opened.total, total), (opened.version, version))
    if any(now is not None and then is not None and now != then for now, then in pairs):
        raise changed()


def changed() -> ObjectChangedError:
    """Return the error of an object that was replaced under way."""
    return ObjectChangedError(
        "the archive was replaced while it was being downloaded",
        endpoint=EXPORT_LINK.label,
        hint="Begin anew",
    )
