import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from attrs import define, field

from braze_export import (
    APIError,
    AuthenticationError,
    BrazeError,
    ConnectError,
    ConnectionLostError,
    DecodeError,
    ExportInProgressError,
    Limits,
    RateLimit,
    RateLimitError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
)
from braze_export.caller import Caller
from braze_export.codec import decode_object
from braze_export.endpoints import EXPORT_IDS, EXPORT_SEGMENT, SEGMENTS_LIST, Endpoint
from braze_export.limiting.governor import LocalLimiter
from braze_export.tasks import TaskScope
from braze_export.wire import ApiKey, Download, Request, Response, Streamed
from tests import virtual

KEY = "very-secret-key"
OK = Response(200, {}, b'{"message":"success"}')


def answer(status: int, body: Any = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, json.dumps(body or {"message": "no"}).encode())


@define
class Script:
    """A transport that gives one answer, or error, after the other, and notes when."""

    answers: list[Response | Exception]
    requests: list[Request] = field(factory=list)
    times: list[float] = field(factory=list)

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        self.times.append(asyncio.get_running_loop().time())
        given = self.answers.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    def stream(self, download: Download) -> AbstractAsyncContextManager[Streamed]:
        raise AssertionError("nothing is downloaded here")

    async def aclose(self) -> None:
        """Nothing to close."""


def make(script: Script, retry: RetryPolicy | None = None, limits: Limits | None = None) -> Caller:
    limits = limits or Limits()
    return Caller(
        scope=TaskScope(),
        base_url="https://rest.example",
        key=ApiKey(KEY),
        transport=script,
        limiter=LocalLimiter(limits),
        retry=retry or RetryPolicy(base=1.0),
        timeouts=Timeouts(),
        user_agent="tests",
        wall_clock=lambda: 0.0,
    )


def call(script: Script, endpoint: Endpoint = EXPORT_IDS, **options: Any) -> Any:
    retry = options.pop("retry", None)

    async def main() -> Any:
        return await make(script, retry).call(endpoint, decode_object, **options)

    return virtual.run(main)


def test_a_success_is_decoded() -> None:
    assert call(Script([OK])) == {"message": "success"}


def test_the_request_is_whole() -> None:
    script = Script([OK])
    call(script, SEGMENTS_LIST, params={"page": 2, "q": "a b+c&d"})
    (request,) = script.requests
    assert request.url == "https://rest.example/segments/list?page=2&q=a+b%2Bc%26d"
    assert request.headers == {
        "Authorization": f"Bearer {KEY}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "User-Agent": "tests",
    }
    script = Script([OK])
    call(script, content={"external_ids": ["é"]})
    (request,) = script.requests
    assert request.body == '{"external_ids":["é"]}'.encode()
    assert request.headers["Content-Type"] == "application/json"


LOST = ConnectionLostError("lost")


@pytest.mark.parametrize(
    "trouble",
    [
        ConnectError("refused"),
        LOST,
        RequestTimeoutError("late"),
        answer(500),
        answer(502),
        answer(503),
        answer(504),
        answer(429),
        answer(429, retry_after="3"),
        Response(200, {}, b'{"message":'),
        Response(200, {}, b"<html>"),
        Response(200, {}, b""),
        Response(200, {}, b"[]"),
    ],
)
def test_what_may_pass_is_tried_again(trouble: Response | Exception) -> None:
    script = Script([trouble, OK])
    assert call(script) == {"message": "success"}
    assert script.times[1] > script.times[0]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 405, 413, 415, 418])
