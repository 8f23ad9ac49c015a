import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from braze_export.archives.lines import Block, LineSplitter, Place
from tests.archives.making import cut, lines_of, ways

BOM = b"\xef\xbb\xbf"
ODD = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg".encode()  # ends of lines to str.splitlines
texts = st.lists(
    st.sampled_from([b"\n", b"\n\n", b"\r\n", b"{}", b'"abc"', b"x" * 40, BOM, b"\xff", b"\0"])
).map(b"".join)
cuts = st.lists(st.integers(0, 400))


def blocks(pieces: list[bytes], longest: int = 1000) -> list[Block]:
    splitter = LineSplitter("a.json", longest)
    found = [block for piece in pieces for block in splitter.feed(piece)]
    return found + list(splitter.close())


def rows(found: list[Block]) -> list[tuple[int, int, bytes]]:
    places = [(b.place(i), line) for b in found for i, line in enumerate(b.lines)]
    assert {place.file for place, _ in places} <= {"a.json"}
    return [(place.line, place.offset, line) for place, line in places]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\na\n\nb\n", [b"", b"a", b"", b"b"]),
        (b"a\r\nb\r\n", [b"a\r", b"b\r"]),
        (b"a\rb", [b"a\rb"]),
        (b"%s\n%s" % (ODD, ODD), [ODD, ODD]),
        (b"a\n" + BOM + b"b", [b"a", BOM + b"b"]),
        (b"\n" + BOM, [b"", BOM]),
        (b"\xef\xbb", [b"\xef\xbb"]),
    ],
)
def test_lines_end_at_line_feeds_only(data: bytes, lines: list[bytes]) -> None:
    for pieces in ways(data):
        found = rows(blocks(pieces))
        assert [line for _, _, line in found] == lines
        assert found == lines_of(data)


@given(texts, cuts)
@example(b"a\n" + BOM, [])
def test_every_line_has_its_place_however_the_file_is_cut(data: bytes, places: list[int]) -> None:
    data = data.lstrip(BOM)
    found = blocks(cut(data, places))
    assert rows(found) == lines_of(data)
    assert all(block.too_long is None and block.lines for block in found)


@given(texts, cuts)
def test_a_byte_order_mark_counts_in_offsets_only(data: bytes, places: list[int]) -> None:
    found = rows(blocks(cut(BOM + data, [place + 3 for place in places])))
    lines = lines_of(data)
    assert found == [(number, 3 + offset, line) for number, offset, line in lines]


@given(texts, cuts, st.integers(1, 60))
def test_what_is_too_long_leaves_its_neighbours_alone(
    data: bytes, places: list[int], longest: int
) -> None:
    data = data.lstrip(BOM)
    found = blocks(cut(data, places), longest)
    assert rows(found) == lines_of(data)  # none is so long that it is shown in part
    for block in found:
        if block.too_long is None:
            assert max(map(len, block.lines)) <= longest
        else:
            assert [len(line) for line in block.lines] == [block.too_long]
            assert block.too_long > longest


@pytest.mark.parametrize("size", [1, 100, 9_999, 10_000, 10_001, 1_000_000])
def test_of_a_line_that_is_too_long_the_beginning_is_kept(size: int) -> None:
    long = bytes(range(11, 256)) * 100
    data = b"first\n" + long + b"\nthird\n" + long + b"\nfifth\n" + long
    found = blocks(cut(data, range(0, len(data), size)), 20_000)
    assert [(b.start.line, b.too_long) for b in found if b.too_long] == [
        (n, len(long)) for n in (2, 4, 6)
    ]
    shown = [(n, o, line if n % 2 else line[:10_000]) for n, o, line in lines_of(data)]
    assert rows(found) == shown


@pytest.mark.parametrize(("longest", "cut_off"), [(24, True), (25, False), (26, False)])
def test_a_line_may_be_as_long_as_the_limit(longest: int, *, cut_off: bool) -> None:
    for pieces in ways(b"x" * 25 + b"\n"):
        (block,) = blocks(pieces, longest)
        assert (block.too_long == 25) == cut_off


def test_a_long_line_is_whole_however_it_comes() -> None:
    line = bytes(range(11, 251)) * 100  # more than is shown of one that is too long
    for size in (1_000, 9_999, len(line), len(line) + 1):
        found = blocks(cut(line + b"\n", range(0, len(line) + 1, size)), len(line))
        assert rows(found) == [(1, 0, line)]
        assert found[0].too_long is None


def peak_of(pieces: int, piece: bytes, longest: int) -> tuple[int, list[Block]]:
    splitter = LineSplitter("a.json", longest)
    found: list[Block] = []
    tracemalloc.start()
    try:
        for _ in range(pieces):
            found.extend(splitter.feed(piece))
        found.extend(splitter.close())
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def test_a_line_without_end_takes_no_memory() -> None:
    peak, (block,) = peak_of(800, bytes(256 * 1024), 1024 * 1024)
    assert block.too_long == 200 * 1024 * 1024
    assert block.lines == [bytes(10_000)]
    assert peak < 4 * 1024 * 1024


def test_a_line_in_tiny_pieces_takes_little_more_memory_than_its_bytes() -> None:
    peak, (block,) = peak_of(100_000, b"ab", 1024 * 1024)
    assert block.lines == [b"ab" * 100_000]
    assert peak < 1024 * 1024


def test_a_place_reads_well() -> None:
    assert str(Place("export.zip: a.json", 1234, 5678901)) == (
        "export.zip: a.json, line 1,234 (byte 5,678,901)"
    )


def test_all_lines_may_be_asked_for_their_places() -> None:
    blocks = list(LineSplitter("a.json", 100).feed(b"x\n" * 100_000))
    places = [block.place(index) for block in blocks for index in range(len(block.lines))]
    assert len(places) == 100_000
    assert places[-1] == Place("a.json", 100_000, 199_998)


def test_very_many_lines_come_in_small_blocks() -> None:
    piece = b"{}\n" * 100_000 + b"\n" * 400_000 + b" \n[]\n{"
    splitter = LineSplitter("f", 100)
    found = [*splitter.feed(piece), *splitter.feed(b"}"), *splitter.close()]
    assert max(len(block.lines) for block in found) <= 64 * 1024
    lines = [(b.place(i), line) for b in found for i, line in enumerate(b.lines) if line.strip()]
    assert [line for _, line in lines] == [b"{}"] * 100_000 + [b"[]", b"{}"]
    assert [str(place) for place, _ in lines[-2:]] == [
        "f, line 500,002 (byte 700,002)",
        "f, line 500,003 (byte 700,005)",
    ]


def test_empty_lines_by_the_thousand_end_what_has_begun_and_are_passed_over() -> None:
    found = rows(blocks([b"{", b"\n" * 5_000, b" \n" * 5_000, b"[]\n"]))
    assert len(found) == 5_001
    assert [row for row in found if row[2]] == [(1, 0, b"{"), (10_001, 15_001, b"[]")]
