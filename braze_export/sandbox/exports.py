"""POST /users/export/segment, /users/export/global_control_group, /export/segment/cancel.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment/
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_global_control_group/
https://www.braze.com/docs/api/endpoints/export/segments/post_cancel_export/

Exports are registered and run out; there is nothing to download yet.
"""

import random
import uuid

import attrs

from braze_export.sandbox.checks import Fields, check_export
from braze_export.sandbox.messages import Answer, Refusal, Request, encode
from braze_export.sandbox.segments import CONTROL_GROUP, Segments
from braze_export.sandbox.settings import Settings

_MAX_RUNNING = 100


@attrs.frozen(kw_only=True)
class Export:
    """One export of a segment: ``prefix`` names its files, and it runs until ``ends``."""

    segment_id: str
    prefix: str
    ends: float


class Exports:
    """The running exports, at most one per segment and 100 in all."""

    def __init__(self, settings: Settings, segments: Segments) -> None:
        self._settings = settings
        self._segments = segments
        self._running: dict[str, Export] = {}
        self._dice = random.Random(f"{settings.seed} exports")

    def segment(self, request: Request, now: float) -> Answer:
        """Start the export of a segment."""
        fields = check_export(request.json, custom_attributes=True)
        return self._start(self._known(fields), request, now)

    def control_group(self, request: Request, now: float) -> Answer:
        """Start the export of the global control group.

        Undocumented: whether the limits on running exports hold here. They do.
        """
        check_export(request.json, custom_attributes=False)
        return self._start(self._segments.segment_id(CONTROL_GROUP), request, now)

    def cancel(self, request: Request, _now: float) -> Answer:
        """Stop the export of a segment. Undocumented: the answer, and when none is running."""
        self._running.pop(self._known(Fields(request.json)), None)
        return Answer(body=encode({"message": "success"}))

    def _known(self, fields: Fields) -> str:
        segment_id: str = fields.text("segment_id")
        fields.finish()
        self._segments.find(segment_id)
        return segment_id

    def _start(self, segment_id: str, request: Request, now: float) -> Answer:
        self._running = {key: job for key, job in self._running.items() if job.ends > now}
        # Undocumented: both texts, and the status of the second.
        if segment_id in self._running:
            raise Refusal(429, "An export of this segment is already in progress")
        if len(self._running) >= _MAX_RUNNING:
            raise Refusal(429, "The max number of concurrent segment exports was exceeded")
        prefix = f"{uuid.UUID(int=self._dice.getrandbits(128), version=4)}-{int(now)}"
        ends = now + self._settings.export_seconds
        self._running[segment_id] = Export(segment_id=segment_id, prefix=prefix, ends=ends)
        return Answer(body=encode(self._started(prefix, request.headers.get("host", ""))))

    def _started(self, prefix: str, host: str) -> dict[str, str | None]:
        answer: dict[str, str | None] = {"message": "success", "object_prefix": prefix}
        if self._settings.own_storage is None:
            answer["url"] = f"http://{host}/{prefix}.zip"
        elif self._settings.own_storage == "null":
            answer["url"] = None
        return answer
