"""Identifiers in a column of a Parquet file (extra ``parquet``). Blocks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from braze_export.errors import InputError
from braze_export.jobs.reading.columns import choose, no_such
from braze_export.jobs.reading.compression import open_raw
from braze_export.jobs.reading.text import Items, sift

_ROWS: Final = 8192  # of a batch
_BUFFER: Final = 1024 * 1024  # bytes that are read at once; else it is a whole row group


class ParquetReader:
    """Reads one column. Rows are counted from 1.

    Args:
        path: of the file.
        column: its path, with dots between; a column whose name holds the dots goes first.
        kind: of the identifiers.

    Attributes:
        blank: rows without an identifier so far.
        read_bytes: of the file, reckoned from the rows.

    Raises:
        InputError: it is no Parquet file, or has no such column, or of another type; pyarrow
            is not installed.
    """

    def __init__(self, path: Path, column: str | None, kind: str) -> None:
        self.blank = 0
        self.read_bytes = 0
        self._path = path
        arrow, parquet = _libraries()
        self._failures = (arrow.ArrowException, OSError, UnicodeDecodeError)
        self._raw = open_raw(path)
        try:
            self._size = self._raw.seek(0, 2)
            self._file = parquet.ParquetFile(self._raw, buffer_size=_BUFFER, pre_buffer=False)
            schema, types = self._file.schema_arrow, arrow.types
            self._column = choose(schema.names, None, kind, path) if column is None else column
            _check(types, _found(types, schema, self._column, path), self._column, path)
        except self._failures as error:
            self.close()
            raise self._damaged() from error
        except BaseException:
            self.close()
            raise

    def blocks(self) -> Iterator[Items]:
        """Yield what the column holds, in lists of at most 8,192.

        Raises:
            InputError: the file is damaged.
        """
        row, rows = 1, self._file.metadata.num_rows
        try:
            for batch in self._file.iter_batches(_ROWS, columns=[self._column], use_threads=False):
                values = _values(batch, self._column)
                texts = ["" if value is None else str(value) for value in values]
                items = sift(texts, "row", range(row, row + len(texts)))
                self.blank += len(texts) - len(items)
                row += len(texts)
                self.read_bytes = self._size * (row - 1) // max(1, rows, row - 1)
                if items:
                    yield items
        except self._failures:
            raise self._damaged() from None  # the cause may hold the data
        if row - 1 != rows:  # it has more than it says, or less
            raise self._damaged()
        self.read_bytes = self._size

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def _damaged(self) -> InputError:
        return InputError(
            f"{self._path} is no Parquet file, or a damaged one. It must not be compressed as a "
            "whole: what is in it is"
        )


def _values(batch: Any, column: str) -> list[Any]:
    if column in batch.schema.names:
        return list(batch.column(column).to_pylist())
    head, *rest = column.split(".")
    array = batch.column(head)
    for name in rest:
        array = array.flatten()[array.type.get_field_index(name)]  # null where its parent is
    return list(array.to_pylist())


def _found(types: Any, schema: Any, column: str, path: Path) -> Any:
    """Return the type of a column."""
    whole = schema.names.count(column)
    if whole > 1:
        raise InputError(f"{path} has {whole} columns that are called {column!r}")
    if whole:
        return schema.field(column).type
    found, fields, above = None, list(schema), ""
    for key in column.split("."):
        named = [field for field in fields if field.name == key]
        if len(named) != 1:
            names = [above + field.name for field in fields] or schema.names
            raise no_such(names, column, path)
        found = named[0].type
        inner = range(found.num_fields) if types.is_struct(found) else ()
        fields, above = [found.field(index) for index in inner], f"{above}{key}."
    return found


def _check(types: Any, found: Any, column: str, path: Path) -> None:
    inner = found.value_type if types.is_dictionary(found) else found
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    if not any(is_text(inner) for is_text in texts) and not types.is_integer(found):
        raise InputError(
            f"{path}: its column {column!r} is of type {found}: identifiers are string or "
            "integer. Cast it"
        )


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]  # noqa: PLC0415
        import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError as error:
        raise InputError('Parquet is an extra: pip install "braze-export[parquet]"') from error
    return pyarrow, pyarrow.parquet
