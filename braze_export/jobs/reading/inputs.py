"""The identifiers of a job, read from its input: which reader is for which file. Blocks."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from braze_export.errors import InputError
from braze_export.jobs.reading.compression import Pieces, open_raw
from braze_export.jobs.reading.csv import CsvReader
from braze_export.jobs.reading.lines import LinesReader
from braze_export.jobs.reading.ndjson import NdjsonReader
from braze_export.jobs.reading.parquet import ParquetReader
from braze_export.jobs.reading.text import Items, TextReader
from braze_export.jobs.values import Input, InputFormat

_FORMATS: Final[dict[str, InputFormat]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".parquet": "parquet",
}
_ALLOWED: Final = ("lines", "csv", "ndjson", "parquet")
_PACKED: Final = (".gz", ".zst")
_BLOCK: Final = 256 * 1024


class Reader(Protocol):
    """One reading of an input from its beginning. Blocks; not to be used by two threads at once."""

    @property
    def blank(self) -> int:
        """Rows without an identifier so far. Blank lines are none."""

    @property
    def read_bytes(self) -> int:
        """Bytes of the file that were read so far."""

    def blocks(self) -> Iterator[Items]:
        """Yield the identifiers, and what cannot be one, in order; some thousand in a list.

        An identifier stands there as it is in the file. May be called once.

        Raises:
            InputError: the file is damaged, or not what it should be.
        """

    def close(self) -> None:
        """Close the file. May be called again."""


def open_input(source: Input, kind: str) -> Reader:
    """Begin to read an input.

    Args:
        source: the input.
        kind: of the identifiers, such as ``email``: tells the column where none is named.

    Raises:
        InputError: it cannot be read as it is described.
    """
    form = format_of(source)
    if source.delimiter is not None and form != "csv":
        raise InputError(f"{source.path} is read as {form}: a delimiter is for CSV alone")
    if form == "parquet":
        return ParquetReader(source.path, source.column, kind)
    pieces = Pieces(source.path)
    try:
        return _text_reader(source, form, pieces, kind)
    except BaseException:
        pieces.close()
        raise


def format_of(source: Input) -> InputFormat:
    """Return how an input is written, by its name where that is not given.

    Raises:
        InputError: there is no such format.
    """
    if source.format is not None:
        if source.format not in _ALLOWED:
            raise InputError(f"format is {source.format!r}: allowed are {', '.join(_ALLOWED)}")
        return source.format
    name = source.path.name.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return _FORMATS.get(Path(name).suffix, "lines")


def fingerprint(path: Path) -> str:
    """Return what tells whether a file is the same: ``blake2b:`` and a hash of its bytes.

    Raises:
        InputError: it cannot be read.
    """
    hashed = hashlib.blake2b(digest_size=32)
    with open_raw(path) as file:
        try:
            while block := file.read(_BLOCK):
                hashed.update(block)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    return f"blake2b:{hashed.hexdigest()}"


def _text_reader(source: Input, form: InputFormat, pieces: Pieces, kind: str) -> TextReader:
    if form == "csv":
        return CsvReader(pieces, source.encoding, source.column, kind, source.delimiter)
    if form == "ndjson":
        return NdjsonReader(pieces, source.encoding, source.column, kind)
    if source.column is not None:
        raise InputError(
            f"{source.path} is read as lines, which have no columns: name its format, one of "
            f"{', '.join(_ALLOWED[1:])}"
        )
    return LinesReader(pieces, source.encoding)
