"""The beginning of a run: whether there is a job to go on with, and where its input is."""

import asyncio
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from braze_export.client import BrazeClient
from braze_export.jobs.definition import record_to_go_on_with
from braze_export.jobs.halting import to_its_end
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.order import Order
from braze_export.jobs.places import Places
from braze_export.jobs.spooling import Kept, keep, kept
from braze_export.jobs.staging import put_in_place, told
from braze_export.jobs.values import Input


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
        JobChangedError: there is one, but another.
        InputError: the input cannot be read.
    """
    retried = order.retry_failed or (
        not order.fresh and await to_its_end(lambda: _is_retry(journal))
    )
    source = None if retried else await kept(order.source, order.places, stop)
    definition = order.definition(client.base_url, source.fingerprint if source else None)
    notes = _notes(order, client)
    return await to_its_end(lambda: _find(journal, order, definition, notes, source))


def _is_retry(journal: Journal) -> bool:
    last = next(journal.records(), None)
    return last is not None and last.stage != "finished" and last.round > 0


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
    if source is not None:
        keep(order.places)
        if record is None:
            order.places.forget()
            record = journal.begin(definition, notes)
        return Found(source.source, record)
    if record is None or record.stage == "finished":
        record = _next_round(journal, order.places, record or Record())
    return Found(_retried(order.places, record), record)


def _next_round(journal: Journal, places: Places, record: Record) -> Record:
    """Begin to ask once more for what failed."""
    again = Record(round=record.round + 1)
    copy = places.staged("retried")
    with told(places.failed):
        copy.write_bytes(places.failed.read_bytes())
    put_in_place(copy, _retried(places, again).path)
    journal.record_safely(again)
    return again


def _retried(places: Places, record: Record) -> Input:
    path = places.folder / f"failed-{record.round}.ndjson"
    return Input(path=path, format="ndjson", column="identifier")
