"""The way to Redis: runs the script, and knows whether Redis is gone."""

import asyncio
import hashlib
import logging
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from importlib.util import find_spec
from typing import Any, Final, TypeAlias

from braze_export.errors import InputError, LimiterError

try:
    from redis import asyncio as redis
    from redis import exceptions
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
except ImportError as missing:
    raise ImportError(
        'braze_export.integrations.redis needs: pip install "braze-export[redis]"'
    ) from missing

_FOLDER: Final = files("braze_export.integrations")
_SCRIPT: Final = "".join(
    _FOLDER.joinpath(f"redis_{part}.lua").read_text("utf-8") for part in ("window", "lease")
)
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_SOCKET_TIMEOUT: Final = 2.0  # seconds, of connections that are made from a URL
_LONGEST_NAME: Final = 200  # characters
TOO_LONG: Final = 3.0  # seconds that a call may take, tries of the client's own included
_SOONEST, _LATEST = 0.5, 2.0  # seconds until Redis is tried again; they double in between
_NEEDED: Final = "+evalsha +eval +time +hgetall +hset +hdel +expire"
FAILURES: Final = (
    exceptions.RedisError,
    exceptions.RedisClusterException,
    OSError,
    TimeoutError,
)
_LOGIN: Final = (exceptions.AuthenticationError, exceptions.AuthorizationError)
_REASONS: Final[list[tuple[type[Exception] | tuple[type[Exception], ...], str]]] = [
    (_LOGIN, "the login is refused"),
    (exceptions.BusyLoadingError, "it still loads its data"),
    (exceptions.ReadOnlyError, "it is a replica, which takes no writes"),
    ((TimeoutError, exceptions.TimeoutError), "no answer in time"),
]
_REFUSED: Final = re.compile("NOPERM|can't run|can't access|no permissions|unknown command")
_log = logging.getLogger("braze_export")

Client: TypeAlias = redis.Redis | redis.RedisCluster


