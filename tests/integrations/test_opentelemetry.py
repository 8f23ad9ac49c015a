"""Against the real SDK, its exporters in memory, and the sandbox over sockets."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from attrs import frozen
from blockbuster import BlockBuster
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import _internal as global_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    BrazeError,
    ConnectError,
    EmailAddress,
    Limits,
    RateLimit,
    RetryPolicy,
    ServerError,
)
from braze_export.integrations.opentelemetry import OpenTelemetry
from braze_export.limiting.limits import PoolSnapshot
from braze_export.sandbox import Fault, Sandbox
from braze_export.transports.httpx import HttpxTransport

BOTH = pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
QUICK = RetryPolicy(max_attempts=3, base=0.001)
SLOW = Fault(delay=30)
REFUSAL = Fault(status=429, headers={"retry-after": "0", "x-ratelimit-reset": None})

DURATION = "http.client.request.duration"
WAIT = "braze_export.rate_limit.wait.duration"
REFUSED = "braze_export.rate_limit.refused"
GAUGES = [f"braze_export.rate_limit.{n}" for n in ("limit", "remaining", "in_flight", "waiting")]

Points = dict[frozenset[tuple[str, Any]], Any]


@frozen
class Telemetry:
    """An SDK of its own, and what came out of it."""

    spans_of: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracers: TracerProvider
    meters: MeterProvider

    def observer(self, name: str | None = None) -> OpenTelemetry:
        return OpenTelemetry(self.tracers, self.meters, client_name=name)

    def spans(self) -> list[ReadableSpan]:
        return list(self.spans_of.get_finished_spans())

    def metrics(self) -> dict[str, Metric]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> Points:
        """The points of a metric, by their attributes."""
        metric = self.metrics().get(name)
        points: Any = metric.data.data_points if metric else ()
        return {frozenset(point.attributes.items()): point for point in points}

    def gauge(self, name: str, client: str = "127.0.0.1", pool: str = "ids") -> Any:
        found = self.points(f"braze_export.rate_limit.{name}").get(of_client(client, pool))
        return found and found.value

    def everything(self) -> str:
        """All that was exported, as text."""
        data = self.reader.get_metrics_data()
        metrics = data.to_json() if data else ""
        return "".join([*(span.to_json() for span in self.spans()), metrics])


def of_client(client: str, pool: str = "ids") -> frozenset[tuple[str, Any]]:
    return frozenset({"braze_export.client.name": client, "braze_export.pool": pool}.items())


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    yield Telemetry(exporter, reader, tracers, meters)
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The SDK logs what is wrong with instruments, attributes and contexts; so do we."""
    yield
    complaints = [r for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
    assert [record.getMessage() for record in complaints] == []


def place(sandbox: Sandbox) -> dict[str, Any]:
    return {"server.address": "127.0.0.1", "server.port": int(sandbox.url.rpartition(":")[2])}


# --- spans and the duration of requests


@BOTH
async def test_a_success_is_a_span_and_a_duration(transport: Any, telemetry: Telemetry) -> None:
    async with Sandbox(users=1) as sandbox:
        async with BrazeClient(
            sandbox.api_key, sandbox.url, transport=transport(), observer=telemetry.observer()
        ) as braze:
            await braze.users.get("u1")
        known = {
            "http.request.method": "POST",
            "url.template": "/users/export/ids",
            "http.response.status_code": 200,
            **place(sandbox),
        }
        url = f"{sandbox.url}/users/export/ids"
    (span,) = telemetry.spans()
    assert (span.name, span.kind) == ("POST /users/export/ids", SpanKind.CLIENT)
    assert dict(span.attributes or {}) == known | {"url.full": url}
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "braze_export"
    ((attributes, point),) = telemetry.points(DURATION).items()
    assert dict(attributes) == known
    assert point.count == 1
    assert point.explicit_bounds[:3] == (0.005, 0.01, 0.025)
    assert span.end_time is not None
    assert span.start_time is not None
    assert point.sum == pytest.approx((span.end_time - span.start_time) / 1e9, abs=1e-8)
    assert telemetry.metrics()[DURATION].unit == "s"


@BOTH
async def test_a_get_has_its_url_without_the_query(transport: Any, telemetry: Telemetry) -> None:
    async with Sandbox(users=1) as sandbox:
        async with BrazeClient(
            sandbox.api_key, sandbox.url, transport=transport(), observer=telemetry.observer()
        ) as braze:
            await braze.segments.details(sandbox.segment_id(1))
        (span,) = telemetry.spans()
        assert (span.attributes or {})["url.full"] == f"{sandbox.url}/segments/details"
        assert sandbox.segment_id(1) not in telemetry.everything()
    assert span.name == "GET /segments/details"


@BOTH
async def test_a_refusal_and_its_repetition(transport: Any, telemetry: Telemetry) -> None:
    async with Sandbox(users=1) as sandbox:
        sandbox.inject(REFUSAL)
        async with BrazeClient(
            sandbox.api_key, sandbox.url, transport=transport(), observer=telemetry.observer()
        ) as braze:
            await braze.users.get("u1")
    first, second = (dict(span.attributes or {}) for span in telemetry.spans())
    assert "http.request.resend_count" not in first
    assert (first["http.response.status_code"], first["error.type"]) == (429, "429")
    assert second["http.request.resend_count"] == 1
    assert second["http.response.status_code"] == 200
    assert "error.type" not in second
    status = [span.status for span in telemetry.spans()]
    assert [s.status_code for s in status] == [StatusCode.ERROR, StatusCode.UNSET]
    assert [s.description for s in status] == [None, None]
    (refused,) = telemetry.points(REFUSED).items()
    assert refused[0] == {("braze_export.pool", "ids")}
    assert refused[1].value == 1
    assert all("resend" not in key for point in telemetry.points(DURATION) for key, _ in point)


@BOTH
async def test_failures_until_giving_up(transport: Any, telemetry: Telemetry) -> None:
    async with (
        Sandbox(users=1, faults=lambda *_: Fault(status=500)) as sandbox,
        BrazeClient(
            sandbox.api_key,
            sandbox.url,
            transport=transport(),
            retry=QUICK,
            observer=telemetry.observer(),
        ) as braze,
    ):
        with pytest.raises(ServerError):
            await braze.users.get("u1")
    assert [(s.attributes or {}).get("http.request.resend_count") for s in telemetry.spans()] == [
        None, 1, 2,
    ]  # fmt: skip
    assert {(s.attributes or {})["error.type"] for s in telemetry.spans()} == {"500"}
    (point,) = telemetry.points(DURATION).values()
    assert point.count == 3
    assert REFUSED not in telemetry.metrics()


@BOTH
async def test_a_refused_connection(transport: Any, telemetry: Telemetry) -> None:
    async with Sandbox(users=1) as sandbox:
        url = sandbox.url
    async with BrazeClient(
        "key", url, transport=transport(), retry=QUICK, observer=telemetry.observer()
    ) as braze:
        with pytest.raises(ConnectError):
            await braze.users.get("u1")
    assert len(telemetry.spans()) == 3
    for span in telemetry.spans():
        attributes = span.attributes or {}
        assert attributes["error.type"] == "ConnectError"
        assert "http.response.status_code" not in attributes
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert span.events == ()


@BOTH
async def test_a_cancelled_request_ends_its_span(transport: Any, telemetry: Telemetry) -> None:
    async with (
        Sandbox(users=1, faults=lambda *_: SLOW) as sandbox,
        BrazeClient(
            sandbox.api_key, sandbox.url, transport=transport(), observer=telemetry.observer()
        ) as braze,
    ):
        call = asyncio.create_task(braze.users.get("u1"))
        while braze.limits.snapshot()["ids"].in_flight == 0:
            await asyncio.sleep(0.01)
        assert telemetry.spans() == []
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    (span,) = telemetry.spans()
    assert (span.attributes or {})["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.ERROR


async def test_a_client_that_is_closed_ends_its_spans(telemetry: Telemetry) -> None:
    async with Sandbox(users=1, faults=lambda *_: SLOW) as sandbox:
        braze = BrazeClient(sandbox.api_key, sandbox.url, observer=telemetry.observer())
        call = asyncio.create_task(braze.users.get("u1"))
        while braze.limits.snapshot()["ids"].in_flight == 0:
            await asyncio.sleep(0.01)
        await braze.aclose()
        with pytest.raises(BrazeError):
            await call
    assert len(telemetry.spans()) == 1


@BOTH
async def test_spans_lie_within_those_of_the_application(
    transport: Any, telemetry: Telemetry
) -> None:
    tracer = telemetry.tracers.get_tracer("application")
    current: list[int] = []

    class Seeing(transport):  # type: ignore[misc]
        async def send(self, request: Any) -> Any:
            current.append(trace.get_current_span().get_span_context().span_id)
            return await super().send(request)

    async with (
        Sandbox(users=100) as sandbox,
        BrazeClient(
            sandbox.api_key, sandbox.url, transport=Seeing(), observer=telemetry.observer()
        ) as braze,
    ):
        with tracer.start_as_current_span("job") as job:
            await braze.users.export_ids(sandbox.external_ids()).collect()
            assert trace.get_current_span() is job
    *requests, outer = telemetry.spans()
    assert len(requests) == 2
    assert outer.name == "job"
    assert {span.parent and span.parent.span_id for span in requests} == {outer.context.span_id}
    assert sorted(current) == sorted(span.context.span_id for span in requests)


# --- what must not be told

KEY = "s3cr3t-key-of-the-workspace"
EMAIL = "ada.lovelace@example.com"
SECRET_FAULTS = {
    "echo": Fault(status=400, body={"message": f"no {EMAIL}: Bearer {KEY}", "errors": [KEY]}),
    "failing": Fault(status=503, body=f"{EMAIL} {KEY}".encode()),
    "limited": Fault(
        status=429, body=f"{EMAIL} {KEY}".encode(),
        headers={"retry-after": "0.01", "x-ratelimit-reset": None},
    ),
    "dropped": Fault(drop="body"),
    "malformed": Fault(headers={"content-length": KEY}),
    "redirect": Fault(status=302, headers={"location": f"http://127.0.0.1:1/{KEY}?{EMAIL}"}),
    "garbage": Fault(body=f'{{"users": [{{"email": "{EMAIL}'.encode()),
    "none": None,
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", SECRET_FAULTS)
async def test_neither_key_nor_identifier_nor_query_is_exported(
    name: str, transport: Any, telemetry: Telemetry
) -> None:
    async with (
        Sandbox(users=3, api_key=KEY, faults=lambda *_: SECRET_FAULTS[name]) as sandbox,
        BrazeClient(
            KEY,
            sandbox.url,
            transport=transport(),
            retry=RetryPolicy(max_attempts=2, max_refusals=2, base=0.001),
            observer=telemetry.observer(),
        ) as braze,
    ):
        segment = sandbox.segment_id(1)
        for call in (
            braze.users.get(EMAIL),
            braze.users.export_ids([EMAIL, "u1", "u2"]).collect(),
            braze.segments.data_series(segment, length=7),
            braze.users.export_segment(segment, fields=["email"]),
        ):
            try:
                await call
            except BrazeError:
                assert name != "none"
        text = telemetry.everything()
    assert len(telemetry.spans()) >= 4
    assert "/segments/data_series" in text
    for secret in (KEY, EMAIL, segment, "u1", "Bearer", "?", "length"):
        assert secret not in text


# --- waits and gauges


async def test_waits_are_measured_by_pool(telemetry: Telemetry) -> None:
    async with (
        Sandbox(users=1) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, observer=telemetry.observer("mine")) as braze,
    ):
        await braze.users.get("u1")
        await braze.users.get("u1")
        _ = [segment async for segment in braze.segments.list()]
    points = telemetry.points(WAIT)
    assert points[of_client("mine", "ids")].count == 2
    assert points[of_client("mine", "default")].count >= 1
    assert points[of_client("mine", "ids")].explicit_bounds[-1] == 3600
    assert telemetry.metrics()[WAIT].unit == "s"


async def test_the_gauges_show_the_snapshot(telemetry: Telemetry) -> None:
    limits = Limits(ids=RateLimit(7, 60))
    async with (
        Sandbox(users=1) as sandbox,
        BrazeClient(
            sandbox.api_key, sandbox.url, limits=limits, observer=telemetry.observer()
        ) as braze,
    ):
        assert not telemetry.metrics().keys() & set(GAUGES)
        sandbox.inject(SLOW)
        people = (EmailAddress(f"user{n}@example.com") for n in range(9))  # a request for each
        calls = [asyncio.create_task(braze.users.get(person)) for person in people]
        while not (seen := braze.limits.snapshot()["ids"]).in_flight:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        seen = braze.limits.snapshot()["ids"]
        assert telemetry.gauge("limit") == seen.limit == 7
        assert telemetry.gauge("in_flight") == seen.in_flight > 0
        assert telemetry.gauge("waiting") == seen.waiting > 0
        assert telemetry.gauge("remaining") == seen.remaining
        assert telemetry.gauge("limit", pool="lists") == 1000
        assert telemetry.gauge("remaining", pool="lists") is None
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_a_reader_in_another_thread_sees_how_it_is_now(telemetry: Telemetry) -> None:
    async with (
        Sandbox(users=1) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, observer=telemetry.observer()) as braze,
    ):
        for expected in (1, 2, 3):
            await braze.users.get("u1")
            left = braze.limits.snapshot()["ids"].remaining
            assert left == 2500 - expected
            assert await asyncio.to_thread(telemetry.gauge, "remaining") == left
            await asyncio.sleep(0.03)


async def test_two_clients_do_not_clash(telemetry: Telemetry) -> None:
    observer = telemetry.observer()
    async with (
        Sandbox(users=1) as old,
        Sandbox.new_workspace(users=1) as new,
        BrazeClient(old.api_key, old.url, observer=observer) as first,
        BrazeClient(
            new.api_key, new.url, limits=Limits.new_workspace(), observer=telemetry.observer()
        ) as second,
        BrazeClient(old.api_key, old.url, observer=telemetry.observer("third")) as third,
    ):
        for braze in (first, second, third):
            await braze.users.get("u1", fields=["email"])
        assert telemetry.gauge("limit", "127.0.0.1") == 2500
        assert telemetry.gauge("limit", "127.0.0.1 2") == 250
        assert telemetry.gauge("limit", "third") == 2500
        # Their requests are told apart by the port.
        assert len(telemetry.points(DURATION)) == 2
        await first.aclose()
        await asyncio.sleep(0.03)
        assert telemetry.gauge("limit", "127.0.0.1") is None
        assert telemetry.gauge("limit", "127.0.0.1 2") == 250
        async with BrazeClient(old.api_key, old.url, observer=observer) as fourth:
            await fourth.users.get("u1")
            await asyncio.sleep(0.03)
            assert telemetry.gauge("limit", "127.0.0.1") == 2500
    await asyncio.sleep(0.03)
    assert not telemetry.metrics().keys() & set(GAUGES)


class Loop:
    """A client's event loop in a thread of its own."""

    def __enter__(self) -> asyncio.AbstractEventLoop:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self.loop

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def watched(telemetry: Telemetry, snapshot: Callable[[], Mapping[Any, PoolSnapshot]]) -> Any:
    async def watch() -> Any:
        return telemetry.observer().watch("host", snapshot)

    return watch()


def pool(limit: int) -> PoolSnapshot:
    return PoolSnapshot(limit, None, None, 0, 0, 0, 0, 0.0)


def test_a_loop_that_does_not_answer_is_not_waited_for_long(
    telemetry: Telemetry, blocking_calls_fail: BlockBuster
) -> None:
    blocking_calls_fail.deactivate()
    limits = iter(range(1, 1000))
    with Loop() as loop:
        coroutine = watched(telemetry, lambda: {"ids": pool(next(limits))})
        unwatch = asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        time.sleep(0.03)
        before = telemetry.gauge("limit", "host")
        release = threading.Event()
        loop.call_soon_threadsafe(release.wait)
        time.sleep(0.03)
        began = time.monotonic()
        assert telemetry.gauge("limit", "host") == before  # of the time before
        assert 0.1 < time.monotonic() - began < 0.7  # once, not for each of the gauges
        release.set()
        time.sleep(0.03)
        assert telemetry.gauge("limit", "host") > before
        loop.call_soon_threadsafe(unwatch)
    assert telemetry.gauge("limit", "host") is None


def test_a_client_that_nobody_closed_leaves_with_its_loop(telemetry: Telemetry) -> None:
    loop = asyncio.new_event_loop()
    unwatch = loop.run_until_complete(watched(telemetry, lambda: {"ids": pool(1)}))
    assert telemetry.gauge("limit", "host") == 1  # it may run on
    loop.close()
    time.sleep(0.03)
    assert telemetry.gauge("limit", "host") is None
    later = asyncio.new_event_loop()
    later.run_until_complete(watched(telemetry, lambda: {"ids": pool(2)}))
    unwatch()  # not that of the other, which has its name now
    time.sleep(0.03)
    assert telemetry.gauge("limit", "host") == 2
    later.close()


async def test_a_snapshot_that_raises_leaves_a_gap(telemetry: Telemetry) -> None:
    working = True

    def snapshot() -> Mapping[Any, PoolSnapshot]:
        if working:
            return {"ids": pool(5)}
        raise OSError

    await watched(telemetry, snapshot)
    assert telemetry.gauge("limit", "host") == 5
    working = False
    await asyncio.sleep(0.03)
    assert telemetry.gauge("limit", "host") is None


# --- providers


async def test_the_global_providers_are_taken_even_if_set_later(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy: AnyMeterProvider = global_metrics._ProxyMeterProvider()
    monkeypatch.setattr(global_metrics, "_METER_PROVIDER", None)
    monkeypatch.setattr(global_metrics, "_PROXY_METER_PROVIDER", proxy)
    early = OpenTelemetry()
    monkeypatch.setattr(global_metrics, "_METER_PROVIDER", telemetry.meters)
    proxy.on_set_meter_provider(telemetry.meters)  # type: ignore[attr-defined]
    late = OpenTelemetry()
    async with Sandbox(users=1) as sandbox:
        clients = [
            BrazeClient(sandbox.api_key, sandbox.url, observer=observer)
            for observer in (early, late)
        ]
        for braze in clients:
            await braze.users.get("u1")
        (duration,) = telemetry.points(DURATION).values()
        assert duration.count == 2
        assert telemetry.gauge("limit", "127.0.0.1") == 2500
        assert telemetry.gauge("limit", "127.0.0.1 2") == 2500
        for braze in clients:
            await braze.aclose()


async def test_without_an_sdk_nothing_is_recorded_and_nothing_breaks() -> None:
    async with (
        Sandbox(users=1) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, observer=OpenTelemetry()) as braze,
    ):
        assert await braze.users.get("u1") is not None


def test_without_the_extra_it_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "import braze_export\n"
        "try: import braze_export.integrations.opentelemetry\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout == (
        'braze_export.integrations.opentelemetry needs: pip install "braze-export[otel]"\n'
    )
