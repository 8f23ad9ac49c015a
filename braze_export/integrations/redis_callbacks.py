"""Braze's callbacks by way of Redis: the process that gets one need not be the one that waits.

Needs the extra ``redis``: ``pip install "braze-export[redis]"``. Made for ``ExportCallbacks``
(``braze_export.integrations.fastapi_callbacks``)::

    through = RedisCallbacks("redis://localhost:6379/0", workspace="shop")
    callbacks = ExportCallbacks("https://shop.example.com/braze/callbacks", through=through)

For each callback there is one key, named by a hash of its token. It holds ``?`` until the callback
came, then ``1`` for success or ``0``; it ends with the callback's lifetime. Neither the token nor
the link that Braze posts is ever in Redis. Redis from 5.0 on, Valkey, Redis Cluster. The URL's user
needs ``+get +mget +set +setrange +pexpire +del +eval`` and the keys ``~braze_export:*``.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final
from uuid import uuid4

from attrs import frozen

from braze_export.errors import InputError, TransportError
from braze_export.integrations.redis_link import FAILURES, Client, Link, check_workspace, in_time
from braze_export.tasks import TaskScope

# The first result counts. SETRANGE keeps the key's lifetime, also where SET cannot yet.
_SETTLE: Final = """
local held = redis.call("GET", KEYS[1])
if held == "?" then
  redis.call("SETRANGE", KEYS[1], 0, ARGV[1])
  return ARGV[1]
