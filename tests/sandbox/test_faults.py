import asyncio
import gzip
import json
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from braze_export.sandbox import Fault, Window

from .conftest import IDS, Client, Clock, Connect


async def statuses(client: Client, count: int, path: str = "/segments/list") -> list[int]:
    return [(await client.get(path)).status for _ in range(count)]


async def test_once_unless_told_otherwise(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(status=503))
    assert await statuses(client, 2) == [503, 200]
    client.sandbox.inject(Fault(status=503), times=2)
    assert await statuses(client, 3) == [503, 503, 200]


async def test_after_so_many(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(status=500), after=2)
    client.sandbox.inject(Fault(status=502), after=1, times=2)
    assert await statuses(client, 5) == [200, 502, 500, 502, 200]


async def test_only_on_one_path(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(status=503), path=IDS)
    assert await statuses(client, 1) == [200]
    assert (await client.ids("u1")).status == 503


async def test_the_callable_is_asked_when_nothing_is_injected(connect: Connect) -> None:
    asked = []

    def every_second(n: int, path: str) -> Fault | None:
        asked.append((n, path))
        return Fault(status=500) if n % 2 == 0 else None

    client = await connect(faults=every_second)
    assert await statuses(client, 4) == [200, 500, 200, 500]
    client.sandbox.inject(Fault(status=503))
    assert await statuses(client, 2) == [503, 500]
    assert [n for n, _ in asked] == [1, 2, 3, 4, 6]
    assert asked[0][1] == "/segments/list"


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault(status=503), 503, b'{"message":"Service Unavailable"}'),
        (Fault(status=599), 599, b'{"message":"Unknown"}'),
        (Fault(body={"a": [1]}), 200, b'{"a":[1]}'),
        (Fault(body=b"<html>"), 200, b"<html>"),
        (Fault(status=502, body=b""), 502, b""),
        (Fault(status=204), 204, b""),
        (Fault(status=500, body=b"0123456789", truncate=4), 500, b"0123"),
    ],
)
async def test_status_and_body(connect: Connect, fault: Fault, status: int, body: bytes) -> None:
    client = await connect()
    client.sandbox.inject(fault)
    got = await client.get("/segments/list")
    assert (got.status, got.body) == (status, body)
    # The connection is still in step.
    assert await statuses(client, 1) == [200]
    assert client.sandbox.connections_made == 1


async def test_all_but_429_count_against_the_window(connect: Connect) -> None:
    client = await connect(default_window=Window(3, 60.0))
    client.sandbox.inject(Fault(status=500))
    client.sandbox.inject(Fault(status=429))
    assert (await client.get("/segments/list")).rate[:2] == (3, 2)
    assert (await client.get("/segments/list")).rate[:2] == (3, 0)
    assert (await client.get("/segments/list")).rate[:2] == (3, 1)


async def test_a_spoilt_answer_is_still_processed(connect: Connect) -> None:
    client = await connect(export_seconds=10.0)
    client.sandbox.inject(Fault(truncate=5))
    body = {"segment_id": client.sandbox.segment_id(1), "fields_to_export": ["email"]}
    assert (await client.post("/users/export/segment", body)).body == b'{"mes'
    assert (await client.post("/users/export/segment", body)).status == 429


async def test_headers(connect: Connect) -> None:
    client = await connect()
    headers = {
        "X-RateLimit-Limit": None,
        "x-ratelimit-reset": "soon",
        "Date": None,
        "Retry-After": "7",
    }
    client.sandbox.inject(Fault(headers=headers))
    got = await client.get("/segments/list")
    assert "x-ratelimit-limit" not in got.headers
    assert "date" not in got.headers
    assert got.headers["x-ratelimit-reset"] == "soon"
    assert got.headers["retry-after"] == "7"


async def test_without_a_length_the_connection_ends_the_body(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(headers={"content-length": None}))
    assert (await client.get("/segments/list")).json["message"] == "success"
    await statuses(client, 1)
    assert client.sandbox.connections_made == 2


async def test_garbage(connect: Connect) -> None:
    client = await connect()
    sound = await client.ids("u1")
    client.sandbox.inject(Fault(garbage=True))
    got = await client.ids("u1")
    assert got.status == 200
    assert len(got.body) == len(sound.body)
    with pytest.raises(ValueError, match=r"codec|decode|JSON|Expecting"):
        json.loads(got.body)


async def test_clock_skew(connect: Connect, clock: Clock) -> None:
    client = await connect()
    sound = await client.ids("u1")
    client.sandbox.inject(Fault(clock_skew=-3_600.0))
    got = await client.ids("u1")
    assert got.rate[2] == sound.rate[2] - 3_600
    assert parsedate_to_datetime(got.headers["date"]).timestamp() == clock.now - 3_600


