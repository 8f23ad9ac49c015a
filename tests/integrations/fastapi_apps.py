"""Apps of the tests: run by hand, served by a real server, and asked over HTTP and WebSocket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from braze_export import BrazeClient, RetryPolicy
from braze_export.sandbox import Sandbox

ONCE = RetryPolicy(max_attempts=1, max_refusals=1)
KEY = "s3cr3t-key-of-the-workspace"


def making(sandbox: Sandbox, **options: Any) -> Callable[[], BrazeClient]:
    return lambda: BrazeClient(sandbox.api_key, sandbox.url, **({"retry": ONCE} | options))


def unconnected() -> BrazeClient:
    return BrazeClient(KEY, "https://rest.example.invalid")


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[Any]:
    """Run the lifespan, and hand its state to each request, as servers do."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        yield with_state


@asynccontextmanager
async def asking(app: Any, *, lifespan: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that runs in this task, without sockets."""

    @asynccontextmanager
    async def client(of: Any) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(of, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            yield client

    if not lifespan:
        async with client(app) as ours:
            yield ours
        return
    async with running(app) as with_state, client(with_state) as ours:
        yield ours


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a real server that serves the app in this loop."""
    config = uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=5)
    await asyncio.to_thread(config.load)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not (server.started or task.done()):
                await asyncio.sleep(0)
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False
            ) as client:
                yield client
        finally:
            server.should_exit = True
            await task


async def talk(app: Any, path: str) -> list[dict[str, Any]]:
    """Open a WebSocket, and return all that the app sends."""
    sent: list[dict[str, Any]] = []
    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "scheme": "ws"}
    coming = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        return next(coming, {"type": "websocket.disconnect", "code": 1000})

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**scope, "asgi": {"version": "3.0"}, "subprotocols": []}, receive, send)
    return sent
