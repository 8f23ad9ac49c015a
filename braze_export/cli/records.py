"""The loop over the archive of an export: every record to its place."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from attrs import define

from braze_export import BadRecord, BrazeError
from braze_export._json import one_line
from braze_export.cli.failures import in_our_words
from braze_export.cli.screen import Screen, count
from braze_export.cli.writing import Output


@define
class Tally:
    """What came of an export.

    Attributes:
        profiles: taken to their place.
        bad_lines: lines that are no profile.
        first_error: of these.
        broken: the first file that could not be read to its end.
        limited: whether it was stopped because enough had come.
    """

    profiles: int = 0
    bad_lines: int = 0
    first_error: BrazeError | None = None
    broken: BrazeError | None = None
    limited: bool = False

    @property
    def anything_came(self) -> bool:
        """Whether anything was read."""
        return bool(self.profiles or self.bad_lines)

    def note(self, bad: BadRecord) -> None:
        """Note what could not be read."""
        if bad.line is None:
            self.broken = self.broken or bad.error
        else:
            self.bad_lines += 1
            self.first_error = self.first_error or bad.error

    def check(self) -> None:
        """Accept what came.

        Raises:
            BrazeError: a file is damaged, so that nobody knows what is missing; or there is not
                a single profile among the lines.
        """
        if self.broken is not None:
            raise self.broken
        if self.first_error is not None and not self.profiles:
            raise self.first_error

    def warn(self, screen: Screen, failed: str | None) -> None:
        """Tell of lines that are no profiles. ``failed`` is where they are."""
        if self.first_error is None:
            return
        lines = count(self.bad_lines, "line is no profile", "lines are no profiles")
        where = f"In {failed}" if failed else "--failed FILE writes them all"
        screen.warn(f"{lines}. {where}. The first: {in_our_words(self.first_error)}")


async def carry(
    records: AsyncGenerator[bytes | BadRecord, None],
    profiles: Output,
    failed: Output,
    tally: Tally,
    limit: int | None = None,
) -> None:
    """Take every record to its place, up to ``limit`` profiles.

    Raises:
        BrazeError: it could not be read to its end; or what ``Tally.check`` raises.
    """
    async with aclosing(records):
        async for record in records:
            if isinstance(record, BadRecord):
                tally.note(record)
                await failed.write(_told(record))
                continue
            await profiles.write(one_line(record))
            tally.profiles += 1
            if tally.profiles == limit:
                tally.limited = True
                return
    tally.check()


def _told(bad: BadRecord) -> bytes:
    return msgspec.json.encode(
        {
            "file": bad.file,
            "line": bad.line,
            "offset": bad.offset,
            "error": in_our_words(bad.error),
            "raw": bad.raw.decode(errors="replace"),
        }
    )
