"""A job from its first line to its last: found or begun, exported, finished, reported."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from attrs import Factory, define, field

from braze_export.client import BrazeClient
from braze_export.errors import BrazeError, JobChangedError, JobError
from braze_export.jobs.beginning import find
from braze_export.jobs.exporting import Exporting
from braze_export.jobs.finishing import Finisher
from braze_export.jobs.halting import Halted, check_stop, to_its_end
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.order import Order, order
from braze_export.jobs.recorder import FAILED, UNKNOWN
from braze_export.jobs.spooling import drop
from braze_export.jobs.staging import told
from braze_export.jobs.values import CustomAttributes, Input, JobReport, Table
from braze_export.jobs.watching import Hook, Watch, ended
from braze_export.tasks import surely, tell
from braze_export.validators import check_class, check_hook, check_interval


async def export_ids(
    client: BrazeClient,
    source: str | Path | Input,
    output: str | Path | Table,
    *,
    kind: str = "external_id",
    fields: Iterable[str] | None = None,
    custom_attributes: CustomAttributes = "json",
    unknown: str | Path | None = None,
    failed: str | Path | None = None,
    concurrency: int = 32,
    ordered: bool = False,
    patience: float = 900.0,
    fresh: bool = False,
    retry_failed: bool = False,
    on_progress: Hook | None = None,
    progress_every: float = 1.0,
    stop: asyncio.Event | None = None,
) -> JobReport:
    """Export the users whose identifiers are in a file, into a file or a table.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier

    Each identifier of the input, repeated ones left out, ends up in one of three places: its
    profile in the output, or itself in the file of unknown or of failed ones. What is done is
    recorded in ``OUTPUT.job``: when this is called again after whatever has ended it, it goes
    on where it was. A job that has finished begins anew.

    Args:
        client: sends the requests, within its limits.
        source: the input: a file, by its name CSV, NDJSON, Parquet or lines, or ``Input`` for
            one that needs more words. A pipe is copied first; ``-`` is standard input.
        output: a file: ``.parquet``, else NDJSON, packed where it ends in ``.gz`` or ``.zst``; or
            a ``Table``. It has its name once it is whole.
        kind: what the identifiers are: ``external_id``, ``braze_id``, ``device_id``, ``email``,
            ``phone`` or ``alias:LABEL``.
        fields: what to export; everything if not given. Of external ids and aliases the field
            that holds them is always exported.
        custom_attributes: in columns as ``json`` text, or as a ``map`` of names to JSON.
        unknown: the file of unknown identifiers; ``OUTPUT-STEM.unknown.txt`` if not given.
        failed: the file of failed ones; ``OUTPUT-STEM.failed.ndjson`` if not given.
        concurrency: requests under way at once.
        ordered: keep the order of the input, request by request.
        patience: seconds without any answer after which the job ends, to be gone on with later.
        fresh: start over, whatever there is of the job.
        retry_failed: ask once more for what failed in the finished job, and add what comes.
        on_progress: a function, plain or async, that is told now and then. What it raises ends the
            job in good order. A plain one must return at once.
        progress_every: seconds between two calls of it.
        stop: once set, nothing more is sent, and what was sent is waited for and recorded.

    Returns:
        What came of it. ``complete`` is false if it was stopped.

    Raises:
        InputError: an argument, or the input, that cannot be used.
        JobChangedError: an unfinished job is there that is another, or has lost its files.
        JobRunningError: another run is at work on the job.
        JobStorageError: a file cannot be written.
        AuthenticationError, PermissionDeniedError: the key was refused.
        TransportError, APIError: nothing came through, from the beginning or for ``patience``.
    """
    check_class(client, BrazeClient, "client")
    check_hook(on_progress)
    check_interval(progress_every, "progress_every")
    check_stop(stop)
    made = await asyncio.to_thread(
        order,
        source,
        output,
        kind=kind,
        fields=fields if fields is None or isinstance(fields, str) else tuple(fields),
        custom_attributes=custom_attributes,
        unknown=unknown,
        failed=failed,
        concurrency=concurrency,
        ordered=ordered,
        patience=patience,
        fresh=fresh,
        retry_failed=retry_failed,
    )
    watch = Watch(client.limits.snapshot, asyncio.get_running_loop().time)
    job = Job(client, made, watch, stop or asyncio.Event())
    return await job.watched(on_progress, progress_every)


@define
class Job:
    """One run of a job.

    Attributes:
        client: sends the requests.
        order: what is to be done.
        watch: sees how far it is.
        stop: the caller's: once set, the run ends in good order.
    """

    client: BrazeClient
    order: Order
    watch: Watch
    stop: asyncio.Event
    _blank: int = field(init=False, default=0)
    _ending: asyncio.Event = field(init=False, default=Factory(asyncio.Event))  # our own
    _cancelled: asyncio.Event = field(init=False, default=Factory(asyncio.Event))
    _reasons: Mapping[str, int] = field(init=False, default=Factory(dict))

    async def watched(self, hook: Hook | None, every: float) -> JobReport:
        """Run, and tell a hook how far it is."""
        if self.stop.is_set():
            self._ending.set()
        stopping = asyncio.create_task(self._stop())
        run = asyncio.create_task(self.run())
        show = asyncio.create_task(self.watch.show(hook, every))
        try:
            await asyncio.wait({run, show}, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():  # the hook has raised
                self._ending.set()
            report = await run
        except asyncio.CancelledError:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            raise
        finally:
            stopping.cancel()
            await ended(show)
        await tell(hook, self.watch.reading())
        return report

    async def _stop(self) -> None:
        await self.stop.wait()
        self._ending.set()

    async def run(self) -> JobReport:
        """Do everything there is to do."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._journal))
        try:
            journal = await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(BrazeError):
                await surely(partial(self._leave, await opening))
            raise
        try:
            return await self._with(journal)
        except BrazeError as error:
            if not isinstance(error, JobError) and self.watch.record.done:
                error.add_note(self._how_to_go_on())
            raise
        finally:
            await surely(lambda: self._leave(journal))

    def _journal(self) -> Journal:
        folder = self.order.places.folder
        with told(folder):
            folder.mkdir(exist_ok=True)
            os.utime(folder)  # says why, where nothing can be written; SQLite would not
        path = self.order.places.journal
        try:
            return Journal(path)
        except JobChangedError:  # and nobody holds it
            if not self.order.fresh:
                raise
        with told(path):
            for file in folder.glob(f"{path.name}*"):
                file.unlink(missing_ok=True)
        return Journal(path)

    def _leave(self, journal: Journal) -> None:
        try:
            drop(self.order.places)
            if self._is_blank(journal):  # leave no trace of what came to nothing
                journal.settle()
                # While it is held, else it might be another run's by then. Windows removes nothing
                # that is open: there it stays.
                with suppress(PermissionError):
                    self.order.places.abandon()
        except (OSError, BrazeError):
            return  # whatever is amiss has been told
        finally:
            journal.close()

    def _is_blank(self, journal: Journal) -> bool:
        last = next(journal.records(), Record())
        begun = last.done or last.round or last.stage != "exporting"
        return not begun and not self.order.places.spooled.exists()

    async def _with(self, journal: Journal) -> JobReport:
        try:
            found = await find(journal, self.order, self.client, self._ending)
        except Halted:
            last = await asyncio.to_thread(lambda: next(journal.records(), Record()))
            self.watch.going_on(last)
            return self._report(last)
        record = found.record
        self.watch.going_on(record)
        if record.stage == "exporting":
            exporting = Exporting(self.client, self.order, self.watch, self._ending, journal)
            record = await exporting.export(found)
            self._blank, self._reasons = exporting.blank, exporting.reasons
        if record.stage == "finishing" or not self._ending.is_set():
            record = await self._finished(journal, record)
        return self._report(record)

    async def _finished(self, journal: Journal, record: Record) -> Record:
        order, watch = self.order, self.watch
        watch.phase = "writing"
        finisher = Finisher(
            journal=journal, places=order.places, shape=order.shape, written=self._wrote
        )
        try:
            record = await to_its_end(lambda: finisher.finish(record), self._cancelled.set)
        except Halted:
            return record  # this much can be done anew
        watch.saw(record)
        watch.phase = "done"
        return record

    def _wrote(self, size: int) -> None:
        self.watch.wrote(size)
        if self._ending.is_set() or self._cancelled.is_set():
            raise Halted

    def _report(self, record: Record) -> JobReport:
        watch, places = self.watch, self.order.places
        watch.note()
        reading = watch.reading()
        pool = reading.pool
        begun = min(self.order.concurrency, watch.stats.requests - watch.stats.retries)
        return JobReport(
            complete=record.stage == "finished",
            source=str(self.order.source.path),
            output=places.shown,
            unknown_file=_named(record.targets.get(UNKNOWN), places.unknown),
            failed_file=_named(record.targets.get(FAILED), places.failed),
            total=record.done if watch.whole is None else watch.whole,
            done=record.done,
            profiles=record.profiles,
            unknown=record.unknown,
            failed=record.failed,
            repeated=watch.repeated,
            blank=self._blank,
            already=watch.already,
            requests=reading.requests,
            retries=reading.retries,
            rate_limited=reading.rate_limited,
            seconds=watch.elapsed,
            seconds_waited=pool.surely_waited(begun) if pool else 0.0,
            reasons=self._reasons,
            course=watch.course.moments,
        )

    def _how_to_go_on(self) -> str:
        record, total = self.watch.record, self.watch.whole
        of = "" if total is None else f" of {total:,}"
        return f"{record.done:,}{of} identifiers are done and kept. Run the same again to go on."


def _named(target: str | None, given: Path) -> Path:
    """Return a file as it was named, unless an earlier run had been given another for it."""
    return given if target in {None, str(given.absolute())} else Path(str(target))
