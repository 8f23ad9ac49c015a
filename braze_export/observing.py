"""The seam for metrics and traces: who is told of each request, and of each wait for one.

No dependency. ``braze_export.integrations.opentelemetry`` is one observer, and anybody may write
another. Told is only what calls of Braze's API do: downloads of archives go elsewhere.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Final, ParamSpec, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

from attrs import define, frozen

from braze_export.endpoints import Endpoint, Pool
from braze_export.errors import InputError
from braze_export.limiting.limits import Lane, Limiter, Permit, PoolSnapshot
from braze_export.validators import check_methods
from braze_export.wire import Request, Response, Transport

P = ParamSpec("P")
R = TypeVar("R")
_METHODS: Final = ("request", "waited", "watch")
_log = logging.getLogger("braze_export")

Ended: TypeAlias = Callable[[int | None, BaseException | None], None]
"""Is told how a request ended: its status, or what was raised instead of an answer."""

Snapshot: TypeAlias = Callable[[], Mapping[Pool, PoolSnapshot]]
"""Returns how each pool stands now."""


@frozen
class RequestInfo:
    """A request, without anything that is secret or personal.

    Attributes:
        method: HTTP method.
        path: the endpoint's, such as ``/users/export/ids``: one of a handful.
        url: the address without its query.
        host: of the address.
        port: of the address.
        pool: the limit that the request counts against.
        attempt: which try of the call it is, from 1.
    """

    method: str
    path: str
    url: str
    host: str
    port: int
    pool: Pool
    attempt: int


class Observer(Protocol):
    """Is told what a client does. Inherit from it, and override what you need.

    Everything is called in the client's event loop, and must return at once. What an observer
    raises is logged, the first time, and does not reach the call.
    """

    def request(self, info: RequestInfo) -> Ended:
        """Note that a request is about to be sent; return what is told of its end.

        That is called once, in the same task: with the status and ``None``, or with ``None`` and
        the error, ``asyncio.CancelledError`` among them. A body that cannot be read comes later,
        and is not told.
        """
        del info
        return _nothing

    def waited(self, pool: Pool, seconds: float) -> None:
        """Note that a request may be sent, and how many seconds it waited for that."""
        del pool, seconds

    def watch(self, host: str, snapshot: Snapshot) -> Callable[[], None]:
        """Take what tells how the pools stand; return what ends that.

        Called once for each client, before its first request; the end with its ``aclose()``.

        Args:
            host: what the client talks to.
            snapshot: to be called in the client's event loop only.
        """
        del host, snapshot
        return _nothing


@define
class Observing:
    """Tells the observer of one client, and keeps its errors from the calls.

    Attributes:
        observer: ``None`` for nobody; that costs next to nothing.
        base_url: of the client, without a trailing slash.
    """

    observer: Observer | None = None
    base_url: str = ""
    _unwatch: Callable[[], None] | None = None
    _complained: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse what is no observer, before anything is sent.

        Raises:
            InputError: it has not the methods of one.
        """
        if self.observer is None:
            return
        check_methods(self.observer, "Observer", "observer", _METHODS)
        for name in _METHODS:
            if inspect.iscoroutinefunction(getattr(self.observer, name)):
                raise InputError(
                    f"the methods of an observer are plain functions: {name} of "
                    f"{type(self.observer).__name__} must not be async"
                )

    async def acquire(self, limiter: Limiter, pool: Pool, lane: Lane) -> Permit:
        """Return when a request of this pool may be sent."""
        observer = self.observer
        if observer is None:
            return await limiter.acquire(pool, lane)
        if self._unwatch is None:  # only now, for only now the event loop is known for certain
            host, _ = _place(self.base_url)
            self._unwatch = self._told(observer.watch, host, limiter.snapshot) or _nothing
        clock = asyncio.get_running_loop().time
        began = clock()
        permit = await limiter.acquire(pool, lane)
        self._told(observer.waited, pool, clock() - began)
        return permit

    async def send(
        self, transport: Transport, request: Request, pool: Pool, attempt: int
    ) -> Response:
        """Send one request and return its answer, whatever its status.

        Raises:
            TransportError: no whole answer came.
        """
        observer = self.observer
        if observer is None:
            return await transport.send(request)
        info = self._info(request.endpoint, pool, attempt)
        ended = self._told(observer.request, info) or _nothing
        try:
            response = await transport.send(request)
        except BaseException as error:
            self._told(ended, None, error)
            raise
        self._told(ended, response.status, None)
        return response

    def close(self) -> None:
        """End the watching. Closing twice does nothing."""
        unwatch, self._unwatch = self._unwatch, _nothing
        if unwatch is not None:
            self._told(unwatch)

    def _info(self, endpoint: Endpoint, pool: Pool, attempt: int) -> RequestInfo:
        host, port = _place(self.base_url)
        return RequestInfo(
            method=endpoint.method,
            path=endpoint.path,
            url=f"{self.base_url}{endpoint.path}",
            host=host,
            port=port,
            pool=pool,
            attempt=attempt,
        )

    def _told(self, tell: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return tell(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an observer raises what it likes
            if not self._complained:
                self._complained = True
                # Without the message, which may quote the request.
                _log.warning(
                    "the observer raised %s: no call is broken by it, and no more of it is logged",
                    type(error).__name__,
                )
            return None


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _nothing(*_: object) -> None:
    """Do nothing."""
