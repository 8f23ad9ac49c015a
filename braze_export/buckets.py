"""Exports in the workspace's own cloud storage: finding their files, and opening them.

Where a workspace has its own storage, Braze gives no link but writes files there, about one for
each 5,000 users::

    [<folder>/]segment-export/<segment id>/<date>/<object_prefix>/<random name>.zip

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Protocol

from attrs import Factory, define, field, frozen

from braze_export.archive import harmless
from braze_export.errors import (
    BrazeError,
    ConnectionLostError,
    NotFoundError,
    PermissionDeniedError,
)
from braze_export.fetching import Opened, Source, changed
from braze_export.links import NotReady

_FOLDER: Final = "segment-export"
_SUFFIXES: Final = (".zip", ".gz", ".txt", ".json", ".ndjson")
_CHUNK: Final = 256 * 1024
_MOST_FOLDERS: Final = 100  # looked through for a configured folder
_LONG_AGO: Final = timedelta(minutes=15)  # further than clocks are apart
_STARTED: Final = re.compile(
    r"-(\d{9,11})(?:\.\w+)?$"
)  # seconds since 1970, whatever Braze's page says
_STORE_HINT: Final = "Check the bucket's name, the store's credentials, and the network"


class ObjectStore(Protocol):
    """What is asked of a store: obstore's ``S3Store``, ``GCSStore`` and ``AzureStore`` have it."""

    def list(self, prefix: str | None = None) -> Any:
        """Return an async iterator of lists of objects."""
        ...

    async def list_with_delimiter_async(self, prefix: str | None = None) -> Any:
        """Return the objects and folders of one level."""
        ...

    async def get_async(self, path: str, *, options: Any = None) -> Any:
        """Return an object's bytes, or a part of them."""
        ...


def started_at(name: str) -> float | None:
    """Return when an export was started, in seconds since the epoch, as its prefix or file says."""
    found = _STARTED.search(name)
    return float(found[1]) if found else None


@frozen
class StoredObject:
    """One file of an export. A ``Source``."""

    store: ObjectStore
    path: str
    size: int
    version: str | None
    last_modified: datetime

    @property
    def name(self) -> str:
        """The last two parts of the path."""
        return harmless("/".join(self.path.split("/")[-2:]))

    @asynccontextmanager
    async def open(self, start: int, version: str | None) -> AsyncIterator[Opened]:
        """Open the file. See ``Source``."""
        options: dict[str, Any] = {}
        if start:
            options["range"] = {"offset": start}
        if version:
            options["if_match"] = version
        errors = _Errors(self.name, under_way=start > 0)
        with errors:
            got = await self.store.get_async(self.path, options=options)
        tag = got.meta["e_tag"]
        async with aclosing(_chunks(got, errors)) as chunks:
            yield Opened(got.range[0], got.meta["size"], tag and tag.strip('"'), chunks)


async def _chunks(got: Any, errors: "_Errors") -> AsyncGenerator[bytes, None]:
    stream = aiter(got.stream(min_chunk_size=_CHUNK))
    while True:
        with errors:
            chunk = await anext(stream, None)
        if chunk is None:
            return
        yield bytes(chunk)


@frozen
class _Errors:
    """Turns whatever a store raises into our errors, without its text, which may hold a token."""

    name: str
    under_way: bool = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, BrazeError):
            raise self._ours(error) from None

    def _ours(self, error: Exception) -> BrazeError:
        kind, where = type(error).__name__, f"{self.name} in the storage"
        if kind == "PreconditionError" or (self.under_way and isinstance(error, FileNotFoundError)):
            return changed()
        if isinstance(error, FileNotFoundError):
            return NotFoundError(f"{where} is not there", status=404, hint="Check the bucket")
        if kind in {"PermissionDeniedError", "UnauthenticatedError"}:
            return PermissionDeniedError(
                f"{where} must not be read", status=403, hint="Check the store's credentials"
            )
        return ConnectionLostError(f"{where} could not be read ({kind})", hint=_STORE_HINT)


