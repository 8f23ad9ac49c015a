"""Lines to records: what is no record, where it stands, and whose turn it is."""

import asyncio
import gzip
import json
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import attrs
import pytest

from braze_export import BadRecord, DownloadStats, UserProfile
from braze_export.archives.archive import ArchiveLimits
from braze_export.codec import decoder_for
from braze_export.downloads.reading import Reading
from braze_export.endpoints import EXPORT_SEGMENT
from braze_export.errors import (
    ArchiveError,
    BrazeError,
    ClientClosedError,
    ConnectionLostError,
    DecodeError,
    InputError,
    NotFoundError,
)
from braze_export.settings import ExportSettings
from braze_export.storage import read_archive
from braze_export.tasks import TaskScope
from braze_export.turns import Turn
from braze_export.validators import check_on_error
from tests.archives.making import Member, zip_of, zipped
from tests.sources import ONCE, Listing, Made

EMAIL = b"ada.lovelace@example.com"
GOOD = b'{"external_id": "u%d", "email": "ada.lovelace@example.com"}'


@pytest.fixture(autouse=True)
async def clean(nothing_left: None) -> None:
    """Every test leaves no task behind."""


@pytest.fixture
async def scope() -> AsyncIterator[TaskScope]:
    scope = TaskScope()
    yield scope
    await scope.aclose()


@attrs.define
class Got:
    good: list[Any] = attrs.Factory(list)
    bad: list[BadRecord] = attrs.Factory(list)
    error: Exception | None = None
    stats: DownloadStats = attrs.Factory(DownloadStats)

    @property
    def places(self) -> list[tuple[str, int | None, int | None]]:
        return [(one.file, one.line, one.offset) for one in self.bad]


def reading_of(into: type = dict, *, keep_going: bool = True, **options: Any) -> Reading:
    return Reading(
        decode=decoder_for(into, EXPORT_SEGMENT, checked=False),
        endpoint=EXPORT_SEGMENT,
        keep_going=keep_going,
        in_thread=into is bytes,
        settings=ExportSettings(**options),
        retry=ONCE,
    )


async def read(scope: TaskScope, *objects: Any, into: type = dict, **options: Any) -> Got:
    got = Got()
    listing = Listing([Made("a.zip", o) if isinstance(o, bytes) else o for o in objects])
    records = reading_of(into, **options).records(listing(), got.stats, scope)
    try:
        async with aclosing(records):
            async for record in records:
                (got.bad if isinstance(record, BadRecord) else got.good).append(record)
    except (BrazeError, ZeroDivisionError) as error:
        got.error = error
    return got


def packed(*rows: bytes, end: bytes = b"\n") -> bytes:
    return gzip.compress(b"".join(row + end for row in rows))


BAD_LINES = {
    "no JSON": b'{"email": "ada.lovelace@example.com"',
    "two values": b'{"email": "ada.lovelace@example.com"} {}',
    "a list": b'["ada.lovelace@example.com"]',
    "a text": b'"ada.lovelace@example.com"',
    "null": b"null",
    "a number": b"5",
    "bad UTF-8": b'{"email": "ada.lovelace@example.com\xff"}',
    "an overlong form": b'{"email": "ada.lovelace@example.com\xc0\xaf"}',
    "UTF-16": '{"email": "ada"}'.encode("utf-16-le"),
    "too deep": b'{"email": "ada.lovelace@example.com", "a": '
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    "CSV": b"user_id,ada.lovelace@example.com",
}


CASES = [(what, into) for what in BAD_LINES for into in (UserProfile, dict, bytes)]
CASES.remove(("too deep", bytes))  # not looked into


