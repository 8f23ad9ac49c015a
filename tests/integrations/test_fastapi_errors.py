"""What an app answers when Braze, or the way to it, fails."""

import asyncio
import logging
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st

from braze_export import Limits, RateLimit, RetryPolicy, Timeouts, errors
from braze_export.errors import BrazeError, RateLimitError
from braze_export.identifiers import check_identifier
from braze_export.integrations.fastapi import (
    BRAZE_RESPONSES,
    Braze,
    add_error_handlers,
    braze_lifespan,
    within,
)
from braze_export.integrations.fastapi_errors import _retry_after
from braze_export.sandbox import Fault, Sandbox, Window
from tests.integrations.fastapi_apps import asking, making, running, serving, talk

pytestmark = pytest.mark.usefixtures("nothing_left")

EMAIL = "ada.lovelace@example.com"
HOST = "rest.example.invalid"
SECRET = f"{EMAIL} of {HOST} with s3cr3t-key"


def refused(retry_after: float | None) -> RateLimitError:
    error = RateLimitError(SECRET, status=429, endpoint="POST /users/export/ids", errors=[SECRET])
    error.retry_after = retry_after
    return error


#: Error, status and ``Retry-After``. The rest is left to the app.
ANSWERED: list[tuple[BrazeError, int, str | None]] = [
    (refused(None), 503, "1"),
    (refused(0.0), 503, "1"),
    (refused(7.01), 503, "8"),
    (refused(10.0**9), 503, "3600"),
    (errors.DeadlineExceededError(SECRET, retry_after=29.5), 503, "30"),
    (errors.DeadlineExceededError(SECRET, retry_after=0.0), 503, "1"),
    (errors.DeadlineExceededError(SECRET), 504, None),
    (errors.LimiterError(SECRET), 503, "1"),
    (errors.ClientClosedError(SECRET), 503, "1"),
    (errors.ExportInProgressError(SECRET, status=429), 409, None),
    (errors.RequestTimeoutError(SECRET), 504, None),
    (errors.ExportNotReadyError(SECRET), 504, None),
    (errors.ConnectError(SECRET), 502, None),
    (errors.ConnectionLostError(SECRET), 502, None),
    (errors.TransportError(SECRET), 502, None),
    (errors.BadRequestError(SECRET, status=400), 502, None),
    (errors.AuthenticationError(SECRET, status=401), 502, None),
    (errors.PermissionDeniedError(SECRET, status=403), 502, None),
    (errors.NotFoundError(SECRET, status=404), 502, None),
    (errors.PayloadTooLargeError(SECRET, status=413), 502, None),
    (errors.UnsupportedMediaTypeError(SECRET, status=415), 502, None),
    (errors.ServerError(SECRET, status=503), 502, None),
    (errors.ExportExpiredError(SECRET), 502, None),
    (errors.ArchiveError(SECRET), 502, None),
    (errors.DecodeError(SECRET), 502, None),
    (errors.APIError(SECRET), 502, None),
]
LEFT: list[Exception] = [
    errors.InputError(SECRET),
    errors.JobError(SECRET),
    errors.JobRunningError(SECRET),
    errors.BrazeError(SECRET),
    ValueError(SECRET),
    TimeoutError(SECRET),
]


def raising(error: Exception) -> FastAPI:
    """Return an app that fails in its endpoint, in a dependency, and in its stream."""
    app = FastAPI()

    async def failing() -> None:
        raise error

    async def stream() -> AsyncIterator[bytes]:
        yield b"x"
        raise error

    @app.get("/endpoint")
    async def endpoint() -> None:
        raise error

    @app.get("/dependency", dependencies=[Depends(failing)])
    async def dependency() -> None:
        raise AssertionError("not reached")

    @app.get("/stream")
    async def streaming() -> StreamingResponse:
        return StreamingResponse(stream())

    @app.websocket("/refused")
    async def not_accepted(websocket: WebSocket) -> None:
        raise error

    @app.websocket("/accepted")
    async def accepted(websocket: WebSocket) -> None:
        await websocket.accept()
        raise error

    @app.websocket("/left")
    async def left(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()
        raise error

    add_error_handlers(app)
    return app


def test_every_error_has_its_place_in_the_table() -> None:
    known = {type(error) for error, *_ in ANSWERED} | {type(error) for error in LEFT}
    ours = {e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, BrazeError)}
    jobs = {e for e in ours if issubclass(e, errors.JobError)}
    assert ours - known - jobs == {errors.InvalidIdentifierError}


