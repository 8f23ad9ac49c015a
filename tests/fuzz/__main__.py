"""Runs the harnesses, one after the other: ``python -m tests.fuzz SECONDS FOLDER [GROUP ...]``.

What reaches new code is kept in the folder, and is where the next run goes on.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

GROUPS: Final = ("codec", "archive", "headers", "inputs", "parquet")
_STATS: Final = re.compile(r"stat::number_of_executed_units: +(\d+)")
_REACHED: Final = re.compile(r"cov: (\d+)")


def main(seconds: int, place: Path, groups: list[str]) -> int:
    """Fuzz each group for so many seconds; return how many of them found something."""
    return sum(_found(group, seconds, place / group) for group in groups)


def _found(group: str, seconds: int, place: Path) -> bool:
    command = (sys.executable, "-m", "tests.fuzz.running", group, str(seconds), str(place))
    ended = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    runs, reached = _STATS.search(ended.stderr), _REACHED.findall(ended.stderr)
    findings = sorted((place / "findings").glob("*"))
    sys.stdout.write(
        f"{group}: {int(runs[1]) if runs else 0:,} inputs, {reached[-1] if reached else 0} "
        f"branches, {len(findings)} files of findings, ended with {ended.returncode}\n"
    )
    for finding in findings:
        sys.stdout.write(f"  {finding}\n")
    if runs is None:
        sys.stdout.write(ended.stderr[-2000:])
    return bool(findings) or ended.returncode != 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(GROUPS)))
