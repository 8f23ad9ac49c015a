"""Exports in the workspace's own storage, written by a local Braze, read through real stores."""

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any

import pytest
from obstore.store import AzureStore, GCSStore, S3Store

from braze_export import (
    BrazeClient,
    ConnectionLostError,
    DownloadStats,
    ExportExpiredError,
    ExportNotReadyError,
    ExportSettings,
    InputError,
    NotFoundError,
    PermissionDeniedError,
    RetryPolicy,
)
from braze_export.callbacks import CallbackReceiver
from braze_export.downloads.buckets import Bucket as Place
from braze_export.downloads.fetching import ObjectChangedError
from braze_export.sandbox import Sandbox
from braze_export.settings import Polling
from braze_export.storage import read_export
from tests.archives.making import zipped
from tests.storage import servers
from tests.storage.conftest import Bucket, Store

FIELDS = ["external_id", "email"]
#: Nothing is waited for longer than it takes.
QUICK = ExportSettings(quiet_period=0.0, polling=Polling(base=0.02, cap=0.05))
#: Only a callback says that files are all there.
CALLED = ExportSettings(quiet_period=3600.0, polling=Polling(base=0.02, cap=0.05))
DAY = "segment-export/seg/2026-03-10"
PREFIX = "0f3b2c1d-1111-4222-8333-444455556666-1773186600"


@pytest.fixture(autouse=True)
def _nothing_left(nothing_left: None) -> None:
    """Every test leaves no task behind."""


