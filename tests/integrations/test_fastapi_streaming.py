"""Records as a streamed answer: whole, prompt, bounded, and ended with the client."""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from braze_export import BrazeClient, errors
from braze_export.integrations.fastapi import (
    Braze,
    NdjsonResponse,
    add_error_handlers,
    braze_lifespan,
    ndjson,
)
from braze_export.sandbox import Fault, Sandbox
from tests.integrations.fastapi_apps import asking, making, serving

pytestmark = pytest.mark.usefixtures("nothing_left")

Send = Callable[[Any], Awaitable[None]]


class Source:
    """Gives lines, and says whether it was closed."""

    def __init__(self, lines: list[bytes], *, then: Exception | None = None) -> None:
        self.lines = lines
        self.then = then
        self.given = 0
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for line in self.lines:
                self.given += 1
                yield line
            if self.then is not None:
                raise self.then
        finally:
            await asyncio.sleep(0)  # a source may need a while
            self.closed.set()


async def never() -> Any:
    await asyncio.Event().wait()


async def answered(
    lines: AsyncIterable[bytes], send: Send | None = None, version: str = "2.3"
) -> list[Any]:
    """Send the answer to a client that stays, and return the messages."""
    sent: list[Any] = []

    async def note(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": version}}
    await ndjson(lines)(scope, never, send or note)
    return sent


def body(messages: list[Any]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def streaming(lines: Callable[[BrazeClient], AsyncIterable[bytes]], sandbox: Sandbox) -> FastAPI:
    app = FastAPI(lifespan=braze_lifespan(making(sandbox)))
    add_error_handlers(app)

    @app.get("/", response_class=NdjsonResponse)
    async def index(braze: Braze) -> Response:
        return ndjson(lines(braze))

    return app


VALUES = st.lists(st.recursive(st.integers() | st.text(), lambda v: st.lists(v, max_size=3)))
NEWLINES = st.lists(st.sampled_from([b"", b"\n", b"\r\n"]), min_size=1)


@given(VALUES, NEWLINES, st.sampled_from([None, 1]))
def test_each_value_has_a_line_of_its_own(
    values: list[Any], ends: list[bytes], indent: int | None
) -> None:
    lines = [
        json.dumps(value, indent=indent).encode() + ends[n % len(ends)]
        for n, value in enumerate(values)
    ]
    text = body(asyncio.run(answered(Source(lines))))
    assert text.endswith(b"\n") or not values
    assert [json.loads(line) for line in text.split(b"\n")[:-1]] == values


async def test_the_export_of_a_few_hundred_users() -> None:
    async with Sandbox(users=300, profile="typical") as sandbox:
        ids = list(sandbox.external_ids())
        fields = ["external_id", "email"]
        app = streaming(lambda b: b.users.export_ids(ids, fields=fields).raw(), sandbox)
        async with serving(app) as client:
            answer = await client.get("/")
            schema = (await client.get("/openapi.json")).json()
    assert answer.headers["content-type"] == "application/x-ndjson"
    users = [json.loads(line) for line in answer.content.splitlines()]
    assert sorted(user["external_id"] for user in users) == sorted(ids)
    content = schema["paths"]["/"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["application/x-ndjson"]


async def test_no_lines_are_an_empty_answer() -> None:
    head, end = await answered(Source([]))
    assert head["status"] == 200
    assert end == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_small_lines_leave_together() -> None:
    line = b"x" * 99
    messages = await answered(Source([line] * 10_000))
    pieces = [message["body"] for message in messages[1:-1]]
    assert b"".join(pieces) == (line + b"\n") * 10_000
    assert len(pieces) == 16
    assert all(2**16 <= len(piece) < 2**16 + 100 for piece in pieces[:-1])


async def test_lines_that_come_one_by_one_leave_together_too() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for _ in range(100):
            await asyncio.sleep(0)
            yield b"{}"

    messages = await answered(lines())
    assert body(messages) == b"{}\n" * 100
    assert len(messages) < 50


async def test_a_line_does_not_wait_for_the_next() -> None:
    took = asyncio.Queue[Any]()

    async def lines() -> AsyncIterator[bytes]:
        for line in (b"1", b"2"):
            yield line
            while (await took.get()).get("body") != line + b"\n":
                pass

    async with asyncio.timeout(5):
        await answered(lines(), took.put)


async def test_nothing_is_read_ahead_of_a_client_that_does_not_read() -> None:
    source = Source([b"x" * 1023] * 10_000)
    held = asyncio.Event()

    async def hold(message: Any) -> None:
        if message.get("body"):
            held.set()
            await never()

    task = asyncio.create_task(answered(source, hold))
    await held.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert source.given == 2 * 64
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert source.closed.is_set()


async def test_an_error_before_the_first_line_has_an_answer_of_its_own() -> None:
    ran: list[str] = []
    app = FastAPI()
    add_error_handlers(app)

    @app.get("/")
    async def index(background: BackgroundTasks) -> Response:
        background.add_task(ran.append, "background")
        return ndjson(Source([], then=errors.RequestTimeoutError("late")))

    async with serving(app) as client:
        assert (await client.get("/")).status_code == 504
    assert ran == []


async def test_an_export_that_fails_at_once_has_an_answer_of_its_own() -> None:
    async with Sandbox(users=9, faults=lambda *_: Fault(status=503)) as sandbox:
        app = streaming(lambda b: b.users.export_ids(["u1"], fields=["email"]).raw(), sandbox)
        async with serving(app) as client:
            assert (await client.get("/")).status_code == 502


async def test_a_later_error_cuts_the_answer_off_after_what_had_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    add_error_handlers(app)
    source = Source([b"1", b"2"], then=errors.ConnectionLostError("gone"))

    @app.get("/")
    async def index() -> Response:
        return ndjson(source)

    came = b""
    async with serving(app) as client, client.stream("GET", "/") as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            async for piece in answer.aiter_raw():
                came += piece
    assert came == b"1\n2\n"
    assert "ConnectionLostError" in caplog.text


@pytest.mark.parametrize("version", ["2.3", "2.4"])
@pytest.mark.parametrize("lines", [[], [b"1"]])
async def test_an_error_of_the_source_is_never_taken_for_the_clients_leaving(
    version: str, lines: list[bytes]
) -> None:
    error = errors.DeadlineExceededError("late")  # which is an OSError
    source = Source(lines, then=error)
    with pytest.raises(errors.DeadlineExceededError) as caught:
        await answered(source, version=version)
    assert caught.value is error
    assert source.closed.is_set()


async def test_a_source_that_is_cancelled_is_no_whole_answer() -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield b"1"
        raise asyncio.CancelledError

    sent = []

    async def note(message: Any) -> None:
        sent.append(message)

    with pytest.raises(errors.ClientClosedError):
        await answered(lines(), note)
    assert [message.get("more_body") for message in sent] == [None, True]


async def test_what_are_no_bytes_is_an_error_of_the_app() -> None:
    lines: Any = Source(["text"])  # type: ignore[list-item]
    with pytest.raises(errors.InputError, match=r"such as those of raw\(\), not str"):
        await answered(lines)
    assert lines.closed.is_set()


async def test_a_source_that_cannot_be_read_is_an_error() -> None:
    lines: Any = [b"1"]
    with pytest.raises(TypeError, match="async"):
        await answered(lines)
    async with Sandbox(users=9) as sandbox, making(sandbox)() as braze:
        export = braze.users.export_ids(["u1"], fields=["email"], into=bytes)
        await export.collect()
        with pytest.raises(errors.InputError, match="read once"):
            await answered(export)  # type: ignore[arg-type]


async def test_any_async_iterable_will_do() -> None:
    class Lines:
        def __init__(self) -> None:
            self.left = [b"1", b"2"]

        def __aiter__(self) -> "Lines":
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    assert body(await answered(Lines())) == b"1\n2\n"


async def hang_up(client: httpx.AsyncClient) -> None:
    async with client.stream("GET", "/") as answer:
        async for _ in answer.aiter_raw():
            break


async def passing(request: Request, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize("middleware", [[], [Middleware(BaseHTTPMiddleware, dispatch=passing)]])
async def test_a_client_that_hangs_up_closes_the_source(middleware: list[Middleware]) -> None:
    app = FastAPI(middleware=middleware)
    source = Source([b"x" * 1023] * 100_000)

    @app.get("/")
    async def index() -> Response:
        return ndjson(source)

    async with serving(app) as client:
        await hang_up(client)
        async with asyncio.timeout(5):
            await source.closed.wait()
    assert source.given < 100_000


async def test_a_client_that_hangs_up_ends_the_requests_to_braze() -> None:
    clients: list[BrazeClient] = []

    def lines(braze: BrazeClient) -> AsyncIterable[bytes]:
        clients.append(braze)
        return braze.users.export_ids(sandbox.external_ids(), fields=["email"]).raw()

    async with Sandbox(users=100_000, profile="typical") as sandbox:
        sandbox.inject(Fault(delay=3600.0), times=20, after=4)
        async with serving(streaming(lines, sandbox)) as client, asyncio.timeout(10):
            await hang_up(client)
            (braze,) = clients
            while braze._scope._tasks:
                await asyncio.sleep(0.001)
            pool = braze.limits.snapshot()["ids"]
    assert (pool.in_flight, pool.waiting) == (0, 0)
    assert 4 < pool.sent < 200


async def test_a_client_that_hangs_up_before_the_first_line() -> None:
    source_read = asyncio.Event()
    closed = asyncio.Event()

    async def lines() -> AsyncIterator[bytes]:
        source_read.set()
        try:
            await never()
            yield b""
        finally:
            closed.set()

    app = FastAPI()

    @app.get("/")
    async def index() -> Response:
        return ndjson(lines())

    async with serving(app) as client, asyncio.timeout(5):
        asked = asyncio.create_task(client.get("/"))
        await source_read.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await closed.wait()


async def test_an_answer_that_is_never_sent_leaves_its_source_alone() -> None:
    source = Source([b"1"])
    ndjson(source)
    assert source.given == 0


async def test_without_sockets_it_is_the_same() -> None:
    app = FastAPI()

    @app.get("/")
    async def index() -> Response:
        return ndjson(Source([b"1", b"2"]))

    async with asking(app) as client:
        assert (await client.get("/")).content == b"1\n2\n"
