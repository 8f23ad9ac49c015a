"""One side of a comparison over an archive, in a fresh process.

``python -m benchmarks.archive_sides SIDE FILE OUTPUT``; prints one line of JSON. ``NO_ISAL=1``
hides the faster inflate.
"""

import asyncio
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

if os.environ.get("NO_ISAL"):
    sys.modules["isal"] = None  # type: ignore[assignment]

from benchmarks.peak import peak_mb
from benchmarks.watch import Watch
from braze_export import UserProfile, read_archive

_BUFFER = 1 << 20  # of the output file: the same for both


async def ours_typed(path: Path, _output: Path) -> dict[str, Any]:
    """Typed records, streamed."""
    users = 0
    watch = Watch(asyncio.get_running_loop())
    watch.start()
    async for profile in read_archive(path):
        users += isinstance(profile, UserProfile)
    watch.stop()
    return {"users": users, "hold_ms": watch.longest * 1000}


async def ours_raw(path: Path, output: Path) -> dict[str, Any]:
    """Lines as they are, each one checked, into an NDJSON file."""
    users = 0
    with output.open("wb", _BUFFER) as file:
        async for line in read_archive(path, bytes):
            file.write(line)
            file.write(b"\n")
            users += 1
    return {"users": users}


async def hand_typed(path: Path, _output: Path) -> dict[str, Any]:
    """What one writes by hand: dictionaries."""
    users = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as file:
                for line in file:
                    users += isinstance(orjson.loads(line), dict)
    return {"users": users}


async def hand_raw(path: Path, output: Path) -> dict[str, Any]:
    """The same, written out again with ``orjson.dumps``."""
    users = 0
    with zipfile.ZipFile(path) as archive, output.open("wb", _BUFFER) as out:
        for info in archive.infolist():
            with archive.open(info) as file:
                for line in file:
                    out.write(orjson.dumps(orjson.loads(line)) + b"\n")
                    users += 1
    return {"users": users}


SIDES: dict[str, Callable[[Path, Path], Coroutine[Any, Any, dict[str, Any]]]] = {
    side.__name__: side for side in (ours_typed, ours_raw, hand_typed, hand_raw)
}


def main() -> None:
    """Run one side and print what it took."""
    name, path, output = sys.argv[1:]
    began, used = time.perf_counter(), time.process_time()
    result = asyncio.run(SIDES[name](Path(path), Path(output)))
    result |= {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - used,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