class Link:
    """One Redis, or a cluster.

    Args:
        client: a URL, or a client that stays open when the link is closed.

    Attributes:
        place: host and port, or whatever else tells where it is; without user and password.
        gone: whether the last call failed.
        next_try: while it is gone, the loop's time of the next call.
        reason: why it is gone.
        watchers: are told when Redis goes (True), and when it is back (False).
    """

    def __init__(self, client: str | Client) -> None:
        if not isinstance(client, str | redis.Redis | redis.RedisCluster):
            raise InputError(f"redis must be a URL or an asyncio client, not {type(client)}")
        self._owned = isinstance(client, str)
        self._client = _connected(client) if isinstance(client, str) else client
        self.place = _place(self._client)
        self.gone = False
        self.next_try = 0.0
        self.reason = ""
        self.watchers: list[Callable[[bool], None]] = []
        self._pause = _SOONEST

    async def check(self, key: str, words: bytes) -> None:
        """Run the script.

        Raises:
            LimiterError: Redis cannot be reached, or does not run it.
        """
        try:
            await self._run(key, words)
        except FAILURES as error:
            raise LimiterError(_sentence(error, self.place)) from None
        self._found()

    async def run(self, key: str, words: bytes) -> list[Any] | None:
        """Run the script and return what it returns, or ``None`` if Redis is gone."""
        try:
            reply = await self._run(key, words)
        except FAILURES as error:
            self._lost(error)
            return None
        self._found()
        return reply

    async def aclose(self) -> None:
        """Close the connections, if they were made here. A later call opens them again."""
        if self._owned:
            await self._client.aclose()

    async def _run(self, key: str, words: bytes) -> list[Any]:
        execute: Callable[..., Any] = self._client.execute_command
        async with in_time():
            with suppress(exceptions.NoScriptError):
                return list(await execute("EVALSHA", _SHA, 1, key, words))
            return list(await execute("EVAL", _SCRIPT, 1, key, words))

    def _lost(self, error: Exception) -> None:
        self.next_try = asyncio.get_running_loop().time() + self._pause * random.uniform(0.8, 1.2)
        self._pause = min(_LATEST, 2 * self._pause)
        self.reason = reason(error)
        if not self.gone:
            self.gone = True
            _log.warning("Redis at %s is gone (%s)", self.place, self.reason)
            self._tell()

    def _found(self) -> None:
        self._pause = _SOONEST
        if self.gone:
            self.gone = False
            _log.info("Redis at %s is back", self.place)
            self._tell()

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher(self.gone)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """Give commands so much time, and see to it that they can be cancelled.

    The client sends with ``asyncio.wait_for``. Before Python 3.12 that returns as if nothing had
    been when it is cancelled at the moment that it is done: the cancellation is made up for here.

    Raises:
        TimeoutError: they took too long.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(TOO_LONG):
            yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def _connected(url: str) -> Client:
    """Return a client that connects when it is first used, and gives up soon.

    Raises:
        InputError: this is no URL of a Redis.
    """
    scheme = url.partition("://")[0]
    if scheme not in ("redis", "rediss", "unix"):
        raise InputError("the URL of the Redis must begin with redis://, rediss:// or unix://")
    # What the client tells of itself it looks up on disk, for each connection.
    silent = ["driver_info"] if find_spec("redis.driver_info") else ["lib_name", "lib_version"]
    options: dict[str, Any] = {
        **dict.fromkeys(silent),
        "protocol": 2,
        "socket_timeout": _SOCKET_TIMEOUT,
        "socket_connect_timeout": _SOCKET_TIMEOUT,
        "retry": Retry(NoBackoff(), 1),  # a connection that was idle may have been closed
    }
    try:
        client = redis.Redis.from_url(url, **options)
        pool: Any = client.connection_pool
        pool.make_connection()  # finds options that there are not
    except (ValueError, TypeError):
        raise InputError("the URL of the Redis cannot be read") from None  # it holds a password
    return client


def _place(client: Client) -> str:
    if isinstance(client, redis.RedisCluster):
        return str(next(iter(client.nodes_manager.startup_nodes), "cluster"))
    pool = client.connection_pool
    if service := getattr(pool, "service_name", None):
        return str(service)
    known = pool.connection_kwargs
    return str(known.get("path") or f"{known.get('host', 'localhost')}:{known.get('port', 6379)}")


def reason(error: BaseException) -> str:
    """Say in a few words what is wrong. No word is the server's own: it may name the user."""
    error = _root(error)
    if _refuses_scripts(error):
        return "scripts are refused"
    for kinds, words in _REASONS:
        if isinstance(error, kinds):
            return words
    number = re.search(r"Err(?:no|or) (-?\d+)", str(error))
    if number is not None:
        code = int(number[1])
        return os.strerror(code) if code > 0 else "its name cannot be looked up"
    lost = isinstance(error, exceptions.ConnectionError)
    return "the connection was lost" if lost else type(error).__name__


def _root(error: BaseException) -> BaseException:
    """Return what Redis itself said: on its way the client may make another error of it."""
    while isinstance(error.__cause__ or error.__context__, exceptions.RedisError):
        error = error.__cause__ or error.__context__ or error
    return error


def _refuses_scripts(error: BaseException) -> bool:
    return isinstance(error, exceptions.NoPermissionError) or (
        isinstance(error, exceptions.ResponseError) and _REFUSED.search(str(error)) is not None
    )


def _sentence(error: BaseException, place: str) -> str:
    root, why = _root(error), reason(error)
    if _refuses_scripts(root):
        return (
            f"Redis at {place} refuses the script that shares the limits: its user needs "
            f"{_NEEDED} and the keys ~braze_export:*"
        )
    if isinstance(root, _LOGIN):
        return f"Redis at {place} cannot be used ({why}): check user and password"
    if isinstance(root, exceptions.ResponseError | exceptions.BusyLoadingError):
        return f"Redis at {place} cannot share the limits ({why}): give another one"
    return f"Redis at {place} cannot be reached ({why}): start it, or give other limits"


def check_workspace(workspace: object) -> None:
    """Accept what can be a part of keys.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(workspace, str) or not 0 < len(workspace) <= _LONGEST_NAME:
        raise InputError(f"workspace must be a text of 1 to {_LONGEST_NAME} characters")
    if not workspace.isprintable() or set(workspace) & set("{}"):
        raise InputError("workspace must be printable, without { and }")
