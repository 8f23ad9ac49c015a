"""What a failed slice means: a fault of its own, or of the way to Braze, or of the whole job. Pure.

A slice is recorded as failed only once others came through while it did not. As long as none
does, it is set aside: an outage of minutes fails nobody, and one that lasts ends the job, which
goes on from there when it is run again.
"""

from math import inf
from typing import Final, Literal, TypeAlias

from attrs import Factory, define, field

from braze_export.batches.narrowing import Outcome
from braze_export.errors import (
    AuthenticationError,
    BadRequestError,
    BrazeError,
    ClientClosedError,
    DeadlineExceededError,
    DecodeError,
    InputError,
    PayloadTooLargeError,
    PermissionDeniedError,
)
from braze_export.jobs.recorder import Settled, reason

Verdict: TypeAlias = Literal["record", "again", "aside"]

_OF_THE_JOB: Final = (
    AuthenticationError,
    PermissionDeniedError,
    ClientClosedError,
    DeadlineExceededError,
)
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
    _answered: int = field(default=0, init=False)  # requests in this run, roughly
    _failing_since: float | None = field(default=None, init=False)
    _failed_last: tuple[float, str] = field(default=(-inf, ""), init=False)  # when, and why
    _through: float = field(default=-inf, init=False)  # when the latest was asked that came through
    _begun: dict[int, tuple[float, float]] = field(factory=dict, init=False)  # and what was through
    _first_failures: dict[int, float] = field(factory=dict, init=False)

    def begun(self, number: int, now: float) -> None:
        """Note that a slice is asked for."""
        self._begun[number] = (now, self._through)

    def verdict(self, settled: Settled, now: float) -> Verdict:
        """Say what to do with a slice: record it, ask again later, or set it aside.

        Args:
            settled: what came of it.
            now: seconds on any clock.

        Raises:
            BrazeError: the job must end.
        """
        number, outcome = settled.piece.number, settled.outcome
        asked_at, through = self._begun.pop(number, (now, self._through))
        errors = [failure.error for failure in outcome.failed]
        for error in errors:
            if isinstance(error, _OF_THE_JOB):
                raise error
        answered = bool(not errors or outcome.users or outcome.invalid or outcome.errors)
        if answered:
            self.came_through(asked_at)
        # Parts of a slice that is narrowed down may fall into an outage, while others came.
        own = (*_OF_ITS_OWN, DecodeError) if answered else _OF_ITS_OWN
        others = [error for error in errors if not isinstance(error, own)]
        if others:
            return self._failed(number, others[-1], now, through=now if answered else through)
        if not answered:
            return self._refused(settled, errors[-1])
        self._first_failures.pop(number, None)
        return "record"

    def pause(self, now: float) -> float:
        """Return the seconds to wait before anything is asked, while nothing comes through."""
        if self._failing_since is None:
            return 0.0
        return min(_LONGEST_PAUSE, max(1.0, (now - self._failing_since) / 4))

    def probed(self, outcome: Outcome | None, error: BrazeError, asked_at: float) -> None:
        """Note what came for somebody who was asked for to see whether the way is there.

        Args:
            outcome: what came; ``None`` if nobody could be asked for.
            error: why there is doubt.
            asked_at: seconds on the clock of the verdicts.

        Raises:
            BrazeError: that error: nothing has come through since this run began.
        """
        failed = outcome is None or any(
            not isinstance(failure.error, _OF_ITS_OWN) for failure in outcome.failed
        )
        if not failed:
            self.came_through(asked_at)
        elif not self._answered:
            raise error

    @property
    def answered(self) -> bool:
        """Whether anything came through in this run."""
        return self._answered > 0

    @property
    def failing(self) -> bool:
        """Whether nothing came through of late."""
        return self._failing_since is not None

    @property
    def trouble(self) -> str:
        """Why the latest slice failed, without personal data; empty unless nothing comes."""
        return self._failed_last[1] if self.failing else ""

    def silence(self, now: float, *, waiting: bool) -> float:
        """Return the seconds during which nothing came through; 0 while something does.

        Args:
            now: seconds on the clock of the verdicts.
            waiting: whether all that can be done is to wait for the rate limit. Then nobody
                knows of more than what failed before.
        """
        if self._failing_since is None:
            return 0.0
        return (self._failed_last[0] if waiting else now) - self._failing_since

    def patience_left(self, now: float) -> float | None:
        """Return the seconds after which a failure ends the job; ``None`` while something comes."""
        if self._failing_since is None:
            return None
        return max(0.0, self.patience - (now - self._failing_since))

    def came_through(self, asked_at: float) -> None:
        """Note that Braze has answered somebody who was asked for at that time."""
        self._answered += 1
        self._through = max(self._through, asked_at)
        self.accepted = True
        self._failing_since = None

    def _refused(self, settled: Settled, error: BrazeError) -> Verdict:
        if self.accepted:
            return "record"
        self.aside.append(settled)
        if sum(refused.size for refused in self.aside if refused.piece.batch) >= _REFUSED:
            raise error
        return "aside"

    def _failed(self, number: int, error: BrazeError, now: float, *, through: float) -> Verdict:
        if not self.accepted:
            raise error  # the way to Braze was not there from the beginning
        first = self._first_failures.get(number)
        # It was asked for again only after the way was seen to be there once more.
        if first is not None and through > first:
            del self._first_failures[number]
            return "record"
        self._first_failures.setdefault(number, now)
        self._failing_since = now if self._failing_since is None else self._failing_since
        self._failed_last = (now, reason(error))
        if now - self._failing_since > self.patience:
            raise error
        return "again"
