import copy
import inspect
import pickle
from typing import Any

import pytest

from braze_export import errors
from braze_export.errors import (
    APIError,
    BrazeError,
    BrazeWarning,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    ExportInProgressError,
    InputError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
    UnknownFieldWarning,
)

EVERY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]
EXCEPTIONS = [kind for kind in EVERY if issubclass(kind, BrazeError)]
ANSWERS = [kind for kind in EXCEPTIONS if issubclass(kind, APIError)]
SILENCES = [kind for kind in EXCEPTIONS if issubclass(kind, TransportError)]


def drawn_tree() -> dict[str, str]:
    """Class to the class it hangs below, from the drawing in the module's docstring."""
    above: dict[int, str] = {}
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        drawn = line.lstrip(" │├└─")
        name = drawn.split(" ")[0]
        if not name.endswith(("Error", "Warning")):
            continue
        depth = len(line) - len(drawn)
        above[depth] = name
        shallower = [d for d in above if d < depth]
        parents[name] = above[max(shallower)] if shallower else ""
    return parents


def test_the_tree_is_as_drawn() -> None:
    drawn = drawn_tree()
    assert drawn.keys() == {kind.__name__ for kind in EVERY}
    for kind in EVERY:
        parent = drawn[kind.__name__]
        assert not parent or parent == kind.__bases__[0].__name__, kind


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(ClientClosedError, RuntimeError)
    assert issubclass(RequestTimeoutError, TimeoutError)
    assert issubclass(BrazeWarning, UserWarning)
    assert issubclass(UnknownFieldWarning, BrazeWarning)
    assert not issubclass(TransportError, APIError)
    assert not issubclass(APIError, TransportError)


def test_only_a_failed_connection_was_surely_not_sent() -> None:
    assert ConnectError("x").sent is False
    assert all(kind("x").sent for kind in SILENCES if kind is not ConnectError)


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_a_message_alone_makes_an_error(kind: type[BrazeError]) -> None:
    error = kind("what went wrong")
    assert str(error) == "what went wrong"
    assert "what went wrong" in repr(error)
    assert error.identifiers == ()
    assert error.partial is None


@pytest.mark.parametrize("kind", SILENCES)
def test_what_a_transport_error_says(kind: type[TransportError]) -> None:
    assert str(kind("refused", endpoint="GET /x")) == "GET /x: refused"
    assert str(kind("refused", attempts=3)) == "refused (tried 3 times)"
    assert str(kind("refused", endpoint="GET /x", attempts=2)) == "GET /x: refused (tried 2 times)"
    assert str(kind("refused", attempts=2, hint="Look")) == "refused (tried 2 times). Look"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, "no"),
        ({"status": 400}, "400 no"),
        ({"endpoint": "GET /x"}, "GET /x: no"),
        ({"errors": ["a", "b"]}, "no (a; b)"),
        ({"attempts": 1}, "no"),
        ({"attempts": 6}, "no (tried 6 times)"),
        ({"hint": "See there"}, "no. See there"),
        (
            {"status": 400, "endpoint": "GET /x", "errors": ["a"], "attempts": 2, "hint": "See"},
            "GET /x: 400 no (a) (tried 2 times). See",
        ),
    ],
)
@pytest.mark.parametrize("kind", ANSWERS)
def test_what_an_answer_says(kind: type[APIError], parts: dict[str, Any], expected: str) -> None:
    error = kind("no", **parts)
    assert str(error) == expected
    assert error.message == "no"
    assert (error.status, error.attempts) == (parts.get("status", 0), parts.get("attempts", 1))
    assert error.errors == tuple(parts.get("errors", ()))


def test_a_message_that_ends_in_a_full_stop_gets_no_second_one() -> None:
    assert str(APIError("Check your syntax.", hint="See there")) == "Check your syntax. See there"


@pytest.mark.parametrize(
    "twin_of", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy]
)
@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_errors_survive_pickle_and_copies(kind: type[BrazeError], twin_of: Any) -> None:
    error: Any
    if kind in ANSWERS:
        error = kind("no", status=429, errors=["a"], endpoint="GET /x", attempts=2, hint="See")
    elif kind in SILENCES:
        error = kind("no", endpoint="GET /x", attempts=2)
    else:
        error = kind("no")
    error.identifiers = ("u1",)
    error.partial = ["u0"]
    if kind in {RateLimitError, ExportInProgressError, ServerError}:
        error.retry_after = 2.5
    if kind is DecodeError:
        error.raw = b"{"
    twin = twin_of(error)
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
    assert twin.args == error.args


def test_the_bytes_of_a_record_are_not_in_the_text() -> None:
    error = DecodeError("a user cannot be read")
    error.raw = b'{"email": "jane@example.com"}'
    assert "jane" not in str(error) + repr(error)


def test_a_broken_connection_is_told_from_none() -> None:
    assert not issubclass(ConnectionLostError, ConnectError)
