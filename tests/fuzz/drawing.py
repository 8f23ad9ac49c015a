"""What harnesses share: choices drawn from the bytes of an input, and a place for a file."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Takes choices from the beginning of an input. What they leave is its body.

    An input that is too short chooses the first of everything.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, most: int) -> int:
        """Return a number from 0 to ``most``, which takes one byte if that can hold it, or two."""
        size = 1 if most < 256 else 2
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "little") % (most + 1)

    def yes(self) -> bool:
        return bool(self.number(1))

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.number(len(options) - 1)]

    def text(self) -> str:
        """Return up to 255 bytes, after one that says how many, as text."""
        size = self.number(255)
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.decode("latin-1")

    @property
    def empty(self) -> bool:
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        taken, self._at = self._data[self._at :], len(self._data)
        return taken


def scratch_file() -> Path:
    """Return where a file can be, and be replaced, until the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder / "input"


def with_text(text: str) -> bytes:
    """Return what ``Draw.text`` reads as this text."""
    raw = text.encode("latin-1")[:255]
    return bytes([len(raw)]) + raw
