import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from braze_export.errors import JobChangedError, JobRunningError, JobStorageError
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.machine import start_of_machine
from tests.jobs.conftest import remount_read_only

DONE = Record(watermark=3, beyond=(5, 9), done=40, files={"profiles": 9})
HOLDING = """
import sys, time
from pathlib import Path
from braze_export.jobs.journal import Journal, Record
journal = Journal(Path(sys.argv[1]))
journal.begin({"kind": "email"}, {})
journal.record(Record(done=7))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def records(path: Path) -> list[Record]:
    with Journal(path) as journal:
        return list(journal.records())


def change(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


def test_a_new_journal_holds_nothing(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.definition is None
        assert list(journal.records()) == []


def test_what_is_recorded_is_there_the_next_time(path: Path) -> None:
    with Journal(path) as journal:
        assert journal.begin({"kind": "email", "fields": ["a"]}, {}) == Record()
        journal.record(DONE)
    with Journal(path) as journal:
        assert journal.definition == {"kind": "email", "fields": ["a"]}
        assert list(journal.records()) == [DONE, Record()]


def test_the_safe_record_is_kept_apart(path: Path) -> None:
    later = Record(done=50)
    with Journal(path) as journal:
        journal.begin({}, {})
        journal.record_safely(DONE)
        journal.record(later)
    assert records(path) == [later, DONE]


def test_a_job_that_begins_forgets_the_one_before(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin({"kind": "email"}, {"source": "a"})
        journal.record_safely(DONE)
        journal.begin({"kind": "phone"}, {})
        assert journal.definition == {"kind": "phone"}
        assert list(journal.records()) == [Record(), Record()]


def test_a_journal_may_be_removed_while_it_is_held(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin({}, {})
        journal.settle()
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        with pytest.raises(JobRunningError):
            Journal(path)
        path.unlink()
        Journal(path).close()  # another run's by now
    assert path.exists()


def test_one_run_at_a_time(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin({}, {})
        with pytest.raises(JobRunningError, match="another run is at work"):
            Journal(path)
        journal.record(DONE)  # and the first is not disturbed
    assert records(path)[0] == DONE


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_of_another_process_is_seen_until_it_dies(path: Path, end: int) -> None:
    command = [sys.executable, "-c", HOLDING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(JobRunningError):
            Journal(path)
        os.kill(other.pid, end)
    assert records(path)[0] == Record(done=7)


def test_a_record_that_fails_leaves_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(path) as journal:
        journal.begin({}, {})
        journal.record_safely(DONE)
        put = Journal._put

        def fail_at_the_second(self: Journal, which: int, record: Record) -> None:
            if which:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise error
            put(self, which, record)

        monkeypatch.setattr(Journal, "_put", fail_at_the_second)
        with pytest.raises(JobStorageError, match="disk I/O error"):
            journal.record_safely(Record(done=99))
    monkeypatch.undo()
    assert records(path) == [DONE, DONE]


def test_a_journal_of_another_version_is_left_alone(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin({}, {})
    change(path, "UPDATE job SET value = '2' WHERE name = 'version'")
    before = path.read_bytes()
    with pytest.raises(JobChangedError, match="another version"):
        Journal(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"no journal at all", b"\0" * 5000, b"SQLite format 3\0" * 400]
)
def test_a_file_that_is_no_journal_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JobChangedError, match=r"cannot be read as the journal"):
        Journal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE record SET body = ?", b"{"),
        ("UPDATE record SET body = ?", b'{"done":"many"}'),
        ("UPDATE record SET body = ?", None),
        ("UPDATE job SET value = ? WHERE name = 'definition'", b"["),
        ("UPDATE job SET value = ? WHERE name = 'definition'", 7),
    ],
)
def test_rows_that_cannot_be_read_are_said_to_be_so(
    path: Path, statement: str, value: object
) -> None:
    with Journal(path) as journal:
        journal.begin({}, {})
    change(path, statement, value)
    with Journal(path) as journal, pytest.raises(JobChangedError, match="cannot be read"):
        assert journal.definition == {}
        list(journal.records())


def test_pages_that_were_overwritten_are_said_to_be_so(path: Path) -> None:
    with Journal(path) as journal:
        journal.begin({}, {})
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(JobChangedError, match="cannot be read"), Journal(path) as journal:
        assert journal.definition == {}
        list(journal.records())


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(JobStorageError, match="unable to open"):
        Journal(path)


def test_a_directory_that_is_not_there(path: Path) -> None:
    with pytest.raises(JobStorageError, match="unable to open"):
        Journal(path / "journal.sqlite")


def test_a_full_disk(small_disk: Path) -> None:
    path = small_disk / "journal.sqlite"
    with Journal(path) as journal:
        journal.begin({}, {})
        journal.record_safely(DONE)
        (small_disk / "filler").write_bytes(bytes(4096 * 4))
        with pytest.raises(JobStorageError, match="full"):
            for done in range(1000):
                journal.record(Record(done=done, beyond=tuple(range(2000))))
        (small_disk / "filler").unlink()
        now, safe = journal.records()
        assert safe == DONE
        journal.record(DONE)  # there is room again
    assert records(path) == [DONE, DONE]
    assert now.done >= 0


def test_a_full_disk_at_the_very_beginning(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):  # noqa: PT011
        while True:
            filler.write(bytes(4096))
    with pytest.raises(JobStorageError):
        Journal(small_disk / "journal.sqlite")


def test_a_read_only_disk(small_disk: Path) -> None:
    path = small_disk / "journal.sqlite"
    with Journal(path) as journal:
        journal.begin({}, {})
    remount_read_only(small_disk)
    with pytest.raises(JobStorageError, match="read"):
        Journal(path)


def test_after_a_restart_of_the_machine_only_what_was_synced_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = Record(done=50)
    with Journal(path) as journal:
        journal.begin({}, {})
        journal.record_safely(safe)
        journal.record(Record(done=100))
    assert [record.done for record in records(path)] == [100, 50]
    monkeypatch.setattr("braze_export.jobs.journal.start_of_machine", lambda: "another")
    assert records(path) == [safe]


def test_a_start_of_the_machine_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = start_of_machine()
    assert name
    assert start_of_machine() == name
    monkeypatch.setattr("braze_export.jobs.machine._BOOT_ID", tmp_path / "none")
    start_of_machine.cache_clear()
    assert "minutes" in start_of_machine()
    start_of_machine.cache_clear()
