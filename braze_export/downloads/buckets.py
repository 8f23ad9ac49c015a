"""Exports in the workspace's own cloud storage: finding their files, and opening them.

Where a workspace has its own storage, Braze gives no link but writes files there, about one for
each 5,000 users::

    [<folder>/]segment-export/<segment id>/<date>/<object_prefix>/<random name>.zip

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from attrs import Factory, define, field, frozen

from braze_export.archives.archive import harmless
from braze_export.downloads.fetching import Opened, Source, changed
from braze_export.downloads.links import NotReady
from braze_export.errors import (
    BrazeError,
    ConnectionLostError,
    NotFoundError,
    PermissionDeniedError,
)

T = TypeVar("T")

_FOLDER: Final = "segment-export"
_SUFFIXES: Final = (".zip", ".gz", ".txt", ".json", ".ndjson")
_CHUNK: Final = 256 * 1024
_MOST_FOLDERS: Final = 100  # looked through for a configured folder
_LONG_AGO: Final = 15 * 60.0  # seconds: further than clocks are apart
_MOMENT: Final = 0.01  # seconds
# In seconds since 1970, though Braze's page says 2017.
_STARTED: Final = re.compile(r"-(\d{9,11})(?:\.\w+)?$")
_STATUS: Final = re.compile(r"status code: (\d{3})")
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

    store: ObjectStore = field(repr=False)
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
        ask = _Asking(self.name, under_way=start > 0)
        got = await ask(lambda: self.store.get_async(self.path, options=options))
        async with aclosing(_chunks(got, ask)) as chunks:
            yield Opened(got.range[0], got.meta["size"], _tag(got.meta), chunks)


async def _chunks(got: Any, ask: "_Asking") -> AsyncGenerator[bytes, None]:
    stream = aiter(got.stream(min_chunk_size=_CHUNK))
    while (chunk := await ask(lambda: anext(stream, None))) is not None:
        yield bytes(chunk)


@frozen
class _Asking:
    """Turns whatever a store raises into our errors, without its text, which may hold a token."""

    name: str
    under_way: bool = False

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except BrazeError:
            raise
        except Exception as error:  # noqa: BLE001 - a store raises what it likes
            ours = self._ours(error)
        await _settled()
        raise ours  # only here: so the store's error is not even its context

    def _ours(self, error: Exception) -> BrazeError:
        kind, where = type(error).__name__, f"{harmless(self.name)} in the storage"
        # What goes wrong with a listing has no type of its own.
        found = _STATUS.search(str(error))
        status = int(found[1]) if found else None
        missing = isinstance(error, FileNotFoundError) or status == 404
        if kind == "PreconditionError" or (self.under_way and missing):
            return changed()
        if missing:
            return NotFoundError(f"{where} is not there", status=404, hint="Check the bucket")
        if kind in {"PermissionDeniedError", "UnauthenticatedError"} or status in {401, 403}:
            return PermissionDeniedError(
                f"{where} must not be read", status=403, hint="Check the store's credentials"
            )
        what = f"{kind} {status}" if status else kind
        return ConnectionLostError(f"{where} could not be read ({what})", hint=_STORE_HINT)


async def _settled() -> None:
    """Let a store's threads come to their end after it was asked for the last time.

    One of obstore's that is still at work when the interpreter ends would abort it.
    """
    await asyncio.sleep(_MOMENT)


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
    _called: bool = False
    _bases: list[str] = Factory(list)  # where files were found

    async def look(self, called: bool = False) -> NotReady | None:
        """Look for the files. ``None``: they are all there, as far as can be told.

        Nobody says which file is the last. The callback is the sign that all are there; without
        it, that for a while nothing has changed.

        Args:
            called: whether the callback has come, and said that the export is ready.

        Raises:
            TransportError, APIError: the store does not answer, or refuses.
        """
        before, self.objects = self.objects, await self._found()
        await _settled()
        news = self.objects != before or (called and not self._called)
        self._called |= called
        if self._quiet_since is None or news:
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
        now, enough = self.wall_clock(), max(_LONG_AGO, self.quiet_period)
        return all(now - found.last_modified.timestamp() > enough for found in self.objects)

    async def _found(self) -> list[StoredObject]:
        store, found = self.store, list[StoredObject]()
        for base in self._bases or await _bases(store, self.segment_id, self.folder):
            before = len(found)
            for folder in await _folders(store, base):
                if _plausible(_last(folder), self.object_prefix):
                    found += await _files(store, f"{folder}/{self.object_prefix}")
            if len(found) > before and base not in self._bases:
                self._bases.append(base)
        return sorted(found, key=lambda stored: stored.path)


async def newest(store: ObjectStore, segment_id: str, folder: str | None) -> str | None:
    """Return the object prefix of a segment's newest export, ``None`` if there is none."""
    found: list[tuple[float, str]] = []
    for base in await _bases(store, segment_id, folder):
        days = [path for path in await _folders(store, base) if _day(_last(path))]
        for day in sorted(days, reverse=True):
            prefixes = [_last(path) for path in await _folders(store, day)]
            some = [(started_at(prefix) or 0.0, prefix) for prefix in prefixes]
            found += some
            if any(started for started, _ in some):
                break
    await _settled()
    return max(found)[1] if found else None


async def _bases(store: ObjectStore, segment_id: str | None, folder: str | None) -> list[str]:
    """Return the folders of a segment's exports, or of all segments' where none is named."""
    bases = []
    for root in await _roots(store, folder):
        segments = await _folders(store, f"{root}/{_FOLDER}".lstrip("/"))
        bases += [path for path in segments if segment_id in {None, _last(path)}]
    return bases


async def _roots(store: ObjectStore, folder: str | None) -> list[str]:
    if folder is not None:
        return [folder.strip("/")]
    top = await _folders(store, None)
    # The configured folder is not known: it is one of these, if there is one. There may be
    # exports at the top as well, from before it was configured.
    others = [path for path in top if path != _FOLDER][:_MOST_FOLDERS]
    return ["", *others] if _FOLDER in top else others


async def _folders(store: ObjectStore, path: str | None) -> list[str]:
    async def listed() -> list[str]:
        found = await store.list_with_delimiter_async(path)
        return [prefix.rstrip("/") for prefix in found["common_prefixes"]]

    return await _Asking(path or "the bucket")(listed)


async def _files(store: ObjectStore, path: str) -> list[StoredObject]:
    async def listed() -> list[StoredObject]:
        metas = [meta async for some in store.list(path) for meta in some]
        return [_stored(store, meta) for meta in metas if meta["path"].endswith(_SUFFIXES)]

    return await _Asking(path)(listed)


def _stored(store: ObjectStore, meta: Any) -> StoredObject:
    return StoredObject(store, meta["path"], meta["size"], _tag(meta), meta["last_modified"])


def _tag(meta: Any) -> str | None:
    tag: str = meta["e_tag"] or ""
    # A weak one is good for no condition. Some listings leave out the quotes, which are part of it.
    return None if tag.startswith("W/") else tag.strip('"') or None


def _plausible(folder: str, object_prefix: str) -> bool:
    """Say whether a date can be that of an export: the day on which it was ready."""
    day, started = _day(folder), started_at(object_prefix)
    if day is None or started is None:
        return day is not None
    # In which time zone is not documented.
    return day >= datetime.fromtimestamp(started, UTC).date() - timedelta(days=1)


def _day(folder: str) -> date | None:
    try:
        return date.fromisoformat(folder)
    except ValueError:
        return None


def _last(path: str) -> str:
    return path.rpartition("/")[2]
