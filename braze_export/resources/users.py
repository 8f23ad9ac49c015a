"""``braze.users``: profiles by identifier.

https://www.braze.com/docs/api/endpoints/export
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

from attrs import evolve
from typing_extensions import TypeVar

from braze_export.batches.batching import Identifiers, check_iterable, read_all
from braze_export.batches.ids_export import IdsExport, Plan, narrowing
from braze_export.batches.narrowing import Narrower
from braze_export.caller import Caller, Meter
from braze_export.codec import decoder_for, fields_of
from braze_export.endpoints import EXPORT_IDS
from braze_export.errors import InputError
from braze_export.exporting.context import ExportContext
from braze_export.identifiers import Identifier, check_identifier
from braze_export.limiting.limits import Limiter
from braze_export.lookups.lookup import Lookup
from braze_export.models.fields import check_fields, costs_fast_tier
from braze_export.models.profile import UserProfile
from braze_export.models.results import FailedBatch
from braze_export.resources.user_exports import UserExports
from braze_export.settings import LookupSettings
from braze_export.validators import check_on_error

T = TypeVar("T", default=UserProfile)
AnyIdentifier = TypeVar("AnyIdentifier", bound=Identifier)

DEFAULT_CONCURRENCY = 32
_log = logging.getLogger("braze_export")


class Users(UserExports):
    """Exports of users. Reached as ``client.users``."""

    def __init__(self, caller: Caller, exports: ExportContext, lookups: LookupSettings) -> None:
        super().__init__(caller, exports)
        self._lookup = Lookup(caller, lookups)
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
            ordered: yield in the order of the requests, not as the answers come. The users of one
                request, up to 50, come in Braze's order: match them by their identifiers.
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

        Calls that are pending at the same time and ask for the same fields share requests, up to
        50 in each, and the same user is asked for once. E-mail addresses and phone numbers are not
        unique in Braze: of several users the first that Braze sends is returned.

        Args:
            identifier: an external id, or one of the other kinds.
            fields: what to export; as for ``export_ids``.
            into: as for ``export_ids``.

        Raises:
            InputError: an argument that cannot be sent.
            DeadlineExceededError: there is no answer by the ``deadline``, or cannot be.
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
        """
        checked = check_identifier(identifier)
        names = self._fields(fields, into)
        found: T | None = await self._lookup.get(checked, names, decoder_for(into, EXPORT_IDS))
        return found

    async def get_many(
        self,
        identifiers: Iterable[AnyIdentifier],
        *,
        fields: Iterable[str] | None = None,
        into: type[T] = UserProfile,  # type: ignore[assignment]
    ) -> dict[AnyIdentifier, T | None]:
        """Return the profiles of some users by identifier, ``None`` for those unknown to Braze.

        Like ``get`` for each of them. Everything is held in memory, and comes before bulk work:
        for thousands of users take ``export_ids``.

        Args:
            identifiers: of any kind.
            fields: what to export; as for ``export_ids``.
            into: as for ``export_ids``.

        Raises:
            InputError: an argument that cannot be sent; nothing was.
            BrazeError: as for ``get``, the first, once there is an answer for each;
                ``error.partial`` is the dictionary of those that came, ``error.identifiers``
                are the others.
        """
        checked = await _checked(identifiers)
        names = self._fields(fields, into)
        return await self._lookup.get_many(checked, names, decoder_for(into, EXPORT_IDS))

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


async def _checked(identifiers: Iterable[Identifier]) -> list[Identifier]:
    """Return all identifiers, before the first is asked for.

    Raises:
        InputError: they cannot be read at once, or one of them cannot be sent.
    """
    check_iterable(identifiers)
    if not isinstance(identifiers, Iterable):
        raise InputError("get_many takes no async iterable: read it into a list first")
    return await read_all(identifiers)
