"""A backend under mixed load for long, with callers who hang up and a Braze that fails.

``python -m benchmarks.lookup_soak [SECONDS]``, ten minutes by default. At the end nothing may be
left behind: no task, no connection, no memory; and every call was answered, or failed with one of
our errors.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.coalescing import backend
from benchmarks.course import Sample, draw
from benchmarks.server import running
from benchmarks.table import Row, show
from braze_export.sandbox import Fault, Sandbox
from braze_export.sandbox.windows import Window

CHART = Path(__file__).with_suffix(".svg")
_CALLERS = 60
_WARM = 120.0  # seconds
_FAULTS = (
    Fault(status=500),
    Fault(status=503, headers={"retry-after": "1"}),
    Fault(status=502, body=b"<html>Bad gateway</html>"),
    Fault(status=400),
    Fault(drop="before"),
    Fault(drop="headers"),
    Fault(drop="body"),
    Fault(drop="after"),
    Fault(cut=100),
    Fault(garbage=True),
    Fault(truncate=50),
    Fault(delay=1.5),
    Fault(delay=30),
    Fault(slow=20_000),
)
_REFUSAL = Fault(status=429, headers={"x-ratelimit-reset": "1"})  # rarely: all wait for a second
#: What a call may end with: an answer, or what ``add_error_handlers`` makes of our errors.
_STATUSES = {200, 502, 503, 504}
_UNSURE = "the stream broke off"  # after its head was sent, an error can be told no other way


def measure(seconds: float = 600) -> list[Row]:
    """Load a backend; return what it holds afterwards, against before."""
    braze = [sys.executable, "-m", "benchmarks.lookup_soak", "--braze"]
    with running(braze) as server, backend("ours", server) as url:
        return asyncio.run(_soak(url, seconds))


async def _soak(url: str, seconds: float) -> list[Row]:
    said: Counter[str] = Counter()
    samples: list[Sample] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await _load(session, url, min(_WARM, seconds / 4), said)  # all is imported, and grown
        before = await _at_rest(session, url)
        watch = asyncio.create_task(_watch(session, url, seconds / 60, samples))
        await _load(session, url, seconds, said)
        watch.cancel()
        after = await _at_rest(session, url)
    title = f"A FastAPI backend under mixed load with faults, {sum(said.values()):,} calls"
    draw(title, samples, CHART)
    print("  before:", before)
    print("  after: ", after)
    print("  calls: ", dict(sorted(said.items())))
    strange = sum(n for what, n in said.items() if what.startswith("strange"))
    early, late = (
        _mean(half) for half in (samples[: len(samples) // 2], samples[len(samples) // 2 :])
    )
    return [
        Row("calls that ended neither with an answer nor with our errors", strange, 0, ""),
        Row("tasks left behind", after["tasks"] - before["tasks"], 0, ""),
        Row("descriptors left behind", after["descriptors"] - before["descriptors"], 0, ""),
        Row("memory left behind", after["memory_mb"] - before["memory_mb"], 10, "MB"),
        Row("memory in the second half against the first", late - early, 5, "MB"),
        Row("objects left behind", after["objects"] - before["objects"], 2_000, ""),
    ]


def _mean(samples: list[Sample]) -> float:
    return sum(s.memory_mb for s in samples) / len(samples)


async def _load(
    session: aiohttp.ClientSession, url: str, seconds: float, said: Counter[str]
) -> None:
    end = time.monotonic() + seconds
    rng = random.Random(7)

    async def caller() -> None:
        while time.monotonic() < end:
            said[await _call(session, url, rng)] += 1
            await asyncio.sleep(rng.expovariate(10))

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))


async def _call(session: aiohttp.ClientSession, url: str, rng: random.Random) -> str:
    number = rng.randrange(1, 12_000)  # of whom 10,000 are known
    paths = (
        f"/users/{number}",
        f"/users/{number}?count=20",
        f"/hurried/{number}",
        f"/watched/{number}",
        f"/many/{number}",
        f"/stream/{number}",
    )
    path = rng.choice(paths)
    patience = rng.choice((None, None, 0.001, 0.01, 0.1, 1.0))
    try:
        async with asyncio.timeout(patience), session.get(url + path) as answer:
            body = await answer.read()
            if answer.status not in _STATUSES:
                return f"strange: {path.split('/')[1]} {answer.status} {body[:80]!r}"
            return str(answer.status)
    except TimeoutError:
        return "hung up"
    except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
        streamed = path.startswith("/stream")
        return _UNSURE if streamed else f"strange: {path.split('/')[1]} {type(error).__name__}"


async def _watch(
    session: aiohttp.ClientSession, url: str, every: float, samples: list[Sample]
) -> None:
    """Note what the backend holds under load, now and then."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(every)
        async with session.get(f"{url}/health") as answer:
            held = await answer.json()
        seconds = time.monotonic() - began
        samples.append(Sample(seconds, held["memory_mb"], held["descriptors"], held["tasks"]))
        print(f"  {seconds:,.0f} s: {held['memory_mb']:.0f} MB", flush=True)


async def _at_rest(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return what the backend holds once all is done: keep-alive connections are closed by then."""
    await asyncio.sleep(40)
    async with session.get(f"{url}/health") as answer:
        health: dict[str, Any] = await answer.json()
    return health


async def _braze() -> None:
    rng = random.Random(11)

    def fault(_number: int, _path: str) -> Fault | None:
        drawn = rng.random()
        return _REFUSAL if drawn < 0.002 else rng.choice(_FAULTS) if drawn < 0.05 else None

    window = Window(100_000, 10.0)
    async with Sandbox(users=10_000, faults=fault, ids_window=window, latency=0.02) as sandbox:
        sys.stdout.write(json.dumps({"url": sandbox.url, "api_key": sandbox.api_key}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lookup_soak")
    parser.add_argument("seconds", nargs="?", type=float, default=600)
    parser.add_argument("--braze", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.braze:
        asyncio.run(_braze())
    else:
        show(measure(options.seconds))