@pytest.mark.parametrize(("what", "into"), CASES)
async def test_a_line_that_is_no_record(what: str, into: type, scope: TaskScope) -> None:
    bad = BAD_LINES[what]
    got = await read(scope, packed(GOOD % 1, bad, GOOD % 2), into=into)
    assert len(got.good) == 2
    [record] = got.bad
    offset = len(GOOD % 1) + 1
    assert got.places == [("a.zip", 2, offset)]
    assert record.raw == bad
    error = record.error
    assert isinstance(error, DecodeError)
    assert (error.file, error.line, error.offset, error.raw) == ("a.zip", 2, offset, bad)
    assert str(error).startswith(f"a.zip, line 2 (byte {offset:,}): a user cannot be read as ")
    for text in (str(error), repr(error), repr(record), "".join(traceback.format_exception(error))):
        assert "lovelace" not in text
    assert (got.stats.users, got.stats.bad_records) == (2, 1)


@pytest.mark.parametrize("what", BAD_LINES)
async def test_the_first_bad_line_is_raised(what: str, scope: TaskScope) -> None:
    bad = BAD_LINES[what]
    rows = packed(GOOD % 1, bad, GOOD % 2)
    got = await read(scope, rows, keep_going=False)
    assert [user["external_id"] for user in got.good] == ["u1"]
    assert isinstance(got.error, DecodeError)
    assert got.error.line == 2
    assert "lovelace" not in "".join(traceback.format_exception(got.error))
    assert (got.stats.users, got.stats.bad_records) == (1, 1)


@pytest.mark.parametrize("into", [UserProfile, dict, bytes])
@pytest.mark.parametrize(
    "text",
    ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "é ü 🙂", "\\u2028", "\\n", "\\ud83d"],
)
async def test_only_a_line_feed_ends_a_line(text: str, into: type, scope: TaskScope) -> None:
    if text in {"\x0b", "\x0c", "\x1c"}:
        text = json.dumps(text)[1:-1]
    row = f'{{"external_id": "{text}"}}'.encode()
    got = await read(scope, packed(row, row), into=into)
    assert (got.bad, got.error) == ([], None)
    assert len(got.good) == 2
    if into is bytes:
        assert got.good == [row, row]


@pytest.mark.parametrize("into", [UserProfile, dict, bytes])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \n", b"\n\n", b"\n \t\r\n"])
async def test_blank_lines_and_other_ends_of_lines(
    end: bytes, into: type, scope: TaskScope
) -> None:
    got = await read(scope, packed(GOOD % 1, GOOD % 2, GOOD % 3, end=end), into=into)
    assert (got.bad, got.error) == ([], None)
    assert len(got.good) == got.stats.users == 3
    if into is bytes:
        assert got.good == [GOOD % 1, GOOD % 2, GOOD % 3]


async def test_lines_after_blank_ones_have_their_places(scope: TaskScope) -> None:
    got = await read(scope, gzip.compress(b"\n\r\n  \nx\n\n{}\ny"))
    assert got.places == [("a.zip", 4, 6), ("a.zip", 7, 12)]
    assert got.good == [{}]


async def test_a_lone_surrogate_is_let_through(scope: TaskScope) -> None:
    row = b'{"external_id": "\\ud83d", "email": "a"}'
    got = await read(scope, packed(row), into=UserProfile)
    assert [user.email for user in got.good] == ["a"]
    got = await read(scope, packed(row), into=bytes)
    assert got.good == [row]


async def test_a_line_that_is_too_long(scope: TaskScope) -> None:
    long = b'{"email": "%s"}' % (EMAIL * 2000)
    limits = ArchiveLimits(max_line=20_000)
    rows = packed(GOOD % 1, long, GOOD % 2)
    got = await read(scope, rows, archive_limits=limits)
    assert len(got.good) == 2
    [record] = got.bad
    assert record.raw == long[:10_000]
    assert got.places == [("a.zip", 2, len(GOOD % 1) + 1)]
    assert f"the line has {len(long):,} bytes, more than the 20,000" in str(record.error)
    assert "lovelace" not in str(record.error)
    got = await read(scope, rows, archive_limits=limits, keep_going=False)
    assert isinstance(got.error, DecodeError)
    assert got.error.line == 2
    assert len(got.good) == 1


