"""Long runs, and whether they hold more the longer they last: ``nox -s soak``.

10,000,000 identifiers through the pipeline, 20,000,000 profiles through an archive, each in a fresh
process that notes its memory, descriptors and tasks; then a backend for an hour
(``benchmarks.lookup_soak``). Each draws ``benchmarks/soak_NAME.svg``.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from math import ceil
from pathlib import Path

from attrs import asdict

from benchmarks.archives import make_zip, repeat, shaped_lines
from benchmarks.canned import canned
from benchmarks.course import Sample, draw, sample
from benchmarks.lookup_soak import measure as measure_backend
from benchmarks.sides import UNLIMITED
from benchmarks.table import Row, show
from braze_export import BrazeClient, UserProfile, read_archive

_IDS, _PROFILES = 10_000_000, 20_000_000
_SIZE = 10**9  # bytes of the archive that is repeated
_EVERY = 2.0  # seconds
_FOLDER = Path(__file__).parent


def measure() -> list[Row]:
    """Run the two that need no hour."""
    with canned("--profile-bytes=300") as braze:
        rows = _rows("ids", _IDS, _run("ids", braze.url, str(_IDS), key=braze.api_key))
    with tempfile.TemporaryDirectory() as folder:
        once = make_zip(Path(folder, "once.zip"), _SIZE, lines=shaped_lines("typical"))
        whole = repeat(once, Path(folder, "whole.zip"), ceil(_PROFILES / once.users))
        packed, unpacked = whole.path.stat().st_size / 1e9, whole.unpacked / 1e9
        print(f"  archive: {packed:.1f} GB, unpacked {unpacked:.0f} GB")
        rows += _rows("archive", whole.users, _run("archive", str(whole.path)))
    return rows


def _run(*arguments: str, key: str = "") -> tuple[int, list[Sample]]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--side", *arguments],
        env={**os.environ, "BENCH_KEY": key},
        check=True,
        stdout=subprocess.PIPE,
    )
    told = json.loads(done.stdout)
    return told["users"], [Sample(**one) for one in told["samples"]]


def _rows(name: str, expected: int, told: tuple[int, list[Sample]]) -> list[Row]:
    users, samples = told
    draw(f"{expected:,} profiles: {name}", samples, _FOLDER / f"soak_{name}.svg")
    half = len(samples) // 2
    early, late = (max(s.memory_mb for s in part) for part in (samples[1:half], samples[half:]))
    seconds, tasks = samples[-1].seconds, max(s.tasks for s in samples)
    print(f"  {name}: {users:,} in {seconds:,.0f} s, at most {late:.0f} MB, {tasks:.0f} tasks")
    return [
        Row(f"{name}: profiles that are missing, or too many", abs(expected - users), 0, ""),
        Row(f"{name}: memory, second half against the first", late - early, 5, "MB"),
        Row(
            f"{name}: descriptors at the end against the middle",
            samples[-1].descriptors - samples[half].descriptors,
            0,
            "",
        ),
    ]


async def _ids(url: str, count: str) -> AsyncIterator[object]:
    ids = (f"u{n}" for n in range(1, int(count) + 1))
    async with BrazeClient(os.environ["BENCH_KEY"], url, limits=UNLIMITED) as braze:
        async for profile in braze.users.export_ids(ids).profiles():
            yield profile


async def _archive(path: str) -> AsyncIterator[object]:
    async for profile in read_archive(path):
        yield profile


_SIDES: dict[str, Callable[..., AsyncIterator[object]]] = {"ids": _ids, "archive": _archive}


async def _side(name: str, *arguments: str) -> None:
    """Take all profiles, and look at this process now and then."""
    began = due = time.monotonic()
    users, samples = 0, []
    async for profile in _SIDES[name](*arguments):
        users += isinstance(profile, UserProfile)
        if users % 1000 == 0 and time.monotonic() >= due:
            samples.append(sample(began, len(asyncio.all_tasks())))
            due += _EVERY
    print(json.dumps({"users": users, "samples": [asdict(one) for one in samples]}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--backend", type=float, default=3600, help="seconds; 0 leaves it out")
    options = parser.parse_args()
    if options.side:
        asyncio.run(_side(*options.side))
    else:
        rows = measure()
        show(rows + (measure_backend(options.backend) if options.backend else []))
