"""Deflate, undone in pieces of a bounded size: by isal where it is installed, else by zlib.

``pip install "braze-export[fast]"`` installs isal, which inflates more than twice as fast.
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final


def _is_sound(version: str) -> bool:
    """Say whether a version of isal is one from 1.9 on: those before lose bytes.

    Another package may have brought it.
    """
    numbers = version.split(".")[:2]
    return all(map(str.isdecimal, numbers)) and tuple(map(int, numbers)) >= (1, 9)


_fast: Any = zlib
with suppress(ImportError):
    import isal
    from isal import isal_zlib

    if _is_sound(isal.__version__):
        _fast = isal_zlib

#: Bytes that one piece holds at most, however much its input may inflate to.
PIECE: Final = 1024 * 1024
#: Bytes that are fed at once: what a stream leaves over is copied, at every piece or its end.
SLICE: Final = 256 * 1024
RAW: Final = -15  # deflate alone, as in ZIP
GZIP: Final = 31  # with gzip's header, checksum and length, which are checked
ERRORS: Final[tuple[type[Exception], ...]] = (zlib.error, _fast.error)

crc32 = _fast.crc32

_HEADER_LIMIT: Final = 128 * 1024  # bytes of a gzip header: an extra field may have 64 KB
_EXTRA, _NAME, _COMMENT, _CHECKSUM = 0x4, 0x8, 0x10, 0x2


class Inflater:
    """Undoes one deflated stream.

    Args:
        wbits: ``RAW`` or ``GZIP``.
    """

    def __init__(self, wbits: int) -> None:
        self._stream: Any = _fast.decompressobj(wbits)
        # isal forgets what a header had said where that comes in parts.
        self._header: bytes | None = b"" if wbits == GZIP else None

    @property
    def finished(self) -> bool:
        """Whether the stream has come to its end."""
        return bool(self._stream.eof)

    @property
    def unused(self) -> bytes:
        """What was fed beyond the end of the stream."""
        return bytes(self._stream.unused_data)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the stream inflate to.

        Raises:
            Exception: one of ``ERRORS``: this is no such stream, or a damaged one.
        """
        if self._header is not None:
            data = self._header + data
            if not _has_header(data):
                self._header = data
                return
            self._header = None
        stream = self._stream
        while True:
            piece = stream.decompress(data, PIECE)
            data = stream.unconsumed_tail
            if piece:
                yield piece
            # A full piece may have left more behind, though all of the input is consumed.
            if stream.eof or (not data and len(piece) < PIECE):
                return


def _has_header(data: bytes) -> bool:
    """Return whether the whole header of a gzip stream is there."""
    if len(data) < 12:
        return False  # nor is there a stream so short
    flags, at = data[3], 10
    if flags & _EXTRA:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            end = data.find(b"\0", at)
            at = end + 1 if end >= 0 else len(data) + 1
    if flags & _CHECKSUM:
        at += 2
    if at > _HEADER_LIMIT:
        raise zlib.error("its header is too long")
    return at <= len(data)
