import tracemalloc
import zlib
from collections.abc import Iterable
from itertools import islice
from random import Random
from types import ModuleType
from typing import Any

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from braze_export.archives import archive
from braze_export.archives import inflate as _inflate
from braze_export.archives.archive import ArchiveLimits, Unpacker
from braze_export.errors import ArchiveError
from tests.archives.making import (
    DESCRIPTOR,
    STORED,
    Member,
    cut,
    endless_gzip,
    gzip_of,
    lines_of,
    ways,
    zip_of,
    zipped,
)

MODULES = [zlib] if _inflate._fast is zlib else [zlib, _inflate._fast]
BOM = b"\xef\xbb\xbf"
ROWS = b"".join(b'{"external_id": "u%d"}\n' % number for number in range(40))
FEW = b'{"a": 1}\n{"b": 2}'
ODD = '{"a": "\u2028 \u0085"}\x0b\x0c\n\n\r\n{"b": "é"}\r\n{'.encode()
MEGABYTE = 1024 * 1024


@frozen
class Row:
    file: str
    line: int
    offset: int
    text: bytes
    too_long: int | None = None


def read(
    pieces: Iterable[bytes], limits: ArchiveLimits | None = None
) -> tuple[list[Row], ArchiveError | None]:
    """Return the lines of an archive, and the error that ended it."""
    unpacker, rows = Unpacker("export", limits or ArchiveLimits()), list[Row]()

    def add(blocks: Iterable[Any]) -> None:
        for block in blocks:
            for index, line in enumerate(block.lines):
                place = block.place(index)
                rows.append(Row(place.file, place.line, place.offset, line, block.too_long))

    try:
        for data in pieces:
            add(unpacker.feed(data))
        add(unpacker.close())
    except ArchiveError as error:
        return rows, error
    return rows, None


def rows_of(*files: tuple[str, bytes]) -> list[Row]:
    found = []
    for name, data in files:
        text = data.removeprefix(BOM)
        skipped = len(data) - len(text)
        found += [Row(name, n, offset + skipped, line) for n, offset, line in lines_of(text)]
    return found


def check(data: bytes, *files: tuple[str, bytes]) -> None:
    for pieces in ways(data):
        assert read(pieces) == (rows_of(*files), None)


def refused(
    data: bytes, match: str, *files: tuple[str, bytes], limits: ArchiveLimits | None = None
) -> None:
    """Check that an archive is refused, and that all lines before are right."""
    for pieces in ways(data):
        rows, error = read(pieces, limits)
        assert rows == rows_of(*files)[: len(rows)]
        with pytest.raises(ArchiveError, match=match):
            raise error or AssertionError("nothing was wrong")


def named(name: str, data: bytes, *, method: int = 8, descriptor: str = "") -> Member:
    return Member(name=name, data=data, method=method, descriptor=descriptor)


# Kinds


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"{",
        b"\n",
        b" {}\n",
        b"\r\n{}\r\n",
        b"[1]",
        b'"a"',
        ROWS,
        ODD,
        BOM,
        BOM + b"\n",
        BOM + b"{}",
        BOM + ODD,
        b"{}" + BOM,
    ],
)
def test_lines_in_every_wrapping(data: bytes) -> None:
    check(data, ("export", data))
    check(gzip_of(data), ("export", data))
    for method in (STORED, 8):
        for descriptor in ("", "4sIII", "4sIQQ"):
            packed = zip_of(
                named("a", data, method=method, descriptor=descriptor), named("b/c", FEW)
            )
            check(packed, ("export: a", data), ("export: b/c", FEW))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<", "a page of HTML or XML"),
        (b"<html><body>Sign in</body></html>", "a page of HTML or XML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a page of HTML or XML"),
        (BOM + b'<?xml version="1.0"?><Error/>', "a page of HTML or XML"),
        (BOM + b"Sign in", "begins with the bytes 53"),
        (b"%PDF-1.7", "begins with the bytes 25 50 44 46"),
        (b"external_id,email\n", "begins with the bytes 65 78 74 65"),
        (b"7z\xbc\xaf\x27\x1c", "begins with the bytes 37 7a bc af"),
        (b"\x28\xb5\x2f\xfd\0", "begins with the bytes 28 b5 2f fd"),
        ("{}".encode("utf-16"), "begins with the bytes ff fe 7b 00"),
        (b"\0" * 9, "begins with the bytes 00 00 00 00"),
        (b"P", "begins with the bytes 50"),
        (b"PK", "begins with the bytes 50 4b"),
        (b"\x1f", "begins with the bytes 1f"),
        (BOM[:2], "begins with the bytes ef bb"),
        (Random(3).randbytes(300), "begins with the bytes"),
    ],
)
def test_what_is_no_archive(data: bytes, says: str) -> None:
    refused(data, f"export: there is no archive.* {says}")


