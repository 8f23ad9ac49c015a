import sys
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from braze_export import InputError
from braze_export.jobs.reading.compression import Gzip
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.values import Input
from tests.jobs.test_inputs import read, written

BREAK = "holds a line break"


def saved(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "ids.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    ("array", "found", "blank"),
    [
        (pa.array(["a", "é", " b "]), ["a", "é", " b "], 0),
        (pa.array(["a", None, "", " ", "b"]), ["a", "b"], 3),
        (pa.array(["a", None], pa.large_string()), ["a"], 1),
        (pa.array(["a", "b", "a", None]).dictionary_encode(), ["a", "b", "a"], 1),
        (pa.array([1, None, -3], pa.int64()), ["1", "-3"], 1),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)], 0),
        (pa.array([7], pa.int8()), ["7"], 0),
        (pa.array([], pa.string()), [], 0),
        (
            pa.array(["x", "a\nb", "", "é\r"]),
            ["x", ("a\nb", f"row 2: {BREAK}"), ("é\r", f"row 4: {BREAK}")],
            1,
        ),
    ],
)
def test_a_column_is_read(array: Any, found: list[object], blank: int, tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": pa.nulls(len(array)), "id": array})
    assert read(path, column="id") == (found, blank)


@pytest.mark.parametrize(
    ("columns", "column", "found", "blank"),
    [
        ({"id": ["a"]}, None, ["a"], 0),
        ({"x": [1.5], "External_Id": ["a"]}, None, ["a"], 0),
        ({"user": [{"id": "a"}, None, {"id": None}]}, "user.id", ["a"], 2),
        ({"user": [{"name": {"id": 5}}, {"name": None}]}, "user.name.id", ["5"], 1),
        ({"user.id": ["b"], "user": [{"id": "a"}]}, "user.id", ["b"], 0),
        ({"user": [{"id": "a", "id2": "b"}], "user2": ["c"]}, "user.id", ["a"], 0),
    ],
)
def test_nested_columns_are_read_too(
    columns: dict[str, Any], column: str | None, found: list[str], blank: int, tmp_path: Path
) -> None:
    assert read(saved(tmp_path, columns), column=column) == (found, blank)


def test_large_files_come_in_lists(tmp_path: Path) -> None:
    texts = [f"user-{number}" for number in range(50_000)]
    path = saved(tmp_path, {"id": texts}, row_group_size=9_000)
    reader = open_input(Input(path=path), "external_id")
    sizes, shares = [], []
    for block in reader.blocks():
        sizes.append(len(block))
        shares.append(reader.read_bytes / path.stat().st_size)
    reader.close()
    assert sum(sizes) == 50_000
    assert max(sizes) <= 8192
    assert shares == sorted(shares)
    assert (shares[0] < 0.2, shares[-1]) == (True, 1)
    assert read(path) == (texts, 0)


STRUCT = {"user": [{"id": 1, "name": {"x": 1}}], "b": [1]}


@pytest.mark.parametrize(
    ("columns", "column", "reason"),
    [
        ({"a": ["x"], "b": ["y"]}, None, "has 2 columns: name the one .* 'a', 'b'"),
        ({"user_id": ["x"]}, "userid", "no column 'userid': .* 'user_id'. Did you mean 'user_id'"),
        (STRUCT, "users.id", "no column 'users.id': its columns are 'user', 'b'"),
        (STRUCT, "user.idd", "are 'user.id', 'user.name'. Did you mean 'user.id'"),
        (STRUCT, "user.name.y", "are 'user.name.x'"),
        (STRUCT, "user.id.x", "no column 'user.id.x': its columns are 'user', 'b'"),
        (STRUCT, "user", "'user' is of type struct<.*>: identifiers are string or integer. Cast"),
        ({"id": [1.5]}, "id", "'id' is of type double: .* Cast it"),
        ({"id": [True]}, "id", "of type bool"),
        ({"id": [b"x"]}, None, "of type binary"),
        ({"id": [["x"]]}, "id", "of type list"),
        ({"id": [["x"]]}, "id.list.element", "no column"),
        ({"id": pa.array([1.5]).dictionary_encode()}, "id", "of type"),
    ],
)
def test_what_is_wrong_with_the_columns_is_said_at_once(
    columns: dict[str, Any], column: str | None, reason: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, columns)
    with pytest.raises(InputError, match=reason):
        open_input(Input(path=path, column=column), "email")


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "ids.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["id", "id"]), path)
    with pytest.raises(InputError, match="has 2 columns that are called 'id'"):
        open_input(Input(path=path, column="id"), "email")


@pytest.mark.parametrize("data", [b"", b"id\n1\n", b"PAR1" + bytes(100) + b"PAR1"])
def test_what_is_no_parquet_says_so(data: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, data, "ids.parquet")
    with pytest.raises(InputError, match=r"ids\.parquet is no Parquet file, or a damaged one"):
        open_input(Input(path=path), "email")


def test_compressed_as_a_whole_it_is_not_read(tmp_path: Path) -> None:
    whole = saved(tmp_path, {"id": ["a"]}).read_bytes()
    path = written(tmp_path, Gzip().compress(whole), "ids.parquet.gz")
    with pytest.raises(InputError, match="must not be compressed as a whole"):
        open_input(Input(path=path), "email")


def test_damage_in_the_middle_is_an_error_with_the_name_of_the_file(tmp_path: Path) -> None:
    texts = [f"user-{number}" for number in range(50_000)]
    path = saved(tmp_path, {"id": texts}, use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[1000:3000] = bytes(2000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"ids\.parquet is no Parquet file, or a damaged one"):
        read(path)


def test_text_that_is_no_utf_8_is_an_error_that_does_not_hold_it(tmp_path: Path) -> None:
    offsets, data = pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"J\xf6")
    path = saved(tmp_path, {"id": pa.StringArray.from_buffers(1, offsets, data)})
    with pytest.raises(InputError, match="is no Parquet file, or a damaged one") as caught:
        read(path)
    assert caught.value.__cause__ is None


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'pip install "braze-export\[parquet\]"'):
        open_input(Input(path=tmp_path / "ids.parquet"), "email")
