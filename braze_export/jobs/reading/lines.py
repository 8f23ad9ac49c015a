"""Identifiers that stand one a line. Blocks."""

from collections.abc import Iterator
from itertools import count
from typing import Final

from braze_export.jobs.reading.compression import Pieces
from braze_export.jobs.reading.text import Items, TextReader, Texts, sift

_LONGEST: Final = 64 * 1024  # characters of a line: what has more is no such file


class LinesReader(TextReader):
    r"""Reads lines, which end with ``\n`` or ``\r\n``. Blank ones are passed over.

    Args:
        pieces: of the file.
        encoding: as Python names it.

    Raises:
        InputError: there is no such encoding.
    """

    def __init__(self, pieces: Pieces, encoding: str) -> None:
        super().__init__(pieces)
        self._texts = Texts(pieces, encoding, _LONGEST)

    def _items(self) -> Iterator[Items]:
        for first, part in self._texts:
            text = part
            if "\r" in text:
                text = text.replace("\r\n", "\n").removesuffix("\r")
            yield sift(text.split("\n"), "line", count(first), text)
