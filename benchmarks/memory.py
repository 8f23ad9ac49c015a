"""Peak memory of an export of 1,000,000 ids from a generator, against one of 10,000.

``python -m benchmarks.memory``: each export runs in a fresh process.
"""

import json
import os
import subprocess
import sys

from benchmarks.server import Server, serving
from benchmarks.table import Row, show

_FEW, _MANY = 10_000, 1_000_000


def measure() -> list[Row]:
    """Compare the peaks of the two processes, as the operating system counted them."""
    with serving("--profile=small", f"--users={_MANY}") as server:
        few, many = _peak(server, _FEW), _peak(server, _MANY)
    print(f"  {_FEW:,} ids: {few:.1f} MB, {_MANY:,} ids: {many:.1f} MB")
    return [Row(f"memory: {_MANY:,} ids against {_FEW:,}", many - few, 50, "MB more")]


def _peak(server: Server, count: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sides", "ours_typed", server.url, str(count)],
        env={**os.environ, "BENCH_KEY": server.api_key},
        check=True,
        capture_output=True,
    )
    result = json.loads(done.stdout)
    if result["users"] != count:
        raise SystemExit(f"got {result['users']} of {count} users")
    return float(result["peak_mb"])


if __name__ == "__main__":
    show(measure())