def test_what_will_not_pass_is_raised_at_once(status: int) -> None:
    script = Script([answer(status, {"message": "why", "errors": ["more"]})])
    with pytest.raises(APIError) as caught:
        call(script)
    error = caught.value
    assert (error.status, error.message, error.errors) == (status, "why", ("more",))
    assert (error.endpoint, error.attempts) == ("POST /users/export/ids", 1)


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(answer(500), ServerError), (LOST, ConnectionLostError), (answer(429), RateLimitError)],
)
def test_after_the_last_try_the_error_tells_how_many_there_were(
    trouble: Response | Exception, kind: type[BrazeError]
) -> None:
    script = Script([trouble] * 3)
    with pytest.raises(kind, match="tried 3 times") as caught:
        call(script, retry=RetryPolicy(max_attempts=3))
    assert caught.value.attempts == 3  # type: ignore[attr-defined]


def test_no_pause_is_begun_that_would_end_after_the_total_limit() -> None:
    script = Script([answer(429, retry_after="100")] * 5)
    with pytest.raises(RateLimitError) as caught:
        call(script, retry=RetryPolicy(max_seconds=250))
    assert caught.value.retry_after == 100
    assert len(script.times) == 3
    assert script.times[-1] - script.times[0] <= 250


def test_the_server_s_window_is_waited_for_whatever_retry_after_says() -> None:
    refusal = answer(
        429, retry_after="0", x_ratelimit_reset="30", date="Thu, 01 Jan 1970 00:00:00 GMT"
    )
    script = Script([*[refusal] * 10, OK])
    assert call(script, retry=RetryPolicy(max_attempts=2)) == {"message": "success"}
    pauses = [b - a for a, b in zip(script.times, script.times[1:], strict=False)]
    assert all(pause >= 30 for pause in pauses)


def test_a_server_that_refuses_for_ever_is_given_up() -> None:
    script = Script([answer(429, retry_after="0")] * 100)
    with pytest.raises(RateLimitError):
        call(script)
    assert len(script.requests) == 60


def test_the_wait_for_a_token_does_not_count_against_the_total_limit() -> None:
    async def main() -> float:
        script = Script([OK, answer(500), OK])
        policy = RetryPolicy(max_seconds=20, base=0.1)
        caller = make(script, policy, Limits(ids=RateLimit(1, 1000)))
        await caller.call(EXPORT_IDS, decode_object)
        await caller.call(EXPORT_IDS, decode_object)
        return script.times[1] - script.times[0]

    assert virtual.run(main) == pytest.approx(1000, abs=0.2)


def test_a_429_holds_back_every_call_of_its_pool_and_no_other() -> None:
    script = Script([answer(429, x_ratelimit_reset="30", date="Thu, 01 Jan 1970 00:00:00 GMT")])
    script.answers += [OK] * 3

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        caller = make(script)
        began = loop.time()

        async def timed(work: Awaitable[Any]) -> float:
            await work
            return loop.time() - began

        first = asyncio.create_task(timed(caller.call(EXPORT_IDS, decode_object)))
        await asyncio.sleep(1)
        second = asyncio.create_task(timed(caller.call(EXPORT_IDS, decode_object)))
        other = asyncio.create_task(timed(caller.call(SEGMENTS_LIST, decode_object)))
        return [await first, await second, await other]

    first, second, other = virtual.run(main)
    assert first >= 30
    assert second == pytest.approx(30, abs=0.1)  # it lets the first one ask
    assert other == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "trouble", [LOST, RequestTimeoutError("late"), answer(500), answer(503), Response(200, {}, b"")]
)
def test_the_start_of_an_export_is_not_repeated_blindly(trouble: Response | Exception) -> None:
    script = Script([trouble, OK])
    with pytest.raises((TransportError, ServerError, DecodeError)):
        call(script, EXPORT_SEGMENT)
    assert len(script.requests) == 1


def _unsent() -> RequestTimeoutError:
    error = RequestTimeoutError("no connection in time")
    error.sent = False
    return error


@pytest.mark.parametrize(
    "trouble",
    [ConnectError("refused"), _unsent(), answer(429, x_ratelimit_remaining="0", retry_after="1")],
)
def test_the_start_of_an_export_is_repeated_where_nothing_can_have_started(
    trouble: Response | Exception,
) -> None:
    assert call(Script([trouble, OK]), EXPORT_SEGMENT) == {"message": "success"}


