"""A queue of bytes between a download and whoever takes it in.

As long as the bytes are taken as fast as they come, they never touch a disk. If not, the
download does not wait: links run out after some hours, and storages hang up on those who read
slowly. What is ahead is kept in memory, up to a bound, and beyond it in a temporary file.
"""

import asyncio
import logging
import tempfile
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from braze_export.tasks import surely

_TAKEN: Final = 1024 * 1024  # bytes given at once, at most
_log = logging.getLogger("braze_export")


class Spool:
    """A queue of bytes: a task puts, a thread takes.

    Args:
        memory: bytes kept in memory.
        directory: where the temporary file is made; ``None`` for the system's own place.
            Where there is no room, ``put`` waits for ``take``.

    Attributes:
        ended: whether no more comes.
    """

    def __init__(self, memory: int, directory: Path | None) -> None:
        self.ended = False
        self._memory = memory
        self._chunks: deque[bytes] = deque()  # all of them older than what is in the file
        self._held = 0
        self._turn = threading.Lock()  # for these two; never held for long
        self._overflow = _Overflow(directory)
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()
        self._room = asyncio.Event()

    async def put(self, chunk: bytes) -> None:
        """Add bytes."""
        if not chunk:
            return
        while not self._into_memory(chunk):
            if self._overflow.usable:
                if await asyncio.to_thread(self._overflow.write, chunk):
                    break
                continue  # there may be room in memory by now
            self._room.clear()
            await self._room.wait()
        self._more.set()

    def end(self, error: Exception | None = None) -> None:
        """Say that no more comes; ``take`` raises the error once all that came was taken."""
        self.ended, self._error = True, error
        self._more.set()

    async def wait(self) -> None:
        """Return when there is something to take, or the end."""
        while not (self._chunks or self._overflow.unread or self.ended):
            self._more.clear()
            await self._more.wait()

    def take(self) -> bytes:
        """Return the next bytes; none where none are there. Blocks: for a thread.

        Raises:
            Exception: the error that ended it.
        """
        # Both asked first: what came before the end is there by now, and as long as something
        # is in the file, all that is in memory is older.
        ended, spilled = self.ended, self._overflow.unread
        data = self._from_memory() or (self._overflow.read() if spilled else b"")
        if data:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                self._loop.call_soon_threadsafe(self._room.set)
        elif ended and self._error is not None:
            raise self._error
        return data

    async def aclose(self) -> None:
        """Remove the temporary file. Being cancelled does not keep it from going."""
        await surely(self._overflow.close)

    def _into_memory(self, chunk: bytes) -> bool:
        with self._turn:
            if self._overflow.unread or self._held >= self._memory:
                return False
            self._chunks.append(chunk)
            self._held += len(chunk)
            return True

    def _from_memory(self) -> bytes:
        taken: list[bytes] = []
        size = 0
        with self._turn:
            while self._chunks and (not taken or size + len(self._chunks[0]) <= _TAKEN):
                taken.append(self._chunks.popleft())
                size += len(taken[-1])
            self._held -= size
        return b"".join(taken)


class _Overflow:
    """The temporary file. Its methods block; each holds the lock, for they run in threads."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._read_to = 0
        self._written_to = 0
        self._turn = threading.Lock()
        self._closed = False
        self.usable = True

    @property
    def unread(self) -> int:
        return self._written_to - self._read_to

    def write(self, chunk: bytes) -> bool:
        """Append bytes; false if there is no room for them."""
        with self._turn:
            if self._closed:
                return True
            try:
                if self._file is None:
                    # Without a name: whatever happens, nothing is left of it.
                    self._file = tempfile.TemporaryFile(  # noqa: SIM115 - closed by close()
                        dir=self._directory, buffering=0
                    )
                self._file.seek(self._written_to)
                done = self._file.write(chunk)
                while done < len(chunk):
                    done += self._file.write(chunk[done:])
            except OSError as error:
                self.usable = False
                _log.warning(
                    "download: no room for a temporary file (%s), so it goes at its reader's pace",
                    error.strerror,
                )
                return False
            self._written_to += len(chunk)
            return True

    def read(self) -> bytes:
        """Take bytes from the front; the file shrinks to nothing when all are taken."""
        with self._turn:
            if self._file is None or self._closed:
                return b""
            self._file.seek(self._read_to)
            data = self._file.read(min(_TAKEN, self.unread))
            self._read_to += len(data)
            if self._read_to == self._written_to:
                self._read_to = self._written_to = 0
                self._file.truncate(0)
            return data

    def close(self) -> None:
        with self._turn:
            self._closed = True
            if self._file is not None:
                self._file.close()
