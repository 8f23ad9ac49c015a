"""One side of a bulk job, run in a fresh process.

``python -m benchmarks.bulk_sides NAME URL COUNT DIRECTORY``: the key comes from the environment,
the identifiers from ``ids.txt`` in the directory, one a line; the output goes there too. Prints
one line of JSON.
"""

import asyncio
import hashlib
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson
from attrs import define

from benchmarks.peak import peak_mb
from benchmarks.sides import UNLIMITED
from braze_export import BrazeClient

IDS = "ids.txt"
_AT_ONCE = 32
_ROWS = 10_000  # of a row group of the hand-written Parquet
_EXTERNAL_ID = re.compile(rb'"external_id":"([^"]*)"')


async def hand_ndjson(url: str, directory: Path) -> Path:
    """The careful hand: 32 requests at once, nothing kept, a write for each answer."""
    output = directory / "profiles.ndjson"
    with output.open("wb") as profiles, (directory / "unknown.txt").open("w") as unknown:

        def take(answer: Any) -> None:
            profiles.write(b"".join(orjson.dumps(user) + b"\n" for user in answer["users"]))
            unknown.writelines(f"{name}\n" for name in answer.get("invalid_user_ids", ()))

        await _by_hand(url, directory / IDS, take)
    return output


async def hand_parquet(url: str, directory: Path) -> Path:
    """The same, as rows of which 10,000 make a table; the first table's schema holds for all."""
    output = directory / "profiles.parquet"
    rows: list[dict[str, Any]] = []
    with _Tables(output) as tables, (directory / "unknown.txt").open("w") as unknown:

        def take(answer: Any) -> None:
            rows.extend(_row(user) for user in answer["users"])
            unknown.writelines(f"{name}\n" for name in answer.get("invalid_user_ids", ()))
            if len(rows) >= _ROWS:
                tables.write(rows)
                rows.clear()

        await _by_hand(url, directory / IDS, take)
        if rows:
            tables.write(rows)
    return output


@define
class _Tables:
    """A Parquet file whose schema is that of the first rows."""

    output: Path
    writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa  # type: ignore[import-untyped] # noqa: PLC0415 - costs memory
        from pyarrow.parquet import ParquetWriter  # type: ignore[import-untyped] # noqa: PLC0415

        table = pa.Table.from_pylist(rows, schema=self.writer and self.writer.schema)
        self.writer = self.writer or ParquetWriter(self.output, table.schema)
        self.writer.write_table(table)


def _row(user: dict[str, Any]) -> dict[str, Any]:
    # What pyarrow cannot find one type for: attributes of any shape, numbers sent as text.
    if "custom_attributes" in user:
        user["custom_attributes"] = orjson.dumps(user["custom_attributes"]).decode()
    for app in user.get("apps", ()):
        app["sessions"] = int(app["sessions"])
    return user


async def ours_ndjson(url: str, directory: Path) -> Path:
    """The job, journal included."""
    return await _job(url, directory, directory / "profiles.ndjson")


async def ours_parquet(url: str, directory: Path) -> Path:
    """The same into Parquet."""
    return await _job(url, directory, directory / "profiles.parquet")


async def _job(url: str, directory: Path, output: Path) -> Path:
    from braze_export.jobs import export_ids  # noqa: PLC0415 - the other sides are without it

    async with BrazeClient(os.environ["BENCH_KEY"], url, limits=UNLIMITED) as braze:
        report = await export_ids(braze, directory / IDS, output, concurrency=_AT_ONCE)
    if not report.complete:
        raise SystemExit(f"the job ended before its end: {report}")
    return output


async def server_alone(url: str, directory: Path) -> Path:
    """No client at all: bytes out, bytes in, nothing read. What the server can do at most."""
    host, _, port = url.removeprefix("http://").partition(":")
    chunks = _chunks(_lines(directory / IDS))
    loop = asyncio.get_running_loop()
    bare = [_Bare(chunks, loop.create_future()) for _ in range(_AT_ONCE)]
    for protocol in bare:
        await loop.create_connection(lambda p=protocol: p, host, int(port))  # type: ignore[misc]
    await asyncio.gather(*(protocol.done for protocol in bare))
    return directory / IDS


