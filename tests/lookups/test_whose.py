"""An answer sorted by the identifiers that were asked for."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import BrazeId, DecodeError, EmailAddress, ServerError, UserAlias
from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.identifiers import Identifier
from braze_export.lookups.whose import aliases, external_ids, sort, telling_fields
from braze_export.models.results import FailedBatch, InvalidUserId
from tests.payloads import encode

ALIAS = UserAlias("a1", "crm")


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode(value))


def user(name: str | None = None, *named: UserAlias, **more: Any) -> msgspec.Raw:
    listed = [{"alias_name": a.alias_name, "alias_label": a.alias_label} for a in named]
    identity = {"external_id": name} if name is not None else {}
    return raw(identity | ({"user_aliases": listed} if named else {}) | more)


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ({"external_id": "u1"}, {"u1"}),
        ({"external_id": "U1 é\u0301 😀\n"}, {"U1 é\u0301 😀\n"}),
        ({"external_id": ""}, {""}),
        ({"external_id": None}, set()),
        ({"external_id": 5}, set()),
        ({"braze_id": "u1"}, set()),
        ({"nested": {"external_id": "u1"}}, set()),
        (["external_id"], set()),
        ("u1", set()),
        (None, set()),
    ],
)
def test_external_ids_of_a_profile(sent: Any, names: set[str]) -> None:
    assert external_ids(raw(sent)) == names


@pytest.mark.parametrize(
    ("sent", "names"),
    [
        ([{"alias_name": "a1", "alias_label": "crm"}], {ALIAS}),
        ({"alias_name": "a1", "alias_label": "crm"}, {ALIAS}),
        (
            [{"alias_name": "a1", "alias_label": "crm"}, {"alias_name": "b", "alias_label": "l"}],
            {ALIAS, UserAlias("b", "l")},
        ),
        ([{"alias_name": "a1"}, {"alias_label": "crm"}, {}], set()),
        ([{"alias_name": "", "alias_label": "crm"}], set()),
        ([{"alias_name": 5, "alias_label": "crm"}], set()),
        ([], set()),
        (None, set()),
        ("a1", set()),
    ],
)
def test_aliases_of_a_profile(sent: Any, names: set[UserAlias]) -> None:
    assert aliases(raw({"user_aliases": sent})) == names


@pytest.mark.parametrize("broken", [b"", b"{", b'{"external_id":"\\ud83d"}', b"\xff", b"[" * 5000])
def test_what_cannot_be_read_names_nobody(broken: bytes) -> None:
    assert external_ids(msgspec.Raw(broken)) == aliases(msgspec.Raw(broken)) == frozenset()


@pytest.mark.parametrize(
    ("ids", "fields", "added"),
    [
        (("u1",), ("email",), ()),
        ((ALIAS,), ("email",), ()),
        ((BrazeId("b"),), ("email",), ()),
        (("u1", "u2"), None, ()),
        (("u1", "u2"), ("email",), ("external_id",)),
        (("u1", "u2"), ("external_id", "email"), ()),
        ((ALIAS, UserAlias("b", "l")), ("email",), ("user_aliases",)),
        (("u1", ALIAS), ("email",), ("external_id", "user_aliases")),
        (("u1", ALIAS), ("user_aliases",), ("external_id",)),
    ],
)
def test_fields_that_tell_users_apart(
    ids: tuple[Identifier, ...], fields: tuple[str, ...] | None, added: tuple[str, ...]
) -> None:
    assert telling_fields(Batch(ids), fields) == added


def test_every_identifier_has_its_place() -> None:
    error = ServerError("no", status=500)
    batch = Batch(("u1", "no", "bad", "gone", ALIAS))
    one = user("u1", ALIAS)
    outcome = Outcome(
        users=[one, user("stranger"), user()],
        invalid=[InvalidUserId("no"), InvalidUserId("whoever"), InvalidUserId("u1")],
        failed=[FailedBatch(("bad",), error)],
    )
    told = sort(batch, outcome)
    assert told.found == {"u1": one, ALIAS: one}
    assert (told.failed, told.unknown, told.silent) == ({"bad": error}, {"no"}, ("gone",))
    assert told.strangers == 2


def test_whoever_was_found_is_neither_failed_nor_unknown() -> None:
    outcome = Outcome(
        users=[user("u1")],
        invalid=[InvalidUserId("u1"), InvalidUserId("u2")],
        failed=[FailedBatch(("u1", "u2"), ServerError("no"))],
    )
    told = sort(Batch(("u1", "u2")), outcome)
    assert (list(told.found), list(told.failed), told.unknown) == (["u1"], ["u2"], set())


@pytest.mark.parametrize("identifier", ["u1", ALIAS, EmailAddress("x@y.example")])
def test_one_alone_takes_the_first_user_whoever_it_is(identifier: Identifier) -> None:
    one = user("somebody")
    told = sort(Batch((identifier,)), Outcome(users=[one, user("else")]))
    assert (told.found, told.silent, told.strangers) == ({identifier: one}, (), 0)


def test_of_two_users_with_one_id_the_first_is_taken() -> None:
    one = user("u1", n=1)
    told = sort(Batch(("u1", "u2")), Outcome(users=[one, user("u1", n=2)]))
    assert told.found == {"u1": one}
    assert told.silent == ("u2",)


def test_an_external_id_is_not_an_alias_of_the_same_name() -> None:
    same = UserAlias("x", "crm")
    one, two = user("x"), user("y", same)
    assert sort(Batch(("x", same)), Outcome(users=[two, one])).found == {"x": one, same: two}


def test_silence_is_unknown_and_with_errors_of_braze_s_a_failure() -> None:
    batch = Batch(("u1", "gone"))
    told = sort(batch, Outcome(users=[user("u1")])).given_up(alone=False)
    assert (told.unknown, told.failed, told.silent) == ({"gone"}, {}, ())
    told = sort(batch, Outcome(users=[user("u1")], errors=["amiss", "twice"])).given_up(alone=True)
    assert (told.unknown, told.silent) == (set(), ())
    assert isinstance(told.failed["gone"], DecodeError)
    assert " 200 Braze sent no profile, but: amiss; twice. " in str(told.failed["gone"])
    told = sort(batch, Outcome(users=[user("u1")], errors=["of others"])).given_up(alone=False)
    assert " 200 Braze sent no profile, but: errors. " in str(told.failed["gone"])


NAMES = st.sampled_from(["a", "b", "A", "é", "e\u0301", "x y"])
IDS = NAMES | st.builds(UserAlias, NAMES, st.just("crm"))


@given(
    asked=st.lists(IDS, min_size=1, max_size=8, unique=True),
    users=st.lists(st.tuples(NAMES | st.none(), st.lists(st.builds(UserAlias, NAMES, NAMES)))),
    invalid=st.lists(IDS, max_size=4),
    failed=st.lists(IDS, max_size=4),
)
def test_each_identifier_is_in_exactly_one_place(
    asked: list[Identifier], users: list[Any], invalid: list[Identifier], failed: list[Identifier]
) -> None:
    refused = [FailedBatch((i,), ServerError("no")) for i in failed if i in asked]
    sent = [user(name, *named) for name, named in users]
    outcome = Outcome(users=sent, invalid=[InvalidUserId(i) for i in invalid], failed=refused)
    told = sort(Batch(tuple(asked)), outcome)
    places = [*told.found, *told.failed, *told.unknown, *told.silent]
    assert sorted(map(repr, places)) == sorted(map(repr, asked))
    if len(asked) > 1:
        for identifier, found in told.found.items():
            names = json.loads(bytes(found))
            known = [names.get("external_id")] + [
                UserAlias(a["alias_name"], a["alias_label"]) for a in names.get("user_aliases", ())
            ]
            assert identifier in known


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b'{"created_at":"x","external_id":"u1","devices":[]}', {"u1"}),
        (b' { "n" : null , "f":-1.5e+3,"external_id" : "u1" }', {"u1"}),
        (b'{"a":{"external_id":"other"},"external_id":"u1"}', {"u1"}),
        (b'{"a":["external_id"],"external_id":"u1"}', {"u1"}),
        (b'{"a":"\\",\\"external_id\\":\\"other","external_id":"u1"}', {"u1"}),
        (b'{"a":"external_id","b":{"external_id":"other"}}', set()),
        (b'{"external_id":"\\u00e9"}', {"é"}),
        ('{"external_id":"é"}'.encode(), {"é"}),
        (b'{"external_id":null}', set()),
        (b'{"external_id":""}', {""}),
        (b'["external_id","u1"]', set()),
    ],
)
def test_the_external_id_is_the_users_own_wherever_it_stands(sent: bytes, expected: Any) -> None:
    assert external_ids(msgspec.Raw(sent)) == expected


@given(
    st.dictionaries(
        st.sampled_from(["a", "external_id", 'q"', "\\"]),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["external_id"]),
            lambda inner: st.lists(inner) | st.dictionaries(st.just("external_id"), inner),
            max_leaves=4,
        ),
    )
)
def test_it_is_what_reading_all_of_it_says(user: dict[str, Any]) -> None:
    name = user.get("external_id")
    expected = {name} if isinstance(name, str) else set()
    assert external_ids(raw(user)) == expected
