"""Which identifiers an answer speaks of, so that each ends up in exactly one place.

Braze answers 50 identifiers with profiles and names of unknown ones. Whom it passes over in
silence is asked for once more; who is passed over again has no profile.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from attrs import define, field

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.identifiers import Identifier
from braze_export.lookups.whose import names_for, no_profile
from braze_export.models.results import FailedBatch, InvalidUserId

_ENOUGH: Final = 3
_NAMED: Final = re.compile(rb'"external_id": ?"([^"\\]+)"')


def passed_over(batch: Batch, outcome: Outcome) -> tuple[Identifier, ...]:
    """Return the identifiers of which nothing has come. Pure.

    Profiles that do not tell whose they are count for as many identifiers as they are.
    """
    if len(batch.identifiers) == 1:
        return batch.identifiers if outcome.unaccounted else ()
    spoken_of: set[Any] = {unknown.identifier for unknown in outcome.invalid}
    for failure in outcome.failed:
        spoken_of.update(failure.identifiers)
    asked = set(batch.identifiers)
    if asked <= spoken_of | _at_first_sight(outcome.users):
        return ()
    found = [names & asked for names in map(names_for(batch.identifiers[0]), outcome.users)]
    silent = asked.difference(spoken_of, *found)
    if len(silent) <= sum(not names for names in found):
        return ()
    return tuple(i for i in batch.identifiers if i in silent)


def _at_first_sight(users: list[msgspec.Raw]) -> set[Any]:
    """Return the external ids that profiles name first; some may be missed.

    A third of the time of reading them exactly. An id within somebody's attributes stands here in
    place of that one's own, so it cannot make up for one of whom nothing has come.
    """
    named = b"\n".join(found[1] for found in map(_NAMED.search, users) if found)
    return set(named.decode().split("\n")) if named.isascii() else set()


@define
class Settler:
    """Asks for batches until something is known of every identifier.

    Attributes:
        ask: makes the request of a batch, and narrows down what is refused.
    """

    ask: Callable[[Batch], Awaitable[Outcome]]
    _in_vain: int = field(default=0, init=False)

    async def outcome(self, batch: Batch) -> Outcome:
        """Return what becomes of a batch: a profile, unknown or failed, for each identifier."""
        outcome = await self.ask(batch)
        _leave_out_strangers(batch, outcome)
        silent = passed_over(batch, outcome)
        if not silent:
            return outcome
        if self._in_vain < _ENOUGH:
            first, outcome = outcome, await self._once_more(batch, outcome, silent)
            silent = passed_over(batch, outcome)
            self._in_vain = 0 if len(outcome.users) > len(first.users) else self._in_vain + 1
        _settle(outcome, silent)
        return outcome

    async def _once_more(
        self, batch: Batch, first: Outcome, silent: tuple[Identifier, ...]
    ) -> Outcome:
        second = await self.ask(Batch(silent))
        _leave_out_strangers(Batch(silent), second)
        asked, names_in = set(batch.identifiers), names_for(batch.identifiers[0])
        # Of those who did not tell whose they were, the second answer holds those that matter.
        named = [user for user in first.users if names_in(user) & asked]
        return Outcome(
            users=named + second.users,
            invalid=first.invalid + second.invalid,
            failed=first.failed + second.failed,
            unaccounted=second.unaccounted,
            errors=second.errors,
            broken=first.broken or second.broken,
        )


def _leave_out_strangers(batch: Batch, outcome: Outcome) -> None:
    """Leave out unknown identifiers that nobody asked for, and those named twice."""
    if outcome.invalid:
        asked = set(batch.identifiers)
        outcome.invalid = [i for i in dict.fromkeys(outcome.invalid) if i.identifier in asked]


def _settle(outcome: Outcome, silent: tuple[Identifier, ...]) -> None:
    """Put those of whom nothing has come to a place."""
    if not silent:
        return
    if outcome.errors:
        outcome.failed.append(FailedBatch(silent, no_profile(outcome.errors)))
    else:
        outcome.invalid += (InvalidUserId(identifier) for identifier in silent)
