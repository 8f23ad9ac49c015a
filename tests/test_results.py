import pickle

from braze_export import (
    BadRequestError,
    ExportStats,
    FailedBatch,
    IdsResult,
    InvalidUserId,
    UserProfile,
)


def test_the_identifiers_of_a_failure_are_counted_not_shown() -> None:
    failure = FailedBatch(("jane@example.com", "u2"), BadRequestError("no", status=400))
    assert "jane" not in repr(failure)
    assert "<2>" in repr(failure)
    assert failure.identifiers == ("jane@example.com", "u2")


def test_results_are_pickled() -> None:
    result = IdsResult([UserProfile(email="a")], ["u1"], [])
    assert pickle.loads(pickle.dumps(result)) == result
    failure = pickle.loads(pickle.dumps(FailedBatch(("u1",), BadRequestError("no", status=400))))
    assert (failure.identifiers, str(failure.error)) == (("u1",), "400 no")


def test_results_share_no_lists() -> None:
    one: IdsResult[UserProfile] = IdsResult()
    one.users.append(UserProfile())
    assert IdsResult() == IdsResult([], [], [])


def test_unknown_ids_are_values() -> None:
    assert InvalidUserId("u1") == InvalidUserId("u1")
    assert {InvalidUserId("u1"), InvalidUserId("u1")} == {InvalidUserId("u1")}


def test_requests_are_counted() -> None:
    stats = ExportStats()
    for attempt, status in [(1, 200), (1, 429), (2, None), (3, 500)]:
        stats.sent(attempt, status)
    assert stats == ExportStats(requests=4, retries=2, rate_limited=1)