class _Bare(asyncio.BufferedProtocol):
    """Sends the next request once so many bytes came as the answer's head says."""

    def __init__(self, chunks: Iterator[list[str]], done: "asyncio.Future[None]") -> None:
        self.done = done
        self._chunks = chunks
        self._buffer = bytearray(1024 * 1024)
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def get_buffer(self, _size: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        if not self._missing:
            head = bytes(self._buffer[: min(count, 1000)]).partition(b"\r\n\r\n")[0]
            length = int(head.rpartition(b"content-length: ")[2])
            self._missing = len(head) + 4 + length
        self._missing -= count
        if not self._missing:
            self._ask()

    def _ask(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            self._transport.close()
            self.done.set_result(None)
            return
        body = orjson.dumps({"external_ids": chunk})
        self._transport.write(
            b"POST /users/export/ids HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
            b"content-length: %d\r\n\r\n%s" % (os.environ["BENCH_KEY"].encode(), len(body), body)
        )


async def _by_hand(url: str, ids: Path, take: Callable[[Any], None]) -> None:
    """Hand over the answers as they come: workers that share the file."""
    chunks = _chunks(_lines(ids))
    headers = {
        "Authorization": f"Bearer {os.environ['BENCH_KEY']}",
        "Content-Type": "application/json",
    }

    async def worker(session: aiohttp.ClientSession) -> None:
        for chunk in chunks:
            body = orjson.dumps({"external_ids": chunk})
            async with session.post(f"{url}/users/export/ids", data=body) as answer:
                answer.raise_for_status()
                take(orjson.loads(await answer.read()))

    async with aiohttp.ClientSession(headers=headers) as session:
        await asyncio.gather(*(worker(session) for _ in range(_AT_ONCE)))


def _lines(path: Path) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            yield line.rstrip("\n")


def _chunks(ids: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(ids, 50)):
        yield chunk


def external_ids(output: Path) -> Iterator[bytes]:
    """Yield the external id of every row of an output."""
    if output.suffix == ".parquet":
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - costs memory

        with ParquetFile(output) as file:
            for batch in file.iter_batches(columns=["external_id"]):
                yield from (value.encode() for value in batch.column(0).to_pylist())
        return
    with output.open("rb") as file:
        for line in file:
            found = _EXTERNAL_ID.search(line)
            assert found is not None, "a line without an external id"
            yield found[1]


def summed(ids: Iterable[bytes]) -> tuple[int, int]:
    """Return how many there are, and a sum that any other ids would miss; order is nothing."""
    number = total = 0
    for name in ids:
        number += 1
        total += int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
    return number, total % 2**64


SIDES: dict[str, Callable[[str, Path], Coroutine[Any, Any, Path]]] = {
    f.__name__: f for f in (hand_ndjson, hand_parquet, ours_ndjson, ours_parquet, server_alone)
}


def main() -> None:
    """Run one side, print what it took, and check afterwards what it wrote."""
    name, url, count, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    began, used = time.perf_counter(), _cpu()
    output = asyncio.run(SIDES[name](url, directory))
    seconds = time.perf_counter() - began
    took = {"ids": count, "seconds": seconds, "cpu": _cpu() - used, "peak_mb": _peak()}
    if name != "server_alone":
        wanted = summed(line.encode() for line in _lines(directory / IDS))
        if summed(external_ids(output)) != wanted or wanted[0] != count:
            raise SystemExit(f"{name} did not write each of {count} ids once")
    print(json.dumps(took))


def _cpu() -> float:
    # With what processes took that the side started, should it start any.
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _peak() -> float:
    return peak_mb() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


if __name__ == "__main__":
    main()
