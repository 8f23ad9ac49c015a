"""Each caller has an answer of his own: a profile, nothing, or an error that is his alone."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import attrs
import pytest

from braze_export import (
    AuthenticationError,
    BadRequestError,
    BrazeClient,
    BrazeError,
    ConnectionLostError,
    DecodeError,
    EmailAddress,
    Identifier,
    PayloadTooLargeError,
    RequestTimeoutError,
    ServerError,
    UserAlias,
    deadline,
)
from braze_export.lookups.shared_request import Shape, SharedRequest
from braze_export.wire import Response
from tests import virtual
from tests.lookups.stage import (
    LATENCY,
    Braze,
    Gates,
    Stage,
    alias,
    answer,
    first,
    names_in,
    ok,
    profile,
    run,
)

# --- a profile, nothing, or an error


def test_each_has_his_profile_or_nothing() -> None:
    async def main(stage: Stage) -> None:
        one, nobody, two, none, three = await stage.get_all("u1", "nobody", alias(2), "no2", "u3")
        assert (nobody, none) == (None, None)
        assert [user.email[:2] for user in (one, two, three)] == ["u1", "u2", "u3"]
        assert len(stage.braze.bodies) == 1

    run(main)


@pytest.mark.parametrize("place", [0, 7, 49])
def test_one_refused_identifier_fails_its_own_caller_only(place: int) -> None:
    ids = [f"u{n}" for n in range(50)]
    ids[place] = "bad"

    async def main(stage: Stage) -> None:
        found = await stage.get_all(*ids)
        refused = found.pop(place)
        assert isinstance(refused, BadRequestError)
        assert refused.identifiers == ("bad",)
        assert [u.email for u in found] == [f"{i}@users.example" for i in ids if i != "bad"]

    run(main)


def test_a_few_refused_at_first_do_not_put_the_fields_under_suspicion() -> None:
    async def main(stage: Stage) -> None:
        for _ in range(3):
            refused = await stage.get_all("bad1", "bad2", "bad3")
            assert all(isinstance(error, BadRequestError) for error in refused)
        bad, good = await stage.get_all("bad1", "u2")
        assert isinstance(bad, BadRequestError)
        assert good.email == "u2@users.example"

    run(main)


def test_fields_that_braze_refuses_cost_two_requests_for_each_look_up_at_most() -> None:
    async def main(stage: Stage) -> None:
        stage.braze.reply = lambda _: Response(400, {}, b"{}")
        refused = await stage.get_all(*(f"u{n}" for n in range(50)))
        assert all(isinstance(error, BadRequestError) for error in refused)
        assert len(stage.braze.bodies) == 2 * 50 - 1

    run(main)


def test_halves_of_a_refused_request_are_asked_for_side_by_side() -> None:
    async def main(stage: Stage) -> None:
        with deadline(1.0):  # 50 identifiers are halved six times, 0.1 s each
            found = await stage.get_all(*(f"u{n}" for n in range(49)), "bad")
        refused = found.pop()
        assert isinstance(refused, BadRequestError)
        assert [u.email for u in found] == [f"u{n}@users.example" for n in range(49)]

    run(main)


TROUBLE = [
    (Response(500, {}, b"{}"), ServerError),
    (Response(503, {}, b"busy"), ServerError),
    (ConnectionLostError("lost"), ConnectionLostError),
    (RequestTimeoutError("late"), RequestTimeoutError),
    (Response(200, {}, b'{"users":'), DecodeError),
    (Response(200, {}, b"<html>"), DecodeError),
    (Response(200, {}, b'{"message":"success"}'), DecodeError),
]


@pytest.mark.parametrize(("trouble", "kind"), TROUBLE)
def test_passing_trouble_is_outlived_together(trouble: Any, kind: type[BrazeError]) -> None:
    async def main(stage: Stage) -> None:
        found = await stage.get_all("u1", "u2")
        assert [user.email[:2] for user in found] == ["u1", "u2"]
        assert stage.braze.asked == [["u1", "u2"]] * 3
        assert stage.gates.granted == [("ids", "interactive")] * 3

    run(main, braze=Braze(first(trouble, trouble)))


@pytest.mark.parametrize(
    ("trouble", "kind", "tries"),
    [
        *((trouble, kind, 3) for trouble, kind in TROUBLE),
        (Response(401, {}, b"{}"), AuthenticationError, 1),
    ],
)
def test_trouble_that_does_not_pass_is_an_error_for_each(
    trouble: Any, kind: type[BrazeError], tries: int
) -> None:
    async def main(stage: Stage) -> None:
        errors = await stage.get_all("u1", alias(2), "u1")
        assert all(isinstance(error, kind) for error in errors)
        assert len({id(error) for error in errors}) == 3
        assert [error.identifiers for error in errors] == [("u1",), (alias(2),), ("u1",)]
        assert {error.attempts for error in errors} == {tries}
        assert len({str(error) for error in errors}) == 1
        assert len(stage.braze.bodies) == tries
        found = await stage.get("u1") if tries > 5 else None
        assert found is None

    run(main, braze=Braze(lambda body: trouble))


def test_whoever_cannot_wait_for_another_try_has_the_error_that_was_met() -> None:
    async def main(stage: Stage) -> None:
        stage.braze.reply = first(Response(503, {"retry-after": "7"}, b"{}"))
        patient = stage.begin("u1")
        with deadline(5):
            hurried = stage.begin("u2")
        await asyncio.sleep(LATENCY + 0.01)
        assert hurried.done()
        with pytest.raises(ServerError) as told:
            await hurried
        assert told.value.identifiers == ("u2",)
        assert (await patient).email == "u1@users.example"
        assert len(stage.braze.bodies) == 2

    run(main)


def test_a_body_that_cannot_be_read_shows_nobody_the_profiles_of_others() -> None:
    async def main(stage: Stage) -> None:
        stage.braze.reply = lambda _: Response(200, {}, b'{"users":[{"email":"u1@users.example"}')
        shared = await stage.get_all("u1", "u2")
        assert [error.raw for error in shared] == [b"", b""]
        (alone,) = await stage.get_all("u1")
        assert b"u1@users.example" in alone.raw

    run(main)


def test_a_record_is_made_in_the_context_of_its_caller() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    @attrs.frozen
    class Mine:
        email: str
        of: str = attrs.field(init=False, factory=tenant.get)

    async def main(stage: Stage) -> None:
        async def look_up(n: int) -> Mine:
            tenant.set(f"tenant {n}")
            mine: Mine = await stage.get(f"u{n}", fields=["email"], into=Mine)
            return mine

        found = await asyncio.gather(*(look_up(n) for n in range(3)))
        assert [one.of for one in found] == [f"tenant {n}" for n in range(3)]
        assert len(stage.braze.bodies) == 1

    run(main)


def test_external_ids_passed_over_are_asked_for_again_whatever_aliases_have_taught() -> None:
    async def main(stage: Stage) -> None:
        for n in range(4):
            stage.braze.reply = lambda _: ok([])
            await stage.get_all(alias(2 * n), alias(2 * n + 1))
        stage.braze.reply = first(ok([profile(1) | {}]), ok([profile(2)]))
        before = len(stage.braze.bodies)
        found = await stage.get_all("u1", "u2", fields=["email", "external_id"])
        assert [user.external_id for user in found] == ["u1", "u2"]
        assert len(stage.braze.bodies) == before + 2

    run(main)


def test_what_one_does_to_his_error_is_not_seen_by_others() -> None:
    async def main(stage: Stage) -> None:
        one, two = await stage.get_all("u1", "u2")
        one.partial, one.hint = "mine", "mine"
        one.add_note("mine")
        assert (two.partial, two.hint == "mine") == (None, False)
        assert not hasattr(two, "__notes__")
        assert two.__suppress_context__  # what its caller was at is nothing of it

    run(main, braze=Braze(lambda body: Response(500, {}, b"{}")))


def test_a_payload_that_is_too_large_is_halved() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return Response(413, {}, b"{}") if len(names_in(body)) > 2 else answer(body)

    async def main(stage: Stage) -> None:
        found = await stage.get_all(*(f"u{n}" for n in range(8)))
        assert [user.email for user in found] == [f"u{n}@users.example" for n in range(8)]
        alone = Response(413, {}, b"{}")
        stage.braze.reply = lambda body: alone
        assert isinstance((await stage.get_all("u1"))[0], PayloadTooLargeError)

    run(main, braze=Braze(reply))


def test_trouble_in_one_part_of_a_refused_request_fails_that_part_only() -> None:
    def reply(body: Mapping[str, Any]) -> Response | Exception:
        names = names_in(body)
        return ConnectionLostError("lost") if names == ["u3", "u4"] else answer(body)

    async def main(stage: Stage) -> None:
        found = await stage.get_all("bad", "u2", "u3", "u4")
        assert isinstance(found[0], BadRequestError)
        assert found[1].email == "u2@users.example"
        assert [type(error) for error in found[2:]] == [ConnectionLostError] * 2

    run(main, braze=Braze(reply))


def test_who_joins_while_a_refused_request_is_narrowed_has_his_answer_too() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin(identifier) for identifier in ("bad", "u2", "u3", "u4")]
        while len(stage.braze.bodies) < 3:
            await asyncio.sleep(0.01)
        late = [stage.begin("bad"), stage.begin("u4", into=dict)]
        answers = await asyncio.gather(*calls, *late, return_exceptions=True)
        assert isinstance(answers[0], BadRequestError)
        assert isinstance(answers[4], BadRequestError)
        assert answers[0] is not answers[4]
        assert answers[5] == {"email": "u4@users.example"}

    run(main)


# --- a class of one's own that does not take it


@attrs.define
class Strict:
    email: int


class OddError(Exception):
    """Cannot be made anew of its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


