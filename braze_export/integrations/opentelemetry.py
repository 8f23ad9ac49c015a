"""Traces and metrics of a client, for OpenTelemetry, by its conventions for HTTP clients.

Needs the extra ``otel``: ``pip install "braze-export[otel]"``. That is the API alone; without an
SDK that the application sets up, nothing is recorded.
https://opentelemetry.io/docs/specs/semconv/http/http-spans
https://opentelemetry.io/docs/specs/semconv/http/http-metrics
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from itertools import chain, count
from operator import attrgetter
from typing import Final
from weakref import WeakKeyDictionary

from attrs import define

from braze_export._version import __version__
from braze_export.endpoints import Pool
from braze_export.limiting.limits import PoolSnapshot
from braze_export.observing import Ended, Observer, RequestInfo, Snapshot

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import SpanKind, StatusCode, TracerProvider
except ImportError as missing:
    raise ImportError(
        'braze_export.integrations.opentelemetry needs: pip install "braze-export[otel]"'
    ) from missing

_SCOPE: Final = "braze_export"
_POOL: Final = "braze_export.pool"
_CLIENT: Final = "braze_export.client.name"
# Seconds: the first are those of the conventions, the second reach to Braze's longest window.
_DURATIONS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_WAITS: Final = (0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800, 3600)
_GAUGES: Final = {
    "limit": "Requests allowed per window.",
    "remaining": "Requests that may still be sent in this window.",
    "in_flight": "Requests sent and not yet answered.",
    "waiting": "Requests that wait for their turn.",
}
_PATIENCE: Final = 0.2  # seconds that a reader in another thread waits for the clients' loops
_FRESH: Final = 0.02  # seconds: within them the gauges of one collection are read


class OpenTelemetry(Observer):
    """Tells OpenTelemetry of a client's requests: ``BrazeClient(..., observer=OpenTelemetry())``.

    Each HTTP request, whether it is the first or a repetition, is a span such as
    ``POST /users/export/ids``, and is measured in ``http.client.request.duration``. By pool
    (``braze_export.pool``) there are the histogram ``braze_export.rate_limit.wait.duration``, the
    counter ``braze_export.rate_limit.refused`` (every 429, also that of an export which is running
    already) and the gauges ``braze_export.rate_limit.limit``, ``.remaining``, ``.in_flight`` and
    ``.waiting``. Nothing of it holds the key, a query, an identifier or the text of an error.

    The gauges begin with a client's first request and end with its ``aclose()``. They tell
    clients apart by ``braze_export.client.name``: where two have the same, one is ``name 2``.
    A collection in another thread asks the client's event loop how the pools stand, and tells of
    the time before where no answer comes within 0.2 s.

    Args:
        tracer_provider: default: the global one.
        meter_provider: default: the global one, to be set before the first request.
        client_name: what tells this client's figures from those of others, such as the
            workspace's name. Default: in the gauges the host.

    Raises:
        ImportError: of the module, where the extra is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        client_name: str | None = None,
    ) -> None:
        self._meter_provider = meter_provider
        self._name = client_name
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)
        self._durations = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_DURATIONS,
        )
        self._waits = meter.create_histogram(
            "braze_export.rate_limit.wait.duration",
            "s",
            "How long requests waited for the rate limit.",
            explicit_bucket_boundaries_advisory=_WAITS,
        )
        self._refused = meter.create_counter(
            "braze_export.rate_limit.refused", "{request}", "Requests answered with status 429."
        )

    def request(self, info: RequestInfo) -> Ended:
        """Begin the span of a request; what is returned ends it."""
        known: dict[str, str | int] = {
            "http.request.method": info.method,
            "url.template": info.path,
            "server.address": info.host,
            "server.port": info.port,
        }
        more: dict[str, str | int] = {"url.full": info.url}
        if info.attempt > 1:
            more["http.request.resend_count"] = info.attempt - 1
        at, began = time.time_ns(), time.perf_counter()
        span = self._tracer.start_span(
            f"{info.method} {info.path}",
            kind=SpanKind.CLIENT,
            attributes=known | more,
            start_time=at,
        )
        token = context.attach(trace.set_span_in_context(span))

        def ended(status: int | None, error: BaseException | None) -> None:
            seconds = time.perf_counter() - began
            outcome = _outcome(status, error)
            try:
                self._durations.record(seconds, known | outcome)
                if status == 429:
                    self._refused.add(1, self._of(info.pool))
                span.set_attributes(outcome)
                if "error.type" in outcome:
                    span.set_status(StatusCode.ERROR)
            finally:
                context.detach(token)
                span.end(at + round(seconds * 1e9))  # as long as was recorded

        return ended

    def waited(self, pool: Pool, seconds: float) -> None:
        """Record how long a request waited for the rate limit."""
        self._waits.record(seconds, self._of(pool))

    def watch(self, host: str, snapshot: Snapshot) -> Callable[[], None]:
        """Show the pools of a client in the gauges, until what is returned is called."""
        provider = self._meter_provider or metrics.get_meter_provider()
        return _gauges_of(provider).add(self._name or host, snapshot)

    def _of(self, pool: Pool) -> dict[str, str]:
        return {_POOL: pool} | ({_CLIENT: self._name} if self._name else {})


