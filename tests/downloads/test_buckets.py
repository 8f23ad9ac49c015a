"""Finding the files of an export in a store, on a clock that jumps; stores of memory and disk."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define, evolve
from obstore.store import LocalStore, MemoryStore

from braze_export import BadRecord, ExportSettings, InputError
from braze_export.downloads.buckets import Bucket, newest, started_at
from braze_export.downloads.fetching import ObjectChangedError
from braze_export.downloads.links import NotReady
from braze_export.errors import (
    BrazeError,
    ConnectionLostError,
    ExportExpiredError,
    ExportNotReadyError,
    NotFoundError,
    PermissionDeniedError,
    RequestTimeoutError,
)
from braze_export.exporting.waiting import states
from braze_export.settings import Polling
from braze_export.storage import read_export
from tests import virtual
from tests.archives.making import gzip_of, zipped

START = datetime(2026, 3, 10, 23, 50, tzinfo=UTC)
PREFIX = f"0f3b2c1d-1111-4222-8333-444455556666-{int(START.timestamp())}"
SEGMENT = "seg-1"
HOUR = 3600.0
DAY = "segment-export/seg-1/2026-03-10"


def now() -> float:
    return asyncio.get_running_loop().time()


@define(eq=False)
class Shelf:
    """A store whose files come in time: path to size, and when it comes."""

    files: dict[str, tuple[int, float]] = Factory(dict)
    errors: list[Exception] = Factory(list)
    asked: list[str] = Factory(list)
    began: float = Factory(now)
    tag: str | None = '"etag"'

    def add(self, path: str, after: float = 0.0, size: int = 10) -> None:
        self.files[path] = (size, after)

    def there(self, prefix: str | None) -> list[str]:
        self.asked.append(prefix or "")
        if self.errors:
            raise self.errors.pop(0)
        start = f"{prefix}/" if prefix else ""
        seconds = now() - self.began
        return sorted(
            p for p, (_, after) in self.files.items() if p.startswith(start) and after <= seconds
        )

    async def list(self, prefix: str | None = None) -> AsyncGenerator[list[dict[str, Any]], None]:
        for path in self.there(prefix):
            size, after = self.files[path]
            moment = datetime.fromtimestamp(START.timestamp() + after, UTC)
            yield [{"path": path, "size": size, "e_tag": self.tag, "last_modified": moment}]

    async def list_with_delimiter_async(self, prefix: str | None = None) -> dict[str, Any]:
        start = f"{prefix}/" if prefix else ""
        rest = [path.removeprefix(start) for path in self.there(prefix)]
        folders = sorted({start + part.split("/")[0] for part in rest if "/" in part})
        return {"common_prefixes": folders, "objects": []}

    async def get_async(self, path: str, *, options: Any = None) -> Any:
        raise NotImplementedError


def bucket_of(shelf: Any, **options: Any) -> Bucket:
    wall = options.pop("wall", START.timestamp())
    began = now()
    return Bucket(
        shelf,
        options.pop("segment_id", SEGMENT),
        options.pop("prefix", PREFIX),
        wall_clock=lambda: wall + now() - began,
        **options,
    )


async def waited(bucket: Bucket, **options: Any) -> float:
    """Wait until it is whole, and return how long that took."""
    began = now()
    polling = options.pop("polling", Polling(base=1, cap=5))
    async with aclosing(states(bucket.look, polling, age=bucket.idle, **options)) as found:
        async for _ in found:
            pass
    return now() - began


def names(bucket: Bucket) -> list[str]:
    return [found.path.rpartition("/")[2] for found in bucket.objects]


# --- names


@pytest.mark.parametrize(
    ("name", "started"),
    [
        (PREFIX, START.timestamp()),
        ("d9696570-dfb7-45ae-baa2-25e302r2da27-1556044807", 1556044807.0),
        (f"/exports/{PREFIX}.zip", START.timestamp()),
        ("a-123", None),
        ("a-1773186600123", None),
        ("2026-03-10", None),
        ("1556044807", None),
        ("", None),
    ],
)
def test_when_an_export_was_started(name: str, started: float | None) -> None:
    assert started_at(name) == started


# --- where files are


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (DAY, True),
        ("segment-export/seg-1/2026-03-09", True),  # another time zone
        ("segment-export/seg-1/2026-03-11", True),  # past midnight
        ("segment-export/seg-1/2026-03-19", True),  # days later
        ("segment-export/seg-1/2026-03-08", False),
        ("segment-export/seg-1/tmp", False),
        ("segment-export/seg-1/2026-13-45", False),
        ("segment-export/seg-10/2026-03-10", False),
        ("segment-export/seg/2026-03-10", False),
        ("braze/segment-export/seg-1/2026-03-10", True),
        ("a/b/segment-export/seg-1/2026-03-10", False),  # two levels down: only if named
        ("segment-exports/seg-1/2026-03-10", False),
        ("seg-1/2026-03-10", False),
    ],
)
def test_where_files_are_looked_for(place: str, found: bool) -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add(f"{place}/{PREFIX}/x.zip")
        bucket = bucket_of(shelf, quiet_period=0)
        assert (await bucket.look() is None) == found

    virtual.run(main)


def test_a_prefix_without_a_time_is_on_any_day() -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add("segment-export/seg-1/2020-01-01/odd/x.zip")
        assert await bucket_of(shelf, prefix="odd", quiet_period=0).look() is None

    virtual.run(main)


@pytest.mark.parametrize("folder", ["a/b", "/a/b/", ""])
def test_a_folder_that_is_named(folder: str) -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add(f"{folder.strip('/')}/{DAY}/{PREFIX}/x.zip".lstrip("/"))
        shelf.add(f"elsewhere/{DAY}/{PREFIX}/y.zip")
        bucket = bucket_of(shelf, folder=folder, quiet_period=0)
        assert await bucket.look() is None
        assert names(bucket) == ["x.zip"]
        assert "" not in shelf.asked  # the top may be forbidden

    virtual.run(main)


def test_what_else_lies_there_is_passed_over() -> None:
    async def main() -> None:
        shelf = Shelf()
        wanted = ["a.zip", "b.gz", "c.txt", "d.json", "e.ndjson"]
        for name in [*wanted, "users.csv", "_SUCCESS", "f.zip.tmp"]:
            shelf.add(f"{DAY}/{PREFIX}/{name}")
        shelf.add(f"{DAY}/users-0a1b2c.zip")  # of the dashboard
        shelf.add(f"{DAY}/{PREFIX[:-1]}/no.zip")
        shelf.add(f"{DAY}/{PREFIX}0/no.zip")
        shelf.add(f"segment-export/seg-2/2026-03-10/{PREFIX}/no.zip")
        bucket = bucket_of(shelf, quiet_period=0)
        assert await bucket.look() is None
        assert names(bucket) == wanted
        sources = [source.name async for source in bucket.sources()]
        assert sources == [f"{PREFIX}/{name}" for name in wanted]

    virtual.run(main)


def test_files_of_one_export_on_both_sides_of_midnight() -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add(f"{DAY}/{PREFIX}/b.zip", 590)
        shelf.add(f"segment-export/seg-1/2026-03-11/{PREFIX}/a.zip", 605)
        bucket = bucket_of(shelf)
        assert 665 <= await waited(bucket) < 680
        assert names(bucket) == ["b.zip", "a.zip"]

    virtual.run(main)


def test_the_segment_may_be_unknown() -> None:
    """The control group's own id is told nowhere, and its folder may be made only now."""

    async def main() -> None:
        shelf = Shelf()
        for n in range(5):
            shelf.add(f"segment-export/other-{n}/2026-03-10/other-{n}-1773186600/x.zip")
        shelf.add(f"segment-export/group/2026-03-10/{PREFIX}/x.zip", 300)
        bucket = bucket_of(shelf, segment_id=None)
        assert 360 <= await waited(bucket) < 380
        assert names(bucket) == ["x.zip"]
        shelf.asked.clear()
        await bucket.look()
        assert len(shelf.asked) == 2  # where it was found, and nowhere else

    virtual.run(main)


