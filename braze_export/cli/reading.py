"""Identifiers in: from arguments, a file or standard input, line by line, never held whole.

Descriptors are read in threads that nobody waits for, so that neither a slow disk nor a silent
pipe holds the event loop, or the end after Ctrl-C.
"""

import codecs
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeAlias

import attrs
import rich_click as click
from attrs import define, field

from braze_export import Identifier, InputError
from braze_export.cli.failures import UnreadableInputError
from braze_export.jobs.kinds import Kind, parse_kind
from braze_export.jobs.reading.inputs import Reader, open_input
from braze_export.jobs.spooling import STANDARD, is_fleeting
from braze_export.jobs.values import Input, Unusable
from braze_export.tasks import detached

_BLOCK: Final = 64 * 1024
_LONGEST_LINE: Final = 64 * 1024  # bytes: such a file holds something else than identifiers

#: A single argument with such an ending is a file, as is one that exists.
_ENDINGS: Final = (".csv", ".tsv", ".ndjson", ".jsonl", ".parquet", ".txt", ".gz", ".zst")


def kind_of(_context: click.Context, parameter: click.Parameter, word: str) -> Kind:
    """Return the kind of identifiers, for ``--as``.

    Raises:
        BadParameter: there is no such kind.
    """
    try:
        return parse_kind(word)
    except InputError as error:
        raise click.BadParameter(f"{error}.", param=parameter) from None


def what_is_read(words: tuple[str, ...], path: str | None) -> tuple[tuple[str, ...], str | None]:
    """Return identifiers, and the file that others are read from: one of both is empty.

    Raises:
        UsageError: both are given, or the file is not there.
    """
    if words and path:
        raise click.UsageError("Give identifiers as arguments or with --input, not both.")
    if len(words) > 1 and (file := next(filter(_is_file, words), None)):
        raise click.UsageError(
            f"{file} is a file, and not the only argument: give one file, or identifiers. "
            "Several files of lines are joined by: cat FILES | braze-export ids"
        )
    if len(words) != 1 or not (words[0].endswith(_ENDINGS) or _can_be_read(Path(words[0]))):
        return words, path
    if not Path(words[0]).exists():
        raise click.UsageError(
            f"There is no file {words[0]}. If it is an identifier, give it on standard input."
        )
    return (), words[0]


def _is_file(word: str) -> bool:
    """Say whether an argument is a file for sure: an identifier may be called like one."""
    return word.endswith(_ENDINGS) and _can_be_read(Path(word))


def _can_be_read(path: Path) -> bool:
    """Say whether something is there that is no directory: a file, or a pipe of the shell's."""
    return path.exists() and not path.is_dir()


@define
class Arguments:
    """Identifiers that stand on the command line."""

    words: Sequence[str]
    exact = True  # what total() says

    def total(self) -> int | None:
        """Return how many there are."""
        return len(self.words)

    async def __aiter__(self) -> AsyncIterator[str]:
        for word in self.words:
            yield word


@define
class Lines:
    """The lines of a descriptor that are not blank, without their ends.

    Attributes:
        name: of the file, for messages.
        descriptor: open for reading.
        size: in bytes, where it is a file.
        lines: read so far, blank ones included.
    """

    name: str
    descriptor: int
    size: int | None
    lines: int = field(default=0, init=False)
    _handed_out: int = 0
    _bytes: int = 0
    _ended: bool = False

    @property
    def exact(self) -> bool:
        """Whether ``total()`` counts, and does not guess."""
        return self._ended

    def total(self) -> int | None:
        """Return how many lines there are, or will be by what was read so far, if known."""
        if self._ended:
            return self._handed_out
        if not self.size or not self._handed_out:
            return None
        return max(self._handed_out, round(self._handed_out * self.size / self._bytes))

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._split():
            self.lines += 1
            self._bytes += len(line) + 1
            text = self._decoded(line, self.lines)
            if text and not text.isspace():
                self._handed_out += 1
                yield text
        self._ended = True

    async def _split(self) -> AsyncIterator[bytes]:
        rest, number = b"", 0
        while block := await detached(self._read):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                number += 1
                yield line
            if len(rest) > _LONGEST_LINE:
                raise UnreadableInputError(
                    f"{self.name}, line {number + 1} is longer than {_LONGEST_LINE:,} bytes: "
                    "give one identifier per line."
                )
        if rest:
            yield rest

    def _read(self) -> bytes:
        try:
            return os.read(self.descriptor, _BLOCK)
        except OSError as error:
            raise UnreadableInputError(f"{self.name}: {error.strerror}.") from error

    def _decoded(self, line: bytes, number: int) -> str:
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        try:
            return line.decode().removesuffix("\r")
        except UnicodeDecodeError:
            raise UnreadableInputError(
                f"{self.name}, line {number} is not UTF-8: convert it, for example with iconv."
            ) from None


