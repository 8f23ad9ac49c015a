"""Parquet files that are damaged, through the reader of inputs.

Apart from the other inputs, for most of what runs here is the library that reads the format, in
C++: what it does to the process with a damaged file is seen best where nothing else runs.
"""

import io
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from braze_export.errors import InputError
from braze_export.identifiers import check_identifier
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.values import Input, Unusable
from tests.fuzz.drawing import Draw, scratch_file

LONGEST: Final = 8192
WORDS: Final = (b"PAR1", b"\x15\x00", b"\x15\x02", b"\x26\x08", b"\x18\x02id", b"\xff\xff\xff\x7f")
_COLUMNS: Final = (None, "id", "a.b", "a", "email", "ä")
_PLACE: Final = scratch_file()


def _written(table: Any, options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def _files() -> Iterator[bytes]:
    texts = ["u1", None, " ", "u\n2", "ä", ""]
    plain, whole = pa.array(texts), pa.array([1, None, 3, 4, 5, 6])
    for column in (plain, whole, plain.dictionary_encode()):
        for options in ({}, {"compression": "none"}, {"compression": "zstd", "version": "1.0"}):
            yield _written(pa.table({"id": column}), options)
    nested = pa.array([{"b": "x"}, None, {"b": None}, {"b": "y"}, {}, {"b": "z"}])
    yield _written(pa.table({"a": nested, "id": texts}), {})
    yield _written(pa.table({"a.b": texts}), {})
    yield _written(pa.table({"id": pa.array([], pa.string())}), {})


_FILES: Final = tuple(_files())


def seeds() -> Iterator[bytes]:
    for number, file in enumerate(_FILES):
        yield b"\0\0" + file
        yield b"\0\1" + bytes([number])
        yield b"\2\1" + bytes([number, 200, 0, 1, 90, 1, 7, 10, 0, 200])


def _damaged(draw: Draw) -> bytes:
    """Return a valid file with some bytes changed, and with its frame left whole."""
    data = bytearray(draw.one_of(_FILES))
    while not draw.empty:
        at = 4 + draw.number(65535) % (len(data) - 12)
        data[at] = draw.number(255)
    return bytes(data)


def try_one(data: bytes) -> None:
    draw = Draw(data)
    column = draw.one_of(_COLUMNS)
    _PLACE.write_bytes(_damaged(draw) if draw.yes() else draw.rest())
    try:
        reader = open_input(Input(path=_PLACE, format="parquet", column=column), "external_id")
    except InputError as error:
        assert "\n" not in str(error)
        return
    try:
        for block in reader.blocks():
            for item in block:
                assert isinstance(item, Unusable) or check_identifier(item) == item
    except InputError as error:
        assert "\n" not in str(error)
    finally:
        reader.close()
