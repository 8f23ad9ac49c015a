"""Identifiers in a column of a CSV file. Blocks."""

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from braze_export.errors import InputError
from braze_export.jobs.reading.columns import choose
from braze_export.jobs.reading.compression import Pieces
from braze_export.jobs.reading.text import Items, TextReader, Texts, sift, unusable

_LONGEST: Final = 10 * 1024 * 1024  # characters of a line, and of a cell
_ROWS: Final = 2000  # read at once
_DELIMITERS: Final = r"[;\t|,]"
#: As in ``Customer ID``, ``emails`` or ``userId``: no identifier looks so, without a digit.
_NAMES_A_COLUMN: Final = r"ids?$|identifier|user|customer|e-?mail|phone|alias|key"
_DATA: Final = re.compile(r".+@.+\..+|\+?[\d ().-]{7,}")  # an e-mail address, a phone number


class CsvReader(TextReader):
    """Reads one column. Rows are counted as a spreadsheet does: the header is row 1.

    Args:
        pieces: of the file.
        encoding: as Python names it.
        column: the name of the column, if it must be named.
        kind: of the identifiers.
        delimiter: between columns; by the name of the file if not given.

    Raises:
        InputError: there is no such encoding, delimiter or column, or no header.
    """

    def __init__(
        self, pieces: Pieces, encoding: str, column: str | None, kind: str, delimiter: str | None
    ) -> None:
        super().__init__(pieces)
        self._path = pieces.path
        texts = Texts(pieces, encoding, _LONGEST)
        # Line breaks within quotes stay as they are.
        lines = chain.from_iterable(io.StringIO(part, newline="") for _, part in texts)
        self._rows = _reader(lines, delimiter_of(self._path) if delimiter is None else delimiter)
        self._row = 1
        header = self._header()
        if column not in header:
            _check_names(header, self._path)
            _check_delimiter(header, self._path)
        if column is None:
            _check_only_name(header, self._path)
        name = choose(header, column, kind, self._path)
        if header.count(name) > 1:
            raise InputError(
                f"{self._path} has {header.count(name)} columns that are called {name!r}"
            )
        self._column = header.index(name)

    def _header(self) -> list[str]:
        while rows := self._take(1):
            if rows[0]:
                return rows[0]
            self._row += 1
        raise InputError(f"{self._path} is empty: a CSV file begins with the names of its columns")

    def _take(self, most: int) -> list[list[str]]:
        try:
            return list(islice(self._rows, most))
        except csv.Error as error:
            what = f"it is no CSV ({error})"
            if "field limit" in str(error):
                what = f"a cell has more than {csv.field_size_limit():,} characters"
            raise InputError(
                f"{self._path}, about line {self._rows.line_num}: {what}. Is a quotation mark not "
                "closed?"
            ) from None

    def _items(self) -> Iterator[Items]:
        cell = itemgetter(self._column)
        while rows := self._take(_ROWS):
            try:
                texts = list(map(cell, rows))
            except IndexError:
                yield self._sorted_out(rows)
            else:
                yield self._sifted(texts, range(self._row + 1, self._row + 1 + len(rows)))
            self._row += len(rows)

    def _sifted(self, texts: list[str], numbers: range | list[int]) -> Items:
        items = sift(texts, "row", numbers)
        self.blank += len(texts) - len(items)
        return items

    def _sorted_out(self, rows: list[list[str]]) -> Items:
        """Return the items of rows of which some are too short, or empty lines."""
        items: Items = []
        for number, row in zip(count(self._row + 1), rows):
            if len(row) > self._column:
                items += self._sifted([row[self._column]], [number])
            elif row:
                reason = f"has {len(row)} columns, too few"
                items.append(unusable(",".join(row), f"row {number}", reason))
        return items


def _reader(lines: Iterator[str], delimiter: str) -> Any:
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise InputError(
            f"delimiter is {delimiter!r}: allowed is one character, such as a semicolon"
        )
    # Columns beside ours may hold long texts, and the module takes 131,072 characters. The limit is
    # one for the whole process: it is never lowered, as others may read at the same time.
    if csv.field_size_limit() < _LONGEST:
        csv.field_size_limit(_LONGEST)
    return csv.reader(lines, delimiter=delimiter, strict=True)


def delimiter_of(path: Path) -> str:
    """Return what stands between the columns of a file, by its name."""
    return "\t" if ".tsv" in (suffix.lower() for suffix in path.suffixes[-2:]) else ","


def _check_delimiter(header: list[str], path: Path) -> None:
    if len(header) == 1 and (found := re.search(_DELIMITERS, header[0])):
        raise InputError(
            f"{path} seems to have columns with {found[0]!r} between: give the delimiter"
        )


def _check_only_name(header: list[str], path: Path) -> None:
    """Refuse a file with one column that may have no header: its first identifier would be lost."""
    name = header[0].strip().lower()
    if len(header) > 1 or (re.search(_NAMES_A_COLUMN, name) and not re.search(r"\d", name)):
        return
    raise InputError(  # which does not repeat what may be an identifier
        f"{path} has one column, whose first line may be its name or an identifier: give the "
        'column by its name or, if there is no line of names, name the format "lines"'
    )


def _check_names(header: list[str], path: Path) -> None:
    if any(map(_DATA.fullmatch, header)):
        raise InputError(
            f"{path} begins with data, not with the names of its columns: add a line of names, or "
            'name the format "lines" if there is one identifier a line'
        )
