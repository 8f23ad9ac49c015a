"""POST /users/export/segment, /users/export/global_control_group, /export/segment/cancel.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment/
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_global_control_group/
https://www.braze.com/docs/api/endpoints/export/segments/post_cancel_export/

Exports are registered here; what comes out of them is made and handed over elsewhere.
"""

import math
import random
import secrets
import uuid
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias
from urllib.parse import urlencode

import attrs

from braze_export.sandbox.checks import Fields, check_export
from braze_export.sandbox.messages import Answer, Refusal, Request, encode
from braze_export.sandbox.segments import CONTROL_GROUP, Segments
from braze_export.sandbox.settings import Settings

DOWNLOADS: Final = "/exports/"
Format: TypeAlias = Literal["zip", "gzip"]

_MAX_RUNNING = 100

# The links of older exports are forgotten: memory must not grow for ever.
_MAX_KEPT = 10_000


@attrs.define(kw_only=True, eq=False)
class Export:
    """One export of a segment.

    Attributes:
        number: that of the segment.
        prefix: names the files of the export; unique.
        output_format: that of the archive. Undocumented: whether it holds for links; here it does.
        attributes: the custom attributes that were asked for by name.
        callback: where to tell that it is ready; empty: nowhere.
        ends: when it is ready, in seconds since the epoch.
        expires: when its link ends.
        base: the URL that its link begins with; None: there is own storage, hence no link.
        query: what its link ends with; a link with another query does not open.
        modified: when its archive was made last.
        version: how often its archive was made anew.
    """

    number: int
    segment_id: str
    prefix: str
    output_format: Format
    fields: frozenset[str]
    attributes: frozenset[str]
    callback: str
    ends: float
    expires: float
    base: str | None
    query: Mapping[str, str] = attrs.field(repr=False)
    cancelled: bool = False
    modified: float
    version: int = 0

    @property
    def suffix(self) -> str:
        """The end of its files' names."""
        return ".zip" if self.output_format == "zip" else ".gz"

    @property
    def path(self) -> str:
        """The path of its link."""
        return f"{DOWNLOADS}{self.prefix}{self.suffix}"

    @property
    def link(self) -> str | None:
        """Where to fetch the archive, signed as links to S3 are."""
        return None if self.base is None else f"{self.base}{self.path}?{urlencode(self.query)}"

    def is_ready(self, now: float) -> bool:
        """Whether there is an archive."""
        return not self.cancelled and self.ends <= now


class Exports:
    """The exports of one workspace: at most one running per segment, and 100 in all.

    ``on_start`` is called with each one that starts.
    """

    def __init__(self, settings: Settings, segments: Segments) -> None:
        self._settings = settings
        self._segments = segments
        self._running: dict[str, Export] = {}
        self._by_path: dict[str, Export] = {}
        self._dice = random.Random(f"{settings.seed} exports")
        self.on_start: Callable[[Export], None] | None = None

    def segment(self, request: Request, now: float) -> Answer:
        """Start the export of a segment."""
        fields = check_export(request.json, custom_attributes=True)
        return self._start(self._known(fields), fields, request, now)

    def control_group(self, request: Request, now: float) -> Answer:
        """Start the export of the global control group.

        Undocumented: whether the limits on running exports hold here. They do.
        """
        fields = check_export(request.json, custom_attributes=False)
        return self._start(CONTROL_GROUP, fields, request, now)

    def cancel(self, request: Request, now: float) -> Answer:
        """Stop the export of a segment.

        Undocumented: the answer, also when none is running, and what becomes of the link. Here
        it is never ready.
        """
        number = self._known(Fields(request.json))
        running = self._running.pop(self._segments.segment_id(number), None)
        if running is not None and running.ends > now:
            running.cancelled = True
        return Answer(body=encode({"message": "success"}))

    def find(self, path: str) -> Export | None:
        """Return the export whose link has this path."""
        return self._by_path.get(path)

    def rewrite(self, now: float) -> None:
        """Have all archives made anew."""
        for export in self._by_path.values():
            export.version += 1
            # Headers tell whole seconds: also within one, the new archive shall be the newer.
            export.modified = max(now, export.modified + 1)

    def _known(self, fields: Fields) -> int:
        segment_id: str = fields.text("segment_id")
        fields.finish()
        return self._segments.find(segment_id)

    def _start(self, number: int, fields: Fields, request: Request, now: float) -> Answer:
        self._running = {key: job for key, job in self._running.items() if job.ends > now}
        segment_id = self._segments.segment_id(number)
        # Undocumented: both texts, and the status of the second.
        if segment_id in self._running:
            raise Refusal(429, "An export of this segment is already in progress")
        if len(self._running) >= _MAX_RUNNING:
            raise Refusal(429, "The max number of concurrent segment exports was exceeded")
        export = self._export(number, fields, request.headers.get("host", ""), now)
        self._running[segment_id] = self._by_path[export.path] = export
        if len(self._by_path) > _MAX_KEPT:
            del self._by_path[next(iter(self._by_path))]
        if self.on_start:
            self.on_start(export)
        answer = {"message": "success", "object_prefix": export.prefix, "url": export.link}
        if self._settings.own_storage == "absent":
            del answer["url"]
        return Answer(body=encode(answer))

    def _export(self, number: int, fields: Fields, host: str, now: float) -> Export:
        settings = self._settings
        ends, seconds = now + settings.export_seconds, settings.link_seconds
        has_link = settings.own_storage is None and settings.storage is None
        given = fields.given("output_format").get("output_format")
        return Export(
            number=number,
            segment_id=self._segments.segment_id(number),
            prefix=f"{uuid.UUID(int=self._dice.getrandbits(128), version=4)}-{int(now)}",
            output_format="gzip" if given == "gzip" else "zip",
            fields=frozenset(fields.texts("fields_to_export")),
            # Documented for segments only; the control group's request is not read for them.
            attributes=frozenset(
                () if number == CONTROL_GROUP else fields.texts("custom_attributes_to_export")
            ),
            callback=fields.text("callback_endpoint"),
            ends=ends,
            expires=now + seconds,
            base=f"http://{host}" if has_link else None,
            query={
                "X-Amz-Expires": str(math.ceil(seconds)),
                "X-Amz-Signature": secrets.token_hex(32),
            },
            modified=ends,
        )
