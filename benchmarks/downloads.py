"""When records come, and how long the storage is kept waiting: three ways to fetch an archive.

``python -m benchmarks.downloads``. The network is slowed to a pace where both sides count.
No bounds: this is the measurement behind a decision (docs/architecture.md).
"""

import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from attrs import frozen

from benchmarks.table import Row, show
from braze_export import BrazeClient, ExportField, ExportJob, ExportSettings, read_archive
from braze_export.sandbox import Fault, Sandbox

_USERS = 60_000
_PACE = 5_000_000  # bytes a second
_FIELDS = list(ExportField)
_KEY = "benchmark-key"
_SLOW_READER = 0.0002  # seconds that a slow reader takes for each record


@frozen
class Times:
    """Seconds until something was there."""

    first: float
    fetched: float
    done: float


def measure() -> list[Row]:
    """Fetch the same archive in each way, by a quick and by a slow reader."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    url, segment = ours.recv()
    try:
        rows = asyncio.run(_measure(url, segment))
    finally:
        server.terminate()
        server.join()
    return rows


async def _measure(url: str, segment: str) -> list[Row]:
    rows = []
    straight = ExportSettings(spool_memory=1, spool_directory=Path("/nonexistent"), concurrency=1)
    for reader, pause in (("quick reader", 0.0), ("slow reader", _SLOW_READER)):
        for name, settings in (("ahead of the reader", None), ("straight through", straight)):
            async with BrazeClient(_KEY, url, exports=settings) as braze:
                job = await braze.users.export_segment(segment, fields=_FIELDS)
                await job.wait()
                rows += _rows(f"{reader}, {name}", await _streamed(job, pause))
        async with BrazeClient(_KEY, url) as braze:
            job = await braze.users.export_segment(segment, fields=_FIELDS)
            await job.wait()
            rows += _rows(f"{reader}, download first", await _downloaded(job, pause))
    return rows


def _rows(name: str, times: Times) -> list[Row]:
    return [
        Row(f"{name}: first record", times.first, None, "s"),
        Row(f"{name}: last byte fetched", times.fetched, None, "s"),
        Row(f"{name}: last record", times.done, None, "s"),
    ]


async def _streamed(job: ExportJob, pause: float) -> Times:
    began = time.perf_counter()
    first = fetched = 0.0
    async for _ in job.profiles():
        now = time.perf_counter() - began
        first = first or now
        stats = job.stats
        if not fetched and stats.bytes_received == stats.bytes_total:
            fetched = now
        _dawdle(pause)
    return Times(first, fetched, time.perf_counter() - began)


async def _downloaded(job: ExportJob, pause: float) -> Times:
    began = time.perf_counter()
    first = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = await job.download(Path(folder, "export.zip"))
        fetched = time.perf_counter() - began
        async for _ in read_archive(path):
            first = first or time.perf_counter() - began
            _dawdle(pause)
    return Times(first, fetched, time.perf_counter() - began)


def _dawdle(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def serve(pipe: Connection) -> None:
    """Serve an archive at the pace, until terminated."""
    asyncio.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    async with Sandbox(users=_USERS, profile="typical", api_key=_KEY) as sandbox:
        sandbox.inject(Fault(slow=_PACE), times=1_000_000, path="/exports/")
        pipe.send((sandbox.url, sandbox.segment_id(1)))
        await asyncio.Event().wait()


if __name__ == "__main__":
    show(measure())
