"""A bulk job that is killed at random moments, and resumed each time by the same command.

``python -m benchmarks.kills [ids] [kills]``: checks that afterwards every identifier is in
exactly one of the three places, and how many were asked again. Then another job, killed once
when 90 % of it are done.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, frozen

from benchmarks.canned import Canned, canned, counts
from benchmarks.server import Server
from benchmarks.table import Row, show

_BYTES = 300  # of a profile
_LATENCY = 0.2  # seconds: what makes a job last
_AT_ONCE = 32  # the command's own default
_PER_REQUEST = 50
_PER_SECOND = _AT_ONCE * _PER_REQUEST / _LATENCY  # ids, at most
_IN_FLIGHT = _AT_ONCE * _PER_REQUEST
_START = 0.5  # seconds that the command takes before its first request, about
_DONE, _SOME_FAILED = 0, 4  # exit codes
_LONGEST = 600  # seconds
_SEED = 5
_UNKNOWN, _REFUSED = 97, 20_011  # every so manieth identifier
_EXTERNAL_ID = re.compile(rb'"external_id":"([^"]*)"')


def measure(ids: int = 400_000, kills: int = 50) -> list[Row]:
    """Kill a job so many times, and another one once."""
    options = (f"--profile-bytes={_BYTES}", f"--latency={_LATENCY}", "--count")
    with tempfile.TemporaryDirectory(prefix=".kills-", dir=Path.cwd()) as name:
        folder = Path(name)
        _write(folder / "ids.txt", ids)
        with canned(*options) as server:
            rows = _often(Job(server, folder / "ids.txt", folder / "often.ndjson"), ids, kills)
        with canned(*options) as server:
            rows += _late(Job(server, folder / "ids.txt", folder / "late.ndjson"), ids)
    return rows


def _write(path: Path, ids: int) -> None:
    with path.open("w") as file:
        file.writelines(f"{_named(number)}\n" for number in range(1, ids + 1))


def _named(number: int) -> str:
    if number % _REFUSED == 0:
        return f"p{number}"
    return f"x{number}" if number % _UNKNOWN == 0 else f"u{number}"


@define
class Job:
    """The command, as somebody types it again and again."""

    server: Server
    ids: Path
    output: Path

    def kill_after(self, seconds: float) -> bool:
        """Start the command, and kill it then; return whether it was still at work."""
        process = self._start()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill(process)
            return True
        self._check(process.returncode)
        return False

    def kill_once(self, ready: Callable[[], bool]) -> None:
        """Start the command, and kill it at that moment."""
        process = self._start()
        while not ready():
            if process.poll() is not None:
                self._check(process.returncode)
                raise SystemExit("the job ended before it was killed")
            time.sleep(0.02)
        self._kill(process)

    def finish(self) -> None:
        """Let the command come to its end."""
        self._check(self._start().wait(_LONGEST))

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "braze_export.cli", "ids", str(self.ids)]
        environment = {
            **os.environ,
            "BRAZE_API_KEY": self.server.api_key,
            "BRAZE_REST_ENDPOINT": self.server.url,
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "-o", str(self.output)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
        process.wait()

    def _check(self, code: int) -> None:
        if code not in (_DONE, _SOME_FAILED):
            said = self._log.read_text()[-3000:]
            raise SystemExit(f"the command ended with {code}:\n{said}")

    @property
    def _log(self) -> Path:
        return self.output.with_suffix(".log")


@frozen
class Outcome:
    """What is wrong in the three places together.

    Attributes:
        lost: identifiers that are nowhere.
        repeated: rows too many.
        wrong: rows in another place than theirs, or with other bytes than were sent.
        counts: rows in each place.
    """

    lost: int
    repeated: int
    wrong: int
    counts: dict[str, int]


def inspect(job: Job) -> Outcome:
    """Read the three places."""
    wanted = set(job.ids.read_text().split())
    places = {"u": list(_profiles(job.output)), "x": _unknown(job.output), "p": _failed(job.output)}
    seen = Counter(name for names in places.values() for name, _ in names)
    return Outcome(
        lost=len(wanted - seen.keys()),
        repeated=seen.total() - len(seen),
        wrong=sum(
            not right or not name.startswith(first) or name not in wanted
            for first, names in places.items()
            for name, right in names
        ),
        counts={first: len(names) for first, names in places.items()},
    )


def _profiles(output: Path) -> Iterator[tuple[str, bool]]:
    """Yield the external id of each line, and whether the line is what the server sent."""
    sent = Canned.of(_BYTES)
    with output.open("rb") as file:
        for line in file:
            found = _EXTERNAL_ID.search(line)
            name = found[1].decode() if found else ""
            yield name, line == sent.profile(name or "u0") + b"\n"


def _unknown(output: Path) -> list[tuple[str, bool]]:
    lines = output.with_suffix(".unknown.txt").read_text().splitlines()
    return [(line, True) for line in lines]


def _failed(output: Path) -> list[tuple[str, bool]]:
    lines = output.with_suffix(".failed.ndjson").read_text().splitlines()
    return [(json.loads(line)["identifier"], True) for line in lines]


def _often(job: Job, ids: int, kills: int) -> list[Row]:
    dice = random.Random(_SEED)
    made = 0
    while made < kills and job.kill_after(dice.uniform(0.05, _longest(job, ids, kills - made))):
        made += 1
    before = counts(job.server)["identifiers"]
    print(f"  killed {made} times, {before:,} of {ids:,} ids were answered by then", flush=True)
    job.finish()
    outcome, again = inspect(job), counts(job.server)["again"]
    print(f"  {outcome}, asked again: {again:,}", flush=True)
    return [
        Row("kills: made before the job's end", made, kills, "kills", more=True),
        *_rows("kills", outcome),
        Row("kills: asked again, for each kill", again / max(made, 1), _IN_FLIGHT, "ids"),
    ]


def _longest(job: Job, ids: int, kills: int) -> float:
    """Return the longest life of the next run, so that the work lasts for all of the kills."""
    left: float = (ids - counts(job.server)["identifiers"]) / _PER_SECOND
    return _START + 1.6 * left / kills


def _late(job: Job, ids: int) -> list[Row]:
    job.kill_once(lambda: counts(job.server)["identifiers"] >= 0.9 * ids)
    job.finish()
    outcome, again = inspect(job), counts(job.server)["again"]
    print(f"  killed at 90 %: {outcome}, asked again: {again:,}", flush=True)
    return [
        *_rows("killed at 90 %", outcome),
        Row("killed at 90 %: asked again", again, _IN_FLIGHT, "ids"),
    ]


def _rows(job: str, outcome: Outcome) -> list[Row]:
    return [
        Row(f"{job}: lost", outcome.lost, 0, "ids"),
        Row(f"{job}: repeated", outcome.repeated, 0, "ids"),
        Row(f"{job}: in the wrong place, or changed", outcome.wrong, 0, "rows"),
    ]


if __name__ == "__main__":
    show(measure(*map(int, sys.argv[1:])))
