"""Processes of their own, one Redis, one sandbox."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process

from braze_export.sandbox import Sandbox, Window
from tests.integrations.redis_servers import RedisServer

WORKER = """
import asyncio, sys
from braze_export import BrazeClient, Limits, RateLimit
from braze_export.integrations.redis import RedisLimits

url, key, redis, workspace, first, last = sys.argv[1:]

async def main():
    limits = RedisLimits(redis, workspace=workspace, limits=Limits(ids=RateLimit(60, 1)))
    async with BrazeClient(key, url, limits=limits) as braze:
        print("ready", flush=True)
        sys.stdin.readline()
        ids = (f"u{number}" for number in range(int(first), int(last)))
        records = braze.users.export_ids(ids, fields=["external_id"], concurrency=6)
        print(len([record async for record in records]), flush=True)

asyncio.run(main())
"""


async def worker(sandbox: Sandbox, server: RedisServer, workspace: str, first: int) -> Process:
    arguments = [sandbox.url, sandbox.api_key, server.url, workspace, str(first), str(first + 2500)]
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, *arguments, stdin=PIPE, stdout=PIPE
    )


async def said(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def test_processes_share_one_limit_and_one_of_them_dies(
    redis_server: RedisServer, workspace: str
) -> None:
    async with Sandbox(ids_window=Window(60, 1.0), profile="small", latency=0.02) as sandbox:
        workers = [
            await worker(sandbox, redis_server, workspace, 1 + 2500 * number) for number in range(3)
        ]
        try:
            assert [await said(process) for process in workers] == [b"ready\n"] * 3
            for process in workers:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            while sandbox.counters.requests < 30:
                await asyncio.sleep(0.01)
            workers[0].kill()
            exported = [await said(process) for process in workers]
            codes = [await process.wait() for process in workers]
        finally:
            for process in workers:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        counters = sandbox.counters

    assert exported == [b"", b"2500\n", b"2500\n"]
    assert codes == [-9, 0, 0]
    assert counters.rate_limited == 0
    assert 100 <= counters.requests < 150
