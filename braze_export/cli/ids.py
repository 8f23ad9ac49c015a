"""``braze-export ids``: the profiles of users named by their identifiers."""

from contextlib import ExitStack
from typing import Any, Final

import rich_click as click

from braze_export import Limits
from braze_export.cli.connection import Connection, applied, connection_options, limit_options
from braze_export.cli.dry_run import Misfits, rehearse
from braze_export.cli.failures import logged
from braze_export.cli.help import SETTINGS, examples
from braze_export.cli.ids_job import IdsJob, job_options
from braze_export.cli.ids_stream import ROWS, UTF_8, Stream, Wish
from braze_export.cli.reading import kind_of, opened, what_is_read
from braze_export.cli.screen import Screen
from braze_export.cli.writing import STANDARD, output
from braze_export.jobs.values import InputFormat

_FORMATS: Final[tuple[InputFormat, ...]] = ("lines", "csv", "ndjson", "parquet")

_INPUT_OPTIONS: Final = (
    click.option(
        "-i",
        "--input",
        "source_path",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        panel="Input",
        help="The same as INPUT: CSV, NDJSON, Parquet or lines, by its name; packed with gzip or "
        "zstd, or not. Without it, or with -, standard input.",
    ),
    click.option(
        "--as",
        "kind",
        metavar="KIND",
        callback=kind_of,
        default="external_id",
        show_default=True,
        panel="Input",
        help="What the identifiers are: external_id, braze_id, device_id, email, phone or "
        "alias:LABEL.",
    ),
    click.option(
        "--column",
        metavar="NAME",
        panel="Input",
        help="The column with the identifiers; of NDJSON the key, or a path of keys: user.id. "
        "Without it: the only one, or the one that is called as KIND.",
    ),
    click.option(
        "--input-format",
        "input_format",
        metavar="FORMAT",
        type=click.Choice(_FORMATS),
        panel="Input",
        help="How the input is written, where its name does not tell: lines, csv, ndjson or "
        "parquet.",
    ),
    click.option(
        "--encoding",
        metavar="NAME",
        default=UTF_8,
        show_default=True,
        panel="Input",
        help="How text is encoded: cp1252, utf-16, ...",
    ),
    click.option(
        "--delimiter",
        metavar="CHARACTER",
        panel="Input",
        help="What stands between columns of CSV. [default: a comma, in .tsv a tab]",
    ),
)

_OPTIONS: Final = (
    click.option(
        "--fields",
        metavar="NAMES",
        multiple=True,
        help="Fields to export, with commas between or the option repeated. Without it: all.",
    ),
    click.option(
        "--format",
        "shape",
        type=click.Choice(["ndjson", "table"]),
        default="ndjson",
        show_default=True,
        help="On standard output: one JSON object a line, as Braze sent it; or a table of the "
        "first profiles.",
    ),
    click.option(
        "-o",
        "--output",
        "target",
        metavar="FILE",
        default=STANDARD,
        help="Write to FILE: Parquet if it ends in .parquet, else NDJSON; packed if that ends in "
        ".gz or .zst. It has its name once it is whole. Without it, or with -, standard output.",
    ),
    click.option(
        "--unknown",
        metavar="FILE",
        help="Write ids that Braze does not know to FILE, one a line. [default of a job: beside "
        "the output, users.unknown.txt]",
    ),
    click.option(
        "--failed",
        metavar="FILE",
        help="Write ids that failed, and why, to FILE as NDJSON. [default of a job: "
        "users.failed.ndjson]",
    ),
    click.option(
        "--limit",
        metavar="N",
        type=click.IntRange(min=1),
        help=f"Stop after N profiles, for a look. A table stops after {ROWS} without it.",
    ),
    click.option(
        "--ordered", is_flag=True, help="Keep the order of the input, request by request."
    ),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Send and write nothing: count the identifiers, and print how many requests they "
        "take and how long these wait at least. No key is needed. With --limit N: as if each of "
        "the first N had a profile.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no summary."),
)


@click.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export ids u1 u2 --format table",
        "braze-export ids ids.csv --column user_id -o users.parquet",
        "braze-export ids ids.txt -o users.ndjson.gz --fields external_id,email,country",
        "braze-export ids ids.txt --into duckdb:profiles.duckdb",
        "braze-export ids ids.txt -o users.ndjson --retry-failed",
        "braze-export ids ids.txt --dry-run",
        "braze-export ids --fields external_id,email,custom_attributes < ids.txt | gzip > u.gz",
        "braze-export ids --as email ada@example.com --fields external_id,email",
        "braze-export ids --as alias:amplitude_id aliases.txt -o users.ndjson",
    ),
)
@click.option_panel("Options")  # first, above those that every command has
@click.argument("ids", nargs=-1, metavar="[INPUT|IDS]...")
@(lambda command: applied((*_OPTIONS, *_INPUT_OPTIONS), command))
@job_options
@limit_options
@connection_options
@click.pass_obj
def ids(screen: Screen, /, connection: Connection, limits: Limits, **options: Any) -> None:
    """Export the users named by IDS, or by a file of any length.

    A single argument that is a file, or is called like one, is the INPUT. Without --output,
    profiles go to standard output as they come.

    With INPUT and --output FILE, or --into a table, it is a job: kill it at any moment, run the
    same command again, and it goes on where it was. Each identifier ends up in exactly one of
    three places: its profile in the output, or itself among the unknown or the failed ones.
    """
    options["ids"], options["source_path"] = what_is_read(options["ids"], options["source_path"])
    job = IdsJob.of(options, limits)
    wish = Wish.of(options)
    with logged(screen, connection.verbosity):
        if wish.dry_run:
            _rehearse(wish, limits, screen)
        elif job is not None:
            job.run(connection.client(screen, limits), screen)
        else:
            _stream(wish, connection, limits, screen)


def _rehearse(wish: Wish, limits: Limits, screen: Screen) -> None:
    wish.check(limits)
    misfits = Misfits()
    with opened(wish.ids, wish.input, wish.kind, misfits.add) as source:
        rehearse(wish.rehearsal(source, limits, misfits), screen, quiet=wish.quiet)


def _stream(wish: Wish, connection: Connection, limits: Limits, screen: Screen) -> None:
    wish.check(limits)
    with ExitStack() as stack:
        source = stack.enter_context(opened(wish.ids, wish.input, wish.kind))
        stream = Stream(wish, source, connection.client(screen, limits), screen)
        outputs = [output(path, screen) for path in (wish.lines_to, wish.unknown, wish.failed)]
        stream.run(*map(stack.enter_context, outputs))
    stream.conclude()