@define
class Bucket:
    """Where an export of one segment lies in a store.

    Attributes:
        store: the storage.
        segment_id: of the segment; ``None``: looked for.
        object_prefix: of the export.
        folder: before ``segment-export``; ``None``: looked for, at the top and one level down.
        quiet_period: seconds without a new file after which the export counts as whole.
        objects: what was found.
    """

    store: ObjectStore
    segment_id: str | None
    object_prefix: str
    folder: str | None = None
    quiet_period: float = 60.0
    wall_clock: Callable[[], float] = field(default=time.time, repr=False)
    objects: list[StoredObject] = Factory(list)
    _quiet_since: float | None = None
    _bases: list[str] = Factory(list)

    async def look(self, called: bool = False) -> NotReady | None:
        """Look for the files. ``None``: they are all there, as far as can be told.

        Nobody says which file is the last. The callback is the sign that all are there; without
        it, that for a while nothing has changed.

        Args:
            called: whether the callback has come.

        Raises:
            TransportError, APIError: the store does not answer, or refuses.
        """
        before, self.objects = self.objects, await self._found()
        if self._quiet_since is None or self.objects != before:
            self._quiet_since = asyncio.get_running_loop().time()
        quiet = self.idle() >= self.quiet_period
        if self.objects and (called or quiet or self._old()):
            return None
        if called and quiet:
            return None  # an export of nobody
        return NotReady(404, None)

    def idle(self) -> float:
        """Return for how many seconds nothing has changed, since the first look."""
        now = asyncio.get_running_loop().time()
        return 0.0 if self._quiet_since is None else now - self._quiet_since

    async def sources(self) -> AsyncGenerator[Source, None]:
        """Yield the files that were found."""
        for found in self.objects:
            yield found

    def _old(self) -> bool:
        now = datetime.fromtimestamp(self.wall_clock(), UTC)
        return all(now - found.last_modified > _LONG_AGO for found in self.objects)

    async def _found(self) -> list[StoredObject]:
        self._bases = self._bases or await _bases(self.store, self.segment_id, self.folder)
        found = []
        for base in self._bases:
            for folder in await _folders(self.store, base):
                if _plausible(_last(folder), self.object_prefix):
                    found += await _files(self.store, f"{folder}/{self.object_prefix}")
        return sorted(found, key=lambda stored: stored.path)


async def newest(store: ObjectStore, segment_id: str, folder: str | None) -> str | None:
    """Return the object prefix of a segment's newest export, ``None`` if there is none."""
    found: list[tuple[float, str]] = []
    for base in await _bases(store, segment_id, folder):
        for day in sorted(await _folders(store, base), reverse=True):
            prefixes = [_last(path) for path in await _folders(store, day)]
            found += [(started_at(prefix) or 0.0, prefix) for prefix in prefixes]
            if found:
                break
    return max(found)[1] if found else None


async def _bases(store: ObjectStore, segment_id: str | None, folder: str | None) -> list[str]:
    """Return the folders of a segment's exports, or of all segments' where none is named."""
    for root in await _roots(store, folder):
        segments = await _folders(store, f"{root}/{_FOLDER}".lstrip("/"))
        bases = [path for path in segments if segment_id in {None, _last(path)}]
        if bases:
            return bases
    return []


async def _roots(store: ObjectStore, folder: str | None) -> list[str]:
    if folder is not None:
        return [folder.strip("/")]
    top = await _folders(store, None)
    # The configured folder is not known: it is one of these, if there is one.
    return [""] if _FOLDER in top else top[:_MOST_FOLDERS]


async def _folders(store: ObjectStore, path: str | None) -> list[str]:
    with _Errors(path or "the bucket"):
        return [
            p.rstrip("/") for p in (await store.list_with_delimiter_async(path))["common_prefixes"]
        ]


async def _files(store: ObjectStore, path: str) -> list[StoredObject]:
    found = []
    with _Errors(path):
        async for some in store.list(path):
            found += [_stored(store, meta) for meta in some if meta["path"].endswith(_SUFFIXES)]
    return found


def _stored(store: ObjectStore, meta: Any) -> StoredObject:
    # Some listings leave out the quotes that are part of a tag.
    tag = (meta["e_tag"] or "").strip('"') or None
    return StoredObject(store, meta["path"], meta["size"], tag, meta["last_modified"])


def _plausible(folder: str, object_prefix: str) -> bool:
    """Say whether a date can be that of an export: the day on which it was ready."""
    try:
        day = date.fromisoformat(folder)
    except ValueError:
        return False
    started = started_at(object_prefix)
    # In which time zone is not documented.
    return started is None or day >= datetime.fromtimestamp(started, UTC).date() - timedelta(days=1)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
