import asyncio
from typing import Any

import aiohttp
import pytest

from braze_export.sandbox import Fault

from .conftest import Client, Connect
from .downloading import fetch, ids, start


async def raw(client: Client, url: str) -> tuple[bytes, bytes]:
    """Fetch a link on a bare socket until the server hangs up: head and body."""
    host, port = client.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        path = url.removeprefix(client.sandbox.url)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await reader.read()
    except ConnectionResetError:
        answer = b"reset"
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def test_the_path_of_all_downloads(connect: Connect) -> None:
    client = await connect(users=1_000)
    client.sandbox.inject(Fault(status=503), path="/exports/", times=2)
    url = await start(client)
    assert [(await fetch(client, url)).status for _ in range(3)] == [503, 503, 200]
    # Only a slash at the end stands for more.
    client.sandbox.inject(Fault(status=503), path="/exports")
    assert (await fetch(client, url)).status == 200


async def test_one_download_by_its_path(connect: Connect) -> None:
    client = await connect(users=1_000)
    one, other = await start(client), await start(client)
    path = one.removeprefix(client.sandbox.url).partition("?")[0]
    client.sandbox.inject(Fault(status=500), path=path)
    assert (await fetch(client, other)).status == 200
    assert (await fetch(client, one)).status == 500


async def test_the_source_of_faults_is_asked(connect: Connect) -> None:
    def faults(_: int, path: str) -> Fault | None:
        return Fault(status=502) if path.startswith("/exports/") else None

    client = await connect(users=1_000, faults=faults)
    assert (await fetch(client, await start(client))).status == 502


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault(status=503), 503, b'{"message":"Service Unavailable"}'),
        (Fault(status=429), 429, b'{"message":"Too Many Requests"}'),
        (Fault(body=b"<html>"), 200, b"<html>"),
        (Fault(status=403, body=b"<Error/>", truncate=3), 403, b"<Er"),
    ],
)
async def test_status_and_body(connect: Connect, fault: Fault, status: int, body: bytes) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    client.sandbox.inject(fault)
    got = await fetch(client, url)
    assert (got.status, got.body) == (status, body)
    assert "x-ratelimit-limit" not in got.headers
    assert (await fetch(client, url)).status == 200
    assert client.sandbox.connections_made == 1


async def test_headers_delay_truncate_slow(connect: Connect) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    whole = (await fetch(client, url)).body
    headers = {"ETag": None, "content-type": "text/plain"}
    client.sandbox.inject(Fault(headers=headers, delay=0.001, truncate=1_000, slow=1e6))
    got = await fetch(client, url)
    assert "etag" not in got.headers
    assert got.headers["content-type"] == "text/plain"
    assert got.headers["content-length"] == "1000"
    assert got.body == whole[:1_000]


async def test_garbage(connect: Connect) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    whole = (await fetch(client, url)).body
    client.sandbox.inject(Fault(garbage=True), times=2)
    got = await fetch(client, url)
    assert len(got.body) == len(whole)
    assert got.body[:1_000] != whole[:1_000]
    assert len((await fetch(client, url, range="bytes=0-9")).body) == 10


@pytest.mark.parametrize(
    ("fault", "sent"),
    [
        (Fault(drop="body"), 0.5),
        (Fault(drop="after"), 1.0),
        (Fault(cut=0), 0.0),
        (Fault(cut=200_000), 200_000),
        (Fault(cut=10**12), 1.0),
        (Fault(cut=10**12, drop="body"), 0.5),
        (Fault(cut=3, slow=1e6), 3),
    ],
)
async def test_cut_and_dropped(connect: Connect, fault: Fault, sent: float) -> None:
    client = await connect(users=2_000, profile="full")
    url = await start(client, fields_to_export=["custom_attributes"])
    whole = (await fetch(client, url)).body
    assert len(whole) > 400_000
    client.sandbox.inject(fault, path="/exports/")
    head, body = await raw(client, url)
    assert f"content-length: {len(whole)}".encode() in head
    assert b"connection: close" not in head
    assert body == whole[: int(sent * len(whole)) if isinstance(sent, float) else sent]
    if len(body) < len(whole):
        client.sandbox.inject(fault, path="/exports/")
        with pytest.raises(aiohttp.ClientPayloadError):
            await fetch(client, url)
    # A part is declared, cut and dropped as a part.
    client.sandbox.inject(Fault(drop="body"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await fetch(client, url, range="bytes=0-9")


@pytest.mark.parametrize("drop", ["before", "headers"])
async def test_dropped_before_the_body(connect: Connect, drop: Any) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    client.sandbox.inject(Fault(drop=drop))
    head, body = await raw(client, url)
    assert (b"200 OK" in head) == (drop == "headers")
    assert body == b""
    assert ids((await fetch(client, url)).body)


async def test_other_answers_can_be_cut_too(connect: Connect) -> None:
    client = await connect(users=1_000)
    client.sandbox.inject(Fault(cut=5))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.get("/segments/list")
    client.sandbox.inject(Fault(cut=5, slow=1e6))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.get("/segments/list")
    assert (await client.get("/segments/list")).status == 200


def test_cut_is_checked() -> None:
    with pytest.raises(ValueError, match="cut"):
        Fault(cut=-1)
