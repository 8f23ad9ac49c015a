import codecs
import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export import InputError
from braze_export.jobs.reading import compression
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.values import Input
from tests.jobs.test_inputs import read, written

BREAK = "holds a line break"
numbers = itertools.count()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("", []),
        ("\n", []),
        ("\ufeff", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\nb", ["a", "b"]),
        ("\n\na\n\n\nb\n\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\r\nb\r", ["a", "b"]),
        ("\r\n\r\na\r\n", ["a"]),
        ("\ufeffa\nb", ["a", "b"]),
        ("\ufeff\nb", ["b"]),
        ("a\n\ufeffb", ["a", "\ufeffb"]),
        (" a \n\tb\n \n\t\r\n\u3000\n", [" a ", "\tb"]),
        ("é\n€\n\U0001f600", ["é", "€", "\U0001f600"]),
        ("a\u2028b\nc\x85d\x0be\x1cf", ["a\u2028b", "c\x85d\x0be\x1cf"]),
        ("x\n\na\rb\nc", ["x", ("a\rb", f"line 3: {BREAK}"), "c"]),
        ("é\n\na\rb\nc", ["é", ("a\rb", f"line 3: {BREAK}"), "c"]),
        ("a\r\r\nb", [("a\r", f"line 1: {BREAK}"), "b"]),
    ],
)
def test_every_line_is_an_identifier_as_it_stands(
    data: str, found: list[object], tmp_path: Path
) -> None:
    assert read(written(tmp_path, data)) == (found, 0)


@pytest.fixture(params=[1, 2, 3, 7, 64 * 1024])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "PIECE", request.param)


def lines_of(text: str) -> Iterator[object]:
    """Tell the same line by line, as plainly as can be."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        bare = line.removesuffix("\r")
        if bare.strip():
            yield (bare, f"line {number}: {BREAK}") if "\r" in bare else bare


@pytest.mark.usefixtures("_pieces")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["\n", "\r\n", "\r", "ab", " ", "é", "€", "\U0001f600"])).map("".join),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gb18030"]),
)
def test_the_encoding_and_the_pieces_make_no_difference(
    tmp_path: Path, text: str, encoding: str
) -> None:
    path = written(tmp_path, text.encode(encoding), f"ids{next(numbers)}")
    assert read(path, encoding=encoding) == (list(lines_of(text)), 0)
    path.unlink()


def test_other_encodings_are_read_where_they_are_named(tmp_path: Path) -> None:
    assert read(written(tmp_path, b"J\xf6rg\n\x80"), encoding="cp1252") == (["Jörg", "€"], 0)
    marked = codecs.BOM_UTF16_LE + "Jörg".encode("utf-16-le")
    assert read(written(tmp_path, marked), encoding="utf-16-le") == (["Jörg"], 0)


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (b"a\nb\nJ\xf6rg\n", "utf-8", "line 3 is not utf-8: name the .* such as cp1252"),
        (b"a\n" * 50_000 + b"\xff", "utf-8", "line 50001 is not utf-8"),
        (b"a\nb\n\xc3", "utf-8", "line 3 is not utf-8"),
        ("a\nb".encode("utf-16"), "utf-8", "line 1 is not utf-8: .* UTF-16 does: .* utf-16"),
        (b"\xfe\xff\0a", "utf-8", "UTF-16"),
        ("a\nb".encode("utf-16-le"), "utf-8", "zeros and so is hardly utf-8: .* or utf-16"),
        (b"\0a\0b\0", "utf-16-be", "line 1 is not utf-16-be"),
        ("a\nb".encode("utf-16-le"), "utf-16", "line 1 is not utf-16"),
        (b"a\n\x81", "cp1252", "line 2 is not cp1252"),
        (b"a\n\xff", "idna", "line 2 is not idna"),
        (b"xn--a-\n", "punycode", "line 1 is not punycode"),
        (b"PAR1\x15\x04\xff", "utf-8", "looks like Parquet"),
        (b"PK\x03\x04\0\0\0", "utf-8", "an Excel workbook"),
    ],
)
def test_a_file_in_another_encoding_is_an_error_that_says_what_to_do(
    data: bytes, encoding: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read(written(tmp_path, data), encoding=encoding)
    assert caught.value.__cause__ is None
    assert "rg" not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("before", [0, 1, 3, 40_000])
@pytest.mark.parametrize("ended", [True, False])
def test_a_line_that_is_too_long_is_an_error(before: int, *, ended: bool, tmp_path: Path) -> None:
    data = "a\n" * before + "x" * (64 * 1024) + "\n" * ended
    found, _ = read(written(tmp_path, data))
    assert len(found) == before + 1
    data = "a\n" * before + "x" * (64 * 1024 + 1) + "\n" * ended
    with pytest.raises(InputError, match=rf"line {before + 1}: it has more than 65,536"):
        read(written(tmp_path, data))


def test_what_cannot_be_an_identifier_is_shown_in_part(tmp_path: Path) -> None:
    ((text, reason),), _ = read(written(tmp_path, "a\r" + "b" * 5000 + "\n"))
    assert text == "a\r" + "b" * 998
    assert reason == f"line 1: {BREAK}"


def test_lone_surrogates_cannot_be_sent(tmp_path: Path) -> None:
    data = b"a\nx+2AA-y\nb"  # UTF-7 says what it likes
    found, _ = read(written(tmp_path, data), encoding="utf-7")
    assert found == ["a", ("x\\ud800y", "line 2: is not valid Unicode"), "b"]


def test_a_file_is_never_held_whole(tmp_path: Path) -> None:
    path = written(tmp_path, b"0123456789\n" * 500_000)
    reader = open_input(Input(path=path), "external_id")
    tracemalloc.start()
    try:
        assert sum(map(len, reader.blocks())) == 500_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        reader.close()
    assert peak < 2_000_000
