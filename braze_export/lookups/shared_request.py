"""One request that look-ups share: who waits for it, and the answer of each.

A shape is what look-ups must have in common to share requests.
"""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Final

import msgspec
from attrs import Factory, define, field

from braze_export.batches.batching import BATCH_SIZE
from braze_export.endpoints import Pool
from braze_export.errors import BrazeError
from braze_export.identifiers import Identifier

_LATE: Final = 2.0  # seconds under way after which nobody joins any more: it may never be answered
_GRACE: Final = 5.0  # seconds that an answer is waited for though nobody wants it any more


@define(eq=False)
class Waiter:
    """Somebody who waits for the profile of one identifier.

    Attributes:
        identifier: whose profile.
        decode: makes the record of a user's JSON.
        ends: until when an answer is of use, by the loop's clock; ``None`` for as long as it takes.
        request: what is to bring the answer; ``None`` once nothing is waited for.
    """

    identifier: Identifier
    decode: Callable[[Any], Any]
    ends: float | None = None
    request: "SharedRequest | None" = None
    _context: Context = field(init=False, factory=copy_context)  # what is decoded sees the caller's
    # Errors are values in it: one that nobody takes out any more must not be complained of.
    _answer: "asyncio.Future[tuple[Any, BaseException | None]]" = field(
        init=False, factory=lambda: asyncio.get_running_loop().create_future()
    )

    def give(self, user: bytes | msgspec.Raw | None) -> None:
        """Take a user's JSON, or ``None`` for somebody whom Braze does not know."""
        if self._answer.done():
            return
        try:
            record = None if user is None else self._context.run(self.decode, user)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a class of the caller's may raise anything
            self._settle(None, self._own(error))
        else:
            self._settle(record, None)

    def fail(self, error: Exception) -> None:
        """Take the error instead of an answer: a copy, for it has others too."""
        try:
            own = _copied(error)
        except Exception:  # noqa: BLE001 - of a class that is made in another way
            own = error
        own.__cause__, own.__suppress_context__ = error.__cause__, True
        self._settle(None, self._own(own))

    async def wait(self) -> None:
        """Return when there is an answer."""
        await self._answer

    @property
    def answer(self) -> tuple[Any, BaseException | None] | None:
        """The record and the error, one of which is ``None``; nothing before it is there."""
        came = self._answer.done() and not self._answer.cancelled()
        return self._answer.result() if came else None

    def _own(self, error: BaseException) -> BaseException:
        if isinstance(error, BrazeError):
            error.identifiers = (self.identifier,)
        return error

    def _settle(self, record: Any, error: BaseException | None) -> None:
        if not self._answer.done():
            self._answer.set_result((record, error))


def _copied(error: Exception) -> Exception:
    """Return the same error anew. Not by ``copy``, to which some libraries teach other ways."""
    own: Exception = type(error).__new__(type(error), *error.args)
    own.args = error.args
    own.__dict__.update(error.__dict__)
    return own


@define(eq=False)
class Shape:
    """What is asked with the same fields.

    Attributes:
        key: what shapes are told apart by: the fields in any order.
        fields: ``fields_to_export``; ``None`` to send none.
        pool: the limit that its requests count against.
        open: the request that fills just now.
        asked: the request that is to bring the answer for an identifier: the last one of several.
        in_vain: times in a row that aliases passed over in silence were unknown.
    """

    key: frozenset[str] | None
    fields: tuple[str, ...] | None
    pool: Pool
    open: "SharedRequest | None" = None
    asked: "dict[Identifier, SharedRequest]" = Factory(dict)
    in_vain: int = 0


