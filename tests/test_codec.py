import json
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import DecodeError, InputError, Segment, SegmentSize, UserProfile
from braze_export.codec import (
    decode_object,
    decoder_for,
    fields_of,
    identity,
    object_listing,
    records,
    split_ids_answer,
    without,
)
from braze_export.endpoints import EXPORT_IDS, SEGMENTS_DATA_SERIES, SEGMENTS_LIST
from tests.payloads import USERS, encode, objects, profiles, sample, values


@attrs.frozen
class Mine:
    external_id: str
    email: str | None


def split(body: bytes) -> tuple[list[bytes], list[Any], list[str]]:
    answer = split_ids_answer(body, EXPORT_IDS)
    return [bytes(user) for user in answer.users], answer.invalid_user_ids, answer.errors


def decode(into: Any, raw: bytes) -> Any:
    return decoder_for(into, EXPORT_IDS)(msgspec.Raw(raw))


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


# Splitting


def test_the_sample_answers() -> None:
    users, invalid, errors = split(sample("response_users_export_ids.json"))
    assert [json.loads(user) for user in users] == [json.loads(sample("user_full_ids.json"))]
    assert (invalid, errors) == (["user_identifier2"], [])
    none_found = split(sample("response_users_export_ids_none_found.json"))
    assert none_found == ([], ["user_identifier1"], [])


@pytest.mark.parametrize(
    ("rest", "invalid", "errors"),
    [
        ({}, [], []),
        ({"invalid_user_ids": None, "errors": None}, [], []),
        ({"invalid_user_ids": [], "errors": []}, [], []),
        ({"invalid_user_ids": ["a", {"alias_name": "b"}]}, ["a", {"alias_name": "b"}], []),
        ({"invalid_user_ids": "a"}, ["a"], []),
        ({"invalid_user_ids": ["\ud83d"]}, ["\ud83d"], []),
        ({"errors": ["x", {"message": "y"}, 5]}, [], ["x", "y", "5"]),
        ({"errors": "x"}, [], ["x"]),
        ({"errors": [{"a": "\ud83d"}]}, [], ['{"a": "\\ud83d"}']),
        ({"message": 5, "new": {"a": [1]}}, [], []),
    ],
)
@pytest.mark.parametrize("odd", [False, True])
def test_the_envelope(
    rest: dict[str, Any], invalid: list[Any], errors: list[str], *, odd: bool
) -> None:
    user = {"email": "\ud83d" if odd else "a"}
    assert split(encode({"users": [user]} | rest)) == ([encode(user)], invalid, errors)
    assert split(encode(rest | {"users": []})) == ([], invalid, errors)
    if invalid:
        assert split(encode(rest)) == ([], invalid, errors)


@given(st.lists(objects(UserProfile) | values, max_size=4))
def test_users_are_cut_out_byte_for_byte(users: list[Any]) -> None:
    pieces = [encode(user) for user in users]
    body = b'{"message": "success", "users": [%s], "invalid_user_ids": ["x"]}' % b", ".join(pieces)
    assert split(body) == (pieces, ["x"], [])


@pytest.mark.parametrize("raw", [b'"\\ud83d"', b"NaN", b'"\\ud83d\\u0041"', b'"\xed\xa0\xbd"'])
def test_one_odd_value_does_not_cost_the_users_beside_it(raw: bytes) -> None:
    odd = b'{ "external_id":"u1", "first_name" : %s}' % raw
    calm = b'{"external_id": "u2"}'
    users, _, _ = split(b'{"users": [%s,\n%s], "new": %s}' % (odd, calm, raw))
    assert users == [odd, calm]
    assert [decode(UserProfile, user).external_id for user in users] == ["u1", "u2"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'"users"',
        b"{}",
        b'{"message": "success"}',
        b'{"users": null}',
        b'{"users": {}}',
        b'{"users": "u"}',
        b'{"users": [{]}',
        b'{"users": [1,]}',
        b'{"users": []} trailing',
        b'{"users": ["\\ud83d"], "users": null}',
        b'{"new": "\\ud83d"}',
        b'["\\ud83d"]',
        b'{"users": [%s]}' % deep(100_000),
        b'{"users": [], "new": %s}' % deep(100_000),
        b'{"users": [], "invalid_user_ids": %s}' % deep(100_000),
        b'{"users": [], "errors": %s}' % (b"9" * 5000),
        b'{"users": [], "invalid_user_ids": ["\xff"]}',
        '{"users": []}'.encode("utf-16"),
    ],
)
def test_what_is_no_answer_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(
        DecodeError, match=r"POST /users/export/ids: 200 the body (is not the JSON|has neither)"
    ) as caught:
        split(body)
    assert caught.value.raw == body[:10_000]
    assert caught.value.__cause__ is None  # it may hold the body
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


