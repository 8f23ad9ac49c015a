"""Profiles, whatever Braze sends: nothing is lost, and attributes have their declared types."""

import copy
import json
import math
import pickle
from datetime import UTC, date, datetime
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs
import cattrs
import pytest
from cattrs.preconf.json import make_converter
from hypothesis import given
from hypothesis import strategies as st

from braze_export import DecodeError, InputError, UserAlias, UserProfile
from braze_export.codec import decode_profile
from braze_export.models.lenient import structure_leniently
from braze_export.models.profile import AliasRecord, Device
from braze_export.models.record import Record
from braze_export.models.timestamps import Timestamp
from tests.payloads import FIELDS, USERS, encode, profiles, sample, values

EMPTY: tuple[Any, ...] = (None, (), {})


def attributes(profile: UserProfile) -> dict[str, Any]:
    return {name: getattr(profile, name) for name in FIELDS}


def is_of(value: Any, kind: Any) -> bool:  # noqa: PLR0911 - one line for each type
    """Whether a value is of a declared type, to its last item."""
    if kind is Any:
        return True
    if get_origin(kind) in {Union, UnionType}:
        return any(is_of(value, k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        return type(value) is tuple and all(is_of(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return type(value) is dict and all(
            type(k) is str and is_of(v, get_args(kind)[1]) for k, v in value.items()
        )
    if kind in {Timestamp, datetime}:
        return type(value) is datetime and value.tzinfo is not None
    if attrs.has(kind):
        hints = get_type_hints(kind)
        return type(value) is kind and all(
            is_of(getattr(value, a.name), hints[a.name]) for a in attrs.fields(kind)
        )
    return type(value) is kind


def holds(value: Any, sent: Any) -> bool:  # noqa: PLR0911 - one line for each type
    """Whether an attribute's value is all of what was sent, though perhaps of another type."""
    if sent is None:
        return value in EMPTY
    if value is None:
        return isinstance(sent, str) and sent.lower() == "null"
    if isinstance(value, tuple):
        return len(value) == len(sent) and all(map(holds, value, sent))
    if isinstance(value, dict):
        return value.keys() == sent.keys() and all(holds(value[k], sent[k]) for k in value)
    if isinstance(value, Record):
        known = {a.name: getattr(value, a.name) for a in attrs.fields(type(value))}
        return all(holds(known[key], sent[key]) for key in known.keys() & sent.keys())
    if isinstance(value, bool):
        return str(sent).lower() in ({"true", "1"} if value else {"false", "0"})
    if isinstance(value, int | float):
        same = math.isclose(value, float(sent)) or (math.isnan(value) and math.isnan(float(sent)))
        return value == sent or same
    if isinstance(value, datetime):
        return value in {moment(sent), epoch(sent)}
    if isinstance(value, date):
        return bool(value.isoformat() == sent)
    return bool(value == sent or (value == str(sent) and not isinstance(sent, bool | str)))


def moment(text: Any) -> datetime | None:
    try:
        read = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    except (ValueError, AttributeError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def epoch(number: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(number), UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None


@given(profiles)
def test_every_key_sent_is_in_its_attribute_or_in_extra(data: dict[str, Any]) -> None:
    raw = encode(data)
    sent = json.loads(raw)
    profile = decode_profile(raw)
    extra = profile.extra
    assert profile.raw == raw
    assert extra.keys() <= sent.keys()
    for key, value in sent.items():
        if key in extra:
            assert extra[key] == value
            # What stands in extra and has an attribute stands there for a reason.
            assert key not in FIELDS or not same(getattr(profile, key), value)
        else:
            assert holds(getattr(profile, key), value), key


def same(value: Any, sent: Any) -> bool:
    return bool(value == sent and type(value) is type(sent) and value not in EMPTY)


@given(profiles)
def test_attributes_always_have_their_declared_types(data: dict[str, Any]) -> None:
    profile = decode_profile(encode(data))
    hints = get_type_hints(UserProfile)
    wrong = [n for n in FIELDS if not is_of(getattr(profile, n), hints[n])]
    assert wrong == []


@given(profiles)
def test_one_odd_value_does_not_change_how_the_others_are_read(data: dict[str, Any]) -> None:
    data.pop("email", None)
    calm, odd = encode(data), encode(data | {"email": []})
    one, other = decode_profile(calm), decode_profile(odd)
    assert repr(attributes(one)) == repr(attributes(other))  # nan is not equal to itself
    assert other.extra == one.extra | {"email": []}


@given(profiles)
def test_a_profile_survives_pickle_and_copies(data: dict[str, Any]) -> None:
    profile = decode_profile(encode(data))
    for twin in (
        pickle.loads(pickle.dumps(profile)),
        copy.copy(profile),
        copy.deepcopy(profile),
    ):
        assert type(twin) is UserProfile
        assert (repr(twin), twin.raw, twin.extra) == (repr(profile), profile.raw, profile.extra)


@given(values)
def test_a_record_that_is_no_object_is_a_type_error(value: Any) -> None:
    if isinstance(value, dict):
        value = [value]
    with pytest.raises(TypeError, match="no JSON object"):
        decode_profile(encode(value))


@pytest.mark.parametrize("name", USERS)
def test_samples_decode_without_misfits(name: str) -> None:
    raw = sample(name)
    sent = json.loads(raw)
    profile = decode_profile(raw)
    assert profile.extra == {}
    assert profile.raw == raw
    # Straight into the class, not by the slow way.
    assert structure_leniently(UserProfile, sent) == (profile, frozenset())
    there = {name for name in FIELDS if getattr(profile, name) not in EMPTY}
    assert there == sent.keys()


def test_the_full_sample_in_detail() -> None:
    profile = decode_profile(sample("user_superset_all_known_fields.json"))
    assert profile.created_at == datetime(2020, 7, 10, 15, tzinfo=UTC)
    assert profile.dob == date(1980, 12, 21)
    assert profile.last_coordinates == (41.84157636433568, -87.83520818508256)
    assert (profile.total_revenue, type(profile.total_revenue)) == (65, int)
    assert profile.custom_attributes["tags"] == ["a", "b"]
    assert profile.custom_attributes["nothing"] is None
    assert profile.devices[0].carrier is None
    assert profile.devices[1].ad_tracking_enabled is False
    assert profile.push_tokens[0].provisionally_opted_in is None
    assert profile.campaigns_received[0].engaged["opened_push"] is False
    assert profile.canvases_received[0].last_entered == datetime(2021, 7, 7, 20, 45, 24, tzinfo=UTC)
    assert profile.canvases_received[0].last_entered_control_at is None
    assert profile.canvases_received[0].steps_received[0].name == "Step"
    assert profile.user_aliases[0].identifier == UserAlias("user_123", "amplitude_id")


def test_null_counts_as_absent() -> None:
    for name in FIELDS:
        profile = decode_profile(encode({name: None}))
        assert profile == UserProfile(), name
        assert profile.extra == {}, name


@pytest.mark.parametrize("value", [True, 5, -1.5, 2**70, 1e300, "?", "\ud83d", [], {}, [[]], [{}]])
def test_any_json_in_any_field(value: Any) -> None:
    hints = get_type_hints(UserProfile)
    for name in FIELDS:
        profile = decode_profile(encode({"new": 1, name: value}))
        assert name in profile.extra or holds(getattr(profile, name), value), name
        assert is_of(getattr(profile, name), hints[name]), name


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("1129", 1129), (1129, 1129), (1129.0, 1129), (2**70, 2**70), (None, None)],
)
@pytest.mark.parametrize("odd", [{}, {"email": 1.5}])
def test_sessions_are_numbers(sent: Any, expected: Any, odd: dict[str, Any]) -> None:
    profile = decode_profile(encode({"apps": [{"sessions": sent}]} | odd))
    assert profile.apps[0].sessions == expected
    assert profile.extra == {}


@pytest.mark.parametrize(
    "text",
    ["2021-06-28T17:02:43.032Z", "2021-06-28T17:02:43.032+00:00", "2021-06-28 17:02:43.032 UTC"],
)
def test_moments_in_three_forms_at_every_depth(text: str) -> None:
    data = {
        "created_at": text,
        "uninstalled_at": text,
        "custom_events": [{"first": text}],
        "canvases_received": [{"steps_received": [{"last_received": text}]}],
    }
    profile = decode_profile(encode(data))
    expected = datetime(2021, 6, 28, 17, 2, 43, 32_000, tzinfo=UTC)
    assert profile.created_at == profile.uninstalled_at == expected
    assert profile.custom_events[0].first == expected
    assert profile.canvases_received[0].steps_received[0].last_received == expected
    assert profile.extra == {}


@pytest.mark.parametrize(
    "value", [5, 5.5, True, [], {}, "5", "soon", "2021-13-01T00:00:00Z", 10**400, "null"]
)
def test_what_is_no_moment_stands_in_extra(value: Any) -> None:
    profile = decode_profile(encode({"created_at": value, "email": "a@example.com"}))
    assert profile.created_at is None
    assert profile.email == "a@example.com"
    assert profile.extra == {"created_at": value}


def test_a_misfit_deep_inside_brings_its_whole_key_into_extra() -> None:
    devices = [{"model": "Pixel", "os": ["?"]}, None, "?", {"model": "iPhone"}]
    profile = decode_profile(encode({"devices": devices, "external_id": "u1"}))
    assert profile.devices == (Device(model="Pixel"), Device(model="iPhone"))
    assert profile.extra == {"devices": devices}


def test_null_in_a_list_is_no_silent_gap() -> None:
    profile = decode_profile(b'{"last_coordinates": [null, -87.8]}')
    assert profile.last_coordinates == (-87.8,)
    assert profile.extra == {"last_coordinates": [None, -87.8]}


@pytest.mark.parametrize("odd", [{}, {"email": []}])
def test_null_in_an_object_of_booleans_stays(odd: dict[str, Any]) -> None:
    engaged = {"opened_email": None, "clicked": True}
    profile = decode_profile(encode({"campaigns_received": [{"engaged": engaged}]} | odd))
    assert profile.campaigns_received[0].engaged == engaged
    assert "campaigns_received" not in profile.extra


def test_keys_named_like_our_own_attributes_are_keys_like_any_other() -> None:
    data = {"_raw": "aGk=", "_misfits": ["email"], "raw": 1, "extra": 2, "email": "a@example.com"}
    raw = encode(data)
    profile = decode_profile(raw)
    assert profile.raw == raw
    assert profile.email == data.pop("email")
    assert profile.extra == data


@pytest.mark.parametrize(
    "value",
    [2**64, 2**64 + 1, -(2**70), 1.5, 1e300, 0.1 + 0.2, "Zoë", "a\u2028b", "\ud83d", "😀", "\x00"],
)
def test_values_survive_in_extra_raw_and_custom_attributes(value: Any) -> None:
    raw = encode({"new": value, "custom_attributes": {"new": value, "deep": [{"er": value}]}})
    profile = decode_profile(raw)
    assert profile.raw == raw
    for found in (profile.extra["new"], profile.custom_attributes["new"]):
        assert found == value
        assert type(found) is type(value)
    assert profile.custom_attributes["deep"] == [{"er": value}]


@pytest.mark.parametrize("raw", [b'{"new": "\xff"}', b'{"\xff": 1}', b'{"new": {"a": "\xc3"}}'])
def test_bytes_that_are_no_text_in_unknown_keys_cost_only_extra(raw: bytes) -> None:
    raw = b'{"external_id": "u1", ' + raw[1:]
    profile = decode_profile(raw)
    assert (profile.external_id, profile.raw) == ("u1", raw)
    with pytest.raises(DecodeError, match="unknown keys of a user"):
        _ = profile.extra


@pytest.mark.parametrize("raw", [b'{"email": "\xff"}', b'{"custom_attributes": {"a": "\xc3"}}'])
def test_bytes_that_are_no_text_are_refused_in_known_keys(raw: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        decode_profile(raw)


def test_what_cannot_be_held_in_extra_is_our_own_error() -> None:
    raw = b'{"external_id": "u1", "new": %s}' % (b"9" * 5000)
    profile = decode_profile(raw)
    assert profile.external_id == "u1"
    with pytest.raises(DecodeError, match="unknown keys of a user") as caught:
        _ = profile.extra
    assert caught.value.raw == raw
    assert repr(profile) == "UserProfile(external_id='u1', extra='(unreadable)')"


@pytest.mark.parametrize("key", ["custom_attributes", "new", "email"])
def test_nesting_too_deep_is_a_value_error(key: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        decode_profile(b'{"%s": %s%s}' % (key.encode(), b"[" * 100_000, b"]" * 100_000))


def test_a_profile_made_by_hand() -> None:
    profile = UserProfile(
        external_id="u1",
        dob=date(1980, 12, 21),
        created_at=datetime(2020, 7, 10, tzinfo=UTC),
        devices=(Device(model="Pixel"),),
        custom_attributes={"a": 2**70},
    )
    assert profile.extra == {}
    sent = json.loads(profile.raw)
    assert sent["custom_attributes"] == {"a": 2**70}
    assert sent.keys() == {"external_id", "dob", "created_at", "devices", "custom_attributes"}
    assert decode_profile(profile.raw) == profile


def test_the_raw_of_a_profile_made_by_hand_holds_lone_surrogates() -> None:
    profile = UserProfile(first_name="\ud83d", devices=(Device(model="\ud83d"),))
    assert decode_profile(profile.raw) == profile


def test_equality_is_of_attributes() -> None:
    assert decode_profile(b'{"email": "a", "new": 1}') == UserProfile(email="a")
    assert UserProfile(email="a") != UserProfile(email="b")
    assert UserProfile(email="a") != "a"
    assert (UserProfile() == {}) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(UserProfile())


def test_repr_shows_what_was_sent_and_nothing_else() -> None:
    profile = decode_profile(
        b'{"email": "a", "random_bucket": 0, "first_name": "", "new": [1], "gender": null,'
        b' "devices": [{"ad_tracking_enabled": false, "carrier": null}], "phone": ["?"]}'
    )
    assert repr(profile) == (
        "UserProfile(random_bucket=0, first_name='', email='a', "
        "devices=(Device(ad_tracking_enabled=False),), extra={'new': [1], 'phone': ['?']})"
    )
    assert repr(UserProfile()) == "UserProfile()"


def test_an_alias_can_be_asked_for_unless_a_part_is_missing() -> None:
    assert AliasRecord("n", "l").identifier == UserAlias("n", "l")
    for alias in (AliasRecord("n"), AliasRecord(alias_label="l"), AliasRecord("", "l")):
        with pytest.raises(InputError, match=r"UserAlias\.alias"):
            _ = alias.identifier


RECORDS: list[Any] = sorted(
    {kind for kind in Record.__subclasses__() if kind.__module__.startswith("braze_export.")},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("cls", RECORDS)
def test_a_record_is_an_attrs_class(cls: Any) -> None:
    assert attrs.has(cls) is True
    names = [a.name for a in attrs.fields(cls)]
    assert names == [n for n in cls.__struct_fields__ if not n.startswith("_")]
    assert attrs.asdict(cls()) == {name: getattr(cls(), name) for name in names}
    instance: Any = cls()
    assert attrs.evolve(instance) == instance
    defaults: list[Any] = [a.default for a in attrs.fields(cls)]
    made = [d.factory() if hasattr(d, "factory") else d for d in defaults]
    assert made == [getattr(instance, name) for name in names]
    assert attrs.fields_dict(cls).keys() == set(names)


@pytest.mark.parametrize("cls", RECORDS)
def test_records_do_not_change(cls: Any) -> None:
    for name in cls.__struct_fields__:
        with pytest.raises(AttributeError, match="immutable"):
            setattr(cls(), name, None)


def test_attrs_takes_profiles() -> None:
    profile = decode_profile(sample("user_superset_all_known_fields.json"))
    changed = attrs.evolve(profile, email="new@example.com")  # type: ignore[misc]
    assert changed.email == "new@example.com"
    assert attrs.evolve(changed, email=profile.email) == profile  # type: ignore[misc]
    assert json.loads(changed.raw)["email"] == "new@example.com"
    shown = attrs.asdict(profile)
    assert shown["devices"][0]["model"] == "Pixel XL"
    assert "_raw" not in shown
    assert attrs.astuple(profile.devices[0])[0] == "Pixel XL"
    assert attrs.fields(UserProfile).created_at.type == datetime | None


@pytest.mark.parametrize("name", USERS)
def test_cattrs_takes_profiles(name: str) -> None:
    profile = decode_profile(sample(name))
    plain = cattrs.unstructure(profile)
    assert plain["external_id"] == profile.external_id
    assert all(isinstance(device, dict) for device in plain["devices"])
    converter = make_converter()
    assert converter.loads(converter.dumps(profile), UserProfile) == profile


@given(st.text(min_size=1))
def test_records_are_values(text: str) -> None:
    assert AliasRecord(text, text) == AliasRecord(alias_name=text, alias_label=text)
    assert hash(AliasRecord(text)) == hash(AliasRecord(text))
    assert pickle.loads(pickle.dumps(AliasRecord(text))) == AliasRecord(text)
