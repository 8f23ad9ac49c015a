"""This library, as it comes: ``users.export_ids`` with its defaults, decoded or not.

``python -m benchmarks.peers.sides.ours TASK raw|typed|hurried``: the last decodes as well, and is
told not to wait for an answer as long as it would.
"""

import asyncio
import re
import sys
from contextlib import aclosing

from benchmarks.peers.sides.course import PATIENCE, Course, run
from braze_export import BrazeClient, BrazeError, Timeouts
from braze_export.batches.ids_export import IdsExport

_EXTERNAL_ID = re.compile(rb'"external_id":"([^"]*)"')
_MANNERS = {"raw": None, "typed": None, "hurried": Timeouts(read=PATIENCE)}


async def _raw(export: IdsExport, course: Course) -> None:
    async with aclosing(export.raw()) as records:
        async for record in records:
            found = _EXTERNAL_ID.search(record)
            assert found is not None, "a profile without an external id"
            course.answered.add(found[1].decode())


async def _typed(export: IdsExport, course: Course) -> None:
    async with aclosing(export.profiles()) as profiles:
        async for profile in profiles:
            assert profile.external_id is not None
            course.answered.add(profile.external_id)


async def _export(course: Course, manner: str) -> None:
    async with BrazeClient(course.key, course.url, timeouts=_MANNERS[manner]) as braze:
        export = braze.users.export_ids(course.ids)
        error: BrazeError | None = None
        try:
            await (_raw if manner == "raw" else _typed)(export, course)
        except BrazeError as raised:
            error = raised
        course.unknown.update(str(name) for name in export.invalid_user_ids)
        if error is not None:
            course.ended(error)


if __name__ == "__main__":
    run(lambda course: asyncio.run(_export(course, sys.argv[2])))
