"""One cell: one side does one work, against a server process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import asdict, define, frozen

from benchmarks.peers.counts import Counts
from benchmarks.peers.environments import ROOT, Side
from benchmarks.peers.works import DOCUMENTED, Work

_WARMING = 40  # requests, so that every profile was made once


@frozen
class Outcome:
    """What came of a cell.

    Attributes:
        work: its name.
        side: its name.
        counts: what the server saw.
        seconds: from the first step to the last, the start of the process left out.
        began: seconds that the first window was old at the start.
        cpu: seconds of the processor in that time.
        peak_mb: the most memory that the process ever held.
        answered: users whose profile came.
        unknown: identifiers said to be nobody's.
        raised: identifiers that an error stands for, by its name.
        asked: identifiers in all.
        ended: whether it was ended before it was done.
    """

    work: str
    side: str
    counts: Counts
    seconds: float
    began: float
    cpu: float
    peak_mb: float
    answered: int
    unknown: int
    raised: Mapping[str, int]
    asked: int
    ended: bool

    @property
    def lost(self) -> int:
        """Identifiers of which the caller has neither a profile nor any word."""
        return self.asked - self.answered - self.unknown - sum(self.raised.values())

    @property
    def whole(self) -> bool:
        """Whether every identifier got its profile, or was named as nobody's."""
        return self.answered + self.unknown == self.asked


@define
class _Talk:
    """A process that takes a line and gives a line."""

    process: "subprocess.Popen[str]"
    dead: bool = False

    def hear(self) -> Any:
        """Wait for a line of JSON."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended without a word: {self.process.args!r}")
        return json.loads(line)

    def say(self, word: str) -> None:
        """Give it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Ask it to tell what it has, and end."""
        self.dead = True
        self.process.send_signal(signal.SIGTERM)


def play(work: Work, side: Side, ids: Path, places: Path) -> Outcome:
    """Measure one cell.

    Args:
        work: what is to be done.
        side: who does it.
        ids: a file of identifiers, one a line.
        places: where the environments are.
    """
    limit, period = work.limit or DOCUMENTED
    manner = json.dumps(asdict(work.manner))
    serving = [sys.executable, "-m", "benchmarks.peers.server", manner]
    with _talking(serving, os.environ) as server:
        said = server.hear()
        _warm(said["url"], said["api_key"])
        task = json.dumps({"url": said["url"], "ids": str(ids), "limit": limit, "period": period})
        command = [*side.command(places), task, *side.manner]
        with _talking(command, side.surroundings(places, said["api_key"])) as client:
            client.hear()
            # Windows are told in whole seconds, and the first begins with this one.
            time.sleep(-time.time() % 1 + 0.003)
            server.say(json.dumps("begin"))
            server.hear()
            began = time.time() % 1
            client.say("go")
            alarm = threading.Timer(work.patience, client.end)
            alarm.start()
            told = client.hear()
            alarm.cancel()
        server.say(json.dumps("report"))
        counts = Counts(*server.hear())
    return Outcome(
        work=work.name, side=side.name, counts=counts, began=began, ended=client.dead,
        asked=work.asked[0], **told,
    )  # fmt: skip


@contextmanager
def _talking(command: list[str], surroundings: Mapping[str, str]) -> Iterator[_Talk]:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(surroundings),
    ) as process:
        assert process.stdin is not None
        try:
            yield _Talk(process)
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _warm(url: str, key: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for number in range(_WARMING):
        ids = [f"u{50 * number + place}" for place in range(1, 51)]
        request = urllib.request.Request(
            f"{url}/users/export/ids",
            json.dumps({"external_ids": ids}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with opener.open(request) as answer:
            answer.read()
