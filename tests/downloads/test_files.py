import asyncio
import errno
import io
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define
from blockbuster import BlockBuster

from braze_export import InputError, RetryPolicy, read_archive
from braze_export.downloads.fetching import ObjectChangedError, Opened, changed, fetch
from braze_export.downloads.files import LocalFile, _Partial, _Reader, check_target, save
from braze_export.errors import ConnectionLostError, ExportExpiredError
from braze_export.models.results import DownloadStats

QUICK = RetryPolicy(max_attempts=3, base=0.001, cap=0.002)
LOST = ConnectionLostError("the connection was lost")
WHOLE = bytes(range(256)) * 20
_HERE = "tests/downloads/test_files.py"


@pytest.fixture(autouse=True)
def _nothing_left(nothing_left: None) -> None:
    """Every test leaves no task behind."""


@pytest.fixture(autouse=True)
def _tests_may_look(blocking_calls_fail: BlockBuster) -> None:
    """What the tests themselves do to the disk."""
    for function in blocking_calls_fail.functions.values():
        function.can_block_in(_HERE, {"names", "put", "content", "bad_paths"})


@define
class Scripted:
    """A source of pieces; an exception among them is raised, a callable is called."""

    tries: list[list[Any]]
    total: int | None = None
    opened: int = 0
    name: str = "scripted"
    versions: Iterator[str] = Factory(lambda: iter(f'"{n}"' for n in range(1_000)))

    @asynccontextmanager
    async def open(self, start: int, version: str | None) -> AsyncIterator[Opened]:
        self.opened += 1
        pieces = self.tries.pop(0) if self.tries[1:] else self.tries[0]
        async with aclosing(self._pieces(pieces)) as chunks:
            yield Opened(start, self.total, None, chunks)

    async def _pieces(self, pieces: list[Any]) -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            if callable(piece):
                await piece()
            else:
                yield piece


async def saved(path: Path, *tries: list[Any], total: int | None = None) -> DownloadStats:
    stats = DownloadStats()
    await save(Scripted(list(tries), total), path, QUICK, stats)
    return stats


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- saving


@pytest.mark.parametrize(
    "pieces", [[], [WHOLE], [WHOLE[:1], WHOLE[1:]], [WHOLE] * 1_000], ids=["0", "1", "2", "1000"]
)
async def test_whole(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "x.zip"
    stats = await saved(path, pieces)
    assert content(path) == b"".join(pieces)
    assert names(tmp_path) == ["x.zip"]
    assert stats.bytes_received == len(content(path))
    assert (stats.objects, stats.objects_done) == (1, 1)


async def test_the_name_comes_last(tmp_path: Path) -> None:
    path, seen = put(tmp_path / "x.zip", b"old"), []

    async def look() -> None:
        seen.append(names(tmp_path))
        assert content(path) == b"old"

    await saved(path, [b"new", look, b"er", look])
    assert content(path) == b"newer"
    for found in seen:
        partial, last = found
        assert last == "x.zip" or partial == "x.zip"
        assert sum(name.startswith("x.zip.") and name.endswith(".partial") for name in found) == 1
    assert names(tmp_path) == ["x.zip"]


async def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    await asyncio.gather(*(saved(path, [bytes([n]) * 1_000] * 50) for n in range(4)))
    assert content(path) in {bytes([n]) * 50_000 for n in range(4)}
    assert names(tmp_path) == ["x.zip"]


async def test_a_lost_connection_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    stats = await saved(path, [b"abc", LOST], [LOST], [b"def"], total=6)
    assert content(path) == b"abcdef"
    assert (stats.bytes_total, stats.bytes_received, stats.resumed) == (6, 6, 2)


@pytest.mark.parametrize("first", [b"a longer beginning", WHOLE * 500], ids=["short", "long"])
async def test_replaced_under_way_begins_anew(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "x.zip"
    stats = await saved(path, [first, changed()], [b"x", changed()], [b"new"])
    assert content(path) == b"new"
    assert (stats.bytes_received, stats.objects, stats.objects_done) == (3, 1, 1)
    assert names(tmp_path) == ["x.zip"]


async def test_replaced_over_and_over_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ObjectChangedError):
        await saved(tmp_path / "x.zip", [b"x", changed()])
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error", [LOST, ExportExpiredError("over", status=403), RuntimeError("bug")]
)
async def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    old, new = put(tmp_path / "old", b"old"), tmp_path / "new"
    for path in (old, new):
        with pytest.raises(type(error)):
            await saved(path, [WHOLE * 500, error], [error])
    assert names(tmp_path) == ["old"]
    assert content(old) == b"old"


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_under_way(tmp_path: Path, times: int) -> None:
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(saved(tmp_path / "x.zip", [WHOLE * 500, hang]))
    await started.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(tmp_path)


