from typing import Any

import aiohttp
import pytest

from braze_export import (
    BrazeClient,
    ExportSettings,
    InputError,
    Limits,
    LookupSettings,
    Polling,
    RetryPolicy,
    Timeouts,
)
from braze_export.sandbox import Sandbox


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("BRAZE_API_KEY", "key")
    monkeypatch.setenv("BRAZE_REST_ENDPOINT", "EU-01")
    return monkeypatch


def test_a_client_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    braze = BrazeClient.from_env(
        limits=Limits.new_workspace(), retry=RetryPolicy(max_attempts=2), timeouts=Timeouts(read=5)
    )
    assert repr(braze) == "<BrazeClient of https://rest.fra-01.braze.eu>"
    assert braze.limits.limits == Limits.new_workspace()
    assert braze._caller.retry.max_attempts == 2
    assert braze._caller.timeouts.read == 5


@pytest.mark.parametrize("name", ["BRAZE_API_KEY", "BRAZE_REST_ENDPOINT"])
@pytest.mark.parametrize("value", [None, ""])
def test_the_missing_variable_is_named(
    environment: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)
    with pytest.raises(InputError, match=f"environment variable {name} is not set"):
        BrazeClient.from_env()


@pytest.mark.parametrize("key", ["", " ", "'key'", '"key"', "key\n", "a b", "schlüssel", None])
def test_a_key_that_cannot_be_right_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InputError, match="api_key") as caught:
        BrazeClient(key, "US-01")
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "XX-01", "rest.iad-01.braze.com", "http://rest.iad-01.braze.com", "ftp://x.y"]
)
def test_an_address_that_cannot_be_right_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        BrazeClient("key", url)


async def test_closing_twice_does_nothing() -> None:
    async with Sandbox(users=1) as sandbox:
        braze = BrazeClient(sandbox.api_key, sandbox.url)
        assert await braze.users.get("u1")
        await braze.aclose()
        await braze.aclose()
        assert repr(braze) == f"<BrazeClient of {sandbox.url}>"


class Quick(Timeouts):
    """A class of somebody's own."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("retry", RetryPolicy),
        ("timeouts", Timeouts),
        ("exports", ExportSettings),
        ("lookups", LookupSettings),
    ],
)
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "int"),
        (0, "int"),
        ({}, "dict"),
        ("redis://user:hush@host", "str"),
        (Polling(), "Polling"),
        (Timeouts, "the class Timeouts"),
        (aiohttp.ClientTimeout(), "ClientTimeout"),
    ],
)
def test_settings_of_another_class_are_refused(
    name: str, kind: type, value: Any, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        BrazeClient("key", "US-01", **{name: value})
    assert str(caught.value) == f"{name} must be {kind.__name__}(...), not {told}"


def test_settings_may_be_left_out_and_of_a_class_of_ones_own() -> None:
    braze = BrazeClient(
        "key", "US-01", retry=None, timeouts=Quick(read=1), exports=None, lookups=None
    )
    assert braze._caller.timeouts == Quick(read=1)
    assert braze._caller.retry == RetryPolicy()
