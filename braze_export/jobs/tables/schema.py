"""The columns of a profile: which there are, and of which type. No data.

They are read off ``UserProfile``, so that the file and the model cannot drift apart.
"""

from datetime import date, datetime
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Union, get_args, get_origin

import attrs

from braze_export.errors import InputError
from braze_export.jobs.values import CustomAttributes
from braze_export.models.fields import ARRIVES_WITH
from braze_export.models.profile import UserProfile

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

EXTRA: Final = "extra"
CUSTOM: Final = "custom_attributes"
EXACT_FLOATS: Final = 2**53 - 1  # up to here no two integers are the same float
_KEY: Final = "external_id"


def arrow() -> Any:
    """Return the pyarrow package.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError(
            'tables and Parquet need pyarrow: pip install "braze-export[parquet]"'
        ) from error
    return pyarrow


def schema(fields: tuple[str, ...] | None, custom_attributes: CustomAttributes) -> "pa.Schema":
    """Return the columns of a job's profiles: the same whatever the profiles hold.

    They are those of ``UserProfile``, in its order, and ``extra`` at the end.

    Args:
        fields: what Braze is asked for; ``None`` for everything. Names that are no column are
            left out: what Braze sends under them comes to lie in ``extra``.
        custom_attributes: ``json``: one text with the object as Braze sent it. ``map``: a map
            from each name to its value as JSON text.

    Raises:
        InputError: another way to hold custom attributes, or pyarrow is not installed.
    """
    pa = arrow()
    if custom_attributes not in {"json", "map"}:
        raise InputError(
            f"custom_attributes is {custom_attributes!r}: allowed are 'json' and 'map'"
        )
    columns = {a.name: _type(a.type) for a in attrs.fields(UserProfile)}
    text: Any = pa.string()
    columns[CUSTOM] = text if custom_attributes == "json" else pa.map_(text, text)
    wanted = [(name, kind) for name, kind in columns.items() if _is_wanted(name, fields)]
    return pa.schema([*wanted, (EXTRA, pa.string())])


def _is_wanted(name: str, fields: tuple[str, ...] | None) -> bool:
    return fields is None or name == _KEY or name in fields or ARRIVES_WITH.get(name) in fields


def _type(hint: Any) -> Any:
    """Return the Arrow type of an attribute."""
    pa = arrow()
    bare = _without_none(hint)
    if get_origin(bare) is tuple:
        return pa.list_(_type(get_args(bare)[0]))
    if get_origin(bare) is dict:
        return pa.map_(pa.string(), _type(get_args(bare)[1]))
    if attrs.has(bare):
        return pa.struct([(a.name, _type(a.type)) for a in attrs.fields(bare)])
    return _SCALARS[bare]()


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in {Union, UnionType}:
        return hint
    kept = frozenset(get_args(hint)) - {NoneType}
    return float if kept == {int, float} else next(iter(kept))


_SCALARS: Final[dict[Any, Any]] = {
    str: lambda: arrow().string(),
    bool: lambda: arrow().bool_(),
    int: lambda: arrow().int64(),
    float: lambda: arrow().float64(),
    date: lambda: arrow().date32(),
    datetime: lambda: arrow().timestamp("us", "UTC"),
    Any: lambda: arrow().string(),
}
