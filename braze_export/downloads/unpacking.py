"""Objects, fetched and unpacked side by side, into blocks of lines.

For each object two tasks: one fetches, one unpacks what has come, in threads, for inflating
takes its time. Blocks wait in a queue of a bounded size, so that they come no faster than they
are taken.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Final, Generic, TypeVar

from attrs import frozen

from braze_export.archives.archive import Unpacker
from braze_export.archives.lines import Block
from braze_export.downloads.fetching import Source, fetch
from braze_export.downloads.spool import Spool
from braze_export.errors import ConnectionLostError
from braze_export.models.results import DownloadStats
from braze_export.retry import RetryPolicy
from braze_export.settings import ExportSettings
from braze_export.tasks import TaskScope, cancel

B = TypeVar("B")

_BATCH: Final = 1024 * 1024  # bytes of lines that are handed over at once
_AHEAD: Final = 4 * 1024 * 1024  # bytes of lines that may wait
_LINE: Final = 64  # bytes that a line takes beside its own


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
    *,
    finish: Callable[[Block], B],
) -> AsyncGenerator[list[B] | Broken, None]:
    """Yield the blocks of all objects: those of one in order, those of several as they come.

    Args:
        sources: where the objects are; closed at the end.
        settings: say how many at once, and what is kept of each.
        retry: says how often a lost connection is taken up again.
        stats: is told how far it is.
        scope: runs the tasks.
        finish: makes of each block what is yielded. In a thread.

    Raises:
        BrazeError: whatever ``sources`` raised, once all that came was yielded.
    """
    crew = _Crew(sources, settings, retry, stats, scope, finish=finish)
    try:
        while (item := await crew.next()) is not None:
            yield item
    finally:
        await crew.dismiss()


class _Crew(Generic[B]):
    """The tasks of one reading."""

    def __init__(
        self,
        sources: AsyncGenerator[Source, None],
        settings: ExportSettings,
        retry: RetryPolicy,
        stats: DownloadStats,
        scope: TaskScope,
        *,
        finish: Callable[[Block], B],
    ) -> None:
        self._sources = sources
        self._settings = settings
        self._retry = retry
        self._stats = stats
        self._scope = scope
        self._reading = asyncio.Lock()  # of the next source
        self._finish = finish
        self._out = _Output[B]()
        self._counted: dict[Unpacker, int] = {}  # those at work, and what of theirs was counted
        self._workers = [scope.spawn(self._work()) for _ in range(settings.concurrency)]
        for worker in self._workers:
            worker.add_done_callback(lambda _: self._out.more.set())

    async def next(self) -> list[B] | Broken | None:
        """Return what comes next, ``None`` at the end."""
        while (item := self._out.take()) is None:
            if all(worker.done() for worker in self._workers):
                self._check_ends()
                return None
            self._out.more.clear()
            await self._out.more.wait()
        for unpacker in self._counted:
            self._count(unpacker)
        return item

    def _check_ends(self) -> None:
        for worker in self._workers:
            if worker.cancelled():
                self._scope.check_open()  # closed under our feet
            worker.result()

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
                self._out.add(Broken(source.name, error))
            else:
                self._stats.objects_done += 1

    async def _read(self, source: Source) -> None:
        spool = Spool(self._settings.spool_memory, self._settings.spool_directory)
        fetching = self._scope.spawn(self._fetch(source, spool))
        unpacker = Unpacker(source.name, self._settings.archive_limits)
        self._counted[unpacker] = 0
        work = _Work(spool, unpacker, self._finish, self._out)
        try:
            while not work.done:
                await spool.wait()
                await self._out.room()
                await asyncio.to_thread(work.run)
        finally:
            work.stop()
            self._count(unpacker)
            del self._counted[unpacker]
            try:
                await cancel(fetching)
            finally:
                await spool.aclose()

    def _count(self, unpacker: Unpacker) -> None:
        unpacked = unpacker.unpacked
        self._stats.bytes_unpacked += unpacked - self._counted[unpacker]
        self._counted[unpacker] = unpacked

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


class _Output(Generic[B]):
    """What was unpacked and not yet taken: threads add, the loop takes.

    Attributes:
        more: is set when there is more.
    """

    def __init__(self) -> None:
        self.more = asyncio.Event()
        self._items: deque[tuple[list[B] | Broken, int]] = deque()
        self._size = 0
        self._turn = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._emptied = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether enough waits to be taken."""
        return self._size >= _AHEAD

    def add(self, item: list[B] | Broken, size: int = 0) -> None:
        """Add an item. From any thread."""
        with self._turn:
            self._items.append((item, size))
            self._size += size
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            self._loop.call_soon_threadsafe(self.more.set)

    def take(self) -> list[B] | Broken | None:
        """Return the oldest item, if any."""
        with self._turn:
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._size -= size
        self._emptied.set()
        return item

    async def room(self) -> None:
        """Return when there is room for more."""
        while self.full:
            self._emptied.clear()
            await self._emptied.wait()


class _Work(Generic[B]):
    """The unpacking of one object, in a thread.

    It goes on as long as bytes are there and lines are taken, without asking the loop: that may
    be busy with lines that came before, and much would be waited for.

    Attributes:
        done: whether the object has come to its end.
    """

    def __init__(
        self, spool: Spool, unpacker: Unpacker, finish: Callable[[Block], B], out: _Output[B]
    ) -> None:
        self.done = False
        self._spool = spool
        self._unpacker = unpacker
        self._finish = finish
        self._out = out
        self._blocks: Iterator[Block] | None = None
        self._closing = False
        self._stopped = False

    def stop(self) -> None:
        """Have a thread that is at it come to its end soon."""
        self._stopped = True

    def run(self) -> None:
        """Unpack until there are no bytes, or no room for lines. Blocks: for a thread.

        Raises:
            ArchiveError: this is no archive, or a damaged one; what came before was added.
            Exception: the error that ended the download.
        """
        while not (self._stopped or self.done or self._out.full):
            if self._blocks is None:
                self._blocks = self._next_blocks()
            if self._blocks is None:
                return
            if self._add_some(self._blocks):
                self._blocks, self.done = None, self._closing

    def _next_blocks(self) -> Iterator[Block] | None:
        ended = self._spool.ended
        data = self._spool.take()
        if data:
            return self._unpacker.feed(data)
        if not ended:
            return None
        self._closing = True
        return self._unpacker.close()

    def _add_some(self, blocks: Iterator[Block]) -> bool:
        """Add a handful of blocks; say whether these were the last."""
        taken: list[B] = []
        size = 0
        try:
            for block in blocks:
                taken.append(self._finish(block))
                size += sum(map(len, block.lines)) + _LINE * len(block.lines)
                if size >= _BATCH:
                    return False
        finally:
            if taken:
                self._out.add(taken, size)
        return True
