"""Users per second on loopback, full 20 KB profiles, against hand-written aiohttp.

``python -m benchmarks.end_to_end [users] [rounds]``: each side runs in a fresh process, in turn.
"""

import json
import os
import subprocess
import sys
from statistics import median
from typing import Any

from benchmarks.server import Server, serving
from benchmarks.table import Row, show

PAIRS = [
    ("typed profiles, against gather + orjson.loads", "ours_typed", "hand_typed", 1.25),
    ("the same, against 16 at once, nothing kept", "ours_typed", "bounded_typed", None),
    ("raw to NDJSON, against gather + orjson.dumps", "ours_raw", "hand_raw", 4.0),
    ("the same, against 16 at once, nothing kept", "ours_raw", "bounded_raw", None),
]


def measure(users: int = 5_000, rounds: int = 3) -> list[Row]:
    """Measure every side, and compare the medians."""
    runs: dict[str, list[dict[str, Any]]] = {}
    sides = sorted({side for _, ours, theirs, _ in PAIRS for side in (ours, theirs)})
    with serving("--profile=full", f"--users={users}") as server:
        for _ in range(rounds):
            for side in sides:
                runs.setdefault(side, []).append(_run(side, server, users))
    for side, results in runs.items():
        print(
            f"  {side:14s}",
            f"{users / median(r['seconds'] for r in results):9,.0f} users/s",
            f"{median(r['cpu'] for r in results):6.2f} s of processor",
            f"{median(r['peak_mb'] for r in results):8,.0f} MB peak",
        )
    return [
        Row(f"end to end: {what}", _faster(runs[ours], runs[theirs]), need, "times", more=True)
        for what, ours, theirs, need in PAIRS
    ]


def _faster(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    ratio: float = median(r["seconds"] for r in theirs) / median(r["seconds"] for r in ours)
    return ratio


def _run(side: str, server: Server, users: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sides", side, server.url, str(users)],
        env={**os.environ, "BENCH_KEY": server.api_key},
        check=True,
        capture_output=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    if result["users"] != users:
        raise SystemExit(f"{side} got {result['users']} of {users} users")
    return result


if __name__ == "__main__":
    show(measure(*map(int, sys.argv[1:])))
