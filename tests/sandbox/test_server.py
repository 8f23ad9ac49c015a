import asyncio
from typing import Any

import aiohttp
import attrs
import pytest

from braze_export.sandbox import Counters, Fault, Sandbox, Window

from .conftest import IDS, Client, Connect


async def until(condition: Any) -> None:
    """Let the server notice."""
    while not condition():
        await asyncio.sleep(0)


async def test_the_life_of_a_sandbox() -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url
    await sandbox.aclose()
    await sandbox.start()
    assert sandbox.url.startswith("http://127.0.0.1:")
    with pytest.raises(RuntimeError, match="already"):
        await sandbox.start()
    await sandbox.aclose()
    await sandbox.aclose()
    async with sandbox:
        assert sandbox.url


async def test_ipv6() -> None:
    try:
        async with Sandbox(host="::1") as sandbox:
            assert sandbox.url.startswith("http://[::1]:")
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.com", "::", ""])
def test_only_loopback_unless_meant(host: str) -> None:
    with pytest.raises(ValueError, match="allow_remote"):
        Sandbox(host=host)
    assert Sandbox(host=host, allow_remote=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert Sandbox(host=host).host == host


@pytest.mark.parametrize(
    "options",
    [
        {"users": -1},
        {"segments": -1},
        {"profile": "huge"},
        {"latency": -1.0},
        {"api_key": ""},
        {"port": -1},
        {"export_seconds": -1.0},
        {"export_members": 0},
        {"link_seconds": 0.0},
        {"not_ready_status": 400},
        {"own_storage": "maybe"},
        {"users_per_object": 0},
        {"log_size": -1},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sandbox(**options)


def test_the_key_is_random_and_hidden() -> None:
    one, other = Sandbox(), Sandbox(api_key="topsecret")
    assert one.api_key != Sandbox().api_key
    assert one.api_key not in repr(one)
    assert "topsecret" not in repr(other)


async def bare(client: Client, *lines: str) -> bytes:
    host, port = client.sandbox.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write("\r\n".join([*lines, f"Host: {host}", "\r\n"]).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


async def test_header_names_are_in_lower_case_on_the_wire(connect: Connect) -> None:
    client = await connect()
    for key in (client.sandbox.api_key, "wrong"):
        head = await bare(client, "GET /segments/list HTTP/1.1", f"Authorization: Bearer {key}")
        names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:] if line]
        assert names == [name.lower() for name in names]
        assert {b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"} < set(names)


async def test_connections_that_shall_close(connect: Connect) -> None:
    client = await connect()
    head = await bare(client, "GET / HTTP/1.1", "Connection: close")
    assert b"connection: close" in head
    await until(lambda: not client.sandbox.open_connections)


async def test_connections_are_counted(connect: Connect) -> None:
    client = await connect()
    assert (client.sandbox.open_connections, client.sandbox.connections_made) == (0, 0)
    await asyncio.gather(*(client.ids("u1") for _ in range(3)))
    await client.ids("u1")
    assert (client.sandbox.open_connections, client.sandbox.connections_made) == (3, 3)
    await client.session.close()
    await until(lambda: not client.sandbox.open_connections)
    assert client.sandbox.connections_made == 3


async def test_closing_cuts_off_what_takes_too_long(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(delay=3_600.0))
    task = asyncio.create_task(client.ids("u1"))
    await until(lambda: client.sandbox.log)
    await client.sandbox.aclose()
    with pytest.raises(aiohttp.ClientError):
        await task
    assert client.sandbox.open_connections == 0


async def test_a_client_that_leaves_frees_its_connection(connect: Connect) -> None:
    client = await connect()
    client.sandbox.inject(Fault(delay=3_600.0))
    task = asyncio.create_task(client.ids("u1"))
    await until(lambda: client.sandbox.log)
    task.cancel()
    await until(lambda: not client.sandbox.open_connections)


async def test_the_log_tells_what_was_asked(connect: Connect) -> None:
    client = await connect()
    await client.ids("u1", fields_to_export=["email"])
    await client.get("/segments/details", segment_id="ä b")
    client.sandbox.inject(Fault(status=503))
    await client.call("POST", IDS, data=b"{", headers={"X-Request": "7"})
    first, second, third = client.sandbox.log
    assert (first.method, first.path, first.status) == ("POST", IDS, 200)
    assert first.body == {"external_ids": ["u1"], "fields_to_export": ["email"]}
    assert first.headers["content-type"] == "application/json"
    assert (second.query, second.body, second.status) == ({"segment_id": "ä b"}, None, 400)
    assert (third.status, third.fault, third.body) == (503, Fault(status=503), None)
    assert third.headers["x-request"] == "7"
    assert first.fault is None
    for record in client.sandbox.log:
        assert "authorization" not in record.headers
        assert client.sandbox.api_key not in repr(record)


@pytest.mark.parametrize("size", [0, 2])
async def test_the_log_is_bounded(connect: Connect, size: int) -> None:
    client = await connect(log_size=size)
    for n in range(1, 6):
        await client.ids(f"u{n}")
    assert [record.body["external_ids"][0] for record in client.sandbox.log] == ["u4", "u5"][:size]


async def test_counters(connect: Connect) -> None:
    client = await connect(ids_window=Window(2, 60.0))
    for _ in range(3):
        await client.ids("u1", "nobody")
    await client.get("/segments/list")
    await client.get("/a")
    await client.get("/b")
    counters = client.sandbox.counters
    assert (counters.requests, counters.identifiers, counters.rate_limited) == (6, 4, 1)
    assert counters.paths == {
        IDS: Counters(3, 4, 1),
        "/segments/list": Counters(1),
        "other": Counters(2),
    }


async def test_counters_are_served_to_this_machine_without_a_key(connect: Connect) -> None:
    client = await connect()
    await client.ids("u1")
    async with client.session.get(f"{client.sandbox.url}/sandbox/counters") as response:
        assert await response.json() == attrs.asdict(client.sandbox.counters)
    assert client.sandbox.counters.requests == len(client.sandbox.log) == 1


async def test_counters_are_not_served_to_others(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    monkeypatch.setattr("aiohttp.web.BaseRequest.remote", "192.0.2.1")
    assert (await client.get("/sandbox/counters")).status == 404


@pytest.mark.parametrize(("accepted", "encoding"), [("gzip, deflate", "gzip"), ("deflate", None)])
async def test_gzip(connect: Connect, accepted: str, encoding: str | None) -> None:
    client = await connect(gzip=True, profile="full")
    headers = {"Accept-Encoding": accepted}
    body = {"external_ids": ["u1", "u2"]}
    got = await client.call("POST", IDS, json=body, headers=headers)
    assert got.headers.get("content-encoding") == encoding
    assert len(got.json["users"]) == 2
    assert (int(got.headers["content-length"]) < len(got.body)) == (encoding is not None)


async def test_big_answers_arrive_whole(connect: Connect) -> None:
    client = await connect(profile="full")
    got = await client.ids(*client.sandbox.external_ids(50))
    assert len(got.json["users"]) == 50
    assert len(got.body) > 900_000


async def test_answers_are_the_same_bytes_for_the_same_seed(connect: Connect) -> None:
    one, two, other = [await connect(seed=seed) for seed in (1, 1, 2)]
    bodies = [(await client.ids("u1", "u2", "u3")).body for client in (one, two, other)]
    assert bodies[0] == bodies[1] != bodies[2]
