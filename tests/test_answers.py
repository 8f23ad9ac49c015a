import json
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import errors
from braze_export.answers import (
    RateWindow,
    check,
    decode_error,
    is_in_progress,
    read_error,
    read_messages,
    read_rate_window,
    read_retry_after,
)
from braze_export.endpoints import (
    EXPORT_GLOBAL_CONTROL_GROUP,
    EXPORT_IDS,
    EXPORT_SEGMENT,
    Endpoint,
)
from braze_export.errors import APIError, RateLimitError, ServerError
from braze_export.wire import ApiKey, Request, Response, Timeouts
from tests.payloads import encode, sample, values

SECRET = "0123abcd-1111-2222-3333-444455556666"
NOW = 1_700_000_000.0
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"  # NOW
NO_DATES = [
    "",
    " ",
    "soon",
    "Tue",
    "Tue, 99 Nov 2023 22:13:20 GMT",
    "Tue, 14 Nov 99999999999999999999 22:13:20 GMT",
    "Tue, 14 Nov 2023 22:13:20 +99999999999999999999",
    "Tue, 14 Nov 2023 22:13:20 +9999",
    "2023-11-14T22:13:20Z",
    "\ud83d",
]
NO_NUMBERS = [
    "",
    " ",
    "soon",
    "-1",
    "-0.5",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "0x10",
    "1,5",
    "\ud83d",
    "9" * 400,
]


def window(**headers: str) -> RateWindow:
    return read_rate_window(
        {name.replace("_", "-"): value for name, value in headers.items()}, now=NOW
    )


def request(endpoint: Endpoint = EXPORT_IDS) -> Request:
    return Request(endpoint, "https://x", ApiKey(SECRET), "ua/1", Timeouts())


def failure(
    status: int,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    endpoint: Endpoint = EXPORT_IDS,
) -> Any:
    with pytest.raises(APIError) as caught:
        check(request(endpoint), Response(status, headers or {}, body), now=NOW)
    return caught.value


# The rate limit


def test_no_headers_say_nothing() -> None:
    assert window() == RateWindow(clock=NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000030", 30.0),
        ("1700000030.5", 30.5),
        (" 1700000030 ", 30.0),
        ("1700000030000", 30.0),
        ("1.70000003e9", 30.0),
        ("1699999999", None),
        ("1700000000", None),
        ("0", None),
        ("30", 30.0),  # from now; as a moment it was in 1970
        *((text, None) for text in NO_NUMBERS),
        (DATE, None),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
    ],
)
def test_when_the_window_turns(text: str, seconds: float | None) -> None:
    expected = None if seconds is None else pytest.approx(seconds)
    for headers in ({}, {"date": DATE}, {"date": "soon"}):
        assert window(x_ratelimit_reset=text, **headers).resets_in == expected


@pytest.mark.parametrize("bad", NO_DATES)
def test_a_date_that_is_none_leaves_our_own_clock(bad: str) -> None:
    assert window(x_ratelimit_reset="1700000030", date=bad).resets_in == 30.0


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:13:40 GMT", 10.0),
        ("Tue, 14 Nov 2023 21:13:20 GMT", 3630.0),
        ("Tue, 14 Nov 2023 22:13:20 -0000", 30.0),
        ("Tue, 14 Nov 2023 23:13:20 +0100", 30.0),
        ("Tue, 14 Nov 2023 23:13:20 GMT", None),
    ],
)
def test_the_servers_clock_counts_not_ours(date: str, seconds: float | None) -> None:
    assert window(x_ratelimit_reset="1700000030", date=date).resets_in == seconds


def test_a_reset_far_away_is_a_finite_number() -> None:
    found = window(x_ratelimit_reset="1" + "0" * 300).resets_in
    assert found is not None
    assert 0 < found < float("inf")


@pytest.mark.parametrize("name", ["limit", "remaining"])
@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("2500", 2500), ("12.9", 12), (" 7 ", 7), *((text, None) for text in NO_NUMBERS)],
)
def test_how_many_requests(name: str, text: str, number: int | None) -> None:
    found = window(**{f"x_ratelimit_{name}": text})
    assert getattr(found, name) == (number or None if name == "limit" else number)
    assert found.resets_in is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30", 30.0),
        ("1.5", 1.5),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:20 GMT", 0.0),
        ("Tue, 14 Nov 2023 20:13:20 GMT", 0.0),
        ("Tue, 14 Nov 2023 23:14:20 +0100", 60.0),
        *((text, None) for text in NO_NUMBERS),
        *((text, None) for text in NO_DATES),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert read_retry_after({"retry-after": text}, now=NOW) == seconds
    assert read_retry_after({"retry-after": text, "date": DATE}, now=NOW) == seconds


