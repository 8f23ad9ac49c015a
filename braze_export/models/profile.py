"""The user profile and everything nested in it.

Every key may be missing: Braze sends as little as it can, and an absent key means null or
empty. Scalars are then ``None``, lists and objects empty.
https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier#user-export-object
"""

from datetime import date
from typing import Any, TypeVar

import attrs
import msgspec
from attrs import Factory, field, frozen

from braze_export._json import loads
from braze_export.identifiers import UserAlias
from braze_export.models.timestamps import IsoTimestamp, Timestamp

C = TypeVar("C", bound=type[Any])


def _short_repr(cls: C) -> C:
    """Leave out of the ``repr`` whatever was not sent: most of a profile usually was not."""

    def __repr__(self: attrs.AttrsInstance) -> str:
        shown = (
            f"{a.name}={value!r}"
            for a in attrs.fields(type(self))
            if a.repr and (value := getattr(self, a.name)) not in (None, (), {})
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    cls.__repr__ = __repr__  # type: ignore[assignment]
    return cls


@_short_repr
@frozen
class Activity:
    """A custom event or a purchase, summed up. In a purchase ``name`` is the product id.

    ``first`` and ``count`` are of all time, also where the list holds the last 90 days only.
    """

    name: str | None = None
    first: IsoTimestamp | None = None
    last: IsoTimestamp | None = None
    count: int | None = None


@_short_repr
@frozen
class Device:
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


@_short_repr
@frozen
class PushToken:
    """A push token. ``notifications_enabled`` is of the device, not the user's subscription."""

    app: str | None = None
    platform: str | None = None
    token: str | None = None
    device_id: str | None = None
    notifications_enabled: bool | None = None
    provisionally_opted_in: bool | None = None


@_short_repr
@frozen
class App:
    """An app that the user has used. Braze sends ``sessions`` as number or text; here it is int."""

    name: str | None = None
    platform: str | None = None
    version: str | None = None
    sessions: int | None = None
    first_used: IsoTimestamp | None = None
    last_used: IsoTimestamp | None = None


@_short_repr
@frozen
class CampaignReceived:
    """A campaign that reached the user, and what came of it."""

    name: str | None = None
    api_campaign_id: str | None = None
    last_received: IsoTimestamp | None = None
    engaged: dict[str, bool | None] = Factory(dict)
    converted: bool | None = None
    multiple_converted: dict[str, bool | None] = Factory(dict)
    in_control: bool | None = None
    variation_name: str | None = None
    variation_api_id: str | None = None


@_short_repr
@frozen
class CanvasStep:
    """A step of a Canvas that the user has received."""

    name: str | None = None
    api_canvas_step_id: str | None = None
    last_received: IsoTimestamp | None = None


@_short_repr
@frozen
class CanvasReceived:
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


@_short_repr
@frozen
class CardClicked:
    """A News Feed card that the user has clicked (deprecated by Braze in 2022)."""

    name: str | None = None


@_short_repr
@frozen
class AliasRecord:
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


@_short_repr
@frozen
class UserProfile:
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
    custom_attributes: dict[str, Any] = Factory(dict)
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
    _raw: bytes = field(default=b"", repr=False, eq=False)
    _misfits: frozenset[str] = field(default=frozenset(), repr=False, eq=False)

    @property
    def raw(self) -> bytes:
        """The whole object as JSON bytes, exactly as Braze sent it.

        For a profile that was made by hand: its attributes as JSON.
        """
        return self._raw or msgspec.json.encode(self._sent())

    @property
    def extra(self) -> dict[str, Any]:
        """Keys that have no place in this class, or whose value does not fit their place.

        A value of an undocumented type stands here as Braze sent it, and the attribute holds
        as much of it as fits, so that attributes never hold anything but their declared type.
        Decoded anew at each access.
        """
        if not self._raw:
            return {}
        known = {a.name for a in attrs.fields(UserProfile) if not a.name.startswith("_")}
        sent = loads(self._raw)
        return {k: v for k, v in sent.items() if k not in known or k in self._misfits}

    def _sent(self) -> dict[str, Any]:
        values = {a.name: getattr(self, a.name) for a in attrs.fields(UserProfile)}
        return {
            name: value
            for name, value in values.items()
            if not name.startswith("_") and value not in (None, (), {})
        }
