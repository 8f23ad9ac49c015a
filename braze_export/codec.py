"""Bytes to records.

An answer is split into the raw slices of its users, and each user is decoded when the
consumer takes it: ``UserProfile`` by msgspec straight into the class, the caller's own classes
by cattrs. Pure: no ``async``, no HTTP.
"""

from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar, cast

import msgspec
from attrs import frozen

from braze_export._json import dumps, items, loads, members, read_part
from braze_export.answers import decode_error, read_messages
from braze_export.endpoints import Endpoint
from braze_export.identifiers import is_unicode
from braze_export.models.lenient import from_json, remember, structure_leniently
from braze_export.models.profile import UserProfile
from braze_export.structuring import field_names, structurer_for, why

T = TypeVar("T")


class _Envelope(msgspec.Struct, gc=False):
    users: list[msgspec.Raw] | None = None
    invalid_user_ids: msgspec.Raw = msgspec.Raw(b"null")
    errors: msgspec.Raw = msgspec.Raw(b"null")


class _Identity(msgspec.Struct, gc=False):
    external_id: str | None = None
    braze_id: str | None = None


@frozen
class IdsAnswer:
    """The answer of ``/users/export/ids``, split.

    Attributes:
        users: each user's JSON: a view of the answer's bytes; ``bytes()`` makes a copy.
        invalid_user_ids: as Braze sent them: strings, or perhaps objects.
        errors: messages of errors that left the rest of the request untouched.
        broken: whether there are line breaks in it, between tokens.
    """

    users: list[msgspec.Raw]
    invalid_user_ids: list[Any]
    errors: list[str]
    broken: bool = False


_ASIDE = ("invalid_user_ids", "errors")
_KEPT: Final = 10_000  # bytes of a body that cannot be read
_TAKES_ALL: Final = (UserProfile, dict, bytes)
_envelopes = msgspec.json.Decoder(_Envelope)
_rows = msgspec.json.Decoder(msgspec.Raw)
_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_identities = msgspec.json.Decoder(_Identity)
# Not strict: Braze sends some numbers as text (``sessions``).
_profiles = msgspec.json.Decoder(UserProfile, dec_hook=from_json, strict=False)


def split_ids_answer(body: bytes, endpoint: Endpoint) -> IdsAnswer:
    """Split the body of an answer of ``/users/export/ids``.

    Raises:
        DecodeError: this is not such a body.
    """
    try:
        envelope = _open(body)
        invalid = loads(envelope.invalid_user_ids) or []
        errors = read_messages(loads(envelope.errors))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise decode_error(
            f"the body is not the JSON that this endpoint documents ({error})",
            endpoint=endpoint,
            raw=body[:_KEPT],
        ) from None  # the cause may hold the body, and there are logs of its repr
    if envelope.users is None and not invalid:
        raise decode_error(
            "the body has neither users nor invalid_user_ids", endpoint=endpoint, raw=body[:_KEPT]
        )
    unknown = invalid if isinstance(invalid, list) else [invalid]
    return IdsAnswer(envelope.users or [], unknown, errors, broken=b"\n" in body or b"\r" in body)


def _open(body: bytes) -> _Envelope:
    try:
        return _envelopes.decode(body)
    except msgspec.ValidationError:
        raise  # JSON, but not such an object
    except msgspec.DecodeError:
        # One lone surrogate, half an emoji say, must not cost the users beside it.
        sent = members(body)
        parts = {key: msgspec.Raw(sent[key]) for key in _ASIDE if key in sent}
        listed = sent.get("users", b"null")
        users = None if listed == b"null" else [msgspec.Raw(user) for user in items(listed)]
        return _Envelope(users, **parts)


def decode_object(body: bytes, endpoint: Endpoint) -> dict[str, Any]:
    """Return the body of an answer as a dictionary.

    Raises:
        DecodeError: it is not JSON, or not an object.
    """
    try:
        value = loads(body)
    except ValueError as error:
        raise decode_error(
            f"the body is not JSON ({error})", endpoint=endpoint, raw=body[:_KEPT]
        ) from None  # the cause may hold the body, and there are logs of its repr
    if not isinstance(value, dict):
        raise decode_error("the body is no JSON object", endpoint=endpoint, raw=body[:_KEPT])
    return value


def object_listing(key: str) -> Callable[[bytes, Endpoint], dict[str, Any]]:
    """Return the function that decodes the body of an answer that lists something.

    The function raises ``DecodeError`` where there is no such list under ``key``.
    """

    def decode(body: bytes, endpoint: Endpoint) -> dict[str, Any]:
        answer = decode_object(body, endpoint)
        _listed(answer, key, endpoint)
        return answer

    return decode


