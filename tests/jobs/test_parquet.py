"""Files that other tools read, in bounded memory."""

import json
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export.jobs.tables import parquet as room
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.parquet import blocks_of, pieces_of, write_parquet
from tests.lazily import Lazily
from tests.payloads import sample

duckdb: Any = Lazily("duckdb")
pd: Any = Lazily("pandas")
pl: Any = Lazily("polars")

FULL = json.dumps(json.loads(sample("user_superset_all_known_fields.json"))).encode()
EMPTY = b'{"external_id":"nobody","new":[1]}'
CREATED = datetime(2020, 7, 10, 15, tzinfo=UTC)


def users(*numbers: int) -> bytes:
    return b"".join(b'{"external_id":"%d"}\n' % n for n in numbers)


def ids(file: Path) -> list[int]:
    return [int(text) for text in pq.read_table(file)["external_id"].to_pylist()]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("parquet") / "users.parquet"
    tables = Tables(None, "map")
    assert write_parquet([FULL + b"\n" + EMPTY + b"\n"], target, tables) == 2
    return target


def test_duckdb_reads_it(file: Path) -> None:
    query = f"""
        SELECT epoch_us(created_at), dob, total_revenue, apps[1].sessions,
               epoch_us(apps[1].first_used), last_coordinates, custom_attributes['tags'],
               campaigns_received[1].engaged['opened_email'],
               canvases_received[1].steps_received[1].name, extra
        FROM '{file}' ORDER BY external_id
    """
    with duckdb.connect() as connection:
        full, empty = connection.sql(query).fetchall()
    micros = int(CREATED.timestamp()) * 1_000_000
    assert full[:4] == (micros, date(1980, 12, 21), 65.0, 1129)
    assert full[4] == 1_580_673_379_142_000
    assert full[5] == [41.84157636433568, -87.83520818508256]
    assert full[6:] == ('["a", "b"]', True, "Step", None)
    assert empty == (*[None] * 9, '{"new":[1]}')


def test_polars_reads_it(file: Path) -> None:
    frame = pl.read_parquet(file)
    full, empty = frame.to_dicts()
    assert full["created_at"] == CREATED
    assert full["dob"] == date(1980, 12, 21)
    assert full["apps"][0]["sessions"] == 1129
    pairs = dict(full["custom_attributes"])
    assert pairs["loyaltyPoints"] == '"321"'
    assert pairs["nothing"] == "null"
    assert full["canvases_received"][0]["steps_received"][0]["name"] == "Step"
    assert (empty["apps"], empty["extra"]) == (None, '{"new":[1]}')


def test_pandas_reads_it(file: Path) -> None:
    frame = pd.read_parquet(file)
    assert frame["created_at"][0] == pd.Timestamp(CREATED)
    assert frame["total_revenue"][0] == 65.0
    assert frame["apps"][0][0]["sessions"] == 1129
    assert dict(frame["custom_attributes"][0])["is_vip"] == "true"
    assert frame["extra"][1] == '{"new":[1]}'


@pytest.mark.parametrize("blocks", [[], [b""], [b"\n"], [FULL], [b'{"email":5}\n', b"[1]\n"]])
def test_the_schema_is_the_same_whatever_the_rows(tmp_path: Path, blocks: list[bytes]) -> None:
    tables = Tables()
    rows = write_parquet(blocks, tmp_path / "a.parquet", tables)
    found = pq.read_table(tmp_path / "a.parquet")
    assert found.num_rows == rows == sum(len(b.split()) > 0 for b in blocks)
    assert found.schema.equals(tables.schema)


def test_row_groups_are_bounded_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_GROUP_ROWS", 10)
    monkeypatch.setattr(room, "_PIECE", 20)
    target = tmp_path / "a.parquet"
    assert write_parquet([users(*range(25))], target, Tables(("email",))) == 25
    assert groups(target) == [10, 10, 5]
    assert ids(target) == list(range(25))


