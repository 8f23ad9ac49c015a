"""Input that can be read once only, a pipe say, kept beside the job so that it can go on."""

import asyncio
import os
import stat
from collections.abc import Coroutine
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

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
    return Kept(copy, await _unless(stop, detached(lambda: _taken(source.path, places))))


def _copy_of(source: Input, places: Places) -> Input:
    """Return the input as it is read later; the copy has lost the name that tells the format."""
    form, delimiter = format_of(source), source.delimiter
    if form == "csv" and delimiter is None:
        delimiter = delimiter_of(source.path)
    return evolve(source, path=places.spooled, format=form, delimiter=delimiter)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, str]) -> str:
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Halted
        return working.result()
    finally:
        await cancel(working, stopped)


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


def _taken(source: Path, places: Places) -> str:
    """Copy an input, and return its fingerprint: where nothing comes, of what was kept before."""
    mark = _copied(source, _new(places))
    if _new(places).stat().st_size:
        return mark
    drop(places)
    if not places.spooled.exists():  # nobody has given any: no reason to empty the output
        raise InputError(f"{_named(source)} is empty: name a file, or pipe identifiers in")
    return fingerprint(places.spooled)  # a job run again by a timer, say, has no standard input


def _named(source: Path) -> str:
    return "standard input" if source == STANDARD else str(source)


def _copied(source: Path, target: Path) -> str:
    found = blake2b(digest_size=32)
    try:
        descriptor = os.dup(0) if source == STANDARD else os.open(source, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(source, error) from error
    try:
        with told(target), target.open("wb") as file:
            while block := _block(descriptor, source):
                found.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.close(descriptor)
    return f"blake2b:{found.hexdigest()}"


def _block(descriptor: int, source: Path) -> bytes:
    try:
        return os.read(descriptor, _BLOCK)
    except OSError as error:  # the fault of the input, not of the disk that the copy is on
        raise _unreadable(source, error) from error


def _unreadable(source: Path, error: OSError) -> InputError:
    return InputError(f"{_named(source)} cannot be read ({error.strerror})")
