"""``braze-export ids``: the profiles of users named by their identifiers."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, Literal

import rich_click as click
from attrs import Factory, define, field, frozen
from click.exceptions import Exit

from braze_export import BrazeClient, ExportStats, Limits, PoolSnapshot
from braze_export._json import one_line
from braze_export.cli.connection import Connection, connection_options, limit_options
from braze_export.cli.dry_run import Rehearsal, rehearse
from braze_export.cli.exporting import Places, Tally, carry
from braze_export.cli.failures import SOME_FAILED, logged
from braze_export.cli.help import SETTINGS, examples
from braze_export.cli.options import check_different, names
from braze_export.cli.progress import Progress
from braze_export.cli.reading import Kind, Source, identifiers, kind_of, opened
from braze_export.cli.readings import IdsReading
from braze_export.cli.screen import Screen, count, is_live
from braze_export.cli.tables import table
from braze_export.cli.writing import STANDARD, Output, output

_BATCH: Final = 50  # profiles of one request
_COLUMNS: Final = ("external_id", "first_name", "last_name", "email", "country", "language")
_ROWS: Final = 50


@click.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export ids u1 u2 --format table",
        "braze-export ids --input ids.txt -o users.ndjson --unknown unknown.txt",
        "braze-export ids --input ids.txt --dry-run",
        "braze-export ids --fields external_id,email,custom_attributes < ids.txt | gzip > u.gz",
        "braze-export ids --as email ada@example.com --fields external_id,email",
        "braze-export ids --as alias:amplitude_id --input aliases.txt -o users.ndjson",
    ),
)
@click.option_panel("Options")  # first, above those that every command has
@click.argument("ids", nargs=-1)
@click.option(
    "-i",
    "--input",
    "source_path",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Read identifiers from FILE, one a line, UTF-8; - is standard input, also the default.",
)
@click.option(
    "--as",
    "kind",
    metavar="KIND",
    callback=kind_of,
    default="external_id",
    show_default=True,
    help="What they are: external_id, braze_id, device_id, email, phone or alias:LABEL.",
)
@click.option(
    "--fields",
    metavar="NAMES",
    multiple=True,
    help="Fields to export, with commas between or the option repeated. Without it: all of them.",
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["ndjson", "table"]),
    default="ndjson",
    show_default=True,
    help="One JSON object a line, as Braze sent it; or a table of the first profiles.",
)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    default=STANDARD,
    help="Write NDJSON to FILE, called FILE.partial until it is whole; - is standard output.",
)
@click.option("--unknown", metavar="FILE", help="Write ids that Braze does not know to FILE.")
@click.option("--failed", metavar="FILE", help="Write ids that failed, and why, to FILE as NDJSON.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help=f"Stop after N profiles. A table stops after {_ROWS} without it.",
)
@click.option("--ordered", is_flag=True, help="Keep the order of the input, request by request.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Send and write nothing: count the identifiers, and print how many requests they are and "
    "how long these wait at least. No key is needed. With --limit N: as if each of the first N "
    "had a profile.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@limit_options
@connection_options
@click.pass_obj
def ids(screen: Screen, /, connection: Connection, limits: Limits, **options: Any) -> None:
    """Export the users named by IDS, or by the lines of a file.

    Profiles go to standard output, everything said about them to standard error. What is asked
    for twice in short order is fetched once.
    """
    wish = _Wish(**options)
    wish.check(limits)
    with ExitStack() as stack:
        stack.enter_context(logged(screen, connection.verbosity))
        source = stack.enter_context(opened(wish.ids, wish.source_path))
        if wish.dry_run:
            rehearse(wish.rehearsal(source, limits), screen, quiet=wish.quiet)
            return
        job = _Job(wish, source, connection.client(screen, limits), screen)
        outputs = [output(path, screen) for path in (wish.lines_to, wish.unknown, wish.failed)]
        job.run(*map(stack.enter_context, outputs))
    job.conclude()


@frozen(kw_only=True)
class _Wish:
    """The options of the command itself."""

    ids: tuple[str, ...]
    source_path: str | None
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
        return self.limit or (_ROWS if self.shape == "table" else None)

    @property
    def at_once(self) -> int:
        """Requests under way at once: no more than the limit can use."""
        return min(self.concurrency, self.most // _BATCH + 1) if self.most else self.concurrency

    def rehearsal(self, source: Source, limits: Limits) -> Rehearsal:
        """Return what a dry run needs to know."""
        return Rehearsal(source, self.kind, self.columns, self.most, limits)

    def check(self, limits: Limits) -> None:
        """Refuse what cannot work, before anything is sent.

        Raises:
            UsageError: options that do not go together.
        """
        if self.shape == "table" and self.target != STANDARD:
            raise click.UsageError("--output takes NDJSON: leave --format table out, or use >.")
        if limits.ids_fast is not None and self.columns is None:
            raise click.UsageError("New workspaces must name fields: give --fields.")
        check_different(
            [self.source_path],
            [self.lines_to, self.unknown, self.failed],
            "The input, --output, --unknown and --failed",
        )


@define
class _Job:
    """One run of the command, and what came of it."""

    wish: _Wish
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
        """Return the seconds during which requests surely waited for the rate limit.

        The pool adds up what each of them waited, and so many at most do so at once.
        """
        pool, stats = self._pool(), self.tally.stats
        begun = stats.requests - stats.retries + pool.waiting
        return pool.seconds_waited / max(1, min(self.wish.at_once, begun))

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
