"""Who waits for a request, and who is next.

The rule: whoever waits for a single answer comes before bulk work, but while bulk work waits,
every fourth request is its own. Within a lane, first come, first served.
"""

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from attrs import Factory, define

from braze_export.limits import Lane

T = TypeVar("T")

_IN_A_ROW: Final = 3  # requests that interactive calls may have while bulk work waits


@define
class _Queue(Generic[T]):
    waiters: deque["asyncio.Future[T]"] = Factory(deque)
    length: int = 0  # without those who left; they stay among the waiters until their turn


@define
class Lanes(Generic[T]):
    """Two queues of those who wait."""

    _queues: dict[Lane, _Queue[T]] = Factory(lambda: {"interactive": _Queue(), "bulk": _Queue()})
    _in_a_row: int = 0

    def join(self, lane: Lane) -> "asyncio.Future[T]":
        """Wait in a lane: the future is done when it is one's turn."""
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        queue = self._queues[lane]
        queue.waiters.append(waiter)
        queue.length += 1
        return waiter

    def leave(self, lane: Lane) -> None:
        """Note that somebody of this lane waits no longer: the future was cancelled."""
        self._queues[lane].length -= 1

    def waiting(self, lane: Lane) -> int:
        """Return how many wait in a lane."""
        return self._queues[lane].length

    def __len__(self) -> int:
        return sum(queue.length for queue in self._queues.values())

    def next(self, grant: T) -> None:
        """Give the next one its turn. Somebody must be waiting."""
        bulk = self.waiting("bulk")
        overtakes = self.waiting("interactive") and (self._in_a_row < _IN_A_ROW or not bulk)
        self._in_a_row = self._in_a_row + 1 if overtakes and bulk else 0
        queue = self._queues["interactive" if overtakes else "bulk"]
        waiter = queue.waiters.popleft()
        while waiter.done():
            waiter = queue.waiters.popleft()
        queue.length -= 1
        waiter.set_result(grant)