async def test_a_class_of_ones_own(scope: TaskScope) -> None:
    @attrs.frozen
    class User:
        external_id: str
        age: int

    rows = packed(b'{"external_id": "u1", "age": 5}', b'{"external_id": "u2", "age": "secret"}')
    got = await read(scope, rows, into=User)
    assert got.good == [User("u1", 5)]
    assert got.places == [("a.zip", 2, 32)]
    assert "secret" not in str(got.bad[0].error)


async def test_a_bad_record_that_is_kept_keeps_nothing_else(scope: TaskScope) -> None:
    got = await read(scope, packed(GOOD % 1, b"x"), b"<html>")
    for record in got.bad:
        assert record.error.__traceback__ is None
        assert record.error.__context__ is None
        assert record.error.__cause__ is None


# --- broken files


async def test_a_damaged_file_is_one_bad_record(scope: TaskScope) -> None:
    whole = packed(*(GOOD % n for n in range(100)))
    objects = [Made("cut.gz", whole[:-10]), Made("whole.gz", whole), Made("no.gz", b"<html>")]
    got = await read(scope, *objects)
    assert sorted(got.places) == [("cut.gz", None, None), ("no.gz", None, None)]
    for record in got.bad:
        assert isinstance(record.error, ArchiveError)
        assert record.raw == b""
        assert str(record.error).startswith(f"{record.file}: ")
    assert 100 <= len(got.good) <= 200
    assert (got.stats.users, got.stats.bad_records) == (len(got.good), 2)
    assert (got.stats.objects, got.stats.objects_done) == (3, 1)


async def test_a_damaged_member_is_named(scope: TaskScope) -> None:
    members = [Member(name=f"m{n}.txt", data=GOOD % n) for n in range(3)]
    members[1] = Member(name="m1\x1b[31m.txt", data=GOOD % 1, crc=5)
    got = await read(scope, zip_of(*members))
    [(file, line, offset)] = got.places
    assert file.startswith("a.zip")
    assert file.isprintable()
    assert (line, offset) == (None, None)


async def test_a_damaged_file_is_raised_after_its_records(scope: TaskScope) -> None:
    members = [Member(name=f"m{n}.txt", data=GOOD % n) for n in range(9)]
    members[7] = Member(name="m7.txt", data=GOOD % 7, crc=5)
    got = await read(scope, zip_of(*members), keep_going=False)
    assert isinstance(got.error, ArchiveError)
    assert got.error.file.startswith("a.zip")
    assert [user["external_id"] for user in got.good] == [f"u{n}" for n in range(7)]
    assert (got.stats.users, got.stats.bad_records) == (7, 1)


@pytest.mark.parametrize("keep_going", [False, True])
@pytest.mark.parametrize(
    "error", [ConnectionLostError("gone"), NotFoundError("no", status=404), ZeroDivisionError()]
)
async def test_the_network_is_no_bad_record(
    error: Exception, keep_going: bool, scope: TaskScope
) -> None:
    source = Made("a.txt", GOOD % 1 + b"\n", fails=[error])
    got = await read(scope, source, keep_going=keep_going)
    assert got.error is error
    assert (len(got.good), got.bad, got.stats.bad_records) == (1, [], 0)


async def test_members_and_their_lines(scope: TaskScope) -> None:
    got = await read(scope, zipped({"a.txt": b"{}\nx\n{}", "b.json": b"y\n{}", "c": b""}))
    assert got.places == [("a.zip: a.txt", 2, 3), ("a.zip: b.json", 1, 0)]
    assert len(got.good) == 3


async def test_nobody_at_all(scope: TaskScope) -> None:
    for nothing in (b"", gzip.compress(b""), zipped({}), zipped({"a.txt": b""}), b"\n"):
        got = await read(scope, nothing)
        assert (got.good, got.bad, got.error) == ([], [], None)


