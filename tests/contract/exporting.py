"""What tests of exports in the background share: clients that do not wait, and what is left."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import attrs

import braze_export
from braze_export import BrazeClient, ExportJob, ExportSettings, Polling
from braze_export.sandbox import Sandbox

#: Looks without real waiting.
POLLING = Polling(base=0.0002, cap=0.0005)
EAGER = ExportSettings(polling=POLLING)

EXPORT = "/users/export/segment"
LINKS = "/exports/"

_PACKAGE = str(Path(braze_export.__file__).parent)


@attrs.define
class Clock:
    """The sandbox's clock, which moves only when told."""

    now: float = attrs.Factory(time.time)

    def __call__(self) -> float:
        return self.now


async def start(braze: BrazeClient, sandbox: Sandbox, n: int = 1, **options: Any) -> ExportJob:
    return await braze.users.export_segment(
        sandbox.segment_id(n), **({"fields": ["external_id"]} | options)
    )


async def ids(users: AsyncGenerator[Any, None]) -> list[str]:
    return [str(user.external_id) async for user in users]


def looks(sandbox: Sandbox) -> int:
    """How often links were asked for anything."""
    return sum(record.path.startswith(LINKS) for record in sandbox.log)


def at_work() -> set[str]:
    """The package's own tasks that still run, those of the sandbox apart."""
    codes = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    return {
        code.co_qualname
        for code in codes
        if code is not None
        and code.co_filename.startswith(_PACKAGE)
        and "sandbox" not in code.co_filename
    }


def files_in(directory: Path) -> list[str]:
    """The files in a directory, open ones without a name included."""
    open_now = []
    for number in os.listdir("/proc/self/fd"):
        try:
            open_now.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    named = [path.name for path in directory.iterdir()]
    return named + [path for path in open_now if path.startswith(str(directory))]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came")
