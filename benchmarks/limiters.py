"""Limiters to compare with: none, one that asks first, and the bucket that one writes by hand."""

import asyncio
from collections.abc import Mapping

from aiolimiter import AsyncLimiter

from braze_export import Limits
from braze_export.answers import RateWindow
from braze_export.endpoints import Pool
from braze_export.limiting.limits import Lane, PoolSnapshot


class Free:
    """Lets everything through."""

    limits = Limits()

    async def start(self) -> None:
        """Nothing to start."""

    async def acquire(self, _pool: Pool, _lane: Lane) -> "Free":
        return self

    def answered(self, _window: RateWindow, *, refused: bool = False) -> None:
        """Learn nothing."""

    def unanswered(self, *, sent: bool) -> None:
        """Learn nothing."""

    def snapshot(self) -> Mapping[Pool, PoolSnapshot]:
        return {}

    async def aclose(self) -> None:
        """Nothing to close."""


class AsksFirst(Free):
    """Lets everything through once the first answer is here."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._first = asyncio.Semaphore(1)

    async def acquire(self, _pool: Pool, _lane: Lane) -> "AsksFirst":
        await self._first.acquire()
        return self

    def answered(self, _window: RateWindow, *, refused: bool = False) -> None:  # noqa: ARG002 - the protocol's
        for _ in range(self._at_once):
            self._first.release()


class Bucket(Free):
    """What one writes by hand: a token bucket of the limit, and nothing learned."""

    def __init__(self, requests: float, period: float) -> None:
        self._bucket = AsyncLimiter(requests, period)

    async def acquire(self, _pool: Pool, _lane: Lane) -> "Bucket":
        await self._bucket.acquire()
        return self
