"""Archives, arbitrary, whole and broken, through the reader of archives.

Three witnesses: ``zipfile`` and ``gzip`` of what is whole, the split of the unpacked text into
lines, and the reader itself, given the same bytes in other pieces.
"""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from attrs import frozen

from braze_export.archives import inflate as _inflate
from braze_export.archives.archive import ArchiveLimits, Unpacker, harmless
from braze_export.errors import ArchiveError
from tests.archives.making import Member, cut, gzip_of, lines_of, zip_of, zipped
from tests.fuzz.drawing import Draw

LONGEST: Final = 8192
WORDS: Final = (
    *(b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"),
    *(b"PK\x05\x05", b"PK00", b"\x1f\x8b\x08", b"\x1f\x8b\x08\x1e", b"\xef\xbb\xbf", b"{}\n"),
    *(b"\xff\xff\xff\xff", b"\x01\0\x10\0", b"\x08\0", b"\0\0\0\0", b"\x01\0\0\xff\xff", b"\x03\0"),
)
_LIMITS: Final = ArchiveLimits(max_bytes=300_000, max_members=8, max_line=400)
_MODULES: Final = (zlib, _inflate._fast)
_NAMES: Final = ("a.json", "b/", "c/d.json", "", "é\n.json", "x" * 300)
_TEXTS: Final = (
    *(b"", b"{}", b"{}\n", b'{"a": 1}\n{"b": "\xe2\x80\xa8"}\r\n\n', b"\n" * 300),
    *(
        b"\xef\xbb\xbf{}\n",
        b"{" + b"x" * 1000 + b"}\n{}\n",
        b'{"a":"PK\x07\x08"}\n' * 30,
        b"\0" * 2000,
        b"[1]\n" * 50,
    ),
    b"\n" * 5500 + b"{}\n",  # so many that blank lines are passed over
)
_LAYOUTS: Final = ("", "4sIII", "4sIQQ", "III", "IQQ")


@frozen
class Read:
    """What was read of an archive: of each line its file, number, offset and bytes."""

    rows: list[tuple[str, int, int, bytes, int | None]]
    error: ArchiveError | None
    unpacked: int


def seeds() -> Iterator[bytes]:
    files = {"a.json": _TEXTS[3], "b.json": b"{}"}
    raw = b"\0" * 6
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for seekable in (True, False):
            yield raw + zipped(files, method=method, seekable=seekable)
    yield raw + zipped(files, force_zip64=True)
    yield raw + zipped({"in.zip": zipped(files), "in.gz": gzip.compress(b"{}\n", mtime=0)})
    yield raw + zip_of(Member(data=b"{}\n", zip64=True), zip64=True, comment=b"c") + zip_of()
    for flags in (0, 2, 4, 8, 16, 30):
        yield raw + gzip_of(_TEXTS[3], flags=flags) + gzip_of(b"{}") + bytes(20)
    yield raw + _TEXTS[3]
    yield raw + b"<html>"
    for kind in (1, 2, 3):
        yield bytes([kind, 1, 3, 50, 200, 90]) + bytes(range(0, 250, 3))
        yield bytes([kind, 0, 9, 9, 9, 9]) + bytes(range(250, 0, -3))


def try_one(data: bytes) -> None:
    draw = Draw(data)
    kind = draw.number(3)
    module = draw.one_of(_MODULES)
    cuts = [draw.number(255) for _ in range(4)]
    with _inflating_by(module):
        if kind == 0:
            _try_bytes(draw.rest(), cuts)
        elif kind == 1:
            _try_zip(draw, cuts)
        elif kind == 2:
            _try_gzip(draw, cuts)
        else:
            _try_bytes(_mutated(_made_zip(draw)[0], draw), cuts)


@contextmanager
def _inflating_by(module: Any) -> Iterator[None]:
    before = _inflate._fast
    _inflate._fast = module
    try:
        yield
    finally:
        _inflate._fast = before


def _read(pieces: Iterable[bytes]) -> Read:
    unpacker = Unpacker("export", _LIMITS)
    rows: list[tuple[str, int, int, bytes, int | None]] = []

    def add(blocks: Iterable[Any]) -> None:
        for block in blocks:
            assert block.lines
            for index, line in enumerate(block.lines):
                if line:  # blank ones are passed over where they are many
                    place = block.place(index)
                    rows.append((place.file, place.line, place.offset, line, block.too_long))

    error: ArchiveError | None = None
    try:
        for piece in pieces:
            add(unpacker.feed(piece))
        add(unpacker.close())
    except ArchiveError as failure:
        error = failure
        assert str(error).isprintable()
    return Read(rows, error, unpacker.unpacked)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut the data in four places near its beginning and its end, or into pieces of one size."""
    if cuts[0] < 100:
        size = 1 + cuts[0] // 3 + len(data) // 500
        return [data[at : at + size] for at in range(0, len(data), size)]
    return cut(data, (*cuts[:2], len(data) - cuts[2], len(data) - cuts[3]))


def _try_bytes(data: bytes, cuts: list[int]) -> Read:
    """Hold that what is read does not depend on the pieces, and keeps to the limits."""
    whole, parts = _read([data]), _read(_pieces(data, cuts))
    assert (whole.error is None) == (parts.error is None), (whole.error, parts.error)
    shorter, longer = sorted((whole.rows, parts.rows), key=len)
    assert longer[: len(shorter)] == shorter
    assert whole.error is not None or len(shorter) == len(longer)
    for _, number, offset, line, too_long in longer:
        assert len(line) <= _LIMITS.max_line or too_long
        assert number >= 1
        assert offset >= 0
        assert b"\n" not in line
    assert whole.unpacked <= _LIMITS.max_bytes + _inflate.PIECE
    if whole.error is None and data[:2] == b"\x1f\x8b":
        _hold_gzip(data, whole)
    return whole


def _hold_gzip(data: bytes, read: Read) -> None:
    """Hold that what we take for whole the standard library reads alike."""
    text = gzip.decompress(data)
    if text[:2] not in {b"\x1f\x8b", b"PK"}:
        assert [row[1:4] for row in read.rows if row[4] is None] == _lines(text)


def _lines(text: bytes) -> list[tuple[int, int, bytes]]:
    """Return number, offset and bytes of every line that is neither blank nor too long."""
    bare = text.removeprefix(b"\xef\xbb\xbf")
    skipped = len(text) - len(bare)
    found = [(number, skipped + offset, line) for number, offset, line in lines_of(bare)]
    return [row for row in found if 0 < len(row[2]) <= _LIMITS.max_line]


def _hold_rows(read: Read, files: list[tuple[str, bytes]]) -> None:
    assert read.error is None, read.error
    rows = [row[:4] for row in read.rows if row[4] is None]
    right = [(name, *line) for name, text in files for line in _lines(text)]
    assert rows == right


def _try_zip(draw: Draw, cuts: list[int]) -> None:
    data, files = _made_zip(draw)
    read = _try_bytes(data, cuts)
    _hold_rows(read, [(f"export: {harmless(name)}", text) for name, text in files])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert [archive.read(info) for info in archive.infolist() if info.filename[-1:] != "/"] == [
            text for _, text in files
        ]


def _made_zip(draw: Draw) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return a valid archive, and what is in it."""
    members, files = [], []
    for _ in range(draw.number(4)):
        name, text = draw.one_of(_NAMES), _text(draw)
        method = draw.one_of((0, 8))
        # Stored without a size ends where a mark says so.
        layout = draw.one_of(_LAYOUTS if method else _LAYOUTS[:3])
        if name.endswith("/"):
            members.append(Member(name=name, method=0))
            continue
        if layout and not method:
            text = text.replace(b"PK", b"pk")  # where it ends is a guess then
        zip64 = draw.yes() and not layout
        members.append(Member(name=name, data=text, method=method, descriptor=layout, zip64=zip64))
        files.append((name, text))
    comment = draw.one_of((b"", b"comment", bytes(70)))
    return zip_of(*members, comment=comment, zip64=draw.yes()), files


def _text(draw: Draw) -> bytes:
    return b"".join(draw.one_of(_TEXTS) for _ in range(draw.number(3)))


def _try_gzip(draw: Draw, cuts: list[int]) -> None:
    """Valid streams one after the other, and then the same with something wrong."""
    texts = [_text(draw) for _ in range(1 + draw.number(3))]
    data = b"".join(gzip_of(text, flags=draw.number(31) & 0x1E) for text in texts)
    data += bytes(draw.number(20))
    read = _try_bytes(data, cuts)
    _hold_rows(read, [("export", b"".join(texts))])
    _try_bytes(_mutated(data, draw), cuts)


def _mutated(data: bytes, draw: Draw) -> bytes:
    """Return the data with a few bytes changed, left out, put in or repeated."""
    changed = bytearray(data)
    while not draw.empty and changed:
        what, at = draw.number(4), draw.number(65535) % len(changed)
        if what == 0:
            changed[at] ^= 1 << draw.number(7)
        elif what == 1:
            del changed[at : at + 1 + draw.number(255)]
        elif what == 2:
            changed[at:at] = draw.one_of(WORDS)
        elif what == 3:
            changed[at : at + 4] = struct.pack("<I", draw.number(65535))
        else:
            changed += changed[at : at + draw.number(255)]
    return bytes(changed)
