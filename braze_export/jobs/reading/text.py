"""Files of text, in parts that end where a line does; and which texts can be identifiers. Blocks.

What is common to lines, CSV and NDJSON. Everything is done to whole parts where that can be:
a file has millions of lines.
"""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Final, TypeAlias

from braze_export.errors import InputError
from braze_export.identifiers import is_unicode
from braze_export.jobs.reading.compression import Pieces
from braze_export.jobs.values import Unusable

#: Identifiers, and what cannot be one, in the order of the input.
Items: TypeAlias = "list[str | Unusable]"
#: The number of a part's first line, counted from 1, and the part.
Part: TypeAlias = "tuple[int, str]"

_FEW: Final = 1000  # items of one list, but for the last
_BLOCK: Final = 8192  # and at most
_SHOWN: Final = 1000  # characters of what cannot be an identifier
_BREAKS: Final = "\r\n"
#: All ASCII white space but the line feed.
_SPACES: Final = "\t\x0b\x0c\r\x1c\x1d\x1e\x1f "
_OTHER_FILES: Final = {
    b"PAR1": 'it looks like Parquet: name the format "parquet"',
    b"PK\x03\x04": "it looks like a ZIP archive or an Excel workbook: unpack it, or save it as CSV",
    codecs.BOM_UTF16_LE: "it begins as UTF-16 does: name the encoding, utf-16",
    codecs.BOM_UTF16_BE: "it begins as UTF-16 does: name the encoding, utf-16",
}


class TextReader(ABC):
    """What readers of text have in common. To be subclassed.

    Args:
        pieces: of the file.

    Attributes:
        blank: rows without an identifier so far.
    """

    def __init__(self, pieces: Pieces) -> None:
        self.blank = 0
        self._pieces = pieces

    @property
    def read_bytes(self) -> int:
        """Bytes of the file, as it is, that were read so far."""
        return self._pieces.consumed

    def blocks(self) -> Iterator[Items]:
        """Yield what the file holds, in lists of at most 8,192.

        Raises:
            InputError: the file is damaged, or not what it should be.
        """
        items: Items = []
        for found in self._items():
            items = items + found if items else found
            if len(items) >= _FEW:
                for at in range(0, len(items), _BLOCK):
                    yield items[at : at + _BLOCK] if len(items) > _BLOCK else items
                items = []
        if items:
            yield items

    def close(self) -> None:
        """Close the file."""
        self._pieces.close()

    @abstractmethod
    def _items(self) -> Iterator[Items]:
        """Yield the same in lists of any size."""


class Texts:
    """The text of a file, in parts. To be iterated over once.

    Each part ends with a line feed, but for the last. A byte order mark is left out.

    Args:
        pieces: of the file.
        encoding: as Python names it.
        longest: characters that a line may have.

    Raises:
        InputError: there is no such encoding; while it is iterated over: the file is damaged,
            is not written in that encoding, or has too long a line.
    """

    def __init__(self, pieces: Pieces, encoding: str, longest: int) -> None:
        self._decoder = _decoder(encoding)
        self._pieces = pieces
        self._encoding = encoding
        self._longest = longest
        self._line = 1
        self._beginning = b""

    def __iter__(self) -> Iterator[Part]:
        rest = ""
        for text in self._decoded():
            whole = rest + text
            end = whole.rfind("\n") + 1
            part, rest = whole[:end], whole[end:]
            self._check(part.find("\n"))  # others are within one piece
            if part:
                yield self._line, part
                self._line += part.count("\n")
            self._check(len(rest))
        if rest:
            yield self._line, rest

    def _check(self, length: int) -> None:
        if length > self._longest:
            raise InputError(
                f"{self._pieces.path}, line {self._line}: it has more than {self._longest:,} "
                "characters"
            )

    def _decoded(self) -> Iterator[str]:
        begun = False
        for piece in chain(self._pieces, [b""]):
            self._beginning = self._beginning or piece[:4]
            text = self._try(self._decoder.decode, piece, final=not piece)
            if text and not begun:
                begun = True
                text = self._checked(text.removeprefix("\ufeff"))
            yield text

    def _try(self, decode: Callable[..., str], piece: bytes, *, final: bool) -> str:
        try:
            return decode(piece, final)
        except UnicodeDecodeError as error:
            line = self._line + error.object[: error.start].count(b"\n")
        except UnicodeError:  # said without the place
            line = self._line
        raise self._wrong(f"line {line} is not")

    def _checked(self, text: str) -> str:
        """Return the first text if there are no zeros: UTF-16 without a mark has many."""
        if "\0" in text:
            raise self._wrong("it holds zeros and so is hardly")
        return text

    def _wrong(self, what: str) -> InputError:
        usual = "name the encoding that it is in, such as cp1252 or utf-16"
        hints = (hint for first, hint in _OTHER_FILES.items() if self._beginning.startswith(first))
        return InputError(f"{self._pieces.path}: {what} {self._encoding}: {next(hints, usual)}")


def sift(texts: list[str], word: str, numbers: Iterable[int], joined: str | None = None) -> Items:
    """Return what can be identifiers as it stands, and what cannot; leave out what is blank.

    Args:
        texts: the candidates.
        word: what they stand in, such as ``line``.
        numbers: of the lines (rows) that they stand in.
        joined: all of them, with anything plain between, where that is at hand.
    """
    whole = "".join(texts) if joined is None else joined
    if whole.isascii() and not any(map(whole.__contains__, _SPACES)):
        if joined is not None or "\n" not in whole:
            return list(filter(None, texts))
    elif not any(map(whole.__contains__, _BREAKS if joined is None else "\r")) and is_unicode(
        whole
    ):
        return [text for text in texts if text and not text.isspace()]
    found = zip(texts, numbers, strict=False)
    return [_item(text, word, number) for text, number in found if text and not text.isspace()]


def unusable(text: str, place: str, reason: str) -> Unusable:
    """Return something that cannot be an identifier, cut, and as text that can be written."""
    shown = text[:_SHOWN].encode(errors="backslashreplace").decode()
    return Unusable(shown[:_SHOWN], f"{place}: {reason}")


def _item(text: str, word: str, number: int) -> str | Unusable:
    if any(map(text.__contains__, _BREAKS)):
        return unusable(text, f"{word} {number}", "holds a line break")
    if not is_unicode(text):
        return unusable(text, f"{word} {number}", "is not valid Unicode")
    return text


def _decoder(encoding: str) -> Any:
    try:
        with suppress(UnicodeError):
            bytes(4).decode(encoding)  # refuses encodings that are none of text, such as hex
        return codecs.getincrementaldecoder(encoding)()
    except (LookupError, ValueError) as error:
        raise InputError(
            f"encoding is {encoding!r}: allowed are those that Python knows, such as utf-8, "
            "utf-16, cp1252, latin-1"
        ) from error
