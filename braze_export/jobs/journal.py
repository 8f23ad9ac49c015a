"""The journal of a job: what it is, and what of it is written. A SQLite file; it blocks.

One run holds it at a time: the lock is the operating system's, and ends with the process. The
record is one row, replaced as a whole, so that a process that is killed at any moment leaves
either what was before or what is after. Beside it lies the last record whose files were known
to be on the disk itself: for when the machine, not the process, has died.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from braze_export.errors import JobChangedError, JobRunningError, JobStorageError
from braze_export.jobs.machine import start_of_machine

_VERSION: Final = 1
_PATIENCE: Final = 0.2  # seconds: of two that begin at the same moment one is to get it
_NOW, _SAFE = 0, 1
_JOB: Final = "job (name TEXT PRIMARY KEY, value)"
_RECORD: Final = "record (id INTEGER PRIMARY KEY, body, machine)"

Stage = Literal["exporting", "finishing", "finished"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What of a job is written.

    Attributes:
        round: 0 for the job itself, then 1 for each time that what failed is tried again.
        stage: ``exporting``, ``finishing`` (files get their names), ``finished``.
        watermark: all slices below this number are written.
        beyond: slices above it that are written as well.
        done: identifiers in one of the three places.
        profiles: rows.
        unknown: identifiers that Braze does not know.
        failed: identifiers that failed.
        bytes: of all profiles, as JSON.
        files: how many bytes of each file belong to this record.
        carried: of those that failed, in this round nobody is asked for: rows without identifier.
        bases: bytes of the finished files before this round, which adds to them.
        targets: the paths that the files get, from ``finishing`` on.
    """

    round: int = 0
    stage: Stage = "exporting"
    watermark: int = 0
    beyond: tuple[int, ...] = ()
    done: int = 0
    profiles: int = 0
    unknown: int = 0
    failed: int = 0
    bytes: int = 0
    files: dict[str, int] = {}
    carried: int = 0
    bases: dict[str, int] = {}
    targets: dict[str, str] = {}


class Journal:
    """The journal, open and locked.

    Args:
        path: of the file; made if there is none.

    Raises:
        JobRunningError: another run has it.
        JobChangedError: the file is no journal, or one of another version.
        JobStorageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.RLock()
        with _told(path):
            # Used by one thread at a time, but not always by the same.
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=_PATIENCE, check_same_thread=False
            )
        try:
            with _told(path):
                self._lock()
                self._make()
            self._check_version()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give it up. Blocks."""
        # A full disk, say: what is recorded is recorded.
        with self._guard, suppress(sqlite3.Error):
            self._db.close()

    def settle(self) -> None:
        """Leave nothing beside the file itself, so that it may be removed while it is held."""
        with self._alone():
            self._db.execute("PRAGMA journal_mode = MEMORY")

    @property
    def definition(self) -> dict[str, Any] | None:
        """What the job is, ``None`` if it has not begun."""
        with self._alone():
            row = self._db.execute("SELECT value FROM job WHERE name = 'definition'").fetchone()
            return None if row is None else msgspec.json.decode(row[0], type=dict[str, Any])

    def records(self) -> Iterator[Record]:
        """Yield the records to go on from: the last one, and the last one that is safe.

        The last one only while the machine still runs on which it was made.
        """
        now, safe = map(self._recorded, (_NOW, _SAFE))
        if now is not None:
            yield now
        if safe is not None:
            yield safe

    def _recorded(self, which: int) -> Record | None:
        with self._alone():
            statement = "SELECT body, machine FROM record WHERE id = ?"
            row = self._db.execute(statement, (which,)).fetchone()
            if row is None or (which == _NOW and row[1] != start_of_machine()):
                return None
            return msgspec.json.decode(row[0], type=Record)

    def begin(self, definition: Mapping[str, Any], notes: Mapping[str, Any]) -> Record:
        """Forget what there was, and begin a job.

        Args:
            definition: what makes it this job and no other.
            notes: what is worth knowing of it beside.
        """
        record = Record()
        with self._transaction():
            self._db.execute("DELETE FROM job WHERE name != 'version'")
            self._db.execute("DELETE FROM record")
            for name, value in (("definition", definition), ("notes", notes)):
                row = (name, msgspec.json.encode(value))
                self._db.execute("INSERT INTO job VALUES (?, ?)", row)
            self._put(_NOW, record)
            self._put(_SAFE, record)
        return record

    def record(self, record: Record) -> None:
        """Replace the record: it outlives this process.

        Raises:
            JobStorageError: it cannot be written.
        """
        with self._alone():  # a statement alone is a transaction of its own
            self._put(_NOW, record)

    def record_safely(self, record: Record) -> None:
        """Replace both records: they outlive the machine. The files must be on the disk already.

        Raises:
            JobStorageError: it cannot be written.
        """
        with self._alone():
            self._db.execute("PRAGMA synchronous = FULL")
            try:
                with self._transaction():
                    self._put(_NOW, record)
                    self._put(_SAFE, record)
            finally:
                self._db.execute("PRAGMA synchronous = NORMAL")

    def _put(self, which: int, record: Record) -> None:
        body = msgspec.json.encode(record)
        row = (which, body, start_of_machine())
        self._db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", row)

    def _lock(self) -> None:
        # Set before the journal mode: no file for sharing is made then, and the lock is kept.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("COMMIT")

    def _make(self) -> None:
        with self._transaction():
            for columns in (_JOB, _RECORD):
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {columns}")
            self._db.execute("INSERT OR IGNORE INTO job VALUES ('version', ?)", (str(_VERSION),))

    def _check_version(self) -> None:
        row = self._db.execute("SELECT value FROM job WHERE name = 'version'").fetchone()
        if row is not None and row[0] != str(_VERSION):
            raise JobChangedError(
                f"{self.path} was written by another version of this program: go on with that one, "
                "or start over (fresh)"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Closing a connection that another thread is using ends the process: who is cancelled
        # twice may do so.
        with self._guard, _told(self.path):
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._alone():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Have SQLite's errors raised as ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise JobRunningError(
                f"another run is at work on this job (it holds {path}): wait until it ends, or "
                "name another output"
            ) from None
        raise JobStorageError(
            f"{path}: {error}. What is recorded is kept: make room or choose a place that can be "
            "written, and run the same again to go on"
        ) from error
    except (sqlite3.DatabaseError, msgspec.MsgspecError, TypeError) as error:
        raise JobChangedError(
            f"{path} cannot be read as the journal of a job ({error}): name another output, or "
            "start over (fresh)"
        ) from error
