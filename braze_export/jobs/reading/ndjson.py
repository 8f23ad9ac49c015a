"""Identifiers in a file of JSON values, one a line. Blocks.

Only what leads to the identifier is decoded. Where lines are not as expected, those of one
part are looked at again, one after the other.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from braze_export.errors import InputError
from braze_export.jobs.reading.columns import choose, no_such
from braze_export.jobs.reading.compression import Pieces
from braze_export.jobs.reading.text import Items, TextReader, Texts, sift, unusable

_LONGEST: Final = 10 * 1024 * 1024  # characters of a line
_Identifier = str | int | None
_Leaf = _Identifier | UnsetType


class NdjsonReader(TextReader):
    """Reads what stands under a path of keys in each line, or lines that are strings.

    Args:
        pieces: of the file.
        encoding: as Python names it.
        column: the path, with dots between; a key that holds the dots goes first.
        kind: of the identifiers.

    Raises:
        InputError: there is no such encoding; no path is given, and the first line does not
            tell it; while it is read: no line has the key.
    """

    def __init__(self, pieces: Pieces, encoding: str, column: str | None, kind: str) -> None:
        super().__init__(pieces)
        parts = iter(Texts(pieces, encoding, _LONGEST))
        begun = next((part for part in parts if part[1].strip()), None)
        self._parts = parts if begun is None else chain([begun], parts)
        first = _value(_first_line(begun[1])) if begun else ""
        if column is None and isinstance(first, dict):
            column = choose(list(first), None, kind, pieces.path)
        elif column is None and not isinstance(first, str | int):
            raise InputError(
                f"{pieces.path}: its first line is neither a JSON object nor a string in JSON"
            )
        self._column = column
        self._names = list(first) if isinstance(first, dict) else []
        self._found = False
        self._decoder = _decoder(column)

    def _items(self) -> Iterator[Items]:
        for first, part in self._parts:
            values = self._quickly(part)
            if values is None:
                items = self._slowly(first, part)
            else:
                items = sift(values, "line", range(first, first + len(values)))
                self.blank += len(values) - len(items)
                self._found = True
            yield items
        if self._column is not None and not self._found and self.blank:
            raise no_such(self._names, self._column, self._pieces.path)

    def _quickly(self, part: str) -> list[str] | None:
        """Return the identifiers, if there is one in each line and nothing is odd."""
        if self._decoder is None:
            return None
        try:
            rows = list(map(self._decoder.decode, part.removesuffix("\n").split("\n")))
        except (msgspec.DecodeError, RecursionError):
            return None
        values = rows if self._column is None else [row.identifier for row in rows]
        kinds = set(map(type, values))
        if not kinds <= {str, int}:
            return None
        return list(map(str, values)) if int in kinds else values

    def _slowly(self, first: int, part: str) -> Items:
        items: Items = []
        for number, line in enumerate(part.split("\n"), first):
            if line.strip():
                items += self._item(number, line)
        return items

    def _item(self, number: int, line: str) -> Items:
        place = f"line {number}"
        value = _value(line)
        if value is UNSET:
            return [unusable(line, place, "is no JSON")]
        if self._column is not None:
            if not isinstance(value, dict):
                return [unusable(line, place, "is no JSON object")]
            value = _under(value, self._column)
            self._found |= value is not UNSET
        if isinstance(value, str | int) and not isinstance(value, bool):
            items = sift([str(value)], "line", [number])
        elif value is None or value is UNSET:
            items = []
        else:
            what = f"holds {_called(value)}, which is no identifier"
            return [unusable(json.dumps(value, ensure_ascii=False), place, what)]
        self.blank += not items
        return items


def _decoder(column: str | None) -> "msgspec.json.Decoder[Any] | None":
    try:
        return msgspec.json.Decoder(_type(column))
    except ValueError:  # a key with a quotation mark, say, is none that msgspec looks for
        return None


def _type(column: str | None) -> Any:
    """Return the type of a line, with the identifier as an attribute."""
    if column is None:
        return _Identifier
    head, *rest = column.split(".")
    if not rest:
        return _row([("identifier", _Leaf, UNSET)], {"identifier": column})
    fields = [("whole", _Leaf, UNSET), ("part", _nested(rest) | None | UnsetType, UNSET)]
    return _row(fields, {"whole": column, "part": head}, {"identifier": property(_either)})


def _nested(keys: Sequence[str]) -> Any:
    head, *rest = keys
    if not rest:
        return _row([("identifier", _Leaf, UNSET)], {"identifier": head})
    fields = [("part", _nested(rest) | None | UnsetType, UNSET)]
    return _row(fields, {"part": head}, {"identifier": property(_deeper)})


def _row(
    fields: list[tuple[str, Any, Any]],
    rename: dict[str, str],
    namespace: dict[str, Any] | None = None,
) -> Any:
    return msgspec.defstruct("Row", fields, rename=rename, namespace=namespace, gc=False)


def _deeper(row: Any) -> Any:
    return row.part and row.part.identifier if row.part is not UNSET else UNSET


def _either(row: Any) -> Any:
    return _deeper(row) if row.whole is UNSET else row.whole


def _under(value: Any, column: str) -> Any:
    """Return what stands under a path of keys, or ``UNSET``."""
    if column in value:
        return value[column]
    for key in column.split("."):
        if value is None:
            return None
        if not isinstance(value, dict) or key not in value:
            return UNSET
        value = value[key]
    return value


def _value(line: str) -> Any:
    """Return the value of a line, or ``UNSET`` if it has none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return UNSET


def _first_line(part: str) -> str:
    return next(line for line in part.split("\n") if line.strip())


def _called(value: object) -> str:
    names = {bool: "true or false", float: "a number with a fraction", list: "an array"}
    return names.get(type(value), "an object")
