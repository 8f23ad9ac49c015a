import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from attrs import Factory, define
from hypothesis import given, settings
from hypothesis import strategies as st

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.errors import DecodeError, ServerError
from braze_export.identifiers import EmailAddress, Identifier, UserAlias
from braze_export.jobs.accounting import Settler, passed_over
from braze_export.models.results import FailedBatch, InvalidUserId

ODD = ['say "hi"', "back\\slash", "emoji \U0001f600", "ümläut", "tab\t", "a,b", "null"]
DOWN = ServerError("down", status=500)


def raw(value: Any, *, ascii_only: bool = True) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value, ensure_ascii=ascii_only).encode())


def profiles(*names: str) -> list[msgspec.Raw]:
    return [raw({"external_id": name}) for name in names]


def invalid(*names: Any) -> list[InvalidUserId]:
    return [InvalidUserId(name) for name in names]


def alias(name: str) -> UserAlias:
    return UserAlias(name, "crm")


def aliased(value: Any) -> msgspec.Raw:
    return raw({"email": "x", "user_aliases": value})


def named(name: Any, label: Any = "crm") -> dict[str, Any]:
    return {"alias_name": name, "alias_label": label}


@define
class Braze:
    """Answers as it is told, and notes who was asked for."""

    answer: Callable[[Sequence[Identifier]], Outcome]
    asked: list[tuple[Identifier, ...]] = Factory(list)

    async def __call__(self, batch: Batch) -> Outcome:
        self.asked.append(batch.identifiers)
        return self.answer(batch.identifiers)


# --- who was passed over


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("before", [{}, {"custom_attributes": {"external_id": "b"}}])
def test_a_profile_speaks_of_its_external_id(before: dict[str, Any], ascii_only: bool) -> None:
    batch = Batch((*ODD, "b"))
    users = [raw({**before, "external_id": name}, ascii_only=ascii_only) for name in ODD]
    assert passed_over(batch, Outcome(users=users)) == ("b",)
    assert passed_over(batch, Outcome(users=[*users, *profiles("b")])) == ()


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, unique=True
    ),
    st.sets(st.integers(0, 20)),
    st.booleans(),
)
def test_whoever_is_left_out_is_found(
    names: list[str], left_out: set[int], ascii_only: bool
) -> None:
    sent = [name for n, name in enumerate(names) if n not in left_out]
    outcome = Outcome(users=[raw({"external_id": name}, ascii_only=ascii_only) for name in sent])
    silent = tuple(name for n, name in enumerate(names) if n in left_out)
    assert passed_over(Batch(tuple(names)), outcome) == silent


@pytest.mark.parametrize(
    "sent",
    [
        [aliased([named("a")]), aliased([named("b")])],
        [aliased([named("a"), named("b")])],  # one user, two of whose aliases were asked for
        [aliased(named("a")), aliased([named("z", "other"), named("b")])],
        [aliased([named("a"), named(None)]), aliased([named("a"), named("b"), named("", "crm")])],
    ],
)
def test_a_profile_speaks_of_its_aliases(sent: list[msgspec.Raw]) -> None:
    batch = Batch((alias("a"), alias("b"), alias("c")))
    assert passed_over(batch, Outcome(users=sent)) == (alias("c"),)


def test_an_alias_of_another_label_is_another_alias() -> None:
    batch = Batch((alias("a"), alias("b")))
    sent = [aliased([named("a")]), aliased([named("b", "else"), named("a")])]
    assert passed_over(batch, Outcome(users=sent)) == (alias("b"),)


@pytest.mark.parametrize(
    "untold",
    [
        raw({"email": "x"}),
        raw({"external_id": None}),
        raw({"external_id": 7}),
        raw({"external_id": "somebody else"}),
        raw([]),
        msgspec.Raw(b'{"external_id": "\\ud800"}'),
        msgspec.Raw(b'{"external_id": "\xff"}'),
    ],
)
def test_profiles_that_do_not_say_whose_they_are_count_for_as_many(untold: msgspec.Raw) -> None:
    batch = Batch(("a", "b", "c"))
    assert passed_over(batch, Outcome(users=[*profiles("a"), untold, untold])) == ()
    assert passed_over(batch, Outcome(users=[*profiles("a"), untold])) == ("b", "c")


def test_the_unknown_and_the_failed_are_not_passed_over() -> None:
    outcome = Outcome(profiles("a"), invalid("b"), [FailedBatch(("c",), DOWN)])
    assert passed_over(Batch(("a", "b", "c", "d")), outcome) == ("d",)


@pytest.mark.parametrize(("unaccounted", "silent"), [(0, ()), (1, (EmailAddress("a@b"),))])
def test_of_one_alone_whatever_comes_is_its_own(unaccounted: int, silent: Any) -> None:
    outcome = Outcome([] if unaccounted else [raw({})], unaccounted=unaccounted)
    assert passed_over(Batch((EmailAddress("a@b"),)), outcome) == silent


# --- asking once more


