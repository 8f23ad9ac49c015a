"""The loop over an export: every item to its place, and when to give up."""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec
from attrs import Factory, define, frozen

from braze_export import (
    AuthenticationError,
    BadRequestError,
    BrazeError,
    DecodeError,
    ExportStats,
    FailedBatch,
    IdsExport,
    InputError,
    InvalidUserId,
    PayloadTooLargeError,
    PermissionDeniedError,
)
from braze_export._json import writable
from braze_export.cli.failures import in_our_words
from braze_export.cli.progress import duration
from braze_export.cli.screen import Screen, count
from braze_export.cli.writing import Output
from braze_export.jobs.kinds import as_text

T = TypeVar("T")

_PATIENCE: Final = 100  # failures in a row
_SHOWN: Final = 5  # unknown ids in the summary
_WORTH_A_WORD: Final = 1.0  # seconds of waiting

# Errors that may lie in a single identifier, so that others still have a chance.
_OF_ONE: Final = (BadRequestError, PayloadTooLargeError, DecodeError, InputError)
_OF_THE_KEY: Final = (AuthenticationError, PermissionDeniedError)


@frozen
class Places(Generic[T]):
    """Where the items of an export go."""

    profiles: Callable[[T], Awaitable[None]]
    unknown: Output
    failed: Output


@define
class Tally:
    """What came of an export: its counters, and what the summary shows.

    Attributes:
        stats: of the export.
        profiles: taken to their place.
        failures: identifiers that failed, and profiles that cannot be read.
        first_error: of these.
        unknown: the first unknown ids.
        limited: whether it was stopped because enough had come.
        waited: seconds during which requests surely waited for the rate limit.
    """

    stats: ExportStats = Factory(ExportStats)
    profiles: int = 0
    failures: int = 0
    first_error: BrazeError | None = None
    unknown: list[str] = Factory(list)
    limited: bool = False
    waited: float = 0.0

    @property
    def anything_came(self) -> bool:
        """Whether Braze has answered for any identifier."""
        return bool(self.profiles or self.stats.invalid_user_ids or self.stats.unaccounted)

    def tell(
        self, screen: Screen, *, seconds: float, unknown: str | None, failed: str | None
    ) -> None:
        """Print the summary. ``unknown`` and ``failed`` are where the whole lists are."""
        if not self.stats.identifiers and not self.failures:
            screen.say("There were no identifiers: the input is empty")
            return
        screen.say(", ".join(self._counts(seconds)))
        if held_up := self._held_up():
            screen.say(f"Rate limit: {'; '.join(held_up)}")
        if self.unknown:
            screen.say(self._unknown(unknown))
        if self.first_error is not None:
            where = f"They are in {failed}" if failed else "--failed FILE writes them all"
            reason = in_our_words(self.first_error)
            screen.warn(
                f"{count(self.failures, 'identifier')} failed. {where}. The first: {reason}"
            )

    def _counts(self, seconds: float) -> list[str]:
        stats = self.stats
        sometimes = (
            (stats.rate_limited, "answer 429", "answers 429"),
            (stats.duplicates, "duplicate left out", "duplicates left out"),
            (
                stats.unaccounted,
                "id without a profile of its own",
                "ids without a profile of their own",
            ),
        )
        return [
            count(self.profiles, "profile"),
            count(stats.invalid_user_ids, "unknown id"),
            count(stats.requests, "request"),
            *(count(number, one, many) for number, one, many in sometimes if number),
            f"{seconds:,.1f} s",
        ]

    def _held_up(self) -> list[str]:
        parts = []
        if self.waited > _WORTH_A_WORD:
            parts.append(f"waited at least {duration(self.waited)}")
        if self.stats.rate_limited:
            parts.append(f"{count(self.stats.rate_limited, 'request')} refused and sent again")
        return parts

    def _unknown(self, path: str | None) -> str:
        if path:
            return f"The unknown ids are in {path}"
        more = self.stats.invalid_user_ids - len(self.unknown)
        shown = ", ".join(self.unknown)
        return f"Unknown: {shown}" + (
            f" and {more:,} more; --unknown FILE writes them all" if more else ""
        )


async def carry(
    export: IdsExport[T, FailedBatch],
    places: Places[T],
    tally: Tally,
    limit: int | None = None,
) -> None:
    """Take every item to its place, up to ``limit`` profiles.

    Raises:
        BrazeError: it makes no sense to go on, or nothing at all came but failures.
    """
    tally.stats = export.stats
    failures_in_a_row = 0
    async for item in export:
        match item:
            case InvalidUserId():
                failures_in_a_row = 0
                await _unknown(item, places.unknown, tally)
            case FailedBatch():
                failures_in_a_row += 1
                await _failed(item, places.failed, tally)
                if _hopeless(item.error, tally) or failures_in_a_row == _PATIENCE:
                    raise item.error
            case profile:
                failures_in_a_row = 0
                await places.profiles(profile)
                tally.profiles += 1
                if tally.profiles == limit:
                    tally.limited = True
                    return
    if tally.first_error is not None and not tally.anything_came:
        raise tally.first_error


def _hopeless(error: BrazeError, tally: Tally) -> bool:
    """Say whether the next requests must fail too: the client has tried this one several times."""
    if isinstance(error, _OF_THE_KEY):
        return True
    return not isinstance(error, _OF_ONE) and not tally.anything_came


async def _unknown(item: InvalidUserId, place: Output, tally: Tally) -> None:
    text = as_text(item.identifier)
    if len(tally.unknown) < _SHOWN:
        tally.unknown.append(text)
    await place.write(text.encode(errors="replace"))


async def _failed(item: FailedBatch, place: Output, tally: Tally) -> None:
    tally.first_error = tally.first_error or item.error
    # A profile that cannot be read may not even say whose it is.
    names: list[str | None] = [as_text(identifier) for identifier in item.identifiers] or [None]
    tally.failures += len(names)
    reason = in_our_words(item.error)
    for name in names:
        safe = name and writable(name)
        await place.write(msgspec.json.encode({"identifier": safe, "error": reason}))
