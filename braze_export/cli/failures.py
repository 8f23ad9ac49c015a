"""Errors into one line and an exit code. The only place that knows the codes."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO

from click.exceptions import Abort, ClickException, Exit, NoArgsIsHelpError, UsageError

from braze_export import (
    AuthenticationError,
    BrazeError,
    BrazeWarning,
    InputError,
    PermissionDeniedError,
)
from braze_export.cli.screen import Screen
from braze_export.cli.signals import INTERRUPTED, TERMINATED
from braze_export.errors import JobError, JobRunningError, JobStorageError

BRAZE_FAILED: Final = 1
WRONG_USAGE: Final = 2
REFUSED: Final = 3
SOME_FAILED: Final = 4
READER_GONE: Final = 141

CODES: Final = {
    0: "all done",
    BRAZE_FAILED: "Braze, the network or a file failed",
    WRONG_USAGE: "wrong usage or input",
    REFUSED: "the key or its permission was refused",
    SOME_FAILED: "finished, but some identifiers or lines failed",
    INTERRUPTED: "interrupted",
    READER_GONE: "the reader of the output went away, as with | head",
    TERMINATED: "terminated (SIGTERM)",
}

# The client's messages name its arguments; here they have other names.
_NAMES: Final = {
    "allow_insecure_http=True": "--allow-insecure-http",
    "base_url": "the endpoint",
    "api_key": "the API key",
    'pass if_running="wait"': "give --if-running wait",
    "wait until it ends, or cancel it": "wait until it ends (--if-running wait), or cancel it",
    "custom_attributes holds": "--custom-attributes holds",
    "custom_attributes in fields": "custom_attributes in --fields",
    "a name in custom_attributes": "a name in --custom-attributes",
    "a name in fields": "a name in --fields",
    "segment_id must": "SEGMENT_ID must",
    "the link or object prefix must": "--resume-from must",
    "fresh starts over, retry_failed goes on": "--fresh starts over, --retry-failed goes on",
    "start over (fresh)": "start over (--fresh)",
    "without retry_failed": "without --retry-failed",
    "run the same again": "run the same command again",
    "Run the same again": "Run the same command again",
    "patience must": "--patience must",
    "format is '": "--input-format is '",
    "name its format,": "give --input-format,",
    "name the format ": "give --input-format ",
    "encoding is '": "--encoding is '",
    "name the encoding that it is in, such as": "give --encoding, such as",
    "name the encoding, ": "give --encoding ",
    "delimiter is '": "--delimiter is '",
    "a delimiter is": "--delimiter is",
    "give the delimiter": "give --delimiter",
    "pass allow_remote=True to mean it": "it is reached from this machine alone, by 127.0.0.1, ::1 "
    "or localhost",
    "give the column by its name": "give --column with its name",
    "name the one that holds the identifiers": "give --column, the one that holds the identifiers",
}


class UnreadableInputError(Exception):
    """Input that identifiers cannot be read from."""


@contextmanager
def told(screen: Screen) -> Iterator[None]:
    """Tell errors and warnings of a command in a line each, and exit with the error's code.

    What was put to an error by ``add_note`` follows it: how to go on.
    """
    try:
        with _warnings_told(screen):
            yield
    except BrazeError as error:
        screen.fail(in_our_words(error))
        _tell_notes(error, screen)
        raise Exit(code_of(error)) from None
    except ClickException as error:
        if isinstance(error, NoArgsIsHelpError):
            raise
        screen.fail(error.format_message())
        if isinstance(error, UsageError) and error.ctx is not None:
            screen.say(f"Help: {error.ctx.command_path} --help")
        _tell_notes(error, screen)
        raise Exit(error.exit_code) from None
    except UnreadableInputError as error:
        screen.fail(str(error))
        raise Exit(WRONG_USAGE) from None
    except (KeyboardInterrupt, Abort) as error:
        screen.say("Interrupted.")
        _tell_notes(error, screen)
        raise Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _silence(sys.stdout)
        _silence(sys.stderr)
        raise Exit(READER_GONE) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        screen.fail(f"{where}{error.strerror or error}")
        _tell_notes(error, screen)
        raise Exit(BRAZE_FAILED) from None


def _tell_notes(error: BaseException, screen: Screen) -> None:
    for note in getattr(error, "__notes__", ()):
        screen.show(with_options(note))


def code_of(error: BrazeError) -> int:
    """Return the exit code that an error stands for."""
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return REFUSED
    if isinstance(error, JobRunningError | JobStorageError):
        return BRAZE_FAILED
    return WRONG_USAGE if isinstance(error, InputError | JobError) else BRAZE_FAILED


def in_our_words(error: BrazeError) -> str:
    """Return an error's message with the names of options for those of arguments."""
    return with_options(str(error))


def with_options(text: str) -> str:
    """Return a message with the names of options for those of arguments."""
    for name, ours in _NAMES.items():
        text = text.replace(name, ours)
    return text


@contextmanager
def logged(screen: Screen, verbosity: int) -> Iterator[None]:
    """Show the library's log on standard error: 0 nothing, 1 what it does, 2 all of it."""
    if not verbosity:
        yield
        return
    logger = logging.getLogger("braze_export")
    handler, before = _Lines(screen), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Lines(logging.Handler):
    """Prints records on the console, which keeps them clear of the live progress."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(self.format(record))


@contextmanager
def _warnings_told(screen: Screen) -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], *more: Any) -> None:
        if issubclass(category, BrazeWarning):
            screen.warn(str(message))
        else:
            shown(message, category, *more)

    with warnings.catch_warnings():
        shown = warnings.showwarning
        warnings.simplefilter("always", BrazeWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _silence(stream: TextIO) -> None:
    """Send what is still buffered nowhere, or the interpreter's end would complain."""
    with suppress(OSError, ValueError):  # ValueError: it is closed, or no real file
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
