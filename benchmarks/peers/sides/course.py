"""What every side shares: the task, what came of it, and the word to the runner. No libraries.

A side says that it is ready, waits for a line, works, and prints one line of JSON. Told to end
before that, it prints what it has by then.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from benchmarks.peak import peak_mb

BATCH = 50  # identifiers that Braze takes in one request
AT_ONCE = 32  # requests; what this library does unless told otherwise
#: Seconds after which those that can be told how long to wait give a request up.
PATIENCE = 10.0


class Course:
    """One task and how it goes. Not an attrs class: peers' environments are without attrs.

    Attributes:
        url: where the local Braze listens.
        key: the API key.
        ids: whom to ask for: external ids, or names of aliases.
        limit: requests per ``period`` seconds, as a caller knows them from the documentation.
        answered: external ids whose profile came.
        unknown: identifiers said to be nobody's.
        raised: how many identifiers an error was raised for, by the error's name.
    """

    def __init__(self, task: Mapping[str, Any]) -> None:
        self.url: str = task["url"]
        self.key: str = os.environ["BENCH_KEY"]
        with open(task["ids"], encoding="utf-8") as lines:
            self.ids = lines.read().split()
        self.limit: int = task["limit"]
        self.period: float = task["period"]
        self.answered: set[str] = set()
        self.unknown: set[str] = set()
        self.raised: Counter[str] = Counter()

    @property
    def headers(self) -> dict[str, str]:
        """What authorizes a request made by hand."""
        return {"Authorization": f"Bearer {self.key}"}

    def batches(self) -> Iterator[list[str]]:
        """Yield the identifiers, as many as go into one request."""
        for first in range(0, len(self.ids), BATCH):
            yield self.ids[first : first + BATCH]

    def took(self, answer: Mapping[str, Any]) -> None:
        """Note an answer as Braze sends it."""
        self.answered.update(user["external_id"] for user in answer["users"])
        self.unknown.update(answer.get("invalid_user_ids") or ())

    def failed(self, batch: list[str], error: BaseException) -> None:
        """Note that instead of an answer an error came."""
        status = getattr(error, "status", None) or getattr(
            getattr(error, "response", None), "status_code", None
        )
        self.raised[f"{type(error).__name__}{f' {status}' if status else ''}"] += len(batch)

    def ended(self, error: BaseException) -> None:
        """Note that an error ended the whole work: it stands for all that had not come."""
        open_ids = len(self.ids) - len(self.answered) - len(self.unknown)
        self.raised[type(error).__name__] += open_ids - self.raised.total()


def run(work: Callable[[Course], object]) -> None:
    """Do the work that the arguments tell of, and print what came of it."""
    course = Course(json.loads(sys.argv[1]))
    _say({"ready": True})
    sys.stdin.readline()
    began, used = time.perf_counter(), time.process_time()

    def told() -> dict[str, Any]:
        return {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - used,
            "peak_mb": peak_mb(),
            "answered": len(course.answered),
            "unknown": len(course.unknown),
            "raised": course.raised,
        }

    def end(*_: object) -> NoReturn:
        _say(told())
        os._exit(0)  # whatever hangs, hangs

    signal.signal(signal.SIGTERM, end)
    work(course)
    _say(told())


def _say(word: Any) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()
