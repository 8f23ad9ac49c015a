"""``braze.users``: profiles by identifier, and the exports of segments.

https://www.braze.com/docs/api/endpoints/export
"""

import logging
from collections.abc import Iterable
from typing import Any, Literal, overload

from typing_extensions import TypeVar

from braze_export.batching import Batch, Identifiers, check_iterable
from braze_export.caller import Caller
from braze_export.codec import decoder_for, fields_of
from braze_export.endpoints import (
    CANCEL_SEGMENT_EXPORT,
    EXPORT_GLOBAL_CONTROL_GROUP,
    EXPORT_IDS,
    EXPORT_SEGMENT,
)
from braze_export.errors import InputError
from braze_export.exports import ExportJob, start
from braze_export.identifiers import Identifier, check_identifier, check_name
from braze_export.ids_export import IdsExport, Plan, ask
from braze_export.models.fields import check_fields, costs_fast_tier
from braze_export.models.profile import UserProfile
from braze_export.models.results import FailedBatch

T = TypeVar("T", default=UserProfile)

DEFAULT_CONCURRENCY = 32
_MOST_CUSTOM_ATTRIBUTES = 500
_log = logging.getLogger("braze_export")


class Users:
    """Exports of users. Reached as ``client.users``."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
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
        if on_error not in {"raise", "yield"}:
            raise InputError(f'on_error must be "raise" or "yield", not {on_error!r}')
        names = self._fields(fields, into)
        plan = Plan(
            identifiers=identifiers,
            fields=names,
            decode=decoder_for(into, EXPORT_IDS),
            concurrency=concurrency,
            ordered=ordered,
            keep_going=on_error == "yield",
            caller=self._caller,
        )
        return IdsExport(plan)

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
        answer = await ask(self._caller, batch, names)
        return decode(answer.users[0]) if answer.users else None

    async def export_segment(
        self,
        segment_id: str,
        *,
        fields: Iterable[str],
        custom_attributes: Iterable[str] | None = None,
        callback_url: str | None = None,
        output_format: Literal["zip", "gzip"] | None = None,
    ) -> ExportJob:
        """Start the export of a segment. Braze prepares it in the background.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment

        Not repeated after a failure that leaves open whether Braze has started the export: the
        error then says so (``TransportError.sent``).

        Args:
            segment_id: the segment's API identifier.
            fields: what to export. ``custom_attributes`` stands for all of them.
            custom_attributes: names of at most 500 custom attributes, instead of all.
            callback_url: gets a POST when the export is ready.
            output_format: of the files in your own cloud storage; Braze's default is ``zip``.

        Raises:
            InputError: an argument that cannot be sent.
            ExportInProgressError: the segment is already being exported.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        body: dict[str, Any] = {"segment_id": check_name(segment_id, "segment_id")}
        body |= _export_options(fields, callback_url, output_format)
        if custom_attributes is not None:
            body["custom_attributes_to_export"] = _check_custom_attributes(custom_attributes)
        return await start(self._caller, EXPORT_SEGMENT, body, segment_id)

    async def export_global_control_group(
        self,
        *,
        fields: Iterable[str],
        callback_url: str | None = None,
        output_format: Literal["zip", "gzip"] | None = None,
    ) -> ExportJob:
        """Start the export of the global control group. Braze prepares it in the background.

        https://www.braze.com/docs/api/endpoints/export/user_data/post_users_global_control_group

        Args:
            fields: what to export; single custom attributes cannot be chosen here.
            callback_url: gets a POST when the export is ready.
            output_format: of the files in your own cloud storage; Braze's default is ``zip``.

        Raises:
            InputError: an argument that cannot be sent.
            ExportInProgressError: the group is already being exported.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        body = _export_options(fields, callback_url, output_format)
        return await start(self._caller, EXPORT_GLOBAL_CONTROL_GROUP, body)

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


def _export_options(
    fields: Iterable[str], callback_url: str | None, output_format: str | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"fields_to_export": check_fields(fields, stacklevel=4)}
    if callback_url is not None:
        body["callback_endpoint"] = _check_callback(callback_url)
    if output_format is not None:
        if output_format not in {"zip", "gzip"}:
            raise InputError(f'output_format must be "zip" or "gzip", not {output_format!r}')
        body["output_format"] = output_format
    return body


def _check_callback(url: str) -> str:
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise InputError("callback_url must be a URL that starts with https:// or http://")
    return url


def _check_custom_attributes(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"custom_attributes must be a list of names: write [{names!r}]")
    checked = [check_name(name, "a name in custom_attributes") for name in names]
    if len(checked) > _MOST_CUSTOM_ATTRIBUTES:
        raise InputError(
            f"custom_attributes holds {len(checked)} names: Braze takes at most "
            f"{_MOST_CUSTOM_ATTRIBUTES}. Name custom_attributes in fields to have them all"
        )
    return checked


def _nothing(body: bytes, endpoint: Any) -> None:
    """Accept any body."""
