import asyncio
import re
import threading
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from braze_export.sandbox import Counters

from .conftest import Clock, Connect, Got
from .downloading import fetch, ids, start


def error(got: Got) -> tuple[int, str, str]:
    """Return status, code and message of an answer in XML."""
    assert got.headers["content-type"] == "application/xml"
    pattern = (
        r'<\?xml version="1\.0" encoding="UTF-8"\?>\s*'
        r"<Error><Code>(.*)</Code><Message>(.*)</Message></Error>"
    )
    match = re.fullmatch(pattern, got.body.decode())
    assert match
    return got.status, match[1], match[2]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, (403, "AccessDenied", "Access Denied")),
        (404, (404, "NoSuchKey", "The specified key does not exist.")),
    ],
)
async def test_not_ready(connect: Connect, clock: Clock, status: Any, expected: Any) -> None:
    client = await connect(users=1_000, export_seconds=60.0, not_ready_status=status)
    url = await start(client)
    clock.now += 59.9
    assert error(await fetch(client, url)) == expected
    clock.now += 0.1
    assert (await fetch(client, url)).status == 200


async def test_a_link_ends(connect: Connect, clock: Clock) -> None:
    client = await connect(users=1_000, export_seconds=10.0, link_seconds=60.0)
    url = await start(client)
    assert "X-Amz-Expires=60&" in url
    clock.now += 59.9
    assert (await fetch(client, url)).status == 200
    clock.now += 0.1
    assert error(await fetch(client, url)) == (403, "AccessDenied", "Request has expired")


async def test_a_cancelled_export_is_never_ready(connect: Connect, clock: Clock) -> None:
    client = await connect(users=1_000, export_seconds=10.0)
    cancelled = await start(client)
    body = {"segment_id": client.sandbox.segment_id(1)}
    await client.post("/export/segment/cancel", body)
    other = await start(client)
    clock.now += 20
    assert error(await fetch(client, cancelled)) == (403, "AccessDenied", "Access Denied")
    # What has ended cannot be cancelled.
    await client.post("/export/segment/cancel", body)
    assert (await fetch(client, other)).status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
async def test_only_get_is_signed(connect: Connect, method: str) -> None:
    client = await connect(users=1_000)
    got = await fetch(client, await start(client), method)
    if method == "HEAD":
        assert (got.status, got.body) == (403, b"")
    else:
        assert error(got)[:2] == (403, "SignatureDoesNotMatch")


async def test_wrong_signatures(connect: Connect) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    bare = url.partition("?")[0]
    for wrong in (
        bare,
        f"{bare}?X-Amz-Expires=14400",
        f"{url[:-1]}{'0' if url[-1] != '0' else '1'}",
        f"{url}&more=1",
        url.replace("=14400", "=99999"),
    ):
        assert error(await fetch(client, wrong))[:2] == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("path", ["/exports/", "/exports/nothing.zip", "/exports/a/b?c=1"])
async def test_unknown_paths(connect: Connect, path: str) -> None:
    client = await connect(users=1_000)
    got = await fetch(client, f"{client.sandbox.url}{path}")
    assert error(got) == (403, "AccessDenied", "Access Denied")


async def test_the_ending_belongs_to_the_name(connect: Connect) -> None:
    client = await connect(users=1_000)
    url = (await start(client)).replace(".zip", ".gz")
    assert error(await fetch(client, url))[1] == "AccessDenied"


async def test_old_links_are_forgotten(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braze_export.sandbox.exports._MAX_KEPT", 2)
    client = await connect(users=1_000)
    urls = [await start(client) for _ in range(3)]
    assert [(await fetch(client, url)).status for url in urls] == [403, 200, 200]


async def test_no_key_no_limit_no_compression(connect: Connect) -> None:
    client = await connect(
        users=1_000, gzip=True, permissions={"users.export.segment", "segments.list"}
    )
    url = await start(client)
    for link in (url, f"{url}0"):
        got = await fetch(client, link)
        assert not [name for name in got.headers if name.lower().startswith("x-ratelimit")]
        assert "content-encoding" not in got.headers
    remaining = (await client.get("/segments/list")).rate[1]
    await fetch(client, url)
    assert (await client.get("/segments/list")).rate[1] == remaining - 1


async def test_log_and_counters(connect: Connect) -> None:
    client = await connect(users=1_000)
    urls = [await start(client), await start(client, 2)]
    for url in urls:
        await fetch(client, url)
    await fetch(client, f"{client.sandbox.url}/exports/nothing.zip")
    with_key = {"authorization": f"Bearer {client.sandbox.api_key}"}
    await fetch(client, urls[0], **with_key)
    counters = client.sandbox.counters
    assert counters.paths["/exports/"] == Counters(4)
    assert set(counters.paths) == {"/exports/", "/users/export/segment"}
    log = list(client.sandbox.log)
    assert [record.authorized for record in log] == [True, True, False, False, False, True]
    assert [record.status for record in log] == [200, 200, 200, 200, 403, 200]
    assert log[2].path.startswith("/exports/")
    assert "authorization" not in log[-1].headers


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=2-5", 2, 5),
        ("bytes=10-", 10, None),
        ("bytes=10-999999999999", 10, None),
        ("Bytes=0-", 0, None),
        ("bytes=-3", -3, None),
        ("bytes=-999999999", 0, None),
    ],
)
async def test_ranges(connect: Connect, asked: str, first: int, last: int | None) -> None:
    client = await connect(users=100)
    url = await start(client)
    whole = (await fetch(client, url)).body
    got = await fetch(client, url, range=asked)
    begin = first % len(whole)
    end = len(whole) - 1 if last is None else last
    assert got.status == 206
    assert got.headers["content-range"] == f"bytes {begin}-{end}/{len(whole)}"
    assert got.headers["content-length"] == str(len(got.body))
    assert got.body == whole[begin : end + 1]


