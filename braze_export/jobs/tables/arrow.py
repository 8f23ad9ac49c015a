"""Lines of JSON, each a profile, to Arrow tables of one schema, without an object for each value.

Arrow's own reader fills the columns. Beside it goes one pass over the lines, which only looks
for what that reader cannot give: custom attributes as they stand there, objects whose keys are
data, and keys that have no column. Where a value does not fit its column the reader refuses
the whole block; then the lines at fault are found, and go the slow way (``misfits.py``).
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from attrs import Factory, define

from braze_export.jobs.tables.arrays import (
    RefusedError,
    booleans,
    check_floats,
    check_text,
    check_values,
    maps,
    moments,
    null_if_empty,
    objects_or_null,
    texts,
    texts_or_null,
    with_parts,
)
from braze_export.jobs.tables.misfits import exactly, members_of, object_of, rows_of
from braze_export.jobs.tables.schema import CUSTOM, EXTRA, arrow, schema
from braze_export.jobs.values import CustomAttributes

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

_PIECE: Final = 1024 * 1024  # bytes that one thread of Arrow's reader takes at once

# Only a key can be followed by a colon, and no other column has a key of this name. Where it is
# the end of a longer key, or stands in what is read from the line itself, nothing changes.
_SESSIONS: Final = re.compile(rb'"sessions":\s*"(0|[1-9]\d{0,17})"')


class _Campaign(msgspec.Struct, gc=False):
    """Of a campaign the objects whose keys are data."""

    engaged: dict[str, bool | None] | None = None
    multiple_converted: dict[str, bool | None] | None = None


@define
class _Beside:
    """What Arrow's reader cannot give, of some lines."""

    custom: list[Any] = Factory(list)
    campaigns: list[_Campaign] = Factory(list)
    extra: list[str | None] = Factory(list)


