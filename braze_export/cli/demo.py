"""``braze-export demo``: ten thousand profiles through real HTTP, without an account."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import rich_click as click
from attrs import Factory, define

from braze_export import BrazeClient, UserProfile
from braze_export._json import one_line
from braze_export.cli.exporting import Places, Tally, carry
from braze_export.cli.help import SETTINGS, examples
from braze_export.cli.progress import Progress
from braze_export.cli.readings import IdsReading
from braze_export.cli.screen import Screen, filled
from braze_export.cli.tables import pairs, table
from braze_export.cli.writing import Output, output

_FILE: Final = "braze-demo"
_SHOWN: Final = 3  # profiles
_LATENCY: Final = 0.25  # seconds: Braze is not next door
_START: Final = 20.0  # seconds: a Python that is slow to start has its reasons
_STOP: Final = 2.0

_NEXT: Final = {
    "the same in Python": "async for item in braze.users.export_ids(ids): ...",
    "a Braze to play with": "braze-export sandbox",
    "your own users": "braze-export ids --help",
}


@click.command(
    context_settings=SETTINGS,
    epilog=examples(
        "braze-export demo",
        "braze-export demo --ids 50000 --output users.ndjson",
    ),
)
@click.option(
    "--ids",
    "number",
    metavar="N",
    type=click.IntRange(min=10),
    default=10_000,
    show_default=True,
    help="How many ids to export; one in a hundred is of nobody.",
)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    help=f"Where the profiles go, as NDJSON. [default: {_FILE}.ndjson, or the next free name]",
)
@click.pass_obj
def demo(screen: Screen, *, number: int, target: str | None) -> None:
    """Export 10,000 made-up users from a local Braze. No account needed.

    A local Braze is started as a process of its own, and asked through real HTTP, under the
    limit of 2,500 requests a minute that Braze has too.
    """
    path = target or _free_name()
    run = _Run(number, screen)
    with output(path, screen) as out:
        asyncio.run(run.export(out))
    run.tell(path)


def _free_name() -> str:
    names = (f"{_FILE}{suffix}.ndjson" for suffix in _suffixes())
    return next(name for name in names if not Path(name).exists())


def _suffixes() -> Iterator[str]:
    yield ""
    number = 1
    while True:
        number += 1
        yield f"-{number}"


def _ids(number: int) -> Iterator[str]:
    every = min(100, number)
    return (f"nobody-{n}" if n % every == 0 else f"u{n}" for n in range(1, number + 1))


@define
class _Run:
    """The demo's export, and what is shown of it."""

    number: int
    screen: Screen
    tally: Tally = Factory(Tally)
    some: list[UserProfile] = Factory(list)
    counters: dict[str, Any] = Factory(dict)
    seconds: float = 0.0

    async def export(self, out: Output) -> None:
        """Start the local Braze and export from it."""
        self.screen.say("Starting a local Braze ...")
        async with _local_braze(self.number) as (url, api_key):
            self.screen.say(f"Exporting {self.number:,} ids from {url}")
            began = time.monotonic()
            async with (
                BrazeClient(api_key, url) as braze,
                braze.users.export_ids(_ids(self.number), on_error="yield") as export,
                Progress(self.screen, lambda: IdsReading.of(export.stats, self.number)),
            ):
                nowhere = Output(None)
                await carry(export, Places(self._keeper(out), nowhere, nowhere), self.tally)
                if self.tally.first_error is not None:
                    raise self.tally.first_error
            self.seconds = time.monotonic() - began
            self.counters = await _counters(url)

    def _keeper(self, out: Output) -> Any:
        async def keep(profile: UserProfile) -> None:
            if len(self.some) < _SHOWN and profile.first_name is not None:
                self.some.append(profile)
            await out.write(one_line(profile.raw))

        return keep

    def tell(self, path: str) -> None:
        """Print what came, and what can be done next."""
        show = self.screen.out.print
        columns = ("external_id", "first_name", "country", "created", "attributes")
        rows = [
            (p.external_id, p.first_name, p.country, _day(p), len(p.custom_attributes))
            for p in self.some
        ]
        show()
        show(table(columns, rows, right=columns[-1:]))
        show()
        show(pairs(self._summary()))
        show()
        where = f"The profiles, one JSON object a line, are in {path}"
        show(filled(where, self.screen.out), soft_wrap=True)
        show()
        show("What next", style="bold")
        show(pairs(_NEXT))

    def _summary(self) -> dict[str, str]:
        stats = self.tally.stats
        return {
            "profiles": f"{self.tally.profiles:,}",
            "unknown ids": f"{stats.invalid_user_ids:,}",
            "requests": f"{self.counters['requests']:,}",
            "429 answers": f"{self.counters['rate_limited']:,}",
            "seconds": f"{self.seconds:.1f}",
            "ids a second": f"{self.number / self.seconds:,.0f}",
        }


@asynccontextmanager
async def _local_braze(users: int) -> AsyncIterator[tuple[str, str]]:
    """Run the sandbox as a process of its own, which ends when its standard input does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "braze_export.sandbox", "--until-stdin-closes"),
        *("--users", str(users), "--latency", str(_LATENCY)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us; it ends after us
    )
    stdin = cast("asyncio.StreamWriter", process.stdin)
    stdout = cast("asyncio.StreamReader", process.stdout)
    try:
        told = await _first_line(stdout)
        yield told["url"], told["api_key"]
    finally:
        stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _STOP)
        except TimeoutError:
            process.kill()
            await process.wait()


def _day(profile: UserProfile) -> date | None:
    return profile.created_at.date() if profile.created_at else None


async def _first_line(stdout: asyncio.StreamReader) -> dict[str, str]:
    try:
        told: dict[str, str] = json.loads(await asyncio.wait_for(stdout.readline(), _START))
    except (TimeoutError, ValueError):
        raise click.ClickException(
            "The local Braze did not start: run braze-export sandbox to see why."
        ) from None
    return told


async def _counters(url: str) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/sandbox/counters") as answer,
    ):
        counters: dict[str, Any] = await answer.json()
        return counters
