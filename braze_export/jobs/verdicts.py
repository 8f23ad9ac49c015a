"""What a failed slice means: a fault of its own, or of the way to Braze, or of the whole job. Pure.

A slice is recorded as failed only once others came through while it did not. As long as none
does, it is set aside: an outage of minutes fails nobody, and one that lasts ends the job, which
goes on from there when it is run again.
"""

from typing import Final, Literal, TypeAlias

from attrs import Factory, define, field

from braze_export.errors import (
    AuthenticationError,
    BadRequestError,
    BrazeError,
    InputError,
    PayloadTooLargeError,
    PermissionDeniedError,
)
from braze_export.jobs.recorder import Settled

Verdict: TypeAlias = Literal["record", "again", "aside"]

_OF_THE_KEY: Final = (AuthenticationError, PermissionDeniedError)
_OF_ITS_OWN: Final = (BadRequestError, PayloadTooLargeError, InputError)
_REFUSED: Final = 150  # identifiers, of which Braze took none: it is not them
_LONGEST_PAUSE: Final = 60.0


@define
class Judge:
    """Says what to do with slices of which nothing came but failures.

    Attributes:
        patience: seconds without any answer after which the job ends.
        accepted: whether Braze has ever answered a slice of this job.
        aside: slices that were refused before any was accepted.
    """

    patience: float
    accepted: bool
    aside: list[Settled] = Factory(list)
    _answered: int = field(default=0, init=False)  # slices in this run
    _failing_since: float | None = field(default=None, init=False)
    _first_tries: dict[int, int] = field(factory=dict, init=False)  # answered by then

    def verdict(self, settled: Settled, now: float, *, last: bool) -> Verdict:
        """Say what to do with a slice: record it, ask again later, or set it aside.

        Args:
            settled: what came of it.
            now: seconds on any clock.
            last: whether no others are left that could come through instead.

        Raises:
            BrazeError: the job must end.
        """
        number, outcome = settled.piece.number, settled.outcome
        errors = [failure.error for failure in outcome.failed]
        for error in errors:
            if isinstance(error, _OF_THE_KEY):
                raise error
        if not errors or outcome.users or outcome.invalid:
            self._has_answered(number)
            return "record"
        if isinstance(errors[-1], _OF_ITS_OWN):
            return self._refused(settled, errors[-1])
        return self._failed(number, errors[-1], now, last=last)

    def pause(self, now: float) -> float:
        """Return the seconds to wait before anything is asked, while nothing comes through."""
        if self._failing_since is None:
            return 0.0
        return min(_LONGEST_PAUSE, max(1.0, (now - self._failing_since) / 4))

    @property
    def failing(self) -> bool:
        """Whether nothing came through of late."""
        return self._failing_since is not None

    def _has_answered(self, number: int) -> None:
        self._answered += 1
        self.accepted = True
        self._failing_since = None
        self._first_tries.pop(number, None)

    def _refused(self, settled: Settled, error: BrazeError) -> Verdict:
        if self.accepted:
            return "record"
        self.aside.append(settled)
        if sum(refused.size for refused in self.aside) >= _REFUSED:
            raise error
        return "aside"

    def _failed(self, number: int, error: BrazeError, now: float, *, last: bool) -> Verdict:
        again = number in self._first_tries
        if not self.accepted or not (self._answered or last):
            raise error  # the way to Braze was not there from the beginning
        first = self._first_tries.setdefault(number, self._answered)
        if again and (last or self._answered > first):
            del self._first_tries[number]
            return "record"  # others came through meanwhile, or none is left that could
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > self.patience:
            raise error
        return "again"