def test_retry_after_by_the_servers_clock() -> None:
    headers = {
        "retry-after": "Tue, 14 Nov 2023 22:13:50 GMT",
        "date": "Tue, 14 Nov 2023 22:13:40 GMT",
    }
    assert read_retry_after(headers, now=NOW) == 10.0
    assert read_retry_after({}, now=NOW) is None


header_texts = (
    st.text(st.characters(), max_size=20)
    | st.floats().map(str)
    | st.integers().map(str)
    | st.text("MonTueJan 0123456789:+-,.GMTe", max_size=40)
    | st.datetimes(timezones=st.just(UTC)).map(lambda when: format_datetime(when, usegmt=True))
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "retry-after",
                "date",
            ]
        ),
        header_texts,
    ),
    st.floats(0, 1e10),
)
def test_any_headers_are_read(headers: dict[str, str], now: float) -> None:
    found = read_rate_window(headers, now=now)
    for number in (found.limit, found.remaining):
        assert number is None or (type(number) is int and number >= 0)
    for seconds in (found.resets_in, read_retry_after(headers, now=now)):
        assert seconds is None or 0 <= seconds < float("inf")


# The status

KINDS = {
    100: APIError,
    301: APIError,
    302: APIError,
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: APIError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: APIError,
    413: errors.PayloadTooLargeError,
    415: errors.UnsupportedMediaTypeError,
    418: APIError,
    429: errors.RateLimitError,
    500: errors.ServerError,
    502: errors.ServerError,
    503: errors.ServerError,
    504: errors.ServerError,
    599: errors.ServerError,
}


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize("body", [b"", b"<html>", sample("error_nonfatal.json")])
def test_successes_pass(status: int, body: bytes) -> None:
    check(request(), Response(status, {}, body), now=NOW)  # raises nothing


@pytest.mark.parametrize(("status", "kind"), KINDS.items())
def test_each_status_has_its_error(status: int, kind: type[APIError]) -> None:
    error = failure(status, b'{"message": "no", "errors": ["a", "b"]}')
    assert type(error) is kind
    assert (error.status, error.message, error.errors) == (status, "no", ("a", "b"))
    assert error.endpoint == "POST /users/export/ids"
    assert error.attempts == 1
    assert str(error).startswith(f"POST /users/export/ids: {status} no (a; b)")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (300, "Redirects are not followed"),
        (399, "Redirects are not followed"),
        (400, r"See https://www\.braze\.com/docs/"),
        (401, "base_url is the REST endpoint"),
        (403, r"the permission users\.export\.ids"),
        (404, "Check base_url"),
        (413, "4 MB"),
        (415, "headers"),
        (418, r"See https://www\.braze\.com/docs/"),
        (429, "try again after its reset"),
        (500, "try again later"),
        (503, "try again later"),
    ],
)
def test_hints_say_what_to_do(status: int, hint: str) -> None:
    assert re.search(hint, failure(status).hint)


# The body


@pytest.mark.parametrize(
    ("body", "message", "more"),
    [
        (sample("error_fatal.json"), "<fatal error message>", ["<minor error message>"]),
        (
            sample("error_bad_json_400.json"),
            "Error while parsing request body. Please check your syntax.",
            [],
        ),
        (
            sample("error_objects_variant_cursor_400.json"),
            "Invalid Request",
            ["'cursor' is not valid"],
        ),
        (b"", "(no readable message)", []),
        (b"   ", "(no readable message)", []),
        (b"Bad Gateway\r\n", "Bad Gateway", []),
        (b"<html><body>Bad Gateway", "(no readable message)", []),
        (b"two\nlines", "(no readable message)", []),
        (b"\x1f\x8b\x00garbage", "(no readable message)", []),
        ("Zoë".encode(), "Zoë", []),
        (b"[]", "[]", []),
        (b"null", "null", []),
        (b"5", "5", []),
        (b"{}", "(no message)", []),
        (b'{"message": ""}', "(no message)", []),
        (b'{"message": "  "}', "(no message)", []),
        (b'{"message": null, "error": "e"}', "e", []),
        (b'{"message": 5}', "5", []),
        (b'{"message": {"a": [1]}}', '{"a":[1]}', []),
        (b'{"message": {"a": 18446744073709551616}}', '{"a":18446744073709551616}', []),
        (b'{"message": "a\\ud83db"}', "a?b", []),
        (b'{"message": {"a": "\\ud83d"}}', '{"a": "\\ud83d"}', []),
        (b'{"message": "no", "errors": null}', "no", []),
        (b'{"message": "no", "errors": "e"}', "no", ["e"]),
        (b'{"message": "no", "errors": {"message": "e"}}', "no", ["e"]),
        (
            b'{"message": "no", "errors": [{"id": "x"}, 5, null, "\\ud83d"]}',
            "no",
            ['{"id":"x"}', "5", "null", "?"],
        ),
    ],
)
def test_the_shapes_of_an_error(body: bytes, message: str, more: list[str]) -> None:
    error = failure(400, body)
    assert error.message == message
    assert error.errors == tuple(more)
    assert str(error).encode()  # can be printed
    assert read_error(Response(400, {}, body), str) == (message, more)