def test_nothing_at_all_is_an_export_of_nobody() -> None:
    assert read([]) == ([], None)
    assert read([b"", b""]) == ([], None)


def test_empty_pieces_change_nothing() -> None:
    for data in (ROWS, gzip_of(ROWS), zip_of(Member(name="a", data=ROWS))):
        pieces = [piece for byte in cut(data, range(len(data))) for piece in (b"", byte, b"")]
        assert read(pieces) == read([data])


@pytest.mark.parametrize(
    "name",
    ["a\nb", "\x1b[31mred", "\u202egpj.exe", "a\0", "\r", "n" * 101, "n" * 65535],
)
def test_names_are_made_harmless(name: str) -> None:
    (row, *_), error = read([zip_of(Member(name=name, data=FEW))])
    assert error is None
    assert row.file.isprintable()
    assert row.file.startswith("export: ")
    assert len(row.file) <= len("export: ") + 101
    assert (row.file.endswith("…")) == (len(name) > 100)


def test_the_name_of_the_archive_is_made_harmless() -> None:
    with pytest.raises(ArchiveError) as caught:
        list(Unpacker("a\nb\ud800", ArchiveLimits()).feed(b"<html>"))
    assert caught.value.file == "a\ufffdb\ufffd"
    assert str(caught.value).startswith("a\ufffdb\ufffd: there is no archive, but a page")


# GZIP


GZIPPED = gzip_of(FEW)


def test_gzip_members_are_one_file() -> None:
    for first in range(0, len(ROWS), 37):
        data = gzip_of(ROWS[:first]) + gzip_of(b"") + gzip_of(ROWS[first:], flags=31)
        check(data, ("export", ROWS))
    bytewise = b"".join(gzip_of(ROWS[n : n + 1]) for n in range(len(ROWS)))
    assert read([bytewise]) == (rows_of(("export", ROWS)), None)


def test_many_small_gzip_members_are_not_copied_over_and_over() -> None:
    rows, error = read([gzip_of(b" ") * 100_000])  # minutes, if the rest were copied each time
    assert error is None
    assert rows == [Row("export", 1, 0, b" " * 100_000)]


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 5000])
def test_gzip_may_be_padded_with_zeros(padding: bytes) -> None:
    check(GZIPPED + padding, ("export", FEW))
    check(GZIPPED + padding + GZIPPED, ("export", FEW + FEW))


@pytest.mark.parametrize(
    "behind", [b"x", b"X", b"\0x", b"\x1fx", b"\x1f\0\x8b", b"\n", ROWS, zip_of()]
)
def test_gzip_with_something_else_behind_it(behind: bytes) -> None:
    refused(GZIPPED + behind, "export: there is something else behind the end", ("export", FEW))


@pytest.mark.parametrize(
    "data",
    [
        GZIPPED[:-8] + b"crc?" + GZIPPED[-4:],
        GZIPPED[:-4] + b"size",
        GZIPPED[:2] + b"\7" + GZIPPED[3:],
        GZIPPED[:10] + b"\xff" * 20,
        gzip_of(FEW) + GZIPPED[:-1] + b"x",
        b"\x1f\x8b" + ROWS,
    ],
)
def test_damaged_gzip(data: bytes) -> None:
    refused(data, r"export: the archive (is damaged \(|ends before)", ("export", FEW + FEW))


@pytest.mark.parametrize("flags", [0, 8, 31])
def test_gzip_that_is_cut_off_anywhere(flags: int) -> None:
    first, second = gzip_of(FEW + b"\n", flags=flags), gzip_of(FEW, flags=flags)
    files = ("export", FEW + b"\n" + FEW)
    for place in range(2, len(first + second)):
        pieces = [(first + second)[:place]]
        rows, error = read(pieces)
        assert rows == rows_of(files)[: len(rows)]
        # Between two streams, and nowhere else, nothing tells that one is missing.
        assert (error is None) == (place == len(first))
        if error:
            assert "cut off" in str(error)


# ZIP