def test_row_groups_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_GROUP_BYTES", 3 * len(users(1)))
    blocks = (users(n) for n in range(7))
    target = tmp_path / "a.parquet"
    monkeypatch.setattr(room, "pieces_of", lambda given: given)
    assert write_parquet(blocks, target, Tables(("email",))) == 7
    assert groups(target) == [3, 3, 1]


def groups(file: Path) -> list[int]:
    metadata = pq.read_metadata(file)
    return [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]


def test_rows_of_a_kept_file_come_first(tmp_path: Path) -> None:
    old, new, newer = (tmp_path / f"{n}.parquet" for n in range(3))
    tables = Tables(None, "map")
    write_parquet([FULL + b"\n", users(1)], old, tables)
    assert write_parquet([users(2, 3)], new, tables, keep=old) == 4
    assert write_parquet([], newer, tables, keep=new) == 4
    found = pq.read_table(newer)
    assert found.schema.equals(tables.schema)
    assert found.slice(0, 1).equals(tables.table(FULL))
    assert found["external_id"].to_pylist()[1:] == ["1", "2", "3"]


def test_a_file_of_other_columns_is_not_kept(tmp_path: Path) -> None:
    write_parquet([users(1)], tmp_path / "old.parquet", Tables(("email",)))
    with pytest.raises(ValueError, match="other columns: country"):
        write_parquet(
            [], tmp_path / "a", Tables(("email", "country")), keep=tmp_path / "old.parquet"
        )


def test_metadata_is_in_the_file(tmp_path: Path) -> None:
    write_parquet([], tmp_path / "a", Tables(), metadata={"job": "7", "ä": "ß"})
    found = pq.read_metadata(tmp_path / "a").metadata
    assert (found[b"job"], found["ä".encode()]) == (b"7", "ß".encode())


def test_files_are_compressed_with_zstd(file: Path) -> None:
    assert pq.read_metadata(file).row_group(0).column(0).compression == "ZSTD"


def test_progress_counts_the_bytes_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "pieces_of", lambda blocks: pieces_of(blocks, 40))
    seen: list[int] = []
    data = users(*range(10))
    write_parquet([data], tmp_path / "a", Tables(("email",)), written=seen.append)
    assert seen == sorted(set(seen))
    assert len(seen) > 2
    assert seen[-1] == len(data)


def test_what_a_source_raises_comes_through(tmp_path: Path) -> None:
    def broken() -> Any:
        yield users(1)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_parquet(broken(), tmp_path / "a", Tables())


def test_a_target_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_parquet([], tmp_path / "none" / "a", Tables())


some_lines = st.lists(st.text("ab{}", max_size=30).map(str.encode))


@given(some_lines, st.integers(1, 50), st.booleans())
def test_blocks_are_whole_lines(lines: list[bytes], size: int, ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    blocks = list(blocks_of(BytesIO(data), size))
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks[:-1])
    longest = max(map(len, lines), default=0)
    assert all(0 < len(block) <= size + longest + 1 for block in blocks)


@given(st.lists(some_lines), st.integers(1, 50))
def test_pieces_are_whole_lines_of_about_the_size(blocks: list[list[bytes]], size: int) -> None:
    given_blocks = [b"\n".join(lines) for lines in blocks]
    lines = [line for block in given_blocks for line in block.split(b"\n") if line]
    pieces = list(pieces_of(given_blocks, size))
    assert [line for piece in pieces for line in piece.split(b"\n") if line] == lines
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) >= size for piece in pieces[:-1])
    assert all(len(piece) <= 2 * size + 31 for piece in pieces)


def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_GROUP_BYTES", 4 * 1024 * 1024)
    tables = Tables()
    block = (FULL + b"\n") * 500

    def peak(times: int) -> int:
        before = pa.total_allocated_bytes()
        seen: list[int] = []

        def look(_: int) -> None:
            seen.append(pa.total_allocated_bytes() - before)

        write_parquet((block for _ in range(times)), tmp_path / "a", tables, written=look)
        return max(seen)

    assert peak(60) < 1.3 * peak(20)  # by then both threads have had their turns
