import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export.errors import JobChangedError, JobStorageError
from braze_export.jobs.staging import Staged, append_to, put_in_place

quickly = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Staged]:
    file = Staged(tmp_path / "profiles.partial")
    file.open(0)
    yield file
    file.close()


def test_what_is_appended_is_there(staged: Staged) -> None:
    staged.append([b"one", b"\n"])
    staged.append([])
    staged.append([msgspec.Raw(b"two"), b"\n"])
    assert staged.path.read_bytes() == b"one\ntwo\n"
    assert staged.length == 8


def test_pieces_may_be_more_than_the_system_takes_at_once(staged: Staged) -> None:
    pieces = [str(number).encode() for number in range(5000)]
    staged.append(pieces)
    assert staged.path.read_bytes() == b"".join(pieces)
    assert staged.length == len(b"".join(pieces))


@pytest.mark.parametrize("taken", [0, 1, 4, 7])
def test_what_the_system_does_not_take_at_once_follows(
    staged: Staged, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    def some(descriptor: int, pieces: list[bytes]) -> int:
        return os.write(descriptor, b"".join(pieces)[:taken])

    monkeypatch.setattr("os.writev", some)
    staged.append([b"one", b"two", b"3"])
    assert staged.path.read_bytes() == b"onetwo3"
    monkeypatch.setattr("braze_export.jobs.staging._GATHERS", False)
    staged.append([b"four", b"five"])
    assert staged.path.read_bytes() == b"onetwo3fourfive"
    assert staged.length == 15


def test_it_goes_on_after_what_is_recorded(staged: Staged) -> None:
    staged.append([b"recorded"])
    length = staged.length
    staged.append([b"and not recorded"])
    staged.close()
    again = Staged(staged.path)
    assert again.holds(length)
    again.open(length)
    again.append([b"!"])
    again.close()
    assert staged.path.read_bytes() == b"recorded!"
    assert again.length == 9


def test_what_follows_is_dropped(staged: Staged) -> None:
    staged.append([b"one"])
    staged.append([b"two"])
    staged.back_to(3)
    staged.append([b"3"])
    assert staged.path.read_bytes() == b"one3"


@pytest.mark.parametrize(
    ("content", "right"), [(b"12345", True), (b"123456", True), (b"1234", False), (None, False)]
)
def test_whether_a_file_holds_what_was_recorded(
    tmp_path: Path, content: bytes | None, right: bool
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert Staged(path).holds(5) is right


def test_a_file_that_was_never_written_need_not_be_there(tmp_path: Path) -> None:
    assert Staged(tmp_path / "file").holds(0)


@quickly
@given(st.lists(st.tuples(st.binary(max_size=20), st.sampled_from(["", "sync", "back"]))))
def test_the_length_is_always_that_of_the_file(
    tmp_path: Path, steps: list[tuple[bytes, str]]
) -> None:
    staged, expected = Staged(tmp_path / "any"), b""
    staged.open(0)
    for data, then in steps:
        before = staged.length
        staged.append([data])
        if then == "back":
            staged.back_to(before)
            continue
        expected += data
        if then == "sync":
            staged.sync()
    staged.close()
    assert staged.path.read_bytes() == expected
    assert staged.length == len(expected)


def test_on_a_full_disk_all_of_it_or_nothing_is_appended(small_disk: Path) -> None:
    staged = Staged(small_disk / "profiles.partial")
    staged.open(0)
    staged.append([b"a" * 40_000])
    with pytest.raises(JobStorageError, match=r"No space left.*make room"):
        staged.append([b"b" * 1_000] * 1_100)  # of which some go in before
    assert staged.path.read_bytes() == b"a" * 40_000
    assert staged.length == 40_000
    staged.append([b"c" * 1_000])  # this much there is room for
    staged.close()
    assert staged.holds(41_000)
    assert staged.path.stat().st_size == 41_000


def test_a_write_that_ends_early_is_gone_on_with(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr("braze_export.jobs.staging._GATHERS", False)
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    staged.append([b"0123456789"])
    monkeypatch.undo()
    assert staged.path.read_bytes() == b"0123456789"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(JobStorageError, match="nowhere"):
        Staged(tmp_path / "nowhere" / "file").open(0)
    Staged(tmp_path / "nowhere" / "file").close()


# --- the end of a job


def test_adding_to_a_file_may_be_done_again(tmp_path: Path) -> None:
    target, source = tmp_path / "target", tmp_path / "source"
    target.write_bytes(b"before")
    source.write_bytes(b", after")
    for _ in range(2):
        append_to(target, source, 6)
        assert target.read_bytes() == b"before, after"
    target.write_bytes(b"before, af")  # a crash on the way
    append_to(target, source, 6)
    assert target.read_bytes() == b"before, after"
    assert source.exists()


def test_a_file_that_is_missing_is_made_where_it_was_empty(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"all")
    append_to(tmp_path / "target", tmp_path / "source", 0)
    assert (tmp_path / "target").read_bytes() == b"all"


@pytest.mark.parametrize("content", [None, b"", b"cut"])
def test_nothing_is_added_to_a_file_that_has_lost_something(
    tmp_path: Path, content: bytes | None
) -> None:
    target, source = tmp_path / "target", tmp_path / "source"
    source.write_bytes(b"more")
    if content is not None:
        target.write_bytes(content)
    with pytest.raises(JobChangedError, match=r"target is gone or was cut off"):
        append_to(target, source, 6)
    assert (target.read_bytes() if target.exists() else None) == content


def test_a_file_gets_its_name_over_another(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    put_in_place(source, target)
    assert target.read_bytes() == b"new"
    assert not source.exists()


def test_a_name_that_cannot_be_had_leaves_everything_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "target").mkdir()
    with pytest.raises(JobStorageError, match="target"):
        put_in_place(tmp_path / "source", tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_file_gets_its_name_on_another_disk(tmp_path: Path, small_disk: Path) -> None:
    source, target = tmp_path / "source", small_disk / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    (small_disk / "target.partial").write_bytes(b"from a crash, and longer than it")
    put_in_place(source, target)
    assert target.read_bytes() == b"new"
    assert [path.name for path in small_disk.iterdir()] == ["target"]
    assert not source.exists()


def test_a_crash_between_two_disks_may_be_followed_by_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    replace = Path.replace

    def as_on_two_disks(self: Path, to: Any) -> Path:
        if self == source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", as_on_two_disks)
    with monkeypatch.context() as crash:
        crash.setattr(Path, "unlink", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put_in_place(source, target)
    assert target.read_bytes() == b"new"
    put_in_place(source, target)
    assert target.read_bytes() == b"new"
    assert not source.exists()


def test_another_disk_that_is_full_keeps_what_it_has(tmp_path: Path, small_disk: Path) -> None:
    source, target = tmp_path / "source", small_disk / "target"
    source.write_bytes(b"n" * 100_000)
    target.write_bytes(b"old")
    with pytest.raises(JobStorageError, match="No space left"):
        put_in_place(source, target)
    assert target.read_bytes() == b"old"
    assert source.exists()


def test_a_disk_that_fills_while_adding_keeps_what_was_before(
    tmp_path: Path, small_disk: Path
) -> None:
    source, target = tmp_path / "source", small_disk / "target"
    source.write_bytes(b"n" * 100_000)
    target.write_bytes(b"old")
    with pytest.raises(JobStorageError, match="No space left"):
        append_to(target, source, 3)
    assert target.read_bytes() == b"old"


def test_what_was_added_is_dropped_where_the_disk_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"more")
    target.write_bytes(b"old")

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(JobStorageError, match="Input/output"):
        append_to(target, source, 3)
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be synced here")
@pytest.mark.parametrize("refused", [False, True])
def test_the_name_of_a_file_is_brought_to_the_disk_where_that_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    synced: list[bool] = []

    def sync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if refused:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", sync)
    (tmp_path / "source").write_bytes(b"new")
    put_in_place(tmp_path / "source", tmp_path / "target")
    assert synced == [True]
    assert (tmp_path / "target").read_bytes() == b"new"
