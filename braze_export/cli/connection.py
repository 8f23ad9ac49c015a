"""How Braze is reached: endpoint and key, and the options that every such command has.

The key comes from a file, the environment or a prompt. Never from an argument: every process
of the machine can read those, and the shell's history keeps them.
"""

import asyncio
import functools
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, cast

import rich_click as click
from attrs import evolve, frozen

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    ExportSettings,
    InputError,
    Limits,
    RateLimit,
)
from braze_export.cli.failures import logged
from braze_export.cli.screen import Screen

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

KEY: Final = "BRAZE_API_KEY"
ENDPOINT: Final = "BRAZE_REST_ENDPOINT"

_LONGEST_KEY = 4096  # bytes: more is another kind of file


@frozen
class Connection:
    """What the options say about the way to Braze."""

    endpoint: str | None
    api_key_file: Path | None
    allow_insecure_http: bool
    verbosity: int

    def client(
        self,
        screen: Screen,
        limits: Limits | None = None,
        exports: ExportSettings | None = None,
    ) -> BrazeClient:
        """Make the client, asking for the key if need be.

        Raises:
            UsageError: no endpoint, or no key.
            InputError: one that cannot be right.
        """
        if not self.endpoint:
            raise click.UsageError(
                f"No endpoint: set {ENDPOINT} or give --endpoint, with the REST URL of your "
                "workspace or the name of its instance, such as US-01."
            )
        return BrazeClient(
            read_key(self.api_key_file, screen),
            self.endpoint,
            limits=limits,
            exports=exports,
            allow_insecure_http=self.allow_insecure_http,
        )

    def downloader(self, exports: ExportSettings) -> BrazeClient:
        """Make a client that fetches links. It has no key, and sends nothing to Braze."""
        scheme = "http" if self.allow_insecure_http else "https"  # that links may have
        return BrazeClient(
            "none",
            f"{scheme}://braze.invalid",
            exports=exports,
            transport=_LinksOnly(),
            allow_insecure_http=self.allow_insecure_http,
        )


class _LinksOnly(AiohttpTransport):
    """Fetches links, and refuses whatever is for Braze."""

    async def send(self, _request: Any) -> NoReturn:
        """Refuse.

        Raises:
            InputError: always.
        """
        raise InputError("without the API key nothing is sent to Braze")


def ask(
    screen: Screen,
    connection: Connection,
    fetch: Callable[[BrazeClient], Coroutine[Any, Any, T]],
) -> T:
    """Return what one call of Braze gives."""
    client = connection.client(screen)

    async def fetched() -> T:
        async with client as braze:
            return await fetch(braze)

    with logged(screen, connection.verbosity):
        return asyncio.run(fetched())


def connection_options(command: F) -> F:
    """Give a command the options of a connection, and a ``Connection`` made of them."""

    @functools.wraps(command)
    def connected(*args: Any, **options: Any) -> Any:
        connection = Connection(
            endpoint=options.pop("endpoint"),
            api_key_file=options.pop("api_key_file"),
            allow_insecure_http=options.pop("allow_insecure_http"),
            verbosity=options.pop("verbosity"),
        )
        return command(*args, connection=connection, **options)

    return cast("F", applied(_OPTIONS, connected))


_OPTIONS: Final = (
    click.option(
        "--endpoint",
        metavar="URL|NAME",
        envvar=ENDPOINT,
        show_envvar=True,
        panel="Connection",
        help="REST URL of the workspace, or its instance: US-01, EU-01, ...",
    ),
    click.option(
        "--api-key-file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        panel="Connection",
        help=f"File that holds the key. Without it: the variable {KEY}, else you are asked.",
    ),
    click.option(
        "--allow-insecure-http",
        is_flag=True,
        panel="Connection",
        help="Send the key, or fetch profiles, over plain HTTP to or from another machine.",
    ),
    click.option(
        "-v",
        "--verbose",
        "verbosity",
        count=True,
        metavar="",
        panel="Connection",
        help="Tell of retries and the like; twice: of everything.",
    ),
)


