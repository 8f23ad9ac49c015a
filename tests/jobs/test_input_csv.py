import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export import InputError
from braze_export.jobs.reading import compression
from braze_export.jobs.reading import csv as input_csv
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.values import Input
from tests.jobs.test_inputs import read, written

BREAK = "holds a line break"
names = (f"{number}.csv" for number in itertools.count())


@pytest.mark.parametrize(
    ("data", "options", "found", "blank"),
    [
        ("id\n1\n2\n", {}, ["1", "2"], 0),
        ("id\r\n1\r\n2", {}, ["1", "2"], 0),
        ("id\r1\r2\r", {}, ["1", "2"], 0),
        ("\ufeffid\n1\n", {"column": "id"}, ["1"], 0),
        ("id", {}, [], 0),
        ("a,id,b\n1,2,3\n", {"column": "id"}, ["2"], 0),
        ("a,external_id\n1,2\n", {}, ["2"], 0),
        ("External_ID ,a\n1,2\n", {}, ["1"], 0),
        ('a,id\n1,"x, ""y"""\n', {"column": "id"}, ['x, "y"'], 0),
        ('"a\nb",id\n"c\r\n\nd",1\n', {"column": "id"}, ["1"], 0),
        ("id;b\n1;2\n", {"delimiter": ";", "column": "id"}, ["1"], 0),
        ("id;b\n1;2\n", {"column": "id;b"}, ["1;2"], 0),
        ("\n\nid\n\n1\n\n", {}, ["1"], 0),
        ("a,id\n1,\n2, \n3,x\n", {"column": "id"}, ["x"], 2),
        ('id\n""\n x \n', {}, [" x "], 1),
        ("id\nJörg\n€\n\u3000\n", {}, ["Jörg", "€"], 1),
        ('id\n1\n"a\nb"\n', {}, ["1", ("a\nb", f"row 3: {BREAK}")], 0),
        ('a,id\n"\n\n",1\n\n2,"a\rb"\n', {"column": "id"}, ["1", ("a\rb", f"row 4: {BREAK}")], 0),
        (
            "a,id\n1,2\n\n3\n4,5\n6,\n",
            {"column": "id"},
            ["2", ("3", "row 4: has 1 columns, too few"), "5"],
            1,
        ),
        ("a,id\n1,2,3\n", {"column": "id"}, ["2"], 0),
    ],
)
def test_a_column_is_read(
    data: str, options: dict[str, Any], found: list[object], blank: int, tmp_path: Path
) -> None:
    assert read(written(tmp_path, data, "ids.csv"), **options) == (found, blank)


@pytest.mark.parametrize("name", ["ids.tsv", "ids.TSV.gz"])
def test_columns_of_tsv_have_tabs_between(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, "a,b\tid\n1\t2\n", name)
    assert read(path, column="id") == (["2"], 0)


def test_other_encodings_are_read_where_they_are_named(tmp_path: Path) -> None:
    data = "a,id\nx,Jörg\n".encode("utf-16")
    assert read(written(tmp_path, data, "ids.csv"), column="id", encoding="utf-16") == (["Jörg"], 0)
    path = written(tmp_path, b"id\nJ\xf6rg\n", "ids.csv")
    assert read(path, encoding="cp1252") == (["Jörg"], 0)
    with pytest.raises(InputError, match="line 2 is not utf-8: name the encoding"):
        open_input(Input(path=path), "external_id")


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("external_id", "external_id"),
        ("email", "email"),
        ("email", "Email_Address"),
        ("phone", "phone_number"),
        ("braze_id", "braze_id"),
        ("device_id", "device_id"),
        ("alias", "alias_name"),
    ],
)
def test_a_column_that_is_called_as_the_identifiers_need_not_be_named(
    kind: str, header: str, tmp_path: Path
) -> None:
    path = written(tmp_path, f"a,{header},b\n1,2,3\n", "ids.csv")
    assert read(path, kind) == (["2"], 0)


@pytest.mark.parametrize("header", ["id", "Customer ID", "userId", "uuids", "E-Mail", "aliases"])
def test_an_only_column_need_not_be_named_where_its_name_is_one(
    header: str, tmp_path: Path
) -> None:
    assert read(written(tmp_path, f"{header}\n1\n", "ids.csv")) == (["1"], 0)


@pytest.mark.parametrize("first", ["u1", "user-17", "f81d4fae", "plan", "ID00012"])
def test_a_file_without_names_of_columns_loses_no_identifier(first: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"{first}\nu2\n", "ids.csv")
    with pytest.raises(InputError, match="whose first line may be") as caught:
        open_input(Input(path=path), "external_id")
    assert first not in str(caught.value).removeprefix(str(path))
    assert read(path, column=first) == (["u2"], 0)
    assert read(path, format="lines") == ([first, "u2"], 0)


many = ",".join(f"c{number}" for number in range(25))


