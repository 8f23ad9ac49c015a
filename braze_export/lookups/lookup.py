"""Single look-ups that share requests: who joins which, and how each has an answer of his own.

Calls that are pending at the same time and ask for the same fields leave together, up to 50 in a
request. It is sealed only when the limit lets it through: as long as it has to wait, it goes on
filling (``sharing``).
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from attrs import define, field

from braze_export import deadlines
from braze_export.caller import Caller
from braze_export.endpoints import EXPORT_IDS
from braze_export.errors import BrazeError, DeadlineExceededError
from braze_export.identifiers import Identifier
from braze_export.lookups.cache import open_cache
from braze_export.lookups.shared_request import Shape, Waiter
from braze_export.lookups.sharing import Sharing
from braze_export.models.fields import costs_fast_tier
from braze_export.settings import LookupSettings
from braze_export.turns import Turn

_SHAPES: Final = 64  # sets of fields of which something is remembered


@define(eq=False)
class Lookup:
    """Answers the single look-ups of one client, in one event loop.

    Attributes:
        caller: makes the requests.
        settings: how long a request may wait for others, and what is kept.
    """

    caller: Caller
    settings: LookupSettings
    _sharing: Sharing = field(init=False)
    _shapes: dict[frozenset[str] | None, Shape] = field(init=False, factory=dict)
    _loop: asyncio.AbstractEventLoop | None = field(init=False, default=None)

    @_sharing.default
    def _make_sharing(self) -> Sharing:
        return Sharing(self.caller, self.settings, open_cache(self.settings.cache))

    async def get(
        self, identifier: Identifier, fields: tuple[str, ...] | None, decode: Callable[[Any], Any]
    ) -> Any:
        """Return a record, or ``None`` for somebody whom Braze does not know."""
        waiter = self._join(identifier, fields, decode)
        if waiter.answer is not None:
            await asyncio.sleep(0)  # many that are kept must not hold the loop
        try:
            async with deadlines.kept():
                await waiter.wait()
        except DeadlineExceededError as late:
            late.identifiers = (identifier,)
            late.retry_after = self._held_for(waiter)
            raise
        finally:
            _leave(waiter)
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
                    if turn.over:
                        await turn.give_way()
        except BrazeError as error:
            late = error
        finally:
            for waiter in waiters.values():
                _leave(waiter)
        return await _collected(waiters, late)

    def _join(
        self, identifier: Identifier, fields: tuple[str, ...] | None, decode: Callable[[Any], Any]
    ) -> Waiter:
        self.caller.scope.check_open()  # what is kept of the answers is not to be had either
        self._check_loop()
        waiter = Waiter(identifier, decode, deadlines.ends())
        key = None if fields is None else frozenset(fields)
        known = self._sharing.cache.get(key, identifier)
        if known is not None:
            waiter.give(known.user)
            return waiter
        shape = self._shape(key, fields)
        request = shape.asked.get(identifier)
        if request is not None and request.is_late:
            request = None
        if waiter.ends is not None and not (request and request.under_way):
            deadlines.check_wait(self._sharing.closed_for(shape.pool))
        (request or self._sharing.request_for(shape, identifier)).add(waiter)
        return waiter

    def _check_loop(self) -> None:
        """Do nothing in the one event loop; in another one after it, begin anew.

        Raises:
            InputError: this one runs beside it.
        """
        self.caller.scope.check_loop()
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):  # whoever waited there is gone
            self._shapes.clear()
            self._sharing = self._make_sharing()
        self._loop = loop

    def _held_for(self, waiter: Waiter) -> float | None:
        """Return the seconds for which the limit still holds a look-up that was not sent."""
        request = waiter.request
        if request is None or request.under_way:
            return None
        return self._sharing.closed_for(request.shape.pool) or None

    def _shape(self, key: frozenset[str] | None, fields: tuple[str, ...] | None) -> Shape:
        shape = self._shapes.get(key)
        if shape is None:
            idle = (k for k, s in self._shapes.items() if not s.asked)
            if len(self._shapes) >= _SHAPES and (oldest := next(idle, key)) in self._shapes:
                del self._shapes[oldest]
            fast = not costs_fast_tier(fields)
            pool = self.caller.limiter.limits.pool_of(EXPORT_IDS, fast=fast)
            shape = self._shapes[key] = Shape(key, fields, pool)
        return shape


def _leave(waiter: Waiter) -> None:
    """Let a caller go who gives up; for one who has an answer there is nothing to do."""
    if waiter.request is not None:
        waiter.request.remove(waiter)


async def _collected(waiters: dict[Identifier, Waiter], late: BrazeError | None) -> dict[Any, Any]:
    """Return the records of those who have an answer; raise what went wrong, with them."""
    turn = Turn()
    found: dict[Any, Any] = {}
    error: BaseException | None = late
    for identifier, waiter in waiters.items():
        record, failure = waiter.answer or (None, late)
        if failure is None:
            found[identifier] = record
        error = error or failure
        if turn.over:
            await turn.give_way()
    if error is None:
        return found
    if isinstance(error, BrazeError):
        error.identifiers = tuple(i for i in waiters if i not in found)
        error.partial = found
    raise error
