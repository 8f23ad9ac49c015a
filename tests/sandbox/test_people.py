import itertools
import tracemalloc

import pytest

from braze_export.sandbox import Alias, Sandbox
from braze_export.sandbox.people import People

from .conftest import Connect

NUMBERS = [1, 2, 7, 9, 10, 11, 12_345, 10**9 - 1, 10**9]


@pytest.fixture
def people() -> People:
    return People(10**9, seed=5)


@pytest.mark.parametrize("n", NUMBERS)
def test_every_identifier_leads_back_to_its_user(people: People, n: int) -> None:
    person = people.person(n)
    assert people.by_external_id(person.external_id) == (n,)
    assert people.by_alias(person.alias) == (n,)
    assert people.by_braze_id(person.braze_id) == (n,)
    assert people.by_device_id(person.device_id) == (n,)
    assert people.by_phone(person.phone) == (n,)
    assert n in people.by_email(person.email)


def test_every_tenth_user_shares_the_address_of_the_one_before(people: People) -> None:
    assert people.person(9).email == people.person(10).email == "user9@example.com"
    assert people.by_email("user9@example.com") == (9, 10)
    assert people.by_email("user8@example.com") == (8,)
    assert people.by_email("user10@example.com") == ()
    assert People(9, seed=5).by_email("user9@example.com") == (9,)


def test_some_numbers_are_not_in_e164_form(people: People) -> None:
    assert people.person(6).phone.startswith("+1")
    assert people.person(7).phone.isdigit()
    assert people.by_phone("+1" + people.person(7).phone) == ()


@pytest.mark.parametrize(
    "value",
    ["", "u", "u0", "u01", "u-1", "u+1", "u 1", "u1 ", "U1", "1", "u1000000001", "u\u0661"],
)
def test_external_ids_that_nobody_has(people: People, value: str) -> None:
    assert people.by_external_id(value) == ()


def test_a_number_too_long_to_be_read_is_nobody(people: People) -> None:
    assert people.by_external_id("u" + "9" * 99_999) == ()


@pytest.mark.parametrize("value", ["", "zz", "0" * 24, "f" * 23, "_", "1" * 99])
def test_other_identifiers_that_nobody_has(people: People, value: str) -> None:
    assert people.by_braze_id(value) == ()
    assert people.by_device_id(value) == ()
    assert people.by_email(value) == ()
    assert people.by_phone(value) == ()
    assert people.by_alias(Alias(value, "amplitude_id")) == ()


def test_identifiers_are_compared_as_they_are_written(people: People) -> None:
    person = people.person(3)
    assert people.by_braze_id(person.braze_id.upper()) == ()
    assert people.by_device_id(person.device_id.replace("-", "")) == ()
    assert people.by_alias(Alias(person.alias.name, "other")) == ()


def test_the_seed_decides_the_ids() -> None:
    same, other = People(9, seed=5).person(1), People(9, seed=6).person(1)
    assert People(9, seed=5).person(1) == same
    assert same.braze_id != other.braze_id
    assert same.device_id != other.device_id


def test_ids_look_like_those_of_braze(people: People) -> None:
    person = people.person(1)
    assert len(person.braze_id) == 24
    assert int(person.braze_id, 16)
    assert [len(part) for part in person.device_id.split("-")] == [8, 4, 4, 4, 12]


def test_the_sandbox_knows_its_users() -> None:
    sandbox = Sandbox(users=3)
    assert list(sandbox.external_ids()) == ["u1", "u2", "u3"]
    assert list(sandbox.external_ids(2)) == ["u1", "u2"]
    assert list(sandbox.external_ids(9)) == ["u1", "u2", "u3"]
    assert sandbox.user(3).external_id == "u3"
    for n in (0, 4):
        with pytest.raises(LookupError, match="users 1 to 3"):
            sandbox.user(n)


async def test_a_billion_users_cost_no_memory(connect: Connect) -> None:
    client = await connect(users=10**9, segments=10**9, profile="small", log_size=1)
    sandbox = client.sandbox
    tracemalloc.start()
    try:
        for n in range(10**9 - 999, 10**9, 50):
            got = await client.ids(*(f"u{n + i}" for i in range(50)))
            assert "invalid_user_ids" not in got.json
        assert sum(1 for _ in itertools.islice(sandbox.external_ids(), 10_000)) == 10_000
        assert sandbox.user(10**9).external_id == "u1000000000"
        assert sandbox.segment_id(10**9)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
