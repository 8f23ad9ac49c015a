"""By hand, with care: aiohttp, a semaphore, orjson, and a loop that tries again."""

import asyncio
import time
from typing import Any

import aiohttp
import orjson

from benchmarks.peers.sides.course import AT_ONCE, PATIENCE, Course, run

_TRIES = 5


async def _ask(session: aiohttp.ClientSession, url: str, batch: list[str]) -> Any:
    body = orjson.dumps({"external_ids": batch})
    for tried in range(1, _TRIES + 1):
        pause = 0.5 * 2**tried
        try:
            async with session.post(f"{url}/users/export/ids", data=body) as answer:
                if answer.status == 429:
                    pause = float(answer.headers["x-ratelimit-reset"]) - time.time()
                answer.raise_for_status()
                return orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            if tried == _TRIES:
                raise
        await asyncio.sleep(max(0.0, pause))
    raise AssertionError("the last try ends in an answer or an error")


async def _export(course: Course) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(batch: list[str]) -> None:
        async with gate:
            try:
                course.took(await _ask(session, course.url, batch))
            except (aiohttp.ClientError, TimeoutError) as error:
                course.failed(batch, error)

    async with aiohttp.ClientSession(
        headers=course.headers | {"Content-Type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
    ) as session:
        await asyncio.gather(*(one(batch) for batch in course.batches()))


if __name__ == "__main__":
    run(lambda course: asyncio.run(_export(course)))
