"""One side of a comparison, run in a fresh process: ``python -m benchmarks.sides NAME URL N``.

The key comes from the environment. Prints one line of JSON.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import orjson

from benchmarks.peak import peak_mb
from braze_export import BrazeClient, Limits, RateLimit, UserProfile

UNLIMITED = Limits(ids=RateLimit(1_000_000_000, 1))


def identifiers(count: int) -> Iterator[str]:
    """The sandbox's external ids, one by one."""
    return (f"u{n}" for n in range(1, count + 1))


def _client(url: str) -> BrazeClient:
    return BrazeClient(os.environ["BENCH_KEY"], url, limits=UNLIMITED)


async def ours_typed(url: str, count: int) -> int:
    """Typed profiles, streamed."""
    users = 0
    async with _client(url) as braze:
        async for profile in braze.users.export_ids(identifiers(count)).profiles():
            users += isinstance(profile, UserProfile)
    return users


async def ours_raw(url: str, count: int) -> int:
    """Bytes as sent, into an NDJSON file."""
    users = 0
    with _output() as file:
        async with _client(url) as braze:
            async for raw in braze.users.export_ids(identifiers(count)).raw():
                file.write(raw)
                file.write(b"\n")
                users += 1
    return users


async def hand_typed(url: str, count: int) -> int:
    """What one writes first: gather over every request, dictionaries."""
    async with aiohttp.ClientSession(headers=_headers()) as session:
        answers = await asyncio.gather(*(_ask(session, url, c) for c in _chunks(count)))
    return sum(len(answer["users"]) for answer in answers)


async def hand_raw(url: str, count: int) -> int:
    """The same, written out again with ``orjson.dumps``."""
    users = 0
    async with aiohttp.ClientSession(headers=_headers()) as session:
        answers = await asyncio.gather(*(_ask(session, url, c) for c in _chunks(count)))
    with _output() as file:
        for answer in answers:
            for user in answer["users"]:
                file.write(orjson.dumps(user) + b"\n")
                users += 1
    return users


async def bounded_typed(url: str, count: int) -> int:
    """The careful hand: 16 requests at once, nothing kept."""
    return await _bounded(url, count, lambda _: None)


async def bounded_raw(url: str, count: int) -> int:
    """The careful hand, written out again with ``orjson.dumps``."""
    with _output() as file:
        return await _bounded(url, count, lambda user: file.write(orjson.dumps(user) + b"\n"))


async def _bounded(url: str, count: int, take: Callable[[Any], object]) -> int:
    gate = asyncio.Semaphore(16)
    users = 0

    async def one(session: aiohttp.ClientSession, chunk: list[str]) -> None:
        nonlocal users
        async with gate:
            answer = await _ask(session, url, chunk)
        for user in answer["users"]:
            take(user)
            users += 1

    async with aiohttp.ClientSession(headers=_headers()) as session:
        await asyncio.gather(*(one(session, c) for c in _chunks(count)))
    return users


async def _ask(session: aiohttp.ClientSession, url: str, chunk: list[str]) -> Any:
    async with session.post(f"{url}/users/export/ids", json={"external_ids": chunk}) as answer:
        return orjson.loads(await answer.read())


def _chunks(count: int) -> list[list[str]]:
    ids = list(identifiers(count))
    return [ids[i : i + 50] for i in range(0, count, 50)]


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['BENCH_KEY']}"}


def _output() -> BinaryIO:
    return tempfile.TemporaryFile("w+b", dir=Path.cwd())


SIDES: dict[str, Callable[[str, int], Coroutine[Any, Any, int]]] = {
    f.__name__: f for f in (ours_typed, ours_raw, hand_typed, hand_raw, bounded_typed, bounded_raw)
}


def main() -> None:
    """Run one side and print what it took."""
    name, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    began, used = time.perf_counter(), time.process_time()
    users = asyncio.run(SIDES[name](url, count))
    print(
        json.dumps(
            {
                "users": users,
                "seconds": time.perf_counter() - began,
                "cpu": time.process_time() - used,
                "peak_mb": peak_mb(),
            }
        )
    )


if __name__ == "__main__":
    main()
