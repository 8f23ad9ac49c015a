"""Exports as a plain client starts and reads them."""

import gzip
import io
import json
import zipfile
from typing import Any

from .conftest import Client, Got

FIELDS = ["external_id"]
GROUP = "/users/export/global_control_group"


async def start(client: Client, n: int = 1, **more: Any) -> str:
    """Start the export of a segment and return its link."""
    body = {"segment_id": client.sandbox.segment_id(n), "fields_to_export": FIELDS} | more
    if n == 0:
        del body["segment_id"]
    got = await client.post("/users/export/segment" if n else GROUP, body)
    assert got.status == 200, got.body
    url: str = got.json["url"]
    return url


async def fetch(client: Client, url: str, method: str = "GET", **headers: str) -> Got:
    """Fetch a link with nothing but what it takes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.session.request(method, url, headers=named) as response:
        return Got(response.status, response.headers, await response.read())


def members(archive: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return [opened.read(name) for name in opened.namelist()]


def users(archive: bytes) -> list[Any]:
    """Return the users of an archive of either kind."""
    parts = [gzip.decompress(archive)] if archive[:2] == b"\x1f\x8b" else members(archive)
    return [json.loads(line) for part in parts for line in part.splitlines()]


def ids(archive: bytes) -> list[str]:
    return [user["external_id"] for user in users(archive)]
