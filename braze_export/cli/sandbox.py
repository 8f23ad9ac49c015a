"""``braze-export sandbox``: the local Braze, to try things on."""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any, Final

import rich_click as click

from braze_export.cli.connection import ENDPOINT, KEY
from braze_export.cli.failures import with_options
from braze_export.cli.help import SETTINGS, examples
from braze_export.cli.screen import Screen, count
from braze_export.sandbox import Sandbox, Window
from braze_export.sandbox.settings import PROFILES, default

_GIVEN_KEY: Final = "BRAZE_SANDBOX_API_KEY"


def _parsed(_: click.Context, parameter: click.Parameter, text: str | None) -> Window | None:
    try:
        return None if text is None else Window.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", param=parameter) from None


def _option(name: str, kind: Any, text: str) -> Callable[[Any], Any]:
    # The sandbox's own default, so that it stands in one place.
    own = default(name.replace("-", "_"))
    return click.option(f"--{name}", type=kind, default=own, show_default=True, help=text)


def _window(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", metavar="REQUESTS/SECONDS", callback=_parsed, help=text)


@click.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export sandbox",
        "braze-export sandbox --users 1000000 --port 8080",
        "braze-export sandbox --new-workspace --latency 0.2",
        "braze-export sandbox --ids-window 20/10",
        "braze-export sandbox --export-seconds 30",
    ),
)
@_option("users", click.IntRange(min=0), "How many users: u1 to uN.")
@_option("segments", click.IntRange(min=0), "How many segments.")
@_option("seed", int, "The same seed makes the same users.")
@_option("profile", click.Choice(PROFILES), "The size of the users.")
@_option("latency", click.FloatRange(min=0), "Seconds before each answer.")
@_option("export-seconds", click.FloatRange(min=0), "How long an export of a segment takes.")
@_option("host", str, "A loopback address.")
@_option("port", click.IntRange(0, 65535), "0: any free one.")
@_window("ids-window", "Limit of /users/export/ids, such as 2500/60.")
@_window("fast-ids-window", "Limit of those requests that name their fields.")
@_window("default-window", "Limit shared by all other endpoints.")
@click.option("--gzip", is_flag=True, help="Compress answers.")
@click.option(
    "--new-workspace", is_flag=True, help="The limits of workspaces made on or after 2024-08-22."
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON instead.")
@click.pass_obj
def sandbox(screen: Screen, /, *, new_workspace: bool, as_json: bool, **options: Any) -> None:
    """Run a local Braze with made-up users, until Ctrl-C.

    Its key is good for nothing else. It is random unless BRAZE_SANDBOX_API_KEY is set.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if key := os.environ.get(_GIVEN_KEY):
        given["api_key"] = key
    build = Sandbox.new_workspace if new_workspace else Sandbox
    try:
        local = build(**given)
    except ValueError as error:
        raise click.UsageError(f"{with_options(error.args[0])}.") from error
    try:
        asyncio.run(_serve(local, screen, as_json=as_json))
    except KeyboardInterrupt:
        served = local.counters
        refused = count(served.rate_limited, "answer 429", "answers 429")
        screen.say(f"Served {count(served.requests, 'request')}, {refused}")


async def _serve(local: Sandbox, screen: Screen, *, as_json: bool) -> None:
    async with local:
        if as_json:
            line = json.dumps({"url": local.url, "api_key": local.api_key})
            screen.out.print(line, soft_wrap=True)
        else:
            for line in _welcome(local):
                screen.out.print(line, soft_wrap=True)
        await asyncio.Event().wait()


def _welcome(local: Sandbox) -> list[str]:
    return [
        f"A local Braze with {count(local.users, 'user')} listens at {local.url}",
        "Paste this into another terminal:",
        "",
        f"  export {ENDPOINT}={local.url} {KEY}={local.api_key}",
        "  braze-export ids u1 u2 nobody --format table",
        "  braze-export segments list",
        "",
        "Ctrl-C ends it.",
    ]