def test_exports_of_before_may_lie_in_another_folder() -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add("segment-export/seg-1/2026-03-09/old-1773000000/x.zip")
        shelf.add("before/segment-export/seg-1/2026-03-10/older-1773100000/x.zip")
        shelf.add(f"now/{DAY}/{PREFIX}/x.zip", 100)
        bucket = bucket_of(shelf)
        assert 160 <= await waited(bucket) < 180
        assert [found.path for found in bucket.objects] == [f"now/{DAY}/{PREFIX}/x.zip"]

    virtual.run(main)


def test_not_every_folder_of_a_large_bucket_is_looked_through() -> None:
    async def main() -> None:
        shelf = Shelf()
        for n in range(500):
            shelf.add(f"data-{n:03d}/file")
        assert await bucket_of(shelf).look() == NotReady(404, None)
        assert len(shelf.asked) == 101

    virtual.run(main)


# --- when it is whole


def test_files_that_come_late_begin_the_quiet_period_anew() -> None:
    async def main() -> None:
        shelf = Shelf()
        for n in range(5):
            shelf.add(f"{DAY}/{PREFIX}/{n}.zip", 100 + 50 * n)
        bucket = bucket_of(shelf)
        assert 360 <= await waited(bucket) < 372
        assert len(bucket.objects) == 5
        # What is whole stays so.
        assert await bucket.look() is None

    virtual.run(main)


