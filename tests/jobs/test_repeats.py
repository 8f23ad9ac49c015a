import builtins
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export.jobs.reading import repeats
from braze_export.jobs.reading.repeats import Repeats

small = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
streams = st.lists(st.text(st.sampled_from("abé€\U0001f600"), max_size=3), max_size=60)
cuts = st.lists(st.integers(0, 60))


@pytest.fixture(params=["in memory", "on disk"])
def _place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_PARTS", 4)
    if request.param == "on disk":
        monkeypatch.setattr(repeats, "_HELD", 5)


@pytest.fixture(params=["own", "few values", "one value", "negative"])
def _hashing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    ways: dict[str, Callable[[str], int]] = {
        "own": builtins.hash,
        "few values": lambda text: builtins.hash(text) & 7,
        "one value": lambda text: 2**63 - 1,
        "negative": lambda text: -(2**63) + (builtins.hash(text) & 1),
    }
    monkeypatch.setattr(repeats, "hash", ways[request.param], raising=False)


def blocks(texts: list[str], places: list[int]) -> Iterator[list[str]]:
    edges = sorted({0, len(texts), *(place for place in places if place < len(texts))})
    for start, end in zip(edges, [*edges[1:], len(texts)], strict=True):
        yield texts[start:end]


def without_repeats(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))


@pytest.mark.usefixtures("_place", "_hashing")
@small
@given(streams, cuts, cuts)
def test_what_stood_before_is_left_out_however_the_stream_is_cut(
    texts: list[str], places: list[int], others: list[int]
) -> None:
    stream = Repeats()
    for block in blocks(texts, places):
        stream.add(block)
    found = stream.seal()
    expected = without_repeats(texts)
    assert (found.count, found.repeats) == (len(expected), len(texts) - len(expected))
    for again in (places, others):  # as often as one likes
        leave_out = found.filter()
        assert [text for block in blocks(texts, again) for text in leave_out(block)] == expected


def test_without_repeats_blocks_are_returned_themselves() -> None:
    stream = Repeats()
    stream.add(["a", "b"])
    block = ["a", "b"]
    assert stream.seal().filter()(block) is block


def test_more_than_the_stream_held_is_kept() -> None:
    stream = Repeats()
    stream.add(["a", "a"])
    leave_out = stream.seal().filter()
    assert leave_out(["a", "a", "a", "b"]) == ["a", "a", "b"]


def test_texts_of_the_same_hash_are_told_apart_by_their_checksums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeats, "hash", lambda text: 1, raising=False)
    assert crc32(b"plumless") == crc32(b"buckeroo")
    stream = Repeats()
    stream.add(["a", "b", "plumless", "a", "buckeroo"])
    found = stream.seal()
    assert (found.count, found.repeats) == (3, 2)  # both are alike: the last one is lost


def test_the_file_is_where_it_should_be_and_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "_HELD", 2)
    opened: list[dict[str, Any]] = []

    def spy(**options: Any) -> Any:
        opened.append(options)
        return TemporaryFile(**options)

    monkeypatch.setattr("braze_export.jobs.reading.repeats.TemporaryFile", spy)
    stream = Repeats(tmp_path)
    stream.add(["a", "b", "a"])
    stream.add(["b", "c", "d"])
    assert opened == [{"dir": tmp_path}]
    assert os.listdir(tmp_path) == []
    assert stream.seal().count == 4


def test_closing_frees_the_file_and_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_HELD", 2)
    stream = Repeats()
    stream.add(["a", "b", "a"])
    file = stream._file
    assert file is not None
    stream.close()
    stream.close()
    assert file.closed
    assert stream.seal().count == 0


def test_a_missing_directory_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "_HELD", 1)
    with pytest.raises(FileNotFoundError):
        Repeats(tmp_path / "none").add(["a"])


@pytest.mark.parametrize("alike", [False, True])
def test_memory_is_flat_whether_texts_are_different_or_all_alike(
    monkeypatch: pytest.MonkeyPatch, *, alike: bool
) -> None:
    monkeypatch.setattr(repeats, "_HELD", 5_000)
    monkeypatch.setattr(repeats, "_PARTS", 64)
    stream = Repeats()
    tracemalloc.start()
    try:
        for start in range(0, 50_000, 1_000):
            stream.add(["same" if alike else str(start + n) for n in range(1_000)])
        found = stream.seal()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.count == (1 if alike else 50_000)
    assert peak < 500_000  # the hashes and checksums alone are 600,000 bytes