def _outcome(status: int | None, error: BaseException | None) -> dict[str, str | int]:
    """Return the attributes of an end. Of an error the type alone, for its text may be personal."""
    if status is None:
        return {"error.type": type(error).__name__}
    kind: dict[str, str | int] = {"error.type": str(status)} if status >= 400 else {}
    return {"http.response.status_code": status} | kind


class _Watch:
    """One client: its pools as they were seen last."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.loop = asyncio.get_running_loop()
        self.pools: Mapping[Pool, PoolSnapshot] = {}
        self._snapshot = snapshot
        self._see()

    def look(self) -> "Future[None]":
        """See how the pools stand now, in the client's loop; the future is done when it was."""
        seen: Future[None] = Future()
        if _running_loop() is self.loop:
            self._see(seen)
        elif self.loop.is_running():
            with suppress(RuntimeError):  # closed just now
                self.loop.call_soon_threadsafe(self._see, seen)
        else:
            seen.set_result(None)
        return seen

    def _see(self, seen: "Future[None] | None" = None) -> None:
        try:
            self.pools = self._snapshot()
        except Exception:  # noqa: BLE001 - somebody else's limiter raises what it likes
            self.pools = {}
        if seen is not None:
            seen.set_result(None)


@define
class _Gauges:
    """The gauges of one meter provider, which takes the callback of one only: for every client."""

    _watches: dict[str, _Watch]
    _seen_at: float = 0.0

    def register(self, meter: Meter) -> None:
        """Make the gauges."""
        for name, description in _GAUGES.items():
            callback = partial(self._observe, attrgetter(name))
            meter.create_observable_gauge(
                f"braze_export.rate_limit.{name}", [callback], "{request}", description
            )

    def add(self, name: str, snapshot: Snapshot) -> Callable[[], None]:
        """Show one more client, under a name of its own; return what ends that."""
        self._drop_left_open()
        watch = _Watch(snapshot)
        names = chain([name], (f"{name} {number}" for number in count(2)))
        # setdefault is one step, also where clients of several threads come at once.
        free = next(n for n in names if self._watches.setdefault(n, watch) is watch)
        return partial(self._remove, free, watch)

    def _remove(self, name: str, watch: _Watch) -> None:
        if self._watches.get(name) is watch:  # another may have come into its place
            del self._watches[name]

    def _drop_left_open(self) -> None:
        """Drop the clients that nobody closed, and whose event loop is gone."""
        for name, watch in self._watches.copy().items():
            if watch.loop.is_closed():
                self._remove(name, watch)

    def _observe(
        self, read: Callable[[PoolSnapshot], int | None], _: CallbackOptions
    ) -> list[Observation]:
        self._look()
        return [
            Observation(value, {_CLIENT: name, _POOL: pool})
            for name, watch in self._watches.copy().items()
            for pool, snapshot in watch.pools.items()
            if (value := read(snapshot)) is not None
        ]

    def _look(self) -> None:
        if time.monotonic() - self._seen_at < _FRESH:
            return
        self._drop_left_open()
        # No longer, for the loop may be waiting for the reader, or for a lock that it holds.
        wait([watch.look() for watch in self._watches.copy().values()], _PATIENCE)
        self._seen_at = time.monotonic()


_gauges: "WeakKeyDictionary[MeterProvider, _Gauges]" = WeakKeyDictionary()


def _gauges_of(provider: MeterProvider) -> _Gauges:
    made = _Gauges({})
    gauges = _gauges.setdefault(provider, made)
    if gauges is made:
        gauges.register(metrics.get_meter(_SCOPE, __version__, provider))
    return gauges


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # in the thread of a reader there is none
        return None
