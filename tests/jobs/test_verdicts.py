from typing import Any

import msgspec
import pytest

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.errors import (
    AuthenticationError,
    BadRequestError,
    BrazeError,
    ClientClosedError,
    ConnectError,
    DecodeError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
)
from braze_export.jobs.recorder import Settled
from braze_export.jobs.slices import Slice
from braze_export.jobs.verdicts import Judge
from braze_export.models.results import FailedBatch, InvalidUserId

DOWN = ServerError("down", status=503)
REFUSED = BadRequestError("no", status=400)
OF_THE_WAY = [
    DOWN,
    ConnectError("refused"),
    RequestTimeoutError("slow"),
    RateLimitError("later", status=429),
    NotFoundError("who?", status=404),
    DecodeError("no JSON"),
]


def settled(number: int, *errors: BrazeError, size: int = 10, **came: Any) -> Settled:
    batch = Batch(tuple(f"s{number}-{n}" for n in range(size)))
    failed = [FailedBatch(batch.identifiers[n : n + 1], error) for n, error in enumerate(errors)]
    return Settled(Slice(number, batch), Outcome(failed=failed, **came))


def good(number: int) -> Settled:
    return settled(number, users=[msgspec.Raw(b"{}")])


@pytest.fixture
def judge() -> Judge:
    judge = Judge(patience=60.0, accepted=False)
    assert judge.verdict(good(0), 0.0) == "record"
    return judge


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("no", status=401),
        PermissionDeniedError("no", status=403),
        ClientClosedError("closed"),
    ],
)
@pytest.mark.parametrize("came", [{}, {"users": [msgspec.Raw(b"{}")]}])
def test_an_error_of_the_whole_job_ends_it(judge: Judge, error: BrazeError, came: Any) -> None:
    with pytest.raises(type(error)):
        judge.verdict(settled(1, DOWN, error, **came), 0.0)


@pytest.mark.parametrize("error", [REFUSED, PayloadTooLargeError("big", status=413)])
def test_a_refused_slice_is_recorded_at_once(judge: Judge, error: BrazeError) -> None:
    assert judge.verdict(settled(1, error), 0.0) == "record"
    assert not judge.failing


@pytest.mark.parametrize("error", OF_THE_WAY)
def test_a_slice_that_fails_is_asked_for_again_and_recorded_when_others_came(
    judge: Judge, error: BrazeError
) -> None:
    assert judge.verdict(settled(1, error), 0.0) == "again"
    assert judge.verdict(settled(1, error), 1.0) == "again"
    judge.verdict(good(2), 2.0)
    assert judge.verdict(settled(1, error), 3.0) == "record"
    assert not judge.failing


def test_a_slice_that_comes_in_the_end_has_not_failed(judge: Judge) -> None:
    judge.verdict(settled(1, DOWN), 0.0)
    assert judge.verdict(good(1), 1.0) == "record"


@pytest.mark.parametrize("error", OF_THE_WAY)
def test_nothing_from_the_beginning_ends_the_job(error: BrazeError) -> None:
    with pytest.raises(type(error)):
        Judge(60.0, accepted=False).verdict(settled(0, error), 0.0)


def test_an_outage_fails_nobody_however_many_slices_it_meets(judge: Judge) -> None:
    for now in range(50):
        assert judge.verdict(settled(1 + now % 20, DOWN), float(now)) == "again"
    assert judge.failing


def test_an_outage_that_lasts_ends_the_job(judge: Judge) -> None:
    judge.verdict(settled(1, DOWN), 100.0)
    assert judge.verdict(settled(2, DOWN), 160.0) == "again"
    with pytest.raises(ServerError):
        judge.verdict(settled(1, DOWN), 160.1)


def test_patience_is_for_each_outage(judge: Judge) -> None:
    judge.verdict(settled(1, DOWN), 100.0)
    judge.verdict(good(2), 159.0)
    judge.verdict(settled(3, DOWN), 190.0)
    assert judge.verdict(settled(3, DOWN), 249.0) == "again"


def test_the_longer_it_fails_the_longer_are_the_pauses(judge: Judge) -> None:
    assert judge.pause(0.0) == 0.0
    judge.verdict(settled(1, DOWN), 100.0)
    assert [judge.pause(now) for now in (100.0, 120.0, 1000.0)] == [1.0, 5.0, 60.0]
    judge.came_through(1000.0)
    assert judge.pause(1000.0) == 0.0


def test_a_part_that_failed_on_the_way_is_asked_for_again(judge: Judge) -> None:
    # A slice that is narrowed down while an outage begins.
    half = settled(1, REFUSED, DOWN, users=[msgspec.Raw(b"{}")])
    assert judge.verdict(half, 0.0) == "again"
    assert judge.verdict(half, 1.0) == "record"  # others of it came: it is that part


