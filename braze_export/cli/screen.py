"""The two consoles, and text made safe for them.

Data goes to standard output; everything that is said about it goes to standard error.
"""

import errno
import os
import re
import sys
import textwrap
from typing import Final, NoReturn

from attrs import Factory, frozen
from rich.console import Console
from rich.text import Text

# A table in a pipe is for grep and awk: as wide as it needs.
_PIPE_WIDTH = 2000

# What may stand unescaped in JSON, and steers a terminal or turns text round on it all the same.
_STEERING: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class _Console(Console):
    """A console that leaves a broken pipe to whoever prints."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise, where rich would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    # Names may hold what the terminal's encoding has not.
    if reconfigure := getattr(stream, "reconfigure", None):
        reconfigure(errors="replace")
    console = _Console(stderr=stderr, highlight=False, emoji=False, markup=False)
    if not is_live(stderr=stderr):
        console.width = _PIPE_WIDTH
    return console


def is_live(*, stderr: bool) -> bool:
    """Say whether someone looks at a stream: it is a terminal, and one that can redraw."""
    stream = sys.stderr if stderr else sys.stdout
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@frozen
class Screen:
    """Where a command prints.

    Attributes:
        out: for results.
        err: for progress, summaries, warnings and errors.
    """

    out: Console = Factory(lambda: _console(stderr=False))
    err: Console = Factory(lambda: _console(stderr=True))

    def say(self, text: str) -> None:
        """Print a line about the work."""
        self.err.print(filled(text, self.err), soft_wrap=True)

    def show(self, text: str) -> None:
        """Print a line that may be pasted: it is not broken."""
        self.err.print(printable(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a line that someone should look at."""
        self._marked("Warning: ", "yellow", text)

    def fail(self, text: str) -> None:
        """Print why it ended."""
        self._marked("Error: ", "red", text)

    def _marked(self, mark: str, style: str, text: str) -> None:
        line = Text(filled(mark + text, self.err))
        line.stylize(f"bold {style}", 0, len(mark))
        self.err.print(line, soft_wrap=True)


def filled(text: str, console: Console) -> str:
    """Break a text between words where the terminal ends; a path is never broken."""
    return textwrap.fill(
        printable(text), console.width, break_long_words=False, break_on_hyphens=False
    )


def printable(text: str) -> str:
    """Return text with whatever could steer the terminal written as an escape.

    Profiles and messages come from elsewhere: an ESC in a first name must not clear the screen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_json(text: str) -> str:
    """Return JSON of the same meaning with whatever could steer the terminal escaped."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 request``, ``2,500 requests``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
