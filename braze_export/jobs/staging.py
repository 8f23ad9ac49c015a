"""The files that a job fills: added to at the end alone, and cut back to what is recorded.

Their methods block: they run in threads.
"""

import errno
import os
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec
from attrs import define, field

from braze_export.errors import JobChangedError, JobStorageError

_BLOCK: Final = 1024 * 1024


class Mark(msgspec.Struct, frozen=True):
    """How much of a file is recorded.

    Attributes:
        length: bytes.
        safe: of these, bytes known to be on the disk itself, whatever happens to the machine.
        crc: checksum of those between.
    """

    length: int = 0
    safe: int = 0
    crc: int = 0


@define
class Staged:
    """A file that grows.

    Attributes:
        path: where it is.
        mark: of what was written.
    """

    path: Path
    mark: Mark = field(factory=Mark)
    _descriptor: int = -1

    def holds(self, mark: Mark) -> bool:
        """Say whether the file holds what was recorded; more may follow it."""
        try:
            with self.path.open("rb") as file:
                file.seek(mark.safe)
                crc, left = 0, mark.length - mark.safe
                while left and (block := file.read(min(_BLOCK, left))):
                    crc, left = crc32(block, crc), left - len(block)
                file.seek(0, os.SEEK_END)
                return not left and crc == mark.crc and file.tell() >= mark.length
        except FileNotFoundError:
            return mark.length == 0

    def open(self, mark: Mark) -> None:
        """Go on where a mark is; whatever follows it is dropped.

        Raises:
            JobStorageError: the file cannot be written.
        """
        with told(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
            self._cut(mark)

    def append(self, data: bytes) -> None:
        """Add bytes at the end; all of them, or none.

        Raises:
            JobStorageError: they cannot be written.
        """
        if not data:
            return
        with told(self.path):
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError:
                self._cut(self.mark)  # the room may be needed for saying so
                raise
        mark = self.mark
        self.mark = Mark(mark.length + len(data), mark.safe, crc32(data, mark.crc))

    def back_to(self, mark: Mark) -> None:
        """Drop what was written after a mark."""
        with told(self.path):
            self._cut(mark)

    def sync(self) -> None:
        """Have everything on the disk itself.

        Raises:
            JobStorageError: it cannot be brought there.
        """
        with told(self.path):
            os.fsync(self._descriptor)
        self.mark = Mark(self.mark.length, self.mark.length)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cut(self, mark: Mark) -> None:
        os.ftruncate(self._descriptor, mark.length)
        os.lseek(self._descriptor, mark.length, os.SEEK_SET)
        self.mark = mark


_BINARY: Final[int] = getattr(os, "O_BINARY", 0)


class told:  # noqa: N801 - reads as a word of the statement it stands in
    """Has an operating system's error on a job's file raised as ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise an error of ours for one of the operating system's.

        Raises:
            JobStorageError: what was tried has failed.
        """
        if isinstance(error, OSError):
            raise storage_error(self._path, error) from error


def storage_error(path: Path, error: OSError) -> JobStorageError:
    """Return the error for a file of a job that cannot be read or written."""
    return JobStorageError(
        f"{path}: {error.strerror or error}. What is recorded is kept: make room or choose a place "
        "that can be written, and run the same again to go on"
    )


def append_to(target: Path, source: Path, length: int) -> None:
    """Make a file its first bytes followed by another file. May be done again after a crash.

    Args:
        target: keeps its first ``length`` bytes; made if it is missing and ``length`` is 0.
        source: follows them.
        length: bytes of the target before.

    Raises:
        JobChangedError: the target is shorter than that.
        JobStorageError: it cannot be written.
    """
    with told(target):
        if length and (not target.exists() or target.stat().st_size < length):
            raise JobChangedError(
                f"{target} is gone or was cut off, to which more would be added: put it back, or "
                "start over (fresh)"
            )
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
        with os.fdopen(descriptor, "r+b") as out, source.open("rb") as file:
            out.truncate(length)
            out.seek(length)
            while block := file.read(_BLOCK):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())


def put_in_place(source: Path, target: Path) -> None:
    """Give a file its name, over whatever has it, also where that is on another disk.

    Raises:
        JobStorageError: it cannot be written.
    """
    with told(target):
        target = target.resolve()  # a link stays one
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            beside = target.with_name(f"{target.name}.partial")
            append_to(beside, source, 0)
            beside.replace(target)
            source.unlink()
