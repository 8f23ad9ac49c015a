import io
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from random import Random
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export.archives.unzip import End, Start, ZipReader
from braze_export.errors import ArchiveError
from tests.archives.making import (
    DEFLATED,
    DESCRIPTOR,
    ENCRYPTED,
    IN_EXTRA,
    LOCAL,
    SIZES_FOLLOW,
    STORED,
    Member,
    cut,
    deflate,
    end_of,
    ways,
    zip_of,
    zipped,
)

ROWS = b'{"external_id": "u1"}\n' * 20
NOISE = Random(2).randbytes(500)
LAYOUTS = ["4sIII", "4sIQQ", "III", "IQQ"]
# By zipfile; packed, and one that knows its size beforehand.
SMALL = zipped({"a.json": b'{"a": 1}\n' * 4, "b.json": b'{"b": 2}\n'})
STREAMED = zipped({"a.json": ROWS, "b.json": b"", "c.json": b"x"}, seekable=False)


def read(pieces: Iterable[bytes], max_members: int = 100) -> list[tuple[str, bytes]]:
    """Return names and contents of what is in an archive."""
    reader, found, inside = ZipReader(max_members), list[tuple[str, bytes]](), False
    for data in pieces:
        for event in reader.feed(data):
            if isinstance(event, Start):
                assert not inside
                found.append((event.name, b""))
            elif isinstance(event, bytes):
                assert inside
                assert event
                name, before = found.pop()
                found.append((name, before + event))
            inside = not isinstance(event, End)
    reader.close()
    assert not inside
    return found


def by_zipfile(archive: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [(info.filename, opened.read(info)) for info in opened.infolist()]


def check(archive: bytes, expected: Iterable[tuple[str, bytes]]) -> None:
    for pieces in ways(archive):
        assert read(pieces) == list(expected)


def refused(archive: bytes, match: str, max_members: int = 100) -> None:
    for pieces in ways(archive):
        with pytest.raises(ArchiveError, match=match):
            read(pieces, max_members)


# What zipfile makes


@pytest.mark.parametrize("force_zip64", [False, True])
@pytest.mark.parametrize("seekable", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.json": b""},
        {"a.json": ROWS},
        {"a.json": ROWS, "b.json": b"", "c.json": NOISE, "d/e.json": b"\n"},
    ],
    ids=len,
)
def test_archives_of_zipfile(
    files: dict[str, bytes], method: int, *, seekable: bool, force_zip64: bool
) -> None:
    archive = zipped(files, method=method, seekable=seekable, force_zip64=force_zip64)
    check(archive, files.items())


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.lists(st.sampled_from([ROWS, NOISE, LOCAL, DESCRIPTOR, b"PK", b"\0"])).map(b"".join),
    ),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 3000)),
)
def test_every_archive_comes_back_however_it_is_cut(
    files: dict[str, bytes], method: int, seekable: bool, force: bool, cuts: list[int]
) -> None:
    archive = zipped(files, method=method, seekable=seekable, force_zip64=force)
    assert read(cut(archive, cuts)) == list(files.items())


# What else is allowed


A = Member(name="a.json", data=ROWS)
B = Member(name="b.json", data=b"[1]")


@pytest.mark.parametrize(
    "archive",
    [
        zip_of(A, B, comment=b"a comment"),
        zip_of(A, B, comment=b"c" * 65535),
        zip_of(comment=b"of nobody"),
        zip_of(A, B, zip64=True),
        zip_of(A, B, zip64=True, comment=b"both"),
        zip_of(A, Member(name="b.json", data=b"x", comment=b"PK\x01\x02" * 9)),
        zip_of(Member(data=ROWS, extra=pack("<HH4s", 0xCAFE, 4, b"abcd")), B),
        zip_of(Member(data=ROWS, extra=b"\1\0\x08\0" + b"\xff" * 8)),
        zip_of(Member(data=ROWS, zip64=True, extra=pack("<HH", 0xCAFE, 0)), B),
        zip_of(Member(data=NOISE, method=STORED, zip64=True), B),
        zip_of(A, Member(name="empty.json", packed=deflate(b"")), B),
        zip_of(A, Member(name="empty.json", method=STORED), B),
        zip_of(Member(data=ROWS, flags=0x6), Member(name="b.json", flags=0x2, data=b"x")),
        zip_of(Member(name="a.json", data=b"1"), Member(name="a.json", data=b"2")),
    ],
)
def test_what_archives_may_have(archive: bytes) -> None:
    check(archive, by_zipfile(archive))


