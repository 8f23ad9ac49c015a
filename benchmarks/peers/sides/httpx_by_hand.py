"""By hand, with care: httpx, a semaphore, and a loop that tries again."""

import asyncio
import time
from typing import Any

import httpx

from benchmarks.peers.sides.course import AT_ONCE, PATIENCE, Course, run

_TRIES = 5


async def _ask(client: httpx.AsyncClient, batch: list[str]) -> Any:
    for tried in range(1, _TRIES + 1):
        pause = 0.5 * 2**tried
        try:
            answer = await client.post("/users/export/ids", json={"external_ids": batch})
            if answer.status_code == 429:
                pause = float(answer.headers["x-ratelimit-reset"]) - time.time()
            return answer.raise_for_status().json()
        except httpx.HTTPError:
            if tried == _TRIES:
                raise
        await asyncio.sleep(max(0.0, pause))
    raise AssertionError("the last try ends in an answer or an error")


async def _export(course: Course) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(batch: list[str]) -> None:
        async with gate:
            try:
                course.took(await _ask(client, batch))
            except httpx.HTTPError as error:
                course.failed(batch, error)

    async with httpx.AsyncClient(
        base_url=course.url,
        headers=course.headers,
        timeout=PATIENCE,
        # It keeps 20 connections unless told otherwise.
        limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
    ) as client:
        await asyncio.gather(*(one(batch) for batch in course.batches()))


if __name__ == "__main__":
    run(lambda course: asyncio.run(_export(course)))
