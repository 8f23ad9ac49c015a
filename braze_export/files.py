"""Objects into files of this machine, which get their names once they are whole, and back."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

from attrs import frozen

from braze_export.archive import harmless
from braze_export.errors import InputError
from braze_export.fetching import ObjectChangedError, Opened, Source, fetch
from braze_export.models.results import DownloadStats
from braze_export.retry import RetryPolicy

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
        try:
            file = await asyncio.to_thread(self.path.open, "rb")
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror})") from error
        try:
            size = (await asyncio.to_thread(os.fstat, file.fileno())).st_size
            async with aclosing(_read(file)) as chunks:
                yield Opened(0, size, None, chunks)
        finally:
            await asyncio.to_thread(file.close)


async def _read(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := await asyncio.to_thread(file.read, _BLOCK):
        yield chunk


async def save(source: Source, path: Path, retry: RetryPolicy, stats: DownloadStats) -> None:
    """Fetch an object into a file.

    The file that is written has another name, which ends in ``.partial``. It is given the right
    one, over whatever has it, when it is whole and on disk. Whatever ends this before removes it.

    Raises:
        InputError: nothing can be written there.
        OSError: the disk is full, or the like.
        BrazeError: the object could not be fetched.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    file = await asyncio.to_thread(_create, partial, path)
    try:
        try:
            await _fill(file, source, retry, stats)
            await asyncio.to_thread(_sync, file)
        finally:
            await asyncio.to_thread(file.close)
        await asyncio.to_thread(partial.replace, path)
    except BaseException:
        await asyncio.to_thread(partial.unlink, missing_ok=True)
        raise


async def _fill(file: BinaryIO, source: Source, retry: RetryPolicy, stats: DownloadStats) -> None:
    for started in range(1, _MOST_STARTS + 1):
        before = (stats.bytes_total, stats.bytes_received)
        try:
            async with aclosing(fetch(source, retry, stats)) as chunks:
                async for block in _blocks(chunks):
                    await asyncio.to_thread(file.write, block)
        except ObjectChangedError:
            if started == _MOST_STARTS:
                raise
            stats.bytes_total, stats.bytes_received = before
            await asyncio.to_thread(file.truncate, 0)
            await asyncio.to_thread(file.seek, 0)
        else:
            return


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _create(partial: Path, path: Path) -> BinaryIO:
    if path.is_dir():
        raise InputError(f"{path} is a directory: name a file in it")
    try:
        return partial.open("xb")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror})") from error


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