def limit_options(command: F) -> F:
    """Give a command the options of the limit of ``/users/export/ids``, and its ``Limits``."""

    @functools.wraps(command)
    def limited(*args: Any, **options: Any) -> Any:
        names = ("new_workspace", "oldest_workspace", "max_requests", "period", "reserve")
        limits = _limits(**{name: options.pop(name) for name in names})
        return command(*args, limits=limits, **options)

    return cast("F", applied(_LIMIT_OPTIONS, limited))


_LIMIT_OPTIONS: Final = (
    click.option(
        "--new-workspace",
        is_flag=True,
        panel="Rate limit",
        help="The limits of workspaces made on or after 2024-08-22. They need --fields.",
    ),
    click.option(
        "--oldest-workspace",
        is_flag=True,
        panel="Rate limit",
        help="The limits of workspaces made before 2021-08-16: 250,000 requests an hour.",
    ),
    click.option(
        "--max-requests",
        metavar="N",
        type=click.IntRange(min=1),
        panel="Rate limit",
        help="Requests per period, until Braze says what your limit is.  [default: 2500]",
    ),
    click.option(
        "--period",
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        panel="Rate limit",
        help="The period of --max-requests.  [default: 60]",
    ),
    click.option(
        "--reserve",
        metavar="SHARE",
        type=click.FloatRange(min=0, max=1, max_open=True),
        default=0.0,
        panel="Rate limit",
        help="The share of the limit that is left to other users of the workspace, from 0 to "
        "below 1: 0.2 is a fifth.",
    ),
    click.option(
        "--concurrency",
        metavar="N",
        type=click.IntRange(min=1),
        default=32,
        show_default=True,
        panel="Rate limit",
        help="Requests under way at once.",
    ),
)


def _limits(
    *,
    new_workspace: bool,
    oldest_workspace: bool,
    max_requests: int | None,
    period: float | None,
    reserve: float,
) -> Limits:
    if new_workspace and oldest_workspace:
        raise click.UsageError("Give --new-workspace or --oldest-workspace, not both.")
    if period is not None and max_requests is None:
        raise click.UsageError("--period needs --max-requests: so many requests per period.")
    limits = Limits(reserve=reserve)
    if new_workspace:
        limits = Limits.new_workspace(reserve=reserve)
    elif oldest_workspace:
        limits = Limits.oldest_workspace(reserve=reserve)
    if max_requests is None:
        return limits
    return evolve(limits, ids=RateLimit(max_requests, period or 60), ids_fast=None)


def applied(options: Sequence[Callable[[F], F]], command: F) -> F:
    """Give a command options, in their order."""
    for option in reversed(options):  # the last one applied is shown first
        command = option(command)
    return command


def read_key(path: Path | None, screen: Screen) -> str:
    """Return the API key: of the file if one is named, of the environment, or typed in.

    Raises:
        UsageError: there is none.
    """
    if path is not None:
        return _of_file(path, screen)
    if key := os.environ.get(KEY):
        return key
    if sys.stdin and sys.stdin.isatty() and sys.stderr.isatty():
        return str(click.prompt("Braze API key", hide_input=True, err=True))
    raise click.UsageError(
        f"No API key: set {KEY}, give --api-key-file, or run this on a terminal to be asked."
    )


def _of_file(path: Path, screen: Screen) -> str:
    # Looked at here, for there is no such question to ask elsewhere than on POSIX.
    if os.name == "posix" and path.stat().st_mode & 0o077:
        screen.warn(f"{path} can be read by other users: chmod 600 it.")
    with path.open("rb") as file:
        raw = file.read(_LONGEST_KEY + 1)
    try:
        key = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        key = ""
    if not key.strip() or len(raw) > _LONGEST_KEY:
        raise click.UsageError(f"{path} holds no API key: it must hold the key and nothing else.")
    return key.removesuffix("\n").removesuffix("\r")
