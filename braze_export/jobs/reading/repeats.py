"""Which items of a stream of texts stood in it before, for streams that no memory holds.

Of each text a hash of 64 bits and a checksum of 32 are kept, in parts by the hash. A part is
examined alone, so that no more than one is ever in a set; what was kept goes to a temporary
file without a name. Two different texts are taken for one with a probability of 1 in 10**13
for 100,000,000 of them. The hash is another one in each process, so nothing of this outlives it.
"""

from array import array
from collections.abc import Callable, Iterator
from io import SEEK_END
from itertools import chain, compress, repeat
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Final, TypeAlias
from zlib import crc32

from attrs import frozen

#: Parts: a power of two. For 100,000,000 texts each has about 100,000 and takes 10 MB.
_PARTS: Final = 1024
#: Texts whose hashes wait in memory, 12 bytes each, before they are written to disk.
_HELD: Final = 500_000
_HASH_SIZE: Final = 8
_CHECK_SIZE: Final = 4
#: Of each byte its bits, the lowest first.
_BITS: Final = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))
_DIGITS: Final = b"01" + bytes(254)

_Part: TypeAlias = "tuple[array[int], array[int]]"  # hashes and checksums, in the stream's order


@frozen
class Repeated:
    """What is known of a stream that has ended.

    Attributes:
        count: different texts in it.
        repeats: items that stood in it before.
    """

    count: int
    repeats: int
    _kept: tuple[bytes | None, ...]  # of each part with repeats a bit for each item: whether new

    def filter(self) -> Callable[[list[str]], list[str]]:
        """Return a function that is given the same stream, in blocks of any size.

        It returns each block without the items that stood in the stream before; the block
        itself where the stream has none.
        """
        if not self.repeats:
            return _as_it_is
        news = [_flags(kept) for kept in self._kept]
        mask = len(news) - 1

        def leave_out(texts: list[str]) -> list[str]:
            parts = map(mask.__and__, map(hash, texts))
            return list(compress(texts, map(next, map(news.__getitem__, parts))))

        return leave_out


class Repeats:
    """Takes a stream of texts, and finds out which stood in it before. Blocks.

    About 25 MB of memory, however long the stream, besides a bit for each item if some are
    repeated; and 12 bytes of disk for each.

    Args:
        directory: of the temporary file; the system's if not given.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._hashes, self._checks = array("q"), array("I")
        self._runs: list[array[int]] = []  # where each part of what was written at once begins
        self._file: BinaryIO | None = None

    def add(self, texts: list[str]) -> None:
        """Take the next texts of the stream, which must be valid Unicode.

        Raises:
            OSError: the disk is full.
        """
        self._hashes.extend(map(hash, texts))
        self._checks.extend(map(crc32, map(str.encode, texts)))
        if len(self._hashes) >= _HELD:
            self._write()

    def seal(self) -> Repeated:
        """Say what is known of the stream, now that it is at its end. Frees everything else.

        Raises:
            OSError: the temporary file cannot be read.
        """
        last = self._take()
        found, texts, repeats = [], 0, 0
        for number, rest in enumerate(last):
            count, known = self._count(number, rest)
            kept = self._examined(number, rest) if known < count else None
            texts += count
            repeats += 0 if kept is None else 8 * len(kept) - int.from_bytes(kept).bit_count()
            found.append(kept)
        self.close()
        return Repeated(texts - repeats, repeats, tuple(found))

    def close(self) -> None:
        """Free everything. May be called again."""
        self._hashes, self._checks = array("q"), array("I")
        self._runs.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self) -> list[_Part]:
        """Return what waits in memory, by parts, and forget it."""
        parts = [(array("q"), array("I")) for _ in range(_PARTS)]
        adders = [(hashes.append, checks.append) for hashes, checks in parts]
        mask = _PARTS - 1
        for text_hash, check in zip(self._hashes, self._checks, strict=True):
            add_hash, add_check = adders[text_hash & mask]
            add_hash(text_hash)
            add_check(check)
        self._hashes, self._checks = array("q"), array("I")
        return parts

    def _write(self) -> None:
        if self._file is None:
            self._file = TemporaryFile(dir=self._directory)  # noqa: SIM115
        begins = array("Q", [self._file.seek(0, SEEK_END)])
        for hashes, checks in self._take():
            hashes.tofile(self._file)
            checks.tofile(self._file)
            begins.append(begins[-1] + len(hashes) * (_HASH_SIZE + _CHECK_SIZE))
        self._runs.append(begins)

    def _slices(self, number: int, rest: _Part) -> Iterator[_Part]:
        """Yield a part bit by bit: with all texts alike, it may be the whole stream."""
        for begins in self._runs:
            yield self._read(begins[number], begins[number + 1])
        yield rest

    def _read(self, begin: int, end: int) -> _Part:
        hashes, checks = array("q"), array("I")
        if self._file is not None and begin < end:
            self._file.seek(begin)
            data = self._file.read(end - begin)
            cut = len(data) // (_HASH_SIZE + _CHECK_SIZE) * _HASH_SIZE
            hashes.frombytes(data[:cut])
            checks.frombytes(data[cut:])
        return hashes, checks

    def _count(self, number: int, rest: _Part) -> tuple[int, int]:
        """Return how many items and how many different hashes a part has."""
        count, known = 0, set[int]()
        for hashes, _ in self._slices(number, rest):
            count += len(hashes)
            known.update(hashes)
        return count, len(known)

    def _examined(self, number: int, rest: _Part) -> bytes:
        """Return a bit for each item of a part: whether it is new."""
        seen = set[int]()
        packed, waiting = bytearray(), bytearray()
        for hashes, checks in self._slices(number, rest):
            for text_hash, check in zip(hashes, checks, strict=True):
                key = text_hash << 32 | check
                waiting.append(key not in seen)
                seen.add(key)
            whole = len(waiting) & ~7
            packed += _packed(waiting[:whole])
            del waiting[:whole]
        return bytes(packed + _packed(waiting))


def _packed(news: bytearray) -> bytes:
    """Return ones and zeros as bits, the lowest first, filled up with ones."""
    if not news:
        return b""
    digits = b"1" * (-len(news) % 8) + news.translate(_DIGITS)[::-1]
    return int(digits, 2).to_bytes(len(digits) // 8, "little")


def _flags(kept: bytes | None) -> Iterator[int]:
    """Return an iterator without end that says of each item of a part whether it is new."""
    if kept is None:
        return repeat(1)
    return chain(chain.from_iterable(map(_BITS.__getitem__, kept)), repeat(1))


def _as_it_is(texts: list[str]) -> list[str]:
    return texts
