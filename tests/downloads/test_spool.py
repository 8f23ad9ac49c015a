"""The queue between a download and its reader: what is put in comes out, wherever it was kept."""

import asyncio
import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from hypothesis import given, settings
from hypothesis import strategies as st

from braze_export.downloads.spool import Spool
from braze_export.errors import ConnectionLostError

MB = 1024 * 1024


async def get(spool: Spool) -> bytes:
    """As it is done: wait in the loop, take in a thread."""
    await spool.wait()
    return await asyncio.to_thread(spool.take)


async def drained(spool: Spool) -> bytes:
    found = b""
    while data := await get(spool):
        found += data
    return found


def on_disk(spool: Spool) -> int:
    file = spool._overflow._file
    return 0 if file is None else os.fstat(file.fileno()).st_size


def open_files() -> set[str]:
    """Name the files that are open and deleted: temporary ones have no other name."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if "(deleted)" in target:
            found.add(f"{number} {target}")
    return found


@pytest.fixture(autouse=True)
def no_file_left(blocking_calls_fail: BlockBuster) -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() <= before


def runs(main: Callable[[], Any]) -> Any:
    """Run in a loop of its own: several times in one test."""
    return asyncio.run(main())


# --- order and bounds


CHUNKS = st.lists(st.integers(1, 40), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    sizes=CHUNKS,
    memory=st.integers(1, 100),
    steps=st.lists(st.booleans(), max_size=60),
)
def test_whatever_the_turns_the_same_bytes_come(
    sizes: list[int], memory: int, steps: list[bool]
) -> None:
    async def main() -> None:
        spool = Spool(memory, None)
        chunks = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
        waiting, found, put = list(chunks), b"", 0
        try:
            for wants_put in steps:
                if wants_put and waiting:
                    put += len(waiting[0])
                    await spool.put(waiting.pop(0))
                elif len(found) < put:
                    found += await get(spool)
                held = sum(map(len, spool._chunks))
                assert held == spool._held < memory + 40
            for chunk in waiting:
                await spool.put(chunk)
            spool.end()
            assert found + await drained(spool) == b"".join(chunks)
            assert await get(spool) == b""
        finally:
            await spool.aclose()

    runs(main)


@settings(max_examples=40, deadline=None)
@given(sizes=CHUNKS, memory=st.integers(1, 100), lazy=st.lists(st.booleans(), max_size=30))
def test_side_by_side_the_same_bytes_come(sizes: list[int], memory: int, lazy: list[bool]) -> None:
    async def main() -> None:
        spool = Spool(memory, None)
        chunks = [bytes([n % 256]) * size for n, size in enumerate(sizes)]

        async def fill() -> None:
            for chunk in chunks:
                await spool.put(chunk)
            spool.end()

        filling = asyncio.create_task(fill())
        found = b""
        for pause in [*lazy, *[False] * 100]:
            if pause:
                await asyncio.sleep(0.0002)
            data = await get(spool)
            if not data:
                break
            found += data
        assert found == b"".join(chunks)
        await filling
        await spool.aclose()

    runs(main)


async def test_bytes_taken_as_fast_as_they_come_touch_no_disk() -> None:
    spool = Spool(1, Path("/nowhere"))
    for n in range(100):
        await spool.put(bytes([n]))
        assert await get(spool) == bytes([n])
    spool.end()
    assert await get(spool) == b""
    assert spool._overflow._file is None
    await spool.aclose()


async def test_what_is_ahead_goes_to_disk_which_shrinks_again(tmp_path: Path) -> None:
    spool = Spool(MB, tmp_path)
    chunk = bytes(range(256)) * 1024  # 256 KB
    for round_ in range(2):
        for _ in range(20):
            await spool.put(chunk)
        assert spool._held == MB
        assert await asyncio.to_thread(on_disk, spool) == 16 * len(chunk), round_
        assert await asyncio.to_thread(os.listdir, tmp_path) == []  # it has no name
        got = [await get(spool) for _ in range(5)]
        assert [len(data) for data in got] == [MB] * 5
        assert b"".join(got) == chunk * 20
        assert (spool._held, await asyncio.to_thread(on_disk, spool)) == (0, 0)
    await spool.aclose()


async def test_little_is_given_at_once() -> None:
    spool = Spool(8 * MB, None)
    for size in (100, 200, MB - 300, 1, 2 * MB, 5):
        await spool.put(bytes(size))
    spool.end()
    assert [len(await get(spool)) for _ in range(5)] == [MB, 1, 2 * MB, 5, 0]
    await spool.aclose()


async def test_an_empty_chunk_is_no_end() -> None:
    spool = Spool(10, None)
    await spool.put(b"")
    getting = asyncio.create_task(get(spool))
    await asyncio.sleep(0)
    await spool.put(b"x")
    assert await getting == b"x"
    await spool.aclose()


# --- the end


@pytest.mark.parametrize("memory", [1, 1000])
async def test_an_error_comes_after_all_bytes(memory: int) -> None:
    spool = Spool(memory, None)
    for n in range(10):
        await spool.put(bytes([n]))
    error = ConnectionLostError("gone")
    spool.end(error)
    found = b""
    with pytest.raises(ConnectionLostError) as caught:
        while data := await get(spool):
            found += data
    assert caught.value is error
    assert found == bytes(range(10))
    await spool.aclose()


@pytest.mark.parametrize("error", [None, ConnectionLostError("gone")])
async def test_the_end_wakes_the_reader(error: Exception | None) -> None:
    spool = Spool(10, None)
    getting = asyncio.create_task(get(spool))
    await asyncio.sleep(0)
    spool.end(error)
    if error is None:
        assert await getting == b""
    else:
        with pytest.raises(ConnectionLostError):
            await getting
    await spool.aclose()


# --- no room


class Full:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: bytes) -> int:
        part = data[: max(1, len(data) // 2)]  # a raw file may take less than all
        if self._room < len(part):
            raise OSError(errno.ENOSPC, "No space left on device")
        self._room -= len(part)
        return int(self._file.write(part))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


async def through(spool: Spool, chunks: list[bytes], pause: float = 0.0) -> bytes:
    async def fill() -> None:
        for chunk in chunks:
            await spool.put(chunk)
        spool.end()

    filling = asyncio.create_task(fill())
    found = b""
    async with asyncio.timeout(10):
        while data := await get(spool):
            found += data
            await asyncio.sleep(pause)
        await filling
    await spool.aclose()
    return found


@pytest.mark.parametrize("room", [0, 1, 5, 25, 99])
async def test_a_full_disk_means_the_readers_pace(
    room: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **o: Full(make(**o), room))
    chunks = [bytes([n]) * 10 for n in range(50)]
    spool = Spool(20, None)
    assert await through(spool, chunks, pause=0.0002) == b"".join(chunks)
    assert not spool._overflow.usable
    [said] = [record.getMessage() for record in caplog.records]
    assert "no room for a temporary file (No space left on device)" in said


async def test_a_directory_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    chunks = [bytes([n]) * 10 for n in range(50)]
    spool = Spool(20, Path("/nowhere/at/all"))
    assert await through(spool, chunks) == b"".join(chunks)
    assert len(caplog.records) == 1


async def test_without_room_put_waits() -> None:
    spool = Spool(20, Path("/nowhere/at/all"))
    for _ in range(2):
        await spool.put(bytes(10))
    putting = asyncio.create_task(spool.put(bytes(5)))
    await asyncio.sleep(0.02)
    assert not putting.done()
    assert spool._held == 20
    await get(spool)
    await putting
    spool.end()
    assert await drained(spool) == bytes(5)
    await spool.aclose()


async def test_all_is_taken_while_a_write_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fails(**_: Any) -> Any:
        begun.set()
        go_on.wait(5)
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    spool = Spool(1, None)
    await spool.put(b"a")
    putting = asyncio.create_task(spool.put(b"b"))
    await asyncio.to_thread(begun.wait, 5)
    assert await get(spool) == b"a"
    go_on.set()
    async with asyncio.timeout(5):
        await putting
        assert await get(spool) == b"b"
    await spool.aclose()


async def test_a_disk_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(1, None)
    await spool.put(b"a")
    await spool.put(b"b")
    assert await get(spool) == b"a"
    monkeypatch.setattr(spool._overflow, "read", lambda: os.read(-1, 1))
    with pytest.raises(OSError, match="Bad file"):
        await get(spool)
    await spool.aclose()


# --- closing


class Slow:
    """A file whose reading and writing takes until it is let go."""

    def __init__(self, file: Any, begun: threading.Event, go_on: threading.Event) -> None:
        self._file, self._begun, self._go_on = file, begun, go_on

    def _slowly(self) -> None:
        self._begun.set()
        self._go_on.wait(5)

    def write(self, data: bytes) -> int:
        self._slowly()
        return int(self._file.write(data))

    def read(self, size: int) -> bytes:
        self._slowly()
        return bytes(self._file.read(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    begun, go_on = threading.Event(), threading.Event()
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **o: Slow(make(**o), begun, go_on))
    return begun, go_on


Events = tuple[threading.Event, threading.Event]


async def test_closing_while_a_put_is_in_its_thread(slow: Events, nothing_left: None) -> None:
    begun, go_on = slow
    spool = Spool(1, None)
    await spool.put(b"a")
    putting = asyncio.create_task(spool.put(b"b"))
    await asyncio.to_thread(begun.wait, 5)
    putting.cancel()
    await asyncio.wait([putting])
    closing = asyncio.create_task(spool.aclose())
    await asyncio.sleep(0.01)
    assert not closing.done()  # it waits for the thread, in a thread
    go_on.set()
    await closing
    assert spool._overflow._file is not None
    assert spool._overflow._file.closed


async def test_closing_while_a_get_is_in_its_thread(slow: Events, nothing_left: None) -> None:
    begun, go_on = slow
    go_on.set()
    spool = Spool(1, None)
    await spool.put(b"a")
    await spool.put(b"b")
    assert await get(spool) == b"a"
    begun.clear()
    go_on.clear()
    getting = asyncio.create_task(get(spool))
    await asyncio.to_thread(begun.wait, 5)
    getting.cancel()
    await asyncio.wait([getting])
    go_on.set()
    await spool.aclose()
    assert spool._overflow._file is not None
    assert spool._overflow._file.closed


async def test_closing_goes_on_when_it_is_cancelled(slow: Events, nothing_left: None) -> None:
    begun, go_on = slow
    spool = Spool(1, None)
    await spool.put(b"a")
    putting = asyncio.create_task(spool.put(b"b"))
    await asyncio.to_thread(begun.wait, 5)
    closing = asyncio.create_task(spool.aclose())
    await asyncio.sleep(0.01)
    closing.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not closing.done()  # whoever cancelled it finds the file gone
    go_on.set()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert spool._overflow._file is not None
    assert spool._overflow._file.closed
    await putting


async def test_what_comes_after_closing_opens_nothing() -> None:
    spool = Spool(1, None)
    await spool.put(b"a")
    await spool.aclose()
    await spool.put(b"b")  # its thread may begin only now
    assert spool._overflow._file is None
    await spool.aclose()
    other = Spool(1, None)
    await other.put(b"a")
    await other.put(b"b")
    await other.aclose()
    assert other._overflow.read() == b""


async def test_the_loop_goes_on_while_a_disk_is_slow(slow: Events) -> None:
    begun, go_on = slow
    spool = Spool(1, None)
    await spool.put(b"a")
    putting = asyncio.create_task(spool.put(b"b"))
    await asyncio.to_thread(begun.wait, 5)
    turns = 0
    while turns < 100:
        turns += 1
        await asyncio.sleep(0)
    assert not putting.done()
    go_on.set()
    await putting
    await spool.aclose()


async def test_what_comes_while_it_is_looked_for_keeps_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(1, tmp_path)
    loop, looked = asyncio.get_running_loop(), spool._from_memory

    async def put() -> None:
        await spool.put(b"first")  # into memory
        await spool.put(b"second")  # which is full by now
        spool.end()

    def look() -> bytes:
        found = looked()
        if not spool.ended:
            asyncio.run_coroutine_threadsafe(put(), loop).result(5)
        return found

    monkeypatch.setattr(spool, "_from_memory", look)
    early = await asyncio.to_thread(spool.take)
    assert early + await drained(spool) == b"firstsecond"
    await spool.aclose()
