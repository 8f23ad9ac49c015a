"""The middle of a job: its input counted, and what it names asked for and written."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import Factory, define, field

from braze_export.client import BrazeClient
from braze_export.errors import JobChangedError
from braze_export.jobs.accounting import Settler
from braze_export.jobs.beginning import Found
from braze_export.jobs.halting import Halting, to_its_end
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.order import Order
from braze_export.jobs.reading.inputs import Reader, open_input
from braze_export.jobs.reading.repeats import Repeated, Repeats
from braze_export.jobs.recorder import FAILED, PROFILES, UNKNOWN, Recorder
from braze_export.jobs.run import Run
from braze_export.jobs.slices import Count, Source, counted, slices
from braze_export.jobs.staging import Staged, told
from braze_export.jobs.values import Input
from braze_export.jobs.verdicts import Judge
from braze_export.jobs.watching import Watch, ended
from braze_export.tasks import surely

_FILES: Final = (PROFILES, UNKNOWN, FAILED)


@define
class Exporting:
    """Asks for everything that is not written yet.

    Attributes:
        client: sends the requests.
        order: what is to be done.
        watch: sees how far it is.
        stop: once set, it ends in good order.
        journal: is told what is written.
        blank: rows of the input without an identifier.
        reasons: of failures.
    """

    client: BrazeClient
    order: Order
    watch: Watch
    stop: asyncio.Event
    journal: Journal
    blank: int = field(init=False, default=0)
    reasons: Mapping[str, int] = field(init=False, default=Factory(dict))
    _cancelled: asyncio.Event = field(init=False, default=Factory(asyncio.Event))

    async def export(self, found: Found) -> Record:
        """Ask for what is not written, and return what is, then.

        Raises:
            BrazeError: the job must end; what had come is written.
        """
        before = await asyncio.to_thread(_state, found.source.path)
        repeated = await to_its_end(lambda: self._count(found.source), self._cancelled.set)
        if self.stop.is_set():
            return found.record
        self.watch.phase = "exporting"
        files = {name: Staged(self.order.places.staged(name)) for name in _FILES}
        order = self.order
        recorder = Recorder(
            self.journal, files, order.codec, found.record, self.watch.saw, order.ordered
        )
        readers: list[Reader] = []
        try:
            await to_its_end(lambda: readers.append(open_input(found.source, order.kind.name)))
            await to_its_end(lambda: _open(files, found.record))
            await self._run(readers[0], repeated, recorder)
            await to_its_end(recorder.sync)
            if not self.stop.is_set():
                await asyncio.to_thread(self._check_input, found.source.path, before)
        finally:
            self.reasons = recorder.reasons
            self.blank = sum(reader.blank for reader in readers)
            await surely(lambda: _close(*readers, *files.values()))
        return recorder.record

    def _count(self, source: Input) -> Repeated:
        """Read the input once, to know how much it holds and what of it is repeated."""
        count, repeats = Count(), Repeats(self.order.places.folder)
        reader = open_input(source, self.order.kind.name)
        try:
            with told(self.order.places.folder):
                counted(reader, count, repeats.add, self._stopped)
                found = repeats.seal()
        finally:
            reader.close()
            repeats.close()
        if not self.stop.is_set():
            self.watch.total = found.count + count.unusable
            self.watch.repeated = found.repeats
        return found

    def _check_input(self, path: Path, before: tuple[int, int]) -> None:
        """Look whether what was counted at the beginning is what was asked for."""
        record = self.watch.record
        short = not record.round and record.done != self.watch.total
        if short or _state(path) != before:
            raise JobChangedError(
                f"{path} was changed while the job ran, so that identifiers may be lacking or "
                "repeated: start over (fresh)"
            )

    def _stopped(self) -> bool:
        return self.stop.is_set() or self._cancelled.is_set()

    async def _run(self, reader: Reader, repeated: Repeated, recorder: Recorder) -> None:
        order, record = self.order, recorder.record
        gate = Halting(self.client.limits)
        narrower = self.client.users.lookup(
            order.shape.fields, self.watch.stats, through=lambda _: gate
        )
        # What is tried again was refused alone, among others that were not.
        judge = Judge(order.patience, accepted=record.round + record.profiles + record.unknown > 0)
        self.watch.judge = judge
        pieces = slices(reader.blocks(), order.kind, repeated.filter())
        run = Run(
            Source(pieces, record.watermark, frozenset(record.beyond)),
            Settler(narrower.outcome),
            recorder,
            judge,
            gate,
            order.concurrency,
        )
        halt = asyncio.create_task(self._halt(run))
        try:
            await run.all()
        finally:
            await ended(halt)

    async def _halt(self, run: Run) -> None:
        await self.stop.wait()
        run.halt()


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _open(files: Mapping[str, Staged], record: Record) -> None:
    for name, file in files.items():
        file.open(record.files.get(name, 0))


def _close(*opened: Reader | Staged) -> None:
    for file in opened:
        file.close()
