"""The script on a real Redis, with the virtual clock of the event loop instead of Redis's own.

So is tested in no time what takes minutes: windows, pauses, processes that are forgotten.
"""

import asyncio
import math
import random
from collections.abc import Mapping
from typing import Any

import redis
from attrs import Factory, define
from redis import asyncio as aioredis
from redis import exceptions

from braze_export.integrations import redis as room
from braze_export.integrations.redis_link import _SCRIPT, Link
from braze_export.limiting.limits import Limits, RateLimit

EPOCH = 1_700_000_000.0
KEY = "braze_export:{shop:ids}"


@define
class World:
    """A Redis, and how it can be reached."""

    client: "redis.Redis"
    latency: tuple[float, float] = (0.0002, 0.001)  # seconds on the way, there and back again
    gone: bool = False
    loses_replies: int = 0
    calls: int = 0
    dice: random.Random = Factory(lambda: random.Random(3))
    script: Any = None

    def __attrs_post_init__(self) -> None:
        clock = 'redis.call("TIME")'
        assert clock in _SCRIPT
        self.script = self.client.register_script(_SCRIPT.replace(clock, "{ARGV[2], ARGV[3]}"))

    async def run(self, key: str, words: bytes) -> list[Any]:
        await asyncio.sleep(self.dice.uniform(*self.latency))
        if self.gone:
            raise exceptions.ConnectionError("Error 111 connecting to nowhere")
        self.calls += 1
        seconds = EPOCH + asyncio.get_running_loop().time()
        whole = math.floor(seconds)
        reply = self.script(keys=[key], args=[words, whole, int((seconds - whole) * 1e6)])
        await asyncio.sleep(self.dice.uniform(*self.latency))
        if self.loses_replies:
            self.loses_replies -= 1
            raise exceptions.TimeoutError("Timeout reading from nowhere")
        return list(reply)

    def state(self) -> dict[str, str]:
        """What is known of the pool ``ids``."""
        stored: Mapping[bytes, bytes] = self.client.hgetall(KEY)  # type: ignore[assignment]
        return {name.decode(): value.decode() for name, value in stored.items()}

    def processes(self) -> list[dict[str, float]]:
        """The records of the processes."""
        names = ("seen", "calls", "batch", "flying", "asking", "number", "want")
        records = [v for name, v in self.state().items() if name.startswith("p:")]
        return [dict(zip(names, map(float, r.split()), strict=True)) for r in records]

    def flying(self) -> int:
        return sum(int(record["flying"]) for record in self.processes())


def limiter(
    world: World, limit: int = 10, period: float = 60, *, reserve: float = 0.0, **options: Any
) -> room.RedisLimits:
    """Return the limiter of one more process."""

    class VirtualLink(Link):
        async def _run(self, key: str, words: bytes) -> list[Any]:
            return await world.run(key, words)

    limits = Limits(ids=RateLimit(limit, period), reserve=reserve)
    client = aioredis.Redis(host="nowhere")  # never connected
    real, room.Link = room.Link, VirtualLink  # type: ignore[attr-defined]
    try:
        return room.RedisLimits(client, workspace="shop", limits=limits, **options)
    finally:
        room.Link = real  # type: ignore[attr-defined]


def kill(dying: room.RedisLimits) -> None:
    """End a process at once: nothing of its is told any more."""
    for gate in dying._gates.values():
        gate._open = False
        gate._forget_timer()
        if gate._task is not None:
            gate._task.cancel()
