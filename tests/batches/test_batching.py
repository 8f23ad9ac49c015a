import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import (
    BrazeId,
    DeviceId,
    EmailAddress,
    ExportStats,
    FailedBatch,
    Identifier,
    InputError,
    InvalidUserId,
    PhoneNumber,
    UserAlias,
)
from braze_export.batches.batching import Batch, batches, check_all, check_iterable
from tests import virtual

names = st.text(alphabet="abcdé", min_size=1, max_size=3)
identifiers = st.one_of(
    names,
    st.builds(UserAlias, names, names),
    st.builds(BrazeId, names),
    st.builds(DeviceId, names),
    st.builds(EmailAddress, names),
    st.builds(PhoneNumber, names),
)
grouped = (str, UserAlias)


def read(
    items: Any, *, window: int = 10_000, keep_going: bool = False, size: int = 50
) -> tuple[list[Batch | FailedBatch], ExportStats]:
    stats = ExportStats()

    async def main() -> list[Batch | FailedBatch]:
        made = batches(items, window=window, keep_going=keep_going, stats=stats, size=size)
        return [unit async for unit in made]

    return virtual.run(main), stats


def only_batches(units: list[Batch | FailedBatch]) -> list[Batch]:
    assert all(isinstance(unit, Batch) for unit in units)
    return [unit for unit in units if isinstance(unit, Batch)]


@given(items=st.lists(identifiers, max_size=200), size=st.integers(1, 10))
def test_every_identifier_is_asked_for_exactly_once(items: list[Identifier], size: int) -> None:
    units, stats = read(items, size=size)

    asked = [i for batch in only_batches(units) for i in batch.identifiers]
    assert sorted(map(repr, asked)) == sorted(map(repr, set(items)))
    assert stats.identifiers == len(asked)
    assert stats.duplicates == len(items) - len(asked)


@given(items=st.lists(identifiers, max_size=200), size=st.integers(1, 10))
def test_kinds_are_never_mixed_where_braze_takes_one_at_a_time(
    items: list[Identifier], size: int
) -> None:
    for batch in only_batches(read(items, size=size)[0]):
        kinds = {type(i) for i in batch.identifiers}
        assert len(batch.identifiers) <= size
        assert kinds <= set(grouped) or len(batch.identifiers) == 1


@given(items=st.lists(names, max_size=100), window=st.integers(1, 20))
def test_duplicates_are_left_out_within_the_window_only(items: list[str], window: int) -> None:
    asked = [i for b in only_batches(read(items, window=window)[0]) for i in b.identifiers]

    recent: list[str] = []
    expected = []
    for item in items:
        if item not in recent:
            expected.append(item)
            recent = [*recent, item][-window:]
    assert asked == expected


def test_no_more_is_read_than_the_next_request_needs() -> None:
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for number in range(10**9):
            taken += 1
            yield f"u{number}"

    async def main() -> None:
        made = batches(source(), window=10, keep_going=False, stats=ExportStats())
        for number in range(1, 4):
            await anext(made)
            assert taken == 50 * number
        await made.aclose()

    virtual.run(main)


def test_async_iterables_are_read_the_same() -> None:
    async def source() -> AsyncIterator[str]:
        for number in range(120):
            yield f"u{number}"

    units, _ = read(source())
    assert [len(b.identifiers) for b in only_batches(units)] == [50, 50, 20]


def test_an_async_iterable_need_be_no_generator() -> None:
    class Pages:
        """It has no ``aclose()``: there is nothing to close."""

        def __init__(self) -> None:
            self.left = ["a", "b"]

        def __aiter__(self) -> "Pages":
            return self

        async def __anext__(self) -> str:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    units, _ = read(Pages())
    assert units == [Batch(("a", "b"))]


@pytest.mark.parametrize("items", [[], [BrazeId("x")], [f"u{n}" for n in range(50)]])
def test_no_request_is_empty(items: list[Identifier]) -> None:
    units, _ = read(items)
    assert units == [Batch(tuple(items))] * bool(items)


@pytest.mark.parametrize(
    ("whole", "halves"),
    [("ab", ("a", "b")), ("abc", ("a", "bc")), ("abcdefg", ("abc", "defg"))],
)
def test_a_batch_is_halved_in_its_order(whole: str, halves: tuple[str, str]) -> None:
    assert Batch(tuple(whole)).halves() == tuple(Batch(tuple(half)) for half in halves)


@pytest.mark.parametrize("bad", [None, 5, b"u1", "", "  ", "\ud800", ["u1"], object()])
def test_a_bad_item_is_named_by_position_and_not_by_value(bad: Any) -> None:
    with pytest.raises(InputError, match="at position 2") as caught:
        read(["a", "b", bad, "c"])
    assert "\ud800" not in str(caught.value)


def test_a_bad_item_costs_only_itself_when_going_on() -> None:
    units, stats = read(["a", 5, "b", None], keep_going=True)

    failed: list[Any] = [u for u in units if isinstance(u, FailedBatch)]
    assert [u.identifiers for u in failed] == [(5,), (None,)]
    assert all(isinstance(u.error, InputError) for u in failed)
    assert [u.identifiers for u in units if isinstance(u, Batch)] == [("a", "b")]
    assert stats.identifiers == 2