@define
class Rows:
    """The identifiers of a file of any kind, without what cannot be one.

    Attributes:
        name: of the file, for messages.
        reader: reads it.
        size: in bytes.
        unusable: takes what cannot be an identifier, or raises.
        lines: with an identifier, read so far.
    """

    name: str
    reader: Reader
    size: int
    unusable: Callable[[Unusable], object]
    lines: int = field(default=0, init=False)
    _ended: bool = False

    @property
    def exact(self) -> bool:
        """Whether ``total()`` counts, and does not guess."""
        return self._ended

    def total(self) -> int | None:
        """Return how many there are, or will be by what was read so far, if known."""
        if self._ended or not self.reader.read_bytes:
            return self.lines or None
        return max(self.lines, round(self.lines * self.size / self.reader.read_bytes))

    async def __aiter__(self) -> AsyncIterator[str]:
        blocks = self.reader.blocks()
        while block := await detached(lambda: next(blocks, None)):
            for item in block:
                if isinstance(item, Unusable):
                    self.unusable(item)
                    continue
                self.lines += 1
                yield item
        self._ended = True


Source: TypeAlias = Arguments | Lines | Rows


async def identifiers(source: Source, kind: Kind) -> AsyncIterator[Identifier]:
    """Yield what is read as identifiers."""
    async for text in source:
        yield kind.make(text)


@contextmanager
def opened(
    words: Sequence[str],
    given: Input | None,
    kind: Kind,
    unusable: Callable[[Unusable], object] | None = None,
) -> Iterator[Source]:
    """Open where the identifiers come from: arguments, a file, or standard input.

    Args:
        words: the arguments.
        given: the file.
        kind: of the identifiers.
        unusable: takes what cannot be one; if not given, reading ends with an error there.

    Raises:
        UsageError: from nowhere.
        InputError: a file that identifiers cannot be read from.
    """
    if words:
        yield Arguments(words)
    elif given is not None and not is_fleeting(given.path):
        with closing(open_input(given, kind.name)) as reader:
            name = str(given.path)
            yield Rows(name, reader, given.path.stat().st_size, unusable or _refused(name))
    elif given is not None and attrs.evolve(given, path=STANDARD) != Input(path=STANDARD):
        raise click.UsageError(
            "Without --output, and by --dry-run, standard input and pipes are read as lines in "
            "UTF-8: name a file."
        )
    elif given is not None and given.path != STANDARD:
        with given.path.open("rb", buffering=0) as file:
            yield Lines(str(given.path), file.fileno(), None)
    elif sys.stdin is None or (given is None and sys.stdin.isatty()):
        raise click.UsageError(
            "No identifiers: give them as arguments, with --input FILE, or on standard input."
        )
    else:
        yield _lines("standard input", sys.stdin.fileno())


def _refused(name: str) -> Callable[[Unusable], object]:
    def refuse(item: Unusable) -> None:
        raise UnreadableInputError(
            f"{name}, {item.reason}. With --output FILE it would go to --failed."
        )

    return refuse


def _lines(name: str, descriptor: int) -> Lines:
    state = os.fstat(descriptor)
    return Lines(name, descriptor, state.st_size if stat.S_ISREG(state.st_mode) else None)
