import asyncio
import tempfile
import threading
import zipfile
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from braze_export.sandbox import Sandbox, archives

from .conftest import Client, Clock, Connect
from .downloading import FIELDS, fetch, ids, members, start, users


@pytest.mark.parametrize(("n", "expected"), [(1, 40), (2, 20), (3, 13), (0, 4)])
async def test_who_is_in_a_segment(connect: Connect, n: int, expected: int) -> None:
    client = await connect(users=40)
    got = await fetch(client, await start(client, n))
    step = n or 10
    assert ids(got.body) == [f"u{user}" for user in range(step, 41, step)]
    assert ids(got.body) == list(client.sandbox.segment_external_ids(n))
    assert len(ids(got.body)) == expected


@pytest.mark.parametrize("n", [-1, 4])
def test_members_of_unknown_segments(n: int) -> None:
    with pytest.raises(LookupError, match="segments 0 to 3"):
        Sandbox().segment_external_ids(n)


@pytest.mark.parametrize("kind", ["zip", "gzip"])
async def test_empty_segments(connect: Connect, kind: str) -> None:
    client = await connect(users=1_000, empty_segments={1, 0})
    assert list(client.sandbox.segment_external_ids(1)) == []
    for n in (1, 0):
        got = await fetch(client, await start(client, n, output_format=kind))
        assert users(got.body) == []
    assert ids((await fetch(client, await start(client, 2))).body)


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0, 0, 0]), (1, [0, 0, 1]), (10, [3, 3, 4]), (1_501, [500, 500, 501])]
)
async def test_members_share_the_users(connect: Connect, count: int, sizes: list[int]) -> None:
    client = await connect(users=count, profile="small")
    got = await fetch(client, await start(client))
    parts = members(got.body)
    assert [len(part.splitlines()) for part in parts] == sizes
    assert not any(part.endswith(b"\n") for part in parts)
    assert ids(got.body) == list(client.sandbox.external_ids())


async def test_gzip_is_one_file_of_many_streams(connect: Connect) -> None:
    client = await connect(users=10, export_members=4)
    url = await start(client, output_format="gzip")
    got = await fetch(client, url)
    assert ".gz?" in url
    assert got.headers["content-type"] == "application/gzip"
    assert got.body.count(b"\x1f\x8b\x08\x00") == 4
    assert ids(got.body) == list(client.sandbox.external_ids())