@pytest.mark.parametrize(
    "refusal",
    [
        answer(429, x_ratelimit_remaining="7"),
        answer(429),
        answer(429, {"message": "Export already in progress"}, x_ratelimit_remaining="0"),
    ],
)
def test_a_running_export_is_told_from_the_rate_limit(refusal: Response) -> None:
    script = Script([refusal])
    with pytest.raises(ExportInProgressError, match="already running"):
        call(script, EXPORT_SEGMENT)
    assert len(script.requests) == 1


def test_an_export_in_progress_holds_back_no_other_call() -> None:
    refusal = answer(
        429,
        x_ratelimit_remaining="7",
        x_ratelimit_reset="3000",
        date="Thu, 01 Jan 1970 00:00:00 GMT",
    )

    async def main() -> float:
        script = Script([refusal, OK])
        caller = make(script)
        with pytest.raises(ExportInProgressError):
            await caller.call(EXPORT_SEGMENT, decode_object)
        await caller.call(SEGMENTS_LIST, decode_object)
        return script.times[1] - script.times[0]

    assert virtual.run(main) < 1


def test_every_request_is_metered() -> None:
    seen: list[tuple[int, int | None]] = []

    class Meter:
        def sent(self, attempt: int, status: int | None) -> None:
            seen.append((attempt, status))

        def again(self, error: BrazeError, delay: float) -> None:
            assert delay >= 0
            pauses.append(type(error))

    pauses: list[type[BrazeError]] = []
    call(Script([LOST, answer(503), answer(429), OK]), meter=Meter())
    assert seen == [(1, None), (2, 503), (3, 429), (4, 200)]
    assert pauses == [ConnectionLostError, ServerError, RateLimitError]


def test_the_fast_pool_is_used_for_fast_requests_only() -> None:
    limits = Limits(ids=RateLimit(1, 1000), ids_fast=RateLimit(1, 10))

    async def main() -> list[float]:
        caller = make(Script([OK] * 4), limits=limits)
        loop = asyncio.get_running_loop()
        times = []
        for fast in (True, False, True, False):
            await caller.call(EXPORT_IDS, decode_object, fast=fast)
            times.append(loop.time() - 1000)
        return times

    assert virtual.run(main) == pytest.approx([0, 0, 10, 1000], abs=0.3)


def test_the_log_of_a_retry_names_neither_message_nor_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    trouble = answer(500, {"message": f"personal: alice@example.com, key {KEY}"})
    call(Script([trouble, OK]))
    assert "ServerError 500" in caplog.text
    assert "alice" not in caplog.text
    assert KEY not in caplog.text


def test_a_key_that_the_server_echoes_is_not_in_the_error() -> None:
    echo = answer(401, {"message": f"bad key {KEY}", "errors": [f"Bearer {KEY}"]})
    with pytest.raises(AuthenticationError) as caught:
        call(Script([echo]))
    assert KEY not in f"{caught.value} {caught.value!r} {caught.value.errors}"


@pytest.mark.parametrize("hang", ["acquire", "send", "sleep"])
def test_a_call_can_be_cancelled_wherever_it_waits(hang: str) -> None:
    async def forever(*_: Any) -> Any:
        await asyncio.sleep(1e6)

    async def main() -> None:
        script = Script([answer(429, retry_after="200")] * 9)
        caller = make(script)
        waits: dict[str, Callable[[], None]] = {
            "acquire": lambda: setattr(caller.limiter, "acquire", forever),
            "send": lambda: None,
            "sleep": lambda: None,
        }
        waits[hang]()
        if hang == "send":
            object.__setattr__(caller, "transport", _Hanging())
        task = asyncio.create_task(caller.call(EXPORT_IDS, decode_object))
        await asyncio.sleep(100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main)


class _Hanging(Script):
    def __init__(self) -> None:
        super().__init__([])

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(1e6)
        raise AssertionError
