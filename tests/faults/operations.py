"""The public operations, a line each at the end: what is called, and what must come of it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Literal, TypeAlias

from attrs import frozen

from braze_export import BrazeError, DeviceId, EmailAddress, FailedBatch, Identifier
from braze_export.downloads.fetching import EXPORT_LINK
from braze_export.endpoints import (
    CANCEL_SEGMENT_EXPORT,
    EXPORT_GLOBAL_CONTROL_GROUP,
    EXPORT_IDS,
    EXPORT_SEGMENT,
    SEGMENTS_DATA_SERIES,
    SEGMENTS_DETAILS,
    SEGMENTS_LIST,
    Endpoint,
)
from tests.faults.world import STRANGER, World

Run: TypeAlias = Callable[[World, list[Any]], Awaitable[object]]
Reads: TypeAlias = Literal[
    "records", "slices", "one", "object", "anything", "look", "archive", "bytes"
]

_FILES = itertools.count()
_LONG = 3_000.0  # seconds, of the loop's time


@frozen
class Operation:
    """One public operation.

    Attributes:
        endpoint: where its errors happen.
        run: does it, and puts what came into a list, also where it raises in the end.
        reads: what it needs of an answer: records, records that it does not look into (slices), a
            word on each one asked for, any JSON object or anything at all; of a link that it is
            there, an archive, or its bytes.
        requests: how many it takes where nothing fails.
        keeps: what must have come of it where one request fails for good: that of all
            ``others``, that of those ``before`` it, or, of a single thing, ``nothing``.
        narrows: whether its request has several identifiers in it: where that is refused, each
            half is asked for.
    """

    endpoint: Endpoint
    run: Run
    reads: Reads = "records"
    requests: int = 1
    keeps: Literal["others", "before", "nothing"] = "nothing"
    narrows: bool = False

    @property
    def of_links(self) -> bool:
        """Whether it talks to a storage, and not to Braze."""
        return self.endpoint is EXPORT_LINK

    @property
    def first(self) -> int:
        """The request from which on it is disturbed: some look first whether all is there."""
        return int(self.requests > 1)


def some_ids(world: World) -> list[Identifier]:
    """Return identifiers that take three requests, each with somebody in it."""
    second, third = world.sandbox.user(2), world.sandbox.user(3)
    return ["u1", EmailAddress(second.email), DeviceId(third.device_id)]


async def _taken(items: AsyncIterator[Any], came: list[Any]) -> None:
    async with aclosing(items):  # type: ignore[type-var]
        async for item in items:
            came.append(item)  # noqa: PERF401 - kept when the iteration raises


def _export(**options: Any) -> Run:
    async def run(world: World, came: list[Any]) -> None:
        export = world.braze.users.export_ids(some_ids(world), **options)
        await _taken(aiter(export), came)
        _raise_failed(export.failed)

    return run


def _collected(**options: Any) -> Run:
    async def run(world: World, came: list[Any]) -> None:
        export = world.braze.users.export_ids(some_ids(world), **options)
        try:
            came += (await export.collect()).users
        except BrazeError as error:
            came += error.partial.users  # type: ignore[attr-defined]
            raise
        _raise_failed(export.failed)

    return run


def _raw(**options: Any) -> Run:
    async def run(world: World, came: list[Any]) -> None:
        export = world.braze.users.export_ids(some_ids(world), **options)
        await _taken(export.raw(), came)
        _raise_failed(export.failed)

    return run


def _raise_failed(failed: tuple[FailedBatch, ...]) -> None:
    """Raise what was yielded, so that all operations end alike."""
    for failure in failed:
        raise failure.error


async def _get(world: World, came: list[Any]) -> None:
    came.append(await world.braze.users.get("u1", fields=["email"]))


async def _get_shared(world: World, came: list[Any]) -> None:
    names = ("u1", "u2", "u1", STRANGER)
    asked = (world.braze.users.get(name, fields=["email"]) for name in names)
    found = await asyncio.gather(*asked, return_exceptions=True)
    errors = [item for item in found if isinstance(item, BaseException)]
    assert len({id(error) for error in errors}) == len(errors)  # each has his own
    if errors:
        assert len(errors) in {2, len(names)}  # those who asked for the same, or all
        raise errors[0]
    came += found


async def _get_many(world: World, came: list[Any]) -> None:
    found: Any = {}
    try:
        found = await world.braze.users.get_many(some_ids(world), fields=["email"])
    except BrazeError as error:
        found = error.partial
        raise
    finally:
        came += (user for user in found.values() if user is not None)


async def _start_segment(world: World, came: list[Any]) -> None:
    segment = world.sandbox.segment_id(2)
    job = await world.braze.users.export_segment(segment, fields=["email"])
    came.append(job.segment_id)


async def _start_group(world: World, came: list[Any]) -> None:
    job = await world.braze.users.export_global_control_group(fields=["email"])
    came.append(job.segment_id)


async def _cancel(world: World, _came: list[Any]) -> None:
    await world.braze.users.cancel_segment_export(world.sandbox.segment_id(3))


async def _list(world: World, came: list[Any]) -> None:
    await _taken(world.braze.segments.list(), came)


async def _details(world: World, came: list[Any]) -> None:
    came.append(await world.braze.segments.details(world.sandbox.segment_id(1)))


async def _series(world: World, came: list[Any]) -> None:
    segment = world.sandbox.segment_id(1)
    end = "2026-03-31T12:00:00Z"
    came += await world.braze.segments.data_series(segment, length=101, ending_at=end)


async def _wait(world: World, _came: list[Any]) -> None:
    await world.braze.users.resume_export(world.link).wait(timeout=_LONG)


async def _profiles(world: World, came: list[Any]) -> None:
    job = world.braze.users.resume_export(world.link)
    await _taken(job.profiles(timeout=_LONG), came)


async def _raw_lines(world: World, came: list[Any]) -> None:
    job = world.braze.users.resume_export(world.link)
    await _taken(job.raw(timeout=_LONG), came)


async def _download(world: World, _came: list[Any]) -> None:
    job = world.braze.users.resume_export(world.link)
    await job.download(world.directory / f"{next(_FILES)}.zip", timeout=_LONG)


OPERATIONS: dict[str, Operation] = {
    "export_ids": Operation(EXPORT_IDS, _export(), requests=3, keeps="before"),
    "export_ids yielding": Operation(
        EXPORT_IDS, _export(on_error="yield"), requests=3, keeps="others"
    ),
    "collect": Operation(EXPORT_IDS, _collected(), requests=3, keeps="before"),
    "collect yielding": Operation(
        EXPORT_IDS, _collected(on_error="yield"), requests=3, keeps="others"
    ),
    "raw": Operation(EXPORT_IDS, _raw(), "slices", requests=3, keeps="before"),
    "raw yielding": Operation(
        EXPORT_IDS, _raw(on_error="yield"), "slices", requests=3, keeps="others"
    ),
    "get": Operation(EXPORT_IDS, _get, "one"),
    "get shared": Operation(EXPORT_IDS, _get_shared, "one", narrows=True),
    "get_many": Operation(EXPORT_IDS, _get_many, "one", requests=3, keeps="others"),
    "export_segment": Operation(EXPORT_SEGMENT, _start_segment),
    "export_global_control_group": Operation(EXPORT_GLOBAL_CONTROL_GROUP, _start_group),
    "cancel_segment_export": Operation(CANCEL_SEGMENT_EXPORT, _cancel, "anything"),
    "segments.list": Operation(SEGMENTS_LIST, _list, requests=2, keeps="before"),
    "segments.details": Operation(SEGMENTS_DETAILS, _details, "object"),
    "segments.data_series": Operation(SEGMENTS_DATA_SERIES, _series, requests=2),
    "job.wait": Operation(EXPORT_LINK, _wait, "look"),
    "job.profiles": Operation(EXPORT_LINK, _profiles, "archive", requests=2),
    "job.raw": Operation(EXPORT_LINK, _raw_lines, "archive", requests=2),
    "job.download": Operation(EXPORT_LINK, _download, "bytes", requests=2),
}
