"""A virtual environment for each side, and what runs in it. Everything of others is pinned."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parents[2]
_AIOHTTP: Final = ("aiohttp==3.14.5", "orjson==3.13.0")
_AIOLIMITER: Final = (*_AIOHTTP, "aiolimiter==1.3.0")
_HERE: Final = str(Path(__file__).parent / "sides")


@frozen
class Side:
    """Who does the works.

    Attributes:
        name: in the tables.
        module: of ``sides/``.
        packages: what its environment holds.
        manner: what the module is told beside the task.
        aliases: whether it asks by aliases.
        only_hurried: whether it takes part only in works that try a shorter timeout.
    """

    name: str
    module: str
    packages: tuple[str, ...] = ()
    manner: tuple[str, ...] = ()
    aliases: bool = False
    only_hurried: bool = False

    def command(self, places: Path) -> list[str]:
        """Return the command that runs it, the task left out."""
        if self.module.endswith(".cjs"):
            return ["node", f"{_HERE}/{self.module}"]
        python = str(_place(places, self) / "bin" / "python")
        return [python, "-m", f"benchmarks.peers.sides.{self.module}"]

    def surroundings(self, places: Path, key: str) -> dict[str, str]:
        """Return the environment variables that it runs with: no proxies, the key."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        modules = str(_place(places, self) / "node_modules")
        return kept | {"BENCH_KEY": key, "NODE_PATH": modules}


_OURS: Final = ("-e", str(ROOT))
SIDES: Final = [
    Side("braze_export, `.raw()`", "ours", _OURS, ("raw",)),
    Side("braze_export, typed", "ours", _OURS, ("typed",)),
    Side("braze_export, typed, `Timeouts(read=10)`", "ours", _OURS, ("hurried",),
         only_hurried=True),
    Side("by hand: aiohttp, semaphore, orjson", "aiohttp_by_hand", _AIOHTTP),
    Side("by hand: httpx, semaphore", "httpx_by_hand", ("httpx==0.28.1",)),
    Side("by hand: aiohttp, aiolimiter, naive", "aiolimiter_naive", _AIOLIMITER),
    Side("braze-client-p311 0.0.5", "p311", ("braze-client-p311==0.0.5",)),
    Side("braze-client-sdk 1.0.0", "sdk", ("braze-client-sdk==1.0.0",)),
    Side("edx-braze-client 1.1.4", "edx", ("edx-braze-client==1.1.4",), aliases=True),
    Side("braze-api 2.13.4 (Node.js)", "braze_api.cjs", ("braze-api@2.13.4",)),
]  # fmt: skip
#: The bytes alone, for the perfect scheduler.
NOBODY: Final = Side("nobody", "nobody")


def build(places: Path) -> None:
    """Make the environments that are not there yet, or hold something else."""
    for side in (*SIDES, NOBODY):
        place = _place(places, side)
        done, held = place / "done", "\n".join(side.packages)
        if not done.exists() or done.read_text("utf-8") != held:
            print(f"environment of {side.module} ...", flush=True)
            place.mkdir(parents=True, exist_ok=True)
            for command in _building(place, side):
                subprocess.run(command, check=True, cwd=place)
            done.write_text(held, "utf-8")


def _building(place: Path, side: Side) -> list[list[str]]:
    if side.module.endswith(".cjs"):
        return [["npm", "install", "--silent", "--prefix", str(place), *side.packages]]
    commands = [[sys.executable, "-m", "venv", str(place)]]
    if side.packages:
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "-q"]
        commands.append([*pip, *side.packages])
    return commands


def _place(places: Path, side: Side) -> Path:
    return places / side.module.partition(".")[0]
