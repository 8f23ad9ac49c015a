"""One rate limit for many processes, on one machine or on many, shared in Redis.

Needs the extra ``redis``: ``pip install "braze-export[redis]"``::

    limits = RedisLimits("redis://localhost:6379/0", workspace="shop")
    async with BrazeClient(..., limits=limits) as braze:
        ...

Redis from 5.0 on, Valkey, Redis Cluster. The URL's user needs ``+evalsha +eval +time +hgetall
+hset +hdel +expire`` and the keys ``~braze_export:*``.
"""

import asyncio
from typing import Literal, get_args
from uuid import uuid4

from braze_export.endpoints import Pool
from braze_export.errors import InputError
from braze_export.integrations.redis_aside import Aside
from braze_export.integrations.redis_books import Books
from braze_export.integrations.redis_gate import Gate
from braze_export.integrations.redis_link import Client, Link, check_workspace
from braze_export.limiting.limits import Lane, Limits, Permit, PoolSnapshot
from braze_export.limiting.server_clock import ServerClock

WhenGone = Literal["share", "wait"]
"""What happens while Redis is gone."""


class RedisLimits:
    """Grants the requests of all processes that name the same workspace, on one event loop each.

    Together they keep within the workspace's limits as one process would: what any of them
    learns from an answer holds for all. Requests of others, who do not share, are noticed.
    Clients of one process may share it too.

    Args:
        redis: a URL (``redis://``, ``rediss://``, ``unix://``), or your own client, which stays
            open. Give your own client short timeouts.
        workspace: a name for the Braze workspace, the same in every process; it is part of the
            keys in Redis, so not the API key.
        limits: requests per period, by pool; the same in every process.
        when_gone: ``"share"``: while Redis is gone, each process goes on with its share of every
            window, and with Redis once it is back. ``"wait"``: nothing is sent without Redis.
        processes: how many processes there are at most: their shares for ``"share"``.
        patience: seconds that a request waits for a Redis that is gone, for ``"wait"``; after
            them its call raises ``LimiterError``.

    Attributes:
        limits: as given.

    Raises:
        InputError: an argument that cannot be right.
    """

    def __init__(
        self,
        redis: str | Client,
        *,
        workspace: str,
        limits: Limits | None = None,
        when_gone: WhenGone = "share",
        processes: int = 8,
        patience: float = 60.0,
    ) -> None:
        _check(workspace, when_gone, processes, patience)
        if not isinstance(limits, Limits | None):
            raise InputError(f"limits must be Limits(...), not {type(limits)}")
        self.limits = limits or Limits()
        self._workspace = workspace
        self._link = Link(redis)
        self._aside = Aside(self.limits, processes) if when_gone == "share" else None
        if self._aside is not None:
            self._link.watchers.append(self._aside.switch)
        process, clock = uuid4().hex, ServerClock()
        self._gates = {
            pool: Gate(
                pool,
                key=f"braze_export:{{{workspace}:{pool}}}",  # a cluster hashes what is in braces
                books=Books(process, limit, self.limits.reserve, clock),
                link=self._link,
                aside=self._aside,
                patience=patience,
            )
            for pool, limit in self.limits.by_pool().items()
        }
        self._starting = asyncio.Lock()
        self._started = self._ready = False

    async def start(self) -> None:
        """Make sure that Redis is there and runs the script. Starting twice does nothing.

        Raises:
            LimiterError: Redis cannot be reached, or refuses.
        """
        async with self._starting:
            if not self._started:
                await self._gates["default"].check()
                self._started = self._ready = True

    async def acquire(self, pool: Pool, lane: Lane) -> Permit:
        """Return when a request of this pool may be sent.

        Raises:
            LimiterError: Redis is gone, and nothing is to be sent without it; or it could not be
                reached to begin with.
        """
        if not self._ready:
            await self.start()
        return await self._gates[pool].acquire(lane)

    def snapshot(self) -> dict[Pool, PoolSnapshot]:
        """Return how each pool stands now, as far as this process has heard.

        Waiting, in flight, sent, refused and waited are this process's own.
        """
        now = asyncio.get_running_loop().time()
        return {pool: gate.snapshot(now) for pool, gate in self._gates.items()}

    async def aclose(self) -> None:
        """Leave: Redis forgets this process; a connection made from a URL is closed.

        Where another client still waits for its requests, it goes on.
        """
        self._started = False
        try:
            await asyncio.gather(*(gate.pause() for gate in self._gates.values()))
        finally:
            await self._link.aclose()
            for gate in self._gates.values():
                gate.resume()

    def __repr__(self) -> str:
        return f"<RedisLimits of {self._workspace!r} at {self._link.place}>"


def _check(workspace: object, when_gone: object, processes: object, patience: object) -> None:
    """Do nothing for arguments that can be right.

    Raises:
        InputError: one of them cannot.
    """
    check_workspace(workspace)
    if when_gone not in get_args(WhenGone):
        raise InputError(f'when_gone must be "share" or "wait", not {when_gone!r}')
    if not isinstance(processes, int) or isinstance(processes, bool) or processes < 1:
        raise InputError(f"processes must be a whole number above zero, not {processes!r}")
    number = isinstance(patience, int | float) and not isinstance(patience, bool)
    if not (number and 0 < patience < float("inf")):  # type: ignore[operator]
        raise InputError(f"patience must be a number of seconds above zero, not {patience!r}")