answers = st.binary() | st.fixed_dictionaries(
    {},
    optional={
        "users": st.lists(values, max_size=3) | values,
        "invalid_user_ids": values,
        "errors": values,
    },
).map(encode)


@given(answers, st.data())
def test_any_bytes_are_split_or_are_a_decode_error(body: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(body)))
    junk = data.draw(st.binary(max_size=3))
    for raw in (body, body[:cut], body[:cut] + junk + body[cut:]):
        try:
            users, invalid, errors = split(raw)
        except DecodeError:
            continue
        assert all(user in raw for user in users)
        assert isinstance(invalid, list)
        assert all(isinstance(error, str) for error in errors)


# Objects and lists of records


@given(st.binary() | values.map(encode))
def test_any_bytes_are_an_object_or_a_decode_error(body: bytes) -> None:
    try:
        found = decode_object(body, SEGMENTS_LIST)
    except DecodeError as error:
        assert error.raw == body
    else:
        assert found == json.loads(body)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (deep(100_000), "deeply"),
    ],
)
def test_what_is_no_object(body: bytes, said: str) -> None:
    with pytest.raises(DecodeError, match=f"GET /segments/list: 200 the body is .*{said}"):
        decode_object(body, SEGMENTS_LIST)


def test_records_of_the_samples() -> None:
    answer = decode_object(sample("get_segments_list.json"), SEGMENTS_LIST)
    segments = records(answer, "segments", Segment, SEGMENTS_LIST)
    assert [(s.name, s.analytics_tracking_enabled, s.tags) for s in segments] == [
        ("All users", True, ("tag one",)),
        ("Lapsed", False, ()),
    ]
    answer = decode_object(sample("get_segments_data_series.json"), SEGMENTS_DATA_SERIES)
    sizes = records(answer, "data", SegmentSize, SEGMENTS_DATA_SERIES)
    assert [(str(s.time), s.size) for s in sizes] == [("2018-06-26", 1200), ("2018-06-27", 1207)]


def test_what_is_no_record_in_a_list_is_passed_over() -> None:
    answer: dict[str, Any] = {"segments": [None, 5, {"id": "a"}, [], {}]}
    assert records(answer, "segments", Segment, SEGMENTS_LIST) == [Segment(id="a"), Segment()]


@pytest.mark.parametrize("answer", [{}, {"segments": None}, {"segments": {}}, {"segments": "x"}])
def test_an_answer_without_its_list(answer: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match="no list 'segments'"):
        records(answer, "segments", Segment, SEGMENTS_LIST)
    with pytest.raises(DecodeError, match="no list 'segments'"):
        object_listing("segments")(encode(answer), SEGMENTS_LIST)


def test_an_answer_with_its_list() -> None:
    answer = {"segments": [], "message": "success"}
    assert object_listing("segments")(encode(answer), SEGMENTS_LIST) == answer


# Users


@pytest.mark.parametrize("name", USERS)
def test_the_sample_users(name: str) -> None:
    raw = sample(name)
    assert decode(dict, raw) == json.loads(raw)
    assert decode(UserProfile, raw).raw == raw
    assert decode(bytes, raw) == raw
    if "anonymous" in name:
        with pytest.raises(
            DecodeError, match=r"as Mine: required field missing @ profile\.external_id"
        ):
            decode(Mine, raw)
    else:
        assert decode(Mine, raw).external_id == "A8i3mkd99"


@given(profiles)
def test_a_dictionary_is_all_that_was_sent(data: dict[str, Any]) -> None:
    raw = encode(data)
    assert decode(dict, raw) == json.loads(raw)


@pytest.mark.parametrize("into", [UserProfile, dict, Mine])
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"null", b"5", b'"x"', b'{"a": }', b'{"email": "\xff"}', b'{"a": 1} {}',
        b'{"a": %s}' % deep(100_000), b'{"custom_attributes": %s}' % deep(100_000), deep(100_000),
    ],
)  # fmt: skip
def test_what_is_no_user_is_a_decode_error(into: type, raw: bytes) -> None:
    with pytest.raises(DecodeError, match=f"a user cannot be read as {into.__name__}: .") as caught:
        decode(into, raw)
    assert caught.value.raw == raw
    assert caught.value.endpoint == "POST /users/export/ids"


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"5", b'"x"'])
def test_bytes_are_of_an_object_at_least(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="a user cannot be read as bytes: it is no JSON object"):
        decode(bytes, raw)


def decode_row(raw: bytes) -> bytes:
    """Take a line of an archive, of which nothing is known."""
    return decoder_for(bytes, EXPORT_IDS, checked=False)(raw)


