"""Profiles in tables, each once, whatever is killed. With DuckDB and files, for real."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from braze_export import BrazeError, InputError, JobStorageError
from braze_export.jobs.halting import Halted
from braze_export.jobs.tables import loading
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.loading import load
from braze_export.jobs.values import Table
from tests.lazily import Lazily
from tests.payloads import sample

duckdb: Any = Lazily("duckdb")

Mode = Literal["replace", "merge", "append"]
MODES: tuple[Mode, ...] = ("replace", "merge", "append")
#: One mode always, the others now and then.
SOMETIMES = [pytest.param(m, marks=() if m == "append" else pytest.mark.slow) for m in MODES]
FULL = json.dumps(json.loads(sample("user_superset_all_known_fields.json"))).encode()
TABLES = Tables(("email", "devices"))

# dlt and what it imports use what is deprecated in other packages.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:(dlt|sqlglot|semver).*")


@pytest.fixture(autouse=True)
def dlt_writes_nothing_elsewhere(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    yield
    assert list(home.iterdir()) == []


@pytest.fixture(autouse=True)
def no_host_is_talked_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any connection fails the test: in threads of dlt's, too, which tell nobody of errors."""
    tried: list[object] = []

    def connect(_: object, address: object) -> None:
        tried.append(address)
        raise OSError("no connections here")

    def look_up(*host: object, **_: object) -> None:
        tried.append(host)
        raise OSError("no look-ups here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    assert tried == []


def users(*numbers: int) -> bytes:
    return b"".join(b'{"external_id":"%d"}\n' % n for n in numbers)


def in_duckdb(tmp_path: Path, mode: Mode = "replace") -> Table:
    return Table(destination=f"duckdb:{tmp_path / 'db.duckdb'}", mode=mode)


def query(tmp_path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(tmp_path / "db.duckdb")) as connection:
        rows: list[tuple[Any, ...]] = connection.sql(sql).fetchall()
        return rows


def ids(tmp_path: Path) -> list[int | None]:
    found = query(tmp_path, "SELECT external_id FROM braze.profiles ORDER BY ALL NULLS LAST")
    return [None if text is None else int(text) for (text,) in found]


@pytest.mark.parametrize(
    ("mode", "after"),
    [
        ("replace", [2, 3]),
        ("merge", [1, 2, 3]),
        ("append", [1, 2, 2, 3]),
    ],
)
def test_a_second_job_replaces_merges_or_appends(
    tmp_path: Path, mode: Mode, after: list[int]
) -> None:
    load([users(1, 2)], TABLES, in_duckdb(tmp_path, mode), tmp_path / "first")
    load([users(2), users(3)], TABLES, in_duckdb(tmp_path, mode), tmp_path / "second")
    assert ids(tmp_path) == after


@pytest.mark.parametrize("mode", SOMETIMES)
def test_the_same_call_again_loads_nothing_again(tmp_path: Path, mode: Mode) -> None:
    table = in_duckdb(tmp_path, mode)
    for _ in range(3):
        load([users(1, 2)], TABLES, table, tmp_path / "work")
    (tmp_path / "work" / "round-0" / "done").unlink()  # as if killed just before
    load([users(1, 2)], TABLES, table, tmp_path / "work")
    assert ids(tmp_path) == [1, 2]


@pytest.mark.parametrize("mode", SOMETIMES)
def test_later_rounds_add_to_the_table(tmp_path: Path, mode: Mode) -> None:
    table = in_duckdb(tmp_path, mode)
    for number in (0, 1, 1, 2):
        load([users(number)], TABLES, table, tmp_path / "work", round=number)
    assert ids(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("mode", SOMETIMES)
def test_users_without_an_external_id_are_all_kept(tmp_path: Path, mode: Mode) -> None:
    block = b'{"email":"a"}\n{"email":"b"}\n' + users(1)
    load([block], TABLES, in_duckdb(tmp_path, mode), tmp_path / "work")
    assert ids(tmp_path) == [1, None, None]


def test_sql_reaches_nested_values_in_json(tmp_path: Path) -> None:
    load([FULL], Tables(None, "map"), in_duckdb(tmp_path), tmp_path / "work")
    sql = """
        SELECT total_revenue, devices->0->>'model', custom_attributes IS NOT NULL,
               epoch_us(created_at), campaigns_received->0->'engaged'->>'opened_email'
        FROM braze.profiles
    """
    assert query(tmp_path, sql) == [(65.0, "Pixel XL", True, 1594393200000000, "true")]


def test_a_job_without_profiles_makes_an_empty_table(tmp_path: Path) -> None:
    load([], TABLES, in_duckdb(tmp_path), tmp_path / "work")
    assert ids(tmp_path) == []


@pytest.mark.parametrize("mode", MODES)
def test_files_hold_each_row_once(tmp_path: Path, mode: Mode) -> None:
    table = Table(destination=f"filesystem:{tmp_path / 'lake'}", name="people", mode=mode)
    for _ in range(2):
        load([users(1, 2)], TABLES, table, tmp_path / "work")
    with duckdb.connect() as connection:
        found = connection.sql(
            f"SELECT external_id, devices FROM '{tmp_path}/lake/braze/people/*.parquet' ORDER BY 1"
        ).fetchall()
    assert found == [("1", None), ("2", None)]


def test_progress_counts_the_bytes_of_json(tmp_path: Path) -> None:
    seen: list[int] = []
    data = users(1, 2, 3)
    load([data], TABLES, in_duckdb(tmp_path), tmp_path / "work", written=seen.append)
    assert seen == [len(data)]


STEPS = ("extract", "normalize", "load")


@pytest.mark.parametrize("mode", SOMETIMES)
@pytest.mark.parametrize("step", STEPS)
def test_what_broke_off_before_a_step_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, mode: Mode
) -> None:
    table = in_duckdb(tmp_path, mode)
    with monkeypatch.context() as broken:
        break_before(broken, step)
        with pytest.raises(KeyboardInterrupt):
            load([users(1, 2)], TABLES, table, tmp_path / "work")
    load([users(1, 2)], TABLES, table, tmp_path / "work")
    assert ids(tmp_path) == [1, 2]


def break_before(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    from dlt.pipeline.pipeline import Pipeline  # noqa: PLC0415

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, step, interrupted)


#: Where a process is killed: just before, and just after, what moves the work on.
PLACES = (
    ("dlt.extract.storage:ExtractStorage.commit_new_load_package", "before"),
    ("dlt.extract.storage:ExtractStorage.commit_new_load_package", "after"),
    ("dlt.load.load:Load.start_new_jobs", "after"),
    ("dlt.common.storages.load_package:PackageStorage.complete_job", "before"),
    ("dlt.common.storages.load_package:PackageStorage.complete_job", "after"),
    ("dlt.common.storages.load_package:PackageStorage.complete_loading_package", "before"),
    ("dlt.common.storages.load_package:PackageStorage.complete_loading_package", "after"),
)
#: To dlt merge is as append. One moment is tried always, the rest now and then.
QUICK = (PLACES[4], "append")
KILLS = [
    pytest.param(*place, mode, marks=() if (place, mode) == QUICK else pytest.mark.slow)
    for mode in ("replace", "append")
    for place in PLACES
]
KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.loading import load
from braze_export.jobs.values import Table

target, when, mode, folder, number = sys.argv[1:]
room, _, names = target.partition(":")
owner, _, name = names.partition(".")
cls = getattr(importlib.import_module(room), owner)
real = getattr(cls, name)

def killed(*args, **kwargs):
    if when == "after":
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(cls, name, killed)
table = Table(destination=f"duckdb:{folder}/db.duckdb", mode=mode)
lines = b'{"external_id":"1"}\\n{"external_id":"2"}\\n'
load([lines], Tables(("email", "devices")), table, Path(folder, "work"), round=int(number))
"""


@pytest.mark.parametrize(("target", "when", "mode"), KILLS)
def test_a_killed_load_is_finished_with_each_row_once(
    tmp_path: Path, target: str, when: str, mode: Mode
) -> None:
    before = in_duckdb(tmp_path, mode)
    load([users(7)], TABLES, before, tmp_path / "earlier")
    arguments = [target, when, mode, str(tmp_path), "0"]
    env = {**os.environ, "PYTHONPATH": str(Path(loading.__file__).parents[3])}
    ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, env=env)
    assert ended.returncode == -signal.SIGKILL
    load([users(1, 2)], TABLES, in_duckdb(tmp_path, mode), tmp_path / "work")
    assert ids(tmp_path) == ([1, 2] if mode == "replace" else [1, 2, 7])


@pytest.mark.parametrize("destination", ["nosuch", "nosuch:x", "dataset", "bigquery:x", "duckdb:"])
def test_an_unknown_destination_is_told_with_those_known(tmp_path: Path, destination: str) -> None:
    with pytest.raises(InputError, match=r"duckdb:PATH, filesystem:URL.*bigquery.*postgres"):
        load([], TABLES, Table(destination=destination), tmp_path)


def test_a_destination_named_alone_has_its_place_from_the_settings_of_dlt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", f"duckdb:///{tmp_path / 'db.duckdb'}")
    load([users(1)], TABLES, Table(destination="duckdb"), tmp_path / "work")
    assert ids(tmp_path) == [1]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    table = Table(destination=f"duckdb:{tmp_path / 'none' / 'db.duckdb'}")
    with pytest.raises(InputError, match=r"there is no folder .*none for the database db.duckdb"):
        load([], TABLES, table, tmp_path / "work")


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "db.duckdb").write_text("something else" * 1000)
    with pytest.raises(InputError, match="not a valid DuckDB database"):
        load([users(1)], TABLES, in_duckdb(tmp_path), tmp_path / "work")


def test_a_locked_database_is_told_and_the_load_goes_on_later(tmp_path: Path) -> None:
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    file = str(tmp_path / "db.duckdb")
    with subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(InputError, match="Could not set lock on file"):
            load([users(1)], TABLES, in_duckdb(tmp_path), tmp_path / "work")
        other.stdin.write(b"\n")
    load([users(1)], TABLES, in_duckdb(tmp_path), tmp_path / "work")
    assert ids(tmp_path) == [1]


@pytest.mark.parametrize(
    ("raised", "kind"), [(OSError("the disk is gone"), JobStorageError), (Halted(), Halted)]
)
def test_what_the_source_raises_comes_through(
    tmp_path: Path, raised: Exception, kind: type[Exception]
) -> None:
    def broken() -> Iterator[bytes]:
        yield users(1)
        raise raised

    with pytest.raises(kind, match=f"^.*{raised}"):
        load(broken(), TABLES, in_duckdb(tmp_path), tmp_path / "work")
    load([users(1)], TABLES, in_duckdb(tmp_path), tmp_path / "work")
    assert ids(tmp_path) == [1]


def test_other_failures_quote_no_profile(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield users(1)
        raise RuntimeError("jane@example.com")

    with pytest.raises(BrazeError, match=r"RuntimeError in its step 'extract'") as caught:
        load(broken(), TABLES, in_duckdb(tmp_path), tmp_path / "work")
    assert "jane" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_dlt_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlt", None)
    with pytest.raises(InputError, match=r'pip install "braze-export\[dlt\]"'):
        load([], TABLES, in_duckdb(tmp_path), tmp_path / "work")


def test_nothing_is_printed_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    table = Table(destination=f"filesystem:{tmp_path / 'lake'}", mode="merge")
    load([users(1)], TABLES, table, tmp_path / "work")
    load([users(1)], TABLES, in_duckdb(tmp_path), tmp_path / "work2")
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_telemetry_is_off(tmp_path: Path) -> None:
    from dlt.common.runtime import anon_tracker  # noqa: PLC0415

    load([users(1)], TABLES, in_duckdb(tmp_path), tmp_path / "work")
    assert anon_tracker._ANON_TRACKER_ENDPOINT is None