async def test_large_members_are_written_for_zip64(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_ZIP64_FROM", 10)
    client = await connect(users=10)
    got = await fetch(client, await start(client))
    assert ids(got.body) == list(client.sandbox.external_ids())
    assert got.body[4] == 45  # the version of ZIP that it takes


@pytest.mark.parametrize("fields", [["external_id"], ["email", "devices"], ["no_such_field"]])
async def test_fields_are_those_of_exports_by_id(connect: Connect, fields: list[str]) -> None:
    client = await connect(users=50)
    got = await fetch(client, await start(client, fields_to_export=fields))
    answer = await client.ids(*client.sandbox.external_ids(), fields_to_export=fields)

    def known(profiles: list[Any]) -> list[str]:
        return sorted(map(str, profiles))

    assert known(users(got.body)) == known(answer.json["users"])


async def test_custom_attributes_by_name(connect: Connect) -> None:
    client = await connect(users=50, profile="full")
    fields = ["external_id", "custom_attributes"]
    whole = users((await fetch(client, await start(client, fields_to_export=fields))).body)
    names = sorted(whole[0]["custom_attributes"])[:2]
    few = users((await fetch(client, await start(client, custom_attributes_to_export=names))).body)
    for one, other in zip(whole, few, strict=True):
        held = {k: v for k, v in one["custom_attributes"].items() if k in names}
        assert other == {"external_id": one["external_id"]} | (
            {"custom_attributes": held} if held else {}
        )
    both = await start(client, fields_to_export=fields, custom_attributes_to_export=names)
    assert users((await fetch(client, both)).body) == whole
    unknown = await start(client, custom_attributes_to_export=["nothing of the kind"])
    assert all(list(user) == FIELDS for user in users((await fetch(client, unknown)).body))


@pytest.mark.parametrize("kind", ["zip", "gzip"])
async def test_archives_made_anew(connect: Connect, clock: Clock, kind: str) -> None:
    client = await connect(users=200)
    url = await start(client, output_format=kind)
    before = await fetch(client, url)
    for seconds in (0, 100):
        clock.now += seconds
        client.sandbox.rewrite_exports()
        after = await fetch(client, url)
        assert ids(after.body) == ids(before.body)
        assert after.body != before.body
        assert after.headers["etag"] != before.headers["etag"]
        moments = [parsedate_to_datetime(got.headers["last-modified"]) for got in (before, after)]
        assert moments[0] < moments[1]
        assert (await fetch(client, url, if_match=before.headers["etag"])).status == 412
        before = after


async def test_a_download_goes_on_with_its_archive(connect: Connect) -> None:
    # Larger than what fits into the sockets' buffers.
    client = await connect(users=3_000, profile="full")
    url = await start(client, fields_to_export=["external_id", "custom_attributes", "purchases"])
    whole = (await fetch(client, url)).body
    async with client.session.get(url) as response:
        client.sandbox.rewrite_exports()
        assert (await fetch(client, url)).body != whole
        assert await response.read() == whole


async def test_an_archive_is_made_once_and_only_when_wanted(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = zipfile.ZipFile

    def counting(*args: Any, **more: Any) -> zipfile.ZipFile:
        made.append(threading.current_thread())
        return real(*args, **more)

    monkeypatch.setattr("braze_export.sandbox.archives.zipfile.ZipFile", counting)
    client = await connect(users=1_000)
    url = await start(client)
    assert made == []
    await asyncio.gather(*(fetch(client, url) for _ in range(5)))
    assert len(made) == 1
    assert threading.main_thread() not in made


async def test_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, connect: Connect
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def files() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    client = await connect(users=1_000, link_seconds=60.0)
    assert await asyncio.to_thread(files) == []
    await fetch(client, await start(client))
    await fetch(client, await start(client, 2))
    assert len(await asyncio.to_thread(files)) == 2
    clock.now += 3_600
    await fetch(client, await start(client))
    assert len(await asyncio.to_thread(files)) == 3
    clock.now += 61  # both are long over now
    await fetch(client, await start(client))
    assert len(await asyncio.to_thread(files)) == 2
    await client.sandbox.aclose()
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_links_live_on_when_the_sandbox_starts_again(clock: Clock) -> None:
    sandbox = Sandbox(clock=clock, users=50)
    bodies = []
    path = ""
    for _ in range(2):
        async with sandbox, aiohttp.ClientSession() as session:
            client = Client(sandbox, session)
            path = path or (await start(client)).removeprefix(sandbox.url)
            bodies.append((await fetch(client, f"{sandbox.url}{path}")).body)
    assert bodies[0] == bodies[1]


async def test_closing_does_not_wait_for_archives(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = await connect(users=1_000_000_000)
    tasks = []
    for n in (1, 2):  # the second waits for the first
        url = await start(client, n)
        tasks.append(asyncio.create_task(fetch(client, url)))
    while not client.sandbox._archives._directory:
        await asyncio.sleep(0.001)
    await client.sandbox.aclose()
    for task in tasks:
        with pytest.raises(aiohttp.ClientError):
            await task
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_a_client_that_leaves_does_not_stop_the_archive(connect: Connect) -> None:
    client = await connect(users=20_000, profile="small")
    url = await start(client)
    task = asyncio.create_task(fetch(client, url))
    while not client.sandbox._archives._tasks:
        await asyncio.sleep(0)
    task.cancel()
    assert len(ids((await fetch(client, url)).body)) == 20_000
    assert len(client.sandbox._archives._tasks) == 1
