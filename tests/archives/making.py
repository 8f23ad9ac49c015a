"""Archives made by hand: of every kind that is allowed, and of kinds that no library makes."""

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from random import Random
from struct import pack
from typing import Any, Final

from attrs import frozen

STORED: Final = 0
DEFLATED: Final = 8
ENCRYPTED: Final = 0x1
SIZES_FOLLOW: Final = 0x8
UTF8: Final = 0x800
IN_EXTRA: Final = 0xFFFFFFFF

LOCAL: Final = b"PK\x03\x04"
CENTRAL: Final = b"PK\x01\x02"
DESCRIPTOR: Final = b"PK\x07\x08"
END: Final = b"PK\x05\x06"


def deflate(data: bytes, level: int = 6, wbits: int = -15) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


@frozen(kw_only=True)
class Member:
    """A file in a ZIP archive, which may lie about itself.

    Attributes:
        descriptor: the layout of what follows the data: ``4sIII``, ``4sIQQ``, ``III`` or ``IQQ``.
        zip64: whether the sizes stand in an extra field.
        packed: what stands there instead of the packed data.
        crc: told instead of the right one; so are ``packed_size`` and ``size``.
    """

    name: str | bytes = "a.json"
    data: bytes = b""
    method: int = DEFLATED
    flags: int = 0
    descriptor: str = ""
    zip64: bool = False
    extra: bytes = b""
    comment: bytes = b""
    packed: bytes | None = None
    crc: int | None = None
    packed_size: int | None = None
    size: int | None = None

    @property
    def raw_name(self) -> bytes:
        return self.name.encode() if isinstance(self.name, str) else self.name

    @property
    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == DEFLATED else self.data

    @property
    def sums(self) -> tuple[int, int, int]:
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        packed = len(self.body) if self.packed_size is None else self.packed_size
        return crc, packed, len(self.data) if self.size is None else self.size

    @property
    def all_flags(self) -> int:
        utf8 = UTF8 if isinstance(self.name, str) else 0
        return self.flags | utf8 | (SIZES_FOLLOW if self.descriptor else 0)

    def local(self) -> bytes:
        sums = (0, 0, 0) if self.descriptor else self.sums
        return LOCAL + self._head(sums, self.extra) + self.body + self._descriptor()

    def central(self, offset: int) -> bytes:
        head = self._head(
            self.sums, self.extra, between=pack("<HHHII", len(self.comment), 0, 0, 0, offset)
        )
        return CENTRAL + b"\x14\0" + head + self.comment

    def _head(self, sums: tuple[int, int, int], extra: bytes, between: bytes = b"") -> bytes:
        crc, packed, size = sums
        if self.zip64:
            extra += pack("<HHQQ", 1, 16, size, packed)
            packed = size = IN_EXTRA
        head = (20, self.all_flags, self.method, 0, 0x21, crc, packed, size)
        lengths = (len(self.raw_name), len(extra))
        return pack("<5H3I2H", *head, *lengths) + between + self.raw_name + extra

    def _descriptor(self) -> bytes:
        mark = [DESCRIPTOR] if "s" in self.descriptor else []
        return pack(f"<{self.descriptor}", *mark, *self.sums) if self.descriptor else b""


def zip_of(
    *members: Member,
    comment: bytes = b"",
    entries: int | None = None,
    zip64: bool = False,
    before_end: bytes = b"",
) -> bytes:
    """Make a ZIP archive.

    Args:
        members: in it, in order.
        comment: on the archive.
        entries: how many the end claims instead of the right number.
        zip64: whether there is the larger end as well.
        before_end: stands between the directory and its end.
    """
    bodies, directory = b"", b""
    for member in members:
        directory += member.central(len(bodies))
        bodies += member.local()
    count = len(members) if entries is None else entries
    return (
        bodies
        + directory
        + before_end
        + end_of(count, len(directory), len(bodies), comment, zip64=zip64)
    )


def end_of(
    count: int, size: int, offset: int, comment: bytes = b"", *, zip64: bool = False
) -> bytes:
    """Return what stands behind the directory of a ZIP archive."""
    larger = b""
    if zip64:
        numbers = (44, 45, 45, 0, 0, count, count, size, offset)
        larger = b"PK\x06\x06" + pack("<QHHII4Q", *numbers)
        larger += b"PK\x06\x07" + pack("<IQI", 0, offset + size, 1)
        count, size, offset = 0xFFFF, IN_EXTRA, IN_EXTRA
    small = (0, 0, count & 0xFFFF, count & 0xFFFF, size, offset, len(comment))
    return larger + END + pack("<4H2IH", *small) + comment


class _Unseekable(io.RawIOBase):
    """Keeps what is written to it. Going back is impossible, so sizes must follow the data."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += data
        return len(data)


def zipped(
    files: dict[str, bytes],
    *,
    method: int = zipfile.ZIP_DEFLATED,
    seekable: bool = True,
    force_zip64: bool = False,
) -> bytes:
    """Return an archive as ``zipfile`` makes it."""
    file: Any = io.BytesIO() if seekable else _Unseekable()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=force_zip64) as member:
                member.write(data)
    return bytes(file.getvalue() if seekable else file.written)


def gzip_of(data: bytes, *, flags: int = 0, level: int = 6) -> bytes:
    """Return a gzip stream with the optional fields that the flags tell of."""
    fields = {4: b"\x05\0extra", 8: b"name.json\0", 16: b"comment\0"}
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    head += b"".join(field for flag, field in fields.items() if flags & flag)
    if flags & 2:
        head += pack("<H", zlib.crc32(head) & 0xFFFF)
    return head + gzip.compress(data, level, mtime=0)[10:]


def endless_gzip(megabytes: int = 16) -> Iterator[bytes]:
    """Yield a gzip stream of zeros that packs 1,000 times, for ever."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1024 * 1024)
    yield packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    block = b"".join(packer.compress(zeros) for _ in range(megabytes))
    block += packer.flush(zlib.Z_FULL_FLUSH)
    while True:
        yield block


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the data in pieces, none of them empty."""
    edges = sorted({0, len(data), *(place for place in places if 0 < place < len(data))})
    return [data[a:b] for a, b in pairwise(edges)]


def ways(data: bytes, *, seed: int = 0) -> Iterator[list[bytes]]:
    """Yield the data whole, byte by byte, and in random pieces."""
    yield [data] if data else []
    yield cut(data, range(len(data)))
    random = Random(seed)
    for most in (3, 30, 300):
        yield cut(data, random.choices(range(len(data) + 1), k=len(data) // most + 1))


def lines_of(data: bytes) -> list[tuple[int, int, bytes]]:
    """Return number, offset and text of every line."""
    found = re.finditer(rb"[^\n]*\n|[^\n]+\Z", data)
    return [(n, m.start(), m.group().removesuffix(b"\n")) for n, m in enumerate(found, 1)]
