import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import attrs
import pytest
from aiohttp import web

from braze_export.sandbox import CallbackRecord, Sandbox

from .conftest import Client, Clock, Connect
from .downloading import FIELDS, GROUP, fetch, ids, members

HEX = "[0-9a-f]{32}"


@attrs.define
class Storage:
    objects: dict[str, bytes] = attrs.field(factory=dict)
    fails: bool = False

    async def put_async(self, key: str, data: bytes) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise RuntimeError("disk full")
        self.objects[key] = data


@attrs.define
class Receiver:
    """Takes callbacks."""

    url: str = ""
    status: int = 200
    came: list[tuple[str, str, Any]] = attrs.field(factory=list)

    async def take(self, request: web.BaseRequest) -> web.Response:
        content_type = request.headers["content-type"]
        self.came.append((request.method, content_type, await request.json()))
        return web.Response(status=self.status, headers={"location": f"{self.url}/elsewhere"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = web.Server(made.take)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    yield made
    listener.close()
    await server.shutdown(0.01)
    await listener.wait_closed()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def export(client: Client, n: int = 1, **more: Any) -> dict[str, Any]:
    body = {"segment_id": client.sandbox.segment_id(n), "fields_to_export": FIELDS} | more
    got = await client.post("/users/export/segment", body)
    assert got.status == 200
    answer: dict[str, Any] = got.json
    return answer


@pytest.mark.parametrize(("kind", "suffix"), [("zip", "zip"), ("gzip", "gz")])
@pytest.mark.parametrize(("folder", "start"), [("", ""), ("a/b", "a/b/"), ("/c/", "c/")])
async def test_own_storage(
    connect: Connect, kind: str, suffix: str, folder: str, start: str
) -> None:
    storage = Storage()
    client = await connect(storage=storage, storage_folder=folder, users=25, users_per_object=10)
    answer = await export(client, output_format=kind)
    prefix = answer["object_prefix"]
    assert answer == {"message": "success", "object_prefix": prefix, "url": None}
    await until(lambda: len(storage.objects) == 3)
    segment = client.sandbox.segment_id(1)
    key = f"{start}segment-export/{segment}/2023-11-14/{prefix}/{HEX}.{suffix}"
    assert all(re.fullmatch(key, name) for name in storage.objects)
    found = [ids(data) for data in storage.objects.values()]
    assert [len(part) for part in found] == [10, 10, 5]
    assert list(chain(*found)) == list(client.sandbox.external_ids())
    if kind == "zip":
        assert all(len(members(data)) == 1 for data in storage.objects.values())


async def test_own_storage_without_a_url(connect: Connect) -> None:
    client = await connect(storage=Storage(), own_storage="absent")
    assert set(await export(client)) == {"message", "object_prefix"}


async def test_own_storage_of_the_control_group_and_of_nobody(connect: Connect) -> None:
    storage = Storage()
    client = await connect(storage=storage, users=25, empty_segments={2})
    assert (await client.post(GROUP, {"fields_to_export": FIELDS})).json["url"] is None
    await until(lambda: storage.objects)
    assert [ids(data) for data in storage.objects.values()] == [["u10", "u20"]]
    storage.objects.clear()
    await export(client, 2)
    await until(lambda: storage.objects)
    assert [members(data) for data in storage.objects.values()] == [[b""]]


async def test_objects_come_when_the_export_ends(connect: Connect, clock: Clock) -> None:
    storage = Storage()
    client = await connect(storage=storage, export_seconds=0.03)
    await export(client)
    clock.now += 86_400
    assert not storage.objects
    await until(lambda: storage.objects)
    assert "/2023-11-15/" in next(iter(storage.objects))


async def test_a_cancelled_export_is_not_delivered(connect: Connect, receiver: Receiver) -> None:
    storage = Storage()
    client = await connect(storage=storage, export_seconds=0.01)
    await export(client, callback_endpoint=receiver.url)
    await client.post("/export/segment/cancel", {"segment_id": client.sandbox.segment_id(1)})
    await until(lambda: not client.sandbox._deliveries._tasks)
    assert (storage.objects, client.sandbox.callbacks, receiver.came) == ({}, [], [])


async def test_a_csv_of_the_dashboard(connect: Connect) -> None:
    storage = Storage()
    client = await connect(storage=storage, storage_folder="f", users=3)
    key = await client.sandbox.upload_dashboard_csv(1)
    segment = client.sandbox.segment_id(1)
    assert re.fullmatch(f"f/segment-export/{segment}/2023-11-14/users-[0-9a-f]+\\.zip", key)
    (csv,) = members(storage.objects[key])
    assert csv.splitlines()[:2] == [b"user_id,email", b"u1,user1@example.com"]


async def test_a_csv_needs_a_storage_and_a_segment(connect: Connect) -> None:
    client = await connect()
    with pytest.raises(RuntimeError, match="storage"):
        await client.sandbox.upload_dashboard_csv(1)
    with pytest.raises(LookupError):
        await client.sandbox.upload_dashboard_csv(9)


async def test_a_storage_that_fails(
    connect: Connect, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(storage=Storage(fails=True))
    await export(client, callback_endpoint=receiver.url)
    await until(lambda: caplog.records and not client.sandbox._deliveries._tasks)
    assert caplog.records[0].levelno == logging.ERROR
    assert (client.sandbox.callbacks, receiver.came) == ([], [])


async def test_callback_with_a_link(connect: Connect, receiver: Receiver) -> None:
    client = await connect()
    answer = await export(client, callback_endpoint=receiver.url)
    await until(lambda: client.sandbox.callbacks)
    body = {"success": True, "url": answer["url"]}
    assert receiver.came == [("POST", "application/json", body)]
    assert client.sandbox.callbacks == [CallbackRecord(receiver.url, 200)]
    assert (await fetch(client, answer["url"])).status == 200


async def test_callback_of_the_control_group(connect: Connect, receiver: Receiver) -> None:
    client = await connect()
    body = {"fields_to_export": FIELDS, "callback_endpoint": receiver.url}
    answer = await client.post(GROUP, body)
    await until(lambda: client.sandbox.callbacks)
    assert receiver.came[0][2]["url"] == answer.json["url"]


async def test_callback_after_the_last_object(connect: Connect, receiver: Receiver) -> None:
    storage = Storage()
    client = await connect(storage=storage, users=5, users_per_object=1)
    await export(client, callback_endpoint=f"{receiver.url}/done?job=7")
    await until(lambda: receiver.came)
    assert len(storage.objects) == 5
    assert receiver.came[0][2] == {"success": True}


@pytest.mark.parametrize("status", [500, 307])
async def test_callbacks_are_tried_once(connect: Connect, receiver: Receiver, status: int) -> None:
    receiver.status = status
    client = await connect()
    await export(client, callback_endpoint=receiver.url)
    await until(lambda: client.sandbox.callbacks)
    assert client.sandbox.callbacks == [CallbackRecord(receiver.url, status)]
    assert len(receiver.came) == 1


@pytest.mark.parametrize(
    "url",
    ["https://example.invalid/", "nonsense", "http://[", "ftp://127.0.0.1/", "http://10.0.0.1"],
)
async def test_callbacks_elsewhere_are_not_made(connect: Connect, url: str) -> None:
    client = await connect()
    await export(client, callback_endpoint=url)
    await until(lambda: client.sandbox.callbacks)
    assert client.sandbox.callbacks == [CallbackRecord(url, None)]


async def test_callbacks_elsewhere_when_meant(
    connect: Connect, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braze_export.sandbox.delivery.is_loopback", lambda _: False)
    client = await connect(allow_remote=True)
    await export(client, callback_endpoint=receiver.url)
    await until(lambda: client.sandbox.callbacks)
    assert client.sandbox.callbacks[0].status == 200


async def test_nobody_listens(connect: Connect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        client = await connect()
        await export(client, callback_endpoint=url)
        await until(lambda: client.sandbox.callbacks)
    assert client.sandbox.callbacks == [CallbackRecord(url, None)]


async def test_closing_ends_what_waits(connect: Connect, nothing_left: None) -> None:
    storage = Storage()
    sandbox = Sandbox(storage=storage, export_seconds=3_600.0)
    client = await connect(sandbox)
    await export(client, callback_endpoint="http://127.0.0.1:1")
    await sandbox.aclose()
    assert (storage.objects, sandbox.callbacks) == ({}, [])


async def test_closing_ends_an_upload(connect: Connect, nothing_left: None) -> None:
    storage = Storage()
    client = await connect(storage=storage, users=10**9, users_per_object=10**8)
    await export(client)
    await asyncio.sleep(0.02)
    await client.sandbox.aclose()
    assert storage.objects == {}
