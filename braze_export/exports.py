"""Exports that Braze prepares in the background: of a segment, of the global control group.

Starting one, and the record of the job. Waiting for it and reading it come next.
"""

from typing import Any

from attrs import field, frozen

from braze_export.answers import decode_error
from braze_export.caller import Caller
from braze_export.codec import decode_object
from braze_export.endpoints import Endpoint


@frozen
class ExportJob:
    """An export that Braze has accepted and is preparing.

    Attributes:
        object_prefix: ``<uuid>-<unix seconds>``, the folder of the export's files in the
            workspace's own cloud storage, where one is connected; ``None`` should Braze not
            say it.
        url: where the archive can be fetched once it is ready, for about four hours; ``None``
            where the workspace has its own storage. Whoever has it can read the profiles, so
            it is not part of the ``repr``.
        segment_id: of the segment exported, ``None`` for the control group.
    """

    object_prefix: str | None
    url: str | None = field(repr=False)
    segment_id: str | None = None


async def start(
    caller: Caller, endpoint: Endpoint, body: dict[str, Any], segment_id: str | None = None
) -> ExportJob:
    """Start an export and return its job.

    Raises:
        ExportInProgressError: the segment is already being exported.
        TransportError: no whole answer came. The export may have been started all the same.
        APIError: Braze refuses.
    """

    def job(raw: bytes, endpoint: Endpoint) -> ExportJob:
        answer = decode_object(raw, endpoint)
        found = [answer.get(key) for key in ("object_prefix", "url")]
        prefix, url = (value if isinstance(value, str) and value else None for value in found)
        if prefix is None and url is None:
            raise decode_error(
                "the answer has neither object_prefix nor url", endpoint=endpoint, raw=raw
            )
        return ExportJob(object_prefix=prefix, url=url, segment_id=segment_id)

    return await caller.call(endpoint, job, content=body)
