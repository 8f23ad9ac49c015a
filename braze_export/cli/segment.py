"""``braze-export segment``, ``control-group`` and ``cancel``: exports that Braze prepares."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import rich_click as click

from braze_export.cli.connection import Connection, applied, ask, connection_options
from braze_export.cli.export_run import Wish, carry_out
from braze_export.cli.help import SETTINGS, examples
from braze_export.cli.screen import Screen
from braze_export.cli.stores import storage_of
from braze_export.cli.writing import STANDARD

F = TypeVar("F", bound=Callable[..., Any])


def _web_address(_: click.Context, parameter: click.Parameter, url: str | None) -> str | None:
    if url is not None and not url.startswith(("https://", "http://")):
        raise click.BadParameter(
            f"{url!r} does not start with https:// or http://.", param=parameter
        )
    return url


_fields = click.option(
    "--fields",
    metavar="NAMES",
    multiple=True,
    help="Fields to export, with commas between or the option repeated.",
)

_OPTIONS: Final = (
    click.option(
        "-o",
        "--output",
        "target",
        metavar="FILE",
        default=STANDARD,
        help="Write NDJSON to FILE, called FILE.partial until it is whole; - is standard output.",
    ),
    click.option(
        "--failed",
        metavar="FILE",
        help="Write lines that are no profiles, and why, to FILE as NDJSON.",
    ),
    click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Stop after N profiles."),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no summary."),
    click.option(
        "--wait/--no-wait",
        default=True,
        panel="Waiting",
        help="Wait for the export, and read it; or start it, print where it will be as a line of "
        "JSON, its link included, and leave.",
    ),
    click.option(
        "--timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        panel="Waiting",
        help="Wait no longer until it is ready. Without it: until its link ends, 4 hours.",
    ),
    click.option(
        "--resume-from",
        metavar="LINK|PREFIX",
        panel="Waiting",
        help="Go on with an export that was started before. @FILE reads it from a file, - from "
        "standard input: the link, or the line of --no-wait. No key is needed, and what is for "
        "Braze, such as --fields, does nothing.",
    ),
    click.option(
        "--if-running",
        type=click.Choice(["raise", "wait"]),
        default="raise",
        show_default=True,
        panel="Waiting",
        help="What to do while Braze runs another export of the same.",
    ),
    click.option(
        "--callback-url",
        metavar="URL",
        callback=_web_address,
        panel="Waiting",
        help="Braze posts to URL when the export is ready.",
    ),
    click.option(
        "--store",
        "storage",
        metavar="URL",
        callback=storage_of,
        panel="Own storage",
        help="Where Braze writes exports to if the workspace has its own storage: s3://BUCKET, "
        "gs://BUCKET or az://CONTAINER, also with a folder. Credentials come from the environment: "
        "AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY, ...",
    ),
    click.option(
        "--output-format",
        type=click.Choice(["zip", "gzip"]),
        panel="Own storage",
        help="Of the files that Braze writes there.",
    ),
    click.option(
        "--settled-after",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        panel="Own storage",
        help="Nobody says which file is the last: all are there once nothing has come for so long.",
    ),
)


def _export_options(command: F) -> F:
    return applied(_OPTIONS, command)


@click.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export segment SEGMENT_ID --fields external_id,email -o users.ndjson",
        "braze-export segment SEGMENT_ID --fields external_id --custom-attributes plan,score",
        "braze-export segment SEGMENT_ID --fields external_id --no-wait > started.json",
        "braze-export segment SEGMENT_ID --resume-from @started.json -o users.ndjson",
        "braze-export segment SEGMENT_ID --fields external_id --store s3://bucket | gzip > u.gz",
    ),
)
@click.option_panel("Options")  # first, above those that every command has
@click.argument("segment_id")
@_fields
@click.option(
    "--custom-attributes",
    metavar="NAMES",
    multiple=True,
    help="Custom attributes to export, at most 500. For all: custom_attributes in --fields.",
)
@_export_options
@connection_options
@click.pass_obj
def segment(screen: Screen, /, connection: Connection, **options: Any) -> None:
    """Export the users of the segment SEGMENT_ID.

    Braze prepares the export in the background, an hour or more for millions of users. It is
    waited for, and read while it is being fetched. Profiles go to standard output, everything said
    about them to standard error.

    What ends before its time, also by Ctrl-C, says how to go on. That sentence holds the export's
    link, which gives the profiles to whoever has it, for about four hours.
    """
    carry_out(screen, connection, Wish(**options))


@click.command(
    "control-group",
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export control-group --fields external_id,email -o users.ndjson",
        "braze-export control-group --fields external_id --no-wait > started.json",
        "braze-export control-group --resume-from @started.json -o users.ndjson",
    ),
)
@click.option_panel("Options")
@_fields
@_export_options
@connection_options
@click.pass_obj
def control_group(screen: Screen, /, connection: Connection, **options: Any) -> None:
    """Export the users of the global control group.

    Braze prepares the export in the background. It is waited for, and read while it is being
    fetched. Profiles go to standard output, everything said about them to standard error.

    What ends before its time, also by Ctrl-C, says how to go on. That sentence holds the export's
    link, which gives the profiles to whoever has it, for about four hours.
    """
    carry_out(screen, connection, Wish(**options))


@click.command(context_settings=SETTINGS, epilog=examples("braze-export cancel SEGMENT_ID"))
@click.argument("segment_id")
@connection_options
@click.pass_obj
def cancel(screen: Screen, connection: Connection, *, segment_id: str) -> None:
    """Cancel every running export of the segment SEGMENT_ID.

    Braze does not say whether one was running. A new one may be refused for a while.
    """
    ask(screen, connection, lambda braze: braze.users.cancel_segment_export(segment_id))
    screen.say(f"Braze cancels whatever export of {segment_id} is running")