def records(answer: dict[str, Any], key: str, cls: type[T], endpoint: Endpoint) -> list[T]:
    """Return the objects that an answer lists under ``key``, as instances of a model.

    Raises:
        DecodeError: there is no such list.
    """
    listed = _listed(answer, key, endpoint)
    return [structure_leniently(cls, item)[0] for item in listed if isinstance(item, dict)]


def _listed(answer: dict[str, Any], key: str, endpoint: Endpoint) -> list[Any]:
    listed = answer.get(key)
    if not isinstance(listed, list):
        raise decode_error(f"the answer has no list {key!r}", endpoint=endpoint)
    return listed


def identity(raw: bytes | msgspec.Raw) -> tuple[str, ...]:
    """Return the external id or the Braze id of a user whose record cannot be read, if any."""
    found = read_part(_identities, raw)
    name = None if found is None else found.external_id or found.braze_id
    return (name,) if name and is_unicode(name) else ()


def without(user: msgspec.Raw, names: Collection[str]) -> bytes:
    """Return a user's JSON without some of its keys; otherwise as Braze sent it."""
    try:
        parts: dict[str, Any] = _parts.decode(user)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            parts = {key: msgspec.Raw(value) for key, value in members(bytes(user)).items()}
        except ValueError:
            return bytes(user)  # no object: whoever reads it will say so
    return dumps({key: value for key, value in parts.items() if key not in names})


def fields_of(into: type) -> tuple[str, ...] | None:
    """Return the field names of a class, to be asked for when the caller names none.

    ``None`` for ``UserProfile``, ``dict`` and ``bytes``, which take whatever comes.

    Raises:
        InputError: profiles cannot be put into such a class.
    """
    return None if any(into is kind for kind in _TAKES_ALL) else field_names(into)


def decoder_for(
    into: type[T], endpoint: Endpoint, *, checked: bool = True
) -> Callable[[msgspec.Raw | bytes], T]:
    """Return the function that makes a ``T`` of one user's JSON.

    The function raises ``DecodeError``, which carries the bytes, where they do not fit.

    Args:
        into: ``UserProfile``, a class of the caller's, ``dict`` or ``bytes``.
        endpoint: for the errors.
        checked: whether what will come is known to be JSON; only ``bytes`` needs to know.

    Raises:
        InputError: profiles cannot be put into such a class.
    """
    if into is UserProfile:
        decode: Callable[[bytes], Any] = decode_profile
    elif into is dict:
        decode = _decode_dict
    elif into is bytes:
        decode = _check_object if checked else _check_row
    else:
        structure = structurer_for(into)

        def decode(raw: bytes) -> Any:
            return structure(_decode_dict(raw))

    def decode_user(view: msgspec.Raw | bytes) -> T:
        raw = bytes(view)  # a copy, so that one user kept does not keep the whole answer
        try:
            return cast("T", decode(raw))
        except (ValueError, TypeError, RecursionError, BaseExceptionGroup) as error:
            raise decode_error(
                f"a user cannot be read as {into.__name__}: {why(error)}",
                endpoint=endpoint,
                raw=raw,
            ) from None  # the cause may quote the record, and tracebacks are logged

    return decode_user


def _check_object(raw: bytes) -> bytes:
    if not raw.startswith(b"{"):
        raise TypeError("it is no JSON object")
    return raw


def _check_row(raw: bytes) -> bytes:
    row = raw.strip(b" \t\r\n")  # JSON's white space: Python's is more
    if not row.isascii():
        row.decode()  # JSON is UTF-8, which msgspec does not look at where it only skips
    try:
        _rows.decode(row)
    except msgspec.DecodeError:
        loads(row)  # a lone surrogate is let through
    return _check_object(row)


def _decode_dict(raw: bytes) -> dict[str, Any]:
    value = loads(raw)
    if not isinstance(value, dict):
        raise TypeError("it is no JSON object")
    return value


def decode_profile(raw: bytes) -> UserProfile:
    """Return the profile of one user's JSON, with the JSON itself in ``profile.raw``.

    The fast way first, msgspec straight into the class; what that does not take, leniently.

    Raises:
        ValueError: this is not JSON.
        TypeError: it is no object.
    """
    misfits: frozenset[str] = frozenset()
    try:
        profile = _profiles.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        data = loads(raw)
        if not isinstance(data, dict):
            raise TypeError("it is no JSON object") from None
        profile, misfits = structure_leniently(UserProfile, data)
    remember(profile, raw, misfits)
    return profile
