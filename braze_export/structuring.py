"""The caller's own attrs classes and dataclasses from dictionaries, by cattrs.

cattrs by itself turns anything into a ``str`` and any text into ``True``. Here a value must be
of the declared type, save for the oddities that Braze is known for: numbers as text, three
forms of timestamps, and absent keys for what is null or empty.
"""

import dataclasses
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
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
    converter = _make_converter()
    try:
        structure = converter.get_structure_hook(into)
    except (cattrs.StructureHandlerNotFoundError, NameError, TypeError) as error:
        raise InputError(f"into={into.__name__} cannot be filled: {error}") from error
    return lambda data: structure(data, into)


def why(error: BaseException) -> str:
    """Put an error of a structurer into words that hold no value of the record."""
    if isinstance(error, cattrs.BaseValidationError):
        reasons = cattrs.transform_error(error, path="profile")
        more = f"; and {len(reasons) - _REASONS} more" if len(reasons) > _REASONS else ""
        return "; ".join(reasons[:_REASONS]) + more
    return str(error)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for kind, hook in _SCALARS.items():
        converter.register_structure_hook(kind, hook)
    configure_union_passthrough(_JsonScalar, converter)
    converter.register_structure_hook_factory(_is_class, _class_hook_factory(converter))
    return converter


def _class_hook_factory(
    converter: cattrs.Converter,
) -> Callable[[Any], Callable[[Any, Any], Any]]:
    def factory(cls: Any) -> Callable[[Any, Any], Any]:
        fill: Callable[[dict[str, Any], Any], Any] = make_dict_structure_fn(cls, converter)
        hints = get_type_hints(get_origin(cls) or cls)
        nullable = {name for name in hints if _takes_none(hints[name])}
        absent = {
            name: _empty(hints[name])
            for name, has_default in _defaults(get_origin(cls) or cls).items()
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
    raise InputError(f"into={into!r}: allowed are attrs classes, dataclasses and dict")


def _is_class(kind: Any) -> bool:
    cls = get_origin(kind) or kind
    return isinstance(cls, type) and (attrs.has(cls) or dataclasses.is_dataclass(cls))


def _takes_none(kind: Any) -> bool:
    if kind is Any or kind is NoneType:
        return True
    return get_origin(kind) in {Union, UnionType} and NoneType in get_args(kind)


def _may_be_absent(kind: Any) -> bool:
    return _takes_none(kind) or (get_origin(kind) or kind) in {list, tuple, set, frozenset, dict}


def _empty(kind: Any) -> Any:
    if _takes_none(kind):
        return None
    return {} if (get_origin(kind) or kind) is dict else []


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
