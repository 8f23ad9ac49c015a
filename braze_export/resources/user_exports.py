"""The part of ``braze.users`` that starts, resumes and cancels exports of many users at once.

https://www.braze.com/docs/api/endpoints/export
"""

from collections.abc import Iterable
from typing import Any, Literal

from braze_export.caller import Caller
from braze_export.endpoints import (
    CANCEL_SEGMENT_EXPORT,
    EXPORT_GLOBAL_CONTROL_GROUP,
    EXPORT_SEGMENT,
)
from braze_export.exporting.body import group_body, segment_body
from braze_export.exporting.context import ExportContext
from braze_export.exporting.exports import resume_export, start_export
from braze_export.exporting.job import ExportJob
from braze_export.exporting.starting import IfRunning, check_if_running
from braze_export.exporting.waiting import Callback
from braze_export.identifiers import check_name


class UserExports:
    """Exports that Braze prepares in the background. Reached as ``client.users``."""

    def __init__(self, caller: Caller, exports: ExportContext) -> None:
        self._caller = caller
        self._exports = exports

    async def export_segment(
        self,
        segment_id: str,
        *,
        fields: Iterable[str],
        custom_attributes: Iterable[str] | None = None,
        callback_url: str | Callback | None = None,
        output_format: Literal["zip", "gzip"] | None = None,
        if_running: IfRunning = "raise",
    ) -> ExportJob:
        """Start the export of a segment. Braze prepares it in the background.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment

        Not repeated after a failure that leaves open whether Braze has started the export: the
        error then says so (``TransportError.sent``). Of an export that is too large Braze makes
        nothing: ask for fewer fields, or split it into segments by random bucket number.

        Args:
            segment_id: the segment's API identifier.
            fields: what to export. ``custom_attributes`` stands for all of them.
            custom_attributes: names of at most 500 custom attributes, instead of all.
            callback_url: gets a POST when the export is ready; from a ``CallbackReceiver``
                (``braze_export.callbacks``) it shortens the waiting as well.
            output_format: of the files in your own cloud storage; Braze's default is ``zip``.
            if_running: ``"raise"`` if the segment is being exported already, or 100 exports of
                this client are running; ``"wait"`` until Braze accepts it, for up to four hours.

        Raises:
            InputError: an argument that cannot be sent.
            ExportInProgressError: the segment is already being exported, or too many are.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        check_if_running(if_running)
        url, callback = _callback(callback_url)
        body = segment_body(segment_id, fields, custom_attributes, url, output_format)
        return await start_export(
            self._exports,
            EXPORT_SEGMENT,
            body,
            segment_id=segment_id,
            callback=callback,
            if_running=if_running,
        )

    async def export_global_control_group(
        self,
        *,
        fields: Iterable[str],
        callback_url: str | Callback | None = None,
        output_format: Literal["zip", "gzip"] | None = None,
        if_running: IfRunning = "raise",
    ) -> ExportJob:
        """Start the export of the global control group. Braze prepares it in the background.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_global_control_group

        Args:
            fields: what to export; single custom attributes cannot be chosen here.
            callback_url: as for ``export_segment``.
            output_format: as for ``export_segment``.
            if_running: as for ``export_segment``.

        Raises:
            InputError: an argument that cannot be sent.
            ExportInProgressError: the group is already being exported, or too many are.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        check_if_running(if_running)
        url, callback = _callback(callback_url)
        body = group_body(fields, url, output_format)
        return await start_export(
            self._exports,
            EXPORT_GLOBAL_CONTROL_GROUP,
            body,
            callback=callback,
            if_running=if_running,
        )

    def resume_export(self, link_or_prefix: str, *, segment_id: str | None = None) -> ExportJob:
        """Return the job of an export that was started before, perhaps by another process.

        Args:
            link_or_prefix: ``ExportJob.url``; or ``ExportJob.object_prefix``, for an export in the
                workspace's own storage.
            segment_id: spares looking for it in the storage.

        Raises:
            InputError: it is neither.
        """
        return resume_export(self._exports, link_or_prefix, segment_id)

    async def cancel_segment_export(self, segment_id: str) -> None:
        """Cancel every running export of a segment.

        https://www.braze.com/docs/api/endpoints/export/segments/post_cancel_export

        What Braze answers when none is running is not documented; any success is one here. A
        new export of the segment may be refused for a while.

        Raises:
            InputError: no segment id.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        body = {"segment_id": check_name(segment_id, "segment_id")}
        await self._caller.call(CANCEL_SEGMENT_EXPORT, _nothing, content=body)
        self._exports.running.discard(lambda job: job.segment_id == segment_id)


def _callback(given: str | Callback | None) -> tuple[str | None, Callback | None]:
    if given is None or isinstance(given, str):
        return given, None
    return getattr(given, "url", ""), given


def _nothing(body: bytes, endpoint: Any) -> None:
    """Accept any body."""
