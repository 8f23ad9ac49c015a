import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import errors
from braze_export.endpoints import (
    CANCEL_SEGMENT_EXPORT,
    EXPORT_GLOBAL_CONTROL_GROUP,
    EXPORT_IDS,
    EXPORT_SEGMENT,
    SEGMENTS_LIST,
    Endpoint,
)
from braze_export.errors import BrazeError, RateLimitError, ServerError
from braze_export.retry import RetryPolicy, is_refusal, is_retryable

READS = [EXPORT_IDS, SEGMENTS_LIST, CANCEL_SEGMENT_EXPORT]
STARTS = [EXPORT_SEGMENT, EXPORT_GLOBAL_CONTROL_GROUP]

#: Whether a call is repeated after an error: of a read, of a call that starts an export.
TABLE: dict[type[BrazeError], tuple[bool, bool]] = {
    errors.BrazeError: (False, False),
    errors.InputError: (False, False),
    errors.InvalidIdentifierError: (False, False),
    errors.ClientClosedError: (False, False),
    errors.DeadlineExceededError: (False, False),
    errors.ExportNotReadyError: (False, False),
    errors.LimiterError: (False, False),
    errors.JobError: (False, False),
    errors.JobChangedError: (False, False),
    errors.JobRunningError: (False, False),
    errors.JobStorageError: (False, False),
    errors.TransportError: (True, False),
    errors.ConnectError: (True, True),
    errors.ConnectionLostError: (True, False),
    errors.RequestTimeoutError: (True, False),
    errors.APIError: (False, False),
    errors.BadRequestError: (False, False),
    errors.AuthenticationError: (False, False),
    errors.PermissionDeniedError: (False, False),
    errors.NotFoundError: (False, False),
    errors.PayloadTooLargeError: (False, False),
    errors.UnsupportedMediaTypeError: (False, False),
    errors.RateLimitError: (True, True),
    errors.ExportInProgressError: (False, False),
    errors.ServerError: (True, False),
    errors.ExportExpiredError: (False, False),
    errors.ArchiveError: (False, False),
    errors.DecodeError: (True, False),
}


def test_the_table_is_complete() -> None:
    every = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, BrazeError)
    }
    assert TABLE.keys() == every


@pytest.mark.parametrize("kind", TABLE)
def test_what_is_tried_again(kind: type[BrazeError]) -> None:
    reads, starts = TABLE[kind]
    policy = RetryPolicy()
    for endpoint, expected in [*((e, reads) for e in READS), *((e, starts) for e in STARTS)]:
        error = kind("x")
        assert is_retryable(error, endpoint) is expected, endpoint.label
        delay = policy.delay(error, endpoint, failures=1, elapsed=0.0, rng=lambda: 0.5)
        assert delay == (0.25 if expected else None), endpoint.label


@pytest.mark.parametrize(
    ("attempt", "longest"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (7, 30.0), (10**9, 30.0)],
)
def test_the_pause_doubles_up_to_the_cap(attempt: int, longest: float) -> None:
    policy = RetryPolicy(max_attempts=10**10)

    def delay(rng: Callable[[], float]) -> float | None:
        return policy.delay(ServerError("x"), EXPORT_IDS, failures=attempt, elapsed=0.0, rng=rng)

    assert delay(lambda: 0.0) == 0.0
    assert delay(lambda: 0.5) == longest / 2
    assert delay(lambda: 1.0) == longest


@given(
    attempt=st.integers(1, 10**6),
    asked=st.none() | st.floats(0, 1e6),
    base=st.floats(1e-6, 1e6),
    cap=st.floats(1e-6, 1e6),
    elapsed=st.floats(0, 1e6),
    most=st.floats(0, 1e6),
    seed=st.integers(),
)
def test_the_bounds_of_every_pause(
    *,
    attempt: int,
    asked: float | None,
    base: float,
    cap: float,
    elapsed: float,
    most: float,
    seed: int,
) -> None:
    policy = RetryPolicy(max_attempts=attempt + 1, max_seconds=most, base=base, cap=cap)
    error = RateLimitError("x")
    error.retry_after = asked
    delay = policy.delay(
        error, EXPORT_IDS, failures=attempt, elapsed=elapsed, rng=random.Random(seed).random
    )
    wait = asked or 0.0
    if delay is None:
        assert elapsed + wait + min(cap, base * 2.0 ** min(attempt, 60)) >= most
    else:
        assert wait <= delay <= wait + cap
        assert elapsed + delay <= most


