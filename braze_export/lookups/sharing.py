"""The requests that look-ups share: when one leaves, and what each of those who wait gets of it.

A request that Braze refuses is asked for again in halves, side by side, until the identifiers at
fault stand alone: each part's answers are handed out as they come.
"""

import asyncio
import math
from collections.abc import Iterable
from functools import partial
from typing import Final

import msgspec
from attrs import define, field

from braze_export import deadlines
from braze_export.batches.batching import BATCH_SIZE, Batch
from braze_export.batches.narrowing import ask, read
from braze_export.caller import Caller
from braze_export.codec import without
from braze_export.endpoints import Pool
from braze_export.errors import (
    BadRequestError,
    ClientClosedError,
    DecodeError,
    PayloadTooLargeError,
)
from braze_export.identifiers import SINGLE_KINDS, Identifier, UserAlias
from braze_export.lookups.cache import Cache
from braze_export.lookups.shared_request import Shape, SharedRequest
from braze_export.lookups.whose import Sorted, sort, telling_fields
from braze_export.settings import LookupSettings
from braze_export.turns import Turn

_ENOUGH: Final = 3  # times that asking again for aliases passed over in silence may be in vain
_FREE: Final = 0.5  # share of a window that is spent without a thought to the rest of it
_AT_ONCE: Final = 2  # answers in one turn of the loop


