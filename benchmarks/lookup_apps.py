"""Backends that look users up one by one, under a real uvicorn, in a process of their own.

``python -m benchmarks.lookup_apps NAME URL``: the key comes from the environment; prints
``{"url", "api_key"}`` and ends when standard input does. ``ours`` shares requests; ``hand`` is what
one writes with aiohttp and ``json``: a request for each user; ``paced`` the same, evenly paced
within 250 in 6 seconds, so that it is not refused.
"""

import asyncio
import ctypes
import gc
import json
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import uvicorn
import uvloop
from aiolimiter import AsyncLimiter
from fastapi import Depends, FastAPI, Request

from braze_export import BrazeClient, Limits, RateLimit, RetryPolicy, Timeouts
from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import ask
from braze_export.integrations.fastapi import (
    Braze,
    NdjsonResponse,
    add_error_handlers,
    braze_lifespan,
    ndjson,
    within,
)

LIMIT, PERIOD = 250, 6
_OPEN = Limits(ids=RateLimit(100_000_000, 3600))


def ours(url: str, key: str) -> FastAPI:
    """Ours: ``users.get`` for each user."""

    def make() -> BrazeClient:
        # Faults of the sandbox are to be met, not waited for.
        timeouts, retry = Timeouts(read=1, total=2), RetryPolicy(max_attempts=3, base=0.05)
        return BrazeClient(key, url, limits=_OPEN, timeouts=timeouts, retry=retry)

    app = FastAPI(lifespan=braze_lifespan(make))
    add_error_handlers(app)

    @app.get("/users/{first}")
    async def look_up(first: int, braze: Braze, count: int = 1) -> list[str | None]:
        asked = (braze.users.get(f"u{n}") for n in range(first, first + count))
        return [None if user is None else user.external_id for user in await asyncio.gather(*asked)]

    @app.get("/hurried/{first}", dependencies=[Depends(within(1.5))])
    async def hurried(first: int, braze: Braze) -> str | None:
        user = await braze.users.get(f"u{first}", fields=["email"])
        return None if user is None else user.email

    @app.get("/watched/{first}")
    async def watched(first: int, braze: Braze, request: Request) -> str | None:
        """Give up when the caller hangs up."""
        call = asyncio.create_task(braze.users.get(f"u{first}"))
        hung_up = asyncio.create_task(_hung_up(request))
        try:
            await asyncio.wait([call, hung_up], return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                call.cancel()
            user = await call
        except asyncio.CancelledError:
            return None
        finally:
            hung_up.cancel()
        return None if user is None else user.external_id

    @app.get("/many/{first}")
    async def many(first: int, braze: Braze, count: int = 100) -> int:
        found = await braze.users.get_many([f"u{n}" for n in range(first, first + count)])
        return sum(user is not None for user in found.values())

    @app.get("/stream/{first}")
    async def stream(first: int, braze: Braze, count: int = 500) -> NdjsonResponse:
        ids = (f"u{n}" for n in range(first, first + count))
        return ndjson(braze.users.export_ids(ids, on_error="yield").raw())

    @app.get("/lone")
    async def lone(braze: Braze) -> dict[str, float]:
        caller = braze.users._lookup.caller  # noqa: SLF001 - what it was before requests were shared

        async def direct(name: str) -> Any:
            return await ask(caller, Batch((name,)), ("email",), lane="interactive")

        async def shared(name: str) -> Any:
            return await braze.users.get(name, fields=["email"])

        return await _compared(direct, shared)

    return app


def hand(url: str, key: str, bucket: AsyncLimiter | None = None) -> FastAPI:
    """What one writes first: a request for each user."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers, json_serialize=json.dumps) as session:
            app.state.session = session
            yield

    app = FastAPI(lifespan=lifespan)

    async def get(session: aiohttp.ClientSession, n: int) -> str | None:
        if bucket is not None:
            await bucket.acquire()
        asked = {"external_ids": [f"u{n}"]}
        async with session.post(f"{url}/users/export/ids", json=asked) as answer:
            users = (await answer.json(loads=json.loads))["users"]
        return users[0]["external_id"] if users else None

    @app.get("/users/{first}")
    async def look_up(first: int, request: Request, count: int = 1) -> list[str | None]:
        session = request.app.state.session
        return await asyncio.gather(*(get(session, n) for n in range(first, first + count)))

    return app


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _compared(*sides: Callable[[str], Awaitable[Any]]) -> dict[str, float]:
    """Return the median seconds of each side, called in turn."""
    taken: dict[str, list[float]] = {side.__name__: [] for side in sides}
    for number in range(1, 501):
        for side in sides:
            began = time.perf_counter()
            await side(f"u{number}")
            taken[side.__name__].append(time.perf_counter() - began)
            await asyncio.sleep(0.003)  # idle: nothing of the one before is under way
    return {name: median(seconds) for name, seconds in taken.items()}


def _health() -> dict[str, float]:
    """Return what this process holds, without what it would give back if it were asked to."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return {
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "memory_mb": pages * resource.getpagesize() / 1e6,
        "objects": len(gc.get_objects()),
        "cpu": time.process_time(),
    }


def _app(name: str, url: str) -> FastAPI:
    key = os.environ["BENCH_KEY"]
    makers: dict[str, Callable[[], FastAPI]] = {
        "ours": lambda: ours(url, key),
        "hand": lambda: hand(url, key),
        "paced": lambda: hand(url, key, AsyncLimiter(1, PERIOD / LIMIT)),
    }
    app = makers[name]()

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"pong": "pong"}

    @app.get("/health")
    async def health() -> dict[str, float]:
        return _health()

    return app


async def _serve(app: FastAPI) -> None:
    # Named a TCP socket: of others asyncio leaves small answers to wait for acknowledgements.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    said = {"url": "http://{}:{}".format(*listener.getsockname()[:2]), "api_key": ""}
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="critical", access_log=False, backlog=4096, timeout_graceful_shutdown=1
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
        if serving.done():
            break
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    logging.getLogger("braze_export").setLevel(logging.ERROR)
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(_app(sys.argv[1], sys.argv[2])))  # as uvicorn does where it is installed
