from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from braze_export import BadRequestError, BrazeClient, DecodeError, InputError, Segment
from braze_export.sandbox import Fault, Sandbox
from tests.contract.conftest import Connect

DEFAULTS: dict[str, Any] = {"segment_id": "s", "length": 7}


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (3, 1), (100, 2), (250, 3)])
async def test_all_pages_come(connect: Connect, count: int, requests: int) -> None:
    async with Sandbox(segments=count) as sandbox:
        segments = [s async for s in connect(sandbox).segments.list()]
        assert len({s.id for s in segments}) == len(segments) == count
        assert sandbox.counters.requests == requests


async def test_the_order_can_be_chosen(braze: BrazeClient) -> None:
    oldest = [s.id async for s in braze.segments.list()]
    assert [s.id async for s in braze.segments.list(sort_direction="desc")] == oldest[::-1]
    assert [s.id async for s in braze.segments.list(sort_direction="asc")] == oldest


async def test_leaving_the_list_early_asks_for_no_further_page(connect: Connect) -> None:
    async with Sandbox(segments=250) as sandbox:
        async for _ in connect(sandbox).segments.list():
            break
        assert sandbox.counters.requests == 1


async def test_odd_segments_are_taken_as_far_as_they_fit(
    braze: BrazeClient, sandbox: Sandbox
) -> None:
    odd = [{"id": "s", "name": 5, "tags": None, "analytics_tracking_enabled": "true", "x": 1}, 7]
    sandbox.inject(Fault(status=200, body={"message": "success", "segments": odd}))
    assert [s async for s in braze.segments.list()] == [
        Segment(id="s", name="5", analytics_tracking_enabled=True)
    ]


@pytest.mark.parametrize("body", [{"message": "success"}, {"segments": None}, [], b"x"])
async def test_an_answer_without_segments_is_a_decode_error(connect: Connect, body: Any) -> None:
    async with Sandbox(faults=lambda *_: Fault(status=200, body=body)) as sandbox:
        with pytest.raises(DecodeError):
            _ = [s async for s in connect(sandbox).segments.list()]


async def test_details(braze: BrazeClient, sandbox: Sandbox) -> None:
    details = await braze.segments.details(sandbox.segment_id(1))
    assert details.name
    assert details.created_at is not None
    assert details.created_at.tzinfo is not None
    with pytest.raises(BadRequestError):
        await braze.segments.details("nothing")


@pytest.mark.parametrize(("length", "requests"), [(1, 1), (100, 1), (101, 2), (250, 3), (300, 3)])
async def test_a_series_of_any_length(
    braze: BrazeClient, sandbox: Sandbox, length: int, requests: int
) -> None:
    end = datetime(2026, 3, 31, 12, tzinfo=UTC)
    series = await braze.segments.data_series(sandbox.segment_id(1), length=length, ending_at=end)
    days = [date(2026, 3, 31) - timedelta(days=n) for n in range(length)]
    assert [s.time for s in series] == days[::-1]
    assert all(isinstance(s.size, int) for s in series)
    assert sandbox.counters.requests == requests


async def test_without_an_end_the_series_ends_now(braze: BrazeClient, sandbox: Sandbox) -> None:
    await braze.segments.data_series(sandbox.segment_id(1), length=7)
    assert "ending_at" not in sandbox.log[-1].query
    series = await braze.segments.data_series(sandbox.segment_id(1), length=150)
    assert len(series) == 150


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("2026-01-31T23:59:59-05:00", "2026-02-01T04:59:59Z"),
        ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z"),
        (datetime(2026, 1, 31, 1, tzinfo=timezone(timedelta(hours=2))), "2026-01-30T23:00:00Z"),
    ],
)
async def test_the_end_is_sent_in_the_strict_form(
    braze: BrazeClient, sandbox: Sandbox, given: datetime | str, sent: str
) -> None:
    await braze.segments.data_series(sandbox.segment_id(1), length=1, ending_at=given)
    assert sandbox.log[-1].query["ending_at"] == sent


@pytest.mark.parametrize(
    "options",
    [
        {"segment_id": ""},
        {"length": 0},
        {"length": -1},
        {"length": 1.5},
        {"length": True},
        {"length": "7"},
        {"length": 10**9},
        {"ending_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive, on purpose
        {"ending_at": "2026-01-01"},
        {"ending_at": "2026-01-01T00:00:00"},
        {"ending_at": "2018-06-27T23:59:59-5:00"},
        {"ending_at": "yesterday"},
        {"ending_at": 5},
    ],
)
async def test_bad_arguments_are_refused_before_anything_is_sent(
    braze: BrazeClient, sandbox: Sandbox, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        await braze.segments.data_series(**(DEFAULTS | options))
    assert sandbox.counters.requests == 0


async def test_bad_arguments_of_the_others(braze: BrazeClient, sandbox: Sandbox) -> None:
    with pytest.raises(InputError):
        _ = [s async for s in braze.segments.list(sort_direction="up")]  # type: ignore[arg-type]
    with pytest.raises(InputError):
        await braze.segments.details(" ")
    assert sandbox.counters.requests == 0


async def test_odd_entries_of_a_full_page_do_not_end_the_list(connect: Connect) -> None:
    def page(number: int, _: str) -> Fault:
        entries = [{"id": f"{number}-{n}"} for n in range(99)] if number < 3 else []
        segments = [*entries, None] if entries else entries
        return Fault(status=200, body={"message": "success", "segments": segments})

    async with Sandbox(faults=page) as sandbox:
        segments = [s async for s in connect(sandbox).segments.list()]
    assert len(segments) == 198
