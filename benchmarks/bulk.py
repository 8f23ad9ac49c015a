"""Bulk jobs, journal included, against hand-written ones without: ids per second, and memory.

``python -m benchmarks.bulk [ids] [rounds]``: the sides in turn, each in a fresh process, and
medians. ``python -m benchmarks.bulk --memory``: the peaks of 1,000,000 and 10,000,000 ids.
The outputs lie below the current directory, one at a time, some 2.4 GB for 1,000,000 ids.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bulk_sides import IDS
from benchmarks.canned import WHOLE, canned, counts
from benchmarks.server import Server
from benchmarks.sides import identifiers
from benchmarks.table import Row, show

PAIRS = [
    ("NDJSON, against hand-written aiohttp + orjson", "ours_ndjson", "hand_ndjson", 1.5),
    ("Parquet, against from_pylist", "ours_parquet", "hand_parquet", 1.5),
]
_MILLION = 1_000_000
_MEMORY = [  # side, ids, bytes of a profile
    ("ours_ndjson", _MILLION, WHOLE),
    ("ours_parquet", _MILLION, WHOLE),
    ("ours_ndjson", 10 * _MILLION, 300),
]
_PEAK = 200  # MB
_ROOM = 2.5  # an output, what it is made from, and the journal, in sizes of an output


def measure(ids: int = _MILLION, rounds: int = 3) -> list[Row]:
    """Measure every side, and compare the medians."""
    sides = ["server_alone", *(side for _, *both, _ in PAIRS for side in reversed(both))]
    runs = compare(sides, ids, rounds)
    return [
        Row(f"bulk: {what}", _faster(runs[ours], runs[theirs]), need, "times", more=True)
        for what, ours, theirs, need in PAIRS
    ]


def compare(sides: list[str], ids: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run the sides in turn, print the medians, and return all of it."""
    runs: dict[str, list[dict[str, Any]]] = {}
    with canned() as server:
        for _ in range(rounds):
            for side in sides:
                runs.setdefault(side, []).append(_run(side, server, ids, WHOLE))
    for side, results in runs.items():
        _print(side, results)
    return runs


def measure_memory() -> list[Row]:
    """Measure the peaks, as the operating system counted them."""
    return [_peak(*what) for what in _MEMORY]


def _peak(side: str, ids: int, profile_bytes: int) -> Row:
    with canned(f"--profile-bytes={profile_bytes}") as server:
        result = _run(side, server, ids, profile_bytes)
    _print(side, [result])
    kind = side.removeprefix("ours_")
    return Row(f"bulk: peak memory, {ids:,} ids to {kind}", result["peak_mb"], _PEAK, "MB")


def _run(side: str, server: Server, ids: int, profile_bytes: int) -> dict[str, Any]:
    before = counts(server)["cpu"]
    with _directory(int(ids * profile_bytes * _ROOM)) as directory:
        with (directory / IDS).open("w") as file:
            file.writelines(f"{name}\n" for name in identifiers(ids))
        command = ["benchmarks.bulk_sides", side, server.url, str(ids), str(directory)]
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env={**os.environ, "BENCH_KEY": server.api_key},
            check=True,
            stdout=subprocess.PIPE,
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return {**result, "server_cpu": counts(server)["cpu"] - before}


@contextmanager
def _directory(room: int) -> Iterator[Path]:
    """Make a directory on this disk, and leave nothing of it to be written for the next side."""
    with tempfile.TemporaryDirectory(prefix=".bulk-", dir=Path.cwd()) as name:
        if shutil.disk_usage(name).free < room:
            raise SystemExit(f"not enough room: {room / 1e9:.1f} GB are needed here")
        yield Path(name)
    os.sync()


def _print(side: str, results: list[dict[str, Any]]) -> None:
    ids = results[0]["ids"]
    print(
        f"  {side:12s} {ids:10,} ids",
        f"{ids / median(r['seconds'] for r in results):9,.0f} ids/s",
        f"{median(r['cpu'] for r in results):7.2f} s of processor",
        f"{median(r['peak_mb'] for r in results):6,.0f} MB peak",
        f"{median(r['server_cpu'] for r in results):6.2f} s of the server's",
        flush=True,
    )


def _faster(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    ratio: float = median(r["seconds"] for r in theirs) / median(r["seconds"] for r in ours)
    return ratio


if __name__ == "__main__":
    if sys.argv[1:] == ["--memory"]:
        show(measure_memory())
    else:
        show(measure(*map(int, sys.argv[1:])))
