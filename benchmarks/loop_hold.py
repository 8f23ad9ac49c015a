"""The longest time the event loop is held while 2 MB answers stream through typed iteration.

``python -m benchmarks.loop_hold``. The server runs in a process of its own; in ours, a
callback marks every turn of the loop, and the longest turn counts.
"""

import asyncio
import multiprocessing
import sys
from multiprocessing.connection import Connection

from aiohttp import web

from benchmarks.sides import UNLIMITED
from benchmarks.table import Row, show
from benchmarks.watch import Watch
from braze_export import BrazeClient, UserProfile
from braze_export.sandbox import Sandbox

_ANSWERS = 200
_KEY = "benchmark-key"


def measure() -> list[Row]:
    """Stream the answers three times; the best longest turn is the one nothing else disturbed."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url, size = ours.recv()
    try:
        turns = [asyncio.run(_longest_turn(url)) for _ in range(3)]
    finally:
        server.terminate()
        server.join()
    print(f"  answers of {size:,} bytes, longest turns: {', '.join(f'{t:.2f}' for t in turns)} ms")
    return [Row("event loop held while 2 MB answers stream", min(turns), 10, "ms")]


async def _longest_turn(url: str) -> float:
    watch = Watch(asyncio.get_running_loop())
    users = 0
    async with BrazeClient(_KEY, url, limits=UNLIMITED) as braze:
        watch.start()
        ids = (f"u{n}" for n in range(_ANSWERS * 50))
        async for profile in braze.users.export_ids(ids).profiles():
            users += isinstance(profile, UserProfile)
        watch.stop()
    if users != _ANSWERS * 100:
        raise SystemExit(f"got {users} users")
    return watch.longest * 1000


def serve(pipe: Connection) -> None:
    """Serve the same 2 MB answer, made of a hundred full profiles, until terminated."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    async with (
        Sandbox(users=100, profile="full") as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url) as braze,
    ):
        raws = [raw async for raw in braze.users.export_ids(sandbox.external_ids()).raw()]
    body = b'{"message":"success","users":[' + b",".join(raws) + b"]}"

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/users/export/ids", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    pipe.send((f"http://{host}:{port}", len(body)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    show(measure())
    sys.exit(0)
