"""What becomes of slices, into the files and the journal: recorded in groups, as they come.

Whoever writes waits until it is recorded, so that what would be asked again after a crash is
never more than what is under way.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec
from attrs import Factory, define, field, frozen

from braze_export._json import one_line, writable
from braze_export.batches.narrowing import Outcome
from braze_export.jobs.halting import Halted
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.kinds import as_text
from braze_export.jobs.reading.compression import Codec, Plain
from braze_export.jobs.slices import Slice
from braze_export.jobs.staging import Piece, Staged
from braze_export.jobs.values import NOT_ASKED

PROFILES, UNKNOWN, FAILED = "profiles", "unknown", "failed"

_SYNCED_EVERY: Final = 10.0  # seconds: what a machine that dies may cost


@frozen
class Settled:
    """A slice, and what became of it."""

    piece: Slice
    outcome: Outcome

    @property
    def failures(self) -> int:
        """How many of its identifiers failed."""
        return len(self.piece.unusable) + sum(len(f.identifiers) for f in self.outcome.failed)

    @property
    def size(self) -> int:
        """How many identifiers it holds."""
        batch = self.piece.batch
        return len(self.piece.unusable) + (len(batch.identifiers) if batch else 0)

    def reasons(self) -> Counter[str]:
        """Return how often identifiers failed for which reason, without personal data."""
        found = Counter({NOT_ASKED: len(self.piece.unusable)})
        for failure in self.outcome.failed:
            found[reason(failure.error)] += len(failure.identifiers)
        return +found


def reason(error: BaseException) -> str:
    """Name an error without its message."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__


def profile_lines(outcomes: Iterable[Outcome]) -> list[Piece]:
    """Return profiles as the pieces of NDJSON, as they were sent but for line breaks in them."""
    users: list[Piece] = []
    for outcome in outcomes:
        users += map(one_line, map(bytes, outcome.users)) if outcome.broken else outcome.users
    lines: list[Piece] = [b"\n"] * (2 * len(users))
    lines[::2] = users
    return lines


def unknown_lines(outcome: Outcome) -> bytes:
    """Return the identifiers that Braze does not know, one a line."""
    names = (as_text(unknown.identifier) for unknown in outcome.invalid)
    return "".join(f"{name}\n" for name in names).encode()


def failed_lines(settled: Settled) -> bytes:
    """Return the identifiers that failed and why, as NDJSON; ``row`` marks what is none."""
    lines = [
        {"identifier": writable(as_text(i)), "error": writable(str(failure.error))}
        for failure in settled.outcome.failed
        for i in failure.identifiers
    ]
    rows = [
        {"identifier": writable(item.text), "error": writable(item.reason), "row": True}
        for item in settled.piece.unusable
    ]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in [*lines, *rows])


def after(record: Record, group: Iterable[Settled], size: int) -> Record:
    """Return the record once a group of slices is written; its files aside. Pure."""
    beyond = set(record.beyond)
    done, profiles, unknown, failed = record.done, record.profiles, record.unknown, record.failed
    for settled in group:
        beyond.add(settled.piece.number)
        done += settled.size
        profiles += len(settled.outcome.users)
        unknown += len(settled.outcome.invalid)
        failed += settled.failures
    watermark = record.watermark
    while watermark in beyond:
        beyond.remove(watermark)
        watermark += 1
    return msgspec.structs.replace(
        record,
        watermark=watermark,
        beyond=tuple(sorted(beyond)),
        done=done,
        profiles=profiles,
        unknown=unknown,
        failed=failed,
        bytes=record.bytes + size,
    )


def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "braze_export recorder")


