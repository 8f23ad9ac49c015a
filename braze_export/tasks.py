"""The tasks that a client has under way, so that closing it leaves none behind."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from braze_export.errors import ClientClosedError, InputError

T = TypeVar("T")

ONE_LOOP: Final = "a client is for one event loop: make another client for this one"


class TaskScope:
    """Starts tasks and, when closed, cancels those that still run and waits for their end.

    Args:
        what: is closed with it, for the message of the error.
        parent: the scope within which this one lies, and with which it is closed.
    """

    def __init__(self, what: str = "client", parent: "TaskScope | None" = None) -> None:
        self._what = what
        self._parent = parent
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def closed(self) -> bool:
        """Whether the scope, or one around it, has been closed: no more tasks are taken."""
        return self._closed or (self._parent is not None and self._parent.closed)

    def check_open(self) -> None:
        """Do nothing while open.

        Raises:
            ClientClosedError: the scope has been closed.
        """
        if self._parent is not None:
            self._parent.check_open()
        if self._closed:
            raise ClientClosedError(f"the {self._what} is closed: make a new one")

    def spawn(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as a task of this scope.

        Raises:
            ClientClosedError: the scope has been closed.
            InputError: it has tasks in another event loop, which runs beside this one.
        """
        try:
            self.check_open()
            self.check_loop()
        except BaseException:
            coro.close()
            raise
        create = asyncio.create_task if self._parent is None else self._parent.spawn
        task = create(coro)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine as a task of this scope, and wait for its result.

        Raises:
            ClientClosedError: the scope has been closed, or was closed meanwhile.
        """
        task = self.spawn(coro)
        try:
            return await task
        except asyncio.CancelledError:
            ours = asyncio.current_task()
            if ours is None or not ours.cancelling():
                self.check_open()  # not we were cancelled, but the scope was closed
            raise

    async def aclose(self) -> None:
        """Cancel what still runs, and wait until it has ended."""
        self._closed = True
        ours = asyncio.current_task()  # may be one of them: a source that closes its client
        await cancel(*(task for task in self._tasks if task is not ours))

    def check_loop(self) -> None:
        """Do nothing in the event loop that the tasks run in, or after it.

        Raises:
            InputError: it runs beside this one.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop and not self._loop.is_closed():
            raise InputError(ONE_LOOP)
        self._loop = loop


async def tell(hook: Callable[[T], object] | None, news: T) -> None:
    """Call a hook, if there is one; where it is an async function, wait for its end."""
    if hook is not None:
        result = hook(news)
        if inspect.isawaitable(result):
            await result


async def surely(work: Callable[[], object]) -> None:
    """Run in a thread what must be done, such as closing a file: also where we are cancelled.

    It is done by then, unless we are cancelled twice. ``asyncio.to_thread`` forgets work whose
    thread has not begun when we are cancelled.
    """
    working = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


async def detached(work: Callable[[], T]) -> T:
    """Run in a thread that may outlive us: a read of a silent pipe cannot be ended.

    Whatever it raises is raised here, unless we were cancelled meanwhile.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(settle_it: Callable[[], None]) -> None:
        if not done.done():  # else cancelled
            settle_it()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            outcome = partial(done.set_exception, error)
        else:
            outcome = partial(done.set_result, result)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, daemon=True).start()
    return await done


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end; whatever they raise is dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def stop_listening(listener: asyncio.Server) -> None:
    """Close a listener, after what it is accepting: nobody would close that later."""
    loop = asyncio.get_running_loop()
    try:
        with suppress(RuntimeError, NotImplementedError):  # loops that see to it themselves
            for listening in listener.sockets:
                loop.remove_reader(listening.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
    finally:
        listener.close()
