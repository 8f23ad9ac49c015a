import json
import statistics
from typing import Any

import pytest

from braze_export.sandbox.people import People
from braze_export.sandbox.profiles import TEMPLATES_PER_SHAPE, Profiles
from braze_export.sandbox.settings import Profile

MANY = range(1, 401)


def make(profile: Profile = "full", *, seed: int = 0) -> Profiles:
    return Profiles(People(1_000, seed), profile, seed)


def raw(profiles: Profiles, *numbers: int, fields: frozenset[str] | None = None) -> bytes:
    return b"".join(profiles.users(numbers, fields))


def users(profile: Profile, fields: frozenset[str] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(raw(make(profile), *MANY, fields=fields))
    return found


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert raw(make("mixed"), *MANY) == raw(make("mixed"), *MANY)
    assert raw(make("mixed"), 3) == raw(make("mixed"), *range(3, 4))
    assert raw(make("mixed"), 3) != raw(make("mixed", seed=1), 3)


def test_nobody_is_an_empty_array() -> None:
    assert raw(make()) == b"[]"


@pytest.mark.parametrize(
    ("profile", "low", "high"),
    [("small", 300, 600), ("typical", 1_800, 2_800), ("full", 19_000, 21_500)],
)
def test_sizes(profile: Profile, low: int, high: int) -> None:
    sizes = [len(raw(make(profile), n)) for n in MANY[:40]]
    assert low < min(sizes)
    assert max(sizes) < high


def test_mixed_is_mostly_typical_with_some_small_and_some_full() -> None:
    profiles = make("mixed")
    sizes = [len(raw(profiles, n)) for n in MANY]
    assert 1_800 < statistics.median(sizes) < 2_800
    assert 0.1 < sum(size < 600 for size in sizes) / len(sizes) < 0.3
    assert 0.05 < sum(size > 19_000 for size in sizes) / len(sizes) < 0.2


def test_users_carry_the_identifiers_that_they_are_found_by() -> None:
    people = People(1_000, 0)
    for n in MANY:
        user = json.loads(raw(make(), n))[0]
        person = people.person(n)
        assert user["external_id"] == person.external_id
        assert user["braze_id"] == person.braze_id
        assert user["user_aliases"] == [
            {"alias_name": person.alias.name, "alias_label": person.alias.label}
        ]
        assert user["email"] == person.email
        assert user["phone"] == person.phone
        assert user["devices"][0]["device_id"] == person.device_id
        assert user["push_tokens"][0]["device_id"] == person.device_id
        assert 0 <= user["random_bucket"] <= 9_999
        if n == 20:
            break


def test_random_buckets_are_spread() -> None:
    buckets = [user["random_bucket"] for user in users("small")]
    assert len(set(buckets)) > 300
    assert statistics.mean(buckets) == pytest.approx(5_000, rel=0.2)


def test_fields_select_keys_and_unknown_ones_are_ignored() -> None:
    for user in users("full", frozenset({"email", "no_such_field"})):
        assert list(user) == ["email"]
    assert raw(make(), 1, fields=frozenset({"no_such_field"})) == b"[{}]"


@pytest.mark.parametrize("kind", ["push", "email"])
def test_dates_of_a_subscription_come_with_it(kind: str) -> None:
    seen = {key for user in users("full", frozenset({f"{kind}_subscribe"})) for key in user}
    assert seen == {f"{kind}_subscribe", f"{kind}_opted_in_at", f"{kind}_unsubscribed_at"}


def test_the_oddities_of_the_samples_are_there() -> None:
    everyone = users("full")
    # Unknown gender in each of its forms.
    genders = {user.get("gender", "absent") for user in everyone}
    assert {"F", "M", "nil", None, "absent"} <= genders
    assert {type(app["sessions"]) for user in everyone for app in user["apps"]} == {str, int}
    assert {type(user.get("total_revenue")) for user in everyone} == {int, float, type(None)}
    assert any(user.get("home_city", "") is None for user in everyone)
    assert any("last_coordinates" not in user for user in everyone)
    assert {user["phone"][0] for user in everyone} == {"+", "2"}
    zones = {user["time_zone"] for user in everyone}
    assert {"Eastern Time (US & Canada)", "Asia/Tokyo"} <= zones
    chicago = next(u for u in everyone if u.get("country") == "US" and "last_coordinates" in u)
    assert chicago["last_coordinates"][0] > 0 > chicago["last_coordinates"][1]


def test_three_forms_of_timestamps() -> None:
    user = users("full")[0]
    assert user["created_at"].endswith(" UTC")
    assert user["custom_events"][0]["first"].endswith("Z")
    assert user["canvases_received"][0]["last_entered"].endswith("+00:00")


def test_custom_attributes_hold_what_breaks_parsers() -> None:
    attributes = users("full")[0]["custom_attributes"]
    assert attributes["ledger"] > 2**63
    assert isinstance(attributes["score"], float)
    assert "\u2028" in attributes["motto"]
    assert attributes["nested"]["list"][0] == {"deep": True}
    assert attributes["nothing"] is None
    assert isinstance(attributes["is_vip"], bool)
    assert len(attributes) == 80


def test_both_ways_to_write_non_ascii_text() -> None:
    profiles = make()
    written = [raw(profiles, n) for n in MANY]
    assert any(text.isascii() for text in written)
    assert any("\u2028".encode() in text for text in written)


def test_all_templates_are_used() -> None:
    loyalty = {user["custom_attributes"]["loyaltyId"] for user in users("typical")}
    assert len(loyalty) == TEMPLATES_PER_SHAPE
