"""Several objects at once: order, bounds, errors, and what is left behind."""

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from braze_export.archives.archive import ArchiveLimits
from braze_export.archives.lines import Block
from braze_export.downloads import unpacking
from braze_export.downloads.fetching import Source
from braze_export.downloads.unpacking import Broken, unpack_all
from braze_export.errors import (
    ArchiveError,
    ClientClosedError,
    ConnectionLostError,
    NotFoundError,
    PermissionDeniedError,
)
from braze_export.models.results import DownloadStats
from braze_export.settings import ExportSettings
from braze_export.tasks import TaskScope
from tests.archives.making import Member, endless_gzip, zip_of, zipped
from tests.downloads.test_spool import open_files
from tests.sources import ONCE, QUICK, Listing, Made

MB = 1024 * 1024
PACKERS = [gzip.compress, lambda data: zipped({"a.json": data}), bytes]


@pytest.fixture(autouse=True)
async def clean(nothing_left: None) -> AsyncIterator[None]:
    before = await asyncio.to_thread(open_files)
    yield
    assert await asyncio.to_thread(open_files) <= before


@pytest.fixture
async def scope() -> AsyncIterator[TaskScope]:
    scope = TaskScope()
    yield scope
    await scope.aclose()


def lines(name: str, count: int, size: int = 10) -> bytes:
    return b"".join(b'{"%s": %*d}\n' % (name.encode(), size, n) for n in range(count))


def unpacking_of(
    listing: Any, scope: TaskScope, stats: DownloadStats | None = None, **options: Any
) -> AsyncGenerator[list[Block] | Broken, None]:
    retry = options.pop("retry", ONCE)
    settings = ExportSettings(**options)
    stats = stats or DownloadStats()
    return unpack_all(listing(), settings, retry, stats, scope, finish=lambda block: block)


async def collected(
    batches: AsyncGenerator[list[Block] | Broken, None],
) -> tuple[dict[str, list[bytes]], list[Broken]]:
    """Return the lines of each object, and the broken ones."""
    found: dict[str, list[bytes]] = {}
    broken = []
    async with asyncio.timeout(10), aclosing(batches):
        async for batch in batches:
            if isinstance(batch, Broken):
                broken.append(batch)
                continue
            for block in batch:
                assert block.start.line == len(found.get(block.start.file, ())) + 1
                found.setdefault(block.start.file, []).extend(block.lines)
    return found, broken


# --- what goes well