@define(eq=False)
class Sharing:
    """Makes the requests.

    Attributes:
        caller: sends them.
        settings: how long a request may wait for others to join it.
        cache: keeps the answers.
        requests: those that are not done.
    """

    caller: Caller
    settings: LookupSettings
    cache: Cache
    requests: set[SharedRequest] = field(init=False, factory=set)
    _sealed_at: dict[Pool, float] = field(init=False, factory=dict)  # when the last one was

    def request_for(self, shape: Shape, identifier: Identifier) -> SharedRequest:
        """Return a request that takes an identifier: a new one, if none has room."""
        if type(identifier) in SINGLE_KINDS:
            return self._start(SharedRequest(shape, self._sent, size=1))
        if shape.open is None or not shape.open.has_room:
            shape.open = self._start(SharedRequest(shape, self._sent, size=BATCH_SIZE))
        return shape.open

    def closed_for(self, pool: Pool) -> float:
        """Return the seconds until a look-up that comes now may be sent, as far as is known."""
        known = self.caller.standing(pool)
        if known is None or not known.closed_for:
            return 0.0
        before = sum(r.shape.pool == pool and not r.sent_off for r in self.requests)
        windows = before // max(1, known.limit)
        return known.closed_for + windows * self.caller.limiter.limits.by_pool()[pool].period

    def _start(self, request: SharedRequest) -> SharedRequest:
        request.task = self.caller.scope.spawn(self._carry_out(request))
        request.task.add_done_callback(partial(self._ended, request))
        self.requests.add(request)
        return request

    async def _carry_out(self, request: SharedRequest) -> None:
        """Let a request fill, make it, and give each his answer."""
        deadlines.lift()  # it was that of the first caller alone
        await asyncio.sleep(0)  # an eager task would be off before anybody has joined
        shape = request.shape
        await request.fill(self._pause(request))
        permit = await self.caller.granted(shape.pool, "interactive")
        batch = Batch(request.seal())
        self._sealed_at[shape.pool] = asyncio.get_running_loop().time()
        added = telling_fields(batch, shape.fields)
        try:
            answer = await ask(
                self.caller,
                batch,
                None if shape.fields is None else (*shape.fields, *added),
                lane="interactive",
                meter=request,
                permit=permit,
            )
        except (BadRequestError, PayloadTooLargeError):
            if len(batch.identifiers) == 1:
                raise
            for half in batch.halves():
                self._ask_anew(request, half.identifiers)
            return
        await asyncio.sleep(0)  # it was split in this turn, which is work for others to wait for
        told = sort(batch, read(batch, answer))
        await asyncio.sleep(0)
        parts = _once_more(batch, told, request)
        for part in parts:
            self._ask_anew(request, part, final=True)
        if request.final and any(isinstance(i, UserAlias) for i in batch.identifiers):
            shape.in_vain = 0 if told.found else shape.in_vain + 1
        await self._hand_out(request, told.given_up(alone=len(batch.identifiers) == 1), added)

    def _ask_anew(
        self, request: SharedRequest, identifiers: Iterable[Identifier], *, final: bool = False
    ) -> None:
        """Ask for a part of a request by another one, for those who still wait."""
        part = SharedRequest(request.shape, self._sent, size=0, final=final or request.final)
        for identifier in identifiers:
            for waiter in request.take(identifier):
                part.add(waiter)
        if part.waiting:
            self._start(part)

    async def _hand_out(self, request: SharedRequest, told: Sorted, added: tuple[str, ...]) -> None:
        """Give each his answer, a few in a turn of the loop: each has work to do with it."""
        turn = Turn()
        given = 0
        for identifier, error in told.failed.items():
            for waiter in request.take(identifier):
                waiter.fail(error)
        for identifier in (*told.found, *told.unknown):
            user: bytes | msgspec.Raw | None = told.found.get(identifier)
            if isinstance(user, msgspec.Raw) and added:
                user = without(user, added)
            if identifier in request.waiting:  # not where another request is asking for it now
                self.cache.put(request.shape.key, identifier, user)
            for waiter in request.take(identifier):
                waiter.give(user)
                given += 1
            if turn.over or given % _AT_ONCE == 0:
                await turn.give_way()

    def _sent(self, request: SharedRequest, attempt: int) -> None:
        """See what is to be done when a request has ended, and may be tried again."""
        if request.in_vain and not (request.answered and attempt == 1):  # else it may be kept
            request.drop()
        # Once the limiter knows how the window stands.
        asyncio.get_running_loop().call_soon(self._fail_late, request.shape.pool)

    def _fail_late(self, pool: Pool) -> None:
        """Tell those at once who cannot have an answer in time."""
        waiting = [r for r in self.requests if r.shape.pool == pool and not r.under_way]
        hurried = [w for r in waiting for w in r.waiters if w.ends is not None]
        closed = self.caller.closed_for(pool) if hurried else 0.0
        latest = asyncio.get_running_loop().time() + closed
        for waiter in hurried:
            if closed and waiter.ends is not None and waiter.ends < latest:
                waiter.fail(deadlines.too_late(closed))

    def _ended(self, request: SharedRequest, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever, and nobody joins."""
        self.requests.discard(request)
        request.close()
        error = None if task.cancelled() else task.exception()
        if not isinstance(error, Exception):
            error = ClientClosedError("the client is closed: make a new one")
        if isinstance(error, DecodeError) and len(request.waiting) > 1:
            error.raw = b""  # it holds the others' profiles too
        for identifier in tuple(request.waiting):
            for waiter in request.take(identifier):
                waiter.fail(error)

    def _pause(self, request: SharedRequest) -> float:
        """Return the seconds that a request waits for others to join.

        Nothing, if there is no other look-up. Once half a window is spent, so much that what is
        left of it lasts until the next: requests leave evenly then, each with all that came.
        """
        if len(self.requests) == 1 and len(request.waiting) == 1:
            return 0.0
        pool, linger = request.shape.pool, self.settings.linger
        known = self.caller.standing(pool)
        if known is None or not known.remaining or known.resets_in is None:
            return linger
        if known.remaining > known.limit * _FREE:
            return linger
        gap = min(known.resets_in / known.remaining, self.settings.pace)
        since = asyncio.get_running_loop().time() - self._sealed_at.get(pool, -math.inf)
        return max(linger, gap - since)


def _once_more(batch: Batch, told: Sorted, request: SharedRequest) -> list[tuple[Identifier, ...]]:
    """Return how to ask again for those of whom nothing has come.

    Each alone, if there are users who do not tell whose they are. How Braze names unknown aliases
    is not documented: perhaps not at all, and after a few times in vain silence is an answer.
    """
    if request.final or len(batch.identifiers) == 1 or not told.silent:
        return []
    if told.strangers:
        return [(identifier,) for identifier in told.silent]
    believed = request.shape.in_vain >= _ENOUGH
    silent = tuple(i for i in told.silent if not (believed and isinstance(i, UserAlias)))
    return [silent] if silent else []
