"""One batch to its outcome, and a refused batch narrowed down to the identifiers at fault.

Braze refuses a request as a whole. By halving it until the guilty identifiers stand alone,
one bad identifier costs one identifier.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from attrs import Factory, define, field

from braze_export.batches.batching import Batch
from braze_export.caller import Caller, Meter
from braze_export.codec import IdsAnswer, split_ids_answer
from braze_export.endpoints import EXPORT_IDS
from braze_export.errors import BadRequestError, BrazeError, PayloadTooLargeError
from braze_export.limiting.limits import Lane, Permit
from braze_export.models.fields import costs_fast_tier
from braze_export.models.results import FailedBatch, InvalidUserId
from braze_export.wire import without_frames

_ENOUGH: Final = 2


async def ask(
    caller: Caller,
    batch: Batch,
    fields: tuple[str, ...] | None,
    *,
    lane: Lane,
    meter: Meter | None = None,
    permit: Permit | None = None,
) -> IdsAnswer:
    """Make the request of a batch, with ``fields_to_export`` unless ``fields`` is ``None``.

    ``lane``, ``meter`` and ``permit`` are those of ``Caller.call``.
    """
    body = batch.payload()
    if fields is not None:
        body["fields_to_export"] = fields
    fast = not costs_fast_tier(fields)
    return await caller.call(
        EXPORT_IDS,
        split_ids_answer,
        content=body,
        fast=fast,
        lane=lane,
        meter=meter,
        permit=permit,
    )


@define
class Outcome:
    """What became of one batch.

    Attributes:
        users: slices of the answer's bytes, one for each user.
        invalid: identifiers that Braze does not know.
        failed: identifiers that could not be asked for, and why.
        unaccounted: identifiers for which neither a user nor an invalid id came.
        errors: Braze's messages of errors that left the rest of a request untouched.
        broken: whether there may be line breaks in users, between tokens.
    """

    users: list[msgspec.Raw] = Factory(list)
    invalid: list[InvalidUserId] = Factory(list)
    failed: list[FailedBatch] = Factory(list)
    unaccounted: int = 0
    errors: list[str] = Factory(list)
    broken: bool = False

    def add(self, other: "Outcome") -> None:
        """Take in the outcome of a part."""
        self.users += other.users
        self.invalid += other.invalid
        self.failed += other.failed
        self.unaccounted += other.unaccounted
        self.errors += other.errors
        self.broken = self.broken or other.broken


@define
class Narrower:
    """Asks for batches, and halves those that Braze refuses.

    A refusal may lie in the request's shape, a field name say, and then every part is refused
    too. So until some request of this export was accepted, one batch is narrowed at a time,
    and if every part of two whole batches was refused, later ones are not narrowed.

    Attributes:
        ask: makes the request of a batch.
        keep_going: find every identifier at fault, not only the first.
    """

    ask: Callable[[Batch], Awaitable[IdsAnswer]]
    keep_going: bool
    _accepted: bool = field(default=False, init=False)
    _refused_wholly: int = field(default=0, init=False)  # batches, down to the last identifier
    _trial: asyncio.Lock = field(factory=asyncio.Lock, init=False)

    async def outcome(self, unit: Batch | FailedBatch) -> Outcome:
        """Return what becomes of a batch. Errors of Braze's are part of it, not raised."""
        if isinstance(unit, FailedBatch):
            return Outcome(failed=[unit])
        try:
            return await self._whole(unit)
        except (BadRequestError, PayloadTooLargeError) as error:
            if len(unit.identifiers) == 1:
                return _failed(unit, error)
            return await self._narrow_in_turn(unit, error)
        except BrazeError as error:
            return _failed(unit, error)

    async def _whole(self, batch: Batch) -> Outcome:
        answer = await self.ask(batch)
        self._accepted = True
        return read(batch, answer)

    async def _narrow_in_turn(self, batch: Batch, error: BrazeError) -> Outcome:
        if not self._accepted:
            async with self._trial:
                if self._refused_wholly == _ENOUGH and not self._accepted:
                    return _failed(batch, error)
                if not self._accepted:
                    outcome = await self._narrow(batch)
                    self._refused_wholly += all(_is_refusal(f) for f in outcome.failed)
                    return outcome
        return await self._narrow(batch)

    async def _narrow(self, batch: Batch) -> Outcome:
        outcome = Outcome()
        for half in batch.halves():
            try:
                part = await self._whole(half)
            except (BadRequestError, PayloadTooLargeError) as error:
                alone = len(half.identifiers) == 1
                part = _failed(half, error) if alone else await self._narrow(half)
            except BrazeError as error:
                part = _failed(half, error)
            outcome.add(part)
            if outcome.failed and not self.keep_going:
                break
        return outcome


def _is_refusal(failure: FailedBatch) -> bool:
    return isinstance(failure.error, BadRequestError | PayloadTooLargeError)


def _failed(batch: Batch, error: BrazeError) -> Outcome:
    # Kept, it may be by the thousand: without the frames, which hold whole answers.
    return Outcome(failed=[FailedBatch(batch.identifiers, without_frames(error))])


def read(batch: Batch, answer: IdsAnswer) -> Outcome:
    """Return what an answer says of a batch."""
    invalid = batch.invalid(answer.invalid_user_ids)
    asked = len(batch.identifiers)
    if asked == 1 and not answer.users and not invalid and not answer.errors:
        # Whether Braze names an unknown e-mail address or phone number is not documented.
        invalid = [InvalidUserId(batch.identifiers[0])]
    missing = asked - len(answer.users) - len(invalid)
    return Outcome(
        users=answer.users,
        invalid=invalid,
        unaccounted=max(0, missing),
        errors=answer.errors,
        broken=answer.broken,
    )