RAISED: list[BaseException] = [
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
    OddError(1, 2),
    KeyError("email"),
    ZeroDivisionError(),
    StopAsyncIteration(),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
def test_a_class_that_raises_anything_fails_its_own_caller_only(raised: BaseException) -> None:
    @attrs.define
    class Raising:
        email: str

        def __attrs_post_init__(self) -> None:
            raise raised

    async def main(stage: Stage) -> None:
        ids = [f"u{n}" for n in range(10)]
        calls = [stage.begin(i, into=Raising if i == "u0" else dict) for i in (*ids, "u0")]
        calls.append(stage.begin("u0", into=dict))
        failed, *rest = await asyncio.gather(*calls, return_exceptions=True)
        found: Any = rest[:9]
        also_failed, same = rest[9:]
        for error in (failed, also_failed):
            assert isinstance(error, type(raised) | DecodeError | RuntimeError)
        assert [user["email"] for user in found] == [f"{i}@users.example" for i in ids[1:]]
        assert same == {"email": "u0@users.example"}
        assert len(stage.braze.bodies) == 1

    run(main)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_is_to_end_the_program_ends_it(raised: type[BaseException]) -> None:
    @attrs.define
    class Raising:
        email: str

        def __attrs_post_init__(self) -> None:
            raise raised

    with pytest.raises(raised):
        run(lambda stage: stage.get("u1", into=Raising))


def test_an_error_that_cannot_be_copied_reaches_everybody() -> None:
    async def main(stage: Stage) -> None:
        assert [type(error) for error in await stage.get_all("u1", "u2", "u1")] == [OddError] * 3

    run(main, braze=Braze(lambda body: OddError(1, 2)))


def test_a_profile_that_does_not_fit_names_its_identifier_and_quotes_nothing() -> None:
    async def main(stage: Stage) -> None:
        call, other = stage.begin("u1", into=Strict), stage.begin("u1")
        with pytest.raises(DecodeError, match="Strict") as caught:
            await call
        assert caught.value.identifiers == ("u1",)
        assert "users.example" not in str(caught.value)
        assert (await other).email == "u1@users.example"

    run(main)


# --- telling answers apart


@attrs.define
class Email:
    email: str


@pytest.mark.parametrize(
    ("into", "expected"),
    [
        (dict, {"email": "u1@users.example"}),
        (bytes, b'{"email":"u1@users.example"}'),
        (Email, Email("u1@users.example")),
    ],
)
def test_what_was_added_to_tell_answers_apart_is_taken_out_again(into: Any, expected: Any) -> None:
    async def main(stage: Stage) -> None:
        for identifier in ("u1", alias(1)):
            found, typed, *_ = await asyncio.gather(
                stage.get(identifier, into=into),
                stage.get(identifier),
                stage.get("u2"),
                stage.get(alias(3)),
            )
            assert found == expected
            assert (typed.external_id, typed.user_aliases, typed.email) == (
                None,
                (),
                "u1@users.example",
            )
        fields = {"email", "external_id", "user_aliases"}
        assert [set(body["fields_to_export"]) for body in stage.braze.bodies] == [fields, fields]

    run(main)


@pytest.mark.parametrize("asked", ["external_id", "user_aliases"])
def test_what_was_asked_for_stays(asked: str) -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.get(i, fields=["email", asked], into=dict) for i in ("u1", alias(2))]
        one, two = await asyncio.gather(*calls)
        for n, user in ((1, one), (2, two)):
            assert user == {"email": f"u{n}@users.example", asked: profile(n)[asked]}

    run(main)