@pytest.mark.parametrize("concurrency", [1, 3, 40])
@pytest.mark.parametrize("pack", PACKERS, ids=["gzip", "zip", "plain"])
async def test_the_lines_of_each_object_in_order(
    pack: Any, concurrency: int, scope: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_BATCH", 5_000)
    plain = {f"o{n}": lines(f"o{n}", 50 * n) for n in range(12)}
    sources = [Made(name, pack(data)) for name, data in plain.items()]
    stats, listing = DownloadStats(), Listing(sources)
    options: dict[str, Any] = {"concurrency": concurrency, "spool_memory": 500}
    found, broken = await collected(unpacking_of(listing, scope, stats, **options))
    by_object = {file.partition(":")[0]: found[file] for file in found}
    assert broken == []
    assert by_object == {name: data.splitlines() for name, data in plain.items() if data}
    assert (stats.objects, stats.objects_done) == (12, 12)
    if pack is not bytes:
        assert stats.bytes_unpacked == sum(map(len, plain.values()))
    assert stats.bytes_received == sum(len(source.data) for source in sources)
    assert listing.ended == ["done"]
    assert [source.closed for source in sources] == [1] * 12


async def test_nothing_to_read(scope: TaskScope) -> None:
    assert await collected(unpacking_of(Listing([]), scope)) == ({}, [])
    assert await collected(unpacking_of(Listing([Made("empty", b"")]), scope)) == ({}, [])


async def test_so_many_at_once_and_no_more(scope: TaskScope) -> None:
    go_on = asyncio.Event()
    sources = [Made(f"o{n}", lines("x", 5), waits=go_on) for n in range(10)]
    listing = Listing(sources)
    reading = asyncio.create_task(collected(unpacking_of(listing, scope, concurrency=4)))
    await asyncio.sleep(0.05)
    assert sum(source.opened for source in sources) == 4
    go_on.set()
    found, _ = await reading
    assert len(found) == 10


async def test_a_slow_object_does_not_hold_back_others(scope: TaskScope) -> None:
    go_on = asyncio.Event()
    slow = Made("slow", lines("x", 5), waits=go_on)
    sources = [slow, *(Made(f"o{n}", lines("x", 5)) for n in range(5))]
    order = []
    async with aclosing(unpacking_of(Listing(sources), scope, concurrency=2)) as batches:
        async for batch in batches:
            assert isinstance(batch, list)
            order.append(batch[0].start.file)
            if len(order) == 5:
                go_on.set()
    assert order[-1] == "slow"


# --- back-pressure


async def test_a_slow_reader_stops_the_unpacking_but_not_the_fetching(
    scope: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_BATCH", 10_000)
    monkeypatch.setattr(unpacking, "_AHEAD", 100_000)
    plain = os.urandom(32).hex().encode()
    data = (b'{"a": "%s"}\n' % plain) * 40_000
    sources = [Made(f"o{n}", data, piece=100_000) for n in range(3)]
    stats = DownloadStats()
    batches = unpacking_of(Listing(sources), scope, stats, concurrency=2, spool_memory=200_000)
    async with aclosing(batches):
        async for _ in batches:
            break
        async with asyncio.timeout(5):
            while min(source.given for source in sources[:2]) < len(data):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        # Ahead: what may wait, and what each worker adds at once, as much as one piece gives.
        assert stats.bytes_unpacked <= 2 * 2 * MB
        assert sources[2].opened == 0


async def test_handfuls_are_small_whatever_an_archive_holds(scope: TaskScope) -> None:
    """A megabyte of short lines packs to a kilobyte: each must count for more than its bytes."""
    packed = gzip.compress(b"x\n" * 4 * MB, 9)
    listing = Listing([Made("bomb", packed, piece=MB)])
    batches = unpacking_of(listing, scope, concurrency=1)
    most = total = 0
    async with aclosing(batches):
        async for batch in batches:
            assert isinstance(batch, list)
            count = sum(len(block.lines) for block in batch)
            most, total = max(most, count), total + count
    assert total == 4 * MB
    assert most <= 2 * MB


async def test_a_bomb_of_one_line_is_stopped(scope: TaskScope) -> None:
    packed = b"".join(islice(endless_gzip(4), 2))
    limits = ArchiveLimits(max_bytes=2 * MB)
    listing = Listing([Made("bomb", packed, piece=MB)])
    stats = DownloadStats()
    found, [broken] = await collected(unpacking_of(listing, scope, stats, archive_limits=limits))
    assert found == {}
    assert isinstance(broken.error, ArchiveError)
    assert stats.objects_done == 0
    assert stats.bytes_unpacked > MB  # also what is no line counts


async def test_the_loop_is_free_while_archives_are_unpacked(scope: TaskScope) -> None:
    packed = gzip.compress(os.urandom(1000).hex().encode() * 10_000 + b"\n")
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    await collected(unpacking_of(Listing([Made("o", packed, piece=MB)]), scope))
    turning.cancel()
    with suppress(asyncio.CancelledError):
        await turning
    assert turns > 20


# --- errors


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_broken_archive_comes_after_its_lines(scope: TaskScope, concurrency: int) -> None:
    data = lines("o", 20_000)
    packed = gzip.compress(data)
    sources = [Made("cut", packed[:-20]), Made("whole", packed), Made("none", b"<html>")]
    stats = DownloadStats()
    order: list[str] = []
    counts = {"cut": 0, "whole": 0}
    batches = unpacking_of(Listing(sources), scope, stats, concurrency=concurrency)
    async with aclosing(batches):
        async for batch in batches:
            if isinstance(batch, Broken):
                assert isinstance(batch.error, ArchiveError)
                order.append(batch.name)
                continue
            for block in batch:
                assert block.start.file not in order
                counts[block.start.file] += len(block.lines)
    assert sorted(order) == ["cut", "none"]
    assert counts["whole"] == 20_000
    assert counts["cut"] > 19_000
    assert (stats.objects, stats.objects_done) == (3, 1)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLostError("gone"),
        NotFoundError("not there", status=404),
        PermissionDeniedError("no", status=403),
        ZeroDivisionError("a bug"),
    ],
)
async def test_one_that_cannot_be_fetched(error: Exception, scope: TaskScope) -> None:
    sources = [Made(f"o{n}", lines("x", 5)) for n in range(5)]
    sources[2].fails = [error]
    sources[4].never_opens = error
    found, broken = await collected(unpacking_of(Listing(sources), scope))
    assert len(found) == 4
    assert found["o2"] == lines("x", 5).splitlines()  # what came of it
    assert {one.name: one.error for one in broken} == {"o2": error, "o4": error}


async def test_a_bug_is_told_at_once(scope: TaskScope) -> None:
    sources = [Made("bug", b"", never_opens=ZeroDivisionError())]
    sources += [Made(f"o{n}", lines("x", 5)) for n in range(50)]
    async with aclosing(unpacking_of(Listing(sources), scope, concurrency=1)) as batches:
        first = await anext(batches)
    assert isinstance(first, Broken)
    assert isinstance(first.error, ZeroDivisionError)
    assert sum(source.opened for source in sources) <= 3


