"""Records as pydantic types: how they are read, written and described in JSON Schema.

Only pydantic asks for this room, by ``Record.__get_pydantic_core_schema__``: nothing else imports
it, and pydantic stays optional. A record is here any struct; it lies below the models.

As JSON a record is what Braze sent, with two differences: moments are in ISO 8601, and what is
null or empty is left out, which to Braze is the same as absent. Unknown keys are kept, nested
ones too, and so are values of undocumented types; what stands in the attributes has their types.
"""

from datetime import date, datetime
from functools import cache, partial
from inspect import getdoc, isclass
from itertools import chain, repeat
from typing import Any, Final, get_args

import attrs
import msgspec
from pydantic import GetJsonSchemaHandler, TypeAdapter
from pydantic_core import SchemaSerializer
from pydantic_core import core_schema as core

from braze_export._json import dumps, loads, writable
from braze_export.models.lenient import remember, structure_leniently

_KEPT: Final = (bytes, date, datetime)  # pydantic writes the moments; the bytes are ``_raw``
_EMPTY: Final[tuple[Any, ...]] = (None, (), {})
_chooser = SchemaSerializer(core.dict_schema())


def record_schema(cls: type[msgspec.Struct]) -> core.CoreSchema:
    """Return what tells pydantic how to read and to write a record.

    An instance passes as it is, and a JSON object is read as leniently as the client reads Braze's
    answers. Where pydantic is to be strict, Python code must pass an instance.
    """
    instance = core.is_instance_schema(cls)
    read = core.no_info_after_validator_function(partial(_read, cls), core.dict_schema())
    either = core.union_schema(
        [instance, read],
        mode="left_to_right",
        custom_error_type="record_type",
        custom_error_message=f"Input should be an instance of {cls.__name__}, or an object that "
        "holds nothing but what JSON can hold",
    )
    return core.json_or_python_schema(
        read,
        core.lax_or_strict_schema(either, instance),
        ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",  # gives the component its name
        serialization=core.plain_serializer_function_ser_schema(_write, info_arg=True),
    )


def json_schema(cls: type[Any], handler: GetJsonSchemaHandler) -> dict[str, Any]:
    """Return the JSON Schema of a record: every key may be missing, others may be there.

    Null is allowed where records are read, and never written.
    """
    written = handler.mode == "serialization"
    kinds = {a.name: _kind(a.type) for a in attrs.fields(cls)}
    fields = {
        name: core.typed_dict_field(kind if written else core.nullable_schema(kind), required=False)
        for name, kind in kinds.items()
    }
    schema = handler(core.typed_dict_schema(fields))
    more = {"additionalProperties": True} if hasattr(cls, "extra") else {}
    return {"title": cls.__name__, "description": getdoc(cls), **schema, **more}


@cache
def _kind(annotation: Any) -> core.CoreSchema:
    """Return pydantic's schema of an attribute's type, without null."""
    schema = TypeAdapter(annotation).core_schema
    return schema["schema"] if schema["type"] == "nullable" else schema


def _read(cls: type[msgspec.Struct], data: dict[Any, Any]) -> msgspec.Struct:
    try:
        raw = dumps(data)
        record, misfits = structure_leniently(cls, loads(raw))
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError("it holds what JSON cannot hold") from None  # the cause may quote the data
    if hasattr(record, "_raw"):
        remember(record, raw, misfits)
    return record


def _write(record: Any, info: core.SerializationInfo) -> Any:
    """Return a record as a dictionary, for pydantic to go on with."""
    if not isinstance(record, msgspec.Struct):
        return record  # pydantic asks every member of a union
    plain = msgspec.to_builtins(record, builtin_types=_KEPT)
    raw, misfits = plain.pop("_raw", b""), plain.pop("_misfits", ())
    sent, sound = _sent(raw)
    unfit = {key: sent.pop(key) for key in misfits if key in sent}
    plain = _complete(type(record), plain, sent) | unfit
    if not sound and info.mode_is_json():
        plain = _sound(plain)
    chosen: dict[str, Any] = {"include": info.include, "exclude": info.exclude}
    if chosen["include"] is None and chosen["exclude"] is None:
        return plain
    return _chooser.to_python(plain, mode=info.mode, **chosen)


def _sent(raw: bytes) -> tuple[dict[str, Any], bool]:
    """Return what Braze sent, if anything, and whether all of it is known to be Unicode."""
    try:
        return (msgspec.json.decode(raw), True) if raw else ({}, False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return loads(raw), False
        except ValueError:  # an unknown key holds what Python cannot (see ``UserProfile.extra``)
            return {}, False


def _complete(
    cls: type[msgspec.Struct], plain: dict[str, Any], sent: dict[str, Any]
) -> dict[str, Any]:
    """Return a record's attributes without those that are empty, with the unknown keys sent."""
    names, lists = _layout(cls)
    # Most are there, and are so found at once.
    whole = {name: value for name, value in plain.items() if value or value not in _EMPTY}
    for name, kind in lists:
        if name in whole:
            beside = chain(sent.get(name) or (), repeat({}))  # one made by hand has nothing beside
            whole[name] = [
                _complete(kind, *both) for both in zip(whole[name], beside, strict=False)
            ]
    if not sent.keys() <= names:
        whole |= {key: value for key, value in sent.items() if key not in names}
    return whole


@cache
def _layout(cls: type[Any]) -> tuple[frozenset[str], tuple[tuple[str, type[Any]], ...]]:
    """Return the names of a record's attributes, and which of them are lists of which records."""
    kinds = {a.name: (*get_args(a.type), None)[0] for a in attrs.fields(cls)}
    lists = (
        (n, kind) for n, kind in kinds.items() if isclass(kind) and issubclass(kind, msgspec.Struct)
    )
    return frozenset(kinds), tuple(lists)


def _sound(value: Any) -> Any:
    """Return a value without halves of characters, which no JSON in UTF-8 can hold."""
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, dict):
        return {_sound(key): _sound(item) for key, item in value.items()}
    return [_sound(item) for item in value] if isinstance(value, list | tuple) else value