async def test_an_answer_that_speaks_of_all_is_taken_as_it_is() -> None:
    braze = Braze(lambda _: Outcome(profiles("a"), invalid("b")))
    outcome = await Settler(braze).outcome(Batch(("a", "b")))
    assert (len(outcome.users), outcome.invalid) == (1, invalid("b"))
    assert braze.asked == [("a", "b")]


async def test_the_silent_are_asked_for_once_more_and_may_be_there_then() -> None:
    braze = Braze(lambda names: Outcome(profiles("b", "c") if len(names) == 2 else profiles("a")))
    outcome = await Settler(braze).outcome(Batch(("a", "b", "c")))
    assert braze.asked == [("a", "b", "c"), ("b", "c")]
    assert sorted(map(bytes, outcome.users)) == sorted(map(bytes, profiles("a", "b", "c")))
    assert (outcome.invalid, outcome.failed) == ([], [])


async def test_who_is_passed_over_twice_is_unknown() -> None:
    braze = Braze(
        lambda names: Outcome(profiles(*(name for name in map(str, names) if name < "c")))
    )
    outcome = await Settler(braze).outcome(Batch(("a", "b", "c", "d")))
    assert braze.asked == [("a", "b", "c", "d"), ("c", "d")]
    assert outcome.invalid == invalid("c", "d")
    assert len(outcome.users) == 2


async def test_profiles_that_do_not_say_whose_they_are_are_not_taken_twice() -> None:
    answers = iter([Outcome([raw({"n": 1})]), Outcome(profiles("a", "b", "c"))])
    braze = Braze(lambda _: next(answers))
    outcome = await Settler(braze).outcome(Batch(("a", "b", "c")))
    assert sorted(map(bytes, outcome.users)) == sorted(map(bytes, profiles("a", "b", "c")))
    assert len(braze.asked) == 2


async def test_who_fails_when_asked_once_more_has_failed_and_is_not_unknown() -> None:
    def answer(names: Sequence[Identifier]) -> Outcome:
        if len(names) == 1:
            return Outcome(failed=[FailedBatch(tuple(names), DOWN)])
        return Outcome(profiles("a"))

    outcome = await Settler(Braze(answer)).outcome(Batch(("a", "b")))
    assert [failure.identifiers for failure in outcome.failed] == [("b",)]
    assert (len(outcome.users), outcome.invalid) == (1, [])


async def test_a_server_that_never_names_the_unknown_costs_few_requests_more() -> None:
    braze = Braze(lambda names: Outcome(profiles(*(n for n in map(str, names) if "a" in n))))
    settler = Settler(braze)
    for n in range(20):
        outcome = await settler.outcome(Batch((f"a{n}", f"b{n}", f"c{n}")))
        assert (len(outcome.users), outcome.invalid) == (1, invalid(f"b{n}", f"c{n}"))
    assert len(braze.asked) == 20 + 3


async def test_a_server_that_makes_good_for_what_it_left_out_is_asked_again_and_again() -> None:
    braze = Braze(lambda names: Outcome(profiles(*map(str, names[:1]))))
    settler = Settler(braze)
    for n in range(20):
        outcome = await settler.outcome(Batch((f"a{n}", f"b{n}")))
        assert (len(outcome.users), outcome.invalid) == (2, [])
    assert len(braze.asked) == 40


async def test_errors_in_an_answer_are_why_somebody_has_failed() -> None:
    braze = Braze(lambda names: Outcome(profiles("a")[: len(names) - 1], errors=["no more today"]))
    outcome = await Settler(braze).outcome(Batch(("a", "b")))
    assert [(f.identifiers, type(f.error)) for f in outcome.failed] == [(("b",), DecodeError)]
    assert "no more today" in str(outcome.failed[0].error)
    assert outcome.invalid == []


@pytest.mark.parametrize("told", [("made up",), ("b", "b"), ("b", "made up", "b")])
async def test_unknown_identifiers_that_nobody_asked_for_are_left_out(
    told: tuple[str, ...],
) -> None:
    def answer(names: Sequence[Identifier]) -> Outcome:
        return Outcome(profiles(*(str(name) for name in names if name == "a")), invalid(*told))

    outcome = await Settler(Braze(answer)).outcome(Batch(("a", "b")))
    assert outcome.invalid == invalid("b")
    assert len(outcome.users) == 1


@settings(max_examples=40)
@given(st.data())
async def test_whatever_is_answered_each_identifier_has_one_place(data: st.DataObject) -> None:
    names = tuple(data.draw(st.lists(st.sampled_from("abcdef"), min_size=2, unique=True)))
    known = data.draw(st.sets(st.sampled_from("abcdef")))

    def answer(asked: Sequence[Identifier]) -> Outcome:
        sent = [name for name in asked if name in known and data.draw(st.booleans())]
        told = data.draw(st.lists(st.sampled_from([*(set(asked) - known), "stranger"]), max_size=8))
        return Outcome(profiles(*map(str, sent)), invalid(*told))

    outcome = await Settler(Braze(answer)).outcome(Batch(names))
    found = [json.loads(bytes(user))["external_id"] for user in outcome.users]
    assert sorted([*found, *(i.identifier for i in outcome.invalid)]) == sorted(names)
