"""Everybody does everything: ``python -m benchmarks.peers PLACES``.

The environments are made in the directory ``PLACES`` and kept there, with the figures. Writes the
tables into ``RESULTS.md`` and draws ``peers.svg``.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from statistics import median

from attrs import define

from benchmarks.peers import picture, tables
from benchmarks.peers.cells import Outcome, play
from benchmarks.peers.environments import NOBODY, SIDES, Side, build
from benchmarks.peers.figures import Figures
from benchmarks.peers.works import ASKED, WORKS, Work

_SERVICE_ROUNDS = 3


@define
class _Runner:
    """What a run needs.

    Attributes:
        places: where the environments are.
        lists: where the files of identifiers are.
    """

    places: Path
    lists: Path

    def service(self) -> dict[int, float]:
        """Measure how long requests take without a client, for each number that is needed."""
        free = WORKS[0]
        return {
            requests: median(
                play(free, NOBODY, self._ids(free, NOBODY, 50 * requests), self.places).seconds
                for _ in range(_SERVICE_ROUNDS)
            )
            for requests in sorted({work.last for work in WORKS})
        }

    def outcomes(self, number: int, work: Work) -> Iterator[Outcome]:
        """Do a work with every side; yield the run of median time for each.

        Args:
            number: of the work: whoever is first, is not so in the next.
            work: what is to be done.
        """
        sides = [side for side in SIDES if work.hurried or not side.only_hurried]
        runs: dict[Side, list[Outcome]] = {side: [] for side in sides}
        for turn in range(work.rounds):
            first = 2 * (number + turn) % len(sides)
            order = sides[first:] + sides[:first]
            for side, outcome in zip(order, self._round(work, order), strict=True):
                runs[side].append(outcome)
        for outcomes in runs.values():
            yield sorted(outcomes, key=lambda outcome: outcome.seconds)[len(outcomes) // 2]

    def _round(self, work: Work, sides: list[Side]) -> list[Outcome]:
        at_once = 1 if work.apart is None else len(sides)
        with ThreadPoolExecutor(at_once) as threads:
            started = [
                threads.submit(self._cell, work, side, number * (work.apart or 0.0))
                for number, side in enumerate(sides)
            ]
            return [cell.result() for cell in started]

    def _cell(self, work: Work, side: Side, after: float) -> Outcome:
        time.sleep(after)
        outcome = play(work, side, self._ids(work, side, ASKED), self.places)
        print(
            f"  {side.name}: {outcome.seconds:.2f} s, {outcome.answered} answered, "
            f"{outcome.unknown} unknown, {dict(outcome.raised)}, {outcome.counts}",
            flush=True,
        )
        return outcome

    def _ids(self, work: Work, side: Side, asked: int) -> Path:
        path = self.lists / f"{'aliases' if side.aliases else 'ids'}-{work.unknown}-{asked}.txt"
        lines = islice(_names(aliases=side.aliases, unknown=work.unknown), asked)
        path.write_text("\n".join(lines), "utf-8")
        return path


def _names(*, aliases: bool, unknown: bool) -> Iterator[str]:
    """Yield identifiers of the local Braze, one in ten of them nobody's if so wished."""
    somebody, nobody = ("user_", "nobody_x") if aliases else ("u", "nobody")
    # Every tenth user has the e-mail address of another, and one of our peers yields addresses.
    users = (number for number in count(1) if number % 10)
    for place in count():
        yield f"{nobody}{place}" if unknown and place % 10 == 7 else f"{somebody}{next(users)}"


def measure(places: Path) -> Figures:
    """Run everything once, and return the figures."""
    build(places)
    began, before = time.time(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as lists:
        runner = _Runner(places, Path(lists))
        service = runner.service()
        outcomes: list[Outcome] = []
        for number, work in enumerate(WORKS):
            print(f"{work.name} ...", flush=True)
            outcomes += runner.outcomes(number, work)
    return Figures(
        outcomes,
        service,
        (before, os.getloadavg()[0]),
        (time.time() - began) / 60,
        time.strftime("%Y-%m-%d"),
    )


def main() -> None:
    """Measure, write and draw."""
    places = Path(sys.argv[1]).resolve()
    figures = measure(places)
    figures.save(places / "figures.json")
    tables.write(figures)
    picture.draw(figures)
    print(tables.rendered(figures))


if __name__ == "__main__":
    main()