def test_a_directory_may_be_signed() -> None:
    check(zip_of(A, before_end=b"PK\x05\x05\x07\0signed!"), [("a.json", ROWS)])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("data", [b"", b"x", ROWS, NOISE, b"PK" * 40, DESCRIPTOR * 9, LOCAL * 9])
@pytest.mark.parametrize("zip64", [False, True])
def test_sizes_may_follow_what_is_packed(data: bytes, layout: str, *, zip64: bool) -> None:
    member = Member(data=data, descriptor=layout, zip64=zip64)
    archive = zip_of(member, attrs_named(member, "b.json"), B)
    check(archive, by_zipfile(archive))


def attrs_named(member: Member, name: str) -> Member:
    return Member(name=name, data=member.data, descriptor=member.descriptor, zip64=member.zip64)


def fake(data: bytes, *, layout: str = "4sIII", **wrong: int) -> bytes:
    """Return a descriptor in the data of a member, and a bit of what may stand behind one."""
    sums = {"crc": zlib.crc32(data), "packed": len(data), "size": len(data)} | wrong
    return data + pack(f"<{layout}", DESCRIPTOR, *sums.values())


@pytest.mark.parametrize("layout", ["4sIII", "4sIQQ"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        ROWS,
        NOISE,
        DESCRIPTOR,
        DESCRIPTOR * 40,
        b"PK\x07" * 40,
        b"P" * 40,
        LOCAL * 9 + b"PK\x01\x02" + b"PK\x05\x06",
        fake(ROWS),  # neither a member nor the directory is behind it
        fake(ROWS) + b"PK",
        fake(ROWS, crc=1) + LOCAL,
        fake(ROWS, size=1) + LOCAL,
        fake(ROWS, packed=1) + LOCAL,
        fake(ROWS, layout="4sIQQ", size=2**32 + 1) + LOCAL,
        fake(ROWS, layout="4sIQQ", packed=2**32 + len(ROWS)) + LOCAL,
        fake(fake(ROWS) + DESCRIPTOR),
        zip_of(A, B),
        zip_of(Member(data=ROWS, method=STORED, descriptor="4sIII"), B),
        zipped({"a": ROWS, "b": b"", "c": NOISE}, method=zipfile.ZIP_STORED, seekable=False),
    ],
)
@pytest.mark.parametrize("zip64", [False, True])
def test_sizes_may_follow_what_is_stored(data: bytes, layout: str, *, zip64: bool) -> None:
    member = Member(data=data, method=STORED, descriptor=layout, zip64=zip64)
    archive = zip_of(member, B)
    check(archive, [("a.json", data), ("b.json", b"[1]")])
    assert by_zipfile(archive) == [("a.json", data), ("b.json", b"[1]")]


def test_a_header_may_have_the_sizes_that_follow() -> None:
    for method in (STORED, DEFLATED):
        for layout in LAYOUTS:
            member = Member(data=NOISE, method=method)
            follows = Member(data=NOISE, method=method, descriptor=layout)
            sums = pack("<III", *member.sums)
            local = follows.local()
            archive = local[:14] + sums + local[26:] + follows.central(0)
            archive += end_of(1, len(follows.central(0)), len(local))
            check(archive, [("a.json", NOISE)])
            check(archive, by_zipfile(archive))


@pytest.mark.parametrize(
    "extra",
    [
        b"\1",
        b"\1\0\x10",
        b"\1\0\x10\0",
        b"\1\0\x1c\0" + bytes(28),  # with an offset and the number of a disk
        b"\0\0\0\0\0",
        b"\xff" * 99,
    ],
)
def test_an_extra_field_may_be_none(extra: bytes) -> None:
    check(zip_of(Member(data=ROWS, extra=extra), B), [("a.json", ROWS), ("b.json", b"[1]")])


@pytest.mark.parametrize("marker", [DESCRIPTOR, b"PK00"])
def test_an_archive_that_was_once_split_begins_with_a_marker(marker: bytes) -> None:
    check(marker + zip_of(A, B), [("a.json", ROWS), ("b.json", b"[1]")])
    check(marker + zip_of(), [])


@pytest.mark.parametrize("behind", [b"\0", b"\n", NOISE, b"PK\x03", b"PK\x05\x06"])
def test_what_stands_behind_the_end_is_left_out(behind: bytes) -> None:
    check(zip_of(A) + behind, [("a.json", ROWS)])
    check(zip_of() + behind, [])


