"""``ids --dry-run``: what an export would take, without a key and with nothing sent."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from attrs import define, frozen

from braze_export import Estimate, Limits, estimate
from braze_export.cli.progress import duration
from braze_export.cli.reading import Lines, Rows, Source
from braze_export.cli.screen import Screen, filled
from braze_export.cli.tables import pairs
from braze_export.jobs.kinds import Kind
from braze_export.jobs.reading.repeats import Repeated, Repeats
from braze_export.jobs.values import Unusable

_BLOCK: Final = 10_000


@define
class Misfits:
    """Counts what cannot be an identifier."""

    number: int = 0

    def add(self, _item: Unusable) -> None:
        """Take one."""
        self.number += 1


@frozen
class Rehearsal:
    """What is known of an export that is only reckoned.

    Attributes:
        source: of the identifiers. Read to its end, and never held whole.
        kind: what they are.
        fields: to be exported.
        most: so many profiles are enough. That each identifier has one is the best case.
        limits: of the workspace.
        misfits: what the source holds beside.
    """

    source: Source
    kind: Kind
    fields: Sequence[str] | None
    most: int | None
    limits: Limits
    misfits: Misfits

    def estimate(self, identifiers: int) -> Estimate:
        """Return what so many identifiers take at least."""
        enough = identifiers if self.most is None else min(identifiers, self.most)
        return estimate(
            enough, fields=self.fields, limits=self.limits, one_each=self.kind.together == 1
        )

    async def count(self) -> Repeated:
        """Return how many identifiers there are, and how many stand there again."""
        with closing(Repeats()) as repeats:
            waiting: list[str] = []
            async for text in self.source:
                waiting.append(text if text.isascii() else _utf8(text))
                if len(waiting) == _BLOCK:
                    await asyncio.to_thread(repeats.add, waiting)
                    waiting = []
            repeats.add(waiting)
            return await asyncio.to_thread(repeats.seal)


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def rehearse(rehearsal: Rehearsal, screen: Screen, *, quiet: bool) -> None:
    """Read the identifiers, and print what their export would take."""
    found = asyncio.run(rehearsal.count())
    if not found.count and not rehearsal.misfits.number:
        if not quiet:
            screen.say("There were no identifiers: the input is empty")
        return
    made = rehearsal.estimate(found.count)
    screen.out.print(pairs(_rows(rehearsal, found, made)))
    if made.advice:
        screen.out.print(f"\n{filled(made.advice, screen.out)}", soft_wrap=True)
    if not quiet:
        screen.say("Nothing was sent. The time that the requests themselves take comes on top.")


def _rows(rehearsal: Rehearsal, found: Repeated, made: Estimate) -> dict[str, str]:
    rows = _read(rehearsal.source)
    rows["identifiers"] = f"{found.count:,}"
    if found.repeats:
        rows["repeated"] = f"{found.repeats:,}, left out"
    if rehearsal.misfits.number:
        rows["unusable"] = f"{rehearsal.misfits.number:,}, see --failed"
    if made.identifiers < found.count:
        rows["needed"] = f"{made.identifiers:,}, see --limit"
    rows["requests"] = f"{made.requests:,}"
    rows["limit"] = _limit(made)
    rows["least time"] = duration(made.seconds)
    return rows


def _read(source: Source) -> dict[str, str]:
    if isinstance(source, Lines):
        return {"lines read": f"{source.lines:,}"}
    blank = source.reader.blank if isinstance(source, Rows) else 0
    return {"blank rows": f"{blank:,}"} if blank else {}


def _limit(made: Estimate) -> str:
    limit = made.limit
    text = f"{limit.max_requests:,} requests per {limit.period:,g} s"
    left = limit.max_requests - made.per_window
    return f"{text}, {left:,} of them left to others" if left else text
