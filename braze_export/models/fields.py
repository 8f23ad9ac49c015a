"""The names that ``fields_to_export`` takes, and the check of what the caller passes.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier#fields-to-export
"""

import re
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from enum import StrEnum

from braze_export.errors import InputError, UnknownFieldWarning
from braze_export.identifiers import check_name


class ExportField(StrEnum):
    """A documented name for ``fields``; plain strings do as well.

    The lists on Braze's pages are not exhaustive, so unknown names are sent as they are.
    """

    APPS = "apps"
    ATTRIBUTED_AD = "attributed_ad"
    ATTRIBUTED_ADGROUP = "attributed_adgroup"
    ATTRIBUTED_CAMPAIGN = "attributed_campaign"
    ATTRIBUTED_SOURCE = "attributed_source"
    BRAZE_ID = "braze_id"
    CAMPAIGNS_RECEIVED = "campaigns_received"
    CANVASES_RECEIVED = "canvases_received"
    CARDS_CLICKED = "cards_clicked"
    COUNTRY = "country"
    CREATED_AT = "created_at"
    CREATED_FROM = "created_from"
    CUSTOM_ATTRIBUTES = "custom_attributes"
    CUSTOM_EVENTS = "custom_events"
    DEVICES = "devices"
    DOB = "dob"
    EMAIL = "email"
    EMAIL_SUBSCRIBE = "email_subscribe"
    EXTERNAL_ID = "external_id"
    FIRST_NAME = "first_name"
    GENDER = "gender"
    HOME_CITY = "home_city"
    LANGUAGE = "language"
    LAST_COORDINATES = "last_coordinates"
    LAST_NAME = "last_name"
    PHONE = "phone"
    PURCHASES = "purchases"
    PUSH_SUBSCRIBE = "push_subscribe"
    PUSH_TOKENS = "push_tokens"
    RANDOM_BUCKET = "random_bucket"
    TIME_ZONE = "time_zone"
    TOTAL_REVENUE = "total_revenue"
    UNINSTALLED_AT = "uninstalled_at"
    USER_ALIASES = "user_aliases"


_SEVERAL = re.compile("[,;]")  # stands between names, and in none of Braze's

#: Fields that keep a request out of the 40-a-second tier of ``/users/export/ids``.
SLOW_FIELDS = frozenset({ExportField.CAMPAIGNS_RECEIVED, ExportField.CANVASES_RECEIVED})

#: Fields that Braze documents for users and segments, but not for the global control group.
NOT_OF_GROUP = frozenset(
    {
        ExportField.CAMPAIGNS_RECEIVED,
        ExportField.CANVASES_RECEIVED,
        ExportField.CARDS_CLICKED,
        ExportField.CREATED_FROM,
        ExportField.EMAIL_SUBSCRIBE,
        ExportField.PUSH_SUBSCRIBE,
        ExportField.PUSH_TOKENS,
    }
)

#: Keys of a profile that are asked for under another name.
ARRIVES_WITH = {
    "push_opted_in_at": ExportField.PUSH_SUBSCRIBE,
    "push_unsubscribed_at": ExportField.PUSH_SUBSCRIBE,
    "email_opted_in_at": ExportField.EMAIL_SUBSCRIBE,
    "email_unsubscribed_at": ExportField.EMAIL_SUBSCRIBE,
}

_KNOWN = frozenset(ExportField)


def check_fields(fields: Iterable[str], *, stacklevel: int = 3) -> tuple[str, ...]:
    """Return the field names as they are sent: plain strings, each once, in the given order.

    Args:
        fields: names, as ``ExportField`` or ``str``.
        stacklevel: what the warning points to, counted as ``warnings.warn`` does: 1 is this
            function, 2 its caller.

    Raises:
        InputError: a bare string, nothing at all, or something that is no name, or several.

    Warns:
        UnknownFieldWarning: a name that Braze does not document and that resembles one it does.
    """
    if isinstance(fields, str):
        raise InputError(f"fields must be a list of names: write [{fields!r}]")
    try:
        given = list(fields)
    except TypeError:
        raise InputError(
            f"fields must be a list of names, not of type {type(fields).__name__}"
        ) from None
    checked = [check_name(name, "a name in fields") for name in given]
    names = tuple(dict.fromkeys(str(ARRIVES_WITH.get(name, name)) for name in checked))
    if not names:
        raise InputError("fields is empty: name at least one field, such as external_id")
    for name in names:
        if _SEVERAL.search(name):
            raise InputError(f"fields holds {name!r}: give each name by itself, as a list")
        _warn_if_misspelt(name, stacklevel)
    return names


def warn_beyond_group(names: Iterable[str], *, stacklevel: int = 3) -> None:
    """Warn of fields that the export of the global control group may not give.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_global_control_group

    Args:
        names: checked ones.
        stacklevel: as for ``check_fields``.

    Warns:
        UnknownFieldWarning: Braze documents a name for other exports only.
    """
    beyond = [name for name in names if name in NOT_OF_GROUP]
    if beyond:
        warnings.warn(
            f"Braze does not document {', '.join(beyond)} for the global control group, and may "
            "leave it out",
            UnknownFieldWarning,
            stacklevel=stacklevel,
        )


def costs_fast_tier(fields: tuple[str, ...] | None) -> bool:
    """Say whether a request with these fields is held to the slower limit.

    Braze answers 40 requests a second where the fields are named and neither
    ``campaigns_received`` nor ``canvases_received`` is among them.
    """
    return fields is None or not SLOW_FIELDS.isdisjoint(fields)


def _warn_if_misspelt(name: str, stacklevel: int) -> None:
    if name in _KNOWN:
        return
    near = get_close_matches(name.lower(), _KNOWN, n=1, cutoff=0.8)
    if near:
        warnings.warn(
            f"Braze documents no field {name!r}: did you mean {str(near[0])!r}?",
            UnknownFieldWarning,
            stacklevel=stacklevel + 1,
        )