def test_another_archive_may_follow() -> None:
    check(zip_of(A) + zip_of(B), [("a.json", ROWS), ("b.json", b"[1]")])
    check(zip_of() + zip_of(B), [("b.json", b"[1]")])
    reader = ZipReader(2)
    with pytest.raises(ArchiveError, match="more than 2 members"):
        list(reader.feed(zip_of(A, B) + zip_of(B)))
    cut = ZipReader(9)
    assert list(cut.feed(zip_of(A) + zip_of(B)[:-1]))
    with pytest.raises(ArchiveError, match="cut off"):
        cut.close()


def test_directories_are_no_members() -> None:
    archive = zip_of(
        Member(name="d/", method=STORED), Member(name="e/", packed=b""), A, Member(name="f/g/")
    )
    check(archive, [("a.json", ROWS), ("f/g/", b"")])
    check(
        zip_of(Member(name="d/", method=STORED, descriptor="4sIII"), A),
        [("d/", b""), ("a.json", ROWS)],
    )
    check(zip_of(Member(name="d/", data=b"rows\n"), B), [("d/", b"rows\n"), ("b.json", b"[1]")])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("é\u2603.json", "é\u2603.json"),
        (b"\x82.json", "é.json"),
        (b"\xff", "\xa0"),
        ("", ""),
        ("/etc/passwd", "/etc/passwd"),
        ("../../a", "../../a"),
        ("C:\\a", "C:\\a"),
        ("a\0b", "a\0b"),
        ("a\nb", "a\nb"),
        ("n" * 65535, "n" * 65535),
    ],
)
def test_names_are_told_as_they_are(name: str | bytes, text: str) -> None:
    check(zip_of(Member(name=name, data=b"x"), B), [(text, b"x"), ("b.json", b"[1]")])


def test_a_name_that_is_not_the_text_it_says() -> None:
    check(zip_of(Member(name=b"a\xff\xfe", flags=0x800, data=b"x")), [("a\ufffd\ufffd", b"x")])


# What is damaged


@pytest.mark.parametrize(
    ("archive", "match"),
    [
        (zip_of(Member(data=ROWS, flags=ENCRYPTED)), "encrypted"),
        (zip_of(Member(data=ROWS, flags=ENCRYPTED | SIZES_FOLLOW)), "encrypted"),
        (zip_of(Member(data=ROWS, method=9)), "method 9: known are 0 and 8"),
        (zip_of(Member(data=ROWS, method=93)), "method 93"),
        (zipped({"a": ROWS}, method=zipfile.ZIP_BZIP2), "method 12"),
        (zipped({"a": ROWS}, method=zipfile.ZIP_LZMA, seekable=False), "method 14"),
        (zip_of(Member(data=ROWS, crc=1)), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, method=STORED, crc=1)), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, size=1)), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, size=2**32 - 2)), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, method=STORED, size=1)), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, zip64=True, size=2**64 - 1)), "checksum is wrong"),
        (zip_of(Member(data=ROWS, packed=deflate(ROWS) + b"x")), "checksum is wrong"),
        (zip_of(Member(data=ROWS, packed=deflate(ROWS)[:-1])), "does not end in time|damaged"),
        (zip_of(Member(data=ROWS, packed=deflate(ROWS)[:5])), "does not end in time"),
        (zip_of(Member(data=ROWS, packed=b"")), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, packed=b"\xff" * 40)), r"is damaged \("),
        # A directory has no bytes at all.
        (zip_of(Member(name="d/", data=ROWS, packed=b"")), "size or checksum is wrong"),
        (zip_of(Member(data=ROWS, packed_size=IN_EXTRA)), "checksum is wrong"),
        (
            zip_of(Member(data=ROWS, packed_size=IN_EXTRA, extra=b"\1\0\4\0abcd")),
            "checksum is wrong",
        ),
        (
            zip_of(Member(data=ROWS, packed_size=IN_EXTRA, extra=b"\1\0\xff\0abcd")),
            "checksum is wrong",
        ),
        (zip_of(Member(data=ROWS, method=STORED, packed_size=5, size=5)), "is wrong"),
        (zip_of(A, Member(name="b", packed_size=2**31, method=STORED)), "cut off"),
        *((zip_of(Member(data=ROWS, crc=1, descriptor=d), B), "sum is wrong") for d in LAYOUTS),
        *((zip_of(Member(data=ROWS, size=1, descriptor=d), B), "sum is wrong") for d in LAYOUTS),
        (zip_of(Member(data=ROWS, packed_size=1, descriptor="4sIII"), B), "checksum is wrong"),
        (zip_of(Member(data=ROWS, crc=1, descriptor="4sIII", method=STORED)), "cut off"),
        # Allowed, made by nobody, and its end is nowhere to be seen.
        (zip_of(Member(data=ROWS, descriptor="III", method=STORED)), "cut off"),
        (zip_of(A, entries=2), "1 members were read, its directory lists 1"),
        (zip_of(A, B, entries=1), "2 members were read, its directory lists 2"),
        (zip_of(A, entries=2, zip64=True), "directory lists 1"),
        (zip_of(A, entries=2**16 + 1, zip64=True), "directory lists 1"),
        (A.local() + zip_of(B), "2 members were read, its directory lists 1"),
        (A.local() + end_of(1, 0, 0), "1 members were read, its directory lists 0"),
        (A.central(0) + end_of(0, 0, 0), "no ZIP|0 members were read, its directory lists 1"),
        (A.local() + b"\0" + zip_of(B), "no member begins where one must"),
        (A.local() + b"PK\x07\x08" + B.local(), "no member begins where one must"),
        (zip_of(A, before_end=b"PK\x03\x04"), "no member begins where one must"),
        (zip_of(A, before_end=b"PK\x06\x06" + b"\0" * 52), "no member begins|lists 1"),
        (zip_of(A, before_end=b"PK\x06\x06" + b"\xff" * 52), "cut off"),
        (zip_of(A, before_end=b"PK\x05\x05\xff\xff"), "cut off"),
        (zip_of(A, comment=b"comment")[:-1], "cut off"),
        (DESCRIPTOR + DESCRIPTOR, "cut off"),
        (b"PK00" * 40, "cut off"),
        (NOISE, "no member begins where one must"),
    ],
)
def test_what_is_damaged_is_refused(archive: bytes, match: str) -> None:
    refused(archive, match)


