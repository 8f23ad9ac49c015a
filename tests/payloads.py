"""Braze's sample payloads, and JSON of every kind for properties."""

import json
from datetime import date, datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

from braze_export.models.profile import UserProfile
from braze_export.models.timestamps import Timestamp

_DATA = Path(__file__).parent / "data"
USERS = sorted(path.name for path in _DATA.glob("user_*.json"))
FIELDS = tuple(a.name for a in attrs.fields(UserProfile))

MOMENTS = (
    "2021-06-28T17:02:43.032Z",
    "2021-07-07T20:45:24.000+00:00",
    "2020-07-10 15:00:00.000 UTC",
    "2021-07-07T20:45:24",
)
ODD_TEXTS = ("null", "NULL", "true", "0", "1129", "1.0", "-7", "nan", "", "1980-12-21", *MOMENTS)

texts = st.text(st.characters(), max_size=8) | st.sampled_from(ODD_TEXTS)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**64, max_value=2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def sample(name: str) -> bytes:
    return (_DATA / name).read_bytes()


def encode(value: Any) -> bytes:
    """JSON as text where it can be, with escapes where there are lone surrogates."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def without_none(kind: Any) -> Any:
    """``X`` of ``X | None``."""
    if get_origin(kind) not in {Union, UnionType}:
        return kind
    kept = tuple(k for k in get_args(kind) if k is not NoneType)
    return kept[0] if len(kept) == 1 else kind


def _close_to(kind: Any) -> st.SearchStrategy[Any]:
    """JSON that resembles a type, with something else now and then."""
    bare = without_none(kind)
    if get_origin(bare) is tuple:
        likely: st.SearchStrategy[Any] = st.lists(_close_to(get_args(bare)[0]), max_size=2)
    elif get_origin(bare) is dict:
        likely = st.dictionaries(texts, _close_to(get_args(bare)[1]), max_size=2)
    elif attrs.has(bare):
        likely = objects(bare)
    elif bare in {Timestamp, datetime, date}:
        likely = st.sampled_from((*MOMENTS, "1980-12-21"))
    else:
        likely = scalars
    return st.one_of(likely, likely, likely, values)


def objects(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the keys of a record, each there or not, and keys of other names."""
    hints = get_type_hints(cls)
    known = {a.name: _close_to(hints[a.name]) for a in attrs.fields(cls)}
    others = st.dictionaries(
        st.sampled_from(("_raw", "_misfits", "raw", "extra")) | texts, values, max_size=2
    )
    return st.tuples(others, st.fixed_dictionaries({}, optional=known)).map(lambda t: t[0] | t[1])


profiles = objects(UserProfile)
