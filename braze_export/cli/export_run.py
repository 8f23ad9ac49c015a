"""One run of a command that exports a segment or the control group."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal

import msgspec
import rich_click as click
from attrs import Factory, define, field, frozen
from click import get_current_context
from click.exceptions import ClickException, Exit
from rich.filesize import decimal

from braze_export import (
    ArchiveError,
    BrazeClient,
    BrazeError,
    DecodeError,
    ExportExpiredError,
    ExportJob,
    ExportSettings,
    TransportError,
)
from braze_export.cli.connection import Connection
from braze_export.cli.failures import SOME_FAILED, logged
from braze_export.cli.options import check_different, check_lines, names
from braze_export.cli.progress import Progress
from braze_export.cli.readings import Download, Waiting
from braze_export.cli.records import Tally, carry
from braze_export.cli.resuming import command_to_go_on, place_of
from braze_export.cli.screen import Screen, count, is_live, printable_json
from braze_export.cli.stores import Storage
from braze_export.cli.writing import STANDARD, Output, output
from braze_export.storage import ObjectStore

_ASKING: Final = "asking Braze for the export"

# After these the same would come again.
_FOR_GOOD: Final = (ExportExpiredError, ArchiveError, DecodeError)


@frozen(kw_only=True)
class Wish:
    """The options of the command itself. The control group has no ``segment_id``."""

    segment_id: str | None = None
    fields: Sequence[str] | None = field(converter=names)
    custom_attributes: Sequence[str] | None = field(converter=names, default=())
    target: str
    failed: str | None
    limit: int | None
    wait: bool
    timeout: float | None
    resume_from: str | None
    if_running: Literal["raise", "wait"]
    output_format: Literal["zip", "gzip"] | None
    callback_url: str | None
    storage: Storage | None
    settled_after: float
    quiet: bool

    def check(self) -> None:
        """Refuse what cannot work, before anything is sent.

        Raises:
            UsageError: options that do not go together.
        """
        check_lines(self.target)
        if self.resume_from is None and self.fields is None:
            raise click.UsageError("Name what to export: --fields external_id,email, for example.")
        if self.resume_from is not None and not self.wait:
            raise click.UsageError("Nothing is started with --resume-from: leave --no-wait out.")
        check_different([], [self.target, self.failed], "--output and --failed")

    def place(self) -> str | None:
        """Return the link or prefix of an export that was started before.

        Raises:
            UsageError: there is none; or a prefix, and no storage.
        """
        if self.resume_from is None:
            return None
        place = place_of(self.resume_from)
        if "://" not in place and self.storage is None:
            raise click.UsageError(
                "--resume-from has no link but an object prefix, of an export in the workspace's "
                "own storage: say which with --store URL."
            )
        return place


def carry_out(screen: Screen, connection: Connection, wish: Wish) -> None:
    """Do what a command was asked for."""
    wish.check()
    settings = ExportSettings(quiet_period=wish.settled_after)
    place = wish.place()
    with ExitStack() as stack:
        stack.enter_context(logged(screen, connection.verbosity))
        client = (
            connection.client(screen, exports=settings)
            if place is None
            else connection.downloader(settings)
        )
        run = _Run(wish, client, screen, place)
        stack.enter_context(run.going_on_told())
        if not wish.wait:
            run.start()
            return
        outputs = [output(path, screen) for path in (wish.target, wish.failed)]
        run.export(*map(stack.enter_context, outputs))
    run.conclude()


@define
class _Run:
    """One run of a command, and what came of it.

    Attributes:
        place: the link or prefix of an export that was started before.
        asked: whether Braze was asked to start one.
    """

    wish: Wish
    client: BrazeClient
    screen: Screen
    place: str | None
    asked: bool = False
    job: ExportJob | None = None
    tally: Tally = Factory(Tally)

    def start(self) -> None:
        """Start the export, and say how to go on with it later."""
        job = asyncio.run(self._start_only())
        told = {"object_prefix": job.object_prefix, "url": job.url, "segment_id": job.segment_id}
        self.screen.out.print(printable_json(msgspec.json.encode(told).decode()), soft_wrap=True)
        if not self.wish.quiet:
            self.screen.show(f"Once it is ready, go on with: {self._command(job)}")

    def export(self, profiles: Output, failed: Output) -> None:
        """Export, and print the summary, also of an export that was cut short."""
        began = time.monotonic()
        try:
            asyncio.run(self._export(profiles, failed))
        except BrokenPipeError:
            raise  # nobody reads any more
        except BaseException:
            if self.tally.anything_came:
                self._sum_up(time.monotonic() - began)
            raise
        profiles.drain()
        self._sum_up(time.monotonic() - began)

    def conclude(self) -> None:
        """Say where things are, once they are there, and exit with 4 if something failed."""
        if self.wish.target != STANDARD and not self.wish.quiet:
            self.screen.say(f"The profiles are in {self.wish.target}")
        if self.tally.bad_lines:
            raise Exit(SOME_FAILED)

    @contextmanager
    def going_on_told(self) -> Iterator[None]:
        """Put to whatever ends the run how to go on."""
        try:
            yield
        except (Exit, BrokenPipeError, *_FOR_GOOD):
            raise
        except (KeyboardInterrupt, BrazeError, ClickException, OSError) as error:
            if self.job is not None:
                error.add_note(f"Go on with: {self._command(self.job)}")
            elif self.asked and _leaves_it_open(error):
                error.add_note(
                    "Braze may have started the export all the same. If so, it accepts another "
                    "one when that has ended: --if-running wait"
                )
            raise

    def _command(self, job: ExportJob) -> str:
        place = self.wish.resume_from or job.url or job.object_prefix or ""
        homeless = job.url is None and self.wish.storage is None
        return command_to_go_on(get_current_context(), place, store_missing=homeless)

    async def _start_only(self) -> ExportJob:
        async with self.client as braze, self._progress(Waiting(_ASKING)):
            self.job = await self._begin(braze)
            return self.job

    async def _export(self, profiles: Output, failed: Output) -> None:
        wish = self.wish
        if wish.storage is not None:
            await wish.storage.check()
        waiting = Waiting(_ASKING) if self.place is None else Waiting("looking", resumed=True)
        async with self.client as braze:
            async with self._progress(waiting):
                self.job = job = await self._begin(braze)
                store = self._store_of(job)
                async for state in job.states(timeout=wish.timeout, store=store):
                    waiting.saw(state)
            download = Download(job.stats, of_one=store is None)
            # On a terminal that shows the profiles themselves it would be in their way.
            profiles_seen = wish.target == STANDARD and is_live(stderr=False)
            async with self._progress(download, shown=not profiles_seen):
                records = job.raw(store=store, on_error="yield", timeout=wish.timeout)
                await carry(records, profiles, failed, self.tally, wish.limit)

    async def _begin(self, braze: BrazeClient) -> ExportJob:
        wish = self.wish
        if self.place is not None:
            return braze.users.resume_export(self.place, segment_id=wish.segment_id)
        options: dict[str, Any] = {
            "fields": wish.fields,
            "callback_url": wish.callback_url,
            "output_format": wish.output_format,
            "if_running": wish.if_running,
        }
        self.asked = True
        if wish.segment_id is None:
            return await braze.users.export_global_control_group(**options)
        return await braze.users.export_segment(
            wish.segment_id, custom_attributes=wish.custom_attributes, **options
        )

    def _store_of(self, job: ExportJob) -> ObjectStore | None:
        storage = self.wish.storage
        if job.url is not None:
            if storage is not None:
                self.screen.warn("The export has a link, so that --store is not looked at.")
            return None
        if storage is None:
            raise ClickException(
                "Braze has started the export, and writes it to the workspace's own storage: say "
                "which with --store."
            )
        return storage.store

    def _progress(self, reading: Waiting | Download, *, shown: bool = True) -> Progress:
        return Progress(self.screen, lambda: reading, shown=shown and not self.wish.quiet)

    def _sum_up(self, seconds: float) -> None:
        if self.wish.quiet or self.job is None:
            return
        size = decimal(self.job.stats.bytes_received)
        self.screen.say(f"{count(self.tally.profiles, 'profile')}, {size}, {seconds:,.1f} s")
        self.tally.warn(self.screen, self.wish.failed)
        if self.tally.limited:
            self.screen.say(f"Stopped at {count(self.tally.profiles, 'profile')}: see --limit")


def _leaves_it_open(error: BaseException) -> bool:
    return error.sent if isinstance(error, TransportError) else isinstance(error, KeyboardInterrupt)