def test_zip_that_is_cut_off_anywhere() -> None:
    members = [
        named("a.json", ROWS[:90]),
        named("b.json", ROWS[:90], descriptor="4sIII"),
        named("c.json", FEW, method=STORED, descriptor="4sIQQ"),
        named("d.json", b""),
        Member(name="inner.zip", data=zip_of(Member(name="e", data=FEW, method=STORED))),
    ]
    data = zip_of(*members, comment=b"comment")
    whole, error = read([data])
    assert error is None
    assert len(whole) == 14
    for place in range(1, len(data)):
        for pieces in ([data[:place]], cut(data[:place], range(0, place, 7))):
            rows, error = read(pieces)
            assert rows == whole[: len(rows)]
            assert error is not None
            assert error.file == "export"


def test_a_large_zip_that_is_cut_off() -> None:
    text = b"".join(b'{"n": %d, "x": "%s"}\n' % (n, b"ab" * (n % 50)) for n in range(8_000))
    data = zipped({"a": text, "b": text[:5000], "c": text}, seekable=False)
    whole, error = read(cut(data, range(0, len(data), 16384)))
    assert error is None
    expected = ("export: a", text), ("export: b", text[:5000]), ("export: c", text)
    assert whole == rows_of(*expected)
    for tenth in range(1, 10):
        rows, error = read([data[: len(data) * tenth // 10]])
        assert rows == whole[: len(rows)]
        assert 0.9 * tenth - 1 < 10 * len(rows) / len(whole) < tenth + 1
        assert "cut off" in str(error)


@pytest.mark.parametrize("change", [{"crc": 5}, {"size": 7}, {"packed_size": 7}, {"flags": 1}])
@pytest.mark.parametrize("descriptor", ["", "4sIII"])
def test_a_damaged_member(change: dict[str, int], descriptor: str) -> None:
    bad = Member(name="bad", data=ROWS, descriptor=descriptor, **change)  # type: ignore[arg-type]
    data = zip_of(Member(name="good", data=FEW), bad, Member(name="other", data=FEW))
    refused(
        data, "^export: a member of the archive is", ("export: good", FEW), ("export: bad", ROWS)
    )


def test_duplicate_names_are_two_files() -> None:
    data = zip_of(Member(name="a", data=FEW), Member(name="a", data=ROWS))
    check(data, ("export: a", FEW), ("export: a", ROWS))


# Archives in archives


IN_ZIP = zip_of(Member(name="inner.json", data=ROWS), Member(name="b", data=FEW))


@pytest.mark.parametrize("method", [STORED, 8])
@pytest.mark.parametrize("descriptor", ["", "4sIII"])
def test_an_archive_in_a_zip(method: int, descriptor: str) -> None:
    inner = [
        named("a.gz", gzip_of(ROWS) + gzip_of(FEW)),
        Member(name="x/b.zip", data=IN_ZIP + b"behind"),
        Member(name="c", data=ODD),
        Member(name="d.zip", data=DESCRIPTOR + zip_of()),
    ]
    members = (named(str(m.name), m.data, method=method, descriptor=descriptor) for m in inner)
    check(
        zip_of(*members),
        ("export: a.gz", ROWS + FEW),
        ("export: x/b.zip: inner.json", ROWS),
        ("export: x/b.zip: b", FEW),
        ("export: c", ODD),
    )


def test_an_archive_in_gzip() -> None:
    check(gzip_of(IN_ZIP), ("export: inner.json", ROWS), ("export: b", FEW))
    parts = gzip_of(IN_ZIP[:99]) + gzip_of(IN_ZIP[99:])
    check(parts, ("export: inner.json", ROWS), ("export: b", FEW))
    check(gzip_of(gzip_of(ROWS)), ("export", ROWS))


@pytest.mark.parametrize("innermost", [zip_of(Member(data=FEW)), zip_of(), gzip_of(FEW), b"PK00"])
@pytest.mark.parametrize("middle", ["zip", "gzip"])
@pytest.mark.parametrize("outer", ["zip", "gzip"])
def test_three_levels_are_too_many(outer: str, middle: str, innermost: bytes) -> None:
    def pack(kind: str, data: bytes) -> bytes:
        return gzip_of(data) if kind == "gzip" else zip_of(Member(name=kind, data=data))

    refused(
        pack(outer, pack(middle, innermost)),
        r"^export(: \w+)*: it is an archive in an archive in an archive$",
    )


def test_errors_name_the_innermost_archive() -> None:
    inner = zip_of(Member(name="b", data=FEW, crc=1))
    refused(
        zip_of(Member(name="a.zip", data=inner), Member(data=ROWS)),
        r"^export: a\.zip: a member of the archive is damaged",
        ("export: a.zip: b", FEW),
    )
    cut_off = zip_of(Member(name="a.gz", data=gzip_of(FEW)[:-1]), Member(data=ROWS))
    refused(cut_off, r"^export: a\.gz: the archive ends before its end", ("export: a.gz", FEW))
    cut_off = zip_of(Member(name="a.zip", data=IN_ZIP[:-1]))
    refused(
        cut_off,
        r"^export: a\.zip: the archive ends before its end",
        ("export: a.zip: inner.json", ROWS),
        ("export: a.zip: b", FEW),
    )


# Limits


def test_unpacked_bytes_are_counted_at_every_level() -> None:
    inner = gzip_of(ROWS)
    unpacker = Unpacker("export", ArchiveLimits())
    list(unpacker.feed(zip_of(Member(data=inner), Member(data=FEW))))
    assert unpacker.unpacked == len(inner) + len(ROWS) + len(FEW)


@pytest.mark.parametrize("data", [gzip_of(ROWS), zip_of(Member(data=ROWS), Member(name="b"))])
def test_max_bytes(data: bytes) -> None:
    assert read([data], ArchiveLimits(max_bytes=len(ROWS)))[1] is None
    for limit in (1, len(ROWS) // 2, len(ROWS) - 1):
        limits = ArchiveLimits(max_bytes=limit)
        for pieces in ways(data):
            rows, error = read(pieces, limits)
            assert [row.text for row in rows] == ROWS.splitlines()[: len(rows)]
            assert f"more than {limit:,} bytes: raise max_bytes in ArchiveLimits" in str(error)
            assert sum(len(row.text) + 1 for row in rows) <= limit


def test_max_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    data = gzip_of(b"{}\n" * 10_000)
    limits = ArchiveLimits(max_ratio=99.5)
    assert read([data], limits)[1] is None  # too little to be worth a look
    monkeypatch.setattr(archive, "_RATIO_FROM", 10_000)
    for pieces in ways(data):
        rows, error = read(pieces, limits)
        assert {row.text for row in rows} <= {b"{}"}
        assert "more than 99.5 times its size: raise max_ratio in ArchiveLimits" in str(error)
    assert read([data], ArchiveLimits(max_ratio=30_000 / len(data)))[1] is None


def test_max_members() -> None:
    data = zip_of(Member(name="a", data=FEW), Member(name="b/"), Member(name="c", data=ROWS))
    assert read([data], ArchiveLimits(max_members=3)) == read([data])
    refused(
        data,
        "more than 2 members: raise max_members in ArchiveLimits",
        ("export: a", FEW),
        limits=ArchiveLimits(max_members=2),
    )


def test_max_line() -> None:
    long = b'{"x": "%s"}' % (b"x" * 20_000)
    data = FEW + b"\n" + long + b"\n" + FEW + b"\n" + long
    expected = [
        Row(row.file, row.line, row.offset, row.text[:10_000], len(long))
        if len(row.text) > 10_000
        else row
        for row in rows_of(("export: a", data))
    ]
    for pieces in ways(zip_of(Member(name="a", data=data))):
        assert read(pieces, ArchiveLimits(max_line=10_000)) == (expected, None)


@pytest.mark.parametrize("name", ["max_bytes", "max_ratio", "max_members", "max_line"])
@pytest.mark.parametrize("value", [0, -1, None, "1", float("nan")])
def test_limits_are_above_zero(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        ArchiveLimits(**{name: value})


def bomb_in_zip(blocks: int) -> Iterable[bytes]:
    gzipped = endless_gzip()
    first = next(gzipped)[10:]
    yield zip_of(Member(name="a", descriptor="4sIII", packed=first))[: 31 + len(first)]
    yield from islice(gzipped, blocks)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@pytest.mark.parametrize("kind", ["gzip", "zip", "gzip, whole", "gzip of lines"])
def test_a_bomb_is_stopped(kind: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inflate, "_fast", module)
    monkeypatch.setattr(archive, "_RATIO_FROM", 8 * MEGABYTE)
    limits = ArchiveLimits(max_line=MEGABYTE)
    pieces = bomb_in_zip(10_000) if kind == "zip" else endless_gzip()
    if kind == "gzip, whole":
        pieces = [b"".join(islice(endless_gzip(), 600))]  # 10 MB of 10 GB
        limits = ArchiveLimits(max_bytes=8 * MEGABYTE, max_line=MEGABYTE)
    elif kind == "gzip of lines":
        pieces = cut(gzip_of(b"\n" * 10 * MEGABYTE), range(0, MEGABYTE, 4096))
    unpacker = Unpacker("export", limits)
    tracemalloc.start()
    most = 0
    try:
        with pytest.raises(ArchiveError, match="archive unpacks to more than"):
            for data in pieces:
                for block in unpacker.feed(data):
                    most = max(most, len(block.lines))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert unpacker.unpacked <= 8 * MEGABYTE + 2 * _inflate.PIECE
    assert most <= _inflate.PIECE
    assert peak < 12 * MEGABYTE


def test_a_bomb_that_packs_itself_well_is_stopped_by_its_bytes() -> None:
    limits = ArchiveLimits(max_bytes=50 * MEGABYTE, max_ratio=1e9)
    rows, error = read(endless_gzip(), limits)
    assert rows == []
    assert "more than 52,428,800 bytes" in str(error)


# Whatever comes


SAMPLES = [
    zipped({"a": FEW, "b": ROWS}, seekable=False),
    zip_of(Member(name="a.gz", data=GZIPPED, method=STORED), Member(name="b", data=FEW)),
    zip_of(Member(name="z", data=IN_ZIP), named("c", FEW, method=STORED, descriptor="4sIII")),
    gzip_of(FEW, flags=31) + GZIPPED,
    ROWS,
    b"",
]
changes = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 3),
        st.sampled_from([b"", b"\0", b"PK\x03\x04", DESCRIPTOR, b"\x1f\x8b"])
        | st.binary(max_size=4),
    ),
    max_size=4,
)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
@given(
    sample=st.sampled_from(SAMPLES),
    changes=changes,
    head=st.sampled_from([b"", b"PK\x03\x04", b"\x1f\x8b\x08\0", b"{", BOM]),
    cuts=st.lists(st.integers(0, 1000)),
)
def test_only_archive_errors_come_out(
    module: ModuleType,
    sample: bytes,
    changes: list[tuple[int, int, bytes]],
    head: bytes,
    cuts: list[int],
) -> None:
    data = head + sample
    for place, count, new in changes:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + count :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inflate, "_fast", module)
        in_pieces, first = read(cut(data, cuts))
        whole, second = read([data] if data else [])
    assert (first is None) == (second is None)
    shorter = min(len(in_pieces), len(whole))
    assert in_pieces[:shorter] == whole[:shorter]
    if first is None:
        assert in_pieces == whole


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08\0", b"PK\x03\x04", b"{"]))
def test_garbage(data: bytes, head: bytes) -> None:
    whole = read([head + data])
    assert repr(whole) == repr(read(cut(head + data, range(300)))) or whole[1] is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from([STORED, 8]),
            st.sampled_from(["", "4sIII", "4sIQQ"]),
            st.lists(st.sampled_from([b"{}", b"\n", b"\r\n", b"\xff", DESCRIPTOR, ROWS])),
        ),
        max_size=4,
    ),
    st.lists(st.integers(0, 4000)),
    st.integers(1, 30),
)
def test_every_line_has_its_place(
    contents: list[tuple[int, str, list[bytes]]], cuts: list[int], longest: int
) -> None:
    files = {f"f{n}": b"".join([b"{", *data]) for n, (_, _, data) in enumerate(contents)}
    data = zip_of(
        *(
            named(name, text, method=method, descriptor=descriptor)
            for (name, text), (method, descriptor, _) in zip(files.items(), contents, strict=True)
        )
    )
    rows, error = read(cut(data, cuts), ArchiveLimits(max_line=longest))
    assert error is None
    for row in rows:
        text = files[row.file.removeprefix("export: ")]
        assert text[row.offset :].startswith(row.text)
        assert row.line == text[: row.offset].count(b"\n") + 1
        assert (row.too_long is None) == (len(row.text) <= longest)
    assert len(rows) == sum(len(lines_of(text)) for text in files.values())


def test_an_iterator_that_is_left_leaves_nothing_broken() -> None:
    unpacker = Unpacker("export", ArchiveLimits())
    blocks = iter(unpacker.feed(zip_of(*(Member(name=str(n), data=FEW) for n in range(9)))))
    assert next(blocks).start.file == "export: 0"
    del blocks
    unpacker = Unpacker("export", ArchiveLimits())
    lazily = unpacker.feed(ROWS)
    assert [row for block in lazily for row in block.lines] == ROWS.splitlines()


def test_lines_that_are_in_no_archive_count_as_well() -> None:
    unpacker = Unpacker("a.ndjson", ArchiveLimits(max_bytes=10))
    assert [line for block in unpacker.feed(b'{"a":1}\n') for line in block.lines] == [b'{"a":1}']
    assert unpacker.unpacked == 8
    with pytest.raises(ArchiveError, match="more than 10 bytes"):
        list(unpacker.feed(b"{}\n"))