@pytest.mark.parametrize("path", ["/endpoint", "/dependency"])
@pytest.mark.parametrize(("error", "status", "after"), ANSWERED)
async def test_errors_and_their_answers(
    error: BrazeError,
    status: int,
    after: str | None,
    path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asking(raising(error)) as client:
        answer = await client.get(path)
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == after
    assert list(answer.json()) == ["detail"]
    assert answer.json()["detail"].endswith(".")
    (record,) = (r for r in caplog.records if r.name == "braze_export")
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(type(error).__name__)
    assert record.getMessage().endswith(f"answered with {status}")
    for text in (answer.text, str(answer.headers), caplog.text):
        assert not any(secret in text for secret in (EMAIL, HOST, "s3cr3t"))


async def test_the_log_names_the_status_and_endpoint_of_braze(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asking(raising(refused(1.0))) as client:
        await client.get("/endpoint")
    message = "RateLimitError 429 POST /users/export/ids: answered with 503"
    assert caplog.record_tuples[0] == ("braze_export", logging.WARNING, message)


@pytest.mark.parametrize("path", ["/endpoint", "/dependency"])
@pytest.mark.parametrize("error", LEFT)
async def test_other_errors_are_left_to_the_app(error: Exception, path: str) -> None:
    async with asking(raising(error)) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


async def test_a_malformed_identifier_is_answered_in_the_shape_of_fastapi() -> None:
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/")
    async def index(user_id: str) -> None:
        check_identifier(user_id)

    async with asking(app) as client:
        answer = await client.get("/", params={"user_id": " "})
        usual = await client.get("/")
    assert answer.status_code == usual.status_code == 422
    (ours,), (theirs,) = answer.json()["detail"], usual.json()["detail"]
    assert {key: type(value) for key, value in ours.items()} == {
        key: type(theirs[key]) for key in ("type", "loc", "msg")
    }
    assert "an empty or blank string" in ours["msg"]


@given(st.none() | st.floats(min_value=0) | st.just(inf))
def test_retry_after_is_whole_and_not_too_early(seconds: float | None) -> None:
    after = _retry_after(refused(seconds))
    assert isinstance(after, int)
    assert 1 <= after <= 3600
    assert min(seconds or 0.0, 3600.0) <= after < (seconds or 0.0) + 2


async def own(request: Request, error: Exception) -> PlainTextResponse:
    return PlainTextResponse("own", 418)


@pytest.mark.parametrize("kind", [errors.APIError, errors.RateLimitError])
@pytest.mark.parametrize("first", [True, False])
async def test_handlers_of_the_app_take_precedence(kind: type[Exception], first: bool) -> None:
    app = FastAPI(exception_handlers={kind: own} if first else None)
    add_error_handlers(app)
    if not first:
        app.add_exception_handler(kind, own)

    @app.get("/")
    async def index() -> None:
        raise refused(1.0)

    async with asking(app) as client:
        assert (await client.get("/")).status_code == 418


async def test_an_answer_that_has_begun_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(raising(errors.ConnectionLostError("gone"))) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/stream")
    assert "Exception in ASGI application" in caplog.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refused(1.0), 1013),
        (errors.DeadlineExceededError("", retry_after=1.0), 1013),
        (errors.LimiterError(), 1013),
        (errors.DeadlineExceededError(""), 1011),
        (errors.ConnectError(SECRET), 1011),
        (errors.InvalidIdentifierError(SECRET), 1011),
    ],
)
async def test_a_websocket_is_closed(error: BrazeError, code: int) -> None:
    app = raising(error)
    for path, before in {"/refused": 0, "/accepted": 1}.items():
        async with running(app) as with_state:
            sent = await talk(with_state, path)
        closing = sent[before:]
        assert [message["type"] for message in closing] == ["websocket.close"]
        assert closing[0]["code"] == code
        assert EMAIL not in closing[0]["reason"]
        assert 0 < len(closing[0]["reason"]) <= 123  # bytes that a frame has room for


async def test_nothing_is_sent_to_a_websocket_that_has_left() -> None:
    async with running(raising(refused(1.0))) as with_state:
        sent = await talk(with_state, "/left")
    assert [message["type"] for message in sent] == ["websocket.accept"]


