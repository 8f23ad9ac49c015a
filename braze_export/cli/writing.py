"""Lines out: to standard output, or to a file that gets its name only once it is whole."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import rich_click as click

from braze_export.cli.screen import Screen, count, printable_json

STANDARD: Final = "-"

_BLOCK: Final = 256 * 1024
_LONGEST_WAIT: Final = 1.0  # seconds: whoever reads along wants to see something


class _Writable(Protocol):
    def write(self, lines: bytes, /) -> object: ...

    def flush(self) -> object: ...


class Output:
    """Collects lines and writes them in blocks, off the event loop.

    Attributes:
        lines: how many were added.
    """

    def __init__(self, file: _Writable | None, name: str = "") -> None:
        """Write to a file; ``None`` drops every line."""
        self.lines = 0
        self._file = file
        self._name = name
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._drained = time.monotonic()
        self._turn = threading.Lock()

    async def write(self, line: bytes) -> None:
        """Add a line."""
        if self._file is None:
            return
        self.lines += 1
        self._waiting += (line, b"\n")
        self._bytes += len(line) + 1
        if self._bytes >= _BLOCK or time.monotonic() - self._drained > _LONGEST_WAIT:
            await asyncio.to_thread(self.drain)

    def drain(self) -> None:
        """Write what has been added so far. Blocks: not for the event loop."""
        # One at a time: after a second Ctrl-C the thread of the first may still be writing.
        with self._turn:
            lines, self._waiting, self._bytes = self._waiting, [], 0
            self._drained = time.monotonic()
            if self._file is None or not lines:
                return
            try:
                self._file.write(b"".join(lines))
                self._file.flush()
            except OSError as error:
                error.filename = self._name
                raise


@contextmanager
def output(path: str | None, screen: Screen) -> Iterator[Output]:
    """Open a place for lines. Not to be entered or left inside an event loop.

    Until the end a file is called ``NAME.partial``. It keeps that name when an exception ends
    it, Ctrl-C included, so that a file called ``NAME`` is always whole.

    Args:
        path: a file, ``-`` for standard output, or ``None`` for nowhere.
        screen: is told where a partial file was left.

    Raises:
        UsageError: nothing can be written there.
    """
    if path is None:
        yield Output(None)
    elif path == STANDARD:
        with _drained(Output(_standard_output(), "standard output")) as out:
            yield out
    elif is_special(Path(path)):
        with _opened(Path(path), path) as file, _drained(Output(file, path)) as out:
            yield out
    else:
        with _whole_or_partial(path, screen) as out:
            yield out


class _Terminal:
    """Standard output that somebody looks at: no profile on it steers the terminal."""

    def write(self, lines: bytes) -> None:
        sys.stdout.buffer.write(printable_json(lines.decode(errors="replace")).encode())

    def flush(self) -> None:
        sys.stdout.buffer.flush()


def _standard_output() -> _Writable:
    return _Terminal() if sys.stdout.isatty() else sys.stdout.buffer


def is_special(path: Path) -> bool:
    """Say whether a path is something that must not be replaced: a device, a pipe."""
    return path.exists() and not path.is_file()


@contextmanager
def _whole_or_partial(path: str, screen: Screen) -> Iterator[Output]:
    target = Path(path).resolve()  # what a link points to, so that the link stays
    partial = target.with_name(f"{target.name}.partial")
    out: Output | None = None
    try:
        with _opened(partial, path) as file, _drained(Output(file, path)) as out:
            yield out
        partial.replace(target)
    except BaseException:
        if out is not None and out.lines:
            screen.say(f"{count(out.lines, 'line')} kept in {path}.partial")
        elif out is not None:
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def _opened(place: Path, path: str) -> Iterator[BinaryIO]:
    file = _open(place, path)
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:  # it tries once more what could not be written
            error.filename = path
            raise


def _open(place: Path, path: str) -> BinaryIO:
    try:
        return place.open("wb")
    except OSError as error:
        raise click.UsageError(
            f"{path} cannot be written ({error.strerror}): choose another place."
        ) from error


@contextmanager
def _drained(out: Output) -> Iterator[Output]:
    try:
        yield out
    finally:
        out.drain()
