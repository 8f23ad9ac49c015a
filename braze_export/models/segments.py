"""Segments: as listed, in detail, and their estimated size day by day.

https://www.braze.com/docs/api/endpoints/export/segments/get_segment
"""

from datetime import date

from braze_export.models.record import Record
from braze_export.models.timestamps import Timestamp


class Segment(Record, frozen=True):
    """A segment as ``segments.list()`` gives it. Archived ones are left out by Braze.

    Attributes:
        id: what exports are started with; empty if Braze should ever leave it out.
    """

    id: str = ""
    name: str | None = None
    analytics_tracking_enabled: bool | None = None
    tags: tuple[str, ...] = ()


class SegmentDetails(Record, frozen=True):
    """A segment in full: ``description`` is its filters, ``text_description`` what it is for."""

    name: str | None = None
    description: str | None = None
    text_description: str | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
    tags: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


class SegmentSize(Record, frozen=True):
    """The estimated number of users in a segment on one day."""

    time: date | None = None
    size: int | None = None
