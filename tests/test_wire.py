import copy
import logging
import pickle
import traceback
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import InputError, Timeouts
from braze_export.endpoints import EXPORT_IDS, SEGMENTS_LIST
from braze_export.wire import ApiKey, Request, Response

SECRET = "0123abcd-1111-2222-3333-444455556666"


def request(body: bytes | None = b"{}") -> Request:
    return Request(
        EXPORT_IDS, "https://x/users/export/ids", ApiKey(SECRET), "ua/1", Timeouts(), body
    )


def shown(value: Any) -> list[str]:
    record = logging.LogRecord("x", 20, "x", 1, "%s %r", (value, value), None)
    return [
        repr(value),
        str(value),
        f"{value}",
        f"{value!s:>60}",
        record.getMessage(),
    ]


@pytest.mark.parametrize(
    "value", [ApiKey(SECRET), request(), [ApiKey(SECRET)], {"key": ApiKey(SECRET)}]
)
def test_the_key_shows_nowhere(value: Any) -> None:
    for text in shown(value):
        assert SECRET not in text
        assert "***" in text


def test_the_key_shows_in_no_dictionary_of_attributes() -> None:
    for form in (attrs.asdict(request()), attrs.astuple(request())):
        assert SECRET not in repr(form)
    assert not hasattr(ApiKey(SECRET), "__dict__")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [ApiKey(SECRET), request(), [ApiKey(SECRET)]])
def test_the_key_is_not_pickled(value: Any, protocol: int) -> None:
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(value, protocol)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy])
def test_the_key_is_not_copied(twin_of: Any) -> None:
    with pytest.raises(TypeError, match="not pickled"):
        twin_of(ApiKey(SECRET))


def test_the_key_is_sent() -> None:
    assert ApiKey(SECRET).bearer() == f"Bearer {SECRET}"
    assert request().headers == {
        "Authorization": f"Bearer {SECRET}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": "ua/1",
        "Content-Type": "application/json",
    }
    assert "Content-Type" not in request(None).headers
    assert "Content-Type" in request(b"").headers


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("\n", "empty"),
        (None, "empty"),
        (SECRET.encode(), "empty"),
        (f"'{SECRET}'", "quotes"),
        (f'"{SECRET}"', "quotes"),
        (f'{SECRET}"', "quotes"),
        (f"{SECRET}\n", "line break"),
        (f" {SECRET}", "space"),
        (f"{SECRET} x", "space"),
        (f"{SECRET}\r\nX-Header: y", "line break"),
        (f"{SECRET}\x00", "no key has"),
        (f"{SECRET}\t", "no key has"),
        (f"{SECRET}é", "no key has"),
        (f"{SECRET}\u2028", "no key has"),
        (f"{SECRET}\ud83d", "no key has"),
    ],
)
def test_what_can_be_no_key(value: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        ApiKey(value)
    assert SECRET not in str(caught.value)


@given(st.text(st.characters()))
def test_a_key_can_stand_in_a_header_or_is_refused(text: str) -> None:
    try:
        header = ApiKey(text).bearer()
    except InputError:
        return
    assert header.encode("ascii").decode().removeprefix("Bearer ") == text
    assert all("!" <= letter <= "~" for letter in text)


@given(st.text(), st.text())
def test_an_echoed_key_is_taken_out(before: str, after: str) -> None:
    key = ApiKey(SECRET)
    assert key.redact(before + SECRET + after) == f"{before}***{after}"
    assert key.redact(before) == before


def test_bodies_and_headers_are_not_shown() -> None:
    response = Response(200, {"x-secret": "abc"}, b"jane@example.com")
    assert repr(response) == "Response(status=200)"
    assert "jane" not in repr(request(b"jane@example.com"))
    assert "https://x/users/export/ids" in repr(request())


def test_what_crosses_the_seam_does_not_change() -> None:
    for value, name in (
        (request(), "url"),
        (Response(200, {}, b""), "status"),
        (Timeouts(), "read"),
    ):
        with pytest.raises(AttributeError):
            setattr(value, name, "x")


@pytest.mark.parametrize("name", ["connect", "read", "total"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_timeouts_are_above_zero(name: str, seconds: float) -> None:
    with pytest.raises(InputError, match=name):
        Timeouts(**{name: seconds})


def test_the_default_timeouts() -> None:
    assert Timeouts() == Timeouts(connect=10.0, read=30.0, total=180.0)


def test_endpoints_are_named_by_method_and_path() -> None:
    assert EXPORT_IDS.label == "POST /users/export/ids"
    assert SEGMENTS_LIST.label == "GET /segments/list"
