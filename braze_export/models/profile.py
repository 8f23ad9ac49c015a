"""The user profile and everything nested in it.

Every key may be missing: Braze sends as little as it can, and an absent key means null or
empty. Scalars are then ``None``, lists and objects empty.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier#user-export-object
"""

from datetime import date
from typing import Any

from msgspec import field

from braze_export._json import dumps, loads
from braze_export.errors import DecodeError
from braze_export.identifiers import UserAlias
from braze_export.models.record import Record
from braze_export.models.timestamps import IsoTimestamp, Timestamp


class Activity(Record, frozen=True):
    """A custom event or a purchase, summed up. In a purchase ``name`` is the product id.

    ``first`` and ``count`` are of all time, also where the list holds the last 90 days only.
    """

    name: str | None = None
    first: IsoTimestamp | None = None
    last: IsoTimestamp | None = None
    count: int | None = None


class Device(Record, frozen=True):
    """A device of the user. Which advertising ids are there depends on what is collected."""

    model: str | None = None
    os: str | None = None
    carrier: str | None = None
    device_id: str | None = None
    idfv: str | None = None
    idfa: str | None = None
    google_ad_id: str | None = None
    roku_ad_id: str | None = None
    windows_ad_id: str | None = None
    ad_tracking_enabled: bool | None = None


class PushToken(Record, frozen=True):
    """A push token. ``notifications_enabled`` is of the device, not the user's subscription."""

    app: str | None = None
    platform: str | None = None
    token: str | None = None
    device_id: str | None = None
    notifications_enabled: bool | None = None
    provisionally_opted_in: bool | None = None


class App(Record, frozen=True):
    """An app that the user has used. Braze sends ``sessions`` as number or text; here it is int."""

    name: str | None = None
    platform: str | None = None
    version: str | None = None
    sessions: int | None = None
    first_used: IsoTimestamp | None = None
    last_used: IsoTimestamp | None = None


class CampaignReceived(Record, frozen=True):
    """A campaign that reached the user, and what came of it."""

    name: str | None = None
    api_campaign_id: str | None = None
    last_received: IsoTimestamp | None = None
    engaged: dict[str, bool | None] = field(default_factory=dict)
    converted: bool | None = None
    multiple_converted: dict[str, bool | None] = field(default_factory=dict)
    in_control: bool | None = None
    variation_name: str | None = None
    variation_api_id: str | None = None


class CanvasStep(Record, frozen=True):
    """A step of a Canvas that the user has received."""

    name: str | None = None
    api_canvas_step_id: str | None = None
    last_received: IsoTimestamp | None = None


class CanvasReceived(Record, frozen=True):
    """A Canvas that the user has entered."""

    name: str | None = None
    api_canvas_id: str | None = None
    last_received_message: IsoTimestamp | None = None
    last_entered: IsoTimestamp | None = None
    variation_name: str | None = None
    in_control: bool | None = None
    last_entered_control_at: IsoTimestamp | None = None
    last_exited: IsoTimestamp | None = None
    steps_received: tuple[CanvasStep, ...] = ()


class CardClicked(Record, frozen=True):
    """A News Feed card that the user has clicked (deprecated by Braze in 2022)."""

    name: str | None = None


class AliasRecord(Record, frozen=True):
    """An alias as Braze sends it, where either part may be missing."""

    alias_name: str | None = None
    alias_label: str | None = None

    @property
    def identifier(self) -> UserAlias:
        """The alias in the form in which it can be asked for.

        Raises:
            InputError: a part is missing.
        """
        return UserAlias(self.alias_name or "", self.alias_label or "")


class UserProfile(Record, frozen=True, eq=False, gc=True):
    """A user as Braze exports it.

    Values are as sent: ``last_coordinates`` is in Braze's order (documented as longitude
    first, but latitude first in its samples), ``gender`` may be ``"nil"``, ``phone`` and
    ``time_zone`` have no fixed form. Moments are aware ``datetime``s.
    """

    # In the order in which Braze sends them, which decodes fastest.
    created_at: Timestamp | None = None
    external_id: str | None = None
    user_aliases: tuple[AliasRecord, ...] = ()
    braze_id: str | None = None
    random_bucket: int | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    dob: date | None = None
    home_city: str | None = None
    country: str | None = None
    phone: str | None = None
    language: str | None = None
    time_zone: str | None = None
    last_coordinates: tuple[float, ...] = ()
    gender: str | None = None
    total_revenue: int | float | None = None
    attributed_campaign: str | None = None
    attributed_source: str | None = None
    attributed_adgroup: str | None = None
    attributed_ad: str | None = None
    push_subscribe: str | None = None
    push_opted_in_at: Timestamp | None = None
    push_unsubscribed_at: Timestamp | None = None
    email_subscribe: str | None = None
    email_opted_in_at: Timestamp | None = None
    email_unsubscribed_at: Timestamp | None = None
    custom_attributes: dict[str, Any] = field(default_factory=dict)
    custom_events: tuple[Activity, ...] = ()
    purchases: tuple[Activity, ...] = ()
    devices: tuple[Device, ...] = ()
    push_tokens: tuple[PushToken, ...] = ()
    apps: tuple[App, ...] = ()
    campaigns_received: tuple[CampaignReceived, ...] = ()
    canvases_received: tuple[CanvasReceived, ...] = ()
    cards_clicked: tuple[CardClicked, ...] = ()
    created_from: str | None = None
    uninstalled_at: Timestamp | None = None

    # Filled by the codec. The names start with an underscore so that no key of Braze's is theirs.
    _raw: bytes = b""
    _misfits: frozenset[str] = frozenset()

    @property
    def raw(self) -> bytes:
        """The whole object as JSON bytes, exactly as Braze sent it.

        For a profile that was made by hand: its attributes as JSON.
        """
        return self._raw or dumps(self._values())

    @property
    def extra(self) -> dict[str, Any]:
        """Keys that have no place in this class, or whose value does not fit their place.

        A value of an undocumented type stands here as Braze sent it, and the attribute holds
        as much of it as fits, so that attributes never hold anything but their declared type.
        Decoded anew at each access.

        Raises:
            DecodeError: an unknown key holds what Python cannot hold, such as a number of more
                than 4300 digits, or bytes that are no UTF-8. ``raw`` has them.
        """
        if not self._raw:
            return {}
        try:
            sent = loads(self._raw)
        except ValueError as error:
            unreadable = DecodeError(f"unknown keys of a user cannot be read: {error}")
            unreadable.raw = self._raw
            raise unreadable from error
        known = set(self._names()) - self._misfits
        return {key: value for key, value in sent.items() if key not in known}

    def _names(self) -> list[str]:
        return [name for name in self.__struct_fields__ if not name.startswith("_")]

    def _values(self) -> dict[str, Any]:
        """Return what is there, without the keys that Braze would leave out."""
        values = {name: getattr(self, name) for name in self._names()}
        return {name: value for name, value in values.items() if value not in (None, (), {})}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UserProfile):
            return NotImplemented
        return self._values() == other._values()

    __hash__ = None  # type: ignore[assignment] # holds dictionaries

    def __repr__(self) -> str:
        try:
            extra: Any = self.extra
        except DecodeError:
            extra = "(unreadable)"
        shown = self._values() | ({"extra": extra} if extra else {})
        return f"UserProfile({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
