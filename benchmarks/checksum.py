"""Two million profiles through the whole way, whose count and checksum must be right.

``python -m benchmarks.checksum [users]``. The archive comes over HTTP from the local Braze in a
process of its own; what it must hold is computed here, from the same seed.
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator

from benchmarks.server import Server, serving
from benchmarks.table import Row, show
from braze_export import BrazeClient, ExportField, UserProfile
from braze_export.sandbox import Sandbox
from braze_export.sandbox.people import People
from braze_export.sandbox.profiles import Profiles

_FIELDS = [ExportField.EXTERNAL_ID, ExportField.EMAIL, ExportField.CUSTOM_ATTRIBUTES]


def measure(users: int = 2_000_000) -> list[Row]:
    """Export everyone, raw and typed, and compare."""
    with serving("--profile=small", f"--users={users}") as server:
        count, digest, seconds = asyncio.run(_raw(server))
        typed, ids, typed_seconds = asyncio.run(_typed(server))
    expected = hashlib.sha256()
    for line in _expected(users):
        expected.update(line)
    wrong = (count != users) + (digest != expected.hexdigest()) + (typed != users)
    wrong += ids != users * (users + 1) // 2
    print(f"  raw: {count:,} lines, sha256 {digest[:16]}..., {seconds:.1f} s")
    print(f"  typed: {typed:,} profiles, their numbers add up to {ids:,}, {typed_seconds:.1f} s")
    return [Row(f"{users:,} profiles: counts and checksums that are wrong", wrong, 0, "")]


async def _raw(server: Server) -> tuple[int, str, float]:
    count, digest, began = 0, hashlib.sha256(), time.perf_counter()
    async with BrazeClient(server.api_key, server.url) as braze:
        job = await braze.users.export_segment(_segment(), fields=_FIELDS)
        async for line in job.raw():
            digest.update(line)
            count += 1
    return count, digest.hexdigest(), time.perf_counter() - began


async def _typed(server: Server) -> tuple[int, int, float]:
    count, ids, began = 0, 0, time.perf_counter()
    async with BrazeClient(server.api_key, server.url) as braze:
        job = await braze.users.export_segment(_segment(), fields=_FIELDS)
        async for profile in job.profiles():
            assert isinstance(profile, UserProfile)
            count += 1
            ids += int((profile.external_id or "u0")[1:])
    return count, ids, time.perf_counter() - began


def _segment() -> str:
    return Sandbox().segment_id(1)  # the same seed, the same ids; everyone is in the first


def _expected(users: int) -> Iterator[bytes]:
    profiles = Profiles(People(users, 0), "small", 0)
    fields = frozenset(str(field) for field in _FIELDS)
    return (b"".join(profiles.users([n], fields))[1:-1] for n in range(1, users + 1))


if __name__ == "__main__":
    show(measure(*map(int, sys.argv[1:])))
