"""Profiles that do not fit their columns, one by one: what fits is kept, the rest is in ``extra``.

This is the slow way to a table, and the one that decides what a row looks like: ``arrow.py`` is
a faster way to the same rows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from braze_export import _json
from braze_export.codec import decode_profile
from braze_export.errors import BrazeError
from braze_export.jobs.tables.schema import CUSTOM, EXACT_FLOATS, EXTRA, arrow

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

#: The only key of ``extra`` where a line is no JSON object: its value is the line, as text.
UNREADABLE: Final = "unreadable"

_DATE: Final = r"\d{4}-\d\d-\d\d"
_MOMENT: Final = rf"{_DATE}[T ]\d\d:\d\d:\d\d(\.\d{{1,6}})?(Z|\+00:00)?"
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members_of(raw: bytes | msgspec.Raw) -> Mapping[str, bytes | msgspec.Raw]:
    """Return the values of an object, each as the JSON that stands there.

    Raises:
        ValueError: this is no JSON object.
    """
    try:
        return _members.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _json.members(bytes(raw))


def text_of(raw: bytes | msgspec.Raw) -> str:
    """Return JSON as text: as it stands there, or where that is no UTF-8, encoded anew."""
    written = bytes(raw)
    try:
        return written.decode()
    except UnicodeDecodeError:
        pass
    try:
        return _json.dumps(_json.loads(written)).decode()
    except ValueError:
        return written.decode(errors="replace")


def object_of(members: Mapping[str, bytes | msgspec.Raw]) -> str:
    """Return the JSON of an object with these members."""
    shown = (f"{_json.dumps(key).decode()}:{text_of(raw)}" for key, raw in members.items())
    return "{" + ",".join(shown) + "}"


def rows_of(lines: Iterable[bytes], schema: "pa.Schema") -> "pa.Table":
    """Return the table of some profiles, a row for each line, whatever is in them."""
    return arrow().Table.from_pylist([_row(line, schema) for line in lines], schema)


def _row(line: bytes, schema: "pa.Schema") -> dict[str, Any]:
    try:
        members = members_of(line)
    except ValueError:
        return {EXTRA: _json.dumps({UNREADABLE: line.decode(errors="replace")}).decode()}
    row = {}
    extra = {}
    columns = {field.name: field.type for field in schema if field.name != EXTRA}
    for key, raw in members.items():
        fits = False
        if key in columns:
            row[key], fits = _cell(key, raw, columns[key])
        if not fits:
            extra[key] = raw
    return row | {EXTRA: object_of(extra) if extra else None}


def _cell(key: str, raw: bytes | msgspec.Raw, kind: "pa.DataType") -> tuple[Any, bool]:
    """Return as much of a value as its column takes, and whether that is all of it."""
    sent = bytes(raw)
    if sent == b"null":
        return None, True
    if key == CUSTOM:
        return _custom(sent, kind)
    try:
        # Each key alone, so that one that cannot be read at all does not take others along.
        profile = decode_profile(b"{%b:%b}" % (_json.dumps(key), sent))
        misfit = key in profile.extra
    except (BrazeError, ValueError, TypeError):
        return None, False
    value = getattr(profile, key)
    if value == ():
        return [] if sent.startswith(b"[") else None, not misfit
    held, fits = _held(value, kind)
    return held, fits and not misfit


def _custom(sent: bytes, kind: "pa.DataType") -> tuple[Any, bool]:
    if not sent.startswith(b"{"):
        return None, False
    if not arrow().types.is_map(kind):
        return text_of(sent), True
    try:
        members = members_of(sent)
    except ValueError:
        return None, False
    pairs = [(key, text_of(raw)) for key, raw in members.items() if _is_text(key)]
    return pairs, len(pairs) == len(members)


def _held(value: Any, kind: "pa.DataType") -> tuple[Any, bool]:
    """Return as much of an attribute as Arrow can hold: it has no integers of any size."""
    types = arrow().types
    if value is None:
        return None, True
    if types.is_list(kind):
        items = [_held(item, kind.value_type) for item in value]
        return [item for item, _ in items] or None, all(fits for _, fits in items)
    if types.is_map(kind):
        pairs = [(key, item) for key, item in value.items() if _is_text(key)]
        return pairs or None, len(pairs) == len(value)
    if types.is_struct(kind):
        parts = {field.name: _held(getattr(value, field.name), field.type) for field in kind}
        return {n: part for n, (part, _) in parts.items()}, all(fits for _, fits in parts.values())
    held = _scalar(value, kind)
    return held, held is not None


def _scalar(value: Any, kind: "pa.DataType") -> Any:
    types = arrow().types
    try:
        if types.is_string(kind):
            return value if _is_text(value) else None
        if types.is_timestamp(kind):
            return value.astimezone(UTC)
        if types.is_int64(kind):
            return value if -(2**63) <= value < 2**63 else None
        if types.is_float64(kind):
            return float(value) if not isinstance(value, int) or float(value) == value else None
    except OverflowError:
        return None
    return value


def _is_text(value: str) -> bool:
    """Say whether it can be UTF-8: JSON may hold half a surrogate pair, escaped."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def exactly(schema: "pa.Schema") -> Callable[[bytes], bool]:
    """Return what says of a line whether every value of it has the type of its column, as it is.

    It may err: the fast way can still refuse a line for what this does not look at.
    """
    kinds = {field.name: _exact(field.type, top=True) for field in schema if field.name != EXTRA}
    if CUSTOM in kinds:
        kinds[CUSTOM] = dict[str, msgspec.Raw] | None
    known = [(name, kind, None) for name, kind in kinds.items()]
    decoder = msgspec.json.Decoder(msgspec.defstruct("Exact", known, gc=False))

    def fits(line: bytes) -> bool:
        try:
            line.decode()
            decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True

    return fits


def _exact(kind: "pa.DataType", *, top: bool = False) -> Any:
    """Return the Python type of what the fast way takes for a column."""
    types = arrow().types
    if types.is_list(kind):
        return list[_exact_item(kind.value_type)] | None  # type: ignore[misc] # made at run time
    return _exact_item(kind, top=top) | None


def _exact_item(kind: "pa.DataType", *, top: bool = False) -> Any:
    types = arrow().types
    if types.is_struct(kind):
        parts: Sequence[Any] = [(field.name, _exact(field.type), None) for field in kind]
        return msgspec.defstruct("Part", parts, gc=False)
    if types.is_timestamp(kind):
        end = "( UTC)?$" if top else "$"
        return Annotated[str, msgspec.Meta(pattern=f"^{_MOMENT}{end}")]
    if types.is_map(kind):
        return dict[str, bool | None]
    return _EXACT_SCALARS[str(kind)]


_EXACT_SCALARS: Final[dict[str, Any]] = {
    "string": str,
    "bool": bool,
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "double": Annotated[int, msgspec.Meta(ge=-EXACT_FLOATS, le=EXACT_FLOATS)] | float,
    "date32[day]": Annotated[str, msgspec.Meta(pattern=f"^{_DATE}$")],
}
