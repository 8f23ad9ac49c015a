"""One full 20 KB profile, bytes to typed record, against ``orjson.loads`` of the same bytes.

``python -m benchmarks.decode``: with the garbage collector stopped, which is how the work
itself compares, and with it running, which is how a program meets it.
"""

import asyncio
import gc
import timeit
from collections.abc import Callable
from statistics import median

import msgspec
import orjson

from benchmarks.table import Row, show
from braze_export import BrazeClient, UserProfile
from braze_export.codec import decoder_for
from braze_export.endpoints import EXPORT_IDS
from braze_export.sandbox import Sandbox

_USERS = 50
_ROUNDS = 15


def measure() -> list[Row]:
    """Decode the same fifty profiles both ways, in turn."""
    raws = asyncio.run(_full_profiles())
    return [
        Row(f"decode: a full profile, against orjson.loads, {name}", ratio, 1.2, "times")
        for name, setup in (("collector stopped", gc.disable), ("collector running", gc.enable))
        for ratio in [_ratio(raws, setup)]
    ]


def _ratio(raws: list[bytes], setup: Callable[[], None]) -> float:
    views = [msgspec.Raw(raw) for raw in raws]
    decode = decoder_for(UserProfile, EXPORT_IDS)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(_ROUNDS):
        ours.append(_seconds(lambda: [decode(view) for view in views], setup))
        theirs.append(_seconds(lambda: [orjson.loads(raw) for raw in raws], setup))
    size = sum(map(len, raws)) / _USERS
    print(
        f"  {size:,.0f} bytes: typed {median(ours) * 1e6:.1f} us, "
        f"orjson.loads {median(theirs) * 1e6:.1f} us (medians of {_ROUNDS})"
    )
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def _seconds(work: Callable[[], object], setup: Callable[[], None], number: int = 20) -> float:
    return timeit.Timer(work, setup=setup).timeit(number) / number / _USERS


async def _full_profiles() -> list[bytes]:
    async with (
        Sandbox(users=_USERS, profile="full") as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url) as braze,
    ):
        return [raw async for raw in braze.users.export_ids(sandbox.external_ids()).raw()]


if __name__ == "__main__":
    show(measure())
