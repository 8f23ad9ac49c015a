import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export import InputError
from braze_export.jobs.reading import compression
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.values import Input
from tests.jobs.test_inputs import read, written

names = (f"{number}.ndjson" for number in itertools.count())
HUGE = 12345678901234567890123456789


@pytest.mark.parametrize(
    ("data", "column", "found", "blank"),
    [
        ("", None, [], 0),
        ("\n \n", None, [], 0),
        ('{"external_id":"a"}\n{"external_id":"b"}', None, ["a", "b"], 0),
        ('{"x":1,"external_id":"a"}\n', None, ["a"], 0),
        ('{"only":"a"}\n', None, ["a"], 0),
        ('\ufeff{"id":"a"}\r\n{"id":"b"}\r\n', "id", ["a", "b"], 0),
        ('{"id":"J\\u00f6rg €"}', "id", ["Jörg €"], 0),
        (f'{{"id":1}}\n{{"id":"a"}}\n{{"id":{HUGE}}}\n', "id", ["1", "a", str(HUGE)], 0),
        ('{"id":-1}\n{"id":0}\n', "id", ["-1", "0"], 0),
        ('{"id":null}\n{}\n{"id":""}\n{"id":" "}\n{"id":"a"}\n', "id", ["a"], 4),
        ('\n\n{"id":"a"}\n \n\n{"id":"b"}\n', "id", ["a", "b"], 0),
        ('{"user":{"id":"a","x":[1]}}\n', "user.id", ["a"], 0),
        ('{"user.id":"b","user":{"id":"a"}}\n', "user.id", ["b"], 0),
        ('{"user.id":null,"user":{"id":"a"}}\n{"user":{"id":"c"}}\n', "user.id", ["c"], 1),
        ('{"user":{"id":7}}\n{"user":null}\n{}\n{"user":{}}\n', "user.id", ["7"], 3),
        ('{"a":{"b":{"c":"x"}}}\n{"a":{"b":null}}\n{"a":{}}\n', "a.b.c", ["x"], 2),
        ('{"a.b":{"c":"x"},"a":{"b":{"c":"y"}}}\n', "a.b.c", ["y"], 0),
        ('{"user":"a"}\n{"user":{"id":"b"}}\n', "user.id", ["b"], 1),
        ('"a"\n"b"\n', None, ["a", "b"], 0),
        ('"a"\n\n7\nnull\n', None, ["a", "7"], 1),
    ],
)
def test_identifiers_stand_under_a_path_of_keys(
    data: str, column: str | None, found: list[str], blank: int, tmp_path: Path
) -> None:
    assert read(written(tmp_path, data, "ids.ndjson"), column=column) == (found, blank)


LONG = json.dumps({"id": ["x" * 3000]})


@pytest.mark.parametrize(
    ("line", "shown", "reason"),
    [
        ('{"id":1.0}', "1.0", "holds a number with a fraction, which is no identifier"),
        ('{"id":true}', "true", "holds true or false"),
        ('{"id":{"é":1}}', '{"é": 1}', "holds an object"),
        ('{"id":[1]}', "[1]", "holds an array"),
        (LONG, json.dumps(["x" * 3000])[:1000], "holds an array"),
        ('{"id":"a"', '{"id":"a"', "is no JSON"),
        ('{"id":"a"}{"id":"b"}', '{"id":"a"}{"id":"b"}', "is no JSON"),
        ("a", "a", "is no JSON"),
        ("[" * 100_000, "[" * 1000, "is no JSON"),
        ('{"id":' + "1" * 5000 + "}", '{"id":' + "1" * 994, "is no JSON"),
        ('"a"', '"a"', "is no JSON object"),
        ("[1]", "[1]", "is no JSON object"),
        ('{"id":"a\\nb"}', "a\nb", "holds a line break"),
        ('{"id":"a\\rb"}', "a\rb", "holds a line break"),
        ('{"id":"a\\ud800b"}', "a\\ud800b", "is not valid Unicode"),
    ],
)
def test_what_is_no_identifier_is_told_with_its_line(
    line: str, shown: str, reason: str, tmp_path: Path
) -> None:
    data = "\n".join(['{"id":"first"}', "", line, '{"id":"last"}', ""])
    found, blank = read(written(tmp_path, data, "ids.ndjson"), column="id")
    assert (found[0], found[2], blank) == ("first", "last", 0)
    assert found[1][0] == shown
    assert found[1][1].startswith(f"line 3: {reason}")


def test_where_lines_are_strings_others_are_none(tmp_path: Path) -> None:
    data = '"a"\n{"id":1}\ntrue\n"b\\nc"\n"d"'
    found, _ = read(written(tmp_path, data, "ids.ndjson"))
    assert found == [
        "a",
        ('{"id": 1}', "line 2: holds an object, which is no identifier"),
        ("true", "line 3: holds true or false, which is no identifier"),
        ("b\nc", "line 4: holds a line break"),
        "d",
    ]


def test_odd_text_beside_the_identifier_does_no_harm(tmp_path: Path) -> None:
    data = '{"id":"a","x":"\\ud800"}\n{"x":NaN,"id":"b"}\n'
    assert read(written(tmp_path, data, "ids.ndjson"), column="id") == (["a", "b"], 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"a":1,"b":2}\n', "has 2 columns: name the one .* They are 'a', 'b'"),
        ("{}\n", "has 0 columns"),
        ("a\nb\n", "its first line is neither a JSON object nor a string in JSON"),
        ("[1]\n", "its first line is neither"),
        ("\n\nnull\n", "its first line is neither"),
    ],
)
def test_where_the_first_line_does_not_tell_the_key_it_must_be_named(
    data: str, reason: str, tmp_path: Path
) -> None:
    path = written(tmp_path, data, "ids.ndjson")
    with pytest.raises(InputError, match=reason):
        open_input(Input(path=path), "email")


@pytest.mark.parametrize("column", ["user_idd", "user.id"])
def test_a_key_that_no_line_has_is_an_error(column: str, tmp_path: Path) -> None:
    path = written(tmp_path, '{"user_id":"a","b":2}\n' * 10_000, "ids.ndjson")
    with pytest.raises(InputError, match=r"no column .* 'user_id', 'b'\. Did you mean 'user_id'"):
        read(path, column=column)


def test_a_key_that_few_lines_have_is_none(tmp_path: Path) -> None:
    data = '{"user_id":"a"}\n' * 10_000 + '{"id":null}\n'
    assert read(written(tmp_path, data, "ids.ndjson"), column="id") == ([], 10_001)


@pytest.fixture(params=[1, 7, 64 * 1024])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "PIECE", request.param)


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.none()),
)


@pytest.mark.usefixtures("_pieces")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(values, st.sampled_from(["", " ", "\r"]))), st.booleans())
def test_what_was_written_is_read(
    tmp_path: Path, rows: list[tuple[Any, str]], escaped: bool
) -> None:
    lines = [json.dumps({"u": {"i": v}}, ensure_ascii=escaped) + space for v, space in rows]
    data = "\n".join(["", *lines]).encode(errors="surrogatepass")
    path = written(tmp_path, data, next(names))
    found, blank = read(path, column="u.i")
    usable = [
        str(v)
        for v, _ in rows
        if isinstance(v, str | int) and not isinstance(v, bool) and str(v).strip()
    ]
    texts = [text for text in usable if not {"\r", "\n"} & set(text)]
    assert [item for item in found if isinstance(item, str)] == texts
    assert len(found) + blank == len(rows)
    path.unlink()
