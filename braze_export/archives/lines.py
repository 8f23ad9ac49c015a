r"""Bytes to lines, and where each line stands. Pure.

Lines end with ``b"\n"`` and nothing else: ``str.splitlines`` would also break rows at U+2028
and others that JSON strings may hold.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from typing import Final

from attrs import frozen

_MANY: Final = 5_000  # lines in a piece, for which it is split bit by bit:
_SMALL: Final = 64 * 1024  # so many bytes at once, or other threads would have to wait
_SHOWN: Final = 10_000  # bytes kept of a line that is too long


@frozen
class Place:
    """Where a line stands.

    Attributes:
        file: the name of the file, made harmless to print.
        line: its number, from 1.
        offset: bytes of the unpacked file before it.
    """

    file: str
    line: int
    offset: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line:,} (byte {self.offset:,})"


@frozen
class Block:
    """Some lines of a file, one after the other, without the line feeds.

    Attributes:
        start: where the first one stands.
        lines: some may be empty.
        too_long: the length in bytes of the only line, which was cut because it is longer than
            lines may be.
    """

    start: Place
    lines: list[bytes]
    too_long: int | None = None

    def place(self, index: int) -> Place:
        """Return where a line of the block stands."""
        start = self.start
        return Place(start.file, start.line + index, start.offset + self._before[index])

    @cached_property
    def _before(self) -> list[int]:
        # Counted once: all lines of a hostile file may be bad, and each is asked for its place.
        return list(accumulate((len(line) + 1 for line in self.lines), initial=0))


class LineSplitter:
    """Splits a file, which comes in pieces, into lines.

    Args:
        file: its name, for the places.
        longest: bytes that a line may have. Of a longer one only the beginning is kept.
    """

    def __init__(self, file: str, longest: int) -> None:
        self._file = file
        self._longest = longest
        self._line = 1
        self._offset = 0
        self._begun = bytearray()  # a line whose end has not come, or its beginning
        self._length = 0  # of that line so far

    def feed(self, piece: bytes) -> Iterator[Block]:
        """Yield the lines that the next piece of the file completes.

        A byte order mark is left out if the first piece holds the whole of it.
        """
        if self._offset == self._length == 0 and piece.startswith(BOM_UTF8):
            self._offset, piece = len(BOM_UTF8), piece.removeprefix(BOM_UTF8)
        if piece.count(b"\n") < _MANY:
            yield from self._split(piece)
            return
        for at in range(0, len(piece), _SMALL):
            part = piece[at : at + _SMALL]
            yield from self._split(part if self._length else self._without_blanks(part))

    def _split(self, piece: bytes) -> Iterator[Block]:
        *ended, rest = piece.split(b"\n")
        if ended:
            self._begin(ended[0])
            ended[0] = bytes(self._begun)
            length, self._length, self._begun = self._length, 0, bytearray()
            if length > self._longest:
                yield self._cut(ended.pop(0), length)
            yield from self._whole(ended)
        self._begin(rest)

    def close(self) -> Iterator[Block]:
        """Yield the last line, where no line feed ended it."""
        if self._length:
            yield from self.feed(b"\n")

    def _without_blanks(self, piece: bytes) -> bytes:
        """Pass over lines if nothing is in any of them; return what is left."""
        if not piece.isspace():
            return piece
        end = piece.rfind(b"\n") + 1
        self._line += piece.count(b"\n")
        self._offset += end
        return piece[end:]

    def _begin(self, part: bytes) -> None:
        self._length += len(part)
        if self._length > self._longest:
            del self._begun[_SHOWN:]
            part = part[: _SHOWN - len(self._begun)]
        self._begun += part

    def _whole(self, lines: list[bytes]) -> Iterator[Block]:
        if not lines:
            return
        if max(map(len, lines)) > self._longest:
            for line in lines:
                if len(line) > self._longest:
                    yield self._cut(line[:_SHOWN], len(line))
                else:
                    yield self._block([line])
            return
        yield self._block(lines)

    def _block(self, lines: list[bytes]) -> Block:
        start = Place(self._file, self._line, self._offset)
        self._line += len(lines)
        self._offset += sum(map(len, lines)) + len(lines)
        return Block(start, lines)

    def _cut(self, shown: bytes, length: int) -> Block:
        start = Place(self._file, self._line, self._offset)
        self._line += 1
        self._offset += length + 1
        return Block(start, [shown], too_long=length)