@define
class Recorder:
    """Writes what becomes of slices.

    Attributes:
        journal: is told.
        files: of profiles, unknown and failed identifiers.
        codec: of the profiles.
        record: what is recorded so far.
        recorded: is told of each new record.
        ordered: write slices in the order of the input.
        reasons: of the failures of this run.
    """

    journal: Journal
    files: Mapping[str, Staged]
    codec: Codec
    record: Record
    recorded: Callable[[Record], object]
    ordered: bool = False
    reasons: Counter[str] = Factory(Counter)
    _waiting: deque[tuple[Settled, asyncio.Future[None]]] = field(factory=deque, init=False)
    _thread: ThreadPoolExecutor = field(factory=_thread, init=False)
    _writing: asyncio.Task[None] | None = field(default=None, init=False)
    _released: bool = field(default=False, init=False)
    _synced: float = field(factory=time.monotonic, init=False)

    async def write(self, settled: Settled) -> None:
        """Record what became of a slice. Returns when it is.

        Raises:
            JobStorageError: it cannot be written; nothing of it is.
            Halted: it is not its turn, and never will be.
        """
        recorded = asyncio.get_running_loop().create_future()
        self._waiting.append((settled, recorded))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await recorded

    def release(self) -> None:
        """Let those go who wait for slices before theirs, of which nothing will come any more.

        They get ``Halted``, once what can be recorded is.
        """
        self._released = True
        if self._writing is None:
            self._let_go()

    async def aclose(self) -> None:
        """Wait until what was to be recorded is."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
        self._thread.shutdown(wait=False)

    async def _write_all(self) -> None:
        try:
            while due := self._due():
                await self._write_group(due)
        finally:
            self._writing = None
            if self._released:
                self._let_go()

    def _let_go(self) -> None:
        while self._waiting:
            _, recorded = self._waiting.popleft()
            if not recorded.done():
                recorded.set_exception(Halted())

    async def _write_group(self, due: list[tuple[Settled, asyncio.Future[None]]]) -> None:
        try:
            settled = [settled for settled, _ in due]
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self.write_now, settled)
        except Exception as error:  # noqa: BLE001 - each who waits is to know
            for _, recorded in due:
                if not recorded.done():
                    recorded.set_exception(error)
            return
        for _, recorded in due:
            if not recorded.done():
                recorded.set_result(None)

    def _due(self) -> list[tuple[Settled, asyncio.Future[None]]]:
        """Take what can be written now."""
        if not self.ordered:
            due = list(self._waiting)
            self._waiting.clear()
            return due
        due, next_one = [], self.record.watermark
        for waiting in sorted(self._waiting, key=lambda pair: pair[0].piece.number):
            if waiting[0].piece.number == next_one:
                due.append(waiting)
                next_one += 1
        for waiting in due:
            self._waiting.remove(waiting)
        return due

    def write_now(self, group: list[Settled]) -> None:
        """Record a group of slices, all or none. Blocks.

        Raises:
            JobStorageError: it cannot be written.
        """
        before = {name: file.length for name, file in self.files.items()}
        lines = profile_lines(settled.outcome for settled in group)
        pieces: dict[str, Sequence[Piece]] = {
            PROFILES: lines if isinstance(self.codec, Plain) else self._packed(lines),
            UNKNOWN: [unknown_lines(settled.outcome) for settled in group],
            FAILED: [failed_lines(settled) for settled in group if settled.failures],
        }
        try:
            for name, written in pieces.items():
                self.files[name].append(written)
            self._record(after(self.record, group, sum(map(len, lines))))
        except BaseException:
            for name, length in before.items():
                self.files[name].back_to(length)
            raise
        for settled in group:
            self.reasons += settled.reasons() if settled.failures else Counter()

    def sync(self) -> None:
        """Have everything on the disk itself, and recorded so. Blocks.

        Raises:
            JobStorageError: it cannot be brought there.
        """
        for file in self.files.values():
            file.sync()
        self.record = self._with_files(self.record)
        self.journal.record_safely(self.record)
        self._synced = time.monotonic()
        self.recorded(self.record)

    def _record(self, record: Record) -> None:
        record = self._with_files(record)
        if time.monotonic() - self._synced < _SYNCED_EVERY:
            self.journal.record(record)
            self.record = record
            self.recorded(record)
        else:
            before, self.record = self.record, record
            try:
                self.sync()
            except BaseException:
                self.record = before
                raise

    def _with_files(self, record: Record) -> Record:
        files = {name: file.length for name, file in self.files.items()}
        return msgspec.structs.replace(record, files=files)

    def _packed(self, lines: Sequence[Piece]) -> list[bytes]:
        return [self.codec.compress(b"".join(lines))] if lines else []
