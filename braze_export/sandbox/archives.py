"""Archives: the users of a segment in files, made in threads and never held in memory."""

import asyncio
import gzip
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import attrs

from braze_export.sandbox.exports import Export
from braze_export.sandbox.profiles import Profiles
from braze_export.sandbox.segments import Segments
from braze_export.sandbox.settings import Settings

# Users made at once: 10 MB at the very most.
_CHUNK = 500

# From so many users on, a member may reach the 2 GB above which ZIP needs its larger fields.
_ZIP64_FROM = 50_000


# A download that began in time may still be under way when its link ends.
_KEPT_SECONDS = 3_600.0


class Stopped(Exception):  # noqa: N818 - nothing failed
    """The sandbox closes: what was being made is not wanted any more."""


@attrs.frozen(kw_only=True)
class Archive:
    """A file with everything that its download tells of it."""

    path: Path
    size: int
    etag: str
    modified: float
    expires: float


class Archives:
    """Makes archives of exports, each once, when it is first asked for."""

    def __init__(self, settings: Settings, segments: Segments, profiles: Profiles) -> None:
        self._settings = settings
        self._segments = segments
        self._profiles = profiles
        self._directory: TemporaryDirectory[str] | None = None
        self._tasks: dict[tuple[str, int], asyncio.Task[Archive]] = {}
        # One at a time: threads would only take the interpreter from each other.
        self._turn = asyncio.Lock()
        self._stop = threading.Event()

    async def get(self, export: Export) -> Archive:
        """Return the archive of an export with all its users."""
        await self._remove_old()
        key = (export.prefix, export.version)
        if key not in self._tasks:
            # A copy: the export may be given another version meanwhile.
            self._tasks[key] = asyncio.create_task(self._make(attrs.evolve(export)))
        # Unlike an await of the task, this does not end it for others when one who waits goes.
        await asyncio.wait([self._tasks[key]])
        return self._tasks[key].result()

    def objects(self, export: Export) -> list[range]:
        """Return the users of each object of an export to own storage.

        Undocumented: what there is of an empty segment. Here one object, with an empty member.
        """
        users, size = self._segments.members(export.number), self._settings.users_per_object
        return [users[start : start + size] for start in range(0, len(users) or 1, size)]

    async def make_object(self, export: Export, users: range) -> bytes:
        """Return one object of an export to own storage."""

        def make() -> bytes:
            file = io.BytesIO()
            self._write(file, export, [users])
            return file.getvalue()

        async with self._turn:
            return await asyncio.to_thread(make)

    def stop(self) -> None:
        """Have nothing more made."""
        self._stop.set()

    async def aclose(self) -> None:
        """Remove all files."""
        self.stop()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        directory, self._directory = self._directory, None
        if directory is not None:
            await asyncio.to_thread(directory.cleanup)

    async def _remove_old(self) -> None:
        """Remove files whose links ended long ago, so that they do not fill the disk."""
        since = self._settings.clock() - _KEPT_SECONDS
        for key, task in list(self._tasks.items()):
            if task.done() and not task.exception() and task.result().expires < since:
                del self._tasks[key]
                await asyncio.to_thread(task.result().path.unlink, missing_ok=True)

    async def _make(self, export: Export) -> Archive:
        async with self._turn:
            return await asyncio.to_thread(self._make_file, export)

    def _make_file(self, export: Export) -> Archive:
        if self._directory is None:
            self._directory = TemporaryDirectory(
                prefix="braze-sandbox-", ignore_cleanup_errors=True
            )
        version = export.version
        # Another name for each version: whoever downloads the old one gets it whole.
        path = Path(self._directory.name, f"{export.prefix}-{version}")
        users, count = self._segments.members(export.number), self._settings.export_members
        edges = [len(users) * number // count for number in range(count + 1)]
        with path.open("wb") as file:
            self._write(file, export, [users[a:b] for a, b in pairwise(edges)])
        size = path.stat().st_size
        return Archive(
            path=path,
            size=size,
            etag=f'"{_digest(f"{export.path} {version} {size}")}"',
            modified=export.modified,
            expires=export.expires,
        )

    def _write(self, file: IO[bytes], export: Export, members: Iterable[range]) -> None:
        chunks = (self._chunks(export, users) for users in members)
        level = 1 + export.version % 9
        if export.output_format == "zip":
            force = len(self._segments.members(export.number)) >= _ZIP64_FROM
            _write_zip(file, export, chunks, level=level, force_zip64=force)
        else:
            _write_gzip(file, export, chunks, level=level)

    def _chunks(self, export: Export, users: range) -> Iterator[bytes]:
        for start in range(0, len(users), _CHUNK):
            if self._stop.is_set():
                raise Stopped
            some = users[start : start + _CHUNK]
            yield self._profiles.lines(some, export.fields, export.attributes)


def _write_zip(
    file: IO[bytes],
    export: Export,
    members: Iterable[Iterable[bytes]],
    *,
    level: int,
    force_zip64: bool,
) -> None:
    """Write one member after the other.

    Undocumented: the names of members, which the pages call JSON files while Braze's own script
    reads ``.txt``: here both. And whether the last line is ended: here it is not.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        if export.version:
            archive.comment = f"version {export.version}".encode()
        for number, chunks in enumerate(members):
            name = f"{_digest(f'{export.prefix} {number}')}.{'json' if number % 2 else 'txt'}"
            with archive.open(name, "w", force_zip64=force_zip64) as member:
                newline = b""
                for chunk in chunks:
                    member.write(newline)
                    member.write(memoryview(chunk)[:-1])
                    newline = b"\n"


def _write_gzip(
    file: IO[bytes], export: Export, members: Iterable[Iterable[bytes]], *, level: int
) -> None:
    """Write one stream after the other, which together are one gzip file.

    Undocumented: all of it. Here every line is ended, as the members run into each other.
    """
    for chunks in members:
        moment = int(export.modified)
        with gzip.GzipFile("", "wb", compresslevel=level, fileobj=file, mtime=moment) as member:
            for chunk in chunks:
                member.write(chunk)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
