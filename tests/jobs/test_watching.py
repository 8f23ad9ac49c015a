"""What is told of silence: an outage is one, a window that is used up is none."""

from typing import Any

import pytest
from attrs import define

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.errors import ServerError
from braze_export.jobs.recorder import Settled
from braze_export.jobs.slices import Slice
from braze_export.jobs.values import Phase
from braze_export.jobs.verdicts import Judge
from braze_export.jobs.watching import Watch
from braze_export.limiting.limits import PoolSnapshot
from braze_export.models.results import FailedBatch

DOWN = ServerError("down", status=503)
OPEN = {"remaining": 100, "waiting": 0}
USED_UP = {"remaining": 0, "waiting": 32}


@define
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def failed(number: int) -> Settled:
    batch = Batch((f"u{number}",))
    return Settled(Slice(number, batch), Outcome(failed=[FailedBatch(batch.identifiers, DOWN)]))


def watch(clock: Clock, limit: dict[str, int], phase: Phase = "exporting") -> Watch:
    usual: dict[str, Any] = {"limit": 250, "resets_in": 50.0, "in_flight": 0}
    usual |= {"sent": 0, "refused": 0, "seconds_waited": 0.0}
    pool = PoolSnapshot(**(usual | limit))
    return Watch(lambda: {"ids": pool}, clock, phase=phase)


@pytest.mark.parametrize(
    ("limit", "failures", "told"),
    [
        (OPEN, [], (0.0, "", None)),
        (USED_UP, [], (0.0, "", None)),
        (OPEN, [10.0], (50.0, "ServerError 503", 850.0)),
        (OPEN, [10.0, 30.0], (50.0, "ServerError 503", 850.0)),
        (USED_UP, [10.0], (0.0, "ServerError 503", 850.0)),
        (USED_UP, [10.0, 30.0], (20.0, "ServerError 503", 850.0)),
        (OPEN | {"waiting": 32}, [10.0], (50.0, "ServerError 503", 850.0)),
    ],
)
def test_silence(limit: dict[str, int], failures: list[float], told: Any) -> None:
    clock = Clock()
    seen = watch(clock, limit)
    seen.judge = judge = Judge(900.0, accepted=True)
    for number, at in enumerate(failures):
        judge.verdict(failed(number), 1000.0 + at)
    clock.now = 1060.0
    reading = seen.reading()
    assert (reading.silent, reading.trouble, reading.patience_left) == told


@pytest.mark.parametrize("phase", ["reading", "writing", "done"])
def test_where_nothing_is_asked_for_there_is_no_silence(phase: Phase) -> None:
    clock = Clock()
    seen = watch(clock, OPEN, phase)
    seen.judge = judge = Judge(900.0, accepted=True)
    judge.verdict(failed(1), 1010.0)
    clock.now = 1060.0
    reading = seen.reading()
    assert (reading.silent, reading.trouble, reading.patience_left) == (0.0, "", None)