def test_without_fields_nothing_is_taken_out() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.get(i, fields=None, into=dict) for i in ("u1", alias(2))]
        assert await asyncio.gather(*calls) == [profile(1), profile(2)]
        assert "fields_to_export" not in stage.braze.bodies[0]

    run(main)


def test_identifiers_are_told_apart_by_case_and_by_every_letter() -> None:
    ids = ["ua", "uA", "u\u00e9", "ue\u0301", "u\U0001f600", 'u/"\\\n', "u " * 40]

    async def main(stage: Stage) -> None:
        found = await stage.get_all(*ids, into=dict)
        assert [user["email"] for user in found] == [f"{i}@users.example" for i in ids]
        assert len(stage.braze.bodies) == 1

    run(main)


def test_one_user_answers_an_external_id_and_an_alias() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return ok([profile(1)])

    async def main(stage: Stage) -> None:
        one, two = await stage.get_all("u1", alias(1), into=dict)
        assert one["email"] == two["email"]
        assert one is not two
        assert len(stage.braze.bodies) == 1

    run(main, braze=Braze(reply))


def test_of_several_users_of_an_address_the_first_is_taken() -> None:
    async def main(stage: Stage) -> None:
        address = EmailAddress("x@users.example")
        assert (await stage.get(address, fields=None)).external_id == "u7"

    run(main, braze=Braze(lambda body: ok([profile(7), profile(8)])))