@pytest.mark.parametrize(
    ("batch", "payload"),
    [
        (("a", "b"), {"external_ids": ["a", "b"]}),
        (
            ("a", UserAlias("n", "l")),
            {"external_ids": ["a"], "user_aliases": [{"alias_name": "n", "alias_label": "l"}]},
        ),
        (
            (UserAlias("n", "l"),),
            {"user_aliases": [{"alias_name": "n", "alias_label": "l"}]},
        ),
        ((BrazeId("x"),), {"braze_id": "x"}),
        ((DeviceId("x"),), {"device_id": "x"}),
        ((EmailAddress("x"),), {"email_address": "x"}),
        ((PhoneNumber("x"),), {"phone": "x"}),
    ],
)
def test_the_request_names_each_kind_under_its_key(
    batch: tuple[Identifier, ...], payload: dict[str, Any]
) -> None:
    assert Batch(batch).payload() == payload


alias = UserAlias("name", "label")


@pytest.mark.parametrize(
    ("asked", "sent", "named"),
    [
        (("a", "b"), ["b"], ["b"]),
        (("a", alias), ["name"], [alias]),
        (("a", alias), ["label:name"], [alias]),
        (("a", alias), ["name:label"], [alias]),
        (("a", alias), [{"alias_name": "name", "alias_label": "label"}], [alias]),
        (("a", alias), [{"alias_name": "name"}], [alias]),
        (("a", alias), [{"external_id": "a"}], ["a"]),
        (("name", alias), ["name"], ["name"]),  # an external id of that name comes first
        (("a", "b"), ["c"], ["c"]),
        (("1", "2"), [1], ["1"]),
        (("a", "b"), [None], ["None"]),
        (("a", "b"), [], []),
        (("a",), [], []),
        (("a", alias), ["name", "name"], [alias, alias]),
        (
            (alias, UserAlias("name", "other")),
            [{"alias_name": "name", "alias_label": "other"}],
            [UserAlias("name", "other")],
        ),
        (
            ("a", "b"),
            [{"alias_name": [1], "alias_label": {}}],
            ["{'alias_name': [1], 'alias_label': {}}"],
        ),
        (("a", "b"), [["a"]], ["['a']"]),
        (
            ("name", alias, UserAlias("name", "other")),
            ["name", "name", "name"],
            ["name", alias, UserAlias("name", "other")],
        ),
        ((EmailAddress("x@y"),), ["x@y"], [EmailAddress("x@y")]),
        ((EmailAddress("x@y"),), [{"whatever": 1}], [EmailAddress("x@y")]),
    ],
)
def test_invalid_user_ids_are_named_as_they_were_asked_for(
    asked: tuple[Identifier, ...], sent: list[Any], named: list[Identifier]
) -> None:
    assert Batch(asked).invalid(sent) == [InvalidUserId(i) for i in named]


@pytest.mark.parametrize("bad", ["u1", b"u1", bytearray(b"u1"), {"u1": 1}, 5, None, object()])
def test_what_is_no_collection_of_identifiers_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="identifiers must be"):
        check_iterable(bad)


async def one_identifier() -> AsyncIterator[str]:
    yield "u1"


@pytest.mark.parametrize("good", [["u1"], ("u1",), {"u1"}, iter("u1"), one_identifier()])
def test_any_collection_of_identifiers_is_taken(good: Any) -> None:
    check_iterable(good)


@pytest.mark.parametrize("collection", [list, tuple, set, frozenset])
def test_what_is_held_in_memory_is_checked_to_its_end(collection: Any) -> None:
    items = collection([*(f"u{n}" for n in range(5000)), 5])

    async def main() -> None:
        with pytest.raises(InputError):
            await check_all(items)

    virtual.run(main)


def test_what_is_streamed_is_not_read_ahead_for_the_check() -> None:
    source = iter(["a", 5])

    async def main() -> None:
        await check_all(source)  # type: ignore[arg-type]

    virtual.run(main)
    assert next(source) == "a"


async def turns_during(work: Awaitable[object]) -> int:
    """How often the loop comes round while the work is done."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    asyncio.get_running_loop().call_soon(turn)
    await work
    return turns


@pytest.mark.parametrize("streamed", [False, True])
def test_a_source_without_pauses_gives_way_all_the_same(streamed: bool) -> None:
    async def same() -> AsyncIterator[str]:
        for _ in range(20_000):
            yield "u1"

    async def read_all() -> None:
        source = same() if streamed else ["u1"] * 20_000
        async for _ in batches(source, window=10, keep_going=False, stats=ExportStats()):
            pass

    assert virtual.run(lambda: turns_during(read_all())) >= 20


def test_the_check_of_a_long_list_gives_way() -> None:
    assert virtual.run(lambda: turns_during(check_all(["u1"] * 20_000))) >= 20


def test_an_async_generator_is_closed_with_the_batches() -> None:
    closed = False

    async def source() -> AsyncIterator[str]:
        nonlocal closed
        try:
            for number in range(1000):
                yield f"u{number}"
        finally:
            closed = True

    async def main() -> None:
        made = batches(source(), window=10, keep_going=False, stats=ExportStats())
        await anext(made)
        await made.aclose()
        assert closed

    virtual.run(main)
