"""The merged iterator over an export by identifiers: profiles and unknown ids as they come."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Generic, Never, Self, cast

import msgspec
from attrs import field, frozen
from typing_extensions import TypeVar

from braze_export.batches.batching import BATCH_SIZE, Identifiers, batches, check_all
from braze_export.batches.fanout import fan_out
from braze_export.batches.narrowing import Narrower, Outcome, ask
from braze_export.caller import Caller, Meter
from braze_export.codec import decoder_for, identity
from braze_export.endpoints import EXPORT_IDS
from braze_export.errors import BrazeError, DecodeError, InputError
from braze_export.identifiers import Identifier
from braze_export.models.profile import UserProfile
from braze_export.models.results import ExportStats, FailedBatch, IdsResult, InvalidUserId
from braze_export.tasks import TaskScope
from braze_export.turns import Turn
from braze_export.validators import whole_above_zero

T = TypeVar("T", default=UserProfile)
F = TypeVar("F", default=Never)
X = TypeVar("X")

_KEPT_ERRORS: Final = 100
_log = logging.getLogger("braze_export")


def narrowing(
    caller: Caller, fields: tuple[str, ...] | None, stats: Meter, *, keep_going: bool
) -> Narrower:
    """Return what asks for batches, as one of many, and narrows down those that are refused."""
    return Narrower(lambda batch: ask(caller, batch, fields, lane="bulk", meter=stats), keep_going)


@frozen
class Plan(Generic[T]):
    """What an export asks for, and how. Made by ``users.export_ids``.

    Attributes:
        identifiers: whose profiles.
        fields: ``fields_to_export``, or ``None`` to send none.
        decode: makes a record of one user's JSON.
        concurrency: requests under way at once, answers not yet taken included.
        ordered: yield batches in the order of the input.
        keep_going: yield failures instead of raising the first.
        caller: makes the requests.
    """

    identifiers: Identifiers
    fields: tuple[str, ...] | None
    decode: Callable[[msgspec.Raw], T]
    concurrency: int = field(validator=whole_above_zero)
    ordered: bool
    keep_going: bool
    caller: Caller

    def outcomes(
        self, stats: ExportStats, scope: TaskScope, stopped: Callable[[], bool]
    ) -> AsyncGenerator[Outcome, None]:
        """Return the outcomes of all batches, as they come or in order."""
        narrower = narrowing(self.caller, self.fields, stats, keep_going=self.keep_going)
        units = batches(
            self.identifiers,
            window=2 * self.concurrency * BATCH_SIZE,
            keep_going=self.keep_going,
            stats=stats,
        )
        return fan_out(
            units,
            narrower.outcome,
            concurrency=self.concurrency,
            ordered=self.ordered,
            scope=scope,
            stopped=stopped,
        )


class IdsExport(Generic[T, F]):
    """An export by identifiers, under way from the first ``async for`` on. Read once.

    ``async for`` yields profiles and ``InvalidUserId`` (and ``FailedBatch`` with
    ``on_error="yield"``) as the answers come. Leaving the loop early ends the requests under
    way; ``async with`` makes sure that they have ended when its block is left::

        async with braze.users.export_ids(ids) as export:
            async for item in export:
                ...

    With ``on_error="raise"`` the first error is raised after everything that had come by then
    was yielded. Attributes and methods other than the iteration may be used at any time.

    Attributes:
        stats: counters, for progress.
    """

    def __init__(self, plan: Plan[T]) -> None:
        self.stats = ExportStats()
        self._plan = plan
        self._invalid: list[Identifier] = []
        self._failed: list[FailedBatch] = []
        self._errors: list[str] = []
        self._scope = TaskScope("export", plan.caller.scope)
        self._started = False
        self._entered = False
        self._stream: AsyncGenerator[Any, None] | None = None

    def __aiter__(self) -> AsyncGenerator[T | InvalidUserId | F, None]:
        stream = self._items(self._plan.decode)
        return cast("AsyncGenerator[T | InvalidUserId | F, None]", self._begin(stream))

    def profiles(self) -> AsyncGenerator[T, None]:
        """Yield profiles only. The rest is in ``invalid_user_ids`` and ``failed``."""
        return self._begin(_only_records(self._items(self._plan.decode)))

    def raw(self) -> AsyncGenerator[bytes, None]:
        """Yield each user's JSON, exactly as Braze sent it, without decoding it."""
        return self._begin(_only_records(self._items(decoder_for(bytes, EXPORT_IDS))))

    async def collect(self) -> IdsResult[T]:
        """Return everything at once. Holds every profile in memory.

        Raises:
            BrazeError: with ``on_error="raise"``; ``error.partial`` holds what had come.
        """
        users: list[T] = []
        try:
            async with aclosing(self.profiles()) as profiles:
                async for profile in profiles:
                    users.append(profile)  # noqa: PERF401 - kept when the iteration raises
        except BrazeError as error:
            error.partial = self._result(users)
            raise
        return self._result(users)

    @property
    def invalid_user_ids(self) -> tuple[Identifier, ...]:
        """The identifiers found unknown so far. Held in memory: one entry for each."""
        return tuple(self._invalid)

    @property
    def failed(self) -> tuple[FailedBatch, ...]:
        """What failed for good so far."""
        return tuple(self._failed)

    @property
    def errors(self) -> tuple[str, ...]:
        """Braze's messages of errors that left the rest of a request untouched; the first 100."""
        return tuple(self._errors)

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the requests under way. Whoever still iterates gets ``ClientClosedError``."""
        await self._scope.aclose()
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(RuntimeError):  # another task is iterating; it has been told
                await stream.aclose()

    def _begin(self, stream: AsyncGenerator[X, None]) -> AsyncGenerator[X, None]:
        if self._started:
            raise InputError("an export is read once: call export_ids again for another")
        self._scope.check_open()
        self._started = True
        if self._entered:
            # Not otherwise: the stream refers to us, and a loop left early is cleaned up at
            # once only as long as nothing refers to the stream.
            self._stream = stream
        return stream

    async def _items(self, make: Callable[[msgspec.Raw], Any]) -> AsyncGenerator[Any, None]:
        plan = self._plan
        if not plan.keep_going:
            await check_all(plan.identifiers)
        turn = Turn()
        outcomes = plan.outcomes(
            self.stats, self._scope, lambda: bool(self._failed) and not plan.keep_going
        )
        async with aclosing(outcomes):
            async for outcome in outcomes:
                self._note(outcome)
                for unknown in outcome.invalid:
                    yield unknown
                for view in outcome.users:
                    try:
                        record = make(view)
                    except DecodeError as error:
                        outcome.failed.append(FailedBatch(identity(view), error))
                        continue
                    yield record
                    if turn.over:
                        await turn.give_way()
                for failure in outcome.failed:
                    self._note_failure(failure)
                    if plan.keep_going:
                        yield failure
        self._raise_first()

    def _note(self, outcome: Outcome) -> None:
        stats = self.stats
        stats.users += len(outcome.users)
        stats.invalid_user_ids += len(outcome.invalid)
        stats.unaccounted += outcome.unaccounted
        self._invalid += (unknown.identifier for unknown in outcome.invalid)
        if outcome.errors:
            _log.warning("%s: %d non-fatal errors", EXPORT_IDS.label, len(outcome.errors))
            self._errors = [*self._errors, *outcome.errors][:_KEPT_ERRORS]

    def _note_failure(self, failure: FailedBatch) -> None:
        self.stats.failed += len(failure.identifiers)
        self._failed.append(failure)

    def _raise_first(self) -> None:
        if self._failed and not self._plan.keep_going:
            first = self._failed[0]
            first.error.identifiers = first.identifiers
            raise first.error

    def _result(self, users: list[T]) -> IdsResult[T]:
        return IdsResult(users, list(self._invalid), list(self._failed))


async def _only_records(items: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(items):
        async for item in items:
            if not isinstance(item, InvalidUserId | FailedBatch):
                yield item
