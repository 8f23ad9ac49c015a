"""Archives to measure with: made of the sandbox's profiles, as large as wanted."""

import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from attrs import frozen

from braze_export.sandbox.people import People
from braze_export.sandbox.profiles import Profiles

_USERS = 10_000_000
_SEED = 7


@frozen
class Made:
    """An archive, and what is in it."""

    path: Path
    users: int
    unpacked: int


def varied_lines(size: int) -> Iterator[bytes]:
    """Yield profiles of 2 and of 20 KB in turn, up to so many bytes."""
    for line in shaped_lines("typical", "full"):
        yield line
        size -= len(line)
        if size <= 0:
            return


def shaped_lines(*names: str) -> Iterator[bytes]:
    """Yield profiles of these shapes in turn, without end."""
    people = People(_USERS, _SEED)
    shapes = [Profiles(people, name, _SEED) for name in names]
    for n in count(1):
        yield b"".join(shapes[n % len(shapes)].users([n], None))[1:-1] + b"\n"


def make_zip(
    path: Path, size: int, members: int = 20, lines: Iterator[bytes] | None = None
) -> Made:
    """Write a ZIP archive that unpacks to so many bytes, of varied profiles or of these lines."""
    users = unpacked = 0
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        lines = lines or varied_lines(size)
        for member in range(members):
            with archive.open(f"{member}.txt", "w", force_zip64=True) as file:
                for line in lines:
                    file.write(line)
                    users, unpacked = users + 1, unpacked + len(line)
                    if unpacked >= size * (member + 1) / members:
                        break
    return Made(path, users, unpacked)


def repeat(made: Made, path: Path, times: int) -> Made:
    """Write an archive with the members of another one, several times over.

    Packed bytes are copied as they are: to pack 10 GB would take minutes.
    """
    with ZipFile(made.path) as source, ZipFile(path, "w") as target:
        for time in range(times):
            for info in source.infolist():
                _copy(source, info, target, f"{time}-{info.filename}")
    return Made(path, made.users * times, made.unpacked * times)


def _copy(source: ZipFile, info: ZipInfo, target: ZipFile, name: str) -> None:
    assert source.fp is not None
    assert target.fp is not None
    source.fp.seek(info.header_offset + 26)
    name_size, extra_size = (int.from_bytes(source.fp.read(2), "little") for _ in range(2))
    source.fp.seek(name_size + extra_size, 1)
    copy = ZipInfo(name)
    copy.compress_type, copy.CRC = info.compress_type, info.CRC
    copy.compress_size, copy.file_size = info.compress_size, info.file_size
    copy.header_offset = target.fp.tell()
    target.fp.write(copy.FileHeader(zip64=False))
    left = info.compress_size
    while left:
        piece = source.fp.read(min(left, 1 << 20))
        target.fp.write(piece)
        left -= len(piece)
    target.filelist.append(copy)
    target.NameToInfo[name] = copy
    target.start_dir = target.fp.tell()
    target._didModify = True  # type: ignore[attr-defined] # noqa: SLF001


def make_gzip(path: Path, lines: Iterator[bytes], users: int) -> Made:
    """Write a GZIP file of the next so many lines."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    unpacked = 0
    with path.open("wb") as file:
        for _, line in zip(range(users), lines, strict=False):
            unpacked += len(line)
            file.write(packer.compress(line))
        file.write(packer.flush())
    return Made(path, users, unpacked)
