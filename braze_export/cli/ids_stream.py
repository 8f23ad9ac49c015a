"""``braze-export ids`` as a stream: profiles as they come, to standard output or a table."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal

import rich_click as click
from attrs import Factory, define, field, fields_dict, frozen
from click.exceptions import Exit

from braze_export import BrazeClient, ExportStats, Limits, PoolSnapshot
from braze_export._json import one_line
from braze_export.cli.dry_run import Misfits, Rehearsal
from braze_export.cli.exporting import Places, Tally, carry
from braze_export.cli.failures import SOME_FAILED
from braze_export.cli.options import check_different, check_fields, check_lines, names
from braze_export.cli.progress import Progress
from braze_export.cli.reading import Source, identifiers
from braze_export.cli.readings import IdsReading
from braze_export.cli.screen import Screen, count, is_live
from braze_export.cli.tables import table
from braze_export.cli.writing import STANDARD, Output
from braze_export.jobs.kinds import Kind
from braze_export.jobs.values import Input

_BATCH: Final = 50  # profiles of one request
_COLUMNS: Final = ("external_id", "first_name", "last_name", "email", "country", "language")
_OF_INPUT: Final = ("source_path", "input_format", "column", "delimiter")
UTF_8: Final = "utf-8"
ROWS: Final = 50  # of a table, where nobody says how many


def input_of(options: Mapping[str, Any]) -> Input | None:
    """Return the file that identifiers are read from, if something is said of it."""
    said = [name for name in _OF_INPUT if options[name]]
    if options["ids"] or (not said and options["encoding"] == UTF_8):
        return None
    return Input(
        path=options["source_path"] or STANDARD,
        format=options["input_format"],
        column=options["column"],
        encoding=options["encoding"],
        delimiter=options["delimiter"],
    )


@frozen(kw_only=True)
class Wish:
    """The options of the command itself."""

    ids: tuple[str, ...]
    input: Input | None
    kind: Kind
    fields: Sequence[str] | None = field(converter=names)
    shape: Literal["ndjson", "table"]
    target: str
    unknown: str | None
    failed: str | None
    limit: int | None
    ordered: bool
    dry_run: bool
    quiet: bool
    concurrency: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Wish":
        """Return what the options say."""
        own = {name: options[name] for name in fields_dict(cls) if name in options}
        return cls(input=input_of(options), **own)

    @property
    def lines_to(self) -> str | None:
        """Where NDJSON goes, if anywhere."""
        return self.target if self.shape == "ndjson" else None

    @property
    def columns(self) -> Sequence[str] | None:
        """What is asked for: for a table no more than it shows."""
        return self.fields or (_COLUMNS if self.shape == "table" else None)

    @property
    def most(self) -> int | None:
        """How many profiles to export at most."""
        return self.limit or (ROWS if self.shape == "table" else None)

    @property
    def at_once(self) -> int:
        """Requests under way at once: no more than the limit can use."""
        return min(self.concurrency, self.most // _BATCH + 1) if self.most else self.concurrency

    def rehearsal(self, source: Source, limits: Limits, misfits: Misfits) -> Rehearsal:
        """Return what a dry run needs to know."""
        return Rehearsal(source, self.kind, self.columns, self.most, limits, misfits)

    def check(self, limits: Limits) -> None:
        """Refuse what cannot work, before anything is sent.

        Raises:
            UsageError: options that do not go together.
        """
        if self.shape == "table" and self.target != STANDARD:
            raise click.UsageError("--output takes NDJSON: leave --format table out, or use >.")
        check_lines(
            self.lines_to,
            " Other files are written where the identifiers come from a file, without --limit.",
        )
        check_fields(self.fields, needed=limits.ids_fast is not None and self.columns is None)
        check_different(
            [str(self.input.path) if self.input else None],
            [self.lines_to, self.unknown, self.failed],
            "The input, --output, --unknown and --failed",
        )


@define
class Stream:
    """One run of the command, and what came of it."""

    wish: Wish
    source: Source
    client: BrazeClient
    screen: Screen
    tally: Tally = Factory(Tally)
    rows: list[dict[str, Any]] = Factory(list)

    def run(self, profiles: Output, unknown: Output, failed: Output) -> None:
        """Export, and print the summary, also of an export that was cut short."""
        began = time.monotonic()
        try:
            asyncio.run(self._export(Places(self._keeper(profiles), unknown, failed)))
        except BrokenPipeError:
            raise  # nobody reads any more
        except BaseException:
            self._sum_up(time.monotonic() - began, cut_short=True)
            raise
        profiles.drain()
        self._sum_up(time.monotonic() - began, cut_short=False)

    def conclude(self) -> None:
        """Say where things are, once they are there, and exit with 4 if something failed."""
        if self.wish.lines_to not in {None, STANDARD} and not self.wish.quiet:
            self.screen.say(f"The profiles are in {self.wish.lines_to}")
        if self.tally.failures:
            raise Exit(SOME_FAILED)

    async def _export(self, places: Places[bytes]) -> None:
        wish = self.wish
        async with (
            self.client as braze,
            braze.users.export_ids(
                identifiers(self.source, wish.kind),
                fields=wish.columns,
                into=bytes,
                concurrency=wish.at_once,
                ordered=wish.ordered,
                on_error="yield",
            ) as export,
            Progress(
                self.screen,
                lambda: self._reading(export.stats),
                shown=self._progress_shown(),
            ),
        ):
            try:
                await carry(export, places, self.tally, wish.most)
            finally:
                self.tally.waited = self._waited()

    def _keeper(self, profiles: Output) -> Callable[[bytes], Awaitable[None]]:
        async def write(profile: bytes) -> None:
            await profiles.write(one_line(profile))

        async def keep(profile: bytes) -> None:
            self.rows.append(json.loads(profile))

        return keep if self.wish.shape == "table" else write

    def _reading(self, stats: ExportStats) -> IdsReading:
        source = self.source
        return IdsReading.of(stats, source.total(), exact=source.exact, pool=self._pool())

    def _pool(self) -> PoolSnapshot:
        """Return how the limit stands that this export draws on: no other has sent anything."""
        return max(self.client.limits.snapshot().values(), key=lambda pool: pool.sent)

    def _waited(self) -> float:
        """Return the seconds during which requests surely waited for the rate limit."""
        pool, stats = self._pool(), self.tally.stats
        begun = stats.requests - stats.retries + pool.waiting
        return pool.surely_waited(min(self.wish.at_once, begun))

    def _progress_shown(self) -> bool:
        # On a terminal that shows the profiles themselves it would be in their way.
        profiles_seen = self.wish.lines_to == STANDARD and is_live(stderr=False)
        return not self.wish.quiet and not profiles_seen

    def _sum_up(self, seconds: float, *, cut_short: bool) -> None:
        wish, tally = self.wish, self.tally
        if cut_short and not tally.anything_came:
            return  # the error says it all
        if wish.shape == "table":
            columns = wish.columns or ()
            rows = [[row.get(name) for name in columns] for row in self.rows]
            self.screen.out.print(table(columns, rows))
        if wish.quiet:
            return
        tally.tell(self.screen, seconds=seconds, unknown=wish.unknown, failed=wish.failed)
        if tally.limited:
            self.screen.say(f"Stopped at {count(tally.profiles, 'profile')}: see --limit")
