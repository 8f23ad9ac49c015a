"""The files that a job fills: added to at the end alone, and cut back to what is recorded.

Their methods block: they run in threads.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from attrs import define

from braze_export.errors import JobChangedError, JobStorageError

Piece: TypeAlias = bytes | msgspec.Raw

_BLOCK: Final = 1024 * 1024
_AT_ONCE: Final = 1024  # pieces: the most that POSIX promises to take
_GATHERS: Final = hasattr(os, "writev")  # not on Windows


@define
class Staged:
    """A file that grows.

    Attributes:
        path: where it is.
        length: bytes that were written.
    """

    path: Path
    length: int = 0
    _descriptor: int = -1

    def holds(self, length: int) -> bool:
        """Say whether the file holds what was recorded; more may follow it."""
        try:
            return self.path.stat().st_size >= length
        except FileNotFoundError:
            return length == 0

    def open(self, length: int) -> None:
        """Go on after so many bytes; whatever follows them is dropped.

        Raises:
            JobStorageError: the file cannot be written.
        """
        with told(self.path):
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o666)
            self._cut(length)

    def append(self, pieces: Sequence[Piece]) -> None:
        """Add pieces at the end; all of them, or none.

        Raises:
            JobStorageError: they cannot be written.
        """
        before = self.length
        with told(self.path):
            try:
                for at in range(0, len(pieces), _AT_ONCE):
                    self.length += self._write(pieces[at : at + _AT_ONCE])
            except OSError:
                self._cut(before)  # the room may be needed for saying so
                raise

    def back_to(self, length: int) -> None:
        """Drop what was written after so many bytes."""
        with told(self.path):
            self._cut(length)

    def sync(self) -> None:
        """Have everything on the disk itself.

        Raises:
            JobStorageError: it cannot be brought there.
        """
        with told(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, pieces: Sequence[Piece]) -> int:
        size = sum(map(len, pieces))
        # Straight from where they are: to put them together first would be another copy.
        done = os.writev(self._descriptor, pieces) if _GATHERS else 0
        if done < size:
            rest = memoryview(b"".join(pieces))[done:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return size

    def _cut(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)
        os.lseek(self._descriptor, length, os.SEEK_SET)
        self.length = length


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
        with source.open("rb") as file:
            out = Staged(target)
            out.open(length)
            try:
                while block := file.read(_BLOCK):
                    out.append([block])
                out.sync()
            except (OSError, JobStorageError):
                with suppress(JobStorageError):
                    out.back_to(length)  # a part of a line is of no use to anybody
                raise
            finally:
                out.close()


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
        _sync_names(target.parent)


def _sync_names(folder: Path) -> None:
    """Have the names in a folder on the disk itself, where the system knows how."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