async def gone(directory: Path, *left: str) -> None:
    """A thread may end a little later than the task that was cancelled twice."""
    for _ in range(1_000):
        if names(directory) == list(left):
            break
        await asyncio.sleep(0.001)
    assert names(directory) == list(left)


@define
class Held:
    """A blocking call that waits until it is let go, to be cancelled in the middle of it."""

    wrapped: Any
    begun: threading.Event = Factory(threading.Event)
    go: threading.Event = Factory(threading.Event)

    def method(self) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.begun.set()
            assert self.go.wait(5)
            return self.wrapped(*args, **kwargs)

        return call


async def cancelled_within(held: Held, task: asyncio.Task[Any]) -> None:
    while not held.begun.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.sleep(0)
    held.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("place", "name"), [(Path, "open"), (os, "fsync"), (Path, "is_dir"), (Path, "exists")]
)
async def test_cancelled_in_the_middle_of_a_blocking_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    held = Held(getattr(place, name))
    monkeypatch.setattr(place, name, held.method())
    task = asyncio.create_task(saved(tmp_path / "x.zip", [WHOLE]))
    await cancelled_within(held, task)
    monkeypatch.undo()
    # What was whole already may have got its name; half a file never has.
    left = names(tmp_path)
    assert left == ([] if name != "fsync" else ["x.zip"] * len(left))
    assert not left or content(tmp_path / "x.zip") == WHOLE


