import json
from typing import Any

import pytest

from .conftest import IDS, Connect

ALIAS = {"alias_name": "user_2", "alias_label": "amplitude_id"}


async def test_known_and_unknown(connect: Connect) -> None:
    client = await connect(users=9)
    got = await client.ids("u1", "nobody", fields_to_export=["external_id"])
    assert got.status == 200
    assert got.json == {
        "message": "success",
        "users": [{"external_id": "u1"}],
        "invalid_user_ids": ["nobody"],
    }


async def test_no_unknown_no_key(connect: Connect) -> None:
    client = await connect(users=9)
    assert list((await client.ids("u1")).json) == ["message", "users"]


async def test_all_unknown(connect: Connect) -> None:
    client = await connect(users=0)
    assert (await client.ids("u1")).json == {
        "message": "success",
        "users": [],
        "invalid_user_ids": ["u1"],
    }


@pytest.mark.parametrize("ids", [["u1", "u2"], [f"u{n}" for n in range(1, 51)]])
async def test_the_order_is_another_one(connect: Connect, ids: list[str]) -> None:
    client = await connect()
    for asked in (ids, ids[::-1]):
        users = (await client.ids(*asked)).json["users"]
        answered = [user["external_id"] for user in users]
        assert answered != asked
        assert sorted(answered) == sorted(asked)


async def test_the_order_of_the_answer_is_another_one_too(connect: Connect) -> None:
    client = await connect()
    first = [user["external_id"] for user in (await client.ids("u1", "u2", "u3")).json["users"]]
    again = [user["external_id"] for user in (await client.ids(*first)).json["users"]]
    assert again == first[::-1]


async def test_duplicates_are_told_once(connect: Connect) -> None:
    client = await connect(users=9)
    got = await client.ids("u1", "x", "u1", "x", user_aliases=[ALIAS | {"alias_name": "user_1"}])
    assert [user["external_id"] for user in got.json["users"]] == ["u1"]
    assert got.json["invalid_user_ids"] == ["x"]


@pytest.mark.parametrize("kind", ["braze_id", "device_id", "email_address", "phone"])
async def test_every_kind_is_looked_up(connect: Connect, kind: str) -> None:
    client = await connect(users=9)
    user = client.sandbox.user(2)
    value = user.email if kind == "email_address" else getattr(user, kind)
    got = await client.post(IDS, {kind: value, "fields_to_export": ["external_id"]})
    assert got.json["users"] == [{"external_id": "u2"}]
    got = await client.post(IDS, {kind: "unknown"})
    assert got.json["invalid_user_ids"] == ["unknown"]


async def test_aliases_are_looked_up_by_name_and_label(connect: Connect) -> None:
    client = await connect(users=9)
    unknown = {"alias_name": "who", "alias_label": "amplitude_id"}
    other = ALIAS | {"alias_label": "other"}
    got = await client.post(IDS, {"user_aliases": [ALIAS, unknown, other]})
    assert [user["external_id"] for user in got.json["users"]] == ["u2"]
    assert got.json["invalid_user_ids"] == ["who", "user_2"]


async def test_one_address_may_give_two_users(connect: Connect) -> None:
    client = await connect(users=20)
    got = await client.post(IDS, {"email_address": client.sandbox.user(10).email})
    assert {user["external_id"] for user in got.json["users"]} == {"u9", "u10"}


async def test_integers_arrive_unharmed(connect: Connect) -> None:
    client = await connect(profile="full")
    user = (await client.ids("u1")).json["users"][0]
    assert user["custom_attributes"]["ledger"] > 2**63
    assert json.dumps(user["custom_attributes"]["ledger"]).encode() in (await client.ids("u1")).body


async def test_an_empty_list_of_fields_counts_as_none(connect: Connect) -> None:
    client = await connect(users=9, profile="small")
    assert (await client.ids("u1", fields_to_export=[])).body == (await client.ids("u1")).body


