"""Every legal way to call the public API, for the type checker alone: this file is never run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

import aiohttp
import httpx
from obstore.store import AzureStore, GCSStore, S3Store

from braze_export import (
    AiohttpTransport,
    ArchiveLimits,
    BadRecord,
    BrazeClient,
    BrazeId,
    DeviceId,
    DownloadStats,
    EmailAddress,
    Estimate,
    ExportField,
    ExportJob,
    ExportSettings,
    ExportState,
    FailedBatch,
    Identifier,
    IdsExport,
    IdsResult,
    InvalidUserId,
    Limiter,
    Limits,
    LookupSettings,
    Observer,
    PhoneNumber,
    Polling,
    PoolSnapshot,
    ProfileCache,
    RateLimit,
    RequestInfo,
    RetryPolicy,
    Segment,
    SegmentDetails,
    SegmentSize,
    Timeouts,
    UserAlias,
    UserProfile,
    deadline,
    estimate,
    read_archive,
)
from braze_export.callbacks import Callback, CallbackReceiver, CallbackResult
from braze_export.integrations.opentelemetry import OpenTelemetry
from braze_export.jobs import Input, JobProgress, JobReport, Moment, Table, export_ids
from braze_export.sandbox import Sandbox
from braze_export.storage import read_export
from braze_export.transports.httpx import HttpxTransport


@dataclass
class Mine:
    email: str | None = None


class Watcher(Observer):
    def request(self, info: RequestInfo) -> Callable[[int | None, BaseException | None], None]:
        assert_type((info.method, info.path, info.url, info.host), tuple[str, str, str, str])
        assert_type((info.port, info.attempt), tuple[int, int])
        return lambda status, error: None


def clients(session: aiohttp.ClientSession, client: httpx.AsyncClient) -> list[BrazeClient]:
    return [
        BrazeClient("key", "US-01"),
        BrazeClient(api_key="key", base_url="https://rest.iad-01.braze.com"),
        BrazeClient("key", "EU-01", limits=Limits.new_workspace()),
        BrazeClient("key", "EU-01", limits=Limits(ids=RateLimit(250, 60))),
        BrazeClient("key", "EU-01", limits=Limits(default=RateLimit(1000, 3600.0))),
        BrazeClient("key", "EU-01", retry=RetryPolicy(max_attempts=3, max_seconds=10)),
        BrazeClient("key", "EU-01", timeouts=Timeouts(connect=5, read=30, total=60)),
        BrazeClient("key", "EU-01", exports=ExportSettings(concurrency=8, spool_directory="/tmp")),
        BrazeClient("key", "EU-01", lookups=LookupSettings(linger=0)),
        BrazeClient("key", "EU-01", lookups=LookupSettings(cache=ProfileCache(100, seconds=5))),
        BrazeClient("key", "EU-01", exports=ExportSettings(polling=Polling(base=5, cap=30))),
        BrazeClient("key", "EU-01", transport=AiohttpTransport()),
        BrazeClient("key", "EU-01", transport=AiohttpTransport(session)),
        BrazeClient("key", "EU-01", transport=HttpxTransport()),
        BrazeClient("key", "EU-01", transport=HttpxTransport(client)),
        BrazeClient("key", "EU-01", observer=Watcher()),
        BrazeClient("key", "EU-01", observer=OpenTelemetry(client_name="eu")),
        BrazeClient("key", "http://gateway.internal", allow_insecure_http=True),
        BrazeClient.from_env(),
        BrazeClient.from_env(limits=Limits.new_workspace(), retry=RetryPolicy()),
    ]


async def source() -> AsyncIterator[Identifier]:
    yield "u1"
    yield UserAlias("name", "label")


async def by_identifiers(braze: BrazeClient) -> None:
    users = braze.users
    everything: list[Identifier] = [
        "u1", UserAlias("n", "l"), BrazeId("b"), DeviceId("d"), EmailAddress("e"), PhoneNumber("p"),
    ]  # fmt: skip
    assert_type(users.export_ids(everything), IdsExport[UserProfile])
    assert_type(users.export_ids(source()), IdsExport[UserProfile])
    assert_type(users.export_ids({"u1", "u2"}, into=Mine), IdsExport[Mine])
    assert_type(users.export_ids(iter(["u1"]), into=bytes), IdsExport[bytes])
    assert_type(users.export_ids(["u1"], into=dict), IdsExport[dict[Any, Any]])
    assert_type(users.export_ids(["u1"], on_error="yield"), IdsExport[UserProfile, FailedBatch])
    assert_type(users.export_ids(["u1"], into=Mine, on_error="yield"), IdsExport[Mine, FailedBatch])
    users.export_ids(("u1",), fields=[ExportField.EMAIL, "phone"], concurrency=8, ordered=True)

    async for item in users.export_ids(["u1"]):
        assert_type(item, UserProfile | InvalidUserId)
    async for either in users.export_ids(["u1"], on_error="yield", into=Mine):
        match either:
            case InvalidUserId(identifier=identifier):
                assert_type(identifier, Identifier)
            case FailedBatch(identifiers=identifiers):
                assert_type(identifiers, tuple[Identifier, ...])
            case mine:
                assert_type(mine, Mine)
    async with users.export_ids(["u1"]) as export:
        async for profile in export.profiles():
            assert_type(profile, UserProfile)
    async for raw in users.export_ids(["u1"]).raw():
        assert_type(raw, bytes)
    result = await users.export_ids(["u1"], into=Mine).collect()
    assert_type(result, IdsResult[Mine])
    assert_type(result.users, list[Mine])
    assert_type(result.invalid_user_ids, list[Identifier])
    assert_type(export.invalid_user_ids, tuple[Identifier, ...])
    assert_type(export.failed, tuple[FailedBatch, ...])
    assert_type(export.stats.users, int)


async def the_rest(braze: BrazeClient) -> None:
    assert_type(await braze.users.get("u1"), UserProfile | None)
    assert_type(await braze.users.get(EmailAddress("e"), fields=["email"]), UserProfile | None)
    assert_type(await braze.users.get("u1", into=Mine), Mine | None)
    assert_type(await braze.users.get_many(["u1"]), dict[str, UserProfile | None])
    assert_type(await braze.users.get_many({"u1"}, into=Mine), dict[str, Mine | None])
    aliases = [UserAlias("a", "b")]
    assert_type(await braze.users.get_many(aliases), dict[UserAlias, UserProfile | None])
    with deadline(2.0):
        await braze.users.get("u1")
    job = await braze.users.export_segment(
        "segment",
        fields=["email"],
        custom_attributes=["a"],
        callback_url="https://example.com",
        output_format="gzip",
    )
    assert_type(job, ExportJob)
    assert_type(job.url, str | None)
    assert_type(await braze.users.export_global_control_group(fields=["email"]), ExportJob)
    await braze.users.cancel_segment_export("segment")
    async for segment in braze.segments.list(sort_direction="desc"):
        assert_type(segment, Segment)
    assert_type(await braze.segments.details("segment"), SegmentDetails)
    end = datetime(2026, 1, 1, tzinfo=UTC)
    series = await braze.segments.data_series("segment", length=300, ending_at=end)
    assert_type(series, list[SegmentSize])
    await braze.segments.data_series("segment", length=7, ending_at="2026-01-01T00:00:00Z")


async def exports(braze: BrazeClient, store: S3Store | GCSStore | AzureStore) -> None:
    users = braze.users
    job = await users.export_segment("segment", fields=["email"], if_running="wait")
    assert_type(await job.wait(timeout=60, on_progress=print), None)
    async for state in job.states(timeout=60):
        assert_type(state, ExportState)
    async for profile in job.profiles():
        assert_type(profile, UserProfile)
    async for mine in job.profiles(into=Mine):
        assert_type(mine, Mine)
    async for either in job.profiles(Mine, store=store, on_error="yield"):
        assert_type(either, Mine | BadRecord)
    async for raw in job.raw(store=store, timeout=60):
        assert_type(raw, bytes)
    async for line in job.raw(on_error="yield"):
        assert_type(line, bytes | BadRecord)
    assert_type(await job.download("segment.zip"), Path)
    assert_type(job.stats, DownloadStats)
    assert_type(users.resume_export("https://example.com/a.zip?signature"), ExportJob)
    users.resume_export("prefix-1700000000", segment_id="segment")
    async for profile in read_archive("segment.zip"):
        assert_type(profile, UserProfile)
    async for item in read_archive(
        Path("segment.zip"), Mine, on_error="yield", limits=ArchiveLimits(max_line=1_000)
    ):
        assert_type(item, Mine | BadRecord)
    async for profile in read_export(store, "segment", object_prefix="p", folder="f", timeout=1):
        assert_type(profile, UserProfile)
    async with CallbackReceiver(public_url="https://example.com", port=8080) as receiver:
        callback = receiver.expect()
        assert_type(callback, Callback)
        await users.export_global_control_group(fields=["email"], callback_url=callback)
        assert_type(await callback.wait(), CallbackResult)


def estimates() -> None:
    assert_type(estimate(1000), Estimate)
    new = Limits.new_workspace(reserve=0.2)
    made = estimate(1000, fields=[ExportField.EMAIL, "phone"], limits=new, one_each=True)
    assert_type((made.identifiers, made.requests, made.per_window), tuple[int, int, int])
    assert_type(made.limit, RateLimit)
    assert_type((made.seconds, made.minutes), tuple[float, float])
    assert_type(made.segment_wiser, bool)
    assert_type((made.pool == "ids_fast", made.advice), tuple[bool, str])


async def profile(user: UserProfile) -> None:
    assert_type(user.email, str | None)
    assert_type(user.created_at, datetime | None)
    assert_type(user.custom_events[0].count, int | None)
    assert_type(user.raw, bytes)
    assert_type(user.extra, dict[str, Any])


async def sandbox() -> None:
    async with Sandbox(users=10) as sandbox, BrazeClient(sandbox.api_key, sandbox.url) as braze:
        assert_type(sandbox.counters.requests, int)
        await braze.users.get("u1")


async def limits_of(braze: BrazeClient) -> None:
    assert_type(braze.limits, Limiter)
    for now in braze.limits.snapshot().values():
        assert_type(now, PoolSnapshot)
        assert_type(now.remaining, int | None)
    BrazeClient("key", "EU-01", limits=braze.limits)
    Limits(ids=None, reserve=0.5)
    Limits.oldest_workspace(reserve=0.1)


async def jobs(braze: BrazeClient, stop: asyncio.Event) -> None:
    async def hook(progress: JobProgress) -> None:
        assert_type(progress.done, int)
        assert_type(progress.total, int | None)
        assert_type(progress.seconds_left, float | None)
        assert_type(progress.pool, PoolSnapshot | None)
        assert_type((progress.silent, progress.trouble), tuple[float, str])
        assert_type(progress.patience_left, float | None)

    report = await export_ids(braze, "ids.txt", "users.ndjson")
    assert_type(report, JobReport)
    assert_type((report.complete, report.profiles, report.failed), tuple[bool, int, int])
    assert_type(report.failed_file, Path)
    for moment in report.course:
        assert_type(moment, Moment)
    source = Input(path=Path("ids.csv"), column="user_id", encoding="cp1252", delimiter=";")
    await export_ids(
        braze,
        source,
        Path("users.parquet"),
        kind="alias:amplitude_id",
        fields=[ExportField.EMAIL, "phone"],
        custom_attributes="map",
        unknown="unknown.txt",
        failed=Path("failed.ndjson"),
        concurrency=8,
        ordered=True,
        patience=60,
        fresh=True,
        on_progress=hook,
        progress_every=5,
        stop=stop,
    )
    await export_ids(braze, "ids.txt", "users.ndjson", on_progress=print)
    table = Table(destination="duckdb:profiles.duckdb", dataset="braze", name="p", mode="merge")
    await export_ids(braze, Input(path="ids.ndjson", format="ndjson"), table, retry_failed=True)
