"""``braze.segments``: the list, one in detail, and its estimated size day by day.

https://www.braze.com/docs/api/endpoints/export/segments/get_segment
"""

from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from braze_export.caller import Caller
from braze_export.codec import decode_object, object_listing, records
from braze_export.endpoints import SEGMENTS_DATA_SERIES, SEGMENTS_DETAILS, SEGMENTS_LIST
from braze_export.errors import InputError
from braze_export.identifiers import check_name
from braze_export.models.lenient import structure_leniently
from braze_export.models.segments import Segment, SegmentDetails, SegmentSize
from braze_export.models.timestamps import parse_moment

_Sizes: TypeAlias = list[SegmentSize]  # the class has a method named list
_SEGMENTS, _SIZES = object_listing("segments"), object_listing("data")
_PAGE = 100  # segments of a full page
_LONGEST = 100  # days of one data_series request


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Segments:
    """Segments of the workspace. Reached as ``client.segments``."""

    def __init__(
        self,
        caller: Caller,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._caller = caller
        self._now = now

    async def list(
        self, *, sort_direction: Literal["asc", "desc"] | None = None
    ) -> AsyncGenerator[Segment, None]:
        """Yield every segment that is not archived, page after page.

        https://www.braze.com/docs/api/endpoints/export/segments/get_segment

        Args:
            sort_direction: by creation, ``"asc"`` oldest first (Braze's default) or ``"desc"``.

        Raises:
            InputError: another ``sort_direction``.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        if sort_direction not in {None, "asc", "desc"}:
            raise InputError(f'sort_direction must be "asc" or "desc", not {sort_direction!r}')
        page = 0
        while True:
            params: dict[str, str | int] = {"page": page}
            if sort_direction is not None:
                params["sort_direction"] = sort_direction
            answer = await self._caller.call(SEGMENTS_LIST, _SEGMENTS, params=params)
            for segment in records(answer, "segments", Segment, SEGMENTS_LIST):
                yield segment
            # Braze tells no total: the first page that is not full is the last.
            if len(answer["segments"]) < _PAGE:
                return
            page += 1

    async def details(self, segment_id: str) -> SegmentDetails:
        """Return one segment in detail.

        https://www.braze.com/docs/api/endpoints/export/segments/get_segment_details

        Raises:
            InputError: no segment id.
            BadRequestError, NotFoundError: Braze knows no such segment.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        params = {"segment_id": check_name(segment_id, "segment_id")}
        answer = await self._caller.call(SEGMENTS_DETAILS, decode_object, params=params)
        return structure_leniently(SegmentDetails, answer)[0]

    async def data_series(
        self, segment_id: str, *, length: int, ending_at: datetime | str | None = None
    ) -> _Sizes:
        """Return the segment's estimated size on each day, oldest first.

        https://www.braze.com/docs/api/endpoints/export/segments/get_segment_analytics

        Args:
            segment_id: the segment's API identifier. Its analytics tracking must be on.
            length: days; more than 100 are fetched with several requests.
            ending_at: the last day, as a ``datetime`` with a time zone or as ISO 8601 text
                with an offset. Braze's default is now.

        Raises:
            InputError: an argument that cannot be sent.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        name = check_name(segment_id, "segment_id")
        windows = _windows(_check_length(length), ending_at, self._now)
        days: dict[Any, SegmentSize] = {}
        for span, end in windows:
            params: dict[str, str | int] = {"segment_id": name, "length": span}
            if end is not None:
                params["ending_at"] = end.strftime("%Y-%m-%dT%H:%M:%SZ")
            answer = await self._caller.call(SEGMENTS_DATA_SERIES, _SIZES, params=params)
            for size in records(answer, "data", SegmentSize, SEGMENTS_DATA_SERIES):
                days.setdefault(size.time or object(), size)
        return sorted(days.values(), key=lambda size: (size.time is not None, str(size.time)))


def _check_length(length: int) -> int:
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise InputError(f"length must be a whole number of days above zero, not {length!r}")
    return length


def _windows(
    length: int, ending_at: datetime | str | None, now: Callable[[], datetime]
) -> list[tuple[int, datetime | None]]:
    """Return length and end of each request: the newest first, none longer than 100 days."""
    end = None if ending_at is None else parse_moment(ending_at, "ending_at")
    if length <= _LONGEST:
        return [(length, end)]
    end = end or now()  # fixed, so that the windows meet
    windows: list[tuple[int, datetime | None]] = []
    for done in range(0, length, _LONGEST):
        try:
            windows.append((min(_LONGEST, length - done), end - timedelta(days=done)))
        except OverflowError:
            raise InputError(f"length {length} reaches back before the year 1") from None
    return windows
