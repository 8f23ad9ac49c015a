import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any, TypeAlias

import pytest

from braze_export import AiohttpTransport, BrazeClient, RetryPolicy
from braze_export.sandbox import Sandbox
from braze_export.transports.httpx import HttpxTransport
from braze_export.wire import Transport

#: Retries without real waiting: the pauses are at most a few milliseconds.
QUICK = RetryPolicy(max_attempts=4, max_refusals=4, base=0.001, cap=0.002)

Connect: TypeAlias = Callable[..., BrazeClient]


@pytest.fixture(autouse=True)
def _nothing_left(nothing_left: None) -> None:
    """Every test of the contract leaves no task behind."""


@pytest.fixture(autouse=True)
def _what_is_missing_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpcore tries to import it several times for each request."""
    if find_spec("sniffio") is None:
        monkeypatch.setitem(sys.modules, "sniffio", None)


@pytest.fixture(params=[AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])
def make_transport(request: pytest.FixtureRequest) -> Callable[..., Transport]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(users=1_000, poisoned=frozenset({"poison"})) as sandbox:
        yield sandbox


@pytest.fixture
async def connect(make_transport: Callable[..., Transport]) -> AsyncIterator[Connect]:
    """Make clients of a sandbox; they are closed at the end, and their connections with them."""
    async with AsyncExitStack() as stack:

        def connect(sandbox: Sandbox, **options: Any) -> BrazeClient:
            defaults: dict[str, Any] = {"retry": QUICK, "transport": make_transport()}
            client = BrazeClient(sandbox.api_key, sandbox.url, **(defaults | options))
            stack.push_async_callback(client.aclose)
            return client

        yield connect


@pytest.fixture
async def braze(connect: Connect, sandbox: Sandbox) -> BrazeClient:
    return connect(sandbox)