def test_users_that_do_not_tell_whose_they_are_are_asked_for_alone() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        names = names_in(body)
        if len(names) == 1:
            return ok([{"email": f"{names[0]}@alone"}])
        return ok([{"email": "?"}, {"external_id": 5}, profile(1), {"external_id": "U3"}])

    async def main(stage: Stage) -> None:
        found = await stage.get_all("u1", "u2", "u3", into=dict)
        expected = ["u1@users.example", "u2@alone", "u3@alone"]
        assert [user["email"] for user in found] == expected
        assert stage.braze.asked == [["u1", "u2", "u3"], ["u2"], ["u3"]]

    run(main, braze=Braze(reply))


# --- passed over in silence


def test_who_is_passed_over_is_asked_for_once_more() -> None:
    async def main(stage: Stage) -> None:
        found = await stage.get_all("u1", "gone1", "u2", "gone2")
        assert [user and user.email[:2] for user in found] == ["u1", None, "u2", None]
        assert stage.braze.asked == [["u1", "gone1", "u2", "gone2"], ["gone1", "gone2"]]

    run(main)


def test_who_is_passed_over_in_a_part_of_a_refused_request_is_asked_for_once_more() -> None:
    async def main(stage: Stage) -> None:
        bad, *found = await stage.get_all("bad", "u1", "gone", "u2")
        assert isinstance(bad, BadRequestError)
        assert [user and user.email[:2] for user in found] == ["u1", None, "u2"]
        assert stage.braze.asked[1:3] == [["bad", "u1"], ["gone", "u2"]]
        assert stage.braze.asked.count(["gone"]) == 1

    run(main)


def test_who_was_passed_over_by_mistake_is_found_the_second_time() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return ok([profile(name[1:]) for name in names_in(body)[:2]])

    async def main(stage: Stage) -> None:
        found = await stage.get_all("u1", "u2", "u3", "u4")
        assert [user.email[:2] for user in found] == ["u1", "u2", "u3", "u4"]
        assert stage.braze.asked == [["u1", "u2", "u3", "u4"], ["u3", "u4"]]
        assert [shape.in_vain for shape in stage.client.users._lookup._shapes.values()] == [0]

    run(main, braze=Braze(reply))