async def test_lenient_sandboxes_mix_all_kinds_as_the_documented_example_does(
    connect: Connect,
) -> None:
    client = await connect(users=90, strict_identifiers=False)
    body = {
        "external_ids": ["u1", "?"],
        "user_aliases": [ALIAS],
        "device_id": client.sandbox.user(3).device_id,
        "braze_id": client.sandbox.user(4).braze_id,
        "email_address": client.sandbox.user(5).email,
        "phone": client.sandbox.user(6).phone,
    }
    got = await client.post(IDS, body)
    assert {u["external_id"] for u in got.json["users"]} == {f"u{n}" for n in range(1, 7)}
    assert got.json["invalid_user_ids"] == ["?"]


async def test_a_braze_id_may_stand_beside_external_ids(connect: Connect) -> None:
    client = await connect(users=9)
    got = await client.ids("u1", braze_id=client.sandbox.user(4).braze_id)
    assert len(got.json["users"]) == 2


TOO_MANY = "The max number of external_ids and aliases per request was exceeded"


@pytest.mark.parametrize(
    ("body", "message", "errors"),
    [
        ({}, "No identifier was given", 0),
        ({"external_ids": []}, "No identifier was given", 0),
        ({"fields_to_export": ["email"]}, "No identifier was given", 0),
        ({"external_ids": ["u1"] * 51}, TOO_MANY, 0),
        ({"external_ids": ["u1"] * 25, "user_aliases": [ALIAS] * 26}, TOO_MANY, 0),
        ({"device_id": "a", "phone": "b"}, "device_id must be the only identifier", 0),
        ({"email_address": "a", "phone": "b"}, "email_address must be the only", 0),
        ({"external_ids": ["u1"], "phone": "b"}, "phone must be the only identifier", 0),
        ({"braze_id": "a", "phone": "b"}, "phone must be the only identifier", 0),
        ({"external_ids": "u1"}, "Bad Request", 1),
        ({"external_ids": [1]}, "Bad Request", 1),
        ({"external_ids": None}, "Bad Request", 1),
        ({"external_ids": {"u1": 1}, "fields_to_export": "email"}, "Bad Request", 2),
        ({"external_ids": ["u1"], "fields_to_export": [None]}, "Bad Request", 1),
        ({"user_aliases": ALIAS}, "Bad Request", 1),
        ({"user_aliases": ["user_1"]}, "Bad Request", 1),
        ({"user_aliases": [{"alias_name": "user_1"}]}, "Bad Request", 1),
        ({"user_aliases": [ALIAS | {"alias_label": 1}]}, "Bad Request", 1),
        ({"braze_id": ["a"]}, "Bad Request", 1),
        ({"phone": None}, "Bad Request", 1),
        ([], "Bad Request", 1),
        ("u1", "Bad Request", 1),
        (None, "Bad Request", 1),
    ],
)
async def test_refused(connect: Connect, body: Any, message: str, errors: int) -> None:
    client = await connect(users=9)
    got = await client.call("POST", IDS, data=json.dumps(body), headers=JSON)
    assert got.status == 400
    assert got.json["message"].startswith(message)
    assert len(got.json.get("errors", ())) == errors
    assert ("errors" in got.json) == bool(errors)


JSON = {"Content-Type": "application/json"}


async def test_fifty_in_sum_are_served(connect: Connect) -> None:
    client = await connect(users=9)
    got = await client.ids(*["u1"] * 24, user_aliases=[ALIAS] * 26)
    assert got.status == 200
    assert client.sandbox.counters.identifiers == 50


@pytest.mark.parametrize("poison", ["u2", "user_2", "x"])
async def test_poison_turns_the_whole_request_down(connect: Connect, poison: str) -> None:
    client = await connect(users=9, poisoned={poison})
    got = await client.ids("u1", "u2", "x", user_aliases=[ALIAS])
    assert (got.status, got.json) == (400, {"message": "Bad Request"})
    assert (await client.ids("u1")).status == 200
