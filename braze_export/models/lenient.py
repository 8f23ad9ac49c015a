"""Our models from JSON that is not quite what Braze documents.

Where a value has an undocumented type, everything that fits is kept, and what does not is named,
so that nothing Braze sends raises where a value can be kept.
"""

from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec
from msgspec.structs import force_setattr

from braze_export.models.timestamps import IsoTimestamp, Timestamp, parse_timestamp

T = TypeVar("T")


def from_json(kind: type, value: Any) -> Any:
    """Decode the one type of our models that msgspec does not know."""
    if kind is Timestamp and isinstance(value, str):
        return parse_timestamp(value)
    raise ValueError("not a moment")


def remember(record: msgspec.Struct, raw: bytes, misfits: frozenset[str]) -> None:
    """Have a record know the JSON that it is of, and the keys whose values do not fit, wholly."""
    # Both always, as Braze might send keys of these names.
    force_setattr(record, "_misfits", misfits)
    force_setattr(record, "_raw", raw)


def structure_leniently(cls: type[T], data: dict[str, Any]) -> tuple[T, frozenset[str]]:
    """Return an instance with every value that fits, and the keys whose values do not, wholly.

    Null counts as absent, which it means to Braze.
    """
    values: dict[str, Any] = {}
    misfits: set[str] = set()
    for name, kind in _kinds(cls):  # type: ignore[arg-type] # classes are hashable
        sent = data.get(name)
        if sent is None:
            continue
        value, fits = _fit(sent, kind)
        if value is not None:
            values[name] = value
        if not fits:
            misfits.add(name)
    return cls(**values), frozenset(misfits)


@lru_cache
def _kinds(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(cls, include_extras=True)
    return tuple((a.name, hints[a.name]) for a in attrs.fields(cls))


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in {Union, UnionType}:
        return kind
    kept = tuple(k for k in get_args(kind) if k is not NoneType)
    return kept[0] if len(kept) == 1 else Union[kept]  # noqa: UP007 - made from a tuple


def _fit(value: Any, kind: Any) -> tuple[Any, bool]:
    """Return as much of a value as fits a type (``None``: nothing), and whether all of it does."""
    bare = _without_none(kind)
    if get_origin(bare) is tuple:
        return _fit_items(value, get_args(bare)[0])
    if get_origin(bare) is dict:
        return _fit_dict(value, get_args(bare)[1])
    if attrs.has(bare):
        if not isinstance(value, dict):
            return None, False
        made, misfits = structure_leniently(bare, value)
        return made, not misfits
    return _fit_scalar(value, kind, bare)


def _fit_items(value: Any, kind: Any) -> tuple[Any, bool]:
    if not isinstance(value, list):
        return None, False
    fitted = [_fit(item, kind) for item in value]
    items = tuple(item for item, _ in fitted if item is not None)
    return items, all(fits for _, fits in fitted)


def _fit_dict(value: Any, kind: Any) -> tuple[Any, bool]:
    if not isinstance(value, dict):
        return None, False
    if kind is Any:
        return value, True
    fitted = {key: _fit(item, kind) for key, item in value.items()}
    kept = {key: item for key, (item, fits) in fitted.items() if fits or item is not None}
    return kept, all(fits for _, fits in fitted.values())


def _fit_scalar(value: Any, kind: Any, bare: Any) -> tuple[Any, bool]:
    if bare is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), True
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=from_json), True
    except (msgspec.ValidationError, ValueError, OverflowError, SystemError):
        # The last: msgspec before 0.22, of an integer that no float holds.
        if bare == IsoTimestamp and isinstance(value, str):
            return _fit_moment(value)
        return None, False


def _fit_moment(text: str) -> tuple[Any, bool]:
    try:
        return parse_timestamp(text), True
    except ValueError:
        return None, False
