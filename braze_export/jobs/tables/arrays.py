"""Arrow's columns made of, and checked with, whole columns and buffers: no object for a value.

Columns come from buffers, not from lists: that is quicker, and lists make pyarrow import pandas
where it is installed, for 35 MB of memory. So does anything that is no Arrow value among what
its functions are given.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import msgspec

from braze_export.jobs.tables.schema import EXACT_FLOATS, arrow

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # of what a datetime can be, µs
_DAY_FIRST, _DAY_LAST = -719_162, 2_932_896  # of what a date can be, in days
_WITH_ZONE: Final = r"^(.{16,})( UTC|Z|\+00:00)$"  # and with a time: at least 16 characters


class RefusedError(Exception):
    """A line has something that the fast way cannot read, or would read otherwise."""


def _compute() -> Any:
    from pyarrow import compute  # noqa: PLC0415 - an extra

    return compute


def check_text(lines: bytes) -> None:
    """Refuse what is no UTF-8, which Arrow's reader does not. Nothing is copied for it."""
    pa = arrow()
    ends = pa.py_buffer(array("i", (0, len(lines))))
    text = pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(lines)])
    try:
        text.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise RefusedError from error


def check_values(column: Any) -> None:
    """Refuse null within lists, and moments that no ``datetime`` can be."""
    pa = arrow()
    if pa.types.is_list(column.type):
        items = column.values
        if items.null_count:
            raise RefusedError
        check_values(items)
    elif pa.types.is_struct(column.type):
        for part in column.flatten():
            check_values(part)
    elif pa.types.is_timestamp(column.type):
        _check_range(column.view(pa.int64()), _FIRST, _LAST)
    elif pa.types.is_date(column.type):
        _check_range(column.view(pa.int32()), _DAY_FIRST, _DAY_LAST)


def check_floats(column: Any) -> None:
    """Refuse numbers of which an integer may have lost digits."""
    _check_range(column, -EXACT_FLOATS, EXACT_FLOATS)


def _check_range(column: Any, first: int, last: int) -> None:
    ends = _compute().min_max(column).as_py()
    if ends["min"] is not None and not first <= ends["min"] <= ends["max"] <= last:
        raise RefusedError


def moments(written: Any, kind: "pa.DataType") -> Any:
    """Return moments in UTC from text.

    Arrow knows no ``... UTC``, and wants either all with a zone or none.

    Raises:
        pa.ArrowInvalid: one has another form, or another zone.
    """
    compute = _compute()
    if compute.all(compute.ends_with(written, pattern="Z")).as_py():
        return written.cast(kind)
    if compute.all(compute.ends_with(written, pattern=" UTC")).as_py():
        bare = compute.utf8_slice_codeunits(written, 0, -4)
    else:  # as they come, but three times slower
        bare = compute.replace_substring_regex(written, pattern=_WITH_ZONE, replacement=r"\1")
    return bare.cast(arrow().timestamp("us")).cast(kind)


def with_parts(column: Any, kind: "pa.DataType", parts: dict[str, Any]) -> Any:
    """Return a list of objects with these parts put in, or in place of what was there."""
    pa = arrow()
    items = column.values
    filled = [parts[p.name] if p.name in parts else items.field(p.name) for p in kind.value_type]
    values = pa.StructArray.from_arrays(filled, fields=list(kind.value_type))
    return _list(column, values, kind, column.is_null())


def null_if_empty(column: Any) -> Any:
    """Return a column of lists with null in place of empty ones."""
    compute = _compute()
    filled = compute.list_value_length(column).cast(arrow().bool_())
    empty = compute.or_kleene(compute.is_null(filled), compute.invert(filled))
    return _list(column, column.values, column.type, empty)


def _list(column: Any, values: Any, kind: "pa.DataType", nulls: Any) -> Any:
    return arrow().ListArray.from_arrays(column.offsets, values, type=kind, mask=nulls)


def maps(objects: Sequence[dict[str, Any] | None], make: Callable[[Sequence[Any]], Any]) -> Any:
    """Return a column of maps from text, with their values as ``make`` makes a column of them."""
    pa = arrow()
    keys = texts([key.encode() for o in objects if o for key in o])
    items = make([item for o in objects if o for item in o.values()])
    ends = pa.py_buffer(array("i", accumulate((len(o) if o else 0 for o in objects), initial=0)))
    offsets = pa.Array.from_buffers(pa.int32(), len(objects) + 1, [None, ends])
    kind = pa.map_(pa.string(), items.type)
    nulls = booleans([o is None for o in objects])
    return pa.MapArray.from_arrays(offsets, keys, items, kind, mask=nulls)


def objects_or_null(raws: Sequence[msgspec.Raw]) -> Any:
    """Return a column of JSON, null where nothing or null was sent; refuse what is no object."""
    pa, compute = arrow(), _compute()
    sent = texts(raws)
    objects = compute.starts_with(sent, pattern="{")
    absent, null = texts([b"", b"null"])
    nothing = compute.or_(compute.equal(sent, absent), compute.equal(sent, null))
    if not compute.all(compute.or_(objects, nothing)).as_py():
        raise RefusedError
    return compute.if_else(objects, sent, pa.nulls(1, pa.string())[0])


def texts(written: Sequence[bytes | msgspec.Raw], there: "pa.Buffer" = None) -> Any:
    """Return a column of text, known to be UTF-8, with null where the bits say so."""
    pa = arrow()
    sizes: Any = map(len, map(memoryview, written))  # type: ignore[arg-type] # Raw is a buffer
    ends = pa.py_buffer(array("i", accumulate(sizes, initial=0)))
    joined = pa.py_buffer(b"".join(written))
    return pa.Array.from_buffers(pa.string(), len(written), [there, ends, joined])


def texts_or_null(written: Sequence[str | None]) -> Any:
    """Return a column of text."""
    there = _bits([text is not None for text in written])
    return texts([(text or "").encode() for text in written], there)


def booleans(values: Sequence[bool | None]) -> Any:
    """Return a column of booleans."""
    pa = arrow()
    there = _bits([value is not None for value in values])
    return pa.Array.from_buffers(pa.bool_(), len(values), [there, _bits(map(bool, values))])


def _bits(values: Iterable[bool]) -> "pa.Buffer":
    pa = arrow()
    given = bytes(values)
    numbers = pa.Array.from_buffers(pa.uint8(), len(given), [None, pa.py_buffer(given)])
    return numbers.cast(pa.bool_()).buffers()[1]
