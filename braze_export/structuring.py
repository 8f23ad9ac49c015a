"""The caller's own attrs classes and dataclasses from dictionaries, by cattrs.

cattrs by itself turns anything into a ``str`` and any text into ``True``. Here a value must be
of the declared type, save for the oddities that Braze is known for: numbers as text, three
forms of timestamps, and absent keys for what is null or empty.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_union_passthrough

from braze_export.errors import InputError
from braze_export.models.timestamps import Timestamp, parse_timestamp

T = TypeVar("T")
_JsonScalar = str | bool | int | float | None
_REASONS = 3  # of one record, in a message


def field_names(into: type) -> tuple[str, ...]:
    """Return the names of the fields of an attrs class or a dataclass, private ones left out.

    Raises:
        InputError: it is neither, or has no fields.
    """
    names = tuple(n for n in _defaults(into) if not n.startswith("_"))
    if not names:
        raise InputError(f"into={into.__name__} has no fields: declare what you want to have")
    return names


def structurer_for(into: type[T]) -> Callable[[dict[str, Any]], T]:
    """Return the function that makes an instance of a class from a user as a dictionary.

    The function raises exceptions that ``why`` can put into words.

    Raises:
        InputError: the class is neither attrs nor dataclass, or has types that are not known.
    """
    _defaults(into)
    try:
        structure = _compiled(into)  # type: ignore[arg-type] # classes are hashable
    except (cattrs.StructureHandlerNotFoundError, NameError, TypeError) as error:
        raise InputError(f"into={into.__name__} cannot be filled: {error}") from error
    return lambda data: structure(data, into)


@lru_cache
def _compiled(into: type[Any]) -> Callable[[Any, Any], Any]:
    """Make the hook of a class once: it takes half a millisecond, which a look-up would feel."""
    return _make_converter().get_structure_hook(into)


def why(error: BaseException) -> str:
    """Put an error of a structurer into words that hold no value of the record."""
    if isinstance(error, cattrs.BaseValidationError):
        reasons = cattrs.transform_error(error, path="profile", format_exception=_reason)
        more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
        return "; ".join(reasons[:_REASONS]) + more
    return str(error)


def _reason(error: BaseException, kind: Any) -> str:
    """Leave out what the error itself says: it may quote the record."""
    if kind is None:
        return f"{type(error).__name__} when it was made"
    if isinstance(error, KeyError):
        return "required field missing"
    name = kind.__name__ if isinstance(kind, type) else str(kind)
    return f"invalid value for type, expected {name}"


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for kind, hook in _SCALARS.items():
        converter.register_structure_hook(kind, _exactly(kind, hook))
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    configure_union_passthrough(_JsonScalar, converter)
    _guard_collections(converter)
    converter.register_structure_hook_factory(_is_class, _class_hook_factory(converter))
    return converter


def _exactly(kind: Any, hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Make a hook go on to the subclass asked for, such as an enum of texts."""

    def structure(value: Any, asked: Any) -> Any:
        made = hook(value, asked)
        return made if asked is kind else asked(made)

    return structure


def _guard_collections(converter: cattrs.Converter) -> None:
    """Let collections be made of JSON's alone: cattrs takes text apart into letters."""
    passed: set[Any] = set()

    def is_guarded(kind: Any) -> bool:
        if kind in passed:  # asked again by the guard itself, for the hook behind it
            passed.remove(kind)
            return False
        return _json_collection(kind) is not None

    def guard(kind: Any) -> Callable[[Any, Any], Any]:
        needed = _json_collection(kind) or object
        passed.add(kind)
        make = converter.get_structure_hook(kind, cache_result=False)

        def structure(value: Any, asked: Any) -> Any:
            if not isinstance(value, needed):
                raise TypeError("not such a collection")
            return make(value, asked)

        return structure

    converter.register_structure_hook_factory(is_guarded, guard)


def _json_collection(kind: Any) -> type | None:
    """Return what JSON has for a declared collection: ``dict``, ``list``, or ``None`` for none."""
    cls = get_origin(kind) or kind
    if not isinstance(cls, type) or _is_class(kind) or issubclass(cls, str | bytes):
        return None
    if issubclass(cls, Mapping):
        return dict
    return list if issubclass(cls, Collection) else None


def _class_hook_factory(
    converter: cattrs.Converter,
) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        fill: Callable[[dict[str, Any], Any], Any] = make_dict_structure_fn(cls, converter)
        fields = _defaults(get_origin(cls) or cls)
        # attrs fields may have no annotation: anything goes.
        hints = dict.fromkeys(fields, Any) | get_type_hints(get_origin(cls) or cls)
        nullable = {name for name in hints if _takes_none(hints[name])}
        absent = {
            name: _empty(hints[name])
            for name, has_default in fields.items()
            if not has_default and _may_be_absent(hints[name])
        }

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise TypeError("not an object")
            sent = {k: v for k, v in value.items() if v is not None or k in nullable}
            return fill(absent | sent, cls)

        return structure

    return factory


def _defaults(into: type) -> dict[str, bool]:
    """Return the names of the fields that ``__init__`` takes, and whether each has a default."""
    if isinstance(into, type) and attrs.has(into):
        return {a.name: a.default is not attrs.NOTHING for a in attrs.fields(into) if a.init}
    if isinstance(into, type) and dataclasses.is_dataclass(into):
        missing = dataclasses.MISSING
        return {
            f.name: f.default is not missing or f.default_factory is not missing
            for f in dataclasses.fields(into)
            if f.init
        }
    raise InputError(f"into={into!r}: allowed are attrs classes, dataclasses, dict and bytes")


def _is_class(kind: Any) -> bool:
    cls = get_origin(kind) or kind
    return isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))


def _takes_none(kind: Any) -> bool:
    if kind is Any or kind is NoneType:
        return True
    return get_origin(kind) in {Union, UnionType} and NoneType in get_args(kind)


def _may_be_absent(kind: Any) -> bool:
    return _takes_none(kind) or _json_collection(kind) is not None


def _empty(kind: Any) -> Any:
    made_of = _json_collection(kind)
    return None if _takes_none(kind) or made_of is None else made_of()


def _str(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _bool(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not true or false")
    return value


def _int(value: Any, _: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("not a number")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError("not a whole number")
    return int(value)


def _float(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("not a number")
    return float(value)


def _decimal(value: Any, _: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError("not a number")
    return Decimal(str(value))


def _datetime(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise TypeError("not a moment")
    return parse_timestamp(value)


def _date(value: Any, _: Any) -> date:
    if not isinstance(value, str):
        raise TypeError("not a date")
    return date.fromisoformat(value)


_SCALARS: dict[Any, Callable[[Any, Any], Any]] = {
    str: _str,
    bool: _bool,
    int: _int,
    float: _float,
    Decimal: _decimal,
    datetime: _datetime,
    Timestamp: _datetime,
    date: _date,
}
