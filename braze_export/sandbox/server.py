"""The local Braze as a server: sockets, latency, counters, log."""

import asyncio
import gzip
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import attrs
from aiohttp import web

from braze_export.sandbox.archives import Archives
from braze_export.sandbox.delivery import CallbackRecord, Deliveries, upload_csv
from braze_export.sandbox.downloads import Downloads
from braze_export.sandbox.exports import DOWNLOADS
from braze_export.sandbox.faults import Fault, FaultQueue
from braze_export.sandbox.messages import MAX_BODY, Reply, Request, decode, encode
from braze_export.sandbox.people import Person
from braze_export.sandbox.settings import NEW_WORKSPACE, Settings, is_loopback
from braze_export.sandbox.tally import Counters, RequestRecord, Tally
from braze_export.sandbox.windows import Pool, PoolName, Window
from braze_export.sandbox.wire import Sent, accept_no_more, compose, send, spoil
from braze_export.sandbox.workspace import Workspace

COUNTERS = "/sandbox/counters"

_SOUND = Fault()

# How long closing waits for answers on their way; what takes longer is cut off.
_GRACE = 0.01


@attrs.define(kw_only=True, eq=False)
class Sandbox(Settings):
    """A local Braze; its options are those of ``Settings``.

        async with Sandbox(users=10_000) as sandbox:
            ...  # talk to sandbox.url with sandbox.api_key

    Attributes:
        log: the last ``log_size`` requests, oldest first.
        connections_made: how many connections were ever accepted.
        callbacks: those that were tried when exports were ready.
    """

    log: deque[RequestRecord] = attrs.field(init=False, repr=False)
    connections_made: int = attrs.field(init=False, default=0, repr=False)
    callbacks: list[CallbackRecord] = attrs.field(init=False, factory=list, repr=False)
    _workspace: Workspace = attrs.field(init=False, repr=False)
    _queue: FaultQueue = attrs.field(init=False, repr=False)
    _tally: Tally = attrs.field(init=False, repr=False)
    _http: web.Server | None = attrs.field(init=False, default=None, repr=False)
    _archives: Archives = attrs.field(init=False, repr=False)
    _downloads: Downloads = attrs.field(init=False, repr=False)
    _deliveries: Deliveries = attrs.field(init=False, repr=False)
    _listener: asyncio.Server | None = attrs.field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        """Check the options and set up the workspace."""
        super().__attrs_post_init__()
        self.log = deque(maxlen=self.log_size)
        self._workspace = Workspace(self)
        self._queue = FaultQueue(self.faults)
        self._tally = Tally((*self._workspace.endpoints, DOWNLOADS))

    @classmethod
    def new_workspace(cls, **options: Any) -> Self:
        """Return a workspace onboarded on or after 2024-08-22; ``options`` go on top.

        250 requests a minute, 40 a second for those that name their fields and want no received
        campaigns and Canvases, and ``fields_to_export`` is required.
        """
        return cls(**(NEW_WORKSPACE | options))

    @property
    def url(self) -> str:
        """The base URL, once it listens."""
        if self._listener is None:
            raise RuntimeError("the sandbox is not running")
        host, port, *_ = self._listener.sockets[0].getsockname()
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def counters(self) -> Counters:
        """What was served so far: a snapshot."""
        return self._tally.counters()

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return 0 if self._http is None else len(self._http.connections)

    def external_ids(self, count: int | None = None) -> Iterator[str]:
        """Yield the external ids of all users, or of the first ``count``, one by one."""
        return self._workspace.people.external_ids(count)

    def user(self, n: int) -> Person:
        """Return the identifiers of the n-th user, from 1."""
        return self._workspace.people.person(n)

    def segment_id(self, n: int) -> str:
        """Return the id of the n-th segment, from 1, oldest first; 0 is the control group."""
        if not 0 <= n <= self.segments:
            raise LookupError(f"there are segments 0 to {self.segments}, not {n}")
        return self._workspace.segments.segment_id(n)

    def segment_external_ids(self, n: int) -> Iterator[str]:
        """Yield the external ids of the users in the n-th segment; 0 is the control group.

        The k-th segment holds every k-th user, the control group every tenth.
        """
        self.segment_id(n)
        return (f"u{user}" for user in self._workspace.segments.members(n))

    def use_up(self, requests: int, pool: PoolName = "ids") -> int:
        """Count requests of another user of the workspace; return how many the limit allowed.

        Raises:
            LookupError: there is no such limit, as ``fast_ids`` in most workspaces.
        """
        now, used = self.clock(), self._pool(pool)
        return sum(used.take(now) for _ in range(requests))

    def change_limit(self, window: Window, pool: PoolName = "ids") -> None:
        """Set another limit, as Braze may at any time.

        What was used of the window under way stays used, unless the period is another.

        Raises:
            LookupError: there is no such limit, as ``fast_ids`` in most workspaces.
        """
        self._pool(pool).change(window)

    def _pool(self, name: PoolName) -> Pool:
        try:
            return self._workspace.pools[name]
        except KeyError:
            known = ", ".join(self._workspace.pools)
            raise LookupError(f"no limit {name!r}: there are {known}") from None

    def rewrite_exports(self) -> None:
        """Have the archives of all exports made anew: other bytes, ``ETag``, ``Last-Modified``.

        A download that is under way goes on with the archive that it began with.
        """
        self._workspace.exports.rewrite(self.clock())

    async def upload_dashboard_csv(self, n: int) -> str:
        """Put a CSV export of the n-th segment, made by hand, into the storage; return its key."""
        users = self._workspace.segments.members(n)
        return await upload_csv(self, self.segment_id(n), users, self._workspace.people)

    def inject(
        self, fault: Fault, *, times: int = 1, path: str | None = None, after: int = 0
    ) -> None:
        """Spoil the next ``times`` requests (to ``path``) after letting ``after`` of them pass.

        A path that ends in a slash stands for all that begin with it: ``/exports/`` for every
        download. Of several faults that are due, the one injected first wins, and the others wait.
        """
        self._queue.add(fault, times=times, path=path, after=after)

    async def start(self) -> None:
        """Listen."""
        if self._listener is not None:
            raise RuntimeError("the sandbox is running already")
        exports = self._workspace.exports
        # New ones each time: they belong to the event loop.
        self._archives = Archives(self, self._workspace.segments, self._workspace.profiles)
        self._downloads = Downloads(self, exports, self._archives)
        self._deliveries = Deliveries(self, self._archives, self.callbacks.append)
        exports.on_start = self._deliveries.begin
        http = web.Server(self._handle, handler_cancellation=True, access_log=None)

        def accept() -> asyncio.Protocol:
            self.connections_made += 1
            return http()

        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(accept, self.host, self.port)
        self._http = http

    async def aclose(self) -> None:
        """Stop listening, close all connections, remove all files; harmless when not running."""
        listener, http = self._listener, self._http
        if listener is None or http is None:
            return
        self._listener = self._http = None
        await accept_no_more(listener)
        listener.close()
        http.pre_shutdown()
        await http.shutdown(_GRACE)
        await listener.wait_closed()
        self._archives.stop()
        await self._deliveries.aclose()
        await self._archives.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        if incoming.path == COUNTERS and is_loopback(incoming.remote or ""):
            counters = encode(attrs.asdict(self.counters))
            return web.Response(body=counters, content_type="application/json")
        request = await _read(incoming)
        fault = self._queue.take(request.path) or _SOUND
        reply = await self._decide(request, fault)
        if delay := self.latency + fault.delay:
            await asyncio.sleep(delay)
        return await self._deliver(incoming, reply, fault)

    async def _decide(self, request: Request, fault: Fault) -> Reply:
        now = self.clock()
        path = DOWNLOADS if request.path.startswith(DOWNLOADS) else request.path
        if path == DOWNLOADS:
            if fault.replaces:
                reply = self._downloads.stand_in(fault)
            else:
                reply = await self._downloads.answer(request, now)
        elif fault.replaces:
            reply = self._workspace.stand_in(request, fault, now)
        else:
            reply = self._workspace.answer(request, now)
        self._tally.add(path, status=reply.status, identifiers=reply.identifiers)
        if self.log_size:
            self.log.append(_record(request, reply, fault))
        return reply

    async def _deliver(
        self, incoming: web.BaseRequest, reply: Reply, fault: Fault
    ) -> web.StreamResponse:
        body, encoding = reply.body, None
        accepted = "gzip" in incoming.headers.get("accept-encoding", "")
        # Storage, which knows no rate, sends what it holds as it is.
        if self.gzip and accepted and isinstance(body, bytes) and reply.rate is not None:
            body, encoding = await asyncio.to_thread(gzip.compress, body, 1, mtime=0), "gzip"
        packet = compose(
            reply,
            spoil(body, fault),
            fault,
            now=self.clock(),
            keep_alive=incoming.keep_alive,
            encoding=encoding,
        )
        if incoming.method == "HEAD":
            packet = attrs.evolve(packet, body=b"")
        await send(incoming, packet, fault)
        return Sent(reply.status, keep_alive=packet.keep_alive and not fault.disconnects)


async def _read(incoming: web.BaseRequest) -> Request:
    """Take a request off the socket, its body only as far as Braze would."""
    body = bytearray()
    async for chunk in incoming.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            break
    too_large = len(body) > MAX_BODY
    json, readable = (None, False) if too_large else decode(bytes(body))
    return Request(
        method=incoming.method,
        path=incoming.path,
        query=dict(incoming.query),
        headers={name.lower(): value for name, value in incoming.headers.items()},
        json=json,
        readable=readable,
        too_large=too_large,
    )


def _record(request: Request, reply: Reply, fault: Fault) -> RequestRecord:
    return RequestRecord(
        method=request.method,
        path=request.path,
        query=request.query,
        headers={k: v for k, v in request.headers.items() if k != "authorization"},
        body=request.json,
        status=reply.status,
        authorized="authorization" in request.headers,
        fault=None if fault is _SOUND else fault,
    )
