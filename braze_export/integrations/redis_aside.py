"""What grants requests while Redis is gone: a share of the limit for each process."""

import asyncio

from attrs import Factory, define, evolve

from braze_export.endpoints import Pool
from braze_export.limiting.governor import LocalLimiter
from braze_export.limiting.limits import Lane, Limits, Permit, PoolSnapshot
from braze_export.tasks import cancel


@define
class _Ration:
    """What a process may send of the window in which Redis went, until that has turned."""

    requests: int
    turned: asyncio.Event = Factory(asyncio.Event)


class Aside:
    """A limiter of this process alone, made anew whenever Redis goes: what it knew is old then.

    Args:
        limits: those that all processes share.
        processes: how many share them.
    """

    def __init__(self, limits: Limits, processes: int) -> None:
        self._limits = evolve(limits, reserve=1 - (1 - limits.reserve) / processes)
        self._processes = processes
        self._limiter: LocalLimiter | None = None
        self._rations: dict[Pool, _Ration] = {}
        self._waiting: set[asyncio.Task[Permit]] = set()

    def switch(self, gone: bool) -> None:
        """Begin to grant requests, or end it: whoever still waits then gets nothing."""
        self._limiter = LocalLimiter(self._limits) if gone else None
        self._rations.clear()
        for waiting in self._waiting:
            waiting.cancel()

    def ration(self, pool: Pool, left: int, until: float) -> None:
        """Take the process's share only of what is left until the window turns."""
        ration = self._rations[pool] = _Ration(left // self._processes)
        asyncio.get_running_loop().call_at(until, ration.turned.set)

    async def acquire(self, pool: Pool, lane: Lane) -> Permit | None:
        """Return when a request of this pool may be sent, or with ``None`` when Redis is back."""
        if self._limiter is None:
            return None
        waiting = asyncio.create_task(self._granted(self._limiter, pool, lane))
        self._waiting.add(waiting)
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError:
            await cancel(waiting)
            if not waiting.cancelled():
                waiting.result().unanswered(sent=False)
            raise
        finally:
            self._waiting.discard(waiting)
        return None if waiting.cancelled() else waiting.result()

    async def _granted(self, limiter: LocalLimiter, pool: Pool, lane: Lane) -> Permit:
        ration = self._rations.get(pool)
        if ration is not None and not ration.turned.is_set():
            if ration.requests > 0:
                ration.requests -= 1
            else:
                await ration.turned.wait()
        return await limiter.acquire(pool, lane)

    def snapshot(self, pool: Pool) -> PoolSnapshot | None:
        """Return how a pool stands, or ``None`` while Redis is there."""
        return None if self._limiter is None else self._limiter.snapshot()[pool]