@pytest.mark.parametrize(
    ("data", "options", "reason"),
    [
        ("", {}, "is empty: a CSV file begins with the names"),
        ("\n\n", {}, "is empty"),
        ("a,b\n1,2\n", {}, "has 2 columns: name the one .* They are 'a', 'b'$"),
        ("email,Email\n1,2\n", {}, "has 2 columns: name the one"),
        (
            "user_id,b\n",
            {"column": "userid"},
            "no column 'userid': .* 'user_id', 'b'. Did you mean",
        ),
        ("User_Id,b\n", {"column": "user_id"}, "Did you mean 'User_Id'"),
        ("a,b\n", {"column": "zzzz"}, "columns are 'a', 'b'.$"),
        (many, {"column": "zzzz"}, "'c19' and 5 more"),
        ("x" * 5000 + ",y\n", {"column": "zzzz"}, "are 'y' and 1 more"),
        ("id;b\n1;2\n", {"column": "id"}, "columns with ';' between: give the delimiter"),
        ("id;b\n1;2\n", {}, "columns with ';' between: give the delimiter"),
        ("id\tb\n1\t2\n", {}, r"columns with '\\t' between"),
        ("id,b\n1,2\n", {"column": "id", "delimiter": ";"}, "columns with ',' between"),
        ("a,id,id\n", {"column": "id"}, "has 2 columns that are called 'id'"),
        ("a@b.de\nc@d.de\n", {}, "begins with data, not with the names"),
        ("a@b.de,x\n", {"column": "email"}, "begins with data"),
        ("+49 (30) 12345\n", {}, "begins with data"),
        ("id\n", {"delimiter": ";;"}, "delimiter is ';;': allowed is one character"),
        ("id\n", {"delimiter": ""}, "delimiter is ''"),
        ("id\n", {"delimiter": "\n"}, "delimiter is"),
        ("id\n", {"delimiter": '"'}, "delimiter is"),
    ],
)
def test_what_is_wrong_with_the_columns_is_said_at_once(
    data: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = written(tmp_path, data, "ids.csv")
    with pytest.raises(InputError, match=reason) as caught:
        open_input(Input(path=path, **options), "email")
    assert "@" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ('id\n1\n"2\n3\n', 4),
        ('id\n1\n"2\n' + "3\n" * 100_000, 100_003),
        ('id\n1\n"2"x\n3\n', 3),
    ],
)
def test_quotation_marks_gone_wrong_are_an_error(data: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"about line {line}: it is no CSV .* not closed"):
        read(written(tmp_path, data, "ids.csv"))


@pytest.mark.parametrize("options", [{}, {"column": "quux"}])
@pytest.mark.parametrize(
    "row",
    [
        "Zoë Quux,zoe@example.com",
        "Quux,Zoë,4711",
        "Quux, 12 ,x",
        "Quux,Zoë's,1-2,Öd",
        "Quux,,,",
        "Quux,zoe@localhost",
    ],
)
def test_what_may_be_data_is_not_shown(row: str, options: Any, tmp_path: Path) -> None:
    path = written(tmp_path, f"{row}\n{row}\n", "ids.csv")
    with pytest.raises(InputError, match="columns") as caught:
        open_input(Input(path=path, **options), "email")
    told = str(caught.value).replace("'quux'", "")
    assert re.search("look like data|begins with data", told)
    assert not [word for word in ("Quux", "Zo", "4711", "12") if word in told.rpartition("/")[2]]


def test_names_that_are_odd_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "user id,$plan,Größe,a.b-c\n1,2,3,4\n", "ids.csv")
    with pytest.raises(InputError, match=r"They are 'user id', 'Größe', 'a\.b-c' and 1 more$"):
        open_input(Input(path=path), "email")


@pytest.fixture
def _low_limit() -> Iterator[None]:
    before = csv.field_size_limit(1000)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("_low_limit")
def test_long_texts_beside_are_no_hindrance(tmp_path: Path) -> None:
    path = written(tmp_path, f'id,note\n1,{"x" * 200_000}\n2,"{"y" * 200_000}"\n', "ids.csv")
    assert read(path, column="id") == (["1", "2"], 0)


@pytest.mark.usefixtures("_low_limit")
def test_a_cell_that_is_too_long_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_csv, "_LONGEST", 2000)
    path = written(tmp_path, 'id\n1\n"2\n' + "3\n" * 1000, "ids.csv")
    with pytest.raises(InputError, match=r"a cell has more than 2,000 char.* mark not closed"):
        read(path)


@pytest.mark.usefixtures("_low_limit")
def test_a_limit_that_others_have_raised_stays(tmp_path: Path) -> None:
    csv.field_size_limit(2**30)
    assert read(written(tmp_path, "id\n1\n", "ids.csv")) == (["1"], 0)
    assert csv.field_size_limit() == 2**30


def test_a_line_without_end_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_csv, "_LONGEST", 100_000)
    with pytest.raises(InputError, match="line 2: it has more than 100,000"):
        read(written(tmp_path, "id\n" + "1," * 100_000, "ids.csv"))


@pytest.fixture(params=[1, 2, 7, 64 * 1024])
def _pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "PIECE", request.param)
    monkeypatch.setattr(input_csv, "_ROWS", 1 + request.param % 4)


cells = st.text(st.sampled_from('ab,;"\n\r é€')).map(lambda text: f"x{text}")


@pytest.mark.usefixtures("_pieces")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(cells, cells)),
    st.sampled_from(["utf-8", "utf-16"]),
    st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
)
def test_what_was_written_is_read(
    tmp_path: Path, rows: list[tuple[str, str]], encoding: str, way: tuple[str, Any]
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=way[0], quoting=way[1])
    writer.writerows([("a", "id"), *rows])
    path = written(tmp_path, text.getvalue().encode(encoding), next(names))
    expected = [
        (cell, f"row {number}: {BREAK}") if {"\r", "\n"} & set(cell) else cell
        for number, (_, cell) in enumerate(rows, 2)
    ]
    assert read(path, column="id", encoding=encoding) == (expected, 0)
    path.unlink()