async def test_cancelled_before_it_began(tmp_path: Path) -> None:
    task = asyncio.create_task(saved(tmp_path / "x.zip", [WHOLE]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await gone(tmp_path)


class _Full(io.FileIO):
    room = 3_000_000

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("pieces", [[WHOLE] * 2_000, [b"x" * 100]], ids=["blocks", "last flush"])
async def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    if len(pieces) == 1:
        monkeypatch.setattr(_Full, "room", 50)

    def full(self: Path, mode: str) -> io.BufferedWriter:
        return io.BufferedWriter(_Full(self, mode))

    monkeypatch.setattr(Path, "open", full)
    source = Scripted([pieces])
    with pytest.raises(OSError, match="No space left"):
        await save(source, tmp_path / "x.zip", QUICK, DownloadStats())
    assert names(tmp_path) == []
    assert source.opened == 1


async def test_no_room_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="busy"):
        await saved(tmp_path / "x.zip", [WHOLE])
    assert names(tmp_path) == []


def bad_paths(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    return {
        "directory": (tmp_path, "is a directory: name a file in it"),
        "nothing": (Path(), "is a directory: name a file in it"),
        "root": (Path("/"), "is a directory: name a file in it"),
        "missing": (tmp_path / "no" / "x.zip", "cannot be written (No such file or directory)"),
        "in a file": (tmp_path / "file" / "x.zip", "cannot be written (Not a directory)"),
        "too long": (tmp_path / ("x" * 300), "cannot be written (File name too long)"),
        "null": (tmp_path / "a\0b", "cannot be written (embedded null byte)"),
        "pipe": (tmp_path / "pipe", "is no plain file: name another"),
    }


KINDS = ["directory", "nothing", "root", "missing", "in a file", "too long", "null", "pipe"]


@pytest.mark.parametrize("kind", KINDS)
async def test_where_nothing_can_be_written(tmp_path: Path, kind: str) -> None:
    path, message = bad_paths(tmp_path)[kind]
    source = Scripted([[WHOLE]])
    for trial in (
        save(source, path, QUICK, DownloadStats()),
        asyncio.to_thread(check_target, path),
    ):
        with pytest.raises(InputError) as caught:
            await trial
        assert str(caught.value) == f"{path} {message}"
    assert source.opened == 0
    assert names(tmp_path) == ["file", "pipe"]


async def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    for trial in (
        saved(tmp_path / "x.zip", [WHOLE]),
        asyncio.to_thread(check_target, tmp_path / "x.zip"),
    ):
        with pytest.raises(InputError, match=r"x\.zip cannot be written \(Permission denied\)"):
            await trial
    monkeypatch.undo()
    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        await saved(tmp_path / "x.zip", [WHOLE])


async def test_long_names_leave_room_for_the_other_one(tmp_path: Path) -> None:
    long = ["x" * 255, "ß" * 127, "漢" * 85]
    for name in long:
        await saved(tmp_path / name, [WHOLE])
    assert names(tmp_path) == sorted(long)


def test_a_place_that_will_do_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_target(tmp_path / "old")
    check_target(tmp_path / "new")
    assert names(tmp_path) == ["old"]
    assert content(tmp_path / "old") == b"old"


def test_whoever_comes_too_late_does_nothing(tmp_path: Path) -> None:
    """A thread may begin when the task that started it was cancelled long ago."""
    partial = _Partial(tmp_path / "x.zip")
    partial.create()
    partial.write(b"abc")
    partial.drop()
    partial.write(b"abc")
    partial.empty()
    partial.keep()
    partial.create()
    partial.drop()
    assert names(tmp_path) == []
    never = _Partial(tmp_path / "x.zip")
    never.drop()
    never.create()
    assert names(tmp_path) == []
    reader = _Reader(put(tmp_path / "y.zip", WHOLE))
    assert reader.read() == b""
    reader.close()
    assert reader.open() is None
    assert reader.read() == b""


def test_what_has_its_name_is_not_dropped(tmp_path: Path) -> None:
    partial = _Partial(tmp_path / "x.zip")
    partial.create()
    partial.write(b"abc")
    partial.keep()
    partial.drop()
    assert content(tmp_path / "x.zip") == b"abc"


# --- reading


async def read(path: Path) -> bytes:
    chunks = fetch(LocalFile(path), QUICK, DownloadStats())
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_a_file_is_read(tmp_path: Path, size: int) -> None:
    path = put(tmp_path / "x.zip", bytes(size))
    assert await read(path) == bytes(size)
    stats = DownloadStats()
    _ = [chunk async for chunk in fetch(LocalFile(path), QUICK, stats)]
    assert (stats.bytes_total, stats.bytes_received) == (size, size)


async def test_a_pipe_has_no_length(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = asyncio.create_task(asyncio.to_thread(put, path, WHOLE))
    assert await read(path) == WHOLE
    await writing


async def test_an_archive_may_come_out_of_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    lines = b'{"external_id":"u1"}\n{"external_id":"u2"}\n'
    writing = asyncio.create_task(asyncio.to_thread(put, path, lines))
    assert [user.external_id async for user in read_archive(path)] == ["u1", "u2"]
    await writing


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "No such file or directory"),
        (".", "Is a directory"),
        ("a\0b", "embedded null byte"),
    ],
)
async def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be read \({message}\)"):
        await read(tmp_path / name)


async def test_cancelled_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "x.zip", WHOLE)
    files: list[Any] = []
    real = Path.open

    def opening(self: Path, mode: str) -> Any:
        files.append(real(self, mode))
        return files[-1]

    held = Held(opening)
    monkeypatch.setattr(Path, "open", held.method())
    await cancelled_within(held, asyncio.create_task(read(path)))
    assert [file.closed for file in files] == [True]


async def test_closed_before_it_is_opened_it_stays_closed(tmp_path: Path) -> None:
    path = put(tmp_path / "x.zip", WHOLE)
    task = asyncio.create_task(read(path))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_early_closes_the_file(tmp_path: Path) -> None:
    path = put(tmp_path / "x.zip", WHOLE * 1_000)
    async with aclosing(fetch(LocalFile(path), QUICK, DownloadStats())) as chunks:
        assert await anext(chunks)


def test_the_name_is_harmless() -> None:
    assert LocalFile(Path("/a/b\x1b[2J.zip")).name == "b\N{REPLACEMENT CHARACTER}[2J.zip"
