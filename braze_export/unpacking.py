"""Objects, fetched and unpacked side by side, into blocks of lines.

For each object two tasks: one fetches, one unpacks what has come, in threads, for inflating
takes its time. Blocks wait in a queue of a bounded length, so that they come no faster
than they are taken.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from attrs import frozen

from braze_export.archive import Unpacker
from braze_export.errors import ArchiveError, ConnectionLostError
from braze_export.fetching import Source, fetch
from braze_export.lines import Block
from braze_export.models.results import DownloadStats
from braze_export.retry import RetryPolicy
from braze_export.settings import ExportSettings
from braze_export.spool import Spool
from braze_export.tasks import TaskScope, cancel

_BATCH: Final = 1024 * 1024  # bytes of lines that are handed over at once


@frozen
class Broken:
    """An object that could not be read to its end."""

    name: str
    error: Exception


async def unpack_all(
    sources: AsyncGenerator[Source, None],
    settings: ExportSettings,
    retry: RetryPolicy,
    stats: DownloadStats,
    scope: TaskScope,
) -> AsyncGenerator[list[Block] | Broken, None]:
    """Yield the blocks of all objects: those of one in order, those of several as they come.

    Args:
        sources: where the objects are; closed at the end.
        settings: say how many at once, and what is kept of each.
        retry: says how often a lost connection is taken up again.
        stats: is told how far it is.
        scope: runs the tasks.

    Raises:
        BrazeError: whatever ``sources`` raised, once all that came was yielded.
    """
    crew = _Crew(sources, settings, retry, stats, scope)
    try:
        while (item := await crew.next()) is not None:
            yield item
    finally:
        await crew.dismiss()


class _Crew:
    """The tasks of one reading."""

    def __init__(
        self,
        sources: AsyncGenerator[Source, None],
        settings: ExportSettings,
        retry: RetryPolicy,
        stats: DownloadStats,
        scope: TaskScope,
    ) -> None:
        self._sources = sources
        self._settings = settings
        self._retry = retry
        self._stats = stats
        self._scope = scope
        self._reading = asyncio.Lock()  # of the next source
        self._items: deque[list[Block] | Broken] = deque()
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._workers = [scope.spawn(self._work()) for _ in range(settings.concurrency)]
        for worker in self._workers:
            worker.add_done_callback(lambda _: self._more.set())

    async def next(self) -> list[Block] | Broken | None:
        """Return what comes next, ``None`` at the end."""
        while not self._items:
            if all(worker.done() for worker in self._workers):
                self._check_ends()
                return None
            self._more.clear()
            await self._more.wait()
        self._room.set()
        return self._items.popleft()

    def _check_ends(self) -> None:
        for worker in self._workers:
            if worker.cancelled():
                self._scope.check_open()  # closed under our feet
            worker.result()

    async def _put(self, item: list[Block] | Broken) -> None:
        while self._items:
            self._room.clear()
            await self._room.wait()
        self._items.append(item)
        self._more.set()

    async def dismiss(self) -> None:
        """End every task, and close the sources."""
        await cancel(*self._workers)
        await self._sources.aclose()

    async def _work(self) -> None:
        while True:
            async with self._reading:
                source = await anext(self._sources, None)
            if source is None:
                return
            self._stats.objects += 1
            try:
                await self._read(source)
            except Exception as error:  # noqa: BLE001 - raised again by whoever takes it
                await self._put(Broken(source.name, error))
            else:
                self._stats.objects_done += 1

    async def _read(self, source: Source) -> None:
        spool = Spool(self._settings.spool_memory, self._settings.spool_directory)
        fetching = self._scope.spawn(self._fetch(source, spool))
        unpacker = Unpacker(source.name, self._settings.archive_limits)
        try:
            while data := await spool.get():
                await self._unpack(unpacker, _Steps(unpacker.feed(data)))
            await self._unpack(unpacker, _Steps(unpacker.close()))
        finally:
            try:
                await cancel(fetching)
            finally:
                await spool.aclose()

    async def _unpack(self, unpacker: Unpacker, steps: "_Steps") -> None:
        blocks: list[Block] | None = None
        while blocks is None or blocks:
            counted = unpacker.unpacked
            try:
                blocks = await asyncio.to_thread(steps.next)
            finally:
                self._stats.bytes_unpacked += unpacker.unpacked - counted
            if blocks:
                await self._put(blocks)

    async def _fetch(self, source: Source, spool: Spool) -> None:
        error: Exception | None = ConnectionLostError("the download was broken off")
        try:
            async with aclosing(fetch(source, self._retry, self._stats)) as chunks:
                async for chunk in chunks:
                    await spool.put(chunk)
            error = None
        except Exception as caught:  # noqa: BLE001 - raised again where the bytes are taken
            error = caught
        finally:
            spool.end(error)


class _Steps:
    """Takes blocks in handfuls; an error waits until what came before it was handed over."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._error: ArchiveError | None = None

    def next(self) -> list[Block]:
        if self._error is not None:
            raise self._error
        taken: list[Block] = []
        size = 0
        try:
            for block in self._blocks:
                taken.append(block)
                size += sum(map(len, block.lines)) + len(block.lines)  # lines may be empty
                if size >= _BATCH:
                    return taken
        except ArchiveError as error:
            self._error = error
            if not taken:
                raise
        return taken