end
return held
"""
_MEANING: Final = {b"1": True, "1": True, b"0": False, "0": False}  # a client may decode, or not
_AT_ONCE: Final = 20  # commands: a client has only so many connections
_LONGEST_LIFE: Final = 2**53  # milliseconds; beyond its 64 bits Redis refuses


class RedisCallbacks:
    """Tells all processes that name the same workspace of the callbacks that one of them got.

    While somebody waits, one task for each process looks about once a second; nothing else is held
    open. While Redis is gone, waiting goes on.

    Args:
        redis: a URL (``redis://``, ``rediss://``, ``unix://``), or your own client, which stays
            open. Give your own client short timeouts.
        workspace: a name for the Braze workspace, the same in every process; it is part of the
            keys in Redis, so not the API key.
        every: seconds from one look to the next.

    Raises:
        InputError: an argument that cannot be right.
    """

    def __init__(self, redis: str | Client, *, workspace: str, every: float = 1.0) -> None:
        _check(workspace, every)
        self._workspace = workspace
        self._every = every
        self._redis = _Redis(redis)
        self._scope = TaskScope("callbacks in Redis")
        self._watched: set[_Watched] = set()
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Try out all that is needed, so that a wrong address or a missing right is logged now.

        Raises nothing: without callbacks exports are looked for all the same.
        """
        name = uuid4().hex
        with suppress(TransportError):
            await self._put(name, 1.0)
            await self.settle(name, success=True)
            await self._redis.do("PEXPIRE", self._key(name), 1000)
            await self._redis.do("MGET", self._key(name))
            await self._redis.do("DEL", self._key(name))

    def expect(self, name: str, seconds: float) -> None:
        """Have this callback taken by every process, from about now on."""
        self._scope.spawn(self._expect(name, seconds))

    @contextmanager
    def watch(self, name: str, deadline: float, came: Callable[[bool], object]) -> Iterator[None]:
        """Within the block, look whether the callback came to any process, and tell ``came``.

        Args:
            name: of the callback.
            deadline: until when it is expected, by the loop's clock.
            came: is told whether the export succeeded, maybe several times.
        """
        watched = _Watched(name, deadline, came)
        self._watched.add(watched)
        if self._looking is None or self._looking.done():
            self._looking = self._scope.spawn(self._look_on())
        try:
            yield
        finally:
            self._watched.discard(watched)
            if not self._watched:
                self._looking.cancel()
                self._looking = None

    def forget(self, name: str) -> None:
        """Have this callback taken by no process any more."""
        self._scope.spawn(self._forget(name))

    async def knows(self, name: str) -> bool:
        """Whether some process expects this callback, or did within its lifetime.

        Raises:
            TransportError: Redis is gone.
        """
        return await self._redis.do("GET", self._key(name)) is not None

    async def settle(self, name: str, success: bool) -> bool | None:
        """Note what came; return what came first, or ``None`` if it is not expected.

        Raises:
            TransportError: Redis is gone.
        """
        held = await self._redis.do("EVAL", _SETTLE, 1, self._key(name), int(success))
        return _MEANING.get(held)

    async def aclose(self) -> None:
        """Stop looking; a connection made from a URL is closed. What is expected stays in Redis."""
        scope, self._scope = self._scope, TaskScope("callbacks in Redis")
        try:
            await scope.aclose()
        finally:
            await self._redis.aclose()

    def __repr__(self) -> str:
        return f"<RedisCallbacks of {self._workspace!r} at {self._redis.place}>"

    def _key(self, name: str) -> str:
        # A cluster hashes what is in braces: one command can look at all keys of a workspace.
        return f"braze_export:{{{self._workspace}}}:callback:{name}"

    async def _put(self, name: str, seconds: float) -> None:
        milliseconds = int(min(max(1.0, seconds * 1000), _LONGEST_LIFE))
        key = self._key(name)
        if not await self._redis.do("SET", key, "?", "PX", milliseconds, "NX"):
            # It is expected again, by a job that goes on after a restart. It may have come.
            await self._redis.do("PEXPIRE", key, milliseconds)

    async def _expect(self, name: str, seconds: float) -> None:
        with suppress(TransportError):  # whoever waits for it does this anew
            await self._put(name, seconds)

    async def _forget(self, name: str) -> None:
        with suppress(TransportError):  # it ends by itself
            await self._redis.do("DEL", self._key(name))

    async def _look_on(self) -> None:
        while True:
            with suppress(TransportError):
                await self._look()
            await asyncio.sleep(self._every)

    async def _look(self) -> None:
        watched = list(self._watched)
        held = await self._redis.do("MGET", *(self._key(one.name) for one in watched))
        for one, value in zip(watched, held, strict=True):
            if value is None:  # not written yet, or lost by a Redis that keeps nothing on disk
                await self._put(one.name, one.deadline - asyncio.get_running_loop().time())
            elif value in _MEANING:
                one.came(_MEANING[value])


@frozen(eq=False)
class _Watched:
    """A callback that somebody waits for."""

    name: str
    deadline: float
    came: Callable[[bool], object]


class _Redis(Link):
    """The way to Redis for single commands. It is logged when Redis goes, and when it is back."""

    _failed = ""  # the command that failed last

    def __init__(self, redis: str | Client) -> None:
        super().__init__(redis)
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def do(self, *words: str | int) -> Any:
        """Run a command and return what it returns.

        Raises:
            TransportError: Redis is gone, or refuses.
        """
        execute: Callable[..., Any] = self._client.execute_command
        try:
            async with self._at_once, in_time():
                reply = await execute(*words)
        except FAILURES as error:
            self._failed = str(words[0])
            self._lost(error)
            raise TransportError(f"Redis at {self.place} is gone ({self.reason})") from None
        # Where one command is refused and others are not, the log would tell of it for ever.
        if not self.gone or words[0] == self._failed:
            self._found()
        return reply


def _check(workspace: object, every: object) -> None:
    """Do nothing for arguments that can be right.

    Raises:
        InputError: one of them cannot.
    """
    check_workspace(workspace)
    number = isinstance(every, int | float) and not isinstance(every, bool)
    if not (number and 0 < every < float("inf")):  # type: ignore[operator]
        raise InputError(f"every must be a number of seconds above zero, not {every!r}")
