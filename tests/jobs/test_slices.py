import asyncio
import threading
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from typing import TypeAlias

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from braze_export.errors import InputError
from braze_export.jobs import slices as rooms
from braze_export.jobs.kinds import as_text, parse_kind
from braze_export.jobs.reading.repeats import Repeats
from braze_export.jobs.slices import Count, Slice, Source, counted, slices
from braze_export.jobs.values import Unusable

Item: TypeAlias = str | Unusable

BAD = Unusable("?", "line 1: is no JSON")
IDS = parse_kind("external_id")
items = st.lists(st.one_of(st.integers(0, 400).map("u{}".format), st.just(BAD)), max_size=300)
few = settings(max_examples=40)
cuts = st.lists(st.integers(0, 300))


def cut(stream: Sequence[Item], places: list[int]) -> Iterator[list[Item]]:
    edges = sorted({0, len(stream), *(place for place in places if place < len(stream))})
    for start, end in pairwise(edges):
        yield list(stream[start:end])


def made(
    stream: Sequence[Item], kind: str = "external_id", places: Sequence[int] = ()
) -> list[Slice]:
    repeats = Repeats()
    repeats.add([item for item in stream if isinstance(item, str)])
    blocks = cut(stream, list(places))
    return list(slices(blocks, parse_kind(kind), repeats.seal().filter()))


def texts(pieces: list[Slice]) -> list[list[str]]:
    return [list(map(as_text, piece.batch.identifiers)) if piece.batch else [] for piece in pieces]


def numbered(count: int) -> list[Item]:
    return [f"u{n}" for n in range(count)]


# --- slices


@few
@given(items, cuts)
def test_the_same_slices_however_the_input_comes(stream: list[Item], places: list[int]) -> None:
    assert made(stream, places=places) == made(stream)


@few
@given(items)
def test_everything_is_in_one_slice_and_once(stream: list[Item]) -> None:
    pieces = made(stream)
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    found = [text for part in texts(pieces) for text in part]
    assert found == list(dict.fromkeys(item for item in stream if isinstance(item, str)))
    assert sum(len(piece.unusable) for piece in pieces) == stream.count(BAD)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("external_id", [50, 50, 7]),
        ("alias:crm", [50, 50, 7]),
        ("email", [1] * 107),
        ("phone", [1] * 107),
        ("braze_id", [1] * 107),
        ("device_id", [1] * 107),
    ],
)
def test_a_slice_is_what_one_request_takes(kind: str, sizes: list[int]) -> None:
    pieces = made(numbered(107), kind)
    assert list(map(len, texts(pieces))) == sizes
    assert [text for part in texts(pieces) for text in part] == numbered(107)


def test_what_is_unusable_goes_with_those_it_stands_between() -> None:
    pieces = made([*numbered(60), BAD, *numbered(130)[60:]])
    assert [len(piece.unusable) for piece in pieces] == [0, 1, 0]


@pytest.mark.parametrize("usable", [0, 50])
def test_what_is_unusable_at_the_end_is_a_slice_of_its_own(usable: int) -> None:
    last = made([*numbered(usable), BAD])[-1]
    assert last == Slice(usable // 50, None, (BAD,))


def test_much_that_is_unusable_does_not_wait_for_an_identifier() -> None:
    pieces = made([BAD] * 2500 + numbered(1))
    assert [len(piece.unusable) for piece in pieces] == [1000, 1000, 500]
    assert [piece.batch is None for piece in pieces] == [True, True, False]


def test_nothing_gives_nothing() -> None:
    assert made([]) == []


# --- counting


@define
class Read:
    """A reader of blocks that are there."""

    parts: list[list[Item]]
    blank: int = 0
    read_bytes: int = 0

    def blocks(self) -> Iterator[list[Item]]:
        return iter(self.parts)

    def close(self) -> None:
        """Do nothing."""


def test_an_input_is_counted() -> None:
    count, added = Count(), list[str]()
    counted(Read([["a", BAD], ["a", "b"]]), count, added.extend, lambda: False)
    assert (count, added) == (Count(3, 1), ["a", "a", "b"])


def test_counting_ends_when_told() -> None:
    count = Count()
    counted(Read([["a"], ["b"], ["c"]]), count, lambda _: None, lambda: count.usable == 2)
    assert count.usable == 2


# --- the source


async def all_of(source: Source) -> list[Slice]:
    taken = []
    while (piece := await source.take()) is not None:
        taken.append(piece)
    return taken


@few
@given(
    st.integers(0, 400),
    st.integers(0, 10),
    st.sets(st.integers(0, 10)),
    st.integers(1, 200),
)
async def test_what_is_written_is_passed_over(
    count: int, watermark: int, beyond: set[int], ahead: int
) -> None:
    everything = made(numbered(count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "_AHEAD", ahead)
        source = Source(iter(everything), watermark, beyond)
        taken = await all_of(source)
    passed = [p for p in everything if p.number < watermark or p.number in beyond]
    assert taken == [piece for piece in everything if piece not in passed]
    assert source.exhausted
    assert (source.known is not None) is bool(passed)
    assert await source.take() is None


async def test_slices_go_to_whoever_asks_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_AHEAD", 100)
    everything = made(numbered(2000))
    source = Source(iter(everything), 0, ())
    taken = await asyncio.gather(*(all_of(source) for _ in range(7)))
    assert sorted(piece.number for part in taken for piece in part) == list(range(40))


async def test_it_is_exhausted_only_when_all_was_handed_out() -> None:
    source = Source(iter(made(numbered(51))), 0, ())
    assert not source.exhausted
    await source.take()
    assert not source.exhausted
    await source.take()
    assert source.exhausted


async def test_it_reads_no_further_than_it_needs_and_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rooms, "_AHEAD", 100)
    read, threads = [], set()

    def pieces() -> Iterator[Slice]:
        for piece in made(numbered(1000)):
            read.append(piece.number)
            threads.add(threading.current_thread())
            yield piece

    source = Source(pieces(), 0, ())
    assert (await source.take() or pytest.fail("nothing")).number == 0
    assert read == [0, 1]
    assert threading.main_thread() not in threads


async def test_an_input_that_breaks_off_is_told_of_after_what_was_read() -> None:
    def pieces() -> Iterator[Slice]:
        yield from islice(made(numbered(200)), 3)
        raise InputError("line 151: it breaks off")

    source = Source(pieces(), 0, ())
    taken = [await source.take() for _ in range(3)]
    assert [piece.number for piece in taken if piece] == [0, 1, 2]
    for _ in range(2):  # whoever asks
        with pytest.raises(InputError, match="breaks off"):
            await source.take()