@pytest.mark.parametrize("archive", [SMALL, STREAMED, zip_of(A, B, zip64=True), zip_of()])
def test_an_archive_that_is_cut_off_anywhere_is_refused(archive: bytes) -> None:
    reader = ZipReader(10)
    for place in range(len(archive)):
        with pytest.raises(ArchiveError, match="cut off"):
            reader.close()
        assert len(list(reader.feed(archive[place : place + 1]))) <= 4
        with pytest.raises(ArchiveError, match="cut off"):
            read([archive[:place]])
    reader.close()


def test_stored_members_whose_sizes_follow_may_be_cut_off_too() -> None:
    files = {"a": ROWS, "b": DESCRIPTOR * 9, "c": b""}
    archive = zipped(files, method=zipfile.ZIP_STORED, seekable=False)
    for place in range(len(archive)):
        with pytest.raises(ArchiveError, match="cut off"):
            read([archive[:place]])


@pytest.mark.parametrize("members", [1, 2, 3])
def test_no_more_members_than_allowed(members: int) -> None:
    archive = zip_of(Member(name="d/", method=STORED), A, B)
    if members == 3:
        assert len(read([archive], members)) == 2
    else:
        refused(archive, f"more than {members} members: raise max_members in Archive", members)


@pytest.mark.parametrize("zip64", [False, True])
def test_there_may_be_more_members_than_two_bytes_can_count(*, zip64: bool) -> None:
    count = 2**16 + 2
    member = Member(name="a", method=STORED)
    archive = member.local() * count + member.central(0) * count
    archive += end_of(count, 0, 0, zip64=zip64)
    reader = ZipReader(count)
    assert sum(1 for event in reader.feed(archive)) == 2 * count
    reader.close()


mutations = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 3),
        st.sampled_from([b"", b"\0", b"\xff", b"PK", LOCAL, DESCRIPTOR]) | st.binary(max_size=4),
    ),
    max_size=4,
)


@given(
    st.sampled_from([SMALL, STREAMED, zip_of(A, B, zip64=True), b""]),
    mutations,
    st.lists(st.integers(0, 1000)),
)
def test_whatever_comes_is_read_or_refused(
    archive: bytes, changes: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    for place, count, new in changes:
        at = place % (len(archive) + 1)
        archive = archive[:at] + new + archive[at + count :]
    for data in (archive, LOCAL + archive):
        with suppress(ArchiveError):
            read(cut(data, cuts))


def test_false_descriptors_cost_little() -> None:
    member = Member(data=DESCRIPTOR * 100_000, method=STORED, descriptor="4sIII")
    reader = ZipReader(1)
    events = list(reader.feed(zip_of(member)))
    reader.close()
    assert len(events) == 3  # the data in one piece