async def test_the_answers_stand_in_openapi() -> None:
    app = FastAPI(responses=BRAZE_RESPONSES)

    @app.get("/")
    async def index() -> None: ...

    async with asking(app) as client:
        schema = (await client.get("/openapi.json")).json()
    responses = schema["paths"]["/"]["get"]["responses"]
    assert {"200", "502", "503", "504"} == responses.keys()
    problem = responses["503"]["content"]["application/json"]["schema"]["$ref"]
    assert problem == "#/components/schemas/Problem"
    assert responses["503"]["headers"]["Retry-After"]["schema"]["type"] == "integer"


# --- what really happens, on sockets


def looking_up(sandbox: Sandbox, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=braze_lifespan(making(sandbox, **options)))
    add_error_handlers(app)

    @app.get("/users/{user_id}")
    async def user(user_id: str, braze: Braze) -> str | None:
        profile = await braze.users.get(user_id, fields=["external_id"])
        return None if profile is None else profile.external_id

    @app.get("/soon/{user_id}", dependencies=[Depends(within(0.25))])
    async def soon(user_id: str, braze: Braze) -> str | None:
        return await user(user_id, braze)

    return app


HOUR = 3600.0
FAULTS = {
    "failing": (Fault(status=503), 502),
    "unauthorised": (Fault(status=401), 502),
    "forbidden": (Fault(status=403), 502),
    "not found": (Fault(status=404), 502),
    "refusing": (Fault(status=400), 502),
    "garbage": (Fault(garbage=True), 502),
    "reset": (Fault(drop="before"), 502),
    "cut": (Fault(drop="body"), 502),
    "hanging": (Fault(delay=HOUR), 504),
}


async def test_faults_of_braze_and_what_a_server_answers() -> None:
    async with Sandbox(users=9, profile="small") as sandbox:
        app = looking_up(sandbox, timeouts=Timeouts(total=0.25))
        async with serving(app) as client:
            for name, (fault, status) in FAULTS.items():
                sandbox.inject(fault)
                assert (await client.get("/users/u1")).status_code == status, name
            assert (await client.get("/users/u1")).json() == "u1"


@pytest.mark.parametrize("header", ["retry-after", "x-ratelimit-reset"])
async def test_a_refusal_by_the_rate_limit_says_when_to_return(header: str) -> None:
    async with Sandbox(users=9, profile="small") as sandbox:
        at = {"retry-after": "7", "x-ratelimit-reset": str(int(sandbox.clock()) + 7)}
        headers = dict.fromkeys(at, None) | {header: at[header]}
        sandbox.inject(Fault(status=429, headers=headers))
        async with serving(looking_up(sandbox)) as client:
            answer = await client.get("/users/u1")
    assert answer.status_code == 503
    assert 6 <= int(answer.headers["retry-after"]) <= 8


async def test_a_braze_that_cannot_be_reached() -> None:
    async with Sandbox(users=9) as sandbox:
        app = looking_up(sandbox)
        async with serving(app) as client:
            await sandbox.aclose()
            answer = await client.get("/users/u1")
    assert (answer.status_code, answer.json()) == (502, {"detail": "Braze could not be reached."})


async def test_a_braze_that_does_not_answer_within_the_deadline() -> None:
    async with (
        Sandbox(users=9, profile="small") as sandbox,
        serving(looking_up(sandbox)) as client,
    ):
        assert (await client.get("/soon/u1")).json() == "u1"
        sandbox.inject(Fault(delay=HOUR))
        answer = await client.get("/soon/u2")
        assert (answer.status_code, "retry-after" in answer.headers) == (504, False)
        assert (await client.get("/soon/u3")).json() == "u3"


async def test_a_look_up_that_the_limit_cannot_serve_in_time_is_told_when_to_return() -> None:
    window = Window(1, 60.0)
    limits = Limits(ids=RateLimit(1, 60))
    async with Sandbox(users=9, profile="small", ids_window=window) as sandbox:
        app = looking_up(sandbox, limits=limits, retry=RetryPolicy())
        async with serving(app) as client, asyncio.timeout(5):
            assert (await client.get("/soon/u1")).json() == "u1"
            answer = await client.get("/soon/u2")
            requests = sandbox.counters.requests
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert requests == 1
