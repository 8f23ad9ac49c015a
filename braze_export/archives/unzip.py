"""ZIP archives, read from front to back as their bytes come. Pure.

The directory of a ZIP archive stands at its end, so ``zipfile`` must have all of it before
it gives the first byte. Every member also has a header of its own: by these an archive can be
read while it is being downloaded. The directory is then compared with what was read.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from collections.abc import Generator, Iterator
from struct import Struct
from typing import Final, TypeAlias

from attrs import define, frozen

from braze_export.archives.inflate import ERRORS, RAW, SLICE, Inflater, crc32
from braze_export.errors import ArchiveError

MAGIC: Final = b"PK\x03\x04"
#: An archive without members begins with its end; one that was once split, with a marker.
BEGINNINGS: Final = (MAGIC, b"PK\x05\x06", b"PK\x06\x06", b"PK\x07\x08", b"PK00")

_TOO_MANY: Final = (
    "the archive has more than {:,} members: raise max_members in ArchiveLimits if it is meant to"
)
_CENTRAL, _END, _END64 = b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06"
_LOCATOR64, _SIGNATURE, _DESCRIPTOR = b"PK\x06\x07", b"PK\x05\x05", b"PK\x07\x08"
_TO_SIZE: Final = 8  # bytes of a descriptor before its first size, whose lower half comes first
_LOCAL: Final = Struct("<HHHHHIIIHH")
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_STORED, _DEFLATED = 0, 8
_IN_EXTRA: Final = 0xFFFFFFFF  # the size stands in the ZIP64 extra field
# Checksum, compressed and unpacked size, with or without a signature, sizes of 4 or 8 bytes.
_DESCRIPTORS: Final = tuple(
    (mark, Struct(f"<{mark}s{sizes}") if mark else Struct(f"<{sizes}"))
    for mark in (4, 0)
    for sizes in ("III", "IQQ")
)


@frozen
class Start:
    """A member begins; its bytes come next.

    Attributes:
        name: as the archive has it: not to be used as a path.
    """

    name: str


@frozen
class End:
    """The member has come to its end, and its checksum is right."""


Event: TypeAlias = Start | bytes | End
_Steps: TypeAlias = Generator[Event | None, None, None]


@frozen
class _Header:
    flags: int
    method: int
    crc: int
    packed: int
    size: int

    @property
    def sizes_follow(self) -> bool:
        return bool(self.flags & _SIZES_FOLLOW)


@define
class _Sum:
    """What a member's bytes have come to."""

    crc: int = 0
    size: int = 0

    def add(self, piece: bytes) -> bytes:
        self.crc = crc32(piece, self.crc)
        self.size += len(piece)
        return piece