def test_after_three_times_in_vain_silence_is_an_answer() -> None:
    async def main(stage: Stage) -> None:
        for n in range(6):
            await stage.get_all("u1", UserAlias(f"gone{n}", "crm"))
        assert [len(asked) for asked in stage.braze.asked] == [2, 1, 2, 1, 2, 1, 2, 2, 2]

    run(main)


def test_an_alias_found_the_second_time_teaches_that_silence_is_no_answer() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        names = names_in(body)
        return answer(body) if len(names) == 1 else ok([profile(1)])  # whoever is second is not

    async def main(stage: Stage) -> None:
        for name in ("gone1", "gone2", "a9", "gone3", "gone4", "gone5", "gone6"):
            await stage.get_all(alias(1), UserAlias(name, "crm"))
        assert [len(asked) for asked in stage.braze.asked] == [2, 1] * 6 + [2]

    run(main, braze=Braze(reply))


def test_what_silence_means_is_learned_for_each_set_of_fields_and_kept_beside_others() -> None:
    async def main(stage: Stage) -> None:
        for fields in (["email"], ["first_name"], ["email"], ["first_name"]):
            for n in range(3):
                await stage.get_all("u1", UserAlias(f"gone{n}", "crm"), fields=fields)
        assert [len(asked) for asked in stage.braze.asked] == [2, 1] * 6 + [2] * 6

    run(main)


def test_in_another_event_loop_what_silence_means_is_learned_anew() -> None:
    braze = Braze()
    client = BrazeClient("very-secret-key", "https://rest.example", transport=braze, limits=Gates())

    async def look_up() -> None:
        for n in range(4):
            ids: list[Identifier] = ["u1", UserAlias(f"gone{n}", "crm")]
            await client.users.get_many(ids, fields=["email"])

    for _ in range(2):
        virtual.run(look_up)
    assert [len(asked) for asked in braze.asked] == [2, 1, 2, 1, 2, 1, 2] * 2


def test_asking_again_without_an_answer_teaches_nothing() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return answer(body) if len(names_in(body)) > 1 else Response(500, {}, b"{}")

    async def main(stage: Stage) -> None:
        for _ in range(5):
            one, gone = await stage.get_all("u1", "gone")
            assert one.email == "u1@users.example"
            assert isinstance(gone, ServerError)
        assert len(stage.braze.bodies) == 5 * 4

    run(main, braze=Braze(reply))


def test_who_is_asked_for_once_more_is_so_once_only_though_that_is_refused() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return answer(body) if "gone3" not in names_in(body) or "u1" in names_in(body) else refused

    refused = Response(400, {}, b'{"message":"Bad request"}')

    async def main(stage: Stage) -> None:
        one, *gone, bad = await stage.get_all("u1", "gone1", "gone2", "gone4", "gone3")
        assert one.email == "u1@users.example"
        assert gone == [None, None, None]
        assert isinstance(bad, BadRequestError)
        assert stage.braze.asked[:2] == [
            ["u1", "gone1", "gone2", "gone4", "gone3"],
            ["gone1", "gone2", "gone4", "gone3"],
        ]
        assert sorted(map(len, stage.braze.asked[2:])) == [1, 1, 2, 2]

    run(main, braze=Braze(reply))


def test_only_aliases_teach_that_silence_is_an_answer() -> None:
    async def main(stage: Stage) -> None:
        for n in range(4):
            await stage.get_all(alias(1), alias(2), UserAlias(f"gone{n}", "crm"))
        before = len(stage.braze.asked)
        found = await stage.get_all("u1", "gone", UserAlias("gone", "crm"))
        assert [user and user.email for user in found] == ["u1@users.example", None, None]
        assert stage.braze.asked[before:] == [["u1", "gone", "gone"], ["gone"]]

    run(main)


def test_aliases_that_are_passed_over_beside_external_ids_teach_as_well() -> None:
    async def main(stage: Stage) -> None:
        for n in range(4):
            await stage.get_all("u1", "gone", UserAlias(f"gone{n}", "crm"))
        assert [len(asked) for asked in stage.braze.asked] == [3, 2, 3, 2, 3, 2, 3, 1]

    run(main)


