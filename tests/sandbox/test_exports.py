import re
from typing import Any

import pytest

from .conftest import Client, Clock, Connect, Got

FIELDS = ["external_id"]
GROUP = "/users/export/global_control_group"


async def export(client: Client, n: int = 1, **more: Any) -> Got:
    body = {"segment_id": client.sandbox.segment_id(n), "fields_to_export": FIELDS} | more
    return await client.post("/users/export/segment", body)


async def cancel(client: Client, segment_id: Any) -> Got:
    return await client.post("/export/segment/cancel", {"segment_id": segment_id})


async def test_started(connect: Connect) -> None:
    client = await connect()
    got = await export(client)
    prefix = got.json["object_prefix"]
    assert got.status == 200
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-1700000040", prefix)
    url = got.json["url"]
    assert got.json == {"message": "success", "object_prefix": prefix, "url": url}
    start = re.escape(f"{client.sandbox.url}/exports/{prefix}.zip?X-Amz-Expires=14400")
    assert re.fullmatch(start + "&X-Amz-Signature=[0-9a-f]{64}", url)


@pytest.mark.parametrize(("own_storage", "expected"), [("null", {"url": None}), ("absent", {})])
async def test_own_storage(connect: Connect, own_storage: str, expected: dict[str, None]) -> None:
    client = await connect(own_storage=own_storage)
    answer = (await export(client)).json
    del answer["message"], answer["object_prefix"]
    assert answer == expected


async def test_exports_that_take_no_time_can_be_repeated(connect: Connect) -> None:
    client = await connect()
    prefixes = {(await export(client)).json["object_prefix"] for _ in range(3)}
    assert len(prefixes) == 3


async def test_one_at_a_time_per_segment(connect: Connect, clock: Clock) -> None:
    client = await connect(export_seconds=10.0)
    assert (await export(client)).status == 200
    refused = await export(client)
    assert refused.status == 429
    assert "already in progress" in refused.json["message"]
    assert refused.rate[1] > 0
    assert (await export(client, 2)).status == 200
    clock.now += 10
    assert (await export(client)).status == 200


async def test_a_hundred_at_a_time(connect: Connect) -> None:
    client = await connect(export_seconds=10.0, segments=101)
    for n in range(1, 101):
        assert (await export(client, n)).status == 200
    refused = await export(client, 101)
    assert refused.status == 429
    assert "concurrent" in refused.json["message"]


async def test_cancel_makes_room(connect: Connect) -> None:
    client = await connect(export_seconds=10.0)
    await export(client)
    assert (await cancel(client, client.sandbox.segment_id(1))).json == {"message": "success"}
    assert (await export(client)).status == 200
    assert (await cancel(client, client.sandbox.segment_id(2))).status == 200


async def test_control_group(connect: Connect) -> None:
    client = await connect(export_seconds=10.0)
    body = {"callback_endpoint": "", "fields_to_export": FIELDS, "output_format": "zip"}
    assert "object_prefix" in (await client.post(GROUP, body)).json
    assert (await client.post(GROUP, body)).status == 429
    assert (await export(client)).status == 200
    assert (await cancel(client, client.sandbox.segment_id(0))).status == 200
    assert (await client.post(GROUP, body)).status == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields_to_export": []}, "fields_to_export is required"),
        ({"fields_to_export": "email"}, "Bad Request"),
        ({"output_format": "tar"}, "output_format must be"),
        ({"output_format": ""}, "output_format must be"),
        ({"output_format": 1}, "Bad Request"),
        ({"callback_endpoint": 1}, "Bad Request"),
        ({"segment_id": 1}, "Bad Request"),
        ({"segment_id": ""}, "Invalid segment_id"),
        ({"segment_id": "unknown"}, "Invalid segment_id"),
        ({"custom_attributes_to_export": "a"}, "Bad Request"),
        ({"custom_attributes_to_export": ["a"] * 501}, "custom_attributes_to_export must"),
    ],
)
async def test_refused(connect: Connect, change: dict[str, Any], message: str) -> None:
    client = await connect()
    got = await export(client, **change)
    assert got.status == 400
    assert got.json["message"].startswith(message)
    if "segment_id" not in change and "custom_attributes_to_export" not in change:
        assert (await client.post(GROUP, {"fields_to_export": FIELDS} | change)).status == 400


async def test_accepted(connect: Connect) -> None:
    client = await connect()
    for change in (
        {"output_format": "gzip"},
        {"custom_attributes_to_export": ["a"] * 500},
        {"callback_endpoint": "https://example.invalid/done"},
    ):
        assert (await export(client, **change)).status == 200


@pytest.mark.parametrize("segment_id", [None, 1, "", "unknown"])
async def test_cancel_refused(connect: Connect, segment_id: Any) -> None:
    client = await connect()
    assert (await cancel(client, segment_id)).status == 400
    assert (await client.post("/export/segment/cancel", [])).status == 400