def test_the_last_attempt_is_the_last() -> None:
    policy = RetryPolicy(max_attempts=3)

    def delays(attempt: int) -> float | None:
        return policy.delay(ServerError("x"), EXPORT_IDS, failures=attempt, elapsed=0.0)

    assert delays(2) is not None
    assert delays(3) is None
    assert delays(4) is None


def test_refusals_by_the_rate_limit_are_counted_apart() -> None:
    policy = RetryPolicy(max_attempts=2, max_refusals=4)
    error = RateLimitError("x")
    error.retry_after = 1.0

    def delays(failures: int, refusals: int) -> bool:
        delay = policy.delay(error, EXPORT_IDS, failures=failures, refusals=refusals, elapsed=0.0)
        return delay is not None

    assert [delays(0, n) for n in range(1, 6)] == [True, True, True, False, False]
    assert not delays(2, 1)
    assert is_refusal(error)
    assert not is_refusal(RateLimitError("says not how long"))
    assert not is_refusal(ServerError("x"))


def test_the_defaults() -> None:
    expected = RetryPolicy(max_attempts=6, max_refusals=60, max_seconds=7200.0, base=0.5, cap=30.0)
    assert RetryPolicy() == expected


def test_one_attempt_means_none_again() -> None:
    policy = RetryPolicy(max_attempts=1)
    assert policy.delay(ServerError("x"), EXPORT_IDS, failures=1, elapsed=0.0) is None


@pytest.mark.parametrize(
    ("elapsed", "asked", "expected"),
    [
        (0.0, 300.0, 300.0),
        (0.0, 300.1, None),
        (0.1, 300.0, None),
        (299.5, None, 0.5),
        (299.6, None, None),
        (0.0, 0.0, 0.0),
        (0.0, 1e308, None),
        (1e308, None, None),
    ],
)
def test_no_pause_is_begun_that_would_end_too_late(
    elapsed: float, asked: float | None, expected: float | None
) -> None:
    error = RateLimitError("x")
    error.retry_after = asked
    policy = RetryPolicy(max_seconds=300.0)
    delay = policy.delay(error, EXPORT_IDS, failures=1, elapsed=elapsed, rng=lambda: 1.0)
    assert delay == expected


@pytest.mark.parametrize("endpoint", [EXPORT_IDS, EXPORT_SEGMENT])
def test_what_the_server_asks_for_comes_on_top(endpoint: Endpoint) -> None:
    error = RateLimitError("x")
    error.retry_after = 7.0

    def delay(failures: int, refusals: int) -> float | None:
        return RetryPolicy().delay(
            error, endpoint, failures=failures, refusals=refusals, elapsed=0.0, rng=lambda: 1.0
        )

    assert delay(0, 1) == 7.0
    assert [delay(0, 2), delay(0, 3), delay(0, 4)] == [7.5, 8.0, 9.0]
    assert delay(1, 1) == 7.5
    other = ServerError("x")
    other.retry_after = error.retry_after
    if not endpoint.starts_export:
        assert RetryPolicy().delay(other, endpoint, failures=1, elapsed=0.0, rng=lambda: 1.0) == 7.5


def test_the_jitter_is_random_by_default() -> None:
    policy = RetryPolicy(base=10.0)
    drawn = {policy.delay(ServerError("x"), EXPORT_IDS, failures=1, elapsed=0.0) for _ in range(20)}
    assert len(drawn) > 1
    assert all(d is not None and 0 <= d < 10 for d in drawn)


@pytest.mark.parametrize(
    "option",
    [
        {"max_attempts": 0},
        {"max_seconds": -1},
        {"max_seconds": float("nan")},
        {"base": 0},
        {"base": -1},
        {"cap": 0},
        {"cap": float("nan")},
    ],
)
def test_policies_that_make_no_sense(option: dict[str, float]) -> None:
    with pytest.raises(errors.InputError, match=next(iter(option))):
        RetryPolicy(**option)  # type: ignore[arg-type]
