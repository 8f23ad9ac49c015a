"""Objects made by hand, as the reading of an export takes them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager

from attrs import Factory, define

from braze_export.downloads.fetching import Opened, Source
from braze_export.retry import RetryPolicy

#: No second try, or one at once.
ONCE = RetryPolicy(max_attempts=1)
QUICK = RetryPolicy(max_attempts=3, base=0.001)


@define(eq=False)
class Made:
    """An object in memory.

    Attributes:
        fails: raised where all bytes have come, once for each time it is opened.
        never_opens: raised where it is opened.
        waits: before it gives its first byte.
    """

    name: str
    data: bytes
    piece: int = 1000
    fails: list[BaseException] = Factory(list)
    never_opens: BaseException | None = None
    waits: asyncio.Event | None = None
    opened: int = 0
    closed: int = 0
    given: int = 0

    @asynccontextmanager
    async def open(self, start: int, version: str | None) -> AsyncIterator[Opened]:
        self.opened += 1
        try:
            if self.never_opens is not None:
                raise self.never_opens
            yield Opened(start, None, "v1", self._chunks(start))
        finally:
            self.closed += 1

    async def _chunks(self, start: int) -> AsyncGenerator[bytes, None]:
        if self.waits is not None:
            await self.waits.wait()
        for at in range(start, len(self.data), self.piece):
            await asyncio.sleep(0)
            chunk = self.data[at : at + self.piece]
            self.given += len(chunk)
            yield chunk
        if self.fails:
            raise self.fails.pop(0)


@define
class Listing:
    """A generator of objects that tells how it was ended."""

    objects: Iterable[Source]
    error: BaseException | None = None
    ended: list[str] = Factory(list)

    async def __call__(self) -> AsyncGenerator[Source, None]:
        try:
            for one in self.objects:
                await asyncio.sleep(0)
                yield one
            if self.error is not None:
                raise self.error  # noqa: TRY301 - seen by itself
            self.ended.append("done")
        except GeneratorExit:
            self.ended.append("closed")
            raise
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
