import io
import json

import pytest

from braze_export.sandbox.messages import MAX_BODY

from .conftest import IDS, Connect

PERMISSIONS = {
    ("POST", "/users/export/ids"): "users.export.ids",
    ("POST", "/users/export/segment"): "users.export.segment",
    ("POST", "/users/export/global_control_group"): "users.export.global_control_group",
    ("POST", "/export/segment/cancel"): "segments.list",
    ("GET", "/segments/list"): "segments.list",
    ("GET", "/segments/details"): "segments.details",
    ("GET", "/segments/data_series"): "segments.data_series",
}


@pytest.mark.parametrize(
    "form", ["", "{}", "Bearer", "Bearer ", "bearer {}", "Bearer  {}", 'Bearer "{}"', "Bearer '{}'",
             "Bearer {}x", "Bearer Ä", "Basic {}"]
)  # fmt: skip
async def test_401_for_any_deviation(connect: Connect, form: str) -> None:
    client = await connect()
    headers = {"Authorization": form.format(client.sandbox.api_key)}
    got = await client.call("POST", IDS, json={"external_ids": ["u1"]}, headers=headers)
    assert (got.status, got.json) == (401, {"message": "Unauthorized"})


async def test_401_without_a_key(connect: Connect) -> None:
    client = await connect()
    async with client.session.get(f"{client.sandbox.url}/segments/list") as response:
        assert response.status == 401


@pytest.mark.parametrize(("method", "path"), PERMISSIONS)
async def test_403_without_the_permission(connect: Connect, method: str, path: str) -> None:
    permission = PERMISSIONS[method, path]
    client = await connect(permissions=set(PERMISSIONS.values()) - {permission})
    got = await client.call(method, path)
    assert (got.status, got.json) == (403, {"message": "Access Denied"})
    client = await connect(permissions={permission})
    assert (await client.call(method, path)).status not in {401, 403, 404}


@pytest.mark.parametrize("path", [*(path for _, path in PERMISSIONS)])
async def test_403_for_a_trailing_slash(connect: Connect, path: str) -> None:
    client = await connect()
    assert (await client.get(f"{path}/")).json == {"message": "Access Denied"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/nowhere"), ("POST", "/users/export"), ("GET", IDS), ("PUT", IDS),
     ("POST", "/segments/list")],
)  # fmt: skip
async def test_404(connect: Connect, method: str, path: str) -> None:
    client = await connect()
    got = await client.call(method, path)
    assert (got.status, got.json) == (404, {"message": "Not Found"})


async def test_404_to_head_has_no_body(connect: Connect) -> None:
    client = await connect()
    got = await client.call("HEAD", "/segments/list")
    assert (got.status, got.body) == (404, b"")
    # The connection is still in step.
    assert (await client.get("/segments/list")).status == 200
    assert client.sandbox.connections_made == 1


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "json", ""])
async def test_415(connect: Connect, kind: str) -> None:
    client = await connect()
    got = await client.call("POST", IDS, data=b"{}", headers={"Content-Type": kind})
    assert (got.status, got.json) == (415, {"message": "Unsupported Media Type"})


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_content_types_that_will_do(connect: Connect, kind: str) -> None:
    client = await connect()
    body = json.dumps({"external_ids": ["u1"]})
    got = await client.call("POST", IDS, data=body, headers={"Content-Type": kind})
    assert got.status == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b'{"external_ids": ["\xff"]}', b"[" * 99_999]
)
async def test_400_for_what_is_not_json(connect: Connect, body: bytes) -> None:
    client = await connect()
    got = await client.call("POST", IDS, data=body, headers={"Content-Type": "application/json"})
    assert got.status == 400
    assert got.json == {"error": "Error while parsing request body. Please check your syntax."}


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY, 200), (MAX_BODY + 1, 413)])
async def test_413_above_four_megabytes(connect: Connect, size: int, status: int) -> None:
    client = await connect()
    body = json.dumps({"external_ids": ["u1"]}).encode().ljust(size)
    got = await client.call(
        "POST", IDS, data=io.BytesIO(body), headers={"Content-Type": "application/json"}
    )
    assert got.status == status


async def test_every_answer_tells_the_limit_and_the_time(connect: Connect) -> None:
    client = await connect()
    for got in (
        await client.ids("u1"),
        await client.get("/nowhere"),
        await client.call("POST", IDS, headers={"Authorization": ""}),
    ):
        assert len(got.rate) == 3
        assert got.headers["Date"] == "Tue, 14 Nov 2023 22:14:00 GMT"
        assert got.headers["Content-Type"] == "application/json"