@pytest.mark.parametrize(
    "came",
    [
        {"users": [msgspec.Raw(b"{}")]},
        {"invalid": [InvalidUserId("a")]},
        {"errors": ["no more today"]},
    ],
)
def test_what_braze_said_no_profile_for_is_recorded_at_once(judge: Judge, came: Any) -> None:
    assert judge.verdict(settled(1, DecodeError("no profile, but"), **came), 0.0) == "record"
    assert not judge.failing


def test_refused_slices_wait_until_some_other_is_accepted() -> None:
    judge = Judge(60.0, accepted=False)
    refused = [settled(n, REFUSED, size=50) for n in range(2)]
    assert [judge.verdict(one, 0.0) for one in refused] == ["aside", "aside"]
    assert judge.aside == refused
    judge.verdict(good(2), 0.0)
    assert judge.verdict(settled(3, REFUSED), 0.0) == "record"


def test_if_everything_is_refused_it_is_not_the_identifiers() -> None:
    judge = Judge(60.0, accepted=False)
    for number in range(2):
        judge.verdict(settled(number, REFUSED, size=50), 0.0)
    with pytest.raises(BadRequestError):
        judge.verdict(settled(2, REFUSED, size=50), 0.0)


def test_somebody_who_is_there_shows_that_the_way_is(judge: Judge) -> None:
    judge.verdict(settled(1, DOWN), 0.0)
    judge.probed(Outcome(failed=[FailedBatch(("a",), DOWN)]), DOWN, 0.5)
    assert judge.verdict(settled(1, DOWN), 1.0) == "again"
    judge.probed(Outcome(failed=[FailedBatch(("a",), REFUSED)]), DOWN, 1.5)
    assert judge.verdict(settled(1, DOWN), 2.0) == "record"


@pytest.mark.parametrize("came", [None, Outcome(failed=[FailedBatch(("a",), DOWN)])])
def test_if_nobody_is_there_since_the_run_began_it_ends(came: Outcome | None) -> None:
    judge = Judge(60.0, accepted=True)
    assert judge.verdict(settled(1, DOWN), 0.0) == "again"
    with pytest.raises(ServerError):
        judge.probed(came, DOWN, 0.0)


def test_attempts_that_began_in_an_outage_fail_nobody(judge: Judge) -> None:
    judge.came_through(0.0)
    judge.begun(1, 10.0)
    assert judge.verdict(settled(1, DOWN), 20.0) == "again"
    judge.begun(1, 20.0)  # in the outage still
    judge.begun(2, 25.0)
    assert judge.verdict(good(2), 26.0) == "record"  # it is over
    assert judge.verdict(settled(1, DOWN), 30.0) == "again"
    judge.begun(1, 30.0)  # by now the way is known to be there
    assert judge.verdict(settled(1, DOWN), 40.0) == "record"


def test_an_answer_to_what_was_asked_before_an_outage_is_no_end_of_it(judge: Judge) -> None:
    judge.begun(1, 5.0)
    judge.begun(2, 0.0)
    assert judge.verdict(settled(1, DOWN), 10.0) == "again"
    assert judge.verdict(good(2), 11.0) == "record"
    judge.begun(1, 12.0)
    assert judge.verdict(settled(1, DOWN), 20.0) == "again"


# --- what is told of it


@pytest.mark.parametrize(
    ("error", "trouble"), [(DOWN, "ServerError 503"), (ConnectError("to u1?"), "ConnectError")]
)
def test_silence_lasts_from_the_first_failure_until_something_comes(
    judge: Judge, error: BrazeError, trouble: str
) -> None:
    def told(now: float) -> tuple[float, str, float | None]:
        return judge.silence(now, waiting=False), judge.trouble, judge.patience_left(now)

    assert told(50.0) == (0.0, "", None)
    judge.verdict(settled(1, error), 100.0)
    judge.verdict(settled(2, error), 120.0)
    assert told(130.0) == (30.0, trouble, 30.0)
    assert told(170.0) == (70.0, trouble, 0.0)
    judge.verdict(good(3), 171.0)
    assert told(172.0) == (0.0, "", None)


def test_what_is_told_is_the_latest_trouble(judge: Judge) -> None:
    judge.verdict(settled(1, DOWN), 100.0)
    judge.verdict(settled(2, ConnectError("refused")), 120.0)
    assert judge.trouble == "ConnectError"


def test_while_all_wait_for_the_limit_no_more_is_known_than_what_failed_before(
    judge: Judge,
) -> None:
    judge.verdict(settled(1, DOWN), 100.0)
    assert judge.silence(150.0, waiting=True) == 0.0  # it may be the fault of this one
    judge.verdict(settled(2, DOWN), 112.0)
    assert judge.silence(150.0, waiting=True) == 12.0
    assert judge.patience_left(150.0) == 10.0  # as the job ends
