import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export.errors import JobChangedError, JobStorageError
from braze_export.jobs.staging import Mark, Staged, append_to, put_in_place

quickly = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Staged]:
    file = Staged(tmp_path / "profiles.partial")
    file.open(Mark())
    yield file
    file.close()


def test_what_is_appended_is_there_and_marked(staged: Staged) -> None:
    staged.append(b"one\n")
    staged.append(b"")
    staged.append(b"two\n")
    assert staged.path.read_bytes() == b"one\ntwo\n"
    assert staged.mark == Mark(8, 0, crc32(b"one\ntwo\n"))


def test_what_is_synced_is_safe(staged: Staged) -> None:
    staged.append(b"one\n")
    staged.sync()
    assert staged.mark == Mark(4, 4, 0)
    staged.append(b"two\n")
    assert staged.mark == Mark(8, 4, crc32(b"two\n"))
    assert staged.holds(staged.mark)


def test_it_goes_on_where_a_mark_is(staged: Staged) -> None:
    staged.append(b"recorded")
    mark = staged.mark
    staged.append(b"and not recorded")
    staged.close()
    again = Staged(staged.path)
    assert again.holds(mark)
    again.open(mark)
    again.append(b"!")
    again.close()
    assert staged.path.read_bytes() == b"recorded!"
    assert again.mark == Mark(9, 0, crc32(b"recorded!"))


def test_what_follows_a_mark_is_dropped(staged: Staged) -> None:
    staged.append(b"one")
    mark = staged.mark
    staged.append(b"two")
    staged.back_to(mark)
    staged.append(b"3")
    assert staged.path.read_bytes() == b"one3"
    assert staged.holds(staged.mark)


@pytest.mark.parametrize(
    ("content", "right"),
    [
        (b"safe, checked", True),
        (b"safe, checked and more", True),
        (b"safe, checke", False),
        (b"safe, changed", False),
        (b"", False),
        (None, False),
    ],
)
def test_whether_a_file_holds_what_was_recorded(
    tmp_path: Path, content: bytes | None, right: bool
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert Staged(path).holds(Mark(13, 6, crc32(b"checked"))) is right


def test_a_file_that_was_never_written_need_not_be_there(tmp_path: Path) -> None:
    assert Staged(tmp_path / "file").holds(Mark())


def test_a_file_shorter_than_what_is_safe_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert not Staged(tmp_path / "file").holds(Mark(5, 5, 0))


@quickly
@given(st.lists(st.tuples(st.binary(max_size=20), st.sampled_from(["", "sync", "back"]))))
def test_the_mark_is_always_that_of_the_file(
    tmp_path: Path, steps: list[tuple[bytes, str]]
) -> None:
    staged, expected = Staged(tmp_path / "any"), b""
    staged.open(Mark())
    for data, then in steps:
        before = staged.mark
        staged.append(data)
        if then == "back":
            staged.back_to(before)
            continue
        expected += data
        if then == "sync":
            staged.sync()
    staged.close()
    assert staged.path.read_bytes() == expected
    assert staged.holds(staged.mark)


def test_on_a_full_disk_all_of_it_or_nothing_is_appended(small_disk: Path) -> None:
    staged = Staged(small_disk / "profiles.partial")
    staged.open(Mark())
    staged.append(b"a" * 40_000)
    mark = staged.mark
    with pytest.raises(JobStorageError, match=r"No space left.*make room"):
        staged.append(b"b" * 40_000)
    assert staged.path.read_bytes() == b"a" * 40_000
    assert staged.mark == mark
    staged.append(b"c" * 1_000)  # this much there is room for
    staged.close()
    assert staged.holds(staged.mark)
    assert staged.path.stat().st_size == 41_000


def test_a_write_that_ends_early_is_gone_on_with(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    staged.append(b"0123456789")
    monkeypatch.undo()
    assert staged.path.read_bytes() == b"0123456789"


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(JobStorageError, match="nowhere"):
        Staged(tmp_path / "nowhere" / "file").open(Mark())
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
