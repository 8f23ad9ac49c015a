"""Who waits for a request, and who is next.

The rule: whoever waits for a single answer comes before bulk work, but while bulk work waits,
every fourth request is its own. Within a lane, first come, first served.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final, Generic, TypeAlias, TypeVar

from attrs import Factory, define

from braze_export.limiting.limits import Lane

T = TypeVar("T")

_IN_A_ROW: Final = 3  # requests that interactive calls may have while bulk work waits

_Queue: TypeAlias = "OrderedDict[asyncio.Future[T], None]"


class _Waiter(asyncio.Future[T]):
    """Leaves its queue the moment it is cancelled, not when whoever waited wakes up."""

    def __init__(self, queue: "_Queue[T]") -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._queue = queue
        queue[self] = None

    def cancel(self, msg: Any | None = None) -> bool:
        self._queue.pop(self, None)
        return super().cancel(msg)


@define
class Lanes(Generic[T]):
    """Two queues of those who wait."""

    _queues: "dict[Lane, _Queue[T]]" = Factory(
        lambda: {"interactive": OrderedDict(), "bulk": OrderedDict()}
    )
    _in_a_row: int = 0

    def join(self, lane: Lane) -> "asyncio.Future[T]":
        """Wait in a lane: the future is done when it is one's turn. To leave, cancel it."""
        return _Waiter(self._queues[lane])

    def waiting(self, lane: Lane) -> int:
        """Return how many wait in a lane."""
        return len(self._queues[lane])

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def next(self, grant: T) -> None:
        """Give the next one its turn. Somebody must be waiting."""
        interactive, bulk = self._queues["interactive"], self._queues["bulk"]
        overtakes = interactive and (self._in_a_row < _IN_A_ROW or not bulk)
        self._in_a_row = self._in_a_row + 1 if overtakes and bulk else 0
        waiter, _ = (interactive if overtakes else bulk).popitem(last=False)
        waiter.set_result(grant)