def test_a_file_that_changes_is_news() -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add(f"{DAY}/{PREFIX}/x.zip")
        bucket = bucket_of(shelf)
        waiting = asyncio.create_task(waited(bucket))
        await asyncio.sleep(50)
        shelf.add(f"{DAY}/{PREFIX}/x.zip", size=11)
        assert 110 <= await waiting < 123

    virtual.run(main)


def test_old_files_are_whole_at_once() -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add(f"{DAY}/{PREFIX}/x.zip")
        assert await waited(bucket_of(shelf, wall=START.timestamp() + 901)) < 1
        assert 60 <= await waited(bucket_of(shelf, wall=START.timestamp() + 500)) < 70
        # Not older than the quiet period, where that is longer.
        patient = bucket_of(shelf, wall=START.timestamp() + 901, quiet_period=2 * HOUR)
        assert 2 * HOUR - 901 <= await waited(patient) < 2 * HOUR - 890

    virtual.run(main)


def test_only_the_callback_says_so() -> None:
    async def main() -> None:
        shelf = Shelf()
        shelf.add(f"{DAY}/{PREFIX}/x.zip")
        bucket = bucket_of(shelf, quiet_period=float("inf"))
        with pytest.raises(ExportNotReadyError):
            await waited(bucket, timeout=3 * HOUR)
        assert await bucket.look(True) is None

    virtual.run(main)


def test_a_callback_is_the_sign() -> None:
    async def main() -> None:
        shelf = Shelf()
        bucket = bucket_of(shelf)
        assert await bucket.look() == NotReady(404, None)
        shelf.add(f"{DAY}/{PREFIX}/x.zip")
        assert await bucket.look() == NotReady(404, None)
        assert await bucket.look(True) is None

    virtual.run(main)


def test_a_callback_without_files_is_an_export_of_nobody() -> None:
    async def main() -> None:
        shelf = Shelf()
        bucket = bucket_of(shelf)
        await bucket.look()
        await asyncio.sleep(2 * HOUR)
        # Files may be seen a little after the callback, however long it took.
        assert await bucket.look(True) == NotReady(404, None)
        await asyncio.sleep(59)
        assert await bucket.look(True) == NotReady(404, None)
        await asyncio.sleep(2)
        assert await bucket.look(False) == NotReady(404, None)
        assert await bucket.look(True) is None
        assert bucket.objects == []

    virtual.run(main)


def test_nothing_ever_comes() -> None:
    async def main() -> None:
        bucket = bucket_of(Shelf())
        with pytest.raises(ExportExpiredError):
            await waited(bucket, polling=Polling(cap=60, lifetime=HOUR))
        with pytest.raises(ExportNotReadyError):
            await waited(bucket_of(Shelf()), timeout=100)

    virtual.run(main)


# --- the newest


def test_the_newest_export() -> None:
    async def main() -> None:
        shelf = Shelf()
        assert await newest(shelf, SEGMENT, None) is None
        shelf.add("segment-export/seg-2/2026-03-10/other-1773999999/x.zip")
        assert await newest(shelf, SEGMENT, None) is None
        shelf.add("segment-export/seg-1/2026-03-09/users-1773999999.zip")
        assert await newest(shelf, SEGMENT, None) is None
        shelf.add("segment-export/seg-1/2026-03-08/odd/x.zip")
        assert await newest(shelf, SEGMENT, None) == "odd"
        shelf.add("segment-export/seg-1/2026-03-07/a-1772000000/x.zip")
        assert await newest(shelf, SEGMENT, None) == "a-1772000000"
        shelf.add("segment-export/seg-1/2026-03-09/z-1773000001/x.zip")
        shelf.add("segment-export/seg-1/2026-03-09/a-1773000002/x.zip")
        shelf.add("segment-export/seg-1/tmp/a-1779999999/x.zip")
        assert await newest(shelf, SEGMENT, None) == "a-1773000002"
        shelf.add("folder/segment-export/seg-1/2026-03-01/a-1774000000/x.zip")
        assert await newest(shelf, SEGMENT, None) == "a-1774000000"
        assert await newest(shelf, SEGMENT, "folder") == "a-1774000000"
        assert await newest(shelf, SEGMENT, "") == "a-1773000002"

    virtual.run(main)


