"""Objects into files of this machine, which get their names once they are whole, and back."""

import asyncio
import os
import secrets
import stat
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from attrs import frozen

from braze_export.archives.archive import harmless
from braze_export.downloads.fetching import ObjectChangedError, Opened, Source, fetch
from braze_export.errors import InputError
from braze_export.models.results import DownloadStats
from braze_export.retry import RetryPolicy
from braze_export.tasks import surely

_BLOCK: Final = 1024 * 1024
_MOST_STARTS: Final = 3  # of an object that is replaced while it is fetched


@frozen
class LocalFile:
    """A file as an object. A ``Source``."""

    path: Path

    @property
    def name(self) -> str:
        """The file's own name."""
        return harmless(self.path.name)

    @asynccontextmanager
    async def open(self, start: int, version: str | None) -> AsyncIterator[Opened]:  # noqa: ARG002
        """Open the file. See ``Source``."""
        file = _Reader(self.path)
        try:
            size = await asyncio.to_thread(file.open)
            async with aclosing(_read(file)) as chunks:
                yield Opened(0, size, None, chunks)
        finally:
            await surely(file.close)


async def _read(file: "_Reader") -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(file.read):
        yield chunk


class _Reader:
    """A file to be read. Its methods block.

    Each holds the lock: they run in threads, also when who called them has been cancelled.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._turn = threading.Lock()
        self._closed = False

    def open(self) -> int | None:
        """Open it, and return its size, where it has one."""
        with self._turn:
            if self._closed:
                return None
            try:
                self._file = self._path.open("rb")
            except (OSError, ValueError) as error:
                raise InputError(f"{self._path} cannot be read ({_reason(error)})") from error
            found = os.fstat(self._file.fileno())
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self) -> bytes:
        with self._turn:
            return b"" if self._file is None or self._closed else self._file.read(_BLOCK)

    def close(self) -> None:
        with self._turn:
            self._closed = True
            if self._file is not None:
                self._file.close()


def check_target(path: Path) -> None:
    """Return if a file can be written there. Blocks.

    Raises:
        InputError: it cannot.
    """
    partial = _Partial(path)
    try:
        partial.create()
    finally:
        partial.drop()


async def save(source: Source, path: Path, retry: RetryPolicy, stats: DownloadStats) -> None:
    """Fetch an object into a file.

    The file that is written has another name, which ends in ``.partial``. It is given the right
    one, over whatever has it, when it is whole and on disk. Whatever ends this before removes it.

    Raises:
        InputError: nothing can be written there.
        OSError: the disk is full, or the like.
        BrazeError: the object could not be fetched.
    """
    partial = _Partial(path)
    stats.objects += 1
    try:
        await asyncio.to_thread(partial.create)
        await _fill(partial, source, retry, stats)
        await asyncio.to_thread(partial.keep)
    except BaseException:
        await surely(partial.drop)
        raise
    stats.objects_done += 1


async def _fill(
    partial: "_Partial", source: Source, retry: RetryPolicy, stats: DownloadStats
) -> None:
    for started in range(1, _MOST_STARTS + 1):
        before = (stats.bytes_total, stats.bytes_received)
        try:
            async with (
                aclosing(fetch(source, retry, stats)) as chunks,
                aclosing(_blocks(chunks)) as blocks,
            ):
                async for block in blocks:
                    await asyncio.to_thread(partial.write, block)
        except ObjectChangedError:
            if started == _MOST_STARTS:
                raise
            stats.bytes_total, stats.bytes_received = before
            await asyncio.to_thread(partial.empty)
        else:
            return
    raise AssertionError("unreachable")


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    waiting: list[bytes] = []
    size = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


class _Partial:
    """A file that has not got its name yet. Its methods block; the lock is as in ``_Reader``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = path.parent / f"{path.name[:50]}.{secrets.token_hex(4)}.partial"
        self._file: BinaryIO | None = None
        self._turn = threading.Lock()
        self._over = False

    def create(self) -> None:
        with self._turn:
            if self._over:
                return
            try:
                obstacle = _obstacle(self._path)
                self._file = None if obstacle else self._name.open("xb")
            except (OSError, ValueError) as error:
                raise InputError(f"{self._path} cannot be written ({_reason(error)})") from error
            if obstacle:
                raise InputError(f"{self._path} is {obstacle}")

    def write(self, block: bytes) -> None:
        with self._turn:
            if self._file is not None and not self._over:
                self._file.write(block)

    def empty(self) -> None:
        with self._turn:
            if self._file is not None and not self._over:
                self._file.seek(0)
                self._file.truncate()

    def keep(self) -> None:
        """Give the file its name."""
        with self._turn:
            if self._file is not None and not self._over:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._name.replace(self._path)
                self._over = True

    def drop(self) -> None:
        """Remove it, unless it has its name."""
        with self._turn:
            if self._file is not None and not self._over:
                with suppress(OSError):  # what it still held had no room on the disk
                    self._file.close()
                self._name.unlink(missing_ok=True)
            self._over = True


def _obstacle(path: Path) -> str | None:
    if path.is_dir():
        return "a directory: name a file in it"
    return "no plain file: name another" if path.exists() and not path.is_file() else None


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
