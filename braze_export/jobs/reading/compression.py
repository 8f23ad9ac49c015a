"""Compressed files, read and written: gzip and Zstandard (extra ``zstd``). Blocks.

What is read, its first bytes tell; what is written, the name does.
"""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from braze_export.archives.inflate import ERRORS, GZIP, Inflater
from braze_export.errors import InputError

#: Bytes that a piece of a file holds at most.
PIECE: Final = 64 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPED_MAGIC: Final = b"\x2a\x4d\x18"  # after one byte: a frame for other programs
_GZIP_LEVEL: Final = 6


class Codec(Protocol):
    """How results are compressed: in members (frames), one after the other, each whole."""

    @property
    def suffix(self) -> str:
        """What the names of such files end with; may be empty."""

    def compress(self, data: bytes) -> bytes:
        """Return a member that holds the data. Members put together are a valid file."""


class Plain:
    """No compression. A ``Codec``."""

    suffix = ""

    def compress(self, data: bytes) -> bytes:
        """Return the data themselves."""
        return data


class Gzip:
    """Gzip. A ``Codec``.

    The bytes are the same whenever they are made, and whatever extras are installed.
    """

    suffix = ".gz"

    def compress(self, data: bytes) -> bytes:
        """Return a member that holds the data."""
        return gzip.compress(data, _GZIP_LEVEL, mtime=0)


class Zstd:
    """Zstandard, with a checksum in each frame. A ``Codec``.

    Raises:
        InputError: the extra ``zstd`` is not installed.
    """

    suffix = ".zst"

    def __init__(self) -> None:
        self._zstd = _zstd()
        self._options = {self._zstd.CompressionParameter.checksum_flag: 1}

    def compress(self, data: bytes) -> bytes:
        """Return a frame that holds the data."""
        return bytes(self._zstd.compress(data, options=self._options))


def codec_for(path: Path) -> Codec:
    """Return how a file of that name is compressed: ``.gz``, ``.zst``, else not at all.

    Raises:
        InputError: an extra that is needed for it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix == Zstd.suffix:
        return Zstd()
    return Gzip() if suffix == Gzip.suffix else Plain()


def open_decompressed(path: Path) -> BinaryIO:
    """Open a file to read what it holds, unpacked if its first bytes say that it is packed.

    Reading it raises ``InputError`` where it is damaged or cut off.

    Raises:
        InputError: it cannot be read, or an extra that is needed for it is not installed.
    """
    return io.BufferedReader(_Stream(Pieces(path)), PIECE)


def open_raw(path: Path) -> BinaryIO:
    """Open a file to read its bytes as they are, without a buffer.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return path.open("rb", buffering=0)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


class Pieces:
    """What a file holds, unpacked, in pieces of 1 byte to 64 KB. To be iterated over once.

    Args:
        path: the file.

    Attributes:
        path: the same.
        consumed: bytes of the file, as it is, that were read so far.

    Raises:
        InputError: it cannot be read, or an extra that is needed for it is not installed; while
            it is iterated over also: it is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.consumed = 0
        self._file = open_raw(path)
        try:
            self._first = self._read()
            self._kind = _kind(self._first)
            self._zstd = _zstd() if self._kind == "Zstandard" else None
        except BaseException:
            self._file.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        if not self._kind:
            yield from self._chunks()
            return
        failures = (EOFError, *((self._zstd.ZstdError,) if self._zstd else ERRORS))
        try:
            for piece in self._unpacked():
                for at in range(0, len(piece), PIECE):
                    yield piece[at : at + PIECE]
        except failures as error:
            what = "cut off" if isinstance(error, EOFError) else "damaged"
            raise InputError(f"{self.path} is {what}: it is no whole {self._kind} file") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unpacked(self) -> Iterator[bytes]:
        return _unzstd(self._zstd, self._chunks()) if self._zstd else _gunzip(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        chunk, self._first = self._first, b""
        while chunk:
            yield chunk
            chunk = self._read()

    def _read(self) -> bytes:
        try:
            chunk = self._file.read(PIECE)
        except (OSError, ValueError) as error:  # a directory; a disk that fails
            raise _unreadable(self.path, error) from error
        self.consumed += len(chunk)
        return chunk


class _Stream(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Pieces) -> None:
        self._source = pieces
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._source.close()
        super().close()


def _kind(first: bytes) -> str:
    if first.startswith(_GZIP_MAGIC):
        return "gzip"
    skipped = first[1:4] == _SKIPPED_MAGIC and 0x50 <= first[0] <= 0x5F
    return "Zstandard" if skipped or first.startswith(_ZSTD_MAGIC) else ""


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream: Inflater | None = None
    for chunk in chunks:
        data = chunk
        while data:
            if stream is None:
                data = data.lstrip(b"\0")  # tapes and the like pad what is on them
                if not _GZIP_MAGIC.startswith(data[: len(_GZIP_MAGIC)]):
                    raise zlib.error("something else follows")
                stream = Inflater(GZIP) if data else None
                continue
            yield from stream.pieces(data)
            data = stream.unused if stream.finished else b""
            stream = None if stream.finished else stream
    if stream is not None:
        raise EOFError


def _unzstd(zstd: Any, chunks: Iterator[bytes]) -> Iterator[bytes]:
    stream: Any = None
    for chunk in chunks:
        data = chunk
        while data:
            stream = stream or zstd.ZstdDecompressor()
            yield stream.decompress(data, PIECE)
            while not stream.eof and not stream.needs_input:
                yield stream.decompress(b"", PIECE)
            data = stream.unused_data if stream.eof else b""
            stream = None if stream.eof else stream
    if stream is not None:
        raise EOFError


def _zstd() -> Any:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            'Zstandard is an extra: pip install "braze-export[zstd]", or use gzip'
        ) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{path} cannot be read ({reason})")
