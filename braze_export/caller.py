"""The one loop that every call goes through: take a token, send, check, learn, try again."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Generic, Protocol, TypeVar, cast
from urllib.parse import urlencode

import msgspec
from attrs import evolve, field, frozen

from braze_export import deadlines
from braze_export.answers import check, read_rate_window
from braze_export.endpoints import Endpoint, Pool
from braze_export.errors import (
    APIError,
    BrazeError,
    DeadlineExceededError,
    ExportInProgressError,
    RateLimitError,
    TransportError,
)
from braze_export.limiting.limits import Lane, Limiter, Permit, PoolSnapshot
from braze_export.observing import Observing
from braze_export.retry import RetryPolicy, is_refusal
from braze_export.tasks import TaskScope
from braze_export.wire import ApiKey, Request, Timeouts, Transport

R = TypeVar("R")
# Seconds: two of Braze's longest windows. One odd answer must not close the limit for ever.
_LONGEST_PAUSE = 7_200.0
_LARGE = 200_000  # bytes of an answer whose decoding the event loop would feel
_PERHAPS_BEGUN = (
    "the deadline was over before Braze had answered: the export may have begun all the same, and "
    'is then refused a second time until it has ended (if_running="wait" waits for that)'
)
_log = logging.getLogger("braze_export")


class Meter(Protocol):
    """Is told of every request that was sent, for progress."""

    def sent(self, attempt: int, status: int | None) -> None:
        """Note a request: the number of the try, and its status, ``None`` without an answer."""
        ...

    def again(self, error: BrazeError, delay: float) -> None:
        """Note that this error is followed by another try, in so many seconds or later."""
        ...


@frozen
class Caller:
    """Makes calls of endpoints.

    Attributes:
        scope: runs the calls, so that none outlives the client.
        base_url: without a trailing slash.
        key: goes to that host alone.
        transport: moves the bytes.
        limiter: grants the requests.
        retry: says when a failed request is tried again.
        timeouts: of each single request.
        user_agent: says who calls.
        wall_clock: seconds since the epoch, for answers without a ``Date``.
        observing: tells of each request, and of each wait for one.
    """

    scope: TaskScope
    base_url: str
    key: ApiKey
    transport: Transport
    limiter: Limiter
    retry: RetryPolicy
    timeouts: Timeouts
    user_agent: str
    wall_clock: Callable[[], float] = field(default=time.time, repr=False)
    observing: Observing = field(factory=Observing, repr=False)
    _turn: asyncio.Lock = field(factory=asyncio.Lock, init=False, repr=False)

    async def call(
        self,
        endpoint: Endpoint,
        decode: Callable[[bytes, Endpoint], R],
        *,
        params: Mapping[str, str | int] | None = None,
        content: dict[str, Any] | None = None,
        fast: bool = False,
        lane: Lane = "interactive",
        meter: Meter | None = None,
        permit: Permit | None = None,
    ) -> R:
        """Call an endpoint until it answers, or the retry policy or the deadline ends it.

        Args:
            endpoint: what to call.
            decode: makes the result of the answer's body; a ``DecodeError`` of its is retried.
            params: the query.
            content: sent as JSON.
            fast: whether the request's shape is that of the fast tier.
            lane: who waits for the answer.
            meter: is told of every request sent.
            permit: for the first request, granted already to a task of the client's scope.

        Raises:
            TransportError: no whole answer came.
            APIError: an answer came that cannot be used.
            DeadlineExceededError: the deadline was over, or the limit opens after it.
            ClientClosedError: the client was closed.
        """
        request = self._request(endpoint, params, content)
        pool = self.limiter.limits.pool_of(endpoint, fast=fast)
        the_call = _Call(request, pool, lane, decode, meter)
        if permit is not None:
            return await self._until_answered(the_call, permit)
        return await self.scope.run(self._in_time(the_call))

    async def granted(self, pool: Pool, lane: Lane) -> Permit:
        """Return when a request of this pool may be sent.

        Raises:
            DeadlineExceededError: the limit opens only after the deadline.
        """
        if deadlines.left() is not None:
            deadlines.check_wait(self.closed_for(pool))
        return await self.observing.acquire(self.limiter, pool, lane)

    def standing(self, pool: Pool) -> PoolSnapshot | None:
        """Return how a pool stands now; ``None`` if the limiter says nothing of it."""
        return self.limiter.snapshot().get(pool)

    def closed_for(self, pool: Pool) -> float:
        """Return for how many seconds, as far as is known, the limit lets nobody through."""
        known = self.standing(pool)
        return 0.0 if known is None else known.closed_for

    async def _in_time(self, call: "_Call[R]") -> R:
        permit: Permit | None = None
        try:
            async with deadlines.kept():
                permit = await self.granted(call.pool, call.lane)
                return await self._until_answered(call, permit)
        except DeadlineExceededError as error:
            if permit is None:
                error.retry_after = error.retry_after or self.closed_for(call.pool) or None
            elif call.request.endpoint.starts_export:
                raise DeadlineExceededError(_PERHAPS_BEGUN) from None
            raise

    async def _until_answered(self, call: "_Call[R]", permit: Permit) -> R:
        loop = asyncio.get_running_loop()
        endpoint = call.request.endpoint
        began = loop.time()
        failures = refusals = 0
        for attempt in count(1):
            try:
                body = await self._send(call, permit, attempt)
                return await self._decoded(body, call.decode, endpoint)
            except (TransportError, APIError) as error:
                error.attempts = attempt
                refused = is_refusal(error)
                refusals += refused
                failures += not refused
                elapsed = loop.time() - began
                delay = self.retry.delay(
                    error, endpoint, failures=failures, refusals=refusals, elapsed=elapsed
                )
                if delay is None or deadlines.over_in(delay):
                    raise
                _log.info("%s: %s, next try in %.1f s", endpoint.label, _name(error), delay)
                if call.meter is not None:
                    call.meter.again(error, delay)
                if refused:  # the limiter knows for how long, and wakes in order
                    delay -= cast("RateLimitError", error).retry_after or 0.0
            await asyncio.sleep(delay)
            permit = await self.granted(call.pool, call.lane)
        raise AssertionError("unreachable")

    async def _decoded(
        self, body: bytes, decode: Callable[[bytes, Endpoint], R], endpoint: Endpoint
    ) -> R:
        if len(body) < _LARGE:
            return decode(body, endpoint)
        # Large answers may have come together: each has a turn of the loop to itself.
        async with self._turn:
            await asyncio.sleep(0)
            return decode(body, endpoint)

    async def _send(self, call: "_Call[Any]", permit: Permit, attempt: int) -> bytes:
        status: int | None = None
        request = call.request
        try:
            response = await self.observing.send(self.transport, request, call.pool, attempt)
            status = response.status
        except BaseException as error:
            permit.unanswered(sent=getattr(error, "sent", True))
            raise
        finally:
            if call.meter is not None:
                call.meter.sent(attempt, status)
        now = self.wall_clock()
        window = read_rate_window(response.headers, now=now)
        refused = False
        try:
            check(request, response, now=now)
        except ExportInProgressError:
            raise  # a 429 as well, but one that closes no window
        except RateLimitError as error:
            refused = True
            pause = error.retry_after
            window = evolve(window, pause=None if pause is None else min(pause, _LONGEST_PAUSE))
            raise
        finally:
            permit.answered(window, refused=refused)
        return response.body

    def _request(
        self,
        endpoint: Endpoint,
        params: Mapping[str, str | int] | None,
        content: dict[str, Any] | None,
    ) -> Request:
        query = f"?{urlencode(params)}" if params else ""
        return Request(
            endpoint=endpoint,
            url=f"{self.base_url}{endpoint.path}{query}",
            key=self.key,
            user_agent=self.user_agent,
            timeouts=self.timeouts,
            body=None if content is None else msgspec.json.encode(content),
        )


@frozen
class _Call(Generic[R]):
    """A call under way; see ``Caller.call``."""

    request: Request
    pool: Pool
    lane: Lane
    decode: Callable[[bytes, Endpoint], R]
    meter: Meter | None


def _name(error: BrazeError) -> str:
    """Name an error without its message, which may hold personal data."""
    status = getattr(error, "status", None)
    return f"{type(error).__name__} {status}" if status else type(error).__name__
