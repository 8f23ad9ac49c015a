"""The beginning of a run: whether there is a job to go on with, and where its input is."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from attrs import frozen

from braze_export.client import BrazeClient
from braze_export.jobs.definition import record_to_go_on_with
from braze_export.jobs.finishing import Shape, bases
from braze_export.jobs.halting import to_its_end
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.order import Order
from braze_export.jobs.places import Places
from braze_export.jobs.recorder import FAILED
from braze_export.jobs.spooling import Kept, keep, kept
from braze_export.jobs.staging import Staged, put_in_place, told
from braze_export.jobs.values import Input

_LINES: Final = 1024 * 1024  # bytes that are looked at together


class _Failed(msgspec.Struct, gc=False):
    row: bool = False


_failed: Final = msgspec.json.Decoder(_Failed)


@frozen
class Found:
    """What a run begins with.

    Attributes:
        source: of the identifiers.
        record: what is written already.
    """

    source: Input
    record: Record


async def find(journal: Journal, order: Order, client: BrazeClient, stop: asyncio.Event) -> Found:
    """Return the job that is to be gone on with, or begin one.

    Raises:
        Halted: it was stopped while the input was copied.
        JobChangedError: there is one, but another, or what it adds to is gone.
        InputError: the input cannot be read.
    """
    source = None if order.retry_failed else await kept(order.source, order.places, stop)
    definition = order.definition(client.base_url, source.fingerprint if source else None)
    notes = _notes(order, client)
    return await to_its_end(lambda: _find(journal, order, definition, notes, source))


def _notes(order: Order, client: BrazeClient) -> dict[str, Any]:
    limits = client.limits.limits
    pools = {pool: [it.max_requests, it.period] for pool, it in limits.by_pool().items()}
    return {"source": str(order.source.path), "limits": pools, "reserve": limits.reserve}


def _find(
    journal: Journal,
    order: Order,
    definition: Mapping[str, Any],
    notes: Mapping[str, Any],
    source: Kept | None,
) -> Found:
    record = record_to_go_on_with(
        journal, order.places, definition, fresh=order.fresh, retry_failed=order.retry_failed
    )
    if source is not None and (record is None or not record.round):
        keep(order.places)
        if record is None:
            order.places.clean()
            record = journal.begin(definition, notes)
        return Found(source.source, record)
    return Found(*_round(journal, order.places, order.shape, record or Record()))


def _round(journal: Journal, places: Places, shape: Shape, record: Record) -> tuple[Input, Record]:
    """Go on asking for what failed, or begin to."""
    if record.stage != "finishing":
        bases(places, shape)  # else it would be asked for in vain
    if record.stage == "finished":
        record = _next_round(places, record.round + 1)
        journal.record_safely(record)
    return _retried(places, record), record


def _next_round(places: Places, number: int) -> Record:
    """Part what failed: identifiers to be asked for once more, rows that hold none to be kept."""
    asked, carried = Staged(places.staged("retried")), Staged(places.staged(FAILED))
    rows = 0
    try:
        asked.open(0)
        carried.open(0)
        with told(places.failed), places.failed.open("rb") as file:
            while lines := file.readlines(_LINES):
                lines[-1] = lines[-1].removesuffix(b"\n") + b"\n"
                known = [_is_row(line) for line in lines]
                asked.append([line for line, row in zip(lines, known, strict=True) if not row])
                carried.append([line for line, row in zip(lines, known, strict=True) if row])
                rows += sum(known)
        asked.sync()
        carried.sync()
    finally:
        asked.close()
        carried.close()
    files = {FAILED: carried.length}
    record = Record(round=number, done=rows, failed=rows, carried=rows, files=files)
    put_in_place(asked.path, _retried(places, record).path)
    return record


def _is_row(line: bytes) -> bool:
    """Say whether a line of failed identifiers is a piece of the input that holds none."""
    try:
        return b'"row"' in line and _failed.decode(line).row
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _retried(places: Places, record: Record) -> Input:
    path = places.folder / f"failed-{record.round}.ndjson"
    return Input(path=path, format="ndjson", column="identifier")