class Tables:
    """Turns lines into tables, all of one schema. For one thread at a time.

    Each row holds what ``decode_profile`` reads. Empty lists and objects within others are
    null, those of a profile itself are empty, and what was not sent is null. A value that does
    not fit its column is in ``extra``, whole, and the column has as much of it as fits; so are
    keys that are no column. A line that is no JSON object is in ``extra`` under the key
    ``unreadable``.

    Args:
        fields: what Braze was asked for; ``None`` for everything.
        custom_attributes: ``json`` or ``map``, as for ``columns.schema``.

    Raises:
        InputError: pyarrow is not installed.
    """

    def __init__(
        self, fields: tuple[str, ...] | None = None, custom_attributes: CustomAttributes = "json"
    ) -> None:
        self._fields, self._custom_attributes = fields, custom_attributes
        self.schema: pa.Schema = schema(fields, custom_attributes)
        names = [name for name in self.schema.names if name != EXTRA]
        self._reading = arrow().schema(
            [_readable(self.schema.field(n)) for n in names if n != CUSTOM]
        )
        self._names = frozenset(names)
        by_key = custom_attributes == "map"
        custom: Any = dict[str, msgspec.Raw] | None if by_key else msgspec.Raw
        self._kinds: dict[str, Any] = {CUSTOM: custom, "campaigns_received": list[_Campaign] | None}
        self._decoders = {name: msgspec.json.Decoder(kind) for name, kind in self._kinds.items()}
        self._absent = None if by_key else msgspec.Raw(b"")
        self._line = msgspec.json.Decoder(self._line_class(names))
        self._exact = exactly(self.schema)
        self._sessions_as_text = False

    def _line_class(self, names: Sequence[str]) -> Any:
        fields = [(n, self._kinds.get(n, msgspec.Raw), self._default(n)) for n in names]
        return msgspec.defstruct("Line", fields, forbid_unknown_fields=True, gc=False)

    def _default(self, name: str) -> Any:
        return self._absent if name == CUSTOM else None if name in self._kinds else msgspec.Raw(b"")

    def twin(self) -> "Tables":
        """Return another maker of the same tables, for another thread."""
        return Tables(self._fields, self._custom_attributes)

    def table(self, lines: bytes) -> "pa.Table":
        """Return the table of whole lines, each a profile as Braze sent it: a row for each.

        It takes several times the memory of the lines: give some 8 MB at once.
        """
        rows = [line for line in lines.split(b"\n") if line and not line.isspace()]
        if not rows:
            return self.schema.empty_table()
        try:
            return self._fast(rows, lines)
        except RefusedError:
            return self._sorted_out(rows)

    def _sorted_out(self, rows: list[bytes]) -> "pa.Table":
        """Return the table of lines of which some do not fit."""
        sound = [self._exact(row) for row in rows]
        fitting = [row for row, fits in zip(rows, sound, strict=True) if fits]
        others = [row for row, fits in zip(rows, sound, strict=True) if not fits]
        found = [self._halved(fitting)] if fitting else []
        found += [rows_of(others, self.schema)] if others else []
        if len(found) == 1:
            return found[0]
        order = sorted(range(len(rows)), key=lambda n: not sound[n])  # stable: as they are found
        places = sorted(range(len(rows)), key=order.__getitem__)
        return arrow().concat_tables(found).take(places)

    def _halved(self, rows: list[bytes]) -> "pa.Table":
        try:
            return self._fast(rows, b"\n".join(rows))
        except RefusedError:
            if len(rows) == 1:
                return rows_of(rows, self.schema)
        half = len(rows) // 2
        return arrow().concat_tables([self._halved(rows[:half]), self._halved(rows[half:])])

    def _fast(self, rows: list[bytes], lines: bytes) -> "pa.Table":
        pa = arrow()
        check_text(lines)
        try:
            # First, as Arrow's reader may crash on a line that is no object.
            beside = self._beside(rows)
            read = self._read(rows, lines)
            columns = [self._column(field, read, beside) for field in self.schema]
        except (ValueError, msgspec.DecodeError, RecursionError) as error:  # ArrowInvalid too
            raise RefusedError from error
        return pa.Table.from_arrays(columns, schema=self.schema)

    def _read(self, rows: list[bytes], lines: bytes) -> "pa.Table":
        """Return what Arrow's reader gives, in one chunk.

        Text for numbers in ``sessions`` is not rare, as it once was documented so.
        """
        pa = arrow()
        size = max(_PIECE, max(map(len, rows)) + 2)
        if self._sessions_as_text:
            lines = _SESSIONS.sub(rb'"sessions":\1', lines)
        try:
            read = _read_json(lines, self._reading, size)
        except pa.ArrowInvalid:
            mended = b"" if self._sessions_as_text else _SESSIONS.sub(rb'"sessions":\1', lines)
            if len(mended) in {0, len(lines)}:
                raise
            self._sessions_as_text = True
            read = _read_json(mended, self._reading, size)
        if read.num_rows != len(rows):
            raise RefusedError
        return read.combine_chunks()

    def _beside(self, rows: Iterable[bytes]) -> _Beside:
        """Return what the pass over the lines finds."""
        found = _Beside()
        decode, names = self._line.decode, self._names
        for row in rows:
            extra = None
            try:
                line = decode(row)
            except msgspec.ValidationError:  # it has keys that are no column, or is a misfit
                line, extra = self._with_unknown(row)
            found.extra.append(extra)
            if CUSTOM in names:
                found.custom.append(line.custom_attributes)
            if "campaigns_received" in names and line.campaigns_received:
                found.campaigns += line.campaigns_received
        return found

    def _with_unknown(self, row: bytes) -> tuple[Any, str]:
        members = members_of(row)
        unknown = {key: raw for key, raw in members.items() if key not in self._names}
        if not unknown:
            raise RefusedError
        known = {
            name: decoder.decode(members[name])
            for name, decoder in self._decoders.items()
            if name in members and name in self._names
        }
        return self._line.type(**known), object_of(unknown)

    def _column(self, field: "pa.Field", read: "pa.Table", beside: _Beside) -> Any:
        pa = arrow()
        if field.name == EXTRA:
            return texts_or_null(beside.extra)
        if field.name == CUSTOM:
            by_key = self._absent is None
            return maps(beside.custom, texts) if by_key else objects_or_null(beside.custom)
        column = read.column(field.name).combine_chunks()
        if pa.types.is_timestamp(field.type):
            column = moments(column, field.type)
        elif pa.types.is_date(field.type):
            column = column.cast(field.type)
        check_values(column)
        if field.name == "total_revenue":
            check_floats(column)
        if field.name == "campaigns_received":
            return with_parts(column, field.type, _campaign_maps(beside.campaigns))
        if field.name == "canvases_received":
            steps = column.values.field("steps_received")
            return with_parts(column, field.type, {"steps_received": null_if_empty(steps)})
        return column


def _readable(field: "pa.Field") -> "pa.Field":
    """Return the column as Arrow's reader is to read it: maps it cannot, dates not as Braze's."""
    pa = arrow()
    if pa.types.is_temporal(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
        parts = [part for part in field.type.value_type if not pa.types.is_map(part.type)]
        return pa.field(field.name, pa.list_(pa.struct(parts)))
    return field


def _read_json(lines: bytes, columns: "pa.Schema", size: int) -> "pa.Table":
    from pyarrow import json  # noqa: PLC0415 - an extra

    return json.read_json(
        arrow().BufferReader(lines),
        json.ReadOptions(use_threads=False, block_size=size),  # threads cost more than they gain
        json.ParseOptions(columns, unexpected_field_behavior="ignore"),
        # The default one keeps for each thread what it once had.
        memory_pool=arrow().system_memory_pool(),
    )


def _campaign_maps(campaigns: Sequence[_Campaign]) -> dict[str, Any]:
    engaged = [campaign.engaged or None for campaign in campaigns]
    converted = [campaign.multiple_converted or None for campaign in campaigns]
    return {"engaged": maps(engaged, booleans), "multiple_converted": maps(converted, booleans)}
