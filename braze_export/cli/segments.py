"""``braze-export segments``: the list, one in detail, and its size day by day."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import attrs
import msgspec
import rich_click as click

from braze_export import BrazeClient, Segment, SegmentSize
from braze_export.cli.chart import chart
from braze_export.cli.connection import Connection, ask, connection_options
from braze_export.cli.help import SETTINGS, examples
from braze_export.cli.screen import Screen, count, is_live, printable_json
from braze_export.cli.tables import pairs, table

_as_json = click.option("--json", "as_json", is_flag=True, help="NDJSON instead of a table.")


@click.group(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export segments list",
        "braze-export segments details SEGMENT_ID",
        "braze-export segments series SEGMENT_ID --days 90",
    ),
)
def segments() -> None:
    """List segments, show one, or its size day by day."""


@segments.command(
    "list",
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export segments list --sort desc",
        "braze-export segments list --json | jq -r .id",
    ),
)
@click.option(
    "--sort",
    type=click.Choice(["asc", "desc"]),
    help="By creation: asc is oldest first, desc newest first.",
)
@_as_json
@connection_options
@click.pass_obj
def list_segments(
    screen: Screen,
    connection: Connection,
    *,
    sort: Literal["asc", "desc"] | None,
    as_json: bool,
) -> None:
    """List every segment that is not archived."""

    async def fetch(braze: BrazeClient) -> list[Segment]:
        return [segment async for segment in braze.segments.list(sort_direction=sort)]

    found = ask(screen, connection, fetch)
    if as_json:
        return _print_json(screen, found)
    columns = ("id", "name", "analytics", "tags")
    rows = [(s.id, s.name, s.analytics_tracking_enabled, s.tags) for s in found]
    screen.out.print(table(columns, rows, whole=["id"]))
    screen.say(count(len(found), "segment"))
    return None


@segments.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export segments details SEGMENT_ID",
        "braze-export segments details SEGMENT_ID --json | jq .tags",
    ),
)
@click.argument("segment_id")
@_as_json
@connection_options
@click.pass_obj
def details(screen: Screen, connection: Connection, *, segment_id: str, as_json: bool) -> None:
    """Show the segment SEGMENT_ID: its filters, tags, teams and dates."""
    found = ask(screen, connection, lambda braze: braze.segments.details(segment_id))
    if as_json:
        return _print_json(screen, [found])
    values = attrs.asdict(found, recurse=False)
    screen.out.print(pairs({name.replace("_", " "): value for name, value in values.items()}))
    return None


@segments.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export segments series SEGMENT_ID --days 90",
        "braze-export segments series SEGMENT_ID --ending-at 2026-01-31 --json",
    ),
)
@click.argument("segment_id")
@click.option(
    "--days", type=click.IntRange(min=1), default=30, show_default=True, help="How many days."
)
@click.option(
    "--ending-at",
    metavar="DATE",
    callback=lambda _context, _parameter, text: _moment(text),
    help="The last day, ISO 8601; UTC where it has no offset. Without it: today.",
)
@click.option(
    "--plot/--no-plot", default=None, help="Draw it, too. Without either: on a terminal only."
)
@_as_json
@connection_options
@click.pass_obj
def series(
    screen: Screen,
    connection: Connection,
    *,
    segment_id: str,
    days: int,
    ending_at: datetime | None,
    plot: bool | None,
    as_json: bool,
) -> None:
    """Show the estimated size of the segment SEGMENT_ID on each day.

    Its analytics tracking must be on in Braze.
    """
    found = ask(
        screen,
        connection,
        lambda braze: braze.segments.data_series(segment_id, length=days, ending_at=ending_at),
    )
    if as_json:
        return _print_json(screen, found)
    rows = [(day.time, None if day.size is None else f"{day.size:,}") for day in found]
    screen.out.print(table(("day", "users"), rows, right=("users",)))
    if is_live(stderr=False) if plot is None else plot:
        _draw(screen, found)
    return None


def _draw(screen: Screen, days: Sequence[SegmentSize]) -> None:
    sizes = [day.size for day in days if day.size is not None]
    if sizes:
        for line in chart(sizes, width=min(screen.out.width, 100)):
            screen.out.print(line, soft_wrap=True)
        screen.out.print(f"{days[0].time} to {days[-1].time}", soft_wrap=True)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no ISO 8601 date, such as 2026-01-31.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _print_json(screen: Screen, records: Sequence[attrs.AttrsInstance]) -> None:
    for record in records:
        text = printable_json(msgspec.json.encode(record).decode())
        screen.out.print(text, soft_wrap=True)