# --- errors

SECRET = "AKIA-SECRET"


class GenericError(Exception):
    pass


class PreconditionError(Exception):
    pass


class UnauthenticatedError(Exception):
    pass


ERRORS: list[tuple[Exception, type[BrazeError], str]] = [
    (FileNotFoundError(SECRET), NotFoundError, "is not there"),
    (GenericError(f"{SECRET} - status code: 404 Not Found"), NotFoundError, "is not there"),
    (GenericError(f"{SECRET} - status code: 403 Forbidden"), PermissionDeniedError, "must not be"),
    (GenericError(f"{SECRET} - status code: 401"), PermissionDeniedError, "must not be"),
    (UnauthenticatedError(SECRET), PermissionDeniedError, "must not be"),
    (GenericError(f"{SECRET} status code: 500"), ConnectionLostError, "(GenericError 500)"),
    (GenericError(SECRET), ConnectionLostError, "(GenericError)"),
    (KeyError(SECRET), ConnectionLostError, "(KeyError)"),
    (PreconditionError(SECRET), ObjectChangedError, "replaced"),
]  # fmt: skip


def check_secrecy(error: BaseException | None) -> None:
    while error is not None:
        assert SECRET not in f"{error} {error!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize(("raised", "kind", "says"), ERRORS)
def test_whatever_a_store_raises(raised: Exception, kind: type[BrazeError], says: str) -> None:
    async def main() -> None:
        shelf = Shelf(errors=[raised])
        with pytest.raises(kind, match=re.escape(says)) as caught:
            await bucket_of(shelf, folder="a\x1b[0m").look()
        check_secrecy(caught.value)
        assert str(caught.value).isprintable()

    virtual.run(main)


def test_errors_of_ours_and_cancelling_are_let_through() -> None:
    async def main() -> None:
        ours = RequestTimeoutError("too slow")
        with pytest.raises(RequestTimeoutError) as caught:
            await bucket_of(Shelf(errors=[ours])).look()
        assert caught.value is ours
        shelf = Shelf()
        shelf.errors = [asyncio.CancelledError()]  # type: ignore[list-item]
        with pytest.raises(asyncio.CancelledError):
            await bucket_of(shelf).look()

    virtual.run(main)


def test_a_refusal_is_told_at_once_and_a_failure_tried_again() -> None:
    async def main() -> None:
        shelf = Shelf(errors=[GenericError("status code: 403")])
        with pytest.raises(PermissionDeniedError):
            await waited(bucket_of(shelf))
        assert len(shelf.asked) == 1
        shelf = Shelf(errors=[GenericError("reset") for _ in range(9)])
        shelf.add(f"{DAY}/{PREFIX}/x.zip")
        assert await waited(bucket_of(shelf)) > 60
        with pytest.raises(ConnectionLostError, match="tried 10 times"):
            await waited(bucket_of(Shelf(errors=[GenericError("reset") for _ in range(10)])))

    virtual.run(main)


@define(eq=False)
class Got:
    """What a store gives: chunks, or an error."""

    chunks: list[Any]
    tag: str | None = '"v1"'
    start: int = 0

    @property
    def meta(self) -> dict[str, Any]:
        return {"e_tag": self.tag, "size": 100}

    @property
    def range(self) -> tuple[int, int]:
        return (self.start, 100)

    async def stream(self, min_chunk_size: int) -> AsyncIterator[Any]:
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk


@define(eq=False)
class Giver:
    """A store that gives these, one after the other."""

    gives: list[Any]
    options: list[Any] = Factory(list)

    async def get_async(self, path: str, *, options: Any = None) -> Any:
        self.options.append(options)
        given = self.gives.pop(0)
        if isinstance(given, BaseException):
            raise given
        return given


async def stored(giver: Giver, tag: str | None = '"v1"') -> Any:
    shelf = Shelf(tag=tag)
    shelf.add(f"{DAY}/{PREFIX}/x.zip")
    bucket = bucket_of(shelf, quiet_period=0)
    await bucket.look()
    return evolve(bucket.objects[0], store=giver)  # type: ignore[arg-type]


async def test_a_file_is_opened() -> None:
    giver = Giver([Got([b"ab", memoryview(b"cd")]), Got([b"d"], start=3)])
    source = await stored(giver)
    assert source.version == "v1"
    assert "Giver" not in repr(source)
    async with source.open(0, None) as opened:
        assert (opened.start, opened.total, opened.version) == (0, 100, "v1")
        assert [chunk async for chunk in opened.chunks] == [b"ab", b"cd"]
    async with source.open(3, "v1") as opened:
        assert opened.start == 3
    assert giver.options == [{}, {"range": {"offset": 3}, "if_match": "v1"}]


