from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import (
    APIError,
    BadRequestError,
    FailedBatch,
    InputError,
    InvalidUserId,
    PayloadTooLargeError,
    ServerError,
)
from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Narrower, Outcome
from braze_export.codec import IdsAnswer
from tests import virtual

FIFTY = tuple(f"u{n}" for n in range(50))


class Braze:
    """Answers a batch with its identifiers as users; refuses one that holds a guilty one."""

    def __init__(self, guilty: set[str], error: type[APIError] = BadRequestError) -> None:
        self.guilty, self.error = guilty, error
        self.asked: list[tuple[Any, ...]] = []

    async def __call__(self, batch: Batch) -> IdsAnswer:
        self.asked.append(batch.identifiers)
        if self.guilty & set(batch.identifiers):
            raise self.error("no", status=400)
        return IdsAnswer(list(batch.identifiers), [], [])  # type: ignore[arg-type]


def outcomes(braze: Braze, *batches: Batch | FailedBatch, keep_going: bool = True) -> list[Outcome]:
    async def main() -> list[Outcome]:
        narrower = Narrower(braze, keep_going=keep_going)
        return [await narrower.outcome(batch) for batch in batches]

    return virtual.run(main)


def users(outcome: Outcome) -> list[Any]:
    return outcome.users


def failed(outcome: Outcome) -> set[Any]:
    return {i for failure in outcome.failed for i in failure.identifiers}


@given(guilty=st.sets(st.sampled_from(FIFTY)), first_accepted=st.booleans())
def test_one_bad_identifier_costs_one_identifier(guilty: set[str], first_accepted: bool) -> None:
    batches = [Batch(("ok",)), Batch(FIFTY)] if first_accepted else [Batch(FIFTY)]

    outcome = outcomes(Braze(guilty), *batches)[-1]

    assert failed(outcome) == guilty
    assert all(len(f.identifiers) == 1 for f in outcome.failed)
    assert set(users(outcome)) == set(FIFTY) - guilty


def test_one_guilty_identifier_is_found_with_few_requests() -> None:
    braze = Braze({"u31"})
    outcomes(braze, Batch(FIFTY))
    assert len(braze.asked) <= 1 + 2 * 6


@pytest.mark.parametrize("error", [BadRequestError, PayloadTooLargeError])
def test_both_refusals_are_narrowed(error: type[APIError]) -> None:
    assert failed(outcomes(Braze({"u7"}, error), Batch(FIFTY))[0]) == {"u7"}


def test_other_errors_are_not_narrowed() -> None:
    braze = Braze({"u7"}, ServerError)
    (outcome,) = outcomes(braze, Batch(FIFTY))
    assert len(braze.asked) == 1
    assert failed(outcome) == set(FIFTY)


def test_a_refused_shape_is_narrowed_twice_and_not_for_every_batch() -> None:
    batches = [Batch(tuple(f"{b}-{n}" for n in range(50))) for b in range(10)]
    braze = Braze({str(i) for b in batches for i in b.identifiers})

    everything = outcomes(braze, *batches)

    assert len(braze.asked) == 2 * (1 + 98) + 8
    assert set().union(*map(failed, everything)) == braze.guilty


def test_once_a_request_was_accepted_every_batch_is_narrowed() -> None:
    batches = [Batch(("ok",)), Batch(("x", "y")), Batch(("x", "z"))]
    last = outcomes(Braze({"x"}), *batches)[-1]
    assert failed(last) == {"x"}
    assert users(last) == ["z"]


def test_when_not_going_on_the_first_guilty_one_is_enough() -> None:
    braze = Braze(set(FIFTY))
    (outcome,) = outcomes(braze, Batch(FIFTY), keep_going=False)
    assert failed(outcome) == {"u0"}
    assert len(braze.asked) <= 7


def test_an_error_of_another_kind_while_narrowing_costs_that_part() -> None:
    class Shaky(Braze):
        async def __call__(self, batch: Batch) -> IdsAnswer:
            if len(batch.identifiers) == 25 and "u49" in batch.identifiers:
                raise ServerError("no", status=500)
            return await super().__call__(batch)

    (outcome,) = outcomes(Shaky({"u1"}), Batch(FIFTY))
    assert failed(outcome) == {"u1", *FIFTY[25:]}
    assert set(users(outcome)) == set(FIFTY[:25]) - {"u1"}


def test_what_could_not_be_sent_is_passed_on() -> None:
    failure = FailedBatch((5,), InputError("no"))  # type: ignore[arg-type]
    braze = Braze(set())
    assert outcomes(braze, failure)[0].failed == [failure]
    assert braze.asked == []


@pytest.mark.parametrize(
    ("asked", "users", "invalid", "unknown", "unaccounted"),
    [
        (("a", "b", "c"), 3, [], [], 0),
        (("a", "b", "c"), 2, ["c"], ["c"], 0),
        (("a", "b", "c"), 1, ["c"], ["c"], 1),
        (("a",), 0, [], ["a"], 0),
        (("a",), 2, [], [], 0),
        (("a", "b"), 3, [], [], 0),
        (("a", "b"), 0, [], [], 2),
    ],
)
def test_what_an_answer_accounts_for(
    asked: tuple[str, ...], users: int, invalid: list[str], unknown: list[str], unaccounted: int
) -> None:
    async def ask(batch: Batch) -> IdsAnswer:
        return IdsAnswer([None] * users, invalid, [])  # type: ignore[list-item]

    async def main() -> Outcome:
        return await Narrower(ask, keep_going=True).outcome(Batch(asked))

    outcome = virtual.run(main)
    assert outcome.invalid == [InvalidUserId(i) for i in unknown]
    assert outcome.unaccounted == unaccounted


def test_nonfatal_errors_are_kept_and_condemn_nobody() -> None:
    async def ask(batch: Batch) -> IdsAnswer:
        return IdsAnswer([], [], ["something"])

    async def main() -> Outcome:
        return await Narrower(ask, keep_going=True).outcome(Batch(("a",)))

    outcome = virtual.run(main)
    assert outcome.errors == ["something"]
    assert outcome.invalid == []
    assert outcome.unaccounted == 1


def test_a_first_batch_of_nothing_but_guilty_ones_costs_the_others_nothing() -> None:
    bad = [f"bad{n}" for n in range(50)]
    later = [Batch(("bad", *(f"{b}-{n}" for n in range(49)))) for b in range(5)]

    everything = outcomes(Braze({*bad, "bad"}), Batch(tuple(bad)), *later)

    assert [failed(outcome) for outcome in everything[1:]] == [{"bad"}] * 5


def test_an_outage_while_narrowing_condemns_no_later_batch() -> None:
    class Down(Braze):
        async def __call__(self, batch: Batch) -> IdsAnswer:
            if len(self.asked) < 4 and len(batch.identifiers) < 50:
                self.asked.append(batch.identifiers)
                raise ServerError("down", status=503)
            return await super().__call__(batch)

    batches = [Batch((f"x{b}", *(f"{b}-{n}" for n in range(49)))) for b in range(4)]
    everything = outcomes(Down({f"x{b}" for b in range(4)}), *batches)
    assert failed(everything[-1]) == {"x3"}


def test_a_kept_error_keeps_no_frames() -> None:
    (outcome,) = outcomes(Braze({"u1"}), Batch(("u1",)))
    assert outcome.failed[0].error.__traceback__ is None
