"""Answers that are kept: which, for how long, and for whom."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from braze_export import (
    BrazeClient,
    ClientClosedError,
    DecodeError,
    EmailAddress,
    InputError,
    LookupSettings,
    ProfileCache,
    ServerError,
)
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

KEPT = LookupSettings(cache=ProfileCache(max_profiles=100, seconds=60.0))


def test_what_is_kept_is_not_asked_for_again() -> None:
    async def main(stage: Stage) -> None:
        ids: list[Any] = [
            "u1",
            alias(2),
            "nobody",
            EmailAddress("u3@users.example"),
            EmailAddress("nobody"),
        ]
        before = await stage.get_all(*ids, into=dict)
        assert before[2] is before[4] is None
        sent = len(stage.braze.bodies)
        began = asyncio.get_running_loop().time()
        assert await stage.get_all(*ids, into=dict) == before
        assert await stage.client.users.get_many(ids, fields=["email"], into=dict) == dict(
            zip(ids, before, strict=True)
        )
        assert len(stage.braze.bodies) == sent
        assert asyncio.get_running_loop().time() - began < 0.001

    run(main, lookups=KEPT)


def test_only_what_is_not_kept_is_asked_for() -> None:
    async def main(stage: Stage) -> None:
        await stage.get_all("u1", "u2")
        await stage.get_all("u1", "u3", "u2", "nobody")
        await stage.get_all("nobody", "u4")
        assert stage.braze.asked == [["u1", "u2"], ["u3", "nobody"], ["u4"]]

    run(main, lookups=KEPT)


def test_without_settings_nothing_is_kept() -> None:
    async def main(stage: Stage) -> None:
        await stage.get("u1")
        await stage.get("u1")
        assert len(stage.braze.bodies) == 2

    run(main)


@pytest.mark.parametrize(("pause", "requests"), [(59.0, 1), (60.0 - LATENCY, 1), (60.1, 2)])
def test_an_answer_is_kept_for_the_time_set(pause: float, requests: int) -> None:
    async def main(stage: Stage) -> None:
        await stage.get("u1")
        await asyncio.sleep(pause)
        assert (await stage.get("u1")).email == "u1@users.example"
        assert len(stage.braze.bodies) == requests

    run(main, lookups=KEPT)


def test_the_answer_used_least_lately_makes_room() -> None:
    async def main(stage: Stage) -> None:
        for identifier in ("u1", "u2", "u3", "u1", "u4"):  # u2 goes
            await stage.get(identifier)
        for identifier in ("u1", "u3", "u4", "u2"):
            await stage.get(identifier)
        assert stage.braze.asked == [["u1"], ["u2"], ["u3"], ["u4"], ["u2"]]

    run(main, lookups=LookupSettings(cache=ProfileCache(max_profiles=3, seconds=1e6)))


def test_sets_of_fields_do_not_share_answers_but_their_order_does_not_matter() -> None:
    async def main(stage: Stage) -> None:
        for fields in (["email", "first_name"], ["first_name", "email"], ["email"], None):
            await stage.get("u1", fields=fields)
        assert len(stage.braze.bodies) == 3

    run(main, lookups=KEPT)


@pytest.mark.parametrize(
    ("identifier", "trouble"),
    [("bad", None), ("u1", Response(500, {}, b"{}")), ("u1", Response(200, {}, b"<"))],
)
def test_failures_are_not_kept(identifier: str, trouble: Response | None) -> None:
    reply = first(*[trouble] * 3) if trouble else answer

    async def main(stage: Stage) -> None:
        for _ in range(2):
            (found,) = await stage.get_all(identifier)
        assert isinstance(found, Exception) == (identifier == "bad")
        assert len(stage.braze.bodies) == (2 if identifier == "bad" else 4)

    run(main, braze=Braze(reply), lookups=KEPT)


@attrs.define
class Number:
    email: int


def test_a_profile_that_does_not_fit_one_class_is_kept_for_the_others() -> None:
    async def main(stage: Stage) -> None:
        for _ in range(2):
            with pytest.raises(DecodeError) as caught:
                await stage.get("u1", into=Number)
            assert caught.value.identifiers == ("u1",)
        assert (await stage.get("u1", into=dict))["email"] == "u1@users.example"
        assert len(stage.braze.bodies) == 1

    run(main, lookups=KEPT)


def test_each_has_a_copy_of_his_own() -> None:
    async def main(stage: Stage) -> None:
        fields = ["email", "user_aliases"]
        one = await stage.get("u1", fields=fields, into=dict)
        one["email"] = one["user_aliases"][0]["alias_name"] = "mine"
        two = await stage.get("u1", fields=fields, into=dict)
        assert two == {"email": "u1@users.example", "user_aliases": profile(1)["user_aliases"]}
        assert len(stage.braze.bodies) == 1

    run(main, lookups=KEPT)


def test_what_was_added_to_tell_answers_apart_is_not_kept() -> None:
    async def main(stage: Stage) -> None:
        await stage.get_all("u1", alias(2))
        for identifier in ("u1", alias(2)):
            assert set(await stage.get(identifier, into=dict)) == {"email"}
        assert len(stage.braze.bodies) == 1

    run(main, lookups=KEPT)


def test_who_was_found_only_when_asked_for_once_more_is_kept_as_found() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return ok([profile(name[1:]) for name in names_in(body)[:1]])

    async def main(stage: Stage) -> None:
        for _ in range(2):
            found = await stage.get_all("u1", "u2")
            assert [user.email[:2] for user in found] == ["u1", "u2"]
        assert stage.braze.asked == [["u1", "u2"], ["u2"]]

    run(main, braze=Braze(reply), lookups=KEPT)


def test_nobody_is_kept_as_unknown_while_he_is_asked_for_once_more() -> None:
    def reply(body: Mapping[str, Any]) -> Response:
        return ok([profile(name[1:]) for name in names_in(body)[:1]])

    async def main(stage: Stage) -> None:
        calls = [stage.begin("u1"), stage.begin("u2")]
        while len(stage.braze.bodies) < 2:
            await asyncio.sleep(0.01)
        await calls[0]
        assert (await stage.get("u2")).email == "u2@users.example"
        await calls[1]
        assert stage.braze.asked == [["u1", "u2"], ["u2"]]

    run(main, braze=Braze(reply), lookups=KEPT)


@pytest.mark.parametrize("status", [200, 299])
def test_an_answer_that_nobody_waits_for_any_more_is_kept(status: int) -> None:
    async def main(stage: Stage) -> None:
        stage.braze.reply = lambda body: Response(status, {}, answer(body).body)
        call = stage.begin("u1")
        await asyncio.sleep(LATENCY / 2)
        call.cancel()
        await asyncio.sleep(LATENCY)
        assert (await stage.get("u1")).email == "u1@users.example"
        assert len(stage.braze.bodies) == 1

    run(main, lookups=KEPT)


def test_an_answer_in_the_moment_that_it_is_given_up_is_kept_if_it_was_read() -> None:
    """A request under way that nobody wants is given up after five seconds."""

    async def main(stage: Stage) -> None:
        given: list[None] = []
        kept = set()

        def reply(body: Mapping[str, Any]) -> Response:
            given.append(None)
            return answer(body)

        stage.braze.reply = reply
        for turn in range(10):
            asked = len(stage.braze.bodies)
            stage.braze.latency = 5.0 + LATENCY + (turn - 4) * virtual._TICK
            call = stage.begin(f"u{turn}")
            await asyncio.sleep(LATENCY)
            call.cancel()
            await asyncio.sleep(6.0)
            stage.braze.latency = LATENCY
            read = [*given]
            assert (await stage.get(f"u{turn}")).email == f"u{turn}@users.example"
            assert len(stage.braze.bodies) == asked + 2 - len(read)
            kept.add(len(read))
            given.clear()
        assert kept == {0, 1}

    run(main, lookups=KEPT)


def test_looking_up_what_is_kept_gives_way_to_others() -> None:
    async def main(stage: Stage) -> None:
        await stage.get("u1")
        turns: list[None] = []

        async def other() -> None:
            while True:
                turns.append(None)
                await asyncio.sleep(0)

        others = asyncio.create_task(other())
        for _ in range(20):
            await stage.get("u1")
        others.cancel()
        assert len(turns) >= 20

    run(main, lookups=KEPT)


def test_what_is_kept_is_not_carried_over_to_another_event_loop() -> None:
    braze = Braze()
    client = BrazeClient(
        "very-secret-key",
        "https://rest.example",
        transport=braze,
        limits=Gates(),
        lookups=KEPT,
    )

    async def look_up() -> Any:
        return await client.users.get("u1", fields=["email"])

    for _ in range(2):  # the clock by which it grows old is another
        assert virtual.run(look_up).email == "u1@users.example"
    assert len(braze.bodies) == 2


def test_a_closed_client_gives_nothing_of_what_is_kept() -> None:
    async def main(stage: Stage) -> None:
        await stage.get("u1")
        await stage.client.aclose()
        with pytest.raises(ClientClosedError):
            await stage.get("u1")

    run(main, lookups=KEPT)


def test_a_failure_after_the_time_is_over_is_not_hidden_by_what_was_kept() -> None:
    async def main(stage: Stage) -> None:
        await stage.get("u1")
        stage.braze.reply = lambda body: Response(500, {}, b"{}")
        await asyncio.sleep(61)
        with pytest.raises(ServerError):
            await stage.get("u1")

    run(main, lookups=KEPT)


def test_without_the_extra_a_cache_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cachetools", None)
    with pytest.raises(InputError, match=r"braze-export\[cache\]"):
        BrazeClient("very-secret-key", "US-01", lookups=KEPT)
    BrazeClient("very-secret-key", "US-01")


@pytest.mark.parametrize(
    "options",
    [
        {"max_profiles": 0},
        {"max_profiles": 1.5},
        {"max_profiles": True},
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": "1"},
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        ProfileCache(**options)


@pytest.mark.parametrize("linger", [-0.001, float("nan"), "1", None])
def test_a_linger_that_makes_no_sense(linger: Any) -> None:
    with pytest.raises(InputError, match="linger"):
        LookupSettings(linger=linger)