class ZipReader:
    """Reads an archive.

    Args:
        max_members: more are refused.
    """

    def __init__(self, max_members: int) -> None:
        self._max_members = max_members
        self._data = b""
        self._at = 0
        self._done = False
        self._steps = self._archive()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what the next bytes of the archive hold: members in order, in pieces.

        Raises:
            ArchiveError: this is no ZIP archive, or one that is damaged or encrypted.
        """
        self._data = self._data[self._at :] + data
        self._at = 0
        for event in self._steps:
            if event is None:
                return
            yield event

    def close(self) -> None:
        """Say that no more bytes come.

        Raises:
            ArchiveError: the archive is not whole.
        """
        if not self._done:
            raise ArchiveError("the archive ends before its end: it is cut off")

    # Each generator below yields None when it needs more bytes.

    def _archive(self) -> _Steps:
        members = before = 0
        while True:
            mark = yield from self._exactly(4)
            self._done = False
            if mark == MAGIC:
                members += 1
                if members > self._max_members:
                    raise ArchiveError(_TOO_MANY.format(self._max_members))
                yield from self._member()
            elif members == 0 and mark in BEGINNINGS and mark not in {_END, _END64}:
                continue
            else:
                yield from self._directory(mark, members - before)
                self._done, before = True, members
                while len(self._data) - self._at < len(MAGIC):
                    yield None
                # Another archive may follow. Whatever else stands here is none of ours, to the end.
                more = self._data.startswith(MAGIC, self._at)
                while not more:
                    self._at = len(self._data)
                    yield None

    def _member(self) -> _Steps:
        version_to_extra = yield from self._exactly(_LOCAL.size)
        _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack(version_to_extra)
        raw_name = yield from self._exactly(name)
        packed, size = _real_sizes((yield from self._exactly(extra)), packed, size)
        text = raw_name.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        header = _Header(flags, method, crc, packed, size)
        if flags & _ENCRYPTED:
            raise ArchiveError("a member of the archive is encrypted")
        if method not in {_STORED, _DEFLATED}:
            raise ArchiveError(f"a member is packed by method {method}: known are 0 and 8")
        if text.endswith("/") and not size and not packed and not header.sizes_follow:
            return  # a directory
        yield Start(text)
        if method == _DEFLATED and (header.sizes_follow or packed):
            yield from self._deflated(header)
        elif header.sizes_follow and not packed:
            yield from self._stored_without_size()
        else:
            yield from self._stored(header)
        yield End()

    def _stored(self, header: _Header) -> _Steps:
        total = _Sum()
        while total.size < header.packed:
            yield total.add((yield from self._some(header.packed - total.size)))
        yield from self._check(header, total, header.packed)

    def _deflated(self, header: _Header) -> _Steps:
        total, inflater, packed = _Sum(), Inflater(RAW), 0
        while not inflater.finished:
            left = SLICE if header.sizes_follow else header.packed - packed
            if left <= 0:
                raise ArchiveError("a member of the archive is damaged: it does not end in time")
            data = yield from self._some(min(left, SLICE))
            packed += len(data)
            try:
                for piece in inflater.pieces(data):
                    yield total.add(piece)
            except ERRORS as error:
                raise ArchiveError(f"a member of the archive is damaged ({error})") from None
        unused = len(inflater.unused)
        self._at -= unused
        yield from self._check(header, total, packed - unused)

    def _stored_without_size(self) -> _Steps:
        # It ends where a descriptor says just what has come so far.
        total = _Sum()
        while True:
            sure = self._before_descriptor(total.size)
            if sure:
                yield total.add(self._take(sure))
            elif len(self._data) - self._at < _TO_SIZE + 4:
                yield None
            elif (yield from self._descriptor(total, total.size)):
                return
            else:
                yield total.add(self._take(1))

    def _before_descriptor(self, size: int) -> int:
        """Count the bytes before what may be a descriptor, or the beginning of one."""
        data, at = self._data, self._at
        found = data.find(_DESCRIPTOR, at)
        while 0 <= found < len(data) - _TO_SIZE - 3:
            right = size + found - at & 0xFFFFFFFF
            if data.startswith(right.to_bytes(4, "little"), found + _TO_SIZE):
                break
            found = data.find(_DESCRIPTOR, found + 1)
        return (found if found >= 0 else max(at, len(data) - len(_DESCRIPTOR) + 1)) - at

    def _check(self, header: _Header, total: _Sum, packed: int) -> _Steps:
        if header.sizes_follow:
            right = yield from self._descriptor(total, packed)
        else:
            right = (header.crc, header.packed, header.size) == (total.crc, packed, total.size)
        if not right:
            raise ArchiveError("a member of the archive is damaged: its size or checksum is wrong")

    def _descriptor(self, total: _Sum, packed: int) -> Generator[None, None, bool]:
        """Take the descriptor that follows a member; false if it does not fit, or is none."""
        for mark, layout in _DESCRIPTORS:
            # Behind it stands another member, or the directory. Sizes of 0 fit several layouts.
            while len(self._data) - self._at < layout.size + len(MAGIC):
                yield None
            *signature, crc, packed_there, size = layout.unpack_from(self._data, self._at)
            fits = (crc, packed_there, size) == (total.crc, packed, total.size)
            right = fits and self._data.startswith((MAGIC, _CENTRAL), self._at + layout.size)
            if right and (not mark or signature == [_DESCRIPTOR]):
                self._at += layout.size
                return True
        return False

    def _directory(self, mark: bytes, members: int) -> _Steps:
        listed, total = 0, None
        while True:
            if mark == _CENTRAL:
                head = yield from self._exactly(42)
                yield from self._skip(sum(Struct("<HHH").unpack_from(head, 24)))
                listed += 1
            elif mark == _END64:
                (size,) = Struct("<Q").unpack((yield from self._exactly(8)))
                (total,) = Struct("<20xQ").unpack((yield from self._exactly(28)))
                yield from self._skip(max(0, size - 28))
            elif mark == _LOCATOR64:
                yield from self._skip(16)
            elif mark == _SIGNATURE:
                yield from self._skip(Struct("<H").unpack((yield from self._exactly(2)))[0])
            elif mark == _END:
                _, entries, comment = Struct("<6sH8xH").unpack((yield from self._exactly(18)))
                break
            else:
                raise ArchiveError("the archive is damaged: no member begins where one must")
            mark = yield from self._exactly(4)
        right = entries == members & 0xFFFF if total is None else total == members
        if listed != members or not right:
            raise ArchiveError(
                f"the archive is damaged: {members} members were read, its directory lists {listed}"
            )
        yield from self._skip(comment)

    def _take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def _some(self, most: int) -> Generator[None, None, bytes]:
        while self._at == len(self._data):
            yield None
        return self._take(most)

    def _exactly(self, count: int) -> Generator[None, None, bytes]:
        while len(self._data) - self._at < count:
            yield None
        return self._take(count)

    def _skip(self, count: int) -> Generator[None, None, None]:
        while count:
            count -= len((yield from self._some(count)))


def _real_sizes(extra: bytes, packed: int, size: int) -> tuple[int, int]:
    """Return the sizes of a header, from its ZIP64 extra field where it points there."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = Struct("<HH").unpack_from(extra, at)
        field = extra[at + 4 : at + 4 + length]
        if kind == 1:
            # Unpacked size first; only those that did not fit into the header are there.
            values = iter(Struct(f"<{len(field) // 8}Q").unpack(field[: len(field) // 8 * 8]))
            size = next(values, size) if size == _IN_EXTRA else size
            return next(values, packed) if packed == _IN_EXTRA else packed, size
        at += 4 + length
    return packed, size