@pytest.mark.parametrize("tag", [None, "", 'W/"weak"'])
async def test_a_tag_that_is_good_for_nothing(tag: str | None) -> None:
    source = await stored(Giver([Got([], tag=tag)]), tag)
    assert source.version is None
    async with source.open(0, None) as opened:
        assert opened.version is None


@pytest.mark.parametrize(
    ("raised", "kind", "says"), [case for case in ERRORS if "status" not in str(case[0])]
)
async def test_errors_while_a_file_is_read(
    raised: Exception, kind: type[BrazeError], says: str
) -> None:
    source = await stored(Giver([raised, Got([b"ab", raised])]))
    with pytest.raises(kind, match=re.escape(says)) as caught:
        async with source.open(0, None):
            pass
    check_secrecy(caught.value)
    async with source.open(0, None) as opened:
        with pytest.raises(kind, match=re.escape(says)) as caught:
            _ = [chunk async for chunk in opened.chunks]
    check_secrecy(caught.value)


async def test_a_file_that_is_gone_under_way_was_replaced() -> None:
    source = await stored(Giver([FileNotFoundError(), GenericError("status code: 404")]))
    for _ in range(2):
        with pytest.raises(ObjectChangedError):
            async with source.open(5, "v1"):
                pass


# --- stores of memory and disk

QUIET = ExportSettings(quiet_period=0, polling=Polling(base=0.01))
ROWS = b'{"external_id": "u1"}\n{"external_id": "u2"}\n'


@pytest.fixture(params=["memory", "disk"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path)


async def users(*args: Any, **options: Any) -> list[Any]:
    async with aclosing(read_export(*args, **({"settings": QUIET} | options))) as found:
        return [one if isinstance(one, BadRecord) else one.external_id async for one in found]


async def test_an_export_is_read(made: Any) -> None:
    with pytest.raises(NotFoundError, match="no export of this segment"):
        await users(made, SEGMENT)
    await made.put_async(f"{DAY}/{PREFIX}/a.zip", zipped({"a.txt": ROWS, "b.json": ROWS}))
    await made.put_async(f"{DAY}/{PREFIX}/b.gz", gzip_of(ROWS))
    await made.put_async(f"{DAY}/{PREFIX}/c.zip", b"")
    await made.put_async(f"{DAY}/users-1.zip", b"CSV")
    assert await users(made, SEGMENT) == ["u1", "u2"] * 3
    assert await users(made, SEGMENT, object_prefix=PREFIX, folder="") == ["u1", "u2"] * 3
    with pytest.raises(NotFoundError):
        await users(made, SEGMENT, folder="elsewhere")
    with pytest.raises(ExportNotReadyError):
        await users(made, SEGMENT, object_prefix="another-1773186600", timeout=0.05)


async def test_a_damaged_file_among_others(made: Any) -> None:
    await made.put_async(f"{DAY}/{PREFIX}/a.zip", zipped({"a.txt": ROWS})[:-30])
    await made.put_async(f"{DAY}/{PREFIX}/b.gz", gzip_of(ROWS))
    found = await users(made, SEGMENT, on_error="yield")
    bad = [one for one in found if isinstance(one, BadRecord)]
    assert [one.file for one in bad] == [f"{PREFIX}/a.zip"]
    assert found.count("u1") == 2


async def test_a_file_is_gone_when_it_is_wanted(made: Any) -> None:
    await made.put_async(f"{DAY}/{PREFIX}/a.zip", zipped({"a.txt": ROWS}))

    class Gone:
        list = made.list
        list_with_delimiter_async = made.list_with_delimiter_async

        async def get_async(self, path: str, *, options: Any = None) -> Any:
            return await made.get_async(f"{path}-gone", options=options)

    with pytest.raises(NotFoundError, match=r"a\.zip in the storage is not there"):
        await users(Gone(), SEGMENT, on_error="yield")


async def test_arguments_that_make_no_sense() -> None:
    store = MemoryStore()
    cases: list[dict[str, Any]] = [{"object_prefix": ""}, {"object_prefix": f"{DAY}/{PREFIX}"}]
    for options in cases:
        with pytest.raises(InputError):
            read_export(store, SEGMENT, **options)
    with pytest.raises(InputError):
        read_export(store, "")
    with pytest.raises(InputError, match="on_error"):
        read_export(store, SEGMENT, on_error="skip")  # type: ignore[call-overload]