def test_long_messages_are_cut() -> None:
    error = failure(400, encode({"message": "m" * 5000, "errors": ["e" * 5000]}))
    assert error.message == "m" * 300
    assert error.errors == ("e" * 300,)
    assert failure(502, b"m" * 5000).message == "m" * 300


@pytest.mark.parametrize("before", [0, 1, 263, 264, 265, 280, 299, 300])
def test_an_echoed_key_does_not_show_not_even_a_part_of_it(before: int) -> None:
    echo = "-" * before + SECRET * 40
    bodies = [echo.encode(), encode({"message": echo, "errors": [echo, {"id": echo}]})]
    for body in bodies:
        error = failure(401, body)
        assert SECRET[:4] not in f"{error}{error!r}{vars(error)}"


def test_non_fatal_messages() -> None:
    assert read_messages(json.loads(sample("error_nonfatal.json"))["errors"]) == [
        "<minor error message>"
    ]
    assert read_messages(None) == []
    assert read_messages([]) == []


bodies = (
    st.binary()
    | values.map(encode)
    | st.fixed_dictionaries(
        {}, optional={"message": values, "error": values, "errors": values}
    ).map(encode)
)


@given(bodies, st.integers(100, 599), st.sampled_from([EXPORT_IDS, EXPORT_SEGMENT]))
def test_any_answer_is_a_success_or_our_own_error(
    body: bytes, status: int, endpoint: Endpoint
) -> None:
    if 200 <= status < 300:
        check(request(endpoint), Response(status, {}, body), now=NOW)  # raises nothing
        return
    error = failure(status, body, endpoint=endpoint)
    assert error.status == status
    assert 0 < len(error.message) <= 300
    assert str(error).encode()


@pytest.mark.parametrize("depth", [10, 500, 900, 950, 990, 995, 1000, 100_000])
def test_messages_nested_deeply(depth: int) -> None:
    error = failure(400, b'{"message": {"a": %s%s}}' % (b"[" * depth, b"]" * depth))
    assert type(error) is errors.BadRequestError
    assert error.message


# 429


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-reset": "1700000030"}, 30.0),
        ({"retry-after": "7", "x-ratelimit-reset": "1700000030"}, 30.0),  # the later of the two
        ({"retry-after": "70", "x-ratelimit-reset": "1700000030"}, 70.0),
        ({"retry-after": "0", "x-ratelimit-reset": "1700000030"}, 30.0),
        ({"retry-after": "soon", "x-ratelimit-reset": "1700000030"}, 30.0),
        ({"x-ratelimit-reset": "1600000000"}, None),
    ],
)
def test_how_long_to_wait_after_a_429(headers: dict[str, str], seconds: float | None) -> None:
    error = failure(429, headers=headers)
    assert type(error) is RateLimitError
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"retry-after": "7"}, 7.0), ({"x-ratelimit-reset": "1700000030"}, None)],
)
def test_how_long_to_wait_after_a_503(headers: dict[str, str], seconds: float | None) -> None:
    error = failure(503, headers=headers)
    assert type(error) is ServerError
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("message", "remaining", "running"),
    [
        ("Rate Limited", "0", False),
        ("Rate Limited", "0.0", False),
        ("Rate Limited", "7", True),
        ("Rate Limited", None, True),
        ("Rate Limited", "soon", True),
        ("An export is already in progress", "0", True),
        ("ALREADY RUNNING", "0", True),
        ("", "0", False),
    ],
)
def test_the_two_meanings_of_429(message: str, remaining: str | None, *, running: bool) -> None:
    headers = {} if remaining is None else {"x-ratelimit-remaining": remaining}
    body = encode({"message": message})
    assert is_in_progress(Response(429, headers, body), message) is running
    for endpoint in (EXPORT_SEGMENT, EXPORT_GLOBAL_CONTROL_GROUP):
        error = failure(429, body, headers, endpoint)
        assert type(error) is (errors.ExportInProgressError if running else RateLimitError)
        assert ("already running" in error.hint) is running
    assert type(failure(429, body, headers, EXPORT_IDS)) is RateLimitError


def test_a_decode_error_keeps_the_bytes_out_of_its_text() -> None:
    error = decode_error("the body is no JSON", endpoint=EXPORT_IDS, raw=b"jane@example.com")
    assert str(error) == f"POST /users/export/ids: 200 the body is no JSON. See {EXPORT_IDS.docs}"
    assert error.raw == b"jane@example.com"
    assert decode_error("x", endpoint=EXPORT_IDS, status=206).status == 206


def test_the_date_is_the_moment_it_claims() -> None:
    assert datetime.fromtimestamp(NOW, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT") == DATE
