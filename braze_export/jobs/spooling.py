"""Input that can be read once only, a pipe say, kept beside the job so that it can go on."""

import asyncio
import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

from attrs import evolve, frozen

from braze_export.errors import InputError
from braze_export.jobs.halting import Halted
from braze_export.jobs.places import Places
from braze_export.jobs.reading.csv import delimiter_of
from braze_export.jobs.reading.inputs import fingerprint, format_of
from braze_export.jobs.staging import told
from braze_export.jobs.values import Input
from braze_export.tasks import cancel, detached

STANDARD: Final = Path("-")

_BLOCK: Final = 64 * 1024
_LOOK: Final = 100  # milliseconds between two looks at whether somebody still waits for a pipe
_PATIENCE: Final = 1.0  # seconds for a reader to notice that it is given up, which takes one look
_READING: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a pipe nobody writes to yet, too


@frozen
class Kept:
    """An input that can be read again and again.

    Attributes:
        source: to read.
        fingerprint: of its bytes.
    """

    source: Input
    fingerprint: str


def is_fleeting(path: Path) -> bool:
    """Say whether something can be read once only."""
    if path == STANDARD:
        return True
    if not path.exists():
        return False
    mode = path.stat().st_mode
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


async def kept(source: Input, places: Places, stop: asyncio.Event) -> Kept:
    """Return the input in a form that can be read again; ``keep`` makes it last.

    Args:
        source: the input.
        places: of the job, with what an earlier run has kept.
        stop: once set, a pipe is not waited for.

    Raises:
        Halted: it was.
        InputError: it cannot be read, is a terminal, or gives nothing and nothing was kept.
        JobStorageError: there is no room for it.
    """
    if not await asyncio.to_thread(is_fleeting, source.path):
        return Kept(source, await detached(lambda: fingerprint(source.path)))
    copy = _copy_of(source, places)
    if source.path == STANDARD and os.isatty(0):
        if not await asyncio.to_thread(places.spooled.exists):
            raise InputError("standard input is a terminal: name a file, or pipe identifiers in")
        return Kept(copy, await detached(lambda: fingerprint(places.spooled)))
    return Kept(copy, await _unless(stop, partial(_taken, source.path, places)))


def _copy_of(source: Input, places: Places) -> Input:
    """Return the input as it is read later; the copy has lost the name that tells the format."""
    form, delimiter = format_of(source), source.delimiter
    if form == "csv" and delimiter is None:
        delimiter = delimiter_of(source.path)
    return evolve(source, path=places.spooled, format=form, delimiter=delimiter)


async def _unless(stop: asyncio.Event, work: Callable[[threading.Event], str]) -> str:
    """Do blocking work until it is done, or given up because of ``stop``: then it is told."""
    given_up = threading.Event()
    working = asyncio.create_task(detached(lambda: work(given_up)))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        given_up.set()
        # The next reader of a pipe would have to share it with this one.
        await asyncio.wait({working}, timeout=_PATIENCE)
        await cancel(working, stopped)
    if working.cancelled():
        raise Halted
    return working.result()


def keep(places: Places) -> None:
    """Give the copy of an input its name."""
    with told(places.spooled):
        if _new(places).exists():
            _new(places).replace(places.spooled)


def drop(places: Places) -> None:
    """Remove a copy that is not needed."""
    _new(places).unlink(missing_ok=True)


def _new(places: Places) -> Path:
    return places.spooled.with_suffix(".new")


def _taken(source: Path, places: Places, given_up: threading.Event) -> str:
    """Copy an input, and return its fingerprint: where nothing comes, of what was kept before."""
    mark = _copied(source, _new(places), given_up)
    if _new(places).stat().st_size:
        return mark
    drop(places)
    if not places.spooled.exists():  # nobody has given any: no reason to empty the output
        raise InputError(f"{_named(source)} is empty: name a file, or pipe identifiers in")
    return fingerprint(places.spooled)  # a job run again by a timer, say, has no standard input


def _named(source: Path) -> str:
    return "standard input" if source == STANDARD else str(source)


def _copied(source: Path, target: Path, given_up: threading.Event) -> str:
    found = blake2b(digest_size=32)
    try:
        descriptor = os.dup(0) if source == STANDARD else os.open(source, _READING)
    except OSError as error:
        raise _unreadable(source, error) from error
    try:
        with told(target), target.open("wb") as file:
            while block := _block(descriptor, source, given_up):
                found.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.close(descriptor)
    return f"blake2b:{found.hexdigest()}"


def _block(descriptor: int, source: Path, given_up: threading.Event) -> bytes:
    """Return what comes next: nothing at the end.

    Raises:
        Halted: nobody waits for it any more. Then nothing is taken of what the next one reads.
    """
    try:
        while not given_up.is_set():
            if _is_ready(descriptor) and not given_up.is_set():
                with suppress(BlockingIOError):  # another reader was quicker
                    return os.read(descriptor, _BLOCK)
    except OSError as error:  # the fault of the input, not of the disk that the copy is on
        raise _unreadable(source, error) from error
    raise Halted


def _is_ready(descriptor: int) -> bool:
    """Wait a little; return whether reading would not wait. Where that is not known, it is."""
    if sys.platform == "win32":
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(_LOOK))


def _unreadable(source: Path, error: OSError) -> InputError:
    return InputError(f"{_named(source)} cannot be read ({error.strerror})")
