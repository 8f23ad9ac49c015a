"""Single look-ups that share requests.

Calls that are pending at the same time and ask for the same fields leave together, up to 50 in a
request. It is sealed only when the limit lets it through: as long as it has to wait, it goes on
filling. Each caller gets an answer of its own: a profile, nothing, or an error.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

import msgspec
from attrs import define, field

from braze_export import deadlines
from braze_export.batching import BATCH_SIZE, Batch
from braze_export.caller import Caller
from braze_export.codec import IdsAnswer, without
from braze_export.endpoints import EXPORT_IDS, Pool
from braze_export.errors import BrazeError, ClientClosedError
from braze_export.identifiers import SINGLE_KINDS, Identifier
from braze_export.lookup_cache import Cache, open_cache
from braze_export.models.fields import costs_fast_tier
from braze_export.narrowing import Narrower, ask
from braze_export.settings import LookupSettings
from braze_export.shared_request import Shape, SharedRequest, Waiter
from braze_export.turns import Turn
from braze_export.whose import Sorted, sort, telling_fields

_SHAPES: Final = 64  # sets of fields of which something is remembered
_ENOUGH: Final = 3  # times that asking again for those passed over in silence may be in vain
_FREE: Final = 0.5  # share of a window that is spent without a thought to the rest of it
_LONGEST_PAUSE: Final = 0.25  # seconds
_AT_ONCE: Final = 4  # answers in one turn of the loop


@define(eq=False)
class Lookup:
    """Answers the single look-ups of one client.

    Attributes:
        caller: makes the requests.
        settings: how long a request may wait for others, and what is kept.
    """

    caller: Caller
    settings: LookupSettings
    _cache: Cache = field(init=False)
    _shapes: dict[frozenset[str] | None, Shape] = field(init=False, factory=dict)
    _filling: Counter[Pool] = field(init=False, factory=Counter)  # requests not yet sealed
    _running: int = field(init=False, default=0)  # requests not yet answered
    _sealed_at: dict[Pool, float] = field(init=False, factory=dict)  # when the last was sealed

    @_cache.default
    def _open_cache(self) -> Cache:
        return open_cache(self.settings.cache)

    async def get(
        self, identifier: Identifier, fields: tuple[str, ...] | None, decode: Callable[[Any], Any]
    ) -> Any:
        """Return a record, or ``None`` for somebody whom Braze does not know."""
        waiter = self._join(identifier, fields, decode)
        try:
            async with deadlines.kept():
                await waiter.wait()
        finally:
            self._leave(waiter)
        record, error = waiter.answer or (None, None)
        if error is not None:
            raise error
        return record

    async def get_many(
        self,
        identifiers: Iterable[Identifier],
        fields: tuple[str, ...] | None,
        decode: Callable[[Any], Any],
    ) -> dict[Any, Any]:
        """Return records by identifier, ``None`` for those whom Braze does not know.

        Raises:
            BrazeError: the first of what failed; ``partial`` holds what has come,
                ``identifiers`` what has not.
        """
        waiters: dict[Identifier, Waiter] = {}
        turn = Turn()
        late: BrazeError | None = None
        try:
            for identifier in identifiers:
                if identifier not in waiters:
                    waiters[identifier] = self._join(identifier, fields, decode)
                if turn.over:
                    await turn.give_way()
            async with deadlines.kept():
                for waiter in waiters.values():
                    await waiter.wait()
        except BrazeError as error:
            late = error
        finally:
            for waiter in waiters.values():
                self._leave(waiter)
        return _collected(waiters, late)

    def _join(
        self, identifier: Identifier, fields: tuple[str, ...] | None, decode: Callable[[Any], Any]
    ) -> Waiter:
        self.caller.scope.check_open()  # what is kept of the answers is not to be had either
        waiter = Waiter(identifier, decode, deadlines.ends())
        key = None if fields is None else frozenset(fields)
        known = self._cache.get(key, identifier)
        if known is not None:
            waiter.give(known.user)
            return waiter
        shape = self._shape(key, fields)
        request = shape.asked.get(identifier)
        if waiter.ends is not None and not (request and request.under_way):
            deadlines.check_wait(self._closed_for(shape.pool))
        (request or self._with_room(shape, identifier)).add(waiter)
        return waiter

    def _leave(self, waiter: Waiter) -> None:
        """Let a caller go who gives up; for one who has an answer there is nothing to do."""
        if waiter.request is not None:
            waiter.request.remove(waiter)

    def _shape(self, key: frozenset[str] | None, fields: tuple[str, ...] | None) -> Shape:
        shape = self._shapes.get(key)
        if shape is None:
            idle = (k for k, s in self._shapes.items() if not s.asked)
            if len(self._shapes) >= _SHAPES and (oldest := next(idle, key)) in self._shapes:
                del self._shapes[oldest]
            fast = not costs_fast_tier(fields)
            pool = self.caller.limiter.limits.pool_of(EXPORT_IDS, fast=fast)
            shape = self._shapes[key] = Shape(fields, pool)
        return shape

    def _with_room(self, shape: Shape, identifier: Identifier) -> SharedRequest:
        alone = type(identifier) in SINGLE_KINDS
        if not alone and shape.open is not None and shape.open.has_room:
            return shape.open
        request = SharedRequest(shape, self._sent, size=1 if alone else BATCH_SIZE)
        request.task = self.caller.scope.spawn(self._carry_out(request))
        request.task.add_done_callback(partial(self._ended, request))
        self._running += 1
        self._filling[shape.pool] += 1
        if not alone:
            shape.open = request
        return request

    async def _carry_out(self, request: SharedRequest) -> None:
        """Let a request fill, make it, and give each his answer."""
        deadlines.lift()  # it was that of the first caller alone
        await asyncio.sleep(0)  # an eager task would be off before anybody has joined
        shape = request.shape
        await request.fill(self._pause(shape.pool))
        permit = await self.caller.granted(shape.pool, "interactive")
        batch = Batch(request.seal())
        self._filling[shape.pool] -= 1
        self._sealed_at[shape.pool] = asyncio.get_running_loop().time()
        added = telling_fields(batch, shape.fields)
        permits = [permit]

        def ask_braze(part: Batch) -> Awaitable[IdsAnswer]:
            return ask(
                self.caller,
                part,
                None if shape.fields is None else (*shape.fields, *added),
                lane="interactive",
                meter=request,
                permit=permits.pop() if permits else None,
            )

        narrower = Narrower(ask_braze, keep_going=True, trial=shape.trial)
        await self._answer(request, batch, narrower, added)

    async def _answer(
        self, request: SharedRequest, batch: Batch, narrower: Narrower, added: tuple[str, ...]
    ) -> None:
        told = sort(batch, await narrower.outcome(batch))
        parts = _once_more(batch, told, request.shape)
        await self._hand_out(request, told if parts else told.given_up(), added)
        for part in parts:
            if request.in_vain:
                request.drop()
                return
            again = sort(part, await narrower.outcome(part))
            if not again.failed:  # else nothing is known of them
                request.shape.in_vain = 0 if again.found else request.shape.in_vain + 1
            await self._hand_out(request, again.given_up(), added)

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
            self._cache.put(request.shape.key, identifier, user)
            for waiter in request.take(identifier):
                waiter.give(user)
                given += 1
            if turn.over or given % _AT_ONCE == 0:
                await turn.give_way()

    def _sent(self, request: SharedRequest, attempt: int, status: int | None) -> None:
        """See what is to be done when a request has ended, and may be tried again."""
        if request.in_vain and not (request.answered and attempt == 1):  # else it may be kept
            request.drop()
        if status == 429:  # once the limiter knows for how long
            asyncio.get_running_loop().call_soon(self._fail_late, request.shape.pool)

    def _fail_late(self, pool: Pool) -> None:
        """Tell those at once who cannot have an answer in time."""
        closed = self.caller.closed_for(pool)
        latest = asyncio.get_running_loop().time() + closed
        for shape in self._shapes.values():
            if closed and shape.pool == pool:
                for waiter in shape.late(latest):
                    waiter.fail(deadlines.too_late(closed))

    def _ended(self, request: SharedRequest, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever."""
        self._running -= 1
        request.close()  # it may have ended before it was sealed
        if not request.sent_off:
            self._filling[request.shape.pool] -= 1
        error = None if task.cancelled() else task.exception()
        for identifier in tuple(request.waiting):
            for waiter in request.take(identifier):
                waiter.fail(
                    error
                    if isinstance(error, Exception)
                    else ClientClosedError("the client is closed: make a new one")
                )

    def _closed_for(self, pool: Pool) -> float:
        """Return the seconds until a look-up that comes now may be sent, as far as is known."""
        known = self.caller.limiter.snapshot().get(pool)
        if known is None or not known.closed_for:
            return 0.0
        windows = self._filling[pool] // max(1, known.limit)
        period = self.caller.limiter.limits.by_pool()[pool].period
        return known.closed_for + windows * period

    def _pause(self, pool: Pool) -> float:
        """Return the seconds that a request waits for others to join.

        Nothing, if there is no other look-up. Once half a window is spent, so much that what is
        left of it lasts until the next: requests leave evenly then, each with all that came.
        """
        known = self.caller.limiter.snapshot().get(pool)
        linger = self.settings.linger if self._running > 1 else 0.0
        if known is None or not known.remaining or known.resets_in is None:
            return linger
        if known.remaining > known.limit * _FREE:
            return linger
        gap = min(known.resets_in / known.remaining, _LONGEST_PAUSE)
        since = asyncio.get_running_loop().time() - self._sealed_at.get(pool, -math.inf)
        return max(linger, gap - since)


def _once_more(batch: Batch, told: Sorted, shape: Shape) -> list[Batch]:
    """Return how to ask again for those of whom nothing has come.

    Each alone, if there are users who do not tell whose they are. How Braze names unknown aliases
    is not documented: perhaps not at all, and after a few times in vain silence is an answer.
    """
    if len(batch.identifiers) == 1 or not told.silent:
        return []
    if told.strangers:
        return [Batch((identifier,)) for identifier in told.silent]
    return [Batch(told.silent)] if shape.in_vain < _ENOUGH else []


def _collected(waiters: dict[Identifier, Waiter], late: BrazeError | None) -> dict[Any, Any]:
    """Return the records of those who have an answer; raise what went wrong, with them."""
    answers = {identifier: waiter.answer for identifier, waiter in waiters.items()}
    failures = [answer[1] for answer in answers.values() if answer and answer[1] is not None]
    found = {i: answer[0] for i, answer in answers.items() if answer and answer[1] is None}
    error = late or next(iter(failures), None)
    if error is None:
        return found
    if isinstance(error, BrazeError):
        error.identifiers = tuple(i for i in answers if i not in found)
        error.partial = found
    raise error
