"""How long the event loop is held: a callback marks every turn of it."""

import asyncio
from collections.abc import Callable


class Watch:
    """Marks the beginning of every turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._next: asyncio.Handle | None = None
        self._clock: Callable[[], float] = loop.time
        self.longest = 0.0

    def start(self) -> None:
        self._since = self._clock()
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        assert self._next is not None
        self._next.cancel()

    def _turn(self) -> None:
        now = self._clock()
        self.longest = max(self.longest, now - self._since)
        self._since = now
        self._next = self._loop.call_soon(self._turn)
