"""A sandbox in a thread of its own, for tests of every kind, and what its marker may say.

A test blocks as it likes (``TestClient``, ``requests``), or runs on a loop that nobody knows
beforehand: a sandbox on that loop would stand still with it, or end with it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Self, TypeVar

import attrs

from braze_export.errors import InputError
from braze_export.sandbox import Counters, Fault, RequestRecord, Sandbox, Window
from braze_export.sandbox.settings import FaultSource, Settings
from braze_export.sandbox.windows import PoolName

_T = TypeVar("_T")
_NONE: Final = type(None)
# What is looked at before the sandbox does, which takes it that types are right. Of the options
# that are not here it says itself what is allowed.
_KINDS: Final[Mapping[Any, tuple[Any, ...]]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    frozenset[int]: (Iterable,),
    frozenset[str]: (Iterable,),
    Collection[str] | None: (Collection, _NONE),
    Window: (Window,),
    Window | None: (Window, _NONE),
    Callable[[], float]: (Callable,),
    FaultSource | None: (Callable, _NONE),
}


@attrs.define(eq=False)
class LoopThread:
    """An event loop in a thread of its own, from ``with`` to its end."""

    _loop: asyncio.AbstractEventLoop = attrs.field(init=False)
    _thread: threading.Thread = attrs.field(init=False)

    def __enter__(self) -> Self:
        begun: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()
        name = "braze_sandbox"
        # A daemon: whatever becomes of the tests, it does not keep the process alive.
        self._thread = threading.Thread(target=_serve, args=(begun,), name=name, daemon=True)
        self._thread.start()
        self._loop = begun.get()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Have ``work`` done in the loop, and wait for it.

        The caller may be a test in a loop of its own, which stands still meanwhile: for a fraction
        of a millisecond mostly, as nothing here waits for what a test would have to do.
        """
        # A queue, and not the future's own waiting, which tools that look for blocking calls in
        # event loops take for one of the test.
        done: SimpleQueue[Future[_T]] = SimpleQueue()
        asyncio.run_coroutine_threadsafe(work, self._loop).add_done_callback(done.put)
        return done.get().result()

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the loop, where nothing else happens meanwhile."""
        if threading.current_thread() is self._thread:  # one's own ``faults`` or ``clock``
            return function()

        async def calling() -> _T:
            return function()

        return self.run(calling())


def _serve(begun: SimpleQueue[asyncio.AbstractEventLoop]) -> None:
    # This kind of loop, whatever the tests set: it is the same on every system. Leaving the
    # runner ends what is left in the loop, its worker threads included.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        loop = runner.get_loop()
        loop.call_soon(begun.put, loop)
        loop.run_forever()


class _Log(deque[RequestRecord]):
    """A log that is read while it is written: iterating shows it as it was at the start."""

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(tuple(super().__iter__()))


@attrs.define(kw_only=True, eq=False)
class ThreadedSandbox(Sandbox):
    """A sandbox that serves in a thread, and that tests may use from theirs.

    What is not here is safe as it stands: it reads what is set once, or what was computed.
    ``clock``, ``faults`` and ``storage`` are called in the sandbox's thread.
    """

    _home: LoopThread = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        """Check the options and set up the workspace."""
        super().__attrs_post_init__()
        self.log = _Log(maxlen=self.log_size)

    @property
    def counters(self) -> Counters:
        """What was served so far: a snapshot."""
        return self._home.call(self._tally.counters)

    def use_up(self, requests: int, pool: PoolName = "ids") -> int:
        """Count requests of another user of the workspace; return how many the limit allowed."""
        return self._home.call(partial(super().use_up, requests, pool))

    def change_limit(self, window: Window, pool: PoolName = "ids") -> None:
        """Set another limit, as Braze may at any time."""
        self._home.call(partial(super().change_limit, window, pool))

    def rewrite_exports(self) -> None:
        """Have the archives of all exports made anew."""
        self._home.call(super().rewrite_exports)

    def inject(
        self, fault: Fault, *, times: int = 1, path: str | None = None, after: int = 0
    ) -> None:
        """Spoil the next ``times`` requests (to ``path``) after letting ``after`` of them pass."""
        self._home.call(partial(super().inject, fault, times=times, path=path, after=after))

    def open(self) -> None:
        """Listen, again after ``close()``: then on another port, unless one was set."""
        self._home.run(super().start())

    def close(self) -> None:
        """Stop listening, close all connections, remove all files: Braze is gone."""
        self._home.run(super().aclose())

    async def start(self) -> None:
        """Do what ``open()`` does, for any async library."""
        self.open()

    async def aclose(self) -> None:
        """Do what ``close()`` does, for any async library."""
        self.close()


@contextmanager
def running(options: Mapping[str, Any]) -> Iterator[Sandbox]:
    """Run a sandbox with these options; nothing of it is left at the end.

    Raises:
        InputError: an option that there is not, or a value that it cannot have.
    """
    _check(options)
    with LoopThread() as home:
        sandbox = _made(options, home)
        try:
            sandbox.open()
        except (OSError, OverflowError) as error:
            raise InputError(
                f"the sandbox cannot listen on {sandbox.host}:{sandbox.port} ({error}): leave out "
                "host and port for any free port of this machine"
            ) from error
        try:
            yield sandbox
        finally:
            sandbox.close()


def merged(markers: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> dict[str, Any]:
    """Make one set of options of the arguments of several markers, the closest one first.

    Raises:
        InputError: one of them has arguments without a name.
    """
    options: dict[str, Any] = {}
    for unnamed, named in markers:
        if unnamed:
            raise InputError("options have names, as in braze_sandbox(users=500)")
        options = {**named, **options}
    return options


def _made(options: Mapping[str, Any], home: LoopThread) -> ThreadedSandbox:
    try:
        return ThreadedSandbox(home=home, **options)
    except (TypeError, ValueError) as error:
        raise InputError(str(error.args[0])) from None


def _check(options: Mapping[str, Any]) -> None:
    allowed = attrs.fields_dict(Settings)
    for name, value in options.items():
        if name not in allowed:
            raise InputError(f"there is no option {name!r}: there are {', '.join(allowed)}")
        kinds = _KINDS.get(allowed[name].type)
        if kinds is not None and not isinstance(value, kinds):
            names = " or ".join("None" if k is _NONE else k.__name__ for k in kinds)
            raise InputError(f"{name} must be {names}, not {type(value).__name__}")
