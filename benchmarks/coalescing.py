"""Single look-ups of a backend: how many requests they take, and what they do to its event loop.

Three processes: a local Braze, the backend under a real uvicorn, and who calls it. Beside ours
stands what one writes by hand, with aiohttp and ``json``. Mixed load for long is in
``benchmarks.lookup_soak``.
"""

import argparse
import asyncio
import http.client
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles
from urllib.parse import urlsplit
from urllib.request import urlopen

import aiohttp

from benchmarks.canned import canned, counts
from benchmarks.lookup_apps import LIMIT, PERIOD
from benchmarks.server import Server, running, serving
from benchmarks.table import Row, show

_CALLERS = 5_000
_RATE = 2_000  # look-ups a second
_PAGE = 20  # users that one request to the backend looks up, one by one
_FULL = "--profile-bytes=20000"


def measure() -> list[Row]:
    """Run it all."""
    return [*_many(), _throughput(), _lone(), *_unrelated()]


@contextmanager
def backend(name: str, braze: Server) -> Iterator[str]:
    """Start a backend; yield its address."""
    os.environ["BENCH_KEY"] = braze.api_key
    with running([sys.executable, "-m", "benchmarks.lookup_apps", name, braze.url]) as server:
        yield server.url


def _many() -> list[Row]:
    """Distinct users, all looked up at the same time, each over a connection of its own."""
    rows = []
    for latency, what in ((0.0, "on loopback"), (0.1, "Braze 0.1 s away")):
        with canned(_FULL, f"--latency={latency}") as braze, backend("ours", braze) as url:
            asyncio.run(_at_once(url, _CALLERS))
            requests = counts(braze)["requests"]
        name = f"requests for {_CALLERS:,} concurrent look-ups over HTTP, {what}"
        rows.append(Row(name, requests, 110, ""))
    return rows


async def _at_once(url: str, callers: int) -> None:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    opened = [await asyncio.open_connection(host, port) for _ in range(callers)]
    for number, (_, writer) in enumerate(opened, 1):
        writer.write(_request(f"/users/{number}", close=True))
    answers = await asyncio.gather(*(reader.read() for reader, _ in opened))
    for number, answer in enumerate(answers, 1):
        assert answer.endswith(b'["u%d"]' % number), answer[-200:]
    for _, writer in opened:
        writer.close()


def _request(path: str, *, close: bool = False) -> bytes:
    end = "connection: close\r\n\r\n" if close else "\r\n"
    return f"GET {path} HTTP/1.1\r\nhost: backend\r\n{end}".encode()


def _throughput() -> Row:
    """Look-ups a second within a limit, for three windows."""
    rates = {}
    for name in ("ours", "paced"):
        with (
            serving(f"--ids-window={LIMIT}/{PERIOD}", "--users=1000000") as braze,
            backend(name, braze) as url,
        ):
            rates[name] = asyncio.run(_answered(url, 3 * PERIOD)) / (3 * PERIOD)
            print(f"  {name}: {rates[name]:,.0f} look-ups/s")
    what = f"look-ups a second within {LIMIT} requests per {PERIOD} s, against a request for each"
    return Row(what, rates["ours"] / rates["paced"], 40, "times", more=True)


async def _answered(url: str, seconds: float) -> int:
    """Return how many look-ups are answered in a time that begins with a window."""
    answered = 0
    await asyncio.sleep(PERIOD - time.time() % PERIOD)
    end = time.time() + seconds

    async def caller(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal answered
        while time.time() < end:
            async with session.get(f"{url}/users/{number}?count={_PAGE}") as answer:
                assert answer.status == 200, answer.status
                found = len(await answer.json())
            answered += found * (time.time() < end)
            number += 400 * _PAGE

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        callers = [caller(session, 1 + _PAGE * n) for n in range(400)]
        with_limit = asyncio.gather(*callers)
        await asyncio.wait([with_limit], timeout=seconds + 0.1)
        with_limit.cancel()
        await asyncio.gather(with_limit, return_exceptions=True)
    return answered


def _lone() -> Row:
    with canned(_FULL) as braze, backend("ours", braze) as url:
        taken = _get(url, "/lone")
    print("  alone:", {name: f"{1000 * seconds:.2f} ms" for name, seconds in taken.items()})
    more = 1000 * (taken["shared"] - taken["direct"])
    return Row("a lone look-up on an idle client, more than a direct call", more, 3, "ms")


def _unrelated() -> list[Row]:
    """The slowest hundredth of calls to an endpoint that has nothing to do with look-ups."""
    rows = []
    for name, required in (("ours", 2.0), ("hand", None)):
        with canned(_FULL, "--latency=0.03") as braze, backend(name, braze) as url:
            _pings(url, 2)
            idle = _pings(url, 15)
            with _load(url, 25) as load:
                time.sleep(3)
                busy = _pings(url, 15)
                rate = float(load.communicate(timeout=60)[0])
        print(
            f"  {name}: p99 {1000 * idle:.2f} ms idle, {1000 * busy:.2f} ms while "
            f"{rate:,.0f} look-ups/s run"
        )
        what = f"p99 of an unrelated endpoint at {_RATE:,} look-ups/s, against idle: {name}"
        rows += [Row(what, busy / idle, required, "times")]
        if name == "ours":
            rows += [Row("of these look-ups were carried out", rate / _RATE, 0.97, "", more=True)]
    return rows


def _pings(url: str, seconds: float) -> float:
    """Return the p99 of a trivial endpoint, in seconds, called some 150 times a second."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        connection.request("GET", "/ping")
        connection.getresponse().read()
        taken.append(time.perf_counter() - began)
        time.sleep(0.005)
    connection.close()
    return quantiles(taken, n=100)[98]


@contextmanager
def _load(url: str, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "benchmarks.coalescing", "--load", url, str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process


async def _look_up(url: str, seconds: float) -> float:
    """Look users up at the set rate, whether the answers keep up or not; return their rate."""
    answered, late = 0, set()
    connector = aiohttp.TCPConnector(limit=0)

    async def page(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal answered
        async with session.get(f"{url}/users/{number}?count={_PAGE}") as answer:
            answered += len(await answer.json())

    async with aiohttp.ClientSession(connector=connector) as session:
        began = time.perf_counter()
        for number in range(int(seconds * _RATE / _PAGE)):
            await asyncio.sleep(max(0.0, began + number * _PAGE / _RATE - time.perf_counter()))
            task = asyncio.create_task(page(session, 1 + number * _PAGE))
            late.add(task)
            task.add_done_callback(late.discard)
        spent = time.perf_counter() - began
        in_time = answered
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return in_time / spent


def _get(url: str, path: str) -> dict[str, float]:
    with urlopen(url + path, timeout=120) as answer:
        told: dict[str, float] = json.load(answer)
    return told


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coalescing")
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(asyncio.run(_look_up(options.load[0], float(options.load[1]))))
    else:
        show(measure())
