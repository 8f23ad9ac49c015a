import copy
import enum
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import (
    BrazeId,
    DeviceId,
    EmailAddress,
    InputError,
    InvalidIdentifierError,
    InvalidUserId,
    PhoneNumber,
    UserAlias,
)
from braze_export.identifiers import SINGLE_KINDS, check_identifier, check_name, describe

SINGLE: list[Any] = [BrazeId, DeviceId, EmailAddress, PhoneNumber]
BAD = [
    "",
    " ",
    "\t\n",
    "\u2003",
    "\ud83d",
    "a\udc00",
    None,
    5,
    1.5,
    True,
    b"u1",
    [],
    ("a",),
    object(),
]
GOOD = ["u1", " u1 ", "Zoë", "😀", "a\u2028b", "\x00", "0", "x" * 10_000]


class Text(str):
    """As numpy's ``str_`` is."""


class Kind(enum.StrEnum):
    U1 = "u1"


class Older(str, enum.Enum):  # noqa: UP042 - as people wrote them before StrEnum
    U1 = "u1"


@pytest.mark.parametrize("text", GOOD)
def test_any_text_is_an_external_id(text: str) -> None:
    assert check_identifier(text) is text
    assert check_name(text, "segment_id") is text
    for kind in SINGLE:
        assert kind(text).value == text
        assert check_identifier(kind(text)) == kind(text)


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_identifier_is_refused_without_being_shown(value: Any) -> None:
    with pytest.raises(
        InputError, match=r"the identifier is .* allowed are an external id"
    ) as caught:
        check_identifier(value)
    with pytest.raises(InputError, match="at position 7"):
        check_identifier(value, 7)
    with pytest.raises(InputError, match="segment_id must be a string"):
        check_name(value, "segment_id")
    for kind in SINGLE:
        with pytest.raises(InputError, match=rf"{kind.__name__}\.value must be a string"):
            kind(value)
    with pytest.raises(InputError, match=r"UserAlias\.alias_name"):
        UserAlias(value, "label")
    with pytest.raises(InputError, match=r"UserAlias\.alias_label"):
        UserAlias("name", value)
    assert "\\ud83d" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "an empty or blank string"),
        (" \n", "an empty or blank string"),
        ("secret\ud83d", "a string that is not valid Unicode"),
        (None, "None"),
        (b"secret", "of type bytes"),
        (["secret"], "of type list"),
    ],
)
def test_values_are_described_not_shown(value: object, said: str) -> None:
    assert describe(value) == said


@given(st.text(st.characters()))
def test_what_is_accepted_can_be_sent(text: str) -> None:
    sound = bool(text.strip()) and not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)
    try:
        accepted = check_identifier(text)
    except InputError:
        assert not sound
    else:
        assert sound
        assert accepted == text


@pytest.mark.parametrize("text", [Text("u1"), Kind.U1, Older.U1])
def test_subclasses_of_text_become_what_json_can_hold(text: Any) -> None:
    found = [check_identifier(text), check_name(text, "segment_id"), BrazeId(text).value]
    alias = UserAlias(text, text)
    for value in [*found, alias.alias_name, alias.alias_label]:
        assert type(value) is str
        assert value == "u1"


def test_identifiers_are_values_of_their_kind() -> None:
    made: list[Any] = [*(kind("x") for kind in SINGLE), UserAlias("x", "x"), "x"]
    assert len(set(made)) == len(made)
    assert BrazeId("x") == BrazeId("x")
    assert UserAlias("a", "b") == UserAlias(alias_name="a", alias_label="b")
    assert UserAlias("a", "b") != UserAlias("b", "a")
    for identifier in made:
        assert pickle.loads(pickle.dumps(identifier)) == identifier
        assert copy.deepcopy(identifier) == identifier
        assert InvalidUserId(identifier) == InvalidUserId(identifier)


def test_identifiers_do_not_change() -> None:
    identifier = BrazeId("x")
    with pytest.raises(AttributeError):
        identifier.value = "y"  # type: ignore[misc]
    assert identifier.value == "x"


def test_every_kind_but_aliases_goes_alone() -> None:
    assert list(SINGLE_KINDS) == SINGLE
    assert list(SINGLE_KINDS.values()) == ["braze_id", "device_id", "email_address", "phone"]


def test_a_subclass_of_a_kind_is_none_for_the_kind_decides_how_it_is_asked_for() -> None:
    class WorkMail(EmailAddress):
        """Somebody's own."""

    with pytest.raises(InvalidIdentifierError, match="of type WorkMail"):
        check_identifier(WorkMail("a@example.com"))
