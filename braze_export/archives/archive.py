"""The archive of an export, as its bytes come, into lines. Pure.

What kind it is, its content tells, not its name: ZIP, GZIP, or lines as they are. A member of
an archive may be an archive again, as Braze once documented; one within that may not.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen

from braze_export.archives.inflate import ERRORS, GZIP, SLICE, Inflater
from braze_export.archives.lines import Block, LineSplitter
from braze_export.archives.unzip import BEGINNINGS, End, Start, ZipReader
from braze_export.errors import ArchiveError
from braze_export.validators import above_zero, whole_above_zero

_GZIP_MAGIC: Final = b"\x1f\x8b"
_MAGIC_SIZE: Final = 4
_JSON_BEGINS: Final = (b"{", b" ", b"\t", b"\r", b"\n", b"[", b'"')
_MEMBERS_DEEP: Final = 2
_NAME_LIMIT: Final = 100  # characters of a name that are worth showing


@frozen
class ArchiveLimits:
    """What an archive may unpack to. More is taken for an attack, or a mistake.

    Unpacked data is never held whole, so these bound time, not memory; ``max_line`` bounds memory.

    Attributes:
        max_bytes: of everything unpacked. Default: 1 TB.
        max_ratio: of unpacked to packed bytes, looked at once 1 GB is unpacked. Few fields of
            many users pack well: ``{"country":"US"}`` over and over reaches 500.
        max_members: files in one archive.
        max_line: bytes of one record. Default: 10 MB.
    """

    max_bytes: int = field(default=10**12, validator=whole_above_zero)
    max_ratio: float = field(default=200.0, validator=above_zero)
    max_members: int = field(default=100_000, validator=whole_above_zero)
    max_line: int = field(default=10 * 1024 * 1024, validator=whole_above_zero)


_RATIO_FROM: Final = 10**9  # bytes unpacked, below which no ratio is suspicious


@define
class _Load:
    """How much was unpacked, of how much."""

    limits: ArchiveLimits
    packed: int = 0
    unpacked: int = 0

    def add(self, piece: bytes) -> bytes:
        self.unpacked += len(piece)
        limits = self.limits
        if self.unpacked > limits.max_bytes:
            raise ArchiveError(
                f"the archive unpacks to more than {limits.max_bytes:,} bytes: raise max_bytes in "
                "ArchiveLimits if it is meant to"
            )
        if self.unpacked > _RATIO_FROM and self.unpacked > limits.max_ratio * self.packed:
            raise ArchiveError(
                f"the archive unpacks to more than {limits.max_ratio:g} times its size: raise "
                "max_ratio in ArchiveLimits if it is meant to"
            )
        return piece


class Unpacker:
    """Turns an archive, fed in pieces, into lines.

    The iterators that ``feed`` and ``close`` return do the work while they are iterated, and
    one must be at its end before the next is asked for.

    Args:
        name: of the archive, for messages and places.
        limits: what it may unpack to.
    """

    def __init__(self, name: str, limits: ArchiveLimits) -> None:
        self._load = _Load(limits)
        self._file = _File(harmless(name), self._load, depth=0)

    @property
    def unpacked(self) -> int:
        """Bytes unpacked so far, those of archives within the archive included."""
        return self._load.unpacked

    def feed(self, data: bytes) -> Iterator[Block]:
        """Yield the lines that the next bytes complete.

        Raises:
            ArchiveError: this is no archive, or one that is damaged or hostile.
        """
        self._load.packed += len(data)
        return self._file.feed(data)

    def close(self) -> Iterator[Block]:
        """Yield what is left, now that no more bytes come.

        Raises:
            ArchiveError: the archive is cut off.
        """
        return self._file.close()


class _File:
    """An archive, or a file in one, whose first bytes tell which."""

    def __init__(self, name: str, load: _Load, depth: int) -> None:
        self._name = name
        self._load = load
        self._depth = depth
        self._first = b""
        self._content: _Zip | _Gzip | LineSplitter | None = None

    def feed(self, data: bytes) -> Iterator[Block]:
        if self._content is None:
            self._first += data
            if len(self._first) < _MAGIC_SIZE:
                return iter(())
            data, self._first = self._first, b""
        return self._told(data)

    def close(self) -> Iterator[Block]:
        if self._first:  # all of it is shorter than a magic number
            yield from self._told(self._first)
        if self._content is not None:  # else nothing came at all: an export of nobody
            yield from self._told(None)

    def _told(self, data: bytes | None) -> Iterator[Block]:
        """Yield the lines of the next bytes, or of the end; errors say which file it is."""
        try:
            content = self._content = self._content or self._kind(data or b"")
            if data and self._depth == 0 and isinstance(content, LineSplitter):
                self._load.add(data)  # nothing to unpack; from an archive it is counted there
            yield from content.close() if data is None else content.feed(data)
        except ArchiveError as error:
            error.file = error.file or self._name
            raise

    def _kind(self, first: bytes) -> "_Zip | _Gzip | LineSplitter":
        packed = first.startswith((*BEGINNINGS, _GZIP_MAGIC))
        if packed and self._depth == _MEMBERS_DEEP:
            raise ArchiveError("it is an archive in an archive in an archive")
        if first.startswith(BEGINNINGS):
            return _Zip(self._name, self._load, self._depth)
        if first.startswith(_GZIP_MAGIC):
            return _Gzip(self._name, self._load, self._depth)
        text = first.removeprefix(BOM_UTF8)
        if self._depth == 0 and text and not text.startswith(_JSON_BEGINS):
            raise ArchiveError(_what_it_is(text))
        return LineSplitter(self._name, self._load.limits.max_line)


class _Zip:
    def __init__(self, name: str, load: _Load, depth: int) -> None:
        self._name = name
        self._load = load
        self._depth = depth
        self._reader = ZipReader(load.limits.max_members)
        self._member = _File(name, load, depth + 1)  # until the first begins

    def feed(self, data: bytes) -> Iterator[Block]:
        for event in self._reader.feed(data):
            match event:
                case Start(name=name):
                    file = f"{self._name}: {harmless(name)}"
                    self._member = _File(file, self._load, self._depth + 1)
                case End():
                    yield from self._member.close()
                case piece:
                    yield from self._member.feed(self._load.add(piece))

    def close(self) -> Iterator[Block]:
        self._reader.close()
        return iter(())


class _Gzip:
    def __init__(self, name: str, load: _Load, depth: int) -> None:
        self._load = load
        self._inflater: Inflater | None = None
        self._begun = b""  # of a next member
        # Several members are one file, cut at any place.
        self._file = _File(name, load, depth + 1)

    def feed(self, data: bytes) -> Iterator[Block]:
        for at in range(0, len(data), SLICE):
            yield from self._streams(data[at : at + SLICE])

    def _streams(self, data: bytes) -> Iterator[Block]:
        while data:
            if self._inflater is None:
                # Zeros may fill up the block of a tape.
                data, self._begun = (self._begun + data).lstrip(b"\0"), b""
                if not data or data == _GZIP_MAGIC[:1]:
                    self._begun = data
                    return
                if not data.startswith(_GZIP_MAGIC):
                    raise ArchiveError("there is something else behind the end of the archive")
                self._inflater = Inflater(GZIP)
            inflater = self._inflater
            try:
                for piece in inflater.pieces(data):
                    yield from self._file.feed(self._load.add(piece))
            except ERRORS as error:
                raise ArchiveError(f"the archive is damaged ({error})") from None
            data = b""
            if inflater.finished:
                data, self._inflater = inflater.unused, None

    def close(self) -> Iterator[Block]:
        if self._inflater is not None or self._begun:
            raise ArchiveError("the archive ends before its end: it is cut off")
        return self._file.close()


def harmless(name: str) -> str:
    """Return a name that can be shown: of one line, not too long, without control characters."""
    text = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:_NAME_LIMIT]
    )
    return text if len(name) <= _NAME_LIMIT else f"{text}…"


def _what_it_is(first: bytes) -> str:
    if first.lstrip().startswith(b"<"):
        return "there is no archive, but a page of HTML or XML"
    return f"there is no archive: it begins with the bytes {first[:4].hex(' ')}"