def test_external_ids_that_are_passed_over_teach_nothing_of_aliases() -> None:
    async def main(stage: Stage) -> None:
        for n in range(4):
            await stage.get_all("u1", f"gone{n}")
        await stage.get_all("u1", UserAlias("gone", "crm"))
        assert [len(asked) for asked in stage.braze.asked] == [2, 1] * 5

    run(main)


def test_one_alone_of_whom_nothing_comes_is_unknown() -> None:
    async def main(stage: Stage) -> None:
        assert await stage.get_all("gone") == [None]
        assert len(stage.braze.bodies) == 1

    run(main)


def test_with_braze_s_own_errors_silence_is_a_failure() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        known = [profile(name[1:]) for name in names_in(body) if name.startswith("u")]
        return ok(known, errors=["something is amiss"])

    async def main(stage: Stage) -> None:
        one, gone = await stage.get_all("u1", "gone")
        assert one.email == "u1@users.example"
        assert isinstance(gone, DecodeError)
        assert "something is amiss" in str(gone)
        assert gone.identifiers == ("gone",)
        before = len(stage.braze.asked)
        (alone,) = await stage.get_all("gone")
        assert isinstance(alone, DecodeError)
        assert stage.braze.asked[before:] == [["gone"]]

    run(main, braze=Braze(reply))


def test_who_is_asked_for_anew_while_others_are_asked_for_once_more() -> None:
    async def main(stage: Stage) -> None:
        calls = [stage.begin("u1"), stage.begin("gone")]
        while len(stage.braze.bodies) < 2:
            await asyncio.sleep(0.01)
        await calls[0]
        await asyncio.gather(stage.get("u1"), stage.get("gone"), *calls)
        assert stage.braze.asked == [["u1", "gone"], ["gone"], ["u1"]]

    run(main)


@pytest.mark.parametrize(("seconds", "most"), [(1000.0, 2), (-1.0, 1)])
def test_answers_are_handed_out_a_few_in_a_turn_of_the_loop(
    seconds: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("braze_export.turns._TURN", seconds)  # so long may a turn last

    async def main(stage: Stage) -> None:
        turn = asyncio.get_running_loop().time  # of this loop: another in each turn
        done: Counter[float] = Counter()

        async def one(n: int) -> None:
            await stage.get(f"u{n}")
            done[turn()] += 1

        await asyncio.gather(*(one(n) for n in range(50)))
        assert max(done.values()) == most
        assert len(stage.braze.bodies) == 1

    run(main)


def test_splitting_sorting_and_handing_out_have_each_a_turn_of_the_loop() -> None:
    turns: list[float] = []

    @attrs.define
    class Late:
        email: str

        def __attrs_post_init__(self) -> None:
            turns.append(asyncio.get_running_loop().time())

    async def main(stage: Stage) -> None:
        def reply(body: Mapping[str, Any]) -> Response:
            turns.append(asyncio.get_running_loop().time())
            return answer(body)

        stage.braze.reply = reply
        await stage.get("u1", into=Late)
        replied, handed_out = turns
        assert handed_out - replied == pytest.approx(2 * virtual._TICK, rel=0.1)

    run(main)


@pytest.mark.parametrize(
    ("status", "is_answer"), [(None, False), (199, False), (200, True), (299, True), (300, False)]
)
def test_an_answer_of_whatever_sense_is_a_success(status: int | None, is_answer: bool) -> None:
    request = SharedRequest(Shape(None, None, "ids"), lambda _, __: None)
    request.sent(1, status)
    assert request.answered == request.under_way == is_answer


def test_a_lone_surrogate_in_one_profile_costs_nobody_his_answer() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        whole = [profile(name[1:]) | {"first_name": "\ud83d"} for name in names_in(body)]
        wanted = body["fields_to_export"]
        users = [{key: user[key] for key in wanted} for user in whole]
        return Response(200, {}, json.dumps({"message": "success", "users": users}).encode())

    async def main(stage: Stage) -> None:
        found = await stage.get_all("u1", "u2", fields=["email", "first_name"], into=dict)
        assert [user["email"][:2] for user in found] == ["u1", "u2"]
        assert not any("external_id" in user for user in found)

    run(main, braze=Braze(reply))