class Braze:
    """A local Braze with its client."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def start(self, store: Any, exports: ExportSettings = QUICK, **options: Any) -> Sandbox:
        defaults: dict[str, Any] = {"users": 60, "profile": "small", "users_per_object": 20}
        self.sandbox = await self._stack.enter_async_context(
            Sandbox(storage=store, **(defaults | options))
        )
        self.client = await self._stack.enter_async_context(
            BrazeClient(self.sandbox.api_key, self.sandbox.url, exports=exports)
        )
        return self.sandbox

    async def delivered(self, store: Any, count: int) -> list[str]:
        """Wait until so many files are there; return their paths."""
        async with asyncio.timeout(10):
            while True:
                paths = [meta["path"] async for some in store.list() for meta in some]
                if len(paths) >= count:
                    return paths
                await asyncio.sleep(0.01)


@pytest.fixture
async def braze() -> AsyncIterator[Braze]:
    async with AsyncExitStack() as stack:
        yield Braze(stack)


async def ids(records: Any) -> list[str]:
    async with aclosing(records):
        return sorted([user.external_id async for user in records])


def check_secrecy(error: BaseException, *secrets: str) -> None:
    shown = "".join(traceback.format_exception(error))
    link: BaseException | None = error
    while link is not None:
        shown += f"{link} {link!r} {vars(link)!r}"
        link = link.__cause__ or link.__context__
    for secret in secrets:
        assert secret not in shown


# --- what goes well


@pytest.mark.parametrize("folder", ["", "braze"])
async def test_a_job_is_read_from_its_store(store: Store, folder: str, braze: Braze) -> None:
    sandbox = await braze.start(store, storage_folder=folder)
    wanted = sorted(sandbox.segment_external_ids(1))
    job = await braze.client.users.export_segment(sandbox.segment_id(1), fields=FIELDS)
    assert job.url is None
    await braze.delivered(store, 3)
    await sandbox_csv(sandbox)
    assert await ids(job.profiles(store=store)) == wanted
    assert (job.stats.objects, job.stats.objects_done, job.stats.users) == (3, 3, 60)
    assert job.stats.bytes_received == job.stats.bytes_total > 0
    assert job.stats.bytes_unpacked > job.stats.bytes_received / 2
    # By itself as well: as the newest export, or by its prefix.
    segment, stats = sandbox.segment_id(1), DownloadStats()
    assert await ids(read_export(store, segment, settings=QUICK, stats=stats)) == wanted
    assert stats.users == 60
    options: dict[str, Any] = {"object_prefix": job.object_prefix, "folder": folder}
    assert await ids(read_export(store, segment, settings=QUICK, **options)) == wanted
    assert len(await ids(job.profiles(store=store))) == 60  # again


async def sandbox_csv(sandbox: Sandbox) -> None:
    key = await sandbox.upload_dashboard_csv(1)
    assert "/users-" in key


async def test_a_control_group_and_gzip(store: Store, braze: Braze) -> None:
    sandbox = await braze.start(store)
    users = braze.client.users
    await users.export_segment(sandbox.segment_id(2), fields=FIELDS)
    await braze.delivered(store, 2)
    job = await users.export_global_control_group(fields=FIELDS, output_format="gzip")
    assert job.segment_id is None
    paths = await braze.delivered(store, 3)
    assert sum(path.endswith(".gz") for path in paths) == 1
    assert await ids(job.profiles(store=store)) == sorted(sandbox.segment_external_ids(0))
    again = users.resume_export(job.object_prefix or "")
    assert len([row async for row in again.raw(store=store)]) == 6


async def test_a_callback_is_the_sign_that_all_is_there(store: Store, braze: Braze) -> None:
    sandbox = await braze.start(store, CALLED, export_seconds=0.3)
    async with CallbackReceiver() as receiver:
        job = await braze.client.users.export_segment(
            sandbox.segment_id(1), fields=FIELDS, callback_url=receiver.expect()
        )
        seen: list[Any] = []
        await job.wait(store=store, timeout=10, on_progress=seen.append)
        assert [state.phase for state in seen][-1] == "ready"
        assert len(seen) > 3
        assert await ids(job.profiles(store=store)) == sorted(sandbox.segment_external_ids(1))


async def test_an_export_of_nobody(s3_store: S3Store, braze: Braze) -> None:
    sandbox = await braze.start(s3_store, empty_segments=[1])
    job = await braze.client.users.export_segment(sandbox.segment_id(1), fields=FIELDS)
    await braze.delivered(s3_store, 1)
    assert await ids(job.profiles(store=s3_store)) == []


async def test_a_callback_without_files(s3_store: S3Store, braze: Braze) -> None:
    class Nowhere:
        async def put_async(self, key: str, data: bytes) -> None:
            pass

    exports = ExportSettings(quiet_period=0.1, polling=Polling(base=0.02, cap=0.05))
    sandbox = await braze.start(Nowhere(), exports)
    async with CallbackReceiver() as receiver:
        job = await braze.client.users.export_segment(
            sandbox.segment_id(1), fields=FIELDS, callback_url=receiver.expect()
        )
        assert await ids(job.profiles(store=s3_store, timeout=10)) == []


async def test_files_that_come_late(s3_store: S3Store, braze: Braze) -> None:
    class Slow:
        async def put_async(self, key: str, data: bytes) -> None:
            await asyncio.sleep(0.1)
            await s3_store.put_async(key, data)

    exports = ExportSettings(quiet_period=0.5, polling=Polling(base=0.02, cap=0.05))
    sandbox = await braze.start(Slow(), exports)
    job = await braze.client.users.export_segment(sandbox.segment_id(1), fields=FIELDS)
    assert len(await ids(job.profiles(store=s3_store, timeout=10))) == 60
    assert job.stats.objects == 3


async def test_a_store_that_shows_a_part_of_its_bucket(
    s3_server: servers.S3Server, s3_bucket: Bucket, braze: Braze
) -> None:
    below = S3Store(
        s3_bucket.access.url.removeprefix("s3://"),
        prefix="company/braze",
        endpoint=s3_server.url,
        access_key_id="tests",
        secret_access_key="tests",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    sandbox = await braze.start(below)
    job = await braze.client.users.export_segment(sandbox.segment_id(1), fields=FIELDS)
    await braze.delivered(below, 3)
    assert len(await ids(job.profiles(store=below))) == 60


# --- what goes wrong


async def test_the_callback_says_that_it_failed(s3_store: S3Store, braze: Braze) -> None:
    class Half:
        """Takes the first file only; so no callback comes by itself."""

        async def put_async(self, key: str, data: bytes) -> None:
            if await s3_store.list().collect_async():
                raise RuntimeError("no more")
            await s3_store.put_async(key, data)

    sandbox = await braze.start(Half(), CALLED)

    class Failed:
        url = "http://127.0.0.1:9/never"

        async def wait(self) -> Any:
            await asyncio.sleep(0.2)
            return type("Result", (), {"success": False})()

    job = await braze.client.users.export_segment(
        sandbox.segment_id(1), fields=FIELDS, callback_url=Failed()
    )
    await braze.delivered(s3_store, 1)
    with pytest.raises(ExportExpiredError, match="Braze says that the export failed"):
        await ids(job.profiles(store=s3_store, timeout=10))


async def test_a_job_without_a_store(s3_store: S3Store, braze: Braze) -> None:
    sandbox = await braze.start(s3_store)
    job = await braze.client.users.export_segment(sandbox.segment_id(1), fields=FIELDS)
    with pytest.raises(InputError, match="store="):
        await ids(job.profiles())
    with pytest.raises(InputError, match="store="):
        await job.download("/nowhere/a.zip")
    job.object_prefix = None
    with pytest.raises(InputError, match="object_prefix"):
        await ids(job.profiles(store=s3_store))
    assert not await job.ended()


async def test_nothing_there(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no export of this segment"):
        await ids(read_export(store, "seg", settings=QUICK))
    with pytest.raises(ExportNotReadyError):
        await ids(read_export(store, "seg", object_prefix=PREFIX, settings=QUICK, timeout=0.1))


async def test_a_file_replaced_while_it_is_read(bucket: Bucket, store: Store) -> None:
    path, data = f"{DAY}/{PREFIX}/a.txt", b'{"a": "%s"}\n' % (b"x" * 1000) * 2000
    await store.put_async(path, data)
    place = Place(store, "seg", PREFIX, quiet_period=0)
    assert await place.look() is None
    [source] = place.objects
    async with source.open(0, None) as opened:
        assert opened.version == source.version  # as the listing has it
    await store.put_async(path, data.swapcase())
    if bucket.kind == "gcs":  # the server here does not look at the condition
        async with source.open(1000, opened.version) as again:
            assert again.version != opened.version
        return
    with pytest.raises(ObjectChangedError):
        async with source.open(1000, opened.version):
            pass


async def test_a_file_is_gone(store: Store) -> None:
    for name in ("a", "b"):
        await store.put_async(f"{DAY}/{PREFIX}/{name}.zip", zipped({"a.txt": b"{}\n"}))
    place = Place(store, "seg", PREFIX, quiet_period=0)
    assert await place.look() is None
    await store.delete_async(f"{DAY}/{PREFIX}/a.zip")
    with pytest.raises(NotFoundError, match=r"a\.zip in the storage is not there") as caught:
        async with place.objects[0].open(0, None):
            pass
    assert caught.value.__context__ is None
    with pytest.raises(ObjectChangedError):
        async with place.objects[0].open(1, "v"):
            pass


async def test_a_part_of_a_file(store: Store) -> None:
    await store.put_async(f"{DAY}/{PREFIX}/a.txt", bytes(range(200)))
    await store.put_async(f"{DAY}/{PREFIX}/b.txt", b"")
    place = Place(store, "seg", PREFIX, quiet_period=0)
    await place.look()
    whole, empty = place.objects
    async with whole.open(150, whole.version) as opened:
        assert (opened.start, opened.total) == (150, 200)
        assert b"".join([chunk async for chunk in opened.chunks]) == bytes(range(150, 200))
    async with empty.open(0, None) as opened:
        assert (opened.start, opened.total) == (0, 0)
        assert [chunk async for chunk in opened.chunks] == []


NO_RETRIES: dict[str, Any] = {
    "client_options": {"allow_http": True},
    "retry_config": {"max_retries": 0},
}
WRONG_KEY = "d3JvbmctYnV0LXNlY3JldA=="


@pytest.fixture(params=["s3", "azure", "gcs"])
def missing_bucket(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "s3":
        s3: servers.S3Server = request.getfixturevalue("s3_server")
        key: Any = {"access_key_id": "AKSECRET", "secret_access_key": WRONG_KEY, "region": "any"}
        yield S3Store("missing", endpoint=s3.url, **key, **NO_RETRIES)
    elif request.param == "azure":
        azure: servers.AzureServer = request.getfixturevalue("azure_server")
        options: Any = {"account_name": azure.account, "account_key": azure.key}
        yield AzureStore("missing", endpoint=azure.endpoint, **options, **NO_RETRIES)
    else:
        gcs: servers.GcsServer = request.getfixturevalue("gcs_server")
        yield GCSStore("missing", service_account_key=gcs.service_account, **NO_RETRIES)


async def test_a_bucket_that_is_not_there(missing_bucket: Any) -> None:
    # fake-gcs-server answers 500, Google's own service 404.
    kind = ConnectionLostError if isinstance(missing_bucket, GCSStore) else NotFoundError
    with pytest.raises(kind, match=r"in the storage .*[Cc]heck the bucket") as caught:
        await ids(read_export(missing_bucket, "seg", settings=QUICK))
    check_secrecy(caught.value, WRONG_KEY, "AKSECRET")
    assert caught.value.__context__ is None


@pytest.mark.parametrize("prefix", [None, PREFIX])
@pytest.mark.parametrize("folder", [None, ""])
async def test_a_wrong_key(
    azure_server: servers.AzureServer, azure_bucket: Bucket, prefix: str | None, folder: str | None
) -> None:
    azure = azure_server
    stranger = AzureStore(  # the other servers take any key
        azure_bucket.access.url.removeprefix("az://"),
        endpoint=azure.endpoint,
        account_name=azure.account,
        account_key=WRONG_KEY,
        **NO_RETRIES,
    )
    options: dict[str, Any] = {"object_prefix": prefix, "folder": folder}
    with pytest.raises(PermissionDeniedError, match="Check the store's credentials") as caught:
        await ids(read_export(stranger, "seg", settings=QUICK, **options))
    check_secrecy(caught.value, WRONG_KEY)
    assert WRONG_KEY not in repr(Place(stranger, "seg", PREFIX))
    await azure_bucket.store.put_async(f"{DAY}/{PREFIX}/a.zip", b"")
    place = Place(azure_bucket.store, "seg", PREFIX, quiet_period=0)
    await place.look()
    [source] = place.objects
    source = type(source)(stranger, source.path, 0, None, source.last_modified)
    with pytest.raises(PermissionDeniedError) as refused:
        async with source.open(0, None):
            pass
    check_secrecy(refused.value, WRONG_KEY)


async def test_nobody_answers() -> None:
    nowhere = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:1",
        access_key_id="AKSECRET",
        secret_access_key=WRONG_KEY,
        **NO_RETRIES,
    )
    quick = ExportSettings(quiet_period=0.0, polling=Polling(base=0.001, cap=0.001))
    ways: list[dict[str, Any]] = [{}, {"object_prefix": PREFIX}]
    for options in ways:
        with pytest.raises(ConnectionLostError, match="the network") as caught:
            await ids(read_export(nowhere, "seg", settings=quick, **options))
        check_secrecy(caught.value, WRONG_KEY, "AKSECRET")
    assert caught.value.attempts == 10


async def test_the_connection_breaks_while_a_file_is_read(s3_store: S3Store) -> None:
    """The first reading of each file breaks off; it is taken up where it was."""
    rows = b'{"external_id": "%s"}\n' % (b"x" * 500) * 4000
    for name in ("a", "b"):
        await s3_store.put_async(f"{DAY}/{PREFIX}/{name}.txt", rows)
    broken: set[str] = set()
    starts = []

    class Breaking:
        list = s3_store.list
        list_with_delimiter_async = s3_store.list_with_delimiter_async

        async def get_async(self, path: str, *, options: Any = None) -> Any:
            got = await s3_store.get_async(path, options=options)
            starts.append(got.range[0])
            return got if path in broken else Half(path, got)

    class Half:
        def __init__(self, path: str, got: Any) -> None:
            self._path, self._got = path, got
            self.meta, self.range = got.meta, got.range

        async def stream(self, **options: Any) -> AsyncIterator[bytes]:
            async for chunk in self._got.stream(**options):
                yield chunk
                broken.add(self._path)
                raise ConnectionResetError("reset")

    stats = DownloadStats()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("braze_export.storage.RetryPolicy", lambda: RetryPolicy(base=0.001))
        found = read_export(Breaking(), "seg", into=bytes, settings=QUICK, stats=stats)
        assert len([row async for row in found]) == 8000
    assert stats.resumed == 2
    assert stats.bytes_received == stats.bytes_total == 2 * len(rows)
    assert sum(start > 0 for start in starts) == 2


async def test_leaving_early_and_being_cancelled(s3_store: S3Store) -> None:
    for n in range(6):
        await s3_store.put_async(f"{DAY}/{PREFIX}/{n}.txt", b"{}\n" * 200_000)
    async with aclosing(read_export(s3_store, "seg", settings=QUICK)) as found:
        async for _ in found:
            break
    for seconds in (0.0, 0.005, 0.02, 0.05):
        task = asyncio.create_task(ids(read_export(s3_store, "seg", settings=QUICK)))
        await asyncio.sleep(seconds)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
