"""Several processes that export at once, with or without a Redis between them."""

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from attrs import asdict, frozen

from braze_export import BrazeClient, Limits, RateLimit
from braze_export.limiting.limits import Limiter


@frozen
class Share:
    """What one process is to do."""

    url: str
    api_key: str
    limit: int
    period: int
    first: int  # number of the first user
    requests: int
    redis: str | None = None


def exporting(shares: list[Share]) -> tuple[float, float]:
    """Let processes do their shares; return when they began and ended, on the wall clock."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_started(share)) for share in shares]
        for process in processes:
            _line(process)  # is ready
        began = time.time()
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        answered = [json.loads(_line(process)) for process in processes]
    assert sum(done["ids"] for done in answered) == sum(50 * share.requests for share in shares)
    return began, max(done["at"] for done in answered)


def _started(share: Share) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.processes", json.dumps(asdict(share))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def a_redis() -> Iterator[str | None]:
    """Start a Redis of our own, and yield its URL; ``None`` where there is none to start."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as probe, tempfile.TemporaryDirectory() as directory:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = ["--port", str(port), "--save", "", "--appendonly", "no", "--dir", directory]
        with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as process:
            _await_port(port)
            yield f"redis://127.0.0.1:{port}"
            process.terminate()


def _await_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("Redis does not start")


def _limiter(share: Share) -> Limits | Limiter:
    limits = Limits(ids=RateLimit(share.limit, share.period))
    if share.redis is None:
        return limits
    from braze_export.integrations.redis import RedisLimits  # noqa: PLC0415 - an extra

    return RedisLimits(share.redis, workspace="benchmark", limits=limits)


async def _export(share: Share) -> dict[str, Any]:
    last = share.first + 50 * share.requests
    ids = [f"u{number}" for number in range(share.first, last)]
    async with BrazeClient(share.api_key, share.url, limits=_limiter(share)) as braze:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        export = braze.users.export_ids(ids, fields=["external_id"], into=bytes)
        answered = len([1 async for _ in export])
    return {"ids": answered, "at": time.time()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_export(Share(**json.loads(sys.argv[1]))))))
