import enum
import inspect
import json
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import BrazeClient, ExportField, InputError, UnknownFieldWarning, UserProfile
from braze_export.models.fields import ARRIVES_WITH, SLOW_FIELDS, check_fields, costs_fast_tier
from braze_export.sandbox import Sandbox
from braze_export.wire import Download, Request, Response, Streamed

# https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier
DOCUMENTED = """
    apps attributed_campaign attributed_source attributed_adgroup attributed_ad braze_id country
    created_at custom_attributes custom_events devices dob email external_id first_name gender
    home_city language last_coordinates last_name phone purchases random_bucket time_zone
    total_revenue uninstalled_at user_aliases push_subscribe email_subscribe push_tokens
    campaigns_received canvases_received cards_clicked created_from
""".split()  # noqa: SIM905 - 34 lines otherwise


class Older(str, enum.Enum):  # noqa: UP042 - as people wrote them before StrEnum
    EMAIL = "email"


def test_the_names_are_those_documented() -> None:
    assert len(DOCUMENTED) == 34
    assert set(ExportField) == set(DOCUMENTED)
    assert [field.name for field in ExportField] == [field.upper() for field in ExportField]


def test_every_attribute_of_a_profile_can_be_asked_for() -> None:
    names = {a.name for a in attrs.fields(UserProfile)}
    assert names == set(ExportField) | ARRIVES_WITH.keys()
    assert set(check_fields(names)) == set(ExportField)


@pytest.mark.parametrize(
    ("given_fields", "expected"),
    [
        (["email"], ("email",)),
        (("email", "dob", "email"), ("email", "dob")),
        ([ExportField.EMAIL, "email"], ("email",)),
        ([Older.EMAIL], ("email",)),
        (iter(["dob", "email"]), ("dob", "email")),
        ({"email": 1}, ("email",)),
        (["push_opted_in_at", "push_unsubscribed_at"], ("push_subscribe",)),
        (["email", "email_opted_in_at", "email_subscribe"], ("email", "email_subscribe")),
        (["email_unsubscribed_at"], ("email_subscribe",)),
        (["brand_new", "x"], ("brand_new", "x")),
    ],
)
def test_names_are_sent_once_and_in_order(given_fields: Any, expected: tuple[str, ...]) -> None:
    found = check_fields(given_fields)
    assert found == expected
    assert all(type(name) is str for name in found)
    assert json.loads(json.dumps(found)) == list(expected)


@pytest.mark.parametrize(
    ("given_fields", "said"),
    [
        ("email", r"write \['email'\]"),
        (ExportField.EMAIL, "must be a list of names"),
        (["email,country"], r"fields holds 'email,country': give each name by itself"),
        (["external_id", "email;country"], "give each name by itself"),
        ([], "fields is empty"),
        (iter(()), "fields is empty"),
        (5, "not of type int"),
        (b"email", "a name in fields .* of type int"),
        ([""], "empty or blank"),
        (["email", " "], "empty or blank"),
        ([None], "not None"),
        ([5], "of type int"),
        ([["email"]], "of type list"),
        (["\ud83d"], "not valid Unicode"),
    ],
)
def test_what_is_no_list_of_names(given_fields: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_fields(given_fields)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("emial", "email"),
        ("Email", "email"),
        ("EMAIL", "email"),
        ("e_mail", "email"),
        ("externalid", "external_id"),
        ("external_ids", "external_id"),
        ("user_alias", "user_aliases"),
        ("custom_attribute", "custom_attributes"),
        ("customAttributes", "custom_attributes"),
        ("push_token", "push_tokens"),
        ("canvas_received", "canvases_received"),
        ("timezone", "time_zone"),
        ("purchase", "purchases"),
        (" email", "email"),
    ],
)
def test_near_misses_are_warned_of_and_sent_all_the_same(name: str, meant: str) -> None:
    with pytest.warns(
        UnknownFieldWarning, match=f"no field '{name}': did you mean '{meant}'"
    ) as told:
        assert check_fields(["email", name]) == ("email", name)
    assert len(told) == 1


@pytest.mark.parametrize(
    "name", ["brand_new", "x", "loyalty_tier", "app_version", "sessions", "id"]
)
def test_names_that_resemble_none_are_nobodys_business(name: str) -> None:
    assert check_fields([name]) == (name,)  # warnings are errors


@given(st.lists(st.text(st.characters()) | st.sampled_from(DOCUMENTED)))
def test_any_names_are_sent_or_refused(names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownFieldWarning)
        try:
            found = check_fields(names)
        except InputError:
            return
    assert len(set(found)) == len(found)
    assert found == tuple(dict.fromkeys(names))


@pytest.mark.parametrize(
    ("fields", "slow"),
    [
        (None, True),
        (("email",), False),
        (("email", "campaigns_received"), True),
        (("canvases_received",), True),
        (("cards_clicked", "custom_attributes"), False),
    ],
)
def test_which_requests_are_held_to_the_slower_limit(
    fields: tuple[str, ...] | None, slow: bool
) -> None:
    assert costs_fast_tier(fields) is slow
    assert {"campaigns_received", "canvases_received"} == SLOW_FIELDS


class Canned:
    """Answers every request with everything."""

    async def send(self, request: Request) -> Response:
        return Response(200, {}, b'{"message": "success", "users": [], "object_prefix": "p"}')

    def stream(self, download: Download) -> AbstractAsyncContextManager[Streamed]:
        raise AssertionError("nothing is downloaded here")

    async def aclose(self) -> None:
        pass


async def via_get(client: BrazeClient, fields: list[str]) -> int:
    await client.users.get("u1", fields=fields)
    return line() - 1


async def via_export_ids(client: BrazeClient, fields: list[str]) -> int:
    client.users.export_ids(["u1"], fields=fields)
    return line() - 1


async def via_export_segment(client: BrazeClient, fields: list[str]) -> int:
    await client.users.export_segment("s1", fields=fields)
    return line() - 1


async def via_control_group(client: BrazeClient, fields: list[str]) -> int:
    await client.users.export_global_control_group(fields=fields)
    return line() - 1


async def via_fields_of_a_class(client: BrazeClient, fields: list[str]) -> int:
    into = attrs.make_class("Into", fields)
    client.users.export_ids(["u1"], into=into)
    return line() - 1


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


@pytest.mark.parametrize(
    "call", [via_get, via_export_ids, via_export_segment, via_control_group, via_fields_of_a_class]
)
async def test_the_warning_points_at_the_line_of_the_call(
    call: Callable[[BrazeClient, list[str]], Awaitable[int]],
) -> None:
    async with BrazeClient("key", "US-01", transport=Canned()) as client:
        with pytest.warns(UnknownFieldWarning) as told:
            expected = await call(client, ["emial"])
    assert [(w.filename, w.lineno) for w in told] == [(__file__, expected)]


async def test_the_control_group_has_fewer_fields() -> None:
    async with Sandbox(users=20) as sandbox, BrazeClient(sandbox.api_key, sandbox.url) as braze:
        with pytest.warns(UnknownFieldWarning, match="push_tokens for the global control") as seen:
            await braze.users.export_global_control_group(fields=["email", "push_tokens"])
        assert [warning.filename for warning in seen] == [__file__]
        with pytest.warns(UnknownFieldWarning, match="'emial'") as seen:
            await braze.users.export_segment(sandbox.segment_id(1), fields=["emial"])
        assert [warning.filename for warning in seen] == [__file__]
        assert sandbox.log[0].body == {"fields_to_export": ["email", "push_tokens"]}
