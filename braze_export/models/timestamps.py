"""The forms in which Braze writes a moment, and the one type that takes them all.

Braze's own samples hold three: ``2021-06-28T17:02:43.032Z``,
``2021-07-07T20:45:24.000+00:00`` and ``2020-07-10 15:00:00.000 UTC``.
"""

from abc import ABC
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from braze_export.errors import InputError

if TYPE_CHECKING:
    Timestamp: TypeAlias = datetime
else:

    class Timestamp(ABC):  # noqa: B024 - a marker: it has no methods to leave abstract
        """A ``datetime`` whose text may have any of the three forms.

        The decoder calls our own parser for this type, and its own, much faster one for
        ``datetime``, which does not know the third form.
        """

    Timestamp.register(datetime)

#: A ``datetime`` in one of the two ISO forms, with its offset: decoded without our help.
IsoTimestamp: TypeAlias = Annotated[datetime, Meta(tz=True)]


def parse_timestamp(text: str) -> datetime:
    """Return the moment as an aware ``datetime``; one without an offset is taken as UTC.

    Raises:
        ValueError: it has none of the forms.
    """
    moment = datetime.fromisoformat(text.removesuffix(" UTC"))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def parse_moment(moment: datetime | str, name: str) -> datetime:
    """Return an aware ``datetime`` in UTC from one, or from ISO 8601 text with an offset.

    Raises:
        InputError: naive, malformed, or in no year that UTC has.
    """
    allowed = "allowed are a datetime with a time zone, or text such as '2026-01-31T00:00:00+00:00'"
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise InputError(f"{name} {moment!r} is no ISO 8601 time: {allowed}") from None
    if not isinstance(moment, datetime):
        raise InputError(f"{name} is of type {type(moment).__name__}: {allowed}")
    if moment.utcoffset() is None:
        raise InputError(f"{name} {moment.isoformat()} has no time zone: {allowed}")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InputError(f"{name} {moment.isoformat()} is out of range: {allowed}") from None
