"""A bucket export of 200 objects: what is the limit, the network or the decompressor?

``python -m benchmarks.bucket``. The same objects in a folder (obstore's LocalStore: no network)
and, where moto is installed, on an S3 server on loopback. Beside our reading stands each half
alone: fetching without unpacking, and unpacking what is in memory already.
"""

import asyncio
import itertools
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from obstore.store import LocalStore, from_url

from benchmarks.archives import make_gzip, varied_lines
from benchmarks.table import Row, show
from braze_export import ArchiveLimits, ExportSettings
from braze_export.archives.archive import Unpacker
from braze_export.codec import decoder_for
from braze_export.endpoints import EXPORT_SEGMENT
from braze_export.storage import read_export
from tests.storage import servers

_OBJECTS = 200
_USERS = 500  # in each
_AT_ONCE = ExportSettings().concurrency
_SETTINGS = ExportSettings(quiet_period=0, concurrency=_AT_ONCE)
_BASE = "segment-export/segment/2026-11-21/prefix-1700000000"


def measure() -> list[Row]:
    """Read the objects from both stores."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        unpacked = _make(folder)
        rows = asyncio.run(_measure(LocalStore(folder), "folder", unpacked))
        with servers.s3() as server:
            server.create("bucket")
            store = from_url(
                server.address("bucket"),
                config=_config(server),
                client_options={"allow_http": True},
            )
            for path in sorted(folder.glob("**/*.gz")):
                store.put(str(path.relative_to(folder)), path)
            rows += asyncio.run(_measure(store, "S3 server on loopback", unpacked))
    return rows


def _config(server: servers.Server) -> Any:
    options = {name.lower(): value for name, value in server.environment().items()}
    del options["aws_allow_http"]
    return options


def _make(folder: Path) -> int:
    target = folder / _BASE
    target.mkdir(parents=True)
    lines = itertools.chain.from_iterable(varied_lines(10**9) for _ in itertools.count())
    made = [make_gzip(target / f"{n:032x}.gz", lines, _USERS) for n in range(_OBJECTS)]
    return sum(one.unpacked for one in made)


async def _measure(store: Any, name: str, unpacked: int) -> list[Row]:
    paths = [meta["path"] async for some in store.list("segment-export") for meta in some]
    began = time.perf_counter()
    bodies = await _fetched(store, paths)
    fetching = time.perf_counter() - began
    began = time.perf_counter()
    parts = await asyncio.gather(*(_unpacked(bodies[n::_AT_ONCE]) for n in range(_AT_ONCE)))
    unpacking = time.perf_counter() - began
    began = time.perf_counter()
    decode = decoder_for(bytes, EXPORT_SEGMENT, checked=False)
    for line in itertools.chain.from_iterable(parts):
        decode(line)
    checking = time.perf_counter() - began
    del bodies, parts
    with _processor() as used:
        users = 0
        async for _ in read_export(store, "segment", into=bytes, settings=_SETTINGS):
            users += 1
    if users != _OBJECTS * _USERS:
        raise SystemExit(f"{users} users came")
    alone = {"the network": fetching, "the decompressor": unpacking, "the reader": checking}
    print(
        f"  {name}: alone, fetching takes {fetching:.2f} s, unpacking {unpacking:.2f} s "
        f"({_AT_ONCE} threads), checking the lines {checking:.2f} s; all of it took "
        f"{used['wall']:.2f} s on {used['cores']:.2f} cores: {max(alone, key=alone.__getitem__)} "
        "is the limit"
    )
    return [Row(f"bucket, {name}: unpacked", unpacked / used["wall"] / 1e6, None, "MB/s")]


async def _fetched(store: Any, paths: list[str]) -> list[bytes]:
    bodies: list[bytes] = []

    async def some(mine: list[str]) -> None:
        for path in mine:
            bodies.append(bytes(await (await store.get_async(path)).bytes_async()))  # noqa: PERF401

    await asyncio.gather(*(some(paths[n::_AT_ONCE]) for n in range(_AT_ONCE)))
    return bodies


async def _unpacked(bodies: list[bytes]) -> list[bytes]:
    def work() -> list[bytes]:
        lines: list[bytes] = []
        for body in bodies:
            unpacker = Unpacker("object", ArchiveLimits())
            for block in itertools.chain(unpacker.feed(body), unpacker.close()):
                lines += filter(None, block.lines)
        return lines

    return await asyncio.to_thread(work)


@contextmanager
def _processor() -> Iterator[dict[str, float]]:
    found: dict[str, float] = {}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    yield found
    after, found["wall"] = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found["cores"] = used / found["wall"]


if __name__ == "__main__":
    show(measure())
