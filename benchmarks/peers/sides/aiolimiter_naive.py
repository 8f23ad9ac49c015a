"""By hand, without much thought: aiohttp, a bucket of the limit, and everything gathered.

A bucket is not a window: it leaks while it is full, so that almost two limits fit into the
first period.
"""

import asyncio
from typing import Any

import aiohttp
import orjson
from aiolimiter import AsyncLimiter

from benchmarks.peers.sides.course import Course, run


async def _export(course: Course) -> None:
    limiter = AsyncLimiter(course.limit, course.period)

    async def one(session: aiohttp.ClientSession, batch: list[str]) -> Any:
        async with (
            limiter,
            session.post(f"{course.url}/users/export/ids", json={"external_ids": batch}) as answer,
        ):
            answer.raise_for_status()
            return orjson.loads(await answer.read())

    batches = list(course.batches())
    async with aiohttp.ClientSession(headers=course.headers) as session:
        answers = await asyncio.gather(
            *(one(session, batch) for batch in batches), return_exceptions=True
        )
    for batch, answer in zip(batches, answers, strict=True):
        if isinstance(answer, BaseException):
            course.failed(batch, answer)
        else:
            course.took(answer)


if __name__ == "__main__":
    run(lambda course: asyncio.run(_export(course)))