async def test_an_archive_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    await asyncio.to_thread(path.write_bytes, zipped({"a.txt": b"%b\nx\n" % (GOOD % 1)}))
    stats = DownloadStats()
    found = [one async for one in read_archive(path, dict, on_error="yield", stats=stats)]
    assert [type(one) for one in found] == [dict, BadRecord]
    assert (stats.users, stats.bad_records) == (1, 1)
    with pytest.raises(DecodeError, match=r"a\.zip: a\.txt, line 2"):
        _ = [one async for one in read_archive(str(path))]
    with pytest.raises(ArchiveError, match="max_bytes"):
        limits = ArchiveLimits(max_bytes=5)
        _ = [one async for one in read_archive(path, limits=limits)]
    with pytest.raises(InputError, match="cannot be read"):
        _ = [one async for one in read_archive(tmp_path / "none.zip")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": None}, "path must be a str or a Path, not of type NoneType"),
        ({"path": [b"x"]}, "path must be a str or a Path, not of type list"),
        ({"path": "a.zip", "limits": 5}, r"limits must be ArchiveLimits\(\.\.\.\), not int"),
        ({"path": "a.zip", "stats": 5}, r"stats must be DownloadStats\(\.\.\.\), not int"),
    ],
)
def test_what_is_no_archive_in_a_file_is_refused_at_once(arguments: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_archive(**arguments)


# --- turns


async def held(work: Any) -> float:
    """Return the longest time for which the loop was not given back."""
    # By the processor's time of this thread: what else the machine does is not held against it.
    longest, last = 0.0, time.thread_time()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            longest, last = max(longest, time.thread_time() - last), time.thread_time()

    watching = asyncio.create_task(watch())
    await work
    watching.cancel()
    await asyncio.wait([watching])
    return longest


@pytest.mark.parametrize(
    "row",
    [GOOD % 1, b"x", b"", b"\r", b'{"a": "%s"}' % (b"x" * 2000)],
    ids=["good", "bad", "blank", "CR", "long"],
)
async def test_the_loop_is_given_back(row: bytes, scope: TaskScope) -> None:
    rows = packed(*[row] * (3_000 if row.strip() else 60_000))
    for _ in range(5):
        if await held(read(scope, rows)) < 0.02:  # much more than it takes
            return
    pytest.fail("the loop was held")


async def test_a_turn_lasts_a_moment() -> None:
    others: list[str] = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    turn = Turn()
    turn._since += 1
    assert (turn.over, others) == (False, [])
    turn._since -= 2
    assert (turn.over, others) == (True, [])
    await turn.give_way()
    assert others == ["ran"]


# --- ends


async def test_leaving_early_ends_all(scope: TaskScope) -> None:
    sources = [Made(f"o{n}", packed(*[GOOD % 1] * 1000)) for n in range(10)]
    listing = Listing(sources)
    async with aclosing(reading_of().records(listing(), DownloadStats(), scope)) as records:
        async for _ in records:
            break
    assert listing.ended == ["closed"]
    assert all(source.opened == source.closed for source in sources)
    assert not scope._tasks


async def test_an_error_ends_all(scope: TaskScope) -> None:
    sources = [Made(f"o{n}", packed(*[b"x"] * 1000)) for n in range(10)]
    got = await read(scope, *sources, keep_going=False)
    assert isinstance(got.error, DecodeError)
    assert all(source.opened == source.closed for source in sources)
    assert not scope._tasks


async def test_closing_the_client_ends_the_reading(scope: TaskScope) -> None:
    source = Made("o", packed(*[GOOD % 1] * 10), waits=asyncio.Event())
    reading = asyncio.create_task(read(scope, source))
    await asyncio.sleep(0.01)
    await scope.aclose()
    got = await reading
    assert isinstance(got.error, ClientClosedError)
    assert "the client is closed" in str(got.error)
    assert isinstance((await read(scope, source)).error, ClientClosedError)


def test_what_to_do_with_errors() -> None:
    assert check_on_error("yield")
    assert not check_on_error("raise")
    with pytest.raises(InputError, match="on_error"):
        check_on_error("skip")
