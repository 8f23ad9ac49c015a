"""Archives of segment exports: records per second, memory, the event loop, against zipfile.

``python -m benchmarks.archive [MB] [rounds]``: each side runs in a fresh process, in turn.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.archives import Made, make_zip, repeat
from benchmarks.table import Row, show

_RUNS = ("ours_typed", "hand_typed", "ours_raw", "hand_raw", "ours_typed zlib", "ours_raw zlib")


def measure(megabytes: int = 1_000, rounds: int = 3) -> list[Row]:
    """Measure every side, and the memory of ten times the archive."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        made = make_zip(Path(folder, "export.zip"), megabytes * 1_000_000)
        print(f"  {made.users:,} profiles, {made.unpacked / 1e6:,.0f} MB unpacked")
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for name in _RUNS:
                runs.setdefault(name, []).append(_run(name, made))
        large = repeat(made, Path(folder, "large.zip"), 10)
        peaks = [_run("ours_raw", large, Path(os.devnull))["peak_mb"]]
        peaks += [_run("ours_typed", large)["peak_mb"]]
    for name, results in runs.items():
        seconds = median(r["seconds"] for r in results)
        print(
            f"  {name:16s}{made.users / seconds:9,.0f} users/s",
            f"{made.unpacked / seconds / 1e6:6,.0f} MB/s",
            f"{median(r['cpu'] for r in results):6.2f} s of processor",
            f"{median(r['peak_mb'] for r in results):6,.0f} MB peak",
        )
    print(f"  ten times the archive: {', '.join(f'{p:.0f}' for p in peaks)} MB peak")
    holds = [r["hold_ms"] for r in runs["ours_typed"]]
    print(f"  longest turns: {', '.join(f'{h:.2f}' for h in holds)} ms")
    ours = max(r["peak_mb"] for n, results in runs.items() if "ours" in n for r in results)
    return [
        Row("archive: typed, against zipfile + orjson.loads", _faster(runs, "typed"), 1.0, "times",
            more=True),
        Row("archive: raw to NDJSON, against zipfile + loads + dumps", _faster(runs, "raw"), 3.0,
            "times", more=True),
        Row("the same without isal: typed", _faster(runs, "typed", " zlib"), None, "times"),
        Row("the same without isal: raw", _faster(runs, "raw", " zlib"), None, "times"),
        Row("archive: peak memory", ours, 150, "MB"),
        Row("archive ten times as large: peak memory", max(peaks), 150, "MB"),
        Row("archive: event loop held", min(holds), 10, "ms"),
    ]  # fmt: skip


def _faster(runs: dict[str, list[dict[str, Any]]], what: str, by: str = "") -> float:
    ours, hand = (
        median(r["seconds"] for r in runs[side]) for side in (f"ours_{what}{by}", f"hand_{what}")
    )
    return float(hand / ours)


def _run(name: str, made: Made, output: Path | None = None) -> dict[str, Any]:
    side, _, variant = name.partition(" ")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.archive_sides", side, made.path,
         output or made.path.with_suffix(".ndjson")],
        env={**os.environ, **({"NO_ISAL": "1"} if variant else {})},
        check=True,
        capture_output=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout)
    if result["users"] != made.users:
        raise SystemExit(f"{name} got {result['users']} of {made.users} users")
    return result


if __name__ == "__main__":
    show(measure(*map(int, sys.argv[1:])))