async def test_content_encoding_lies(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(content_encoding="gzip"))
    with pytest.raises(aiohttp.ClientError):
        await client.get("/segments/list")


async def test_delay_and_latency_add_up(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    client = await connect(latency=0.25)
    client.sandbox.inject(Fault(delay=1.0))
    monkeypatch.setattr("braze_export.sandbox.server.asyncio.sleep", sleep)
    await statuses(client, 2)
    assert [wait for wait in waits if wait] == [1.25, 0.25]


async def test_slow(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(slow=1_000_000.0))
    assert (await client.ids("u1")).json["message"] == "success"
    client.sandbox.inject(Fault(slow=1_000_000.0, drop="body"))
    with pytest.raises(aiohttp.ClientPayloadError):
        await client.ids("u1")


async def talk(client: Client) -> bytes:
    """Send one request on a bare socket, and return everything until the server hangs up."""
    host, port = client.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        head = f"GET /segments/list HTTP/1.1\r\nHost: {host}\r\n"
        writer.write(f"{head}Authorization: Bearer {client.sandbox.api_key}\r\n\r\n".encode())
        return await reader.read()
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("drop", "has_head", "body"),
    [("before", False, 0.0), ("headers", False, 0.0), ("body", True, 0.5), ("after", True, 1.0)],
)
async def test_drops_on_the_socket(
    connect: Connect, drop: Any, has_head: bool, body: float
) -> None:
    client = await connect()
    client.sandbox.inject(Fault(drop=drop))
    got = await talk(client)
    head, _, rest = got.partition(b"\r\n\r\n")
    assert (b"\r\n\r\n" in got) == has_head
    assert (b"200 OK" in head) == (drop != "before")
    length = len((await client.get("/segments/list")).body)
    assert len(rest) == int(length * body)
    assert b"connection: close" not in head
    if has_head:
        assert f"content-length: {length}".encode() in head


@pytest.mark.parametrize(
    ("drop", "error"),
    [
        ("before", aiohttp.ServerDisconnectedError),
        ("headers", aiohttp.ServerDisconnectedError),
        ("body", aiohttp.ClientPayloadError),
    ],
)
async def test_drops_as_a_client_sees_them(
    connect: Connect, drop: Any, error: type[Exception]
) -> None:
    client = await connect()
    client.sandbox.inject(Fault(drop=drop), times=2)  # aiohttp repeats a GET once by itself
    with pytest.raises(error):
        await client.get("/segments/list")


async def test_a_drop_after_the_answer_costs_only_the_connection(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(drop="after"))
    assert await statuses(client, 2) == [200, 200]
    assert client.sandbox.connections_made == 2


@pytest.mark.parametrize(("reset", "end"), [(True, b"reset"), (False, b"")])
async def test_a_connection_is_closed_or_reset(connect: Connect, reset: bool, end: bytes) -> None:
    client = await connect()
    client.sandbox.inject(Fault(drop="before", reset=reset))
    assert await talk(client) == end


async def test_informational_answers_come_before_the_answer(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(informational=[100, 103], drop="after"))
    first, second, answer, _ = (await talk(client)).split(b"\r\n\r\n", 3)
    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.startswith(b"HTTP/1.1 103 ")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_faults_combine(connect: Connect) -> None:
    client = await connect(gzip=True)
    client.sandbox.inject(
        Fault(status=500, body=b"abc", truncate=2, headers={"x-more": "1"}, slow=1e6, delay=0.001)
    )
    got = await client.call("GET", "/segments/list", headers={"Accept-Encoding": "identity"})
    assert (got.status, got.body, got.headers["x-more"]) == (500, b"ab", "1")


async def test_truncated_gzip(connect: Connect) -> None:
    client = await connect(gzip=True)
    client.sandbox.inject(Fault(truncate=30))
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        headers = {"Authorization": f"Bearer {client.sandbox.api_key}", "Accept-Encoding": "gzip"}
        url = f"{client.sandbox.url}/segments/list"
        async with session.get(url, headers=headers) as response:
            body = await response.read()
    assert len(body) == 30
    with pytest.raises(EOFError):
        gzip.decompress(body)


@pytest.mark.parametrize(
    "options",
    [
        {"status": 100},
        {"status": 600},
        {"delay": -1},
        {"drop": "now"},
        {"truncate": -1},
        {"slow": 0},
        {"informational": [101]},
    ],
)
def test_faults_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Fault(**options)


@pytest.mark.parametrize("options", [{"times": 0}, {"after": -1}])
async def test_injections_are_checked(connect: Connect, options: dict[str, Any]) -> None:
    client = await connect()
    with pytest.raises(ValueError, match="times must be"):
        client.sandbox.inject(Fault(), **options)