@pytest.mark.parametrize("user", [b"{}", b'{"a": "\\ud83d"}', '{"a": "é"}'.encode()])
def test_a_line_is_given_as_it_came(user: bytes) -> None:
    assert decode_row(user) == user
    assert decode_row(b" \t%s \r" % user) == user


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"5", b'{"a": }', b'{"a": 1', b'{"a": 1} {}', b'{"a": "\xff"}', deep(100_000)],
)
def test_a_line_is_of_an_object(raw: bytes) -> None:
    with pytest.raises(DecodeError, match="a user cannot be read as bytes") as caught:
        decode_row(raw)
    assert caught.value.raw == raw


@pytest.mark.parametrize(
    ("user", "left"),
    [
        (
            b'{ "a" : 1, "b": {"a": 2.50}, "c":[ "\\u00e9" ]}',
            b'{"b":{"a": 2.50},"c":[ "\\u00e9" ]}',
        ),
        (b'{"a": 1, "b": "\\ud83d"}', b'{"b":"\\ud83d"}'),
        (b'{"a": "\\ud83d", "b": 1}', b'{"b":1}'),
        (b'{"b": 1}', b'{"b":1}'),
        (b'["a"]', b'["a"]'),  # no user: whoever reads it will say so
        (b'{"a": ', b'{"a": '),
    ],
)
def test_what_was_not_asked_for_is_taken_out(user: bytes, left: bytes) -> None:
    assert without(msgspec.Raw(user), {"a"}) == left


@given(st.binary() | profiles.map(encode), st.sampled_from([UserProfile, dict, Mine]))
def test_any_bytes_are_a_user_or_a_decode_error(raw: bytes, into: type) -> None:
    try:
        made = decode(into, raw)
    except DecodeError as error:
        assert error.raw == raw
    else:
        assert type(made) is into


def test_no_value_of_a_record_is_in_the_message() -> None:
    raw = encode({"external_id": ["jane@example.com"], "email": {"jane": "doe"}})
    with pytest.raises(DecodeError) as caught:
        decode(Mine, raw)
    assert "jane" not in f"{caught.value}{caught.value!r}"
    assert "expected str @ profile.external_id" in str(caught.value)
    assert caught.value.raw == raw


def test_a_kept_user_does_not_keep_the_answer() -> None:
    body = sample("response_users_export_ids.json")
    answer = split_ids_answer(body, EXPORT_IDS)
    profile = decoder_for(UserProfile, EXPORT_IDS)(answer.users[0])
    assert type(profile.raw) is bytes
    assert profile.raw in body
    assert len(profile.raw) < len(body)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b'{"external_id": "u1", "braze_id": "b1"}', ("u1",)),
        (b'{"braze_id": "b1", "email": 5}', ("b1",)),
        (b'{"external_id": "", "braze_id": "b1"}', ("b1",)),
        (b'{"external_id": null}', ()),
        (b'{"external_id": 5}', ()),
        (b"{}", ()),
        (b"[]", ()),
        (b"", ()),
        (b'{"external_id": "\xff"}', ()),
        (b'{"external_id": "u1", "a": %s}' % deep(100_000), ()),
    ],
)
def test_whose_record_cannot_be_read(raw: bytes, names: tuple[str, ...]) -> None:
    assert identity(raw) == names
    assert identity(msgspec.Raw(raw)) == names


def test_the_fields_to_ask_for() -> None:
    assert fields_of(UserProfile) is None
    assert fields_of(dict) is None
    assert fields_of(bytes) is None
    assert fields_of(Mine) == ("external_id", "email")


@pytest.mark.parametrize(
    "into", [None, 5, [], {}, list, str, "Mine", Mine("a", None), object(), dict[str, Any]]
)
def test_what_profiles_cannot_be_put_into(into: Any) -> None:
    with pytest.raises(InputError, match="allowed are attrs classes, dataclasses"):
        fields_of(into)
    with pytest.raises(InputError, match="allowed are attrs classes, dataclasses"):
        decoder_for(into, EXPORT_IDS)


def test_a_profile_class_of_ones_own() -> None:
    class Extended(UserProfile, frozen=True):
        loyalty: str | None = None

    made = decode(
        Extended, b'{"email": "a", "loyalty": "gold", "created_at": "2020-07-10 15:00:00 UTC"}'
    )
    assert (made.email, made.loyalty, made.created_at.year) == ("a", "gold", 2020)


@pytest.mark.parametrize("between", [b" ", b"\n", b"\r", b"\r\n"])
def test_an_answer_says_whether_it_has_line_breaks(between: bytes) -> None:
    body = b'{"users":[{"a":%s1}]}' % between
    assert split_ids_answer(body, EXPORT_IDS).broken == (between != b" ")
