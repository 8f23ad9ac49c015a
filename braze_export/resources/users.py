"""``braze.users``: profiles by identifier, and the exports of segments.

https://www.braze.com/docs/api/endpoints/export
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

from attrs import evolve
from typing_extensions import TypeVar

from braze_export.batching import Batch, Identifiers, check_iterable
from braze_export.caller import Caller, Meter
from braze_export.codec import decoder_for, fields_of
from braze_export.endpoints import (
    CANCEL_SEGMENT_EXPORT,
    EXPORT_GLOBAL_CONTROL_GROUP,
    EXPORT_IDS,
    EXPORT_SEGMENT,
)
from braze_export.export_body import group_body, segment_body
from braze_export.export_context import ExportContext
from braze_export.export_job import ExportJob
from braze_export.exports import resume_export, start_export
from braze_export.identifiers import Identifier, check_identifier, check_name
from braze_export.ids_export import IdsExport, Plan, ask, narrowing
from braze_export.limits import Limiter
from braze_export.models.fields import check_fields, costs_fast_tier
from braze_export.models.profile import UserProfile
from braze_export.models.results import FailedBatch
from braze_export.narrowing import Narrower
from braze_export.starting import IfRunning, check_if_running
from braze_export.validators import check_on_error
from braze_export.waiting import Callback

T = TypeVar("T", default=UserProfile)

DEFAULT_CONCURRENCY = 32
_log = logging.getLogger("braze_export")


class Users:
    """Exports of users. Reached as ``client.users``."""

    def __init__(self, caller: Caller, exports: ExportContext) -> None:
        self._caller = caller
        self._exports = exports
        self._told_of_tier = False

    @overload
    def export_ids(
        self,
        identifiers: Identifiers,
        *,
        fields: Iterable[str] | None = None,
        into: type[T] = ...,
        concurrency: int = ...,
        ordered: bool = ...,
        on_error: Literal["raise"] = ...,
    ) -> IdsExport[T]: ...

    @overload
    def export_ids(
        self,
        identifiers: Identifiers,
        *,
        fields: Iterable[str] | None = None,
        into: type[T] = ...,
        concurrency: int = ...,
        ordered: bool = ...,
        on_error: Literal["yield"],
    ) -> IdsExport[T, FailedBatch]: ...

    def export_ids(
        self,
        identifiers: Identifiers,
        *,
        fields: Iterable[str] | None = None,
        into: type[Any] = UserProfile,
        concurrency: int = DEFAULT_CONCURRENCY,
        ordered: bool = False,
        on_error: Literal["raise", "yield"] = "raise",
    ) -> IdsExport[Any, Any]:
        """Export the profiles of any number of users, 50 a request.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier

        Nothing is sent before the result is iterated.

        Args:
            identifiers: an iterable or async iterable of external ids (``str``), ``UserAlias``,
                ``BrazeId``, ``DeviceId``, ``EmailAddress``, ``PhoneNumber``, in any mixture.
                Read only as far ahead as requests are under way, so a file of any size will
                do. An identifier that was read shortly before is not asked for again. An async
                generator is closed when the export ends.
            fields: what to export, as ``ExportField`` or ``str``. Without, the fields of
                ``into``, or everything where it is no class of yours. Workspaces made on or
                after 2024-08-22 must name fields.
            into: ``UserProfile``, your own attrs class or dataclass, whose field names are those
                of the profile, ``dict``, or ``bytes`` for each user's JSON as Braze sent it.
            concurrency: requests under way at once.
            ordered: yield in the order of the requests, not as the answers come.
            on_error: ``"raise"``: raise the first error, after everything that had come was
                yielded. ``"yield"``: yield a ``FailedBatch`` and go on.

        Returns:
            The export: iterate over it.

        Raises:
            InputError: an argument that cannot be sent, now or, for what is read later, while
                iterating.
        """
        check_iterable(identifiers)
        keep_going = check_on_error(on_error)
        names = self._fields(fields, into)
        plan = Plan(
            identifiers=identifiers,
            fields=names,
            decode=decoder_for(into, EXPORT_IDS),
            concurrency=concurrency,
            ordered=ordered,
            keep_going=keep_going,
            caller=self._caller,
        )
        return IdsExport(plan)

    def lookup(
        self, fields: tuple[str, ...] | None, stats: Meter, through: Callable[[Limiter], Limiter]
    ) -> Narrower:
        """Return what asks for batches one by one, for ``braze_export.jobs``.

        ``fields`` are checked already; ``through`` wraps the limiter that grants the requests.
        """
        caller = evolve(self._caller, limiter=through(self._caller.limiter))
        return narrowing(caller, fields, stats, keep_going=True)

    async def get(
        self,
        identifier: Identifier,
        *,
        fields: Iterable[str] | None = None,
        into: type[T] = UserProfile,  # type: ignore[assignment]
    ) -> T | None:
        """Return one user's profile, or ``None`` if Braze knows no such user.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier

        E-mail addresses and phone numbers are not unique in Braze: of several users the first
        that Braze sends is returned. ``export_ids`` gives them all.

        Args:
            identifier: an external id, or one of the other kinds.
            fields: what to export; as for ``export_ids``.
            into: as for ``export_ids``.

        Raises:
            InputError: an argument that cannot be sent.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        batch = Batch((check_identifier(identifier),))
        names = self._fields(fields, into)
        decode = decoder_for(into, EXPORT_IDS)
        answer = await ask(self._caller, batch, names, lane="interactive")
        return decode(answer.users[0]) if answer.users else None

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

    def _fields(self, fields: Iterable[str] | None, into: type) -> tuple[str, ...] | None:
        of_class = fields_of(into)
        names = fields if fields is not None else of_class
        checked = None if names is None else check_fields(names, stacklevel=4)
        if costs_fast_tier(checked) and not self._told_of_tier:
            self._told_of_tier = True
            _log.info(
                "users.export.ids: without fields, or with campaigns_received or "
                "canvases_received, requests are held to the slower limit; workspaces made on "
                "or after 2024-08-22 must name fields"
            )
        return checked


def _callback(given: str | Callback | None) -> tuple[str | None, Callback | None]:
    if given is None or isinstance(given, str):
        return given, None
    return getattr(given, "url", ""), given


def _nothing(body: bytes, endpoint: Any) -> None:
    """Accept any body."""
