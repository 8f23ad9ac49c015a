"""The ways to name a user, and the check of what the caller passes for one.

A plain ``str`` is an external id, the commonest by far. Every other kind has a small frozen
class, so that the kind is seen where it is written.
"""

from typing import Final, TypeAlias, TypeGuard

from attrs import Attribute, field, frozen

from braze_export.errors import InputError, InvalidIdentifierError


def _usable(text: object) -> TypeGuard[str]:
    """Say whether a value can be sent as an identifier: a string, not blank, valid Unicode."""
    return isinstance(text, str) and bool(text) and not text.isspace() and is_unicode(text)


def is_unicode(text: str) -> bool:
    """Say whether text is valid Unicode, so that it can be sent and written."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _plain(text: str) -> str:
    """Return a subclass of ``str``, an enum or numpy's, as the text that can be encoded."""
    return str.__str__(text) if isinstance(text, str) else text


def _check_part(instance: object, attribute: "Attribute[str]", value: object) -> None:
    if not _usable(value):
        kind = type(instance).__name__
        raise InvalidIdentifierError(
            f"{kind}.{attribute.name} must be a string that is not empty and is valid Unicode, "
            f"not {describe(value)}"
        )


@frozen
class UserAlias:
    """An alias of a user: a name, and the label that says whose name it is.

    https://www.braze.com/docs/api/objects_filters/user_alias_object
    """

    alias_name: str = field(converter=_plain, validator=_check_part)
    alias_label: str = field(converter=_plain, validator=_check_part)


@frozen
class BrazeId:
    """Braze's own id of a user (``braze_id``)."""

    value: str = field(converter=_plain, validator=_check_part)


@frozen
class DeviceId:
    """The id that the client SDK's device-id getter returns (``device_id``)."""

    value: str = field(converter=_plain, validator=_check_part)


@frozen
class EmailAddress:
    """An e-mail address. Not unique in Braze: several users can come back for one."""

    value: str = field(converter=_plain, validator=_check_part)


@frozen
class PhoneNumber:
    """A phone number in E.164 form, such as ``+15555550123``. Not unique in Braze."""

    value: str = field(converter=_plain, validator=_check_part)


Identifier: TypeAlias = str | UserAlias | BrazeId | DeviceId | EmailAddress | PhoneNumber
"""What names a user: an external id as plain ``str``, or one of the classes above."""

#: Kinds that Braze takes one at a time, with the key of the request that holds each.
#: https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier
SINGLE_KINDS: dict[type, str] = {
    BrazeId: "braze_id",
    DeviceId: "device_id",
    EmailAddress: "email_address",
    PhoneNumber: "phone",
}


_CLASSES: Final = frozenset((UserAlias, *SINGLE_KINDS))


def check_identifier(item: object, position: int | None = None) -> Identifier:
    """Return the item as an identifier.

    Args:
        item: what the caller passed.
        position: its place in the input, counted from 0, for the message.

    Raises:
        InvalidIdentifierError: it is no identifier that could be sent.
    """
    if type(item) in _CLASSES:  # not of a subclass: the kind decides how it is asked for
        return item  # type: ignore[return-value]  # checked when it was made
    if _usable(item):
        return _plain(item)
    where = "" if position is None else f" at position {position}"
    raise InvalidIdentifierError(
        f"the identifier{where} is {describe(item)}: allowed are an external id (a string that is "
        "not empty and is valid Unicode), UserAlias, BrazeId, DeviceId, EmailAddress, PhoneNumber"
    )


def check_name(value: str, name: str) -> str:
    """Return a name or id of something else than a user, such as a segment.

    Raises:
        InputError: it is no string, or blank.
    """
    if not _usable(value):
        raise InputError(f"{name} must be a string that is not empty, not {describe(value)}")
    return _plain(value)


def describe(value: object) -> str:
    """Say what a bad value is without printing it: it may be personal data."""
    if isinstance(value, str):
        return (
            "an empty or blank string"
            if not value.strip()
            else "a string that is not valid Unicode"
        )
    return "None" if value is None else f"of type {type(value).__name__}"


def check_prefix(object_prefix: str) -> None:
    """Accept what can be the name of an export's folder.

    Raises:
        InputError: it cannot.
    """
    if "/" in object_prefix:
        raise InputError("an object prefix is a name without slashes: <uuid>-<unix seconds>")
