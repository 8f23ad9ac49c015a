"""GET /segments/list, /segments/details, /segments/data_series.

https://www.braze.com/docs/api/endpoints/export/segments/get_segment/
https://www.braze.com/docs/api/endpoints/export/segments/get_segment_details/
https://www.braze.com/docs/api/endpoints/export/segments/get_segment_analytics/
"""

import re
from datetime import UTC, date, datetime, timedelta

from braze_export.sandbox.messages import Answer, Request, bad_request, encode
from braze_export.sandbox.scatter import UUID_BITS, Scatter, uuid_number, uuid_text
from braze_export.sandbox.settings import Settings

CONTROL_GROUP = 0

_CONTROL_GROUP_STEP = 10

_PAGE = 100
_MAX_PAGES = 10**9
_MAX_DAYS = 100
_NAMES = ("All users", "Lapsed", "Käufer / buyers", "VIP")
_TAGS: tuple[list[str] | None, ...] = (["tag one"], [], None, ["tag one", "täg 2"])
_TEAMS: tuple[list[str] | None, ...] = (["Growth"], None, [])
_FIRST = datetime(2018, 6, 27, 10, tzinfo=UTC)

# Documented examples have offsets both with a leading zero and without: ``-5:00``.
_DATETIME = re.compile(
    r"(?P<date>[1-9]\d{3}-\d\d-\d\d)T(?P<time>\d\d:\d\d:\d\d(\.\d{1,6})?)"
    r"(Z|[+-](0?\d|1\d|2[0-3]):[0-5]\d)?",
    re.ASCII,
)


class Segments:
    """The segments of one workspace: numbered from 1, oldest first, and computed, not held."""

    def __init__(self, settings: Settings) -> None:
        self._count = settings.segments
        self._users = settings.users
        self._empty = settings.empty_segments
        self._ids = Scatter(UUID_BITS, f"{settings.seed} segment_id")

    def segment_id(self, number: int) -> str:
        """Return the id of a segment; number 0 is the global control group."""
        return uuid_text(self._ids.forth(number)).decode()

    def members(self, number: int) -> range:
        """Return the numbers of the users in a segment.

        Segment k holds every k-th user, so that the first one holds all; the control group
        every tenth.
        """
        step = _CONTROL_GROUP_STEP if number == CONTROL_GROUP else number
        return range(0) if number in self._empty else range(step, self._users + 1, step)

    def find(self, segment_id: str) -> int:
        """Return the number of a segment.

        Undocumented: an unknown segment. Here 400.
        """
        number = self._ids.back(uuid_number(segment_id))
        if number > self._count or self.segment_id(number) != segment_id:
            raise bad_request("Invalid segment_id")
        return number

    def list(self, request: Request, _now: float) -> Answer:
        """Answer with one page; past the end with an empty one (undocumented)."""
        page = _integer(request, "page", 0, _MAX_PAGES, default="0")
        direction = request.query.get("sort_direction", "asc")
        if direction not in {"asc", "desc"}:
            raise bad_request("sort_direction must be asc or desc")
        places = range(page * _PAGE, min((page + 1) * _PAGE, self._count))
        numbers = (n + 1 if direction == "asc" else self._count - n for n in places)
        return _success(segments=[self._row(n) for n in numbers])

    def details(self, request: Request, _now: float) -> Answer:
        """Answer with one segment."""
        number = self._asked(request)
        created = _FIRST + timedelta(seconds=number)
        return _success(
            created_at=_zulu(created),
            updated_at=_zulu(created + timedelta(days=1)),
            name=_name(number),
            description="Last used any app more than 30 days ago",
            text_description="Users to win back" if number % 2 else "",
            tags=_TAGS[number % len(_TAGS)],
            teams=_TEAMS[number % len(_TEAMS)],
        )

    def data_series(self, request: Request, now: float) -> Answer:
        """Answer with the estimated size of a segment, day by day."""
        number = self._asked(request)
        length = _integer(request, "length", 1, _MAX_DAYS)
        last = _ending(request, now)
        days = (last - timedelta(days=back) for back in reversed(range(length)))
        base = (self._ids.forth(number) >> 32) % 100_000
        return _success(
            data=[
                {"time": day.isoformat(), "size": base + day.toordinal() * 7 % 89} for day in days
            ]
        )

    def _asked(self, request: Request) -> int:
        number = self.find(request.query.get("segment_id", ""))
        if number == CONTROL_GROUP:
            raise bad_request("Invalid segment_id")
        return number

    def _row(self, number: int) -> dict[str, object]:
        return {
            "id": self.segment_id(number),
            "name": _name(number),
            "analytics_tracking_enabled": number % 2 == 1,
            "tags": _TAGS[number % len(_TAGS)],
        }


def _name(number: int) -> str:
    return f"{_NAMES[number % len(_NAMES)]} {number}"


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _integer(request: Request, key: str, low: int, high: int, *, default: str = "") -> int:
    """Read a number of the query. Undocumented: one out of bounds; here 400."""
    text = request.query.get(key, default)
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high:
        return int(text)
    raise bad_request(f"{key} must be an integer from {low} to {high}")


def _ending(request: Request, now: float) -> date:
    """Return the last day of a series, in the offset that the client wrote."""
    text = request.query.get("ending_at")
    if text is None:
        return datetime.fromtimestamp(now, UTC).date()
    if match := _DATETIME.fullmatch(text):
        try:
            return datetime.fromisoformat(f"{match['date']}T{match['time']}").date()
        except ValueError:
            pass
    raise bad_request("ending_at must be an ISO 8601 datetime")


def _success(**payload: object) -> Answer:
    return Answer(body=encode({"message": "success"} | payload))
