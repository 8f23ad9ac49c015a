"""Identifiers in: from arguments, a file or standard input, line by line, never held whole.

Descriptors are read in threads that nobody waits for, so that neither a slow disk nor a silent
pipe holds the event loop, or the end after Ctrl-C.
"""

import codecs
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import rich_click as click
from attrs import define, field

from braze_export import (
    BrazeId,
    DeviceId,
    EmailAddress,
    Identifier,
    PhoneNumber,
    UserAlias,
)
from braze_export.cli.failures import UnreadableInputError
from braze_export.tasks import detached

_BLOCK: Final = 64 * 1024
_LONGEST_LINE: Final = 64 * 1024  # bytes: such a file holds something else than identifiers

Kind: TypeAlias = Callable[[str], Identifier]

_KINDS: Final[dict[str, Kind]] = {
    "external_id": str,
    "braze_id": BrazeId,
    "device_id": DeviceId,
    "email": EmailAddress,
    "phone": PhoneNumber,
}


def kind_of(_context: click.Context, parameter: click.Parameter, word: str) -> Kind:
    """Return the function that makes an identifier of a line, for ``--as``.

    Raises:
        BadParameter: there is no such kind.
    """
    if word in _KINDS:
        return _KINDS[word]
    alias, _, label = word.partition(":")
    if alias != "alias" or not label.strip():
        known = ", ".join(_KINDS)
        raise click.BadParameter(f"{word!r} is none of {known}, alias:LABEL.", param=parameter)
    return lambda name: UserAlias(name, label)


def goes_alone(kind: Kind) -> bool:
    """Say whether Braze takes one identifier of a kind in a request, and not 50."""
    return kind in {BrazeId, DeviceId, EmailAddress, PhoneNumber}


def as_text(identifier: Identifier) -> str:
    """Return an identifier as it was read."""
    if isinstance(identifier, str):
        return identifier
    return identifier.alias_name if isinstance(identifier, UserAlias) else identifier.value


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


Source: TypeAlias = Arguments | Lines


async def identifiers(source: Source, kind: Kind) -> AsyncIterator[Identifier]:
    """Yield what is read as identifiers."""
    async for text in source:
        yield kind(text)


@contextmanager
def opened(words: Sequence[str], path: str | None) -> Iterator[Source]:
    """Open where the identifiers come from: arguments, a file, or standard input.

    Raises:
        UsageError: from nowhere, or from two places.
    """
    if words and path:
        raise click.UsageError("Give identifiers as arguments or with --input, not both.")
    if words:
        yield Arguments(words)
    elif path and path != "-":
        with open(path, "rb", buffering=0) as file:
            yield _lines(path, file.fileno())
    elif sys.stdin is None or (path is None and sys.stdin.isatty()):
        raise click.UsageError(
            "No identifiers: give them as arguments, with --input FILE, or on standard input."
        )
    else:
        yield _lines("standard input", sys.stdin.fileno())


def _lines(name: str, descriptor: int) -> Lines:
    state = os.fstat(descriptor)
    return Lines(name, descriptor, state.st_size if stat.S_ISREG(state.st_mode) else None)
