"""The tasks that a client has under way, so that closing it leaves none behind."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from braze_export.errors import ClientClosedError

T = TypeVar("T")


class TaskScope:
    """Starts tasks and, when closed, cancels those that still run and waits for their end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the scope has been closed: no more tasks are taken."""
        return self._closed

    def check_open(self) -> None:
        """Do nothing while open.

        Raises:
            ClientClosedError: the scope has been closed.
        """
        if self._closed:
            raise ClientClosedError("the client is closed: make a new one")

    def spawn(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a task of this scope.

        Raises:
            ClientClosedError: the scope has been closed.
        """
        if self._closed:
            coro.close()
            self.check_open()
        task = asyncio.create_task(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """Cancel what still runs, and wait until it has ended."""
        self._closed = True
        await cancel(*self._tasks)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end; whatever they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