@define(eq=False)
class SharedRequest:
    """Fills until it is sealed; then it is under way.

    Attributes:
        shape: what it asks for.
        told: is told when one of its requests has ended, with the number of the try.
        size: identifiers that it takes by being joined.
        final: whether it asks once more for those of whom nothing came: then silence is an answer.
        waiting: by identifier; of one that nobody waits for any more, but that was asked for, none.
        sealed: whether it takes nobody in any more.
        on_wire: whether its first request is under way just now.
        sent_off: whether it ever was.
        answered: whether it has had an answer, of whatever sense.
    """

    shape: Shape
    told: Callable[["SharedRequest", int], None]
    size: int = BATCH_SIZE
    final: bool = False
    waiting: dict[Identifier, list[Waiter]] = Factory(dict)
    sealed: bool = False
    on_wire: bool = False
    sent_off: bool = False
    answered: bool = False
    task: asyncio.Task[None] | None = None
    _since: float = math.inf  # when it left, by the loop's clock
    _full: asyncio.Event = Factory(asyncio.Event)
    _patience: asyncio.Timeout | None = None  # until when it fills
    _grace: asyncio.TimerHandle | None = None

    @property
    def has_room(self) -> bool:
        """Whether it takes another identifier."""
        return not self.sealed and len(self.waiting) < self.size

    @property
    def under_way(self) -> bool:
        """Whether an answer may be here any moment, however the limit stands."""
        return self.on_wire or self.answered

    @property
    def is_late(self) -> bool:
        """Whether its answer has taken so long that somebody who comes now asks anew."""
        return self.on_wire and asyncio.get_running_loop().time() - self._since > _LATE

    @property
    def waiters(self) -> list[Waiter]:
        """All who wait."""
        return [waiter for waiting in self.waiting.values() for waiter in waiting]

    @property
    def in_vain(self) -> bool:
        """Whether nobody waits for it any more."""
        return not any(self.waiting.values())

    def add(self, waiter: Waiter) -> None:
        """Take somebody in, or let him wait with others for the same identifier."""
        waiter.request = self.shape.asked[waiter.identifier] = self
        self._end_grace()
        self.waiting.setdefault(waiter.identifier, []).append(waiter)
        if not self.has_room:
            self._full.set()
        self._hurry(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Let somebody go who gives up. An identifier that nobody wants is not asked for."""
        waiter.request = None
        others = self.waiting[waiter.identifier]
        others.remove(waiter)
        if not (others or self.sealed):
            del self.waiting[waiter.identifier]
            self._forget(waiter.identifier)
        if self.in_vain and self.on_wire:  # its answer tells how the limit stands
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(_GRACE, self._drop_unanswered)
        elif self.in_vain:
            self.drop()

    def _drop_unanswered(self) -> None:
        if self.on_wire:
            self.drop()

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def drop(self) -> None:
        """End it: nobody waits for it, and nobody can join it any more."""
        self.close()
        for identifier in self.waiting:
            self._forget(identifier)
        self.waiting.clear()
        if self.task is not None:
            self.task.cancel()

    def take(self, identifier: Identifier) -> list[Waiter]:
        """Return those who wait for an identifier: they wait no more."""
        if identifier not in self.waiting:  # perhaps another request is asking for it
            return []
        self._forget(identifier)
        waiters = self.waiting.pop(identifier)
        for waiter in waiters:
            waiter.request = None
        return waiters

    def _forget(self, identifier: Identifier) -> None:
        """Let nobody join for an identifier, unless a later request asks for it as well."""
        if self.shape.asked.get(identifier) is self:
            del self.shape.asked[identifier]

    async def fill(self, seconds: float) -> None:
        """Give others the time to join, unless it is full, or somebody is in a hurry."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds) as self._patience:
                    for waiter in self.waiters:
                        self._hurry(waiter)
                    await self._full.wait()
            self._patience = None

    def _hurry(self, waiter: Waiter) -> None:
        """Leave half of the time that somebody has to Braze's answer."""
        until = None if self._patience is None else self._patience.when()
        if waiter.ends is not None and until is not None:
            half = (asyncio.get_running_loop().time() + waiter.ends) / 2
            if half < until and self._patience is not None and not self._patience.expired():
                self._patience.reschedule(half)

    def again(self, error: BrazeError, delay: float) -> None:
        """Give the error to those for whom another try, in so many seconds, is too late."""
        next_try = asyncio.get_running_loop().time() + delay
        for waiter in self.waiters:
            if waiter.ends is not None and waiter.ends < next_try:
                waiter.fail(error)

    def close(self) -> None:
        """Take nobody in any more."""
        self.sealed = True
        self._end_grace()
        if self.shape.open is self:
            self.shape.open = None

    def seal(self) -> tuple[Identifier, ...]:
        """Take nobody in any more; return the identifiers to ask for."""
        self.close()
        self.on_wire = self.sent_off = True
        self._since = asyncio.get_running_loop().time()
        return tuple(self.waiting)

    def sent(self, attempt: int, status: int | None) -> None:
        """Note that a request has ended: it may be tried again."""
        self.on_wire = False
        self.answered = status is not None and 200 <= status < 300
        self.told(self, attempt)