@pytest.mark.parametrize("batch", [1, 1000, MB])
async def test_damage_in_the_middle_of_a_piece(
    batch: int, scope: TaskScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_BATCH", batch)
    members = [Member(name=f"{n}.json", data=lines("x", 100)) for n in range(5)]
    members[3] = Member(name="3.json", data=lines("x", 100), crc=zlib.crc32(b"another"))
    source = Made("o", zip_of(*members), piece=MB)
    found, [broken] = await collected(unpacking_of(Listing([source]), scope))
    assert isinstance(broken.error, ArchiveError)
    assert [len(some) for some in found.values()] == [100] * 4
    assert list(found) == [f"o: {n}.json" for n in range(4)]


async def test_a_lost_connection_is_taken_up_again(scope: TaskScope) -> None:
    data = lines("x", 500)
    source = Made("o", data, fails=[ConnectionLostError("gone"), ConnectionLostError("gone")])
    source.data, rest = data[:3000], data[3000:]
    stats = DownloadStats()

    async def more() -> None:
        while source.opened < 2:
            await asyncio.sleep(0)
        source.data += rest

    growing = asyncio.create_task(more())
    found, broken = await collected(unpacking_of(Listing([source]), scope, stats, retry=QUICK))
    await growing
    assert broken == []
    assert found["o"] == data.splitlines()
    assert stats.resumed == 2


async def test_a_fetch_that_is_cancelled_by_itself_hangs_nothing(scope: TaskScope) -> None:
    source = Made("o", lines("x", 5), fails=[asyncio.CancelledError()])
    found, [broken] = await collected(unpacking_of(Listing([source]), scope))
    assert len(found["o"]) == 5
    assert isinstance(broken.error, ConnectionLostError)


@pytest.mark.parametrize("error", [NotFoundError("no", status=404), ZeroDivisionError()])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_error_of_the_listing_comes_last(
    error: Exception, concurrency: int, scope: TaskScope
) -> None:
    listing = Listing([Made(f"o{n}", lines("x", 2000)) for n in range(5)], error)
    seen = set()
    with pytest.raises(type(error)) as caught:
        async for batch in unpacking_of(listing, scope, concurrency=concurrency):
            assert isinstance(batch, list)
            seen |= {block.start.file for block in batch}
    assert caught.value is error
    assert len(seen) == 5


async def test_a_disk_that_fails(scope: TaskScope, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("braze_export.downloads.spool._Overflow.read", fails)
    source = Made("o", lines("x", 5000))
    batches = unpacking_of(Listing([source]), scope, spool_memory=1)
    async with aclosing(batches):
        last: Any = None
        async for batch in batches:
            last = batch
    assert isinstance(last, Broken)
    assert isinstance(last.error, OSError)


# --- ends


async def test_leaving_early_ends_all(scope: TaskScope, tmp_path: Path) -> None:
    sources = [Made(f"o{n}", lines("x", 20_000), piece=5_000) for n in range(10)]
    listing = Listing(sources)
    options: dict[str, Any] = {"spool_memory": 100, "spool_directory": tmp_path}
    async with aclosing(unpacking_of(listing, scope, **options)) as batches:
        async for _ in batches:
            break
    assert listing.ended in (["closed"], ["CancelledError"])  # the latter while it was asked
    assert all(source.opened == source.closed for source in sources)
    assert not scope._tasks


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_being_cancelled_at_any_moment_ends_all(steps: int, scope: TaskScope) -> None:
    sources = [Made(f"o{n}", lines("x", 500)) for n in range(10)]
    listing = Listing(sources)
    reading = asyncio.create_task(collected(unpacking_of(listing, scope, spool_memory=100)))
    for _ in range(steps):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert not scope._tasks
    assert all(source.opened == source.closed for source in sources)
    assert listing.ended != ["done"]


async def test_being_cancelled_twice_leaves_no_file(scope: TaskScope) -> None:
    sources = [Made(f"o{n}", lines("x", 20_000)) for n in range(3)]
    batches = unpacking_of(Listing(sources), scope, spool_memory=100)
    await anext(batches)
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(batches.aclose())
    await asyncio.sleep(0)
    await scope.aclose()  # cancels everything once more
    await closing


async def test_closing_the_scope_ends_the_reading(scope: TaskScope) -> None:
    sources = [Made(f"o{n}", lines("x", 5), waits=asyncio.Event()) for n in range(10)]
    listing = Listing(sources)
    reading = asyncio.create_task(collected(unpacking_of(listing, scope)))
    await asyncio.sleep(0.01)
    await scope.aclose()
    with pytest.raises(ClientClosedError):
        await reading
    assert listing.ended in (["closed"], ["CancelledError"])  # the latter while it was asked


async def test_nothing_begins_in_a_closed_scope(scope: TaskScope) -> None:
    await scope.aclose()
    listing = Listing([Made("o", b"")])
    with pytest.raises(ClientClosedError):
        await anext(unpacking_of(listing, scope))
    assert listing.ended == []


async def test_workers_cancelled_from_outside(scope: TaskScope) -> None:
    async def listing() -> AsyncGenerator[Source, None]:
        yield Made("o", lines("x", 5))
        await asyncio.Event().wait()

    batches = unpacking_of(listing, scope, concurrency=1)
    await anext(batches)
    reading = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0.01)
    for task in list(scope._tasks):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
