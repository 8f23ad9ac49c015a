"""All outcomes of a run, and what they say against the perfect scheduler."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from attrs import asdict, frozen

from benchmarks.peers.cells import Outcome
from benchmarks.peers.counts import Counts
from benchmarks.peers.works import WORKS, Work


@frozen
class Figures:
    """What one run measured.

    Attributes:
        outcomes: one for each cell, in the order of the tables.
        service: seconds that so many requests take without a client, by their number.
        load: the machine's load average over a minute, before and after.
        minutes: that the run took.
        when: the day.
    """

    outcomes: list[Outcome]
    service: Mapping[int, float]
    load: tuple[float, float]
    minutes: float
    when: str

    def of(self, work: Work) -> list[Outcome]:
        """Return the outcomes of a work."""
        return [outcome for outcome in self.outcomes if outcome.work == work.name]

    def perfect(self, work: Work, outcome: Outcome) -> float:
        """Return the perfect scheduler's seconds for a start at the same moment."""
        return work.perfect(outcome.began, self.service.__getitem__)

    def ratio(self, work: Work, outcome: Outcome) -> float:
        """Return the time against the perfect scheduler's."""
        return outcome.seconds / self.perfect(work, outcome)

    def works(self) -> Iterator[tuple[Work, list[Outcome]]]:
        """Yield each work with its outcomes."""
        yield from ((work, self.of(work)) for work in WORKS)

    def save(self, path: Path) -> None:
        """Write them down, so that tables can be drawn again."""
        path.write_text(json.dumps(asdict(self), indent=1), "utf-8")

    @classmethod
    def load_from(cls, path: Path) -> Self:
        """Return what was saved."""
        told: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return cls(
            outcomes=[
                Outcome(**(outcome | {"counts": Counts(**outcome["counts"])}))
                for outcome in told["outcomes"]
            ],
            service={int(number): seconds for number, seconds in told["service"].items()},
            load=tuple(told["load"]),
            minutes=told["minutes"],
            when=told["when"],
        )