@pytest.mark.parametrize("asked", ["bytes=999999999-", "bytes=999999999-9999999999", "bytes=-0"])
async def test_ranges_that_cannot_be(connect: Connect, asked: str) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    size = len((await fetch(client, url)).body)
    got = await fetch(client, url, range=asked)
    assert error(got)[:2] == (416, "InvalidRange")
    assert got.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,4-5", "bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes 0-1", "x"]
)
async def test_ranges_that_are_ignored(connect: Connect, asked: str) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    got = await fetch(client, url, range=asked)
    assert got.status == 200
    assert "content-range" not in got.headers
    assert ids(got.body) == list(client.sandbox.external_ids())


async def test_a_store_without_ranges(connect: Connect) -> None:
    client = await connect(users=1_000, ranges=False)
    url = await start(client)
    got = await fetch(client, url, range="bytes=0-1")
    assert got.status == 200
    assert "accept-ranges" not in got.headers
    assert len(got.body) == int(got.headers["content-length"]) > 2
    assert (await fetch(client, url, if_match='"other"')).status == 412


async def test_headers(connect: Connect, clock: Clock) -> None:
    client = await connect(users=1_000, export_seconds=5.0)
    url = await start(client)
    clock.now += 7
    got, again = await fetch(client, url), await fetch(client, url)
    assert re.fullmatch(r'"[0-9a-f]{32}"', got.headers["etag"])
    assert parsedate_to_datetime(got.headers["last-modified"]).timestamp() == clock.now - 2
    assert got.headers["accept-ranges"] == "bytes"
    assert got.headers["content-type"] == "application/zip"
    assert got.headers["content-length"] == str(len(got.body))
    assert (again.headers["etag"], again.body) == (got.headers["etag"], got.body)
    assert (await fetch(client, await start(client))).status == 403
    assert client.sandbox.connections_made == 1


async def test_conditions(connect: Connect) -> None:
    client = await connect(users=1_000)
    url = await start(client)
    first = await fetch(client, url)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for condition, status in [(etag, 206), ("*", 206), (f'"a", {etag}', 206), ('"a"', 412)]:
        got = await fetch(client, url, range="bytes=0-1", if_match=condition)
        assert got.status == status
    assert error(got)[1] == "PreconditionFailed"
    for condition, status in [(etag, 206), (modified, 206), ('"a"', 200)]:
        got = await fetch(client, url, range="bytes=0-1", if_range=condition)
        assert (got.status, len(got.body)) == (status, 2 if status == 206 else len(first.body))


async def test_a_slow_reader_does_not_fill_the_memory(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    real = Path.open

    def counting(self: Path, *args: Any, **more: Any) -> Any:
        read.append(threading.current_thread())
        return real(self, *args, **more)

    client = await connect(users=6_000, profile="full")
    url = await start(client, fields_to_export=["custom_attributes", "custom_events"])
    size = int((await fetch(client, url, range="bytes=0-0")).headers["content-range"][10:])
    monkeypatch.setattr("pathlib.Path.open", counting)
    async with client.session.get(url) as response:
        await response.content.read(1)
        before = -1
        while before != len(read):
            before = len(read)
            await asyncio.sleep(0.05)
        assert 0 < len(read) * 131_072 < size - 1_000_000
    assert threading.main_thread() not in read
    assert (await fetch(client, url, range="bytes=-1")).status == 206


async def test_a_client_that_leaves_frees_its_connection(connect: Connect) -> None:
    client = await connect(users=3_000, profile="full")
    url = await start(client, fields_to_export=["custom_attributes", "custom_events"])
    response = await client.session.get(url)
    await response.content.read(1)
    response.close()
    async with asyncio.timeout(10):
        while client.sandbox.open_connections:
            await asyncio.sleep(0.001)
    assert (await fetch(client, url, range="bytes=0-9")).status == 206
