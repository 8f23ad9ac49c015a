from datetime import date
from typing import Any

import pytest

from braze_export.sandbox import Sandbox

from .conftest import Clock, Connect


async def listed(connect: Connect, **query: Any) -> list[dict[str, Any]]:
    client = await connect(segments=250)
    got = await client.get("/segments/list", **query)
    assert got.status == 200
    segments: list[dict[str, Any]] = got.json["segments"]
    return segments


@pytest.mark.parametrize(
    ("page", "count"), [("0", 100), ("1", 100), ("2", 50), ("3", 0), ("999999999", 0)]
)
async def test_pages(connect: Connect, page: str, count: int) -> None:
    assert len(await listed(connect, page=page)) == count


async def test_oldest_first_unless_asked_otherwise(connect: Connect) -> None:
    pages = [await listed(connect, page=str(n)) for n in range(3)]
    oldest_first = [segment["id"] for page in pages for segment in page]
    assert len(set(oldest_first)) == 250
    assert oldest_first == [Sandbox(segments=250).segment_id(n) for n in range(1, 251)]
    for direction, expected in (("asc", oldest_first), ("desc", oldest_first[::-1])):
        first_page = await listed(connect, sort_direction=direction)
        assert [segment["id"] for segment in first_page] == expected[:100]


async def test_rows(connect: Connect) -> None:
    rows = await listed(connect)
    assert list(rows[0]) == ["id", "name", "analytics_tracking_enabled", "tags"]
    assert {row["analytics_tracking_enabled"] for row in rows} == {True, False}
    assert None in [row["tags"] for row in rows]


async def test_details(connect: Connect) -> None:
    client = await connect(segments=12)
    ids = [segment["id"] for segment in (await client.get("/segments/list")).json["segments"]]
    details = [(await client.get("/segments/details", segment_id=i)).json for i in ids]
    assert set(details[0]) == {
        "message", "created_at", "updated_at", "name", "description", "text_description",
        "tags", "teams",
    }  # fmt: skip
    created = [row["created_at"] for row in details]
    assert created == sorted(set(created))
    assert {str(row["teams"]) for row in details} == {"None", "[]", "['Growth']"}


@pytest.mark.parametrize(
    ("ending_at", "last"),
    [
        (None, "2023-11-14"),
        ("2018-06-27T23:59:59-5:00", "2018-06-27"),
        ("2018-06-27T23:59:59-05:00", "2018-06-27"),
        ("2018-06-27T23:59:59.123Z", "2018-06-27"),
        ("2018-06-27T00:00:00", "2018-06-27"),
        ("2018-06-27T00:00:00+14:00", "2018-06-27"),
    ],
)
async def test_data_series(connect: Connect, ending_at: str | None, last: str) -> None:
    client = await connect()
    query = {"segment_id": client.sandbox.segment_id(1), "length": 5}
    got = await client.get("/segments/data_series", **query, **_given(ending_at))
    days = [date.fromisoformat(point["time"]).toordinal() for point in got.json["data"]]
    assert days == list(range(days[0], days[0] + 5))
    assert got.json["data"][-1]["time"] == last
    assert all(isinstance(point["size"], int) for point in got.json["data"])
    again = await client.get("/segments/data_series", **query, **_given(ending_at))
    assert again.body == got.body


def _given(ending_at: str | None) -> dict[str, str]:
    return {} if ending_at is None else {"ending_at": ending_at}


async def test_series_that_overlap_agree(connect: Connect, clock: Clock) -> None:
    client = await connect()
    query = {"segment_id": client.sandbox.segment_id(1), "length": 100}
    first = (await client.get("/segments/data_series", **query)).json["data"]
    clock.now += 86_400
    second = (await client.get("/segments/data_series", **query)).json["data"]
    assert second[:-1] == first[1:]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("list", {"page": "-1"}, "page must be"),
        ("list", {"page": "one"}, "page must be"),
        ("list", {"page": "1.0"}, "page must be"),
        ("list", {"page": "9" * 5_000}, "page must be"),
        ("list", {"page": ""}, "page must be"),
        ("list", {"sort_direction": "down"}, "sort_direction must be"),
        ("details", {}, "Invalid segment_id"),
        ("details", {"segment_id": "8f3c2a10-0000-4000-8000-000000000001"}, "Invalid segment_id"),
        ("data_series", {"length": "5"}, "Invalid segment_id"),
        ("data_series", {"segment_id": "known"}, "length must be"),
        ("data_series", {"segment_id": "known", "length": "0"}, "length must be"),
        ("data_series", {"segment_id": "known", "length": "101"}, "length must be"),
        ("data_series", {"segment_id": "known", "length": "x"}, "length must be"),
        *(
            ("data_series", {"segment_id": "known", "length": "1", "ending_at": text}, "ending_at")
            for text in (
                "", "now", "2018-06-27", "2018-13-27T00:00:00Z", "2018-06-27 00:00:00",
                "2018-06-27T00:00:00 05:00", "2018-06-27T00:00:00+5", "2018-06-27T25:00:00Z",
                "0001-01-01T00:00:00Z", "2018-06-27T00:00:00Zulu", "2018-06-27T00:00:00+99:00",
            )
        ),
    ],
)  # fmt: skip
async def test_refused(connect: Connect, path: str, query: dict[str, str], message: str) -> None:
    client = await connect()
    if query.get("segment_id") == "known":
        query = query | {"segment_id": client.sandbox.segment_id(1)}
    got = await client.get(f"/segments/{path}", **query)
    assert got.status == 400
    assert got.json["message"].startswith(message)


async def test_the_control_group_is_no_segment_to_read(connect: Connect) -> None:
    client = await connect()
    got = await client.get("/segments/details", segment_id=client.sandbox.segment_id(0))
    assert got.status == 400
    ids = [segment["id"] for segment in (await client.get("/segments/list")).json["segments"]]
    assert client.sandbox.segment_id(0) not in ids


def test_numbers_of_segments_are_checked() -> None:
    with pytest.raises(LookupError, match="segments 0 to 3"):
        Sandbox().segment_id(4)
