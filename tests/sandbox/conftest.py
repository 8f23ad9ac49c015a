"""A plain aiohttp client against the sandbox, and a clock that only moves when told."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import attrs
import pytest
from blockbuster import BlockBuster

from braze_export.sandbox import Sandbox

IDS = "/users/export/ids"


@attrs.define
class Clock:
    now: float = 1_700_000_040.0  # a full minute, and 40 seconds before a full one of 100

    def __call__(self) -> float:
        return self.now


@attrs.frozen
class Got:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rate(self) -> tuple[int, int, int]:
        limit, remaining, reset = (
            int(self.headers[f"x-ratelimit-{part}"]) for part in ("limit", "remaining", "reset")
        )
        return limit, remaining, reset


@attrs.define
class Client:
    sandbox: Sandbox
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **options: Any) -> Got:
        headers = {"Authorization": f"Bearer {self.sandbox.api_key}"} | options.pop("headers", {})
        url = f"{self.sandbox.url}{path}"
        async with self.session.request(method, url, headers=headers, **options) as response:
            return Got(response.status, response.headers, await response.read())

    async def post(self, path: str, body: Any) -> Got:
        return await self.call("POST", path, json=body)

    async def ids(self, *external_ids: str, **more: Any) -> Got:
        return await self.post(IDS, {"external_ids": list(external_ids)} | more)

    async def get(self, path: str, **query: Any) -> Got:
        return await self.call("GET", path, params=query)


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture(autouse=True)
def coverage_may_lock(blocking_calls_fail: BlockBuster) -> None:
    """Threads that make archives share the lock of the tool that measures coverage."""
    acquire = blocking_calls_fail.functions["threading.Lock.acquire"]
    acquire.can_block_in("coverage/collector.py", {"lock_data"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def connect(clock: Clock) -> AsyncIterator[Connect]:
    """Start a sandbox with these options, and a client to it."""
    async with AsyncExitStack() as stack:

        async def make(sandbox: Sandbox | None = None, **options: Any) -> Client:
            sandbox = sandbox or Sandbox(clock=clock, **options)
            await stack.enter_async_context(sandbox)
            session = await stack.enter_async_context(
                # Never wait longer than a broken test deserves.
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))
            )
            return Client(sandbox, session)

        yield make
