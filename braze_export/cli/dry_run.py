"""``ids --dry-run``: what an export would take, without a key and with nothing sent."""

import asyncio
from collections.abc import Sequence

from attrs import frozen

from braze_export import Estimate, Limits, estimate
from braze_export.cli.progress import duration
from braze_export.cli.reading import Arguments, Source, identifiers
from braze_export.cli.screen import Screen, filled
from braze_export.cli.tables import pairs
from braze_export.jobs.kinds import Kind


@frozen
class Rehearsal:
    """What is known of an export that is only reckoned.

    Attributes:
        source: of the identifiers. Read to its end, and never held whole.
        kind: what they are.
        fields: to be exported.
        most: so many profiles are enough. That each identifier has one is the best case.
        limits: of the workspace.
    """

    source: Source
    kind: Kind
    fields: Sequence[str] | None
    most: int | None
    limits: Limits

    def estimate(self, identifiers: int) -> Estimate:
        """Return what so many identifiers take at least."""
        enough = identifiers if self.most is None else min(identifiers, self.most)
        return estimate(
            enough, fields=self.fields, limits=self.limits, one_each=self.kind.together == 1
        )

    async def count(self) -> int:
        """Return how many identifiers there are. A repeated one counts each time."""
        number = 0
        async for _ in identifiers(self.source, self.kind):
            number += 1
        return number


def rehearse(rehearsal: Rehearsal, screen: Screen, *, quiet: bool) -> None:
    """Read the identifiers, and print what their export would take."""
    number = asyncio.run(rehearsal.count())
    if not number:
        if not quiet:
            screen.say("There were no identifiers: the input is empty")
        return
    made = rehearsal.estimate(number)
    screen.out.print(pairs(_rows(rehearsal.source, number, made)))
    if made.advice:
        screen.out.print(f"\n{filled(made.advice, screen.out)}", soft_wrap=True)
    if not quiet:
        screen.say(
            "Nothing was sent. The time that the requests themselves take comes on top; what is "
            "asked for twice in short order is sent once."
        )


def _rows(source: Source, number: int, made: Estimate) -> dict[str, str]:
    rows = {"lines read": f"{source.lines:,}"} if not isinstance(source, Arguments) else {}
    rows["identifiers"] = f"{number:,}"
    if made.identifiers < number:
        rows["needed"] = f"{made.identifiers:,}, see --limit"
    rows["requests"] = f"{made.requests:,}"
    rows["limit"] = _limit(made)
    rows["least time"] = duration(made.seconds)
    return rows


def _limit(made: Estimate) -> str:
    limit = made.limit
    text = f"{limit.max_requests:,} requests per {limit.period:,g} s"
    left = limit.max_requests - made.per_window
    return f"{text}, {left:,} of them left to others" if left else text
