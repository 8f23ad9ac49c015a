"""Callbacks within a FastAPI app: whom it believes, who is woken, and what becomes of it all.

Most of it goes straight into the app; some through real servers, real Redis, and the sandbox.
"""

import asyncio
import hashlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import pytest
import redis.asyncio
import uvicorn
from blockbuster import BlockBuster
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from braze_export import BrazeClient, ExportExpiredError, ExportSettings
from braze_export.callbacks import Callback, CallbackResult
from braze_export.errors import ClientClosedError, InputError, RequestTimeoutError
from braze_export.integrations.fastapi_callbacks import ExportCallbacks
from braze_export.integrations.redis_callbacks import RedisCallbacks
from braze_export.sandbox import Sandbox
from braze_export.settings import Polling
from tests.integrations.redis_servers import RedisServer
from tests.test_callbacks import ACCEPTED, GOOD, HIDDEN, HOUR, REFUSED, put_forward, run_shifted

PREFIX = "/braze/callbacks"
PUBLIC = f"https://shop.example.com{PREFIX}"
BAD = b'{"success": false}'
FILE = "https://files.example.invalid/archive.zip"
#: Without a callback nobody would look again within a test.
RARELY = ExportSettings(polling=Polling(base=600.0, cap=600.0))
SOON = 0.01  # seconds from one look to the next

Make = Callable[..., Awaitable[ExportCallbacks]]


@pytest.fixture
async def make(nothing_left: None) -> AsyncIterator[Make]:
    """Make callbacks that are closed with the test."""
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> ExportCallbacks:
            return await stack.enter_async_context(ExportCallbacks(PUBLIC, **options))

        yield make


@pytest.fixture
async def callbacks(make: Make) -> ExportCallbacks:
    return await make()


@pytest.fixture
async def pair(make: Make, redis_server: RedisServer, workspace: str) -> list[ExportCallbacks]:
    """Those of two processes, joined by Redis."""
    return [await make(through=shared(redis_server, workspace)) for _ in range(2)]


def shared(server: RedisServer, workspace: str, every: float = SOON) -> RedisCallbacks:
    return RedisCallbacks(server.url, workspace=workspace, every=every)


def app_of(callbacks: ExportCallbacks) -> FastAPI:
    app = FastAPI()
    app.include_router(callbacks.router, prefix=PREFIX)
    return app


async def ask(callbacks: ExportCallbacks, method: str, url: str, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=app_of(callbacks))
    async with httpx.AsyncClient(transport=transport) as client:
        return await client.request(method, url, **options)


async def send(callbacks: ExportCallbacks, callback: Callback, body: Any = GOOD) -> int:
    """Post to the process that these are of."""
    answer = await ask(callbacks, "POST", callback.url, content=body)
    assert isinstance(answer.json()["message"], str)
    return answer.status_code


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not said():
            await asyncio.sleep(0.002)


# --- whom it believes


async def test_a_callback_wakes_who_waits(callbacks: ExportCallbacks) -> None:
    callback = callbacks.expect()
    assert callback.url == f"{PUBLIC}/{callback.token}"
    waiting = asyncio.create_task(callback.wait())
    answer = await ask(callbacks, "POST", callback.url, content=GOOD)
    assert (answer.status_code, answer.json()) == (200, {"message": "success"})
    assert await waiting == await callback.wait() == CallbackResult(success=True)


@pytest.mark.parametrize(("body", "result"), ACCEPTED)
async def test_what_is_read(
    callbacks: ExportCallbacks, body: bytes, result: CallbackResult
) -> None:
    callback = callbacks.expect()
    assert await send(callbacks, callback, body) == 200
    # The link that was posted is dropped: the job has its own.
    assert await callback.wait() == CallbackResult(result.success)


@pytest.mark.parametrize("body", REFUSED)
async def test_after_a_refused_body_a_good_one_counts(
    callbacks: ExportCallbacks, body: bytes
) -> None:
    callback = callbacks.expect()
    assert await send(callbacks, callback, body) == 400
    assert not callback.received
    assert await send(callbacks, callback) == 200
    assert (await callback.wait()).success


async def test_the_first_one_counts_and_repeating_it_does_no_harm(
    callbacks: ExportCallbacks,
) -> None:
    callback = callbacks.expect()
    assert [await send(callbacks, callback, body) for body in (BAD, BAD, GOOD)] == [200] * 3
    assert await callback.wait() == CallbackResult(success=False)


async def test_each_job_has_its_own(callbacks: ExportCallbacks) -> None:
    one, other = callbacks.expect(), callbacks.expect()
    assert one.token != other.token
    assert len(one.token) == 43  # 256 bits
    await send(callbacks, one)
    assert (one.received, other.received) == (True, False)


@pytest.mark.parametrize("joined", [False, True])
async def test_unknown_paths_and_other_methods(
    joined: bool, make: Make, redis_server: RedisServer, workspace: str
) -> None:
    through = shared(redis_server, workspace) if joined else None
    callbacks = await make(through=through)
    callback = callbacks.expect()
    unknown = ("x", "é%20%00", "A" * 43, callback.token[:-1], f"{callback.token}%20")
    for token in unknown:
        for body in (GOOD, b"nonsense"):
            answer = await ask(callbacks, "POST", f"{PUBLIC}/{token}", content=body)
            assert answer.status_code == 404
            assert answer.json() == {"message": "there is no such callback"}
    for path in ("/", f"/x/{callback.token}", f"//{callback.token}", f"/{callback.token}/"):
        assert (await ask(callbacks, "POST", PUBLIC + path, content=GOOD)).status_code == 404
    # The bare prefix, which holds no token, is led to the one with a slash.
    assert (await ask(callbacks, "POST", PUBLIC, content=GOOD)).status_code == 307
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
        for token in (callback.token, "x"):  # does not tell which one there is
            answer = await ask(callbacks, method, f"{PUBLIC}/{token}")
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert not callback.received


async def test_size_is_bounded(callbacks: ExportCallbacks) -> None:
    callback = callbacks.expect()
    limit = 64 * 1024
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b" " * 10_000

    assert await send(callbacks, callback, GOOD + b" " * (limit + 1 - len(GOOD))) == 413
    body = endless()
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(body), "more_body": True}

    await app_of(callbacks)(scope(callback), receive, noting(statuses))
    assert statuses == [413]
    assert taken == 7
    assert not callback.received
    assert await send(callbacks, callback, GOOD + b" " * (limit - len(GOOD))) == 200


async def test_nothing_is_decompressed(callbacks: ExportCallbacks) -> None:
    callback = callbacks.expect()
    headers = {"content-encoding": "gzip"}
    answer = await ask(callbacks, "POST", callback.url, content=b"\x1f\x8b" * 9, headers=headers)
    assert answer.status_code == 400
    answer = await ask(callbacks, "POST", callback.url, content=GOOD, headers=headers)
    assert answer.status_code == 200


def scope(callback: Callback) -> dict[str, Any]:
    path = f"{PREFIX}/{callback.token}"
    known = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "headers": []}
    return known | {"raw_path": path.encode(), "query_string": b"", "scheme": "http"}


def noting(statuses: list[int]) -> Callable[[Any], Awaitable[None]]:
    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    return send


def test_a_slow_body_is_given_up() -> None:
    async def main() -> None:
        callbacks, statuses = ExportCallbacks(PUBLIC), list[int]()
        callback = callbacks.expect()
        parts = [{"type": "http.request", "body": b"{", "more_body": True}]

        async def receive() -> Any:
            return parts.pop() if parts else await asyncio.Event().wait()

        app = app_of(callbacks)
        answering = asyncio.create_task(app(scope(callback), receive, noting(statuses)))
        await until(lambda: not parts)
        put_forward(29)
        await asyncio.sleep(0.001)
        assert not answering.done()
        put_forward(2)
        await answering
        assert statuses == [408]
        assert not callback.received

    run_shifted(main())


async def test_a_sender_that_breaks_off_does_no_harm(callbacks: ExportCallbacks) -> None:
    callback, statuses = callbacks.expect(), list[int]()
    parts = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Any:
        return parts.pop()

    await app_of(callbacks)(scope(callback), receive, noting(statuses))
    assert statuses == [400]
    assert await send(callbacks, callback) == 200


def test_it_is_not_in_the_api_of_the_app() -> None:
    assert app_of(ExportCallbacks(PUBLIC)).openapi()["paths"] == {}


# --- from beginning to end


async def test_a_closed_callback_is_forgotten(callbacks: ExportCallbacks) -> None:
    callback = callbacks.expect()
    waiting = asyncio.create_task(callback.wait())
    await asyncio.sleep(0)
    callback.close()
    assert await send(callbacks, callback) == 404
    with pytest.raises(ClientClosedError):
        await waiting


def test_a_callback_is_forgotten_after_its_lifetime() -> None:
    async def main() -> None:
        callbacks = ExportCallbacks(PUBLIC)
        late, come = callbacks.expect(), callbacks.expect()
        await send(callbacks, come)
        waiting = asyncio.create_task(late.wait())
        put_forward(4 * HOUR - 60)
        assert await send(callbacks, come) == 200
        again = callbacks.expect(token=come.token)
        put_forward(61)
        with pytest.raises(RequestTimeoutError):
            await waiting
        assert await send(callbacks, late) == 404
        assert await again.wait() == CallbackResult(success=True)
        assert await send(callbacks, again) == 200
        assert len(callbacks._expected) == 1

    run_shifted(main())


@pytest.mark.parametrize("loops", ["asyncio", "uvloop"])
@pytest.mark.parametrize("joined", [False, True])
def test_one_made_before_any_loop_serves_several(
    joined: bool, loops: str, redis_server: RedisServer, workspace: str
) -> None:
    new_loop = pytest.importorskip(loops).new_event_loop
    through = shared(redis_server, workspace) if joined else None
    callbacks = ExportCallbacks(PUBLIC, through=through)

    async def lived() -> None:
        async with callbacks:
            callback, late = callbacks.expect(), callbacks.expect()
            assert await send(callbacks, callback) == 200
            assert (await callback.wait()).success
            waiting = asyncio.create_task(late.wait())
            await asyncio.sleep(0)
        with pytest.raises(ClientClosedError):
            await waiting
        assert await callback.wait() == CallbackResult(success=True)
        with pytest.raises(ClientClosedError, match="enter them again"):
            callbacks.expect()
        answer = await ask(callbacks, "POST", late.url, content=GOOD)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        late.close()
        await callbacks.aclose()

    for _ in range(2):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(lived())


async def test_a_token_is_expected_again_after_a_restart(make: Make) -> None:
    before = (await make()).expect()
    after = await make()
    callback = after.expect(token=before.token)
    assert callback.url == before.url
    also = after.expect(token=before.token)
    await send(after, callback)
    assert await callback.wait() == await also.wait() == CallbackResult(success=True)


# --- several processes


async def test_the_process_that_waits_is_woken_by_another(pair: list[ExportCallbacks]) -> None:
    waits, gets = pair
    callback = waits.expect()
    waiting = [asyncio.create_task(callback.wait()) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    assert [await send(gets, callback, body) for body in (b"", GOOD, BAD)] == [400, 200, 200]
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [CallbackResult(success=True)] * 3


async def test_what_came_before_anybody_waited_is_found(pair: list[ExportCallbacks]) -> None:
    waits, gets = pair
    callback = waits.expect()
    await written(gets, callback)
    assert await send(gets, callback, BAD) == 200
    assert not callback.received
    assert await callback.wait() == CallbackResult(success=False)
    assert await send(waits, callback) == 200
    assert await callback.wait() == CallbackResult(success=False)


async def written(callbacks: ExportCallbacks, callback: Callback) -> None:
    """Wait until other processes know this callback."""
    assert callbacks.through is not None
    async with asyncio.timeout(5):
        while not await callbacks.through.knows(hashed(callback)):
            await asyncio.sleep(0.001)


def hashed(callback: Callback) -> str:
    return hashlib.sha256(callback.token.encode()).hexdigest()


async def test_in_the_process_that_waits_it_is_known_at_once(
    make: Make, redis_server: RedisServer, workspace: str
) -> None:
    callbacks = await make(through=shared(redis_server, workspace, every=600.0))
    callback = callbacks.expect()
    waiting = asyncio.create_task(callback.wait())
    await written(callbacks, callback)
    assert await send(callbacks, callback) == 200
    async with asyncio.timeout(5):
        assert await waiting == CallbackResult(success=True)


async def test_a_job_goes_on_in_another_process(
    pair: list[ExportCallbacks], make: Make, redis_server: RedisServer, workspace: str
) -> None:
    first, gets = pair
    callback = first.expect()
    await written(gets, callback)
    await first.aclose()
    assert await send(gets, callback) == 200
    later = await make(through=shared(redis_server, workspace))
    assert await later.expect(token=callback.token).wait() == CallbackResult(success=True)


async def test_a_closed_callback_is_forgotten_everywhere(pair: list[ExportCallbacks]) -> None:
    waits, gets = pair
    callback = waits.expect()
    await written(gets, callback)
    callback.close()
    async with asyncio.timeout(5):
        while await send(gets, callback) != 404:
            await asyncio.sleep(0.001)


async def test_workspaces_are_apart(make: Make, redis_server: RedisServer, workspace: str) -> None:
    one, other = [
        await make(through=shared(redis_server, f"{workspace} {number}")) for number in (1, 2)
    ]
    callback = one.expect()
    await written(one, callback)
    assert await send(other, callback) == 404


async def test_redis_holds_nothing_secret_and_nothing_for_ever(
    pair: list[ExportCallbacks], redis_server: RedisServer, workspace: str
) -> None:
    waits, gets = pair
    callback = waits.expect()
    await written(gets, callback)
    key = f"braze_export:{{{workspace}}}:callback:{hashed(callback)}"
    async with redis.asyncio.Redis(unix_socket_path=str(redis_server.socket)) as client:
        held = [await client.get(key)]
        body = f'{{"success": true, "url": "{FILE}"}}'.encode()
        assert await send(gets, callback, body) == 200
        held.append(await client.get(key))
        assert held == [b"?", b"1"]
        assert 4 * HOUR - 60 < await client.ttl(key) <= 4 * HOUR
        waits.expect(token=callback.token)  # from now on, though it came
        await client.pexpire(key, 10_000)
        waits.expect(token=callback.token)
        async with asyncio.timeout(5):
            while await client.ttl(key) <= 10:
                await asyncio.sleep(0.001)
        assert await client.get(key) == b"1"


async def test_one_task_looks_while_somebody_waits(
    make: Make, redis_server: RedisServer, workspace: str
) -> None:
    through = shared(redis_server, workspace)
    callbacks = await make(through=through)
    before = asyncio.all_tasks()
    waiting = [asyncio.create_task(callbacks.expect().wait()) for _ in range(50)]
    # Once everything is written, there is one.
    await until(lambda: len(asyncio.all_tasks() - before - set(waiting)) == 1)
    async with redis.asyncio.Redis(unix_socket_path=str(redis_server.socket)) as client:
        began, first = time.monotonic(), await mgets(client)
        while (looks := await mgets(client) - first) < 5:
            await asyncio.sleep(SOON)
        assert looks <= (time.monotonic() - began) / SOON + 1  # one look for all of them
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        await until(lambda: asyncio.all_tasks() == before)
        await client.ping()  # by now a look that was under way is counted, too
        last = await mgets(client)
        await asyncio.sleep(5 * SOON)
        assert await mgets(client) == last


async def test_nobody_looks_on_whenever_waiting_ends(
    redis_server: RedisServer, workspace: str
) -> None:
    through = shared(redis_server, workspace)
    await through.start()
    before = asyncio.all_tasks()
    deadline = asyncio.get_running_loop().time() + HOUR
    for turns in range(60):  # so many turns of the loop after looking began
        with through.watch(uuid4().hex, deadline, lambda _: None):
            for _ in range(turns):
                await asyncio.sleep(0)
        await until(lambda: asyncio.all_tasks() == before)
    await through.aclose()


async def mgets(client: redis.asyncio.Redis) -> int:
    return int((await client.info("commandstats"))["cmdstat_mget"]["calls"])


async def test_a_cluster_does(make: Make, cluster: RedisServer, workspace: str) -> None:
    async with redis.asyncio.RedisCluster("127.0.0.1", cluster.port) as client:
        through = RedisCallbacks(client, workspace=workspace, every=SOON)
        waits, gets = [await make(through=through) for _ in range(2)]
        several = [waits.expect() for _ in range(5)]
        waiting = [asyncio.create_task(callback.wait()) for callback in several]
        for callback in several:
            await written(gets, callback)
            assert await send(gets, callback) == 200
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiting) == [CallbackResult(success=True)] * 5


async def test_a_client_of_ones_own_stays_open(
    make: Make, redis_server: RedisServer, workspace: str
) -> None:
    path = str(redis_server.socket)
    async with redis.asyncio.Redis(unix_socket_path=path, decode_responses=True) as client:
        waits = await make(through=RedisCallbacks(client, workspace=workspace, every=SOON))
        gets = await make(through=shared(redis_server, workspace))
        callback = waits.expect()
        waiting = asyncio.create_task(callback.wait())
        await written(gets, callback)
        await send(gets, callback, BAD)
        assert await waiting == CallbackResult(success=False)
        await waits.aclose()
        assert await client.ping()


ROUTES = st.lists(st.tuples(st.booleans(), st.sampled_from([GOOD, BAD, b"", b"{}"])), max_size=6)


@pytest.mark.parametrize("joined", [False, True])
def test_whichever_process_gets_what_the_first_good_one_counts(
    joined: bool, redis_server: RedisServer
) -> None:
    @settings(max_examples=10, deadline=None)
    @given(ROUTES)
    def holds(posts: list[tuple[bool, bytes]]) -> None:
        asyncio.run(main(posts))

    async def main(posts: list[tuple[bool, bytes]]) -> None:
        name = uuid4().hex
        async with AsyncExitStack() as stack:
            waits, other = [
                await stack.enter_async_context(
                    ExportCallbacks(PUBLIC, through=shared(redis_server, name) if joined else None)
                )
                for _ in range(2)
            ]
            callback = waits.expect()
            if joined:
                await written(waits, callback)
            for elsewhere, body in posts:
                status = await send(other if elsewhere and joined else waits, callback, body)
                assert status == (200 if body in (GOOD, BAD) else 400)
            good = [body for _, body in posts if body in (GOOD, BAD)]
            if good:
                assert await callback.wait() == CallbackResult(good[0] == GOOD)
            else:
                assert not callback.received

    holds()


# --- Redis is gone


async def test_while_redis_is_gone_waiting_goes_on(
    make: Make, redis_for_me: RedisServer, workspace: str, caplog: pytest.LogCaptureFixture,
    blocking_calls_fail: BlockBuster,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "braze_export")
    waits, gets = [await make(through=shared(redis_for_me, workspace)) for _ in range(2)]
    callback, mine = waits.expect(), waits.expect()
    waiting, woken = [asyncio.create_task(one.wait()) for one in (callback, mine)]
    await written(gets, callback)
    at_rest(blocking_calls_fail, redis_for_me.kill)
    answers = [
        await ask(of, "POST", url, content=GOOD)
        for of, url in ((gets, callback.url), (gets, f"{PUBLIC}/x"), (waits, mine.url))
    ]
    assert [(one.status_code, one.headers["retry-after"]) for one in answers] == [(503, "5")] * 3
    assert await woken == CallbackResult(success=True)  # it waited where the post came
    early = waits.expect()
    also = asyncio.create_task(early.wait())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    assert not also.done()
    at_rest(blocking_calls_fail, redis_for_me.start)  # it has lost everything
    for each in (callback, early):
        await written(gets, each)
        assert await send(gets, each) == 200
    async with asyncio.timeout(5):
        assert await waiting == await also == CallbackResult(success=True)
    said = sorted(
        f"{record.levelname} {record.message.partition(' (')[0]}" for record in caplog.records
    )
    place = f"Redis at 127.0.0.1:{redis_for_me.port}"
    once = [f"INFO {place} is back", f"WARNING {place} is gone"]  # in each of the processes
    assert said == sorted(["INFO callback received"] * 3 + once * 2)


def at_rest(blockbuster: BlockBuster, work: Callable[[], None]) -> None:
    """Do what blocks the loop."""
    blockbuster.deactivate()
    work()
    blockbuster.activate()


async def test_a_redis_that_is_not_there_is_told_of_at_the_start(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    through = RedisCallbacks(f"redis://user:{HIDDEN}@127.0.0.1:9/0", workspace="shop", every=SOON)
    callbacks = await make(through=through)
    assert caplog.messages == ["Redis at 127.0.0.1:9 is gone (Connection refused)"]
    callback = callbacks.expect()
    waiting = asyncio.create_task(callback.wait())
    await asyncio.sleep(0.03)
    answer = await ask(callbacks, "POST", callback.url, content=GOOD)
    assert (answer.status_code, (await waiting).success) == (503, True)
    assert len(caplog.messages) == 1
    assert HIDDEN not in caplog.text + repr(callbacks) + answer.text


async def test_a_right_that_is_missing_is_told_of_once(
    make: Make, redis_for_me: RedisServer, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with redis.asyncio.Redis(unix_socket_path=str(redis_for_me.socket)) as client:
        rights = "on nopass ~braze_export:* +get +mget +set +setrange +pexpire +del"
        run: Callable[..., Awaitable[object]] = client.execute_command
        await run("ACL", "SETUSER", "enough", *rights.split(), "+eval")
        await run("ACL", "SETUSER", "few", *rights.split(), "-set")
    url = f"127.0.0.1:{redis_for_me.port}"
    few, enough = (
        RedisCallbacks(f"redis://{user}:x@{url}", workspace=workspace, every=SOON)
        for user in ("few", "enough")
    )
    await make(through=enough)
    assert caplog.messages == []
    callbacks = await make(through=few)
    waiting = asyncio.create_task(callbacks.expect().wait())
    await asyncio.sleep(0.05)
    waiting.cancel()
    assert caplog.messages == [f"Redis at {url} is gone (scripts are refused)"]


# --- secrecy


@pytest.mark.parametrize("joined", [False, True])
async def test_nothing_shows_the_token(
    joined: bool, make: Make, redis_server: RedisServer, workspace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for name in (None, "braze_export", "fastapi", "redis", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    callbacks = await make(through=shared(redis_server, workspace) if joined else None)
    callback = callbacks.expect()
    for body in (f'{{"{callback.token}": 1}}', f'{{"success": true, "url": "{FILE}"}}'):
        answer = await ask(callbacks, "POST", callback.url, content=body.encode())
        assert callback.token not in answer.text
    ours = [r.getMessage() for r in caplog.records if r.name != "httpx"]  # which the test uses
    shown = " ".join(ours) + repr(callback) + repr(callbacks) + repr(await callback.wait())
    assert callback.token not in shown
    assert FILE not in shown
    assert ours.count("callback received") == 1


# --- input


@pytest.mark.parametrize(
    "public_url",
    ["", "shop.example.com", "ftp://shop.example.com", "https://", None, 5, b"https://x",
     f"https://user:{HIDDEN}@shop.example.com", f"https://shop.example.com/?a={HIDDEN}",
     f"https://shop.example.com/#{HIDDEN}", "https://shop.example.com/a b"],
)  # fmt: skip
def test_a_public_url_that_cannot_be_right(public_url: Any) -> None:
    with pytest.raises(InputError, match="public_url must be where Braze reaches") as caught:
        ExportCallbacks(public_url)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"lifetime": t} for t in (0, -1, float("inf"), float("nan"), "1", None, True)]
    + [{"through": t} for t in ("redis://localhost", RedisCallbacks, 5)],
)
def test_options_that_cannot_be_right(options: Any) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        ExportCallbacks(PUBLIC, **options)


@pytest.mark.parametrize(
    "options",
    [{"redis": r} for r in (None, 5, f"http://{HIDDEN}", f"redis://{HIDDEN}:x:y/z")]
    + [{"workspace": w} for w in ("", "a" * 201, "a\nb", "{a}", None, 5)]
    + [{"every": t} for t in (0, -1, float("inf"), float("nan"), "1", None, True)],
)
def test_ways_to_redis_that_cannot_be_right(options: Any) -> None:
    known: dict[str, Any] = {"redis": "redis://localhost", "workspace": "shop"}
    with pytest.raises(InputError, match="(?i)" + next(iter(options))) as caught:
        RedisCallbacks(**(known | options))
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("token", ["", HIDDEN, "a" * 42, "a" * 44, "a" * 42 + "/", 5, b"a" * 43])
async def test_tokens_that_are_none(callbacks: ExportCallbacks, token: Any) -> None:
    with pytest.raises(InputError, match="token must be that of a callback") as caught:
        callbacks.expect(token=token)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("lifetime", [0.0001, 1e300])
async def test_lifetimes_at_the_ends(
    lifetime: float, make: Make, redis_server: RedisServer, workspace: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    callbacks = await make(through=shared(redis_server, workspace), lifetime=lifetime)
    callback = callbacks.expect()
    if lifetime > 1:
        await written(callbacks, callback)
    else:
        with pytest.raises(RequestTimeoutError):
            await callback.wait()
    assert caplog.messages == []


# --- real servers


@asynccontextmanager
async def serving(app_at: Callable[[str], FastAPI]) -> AsyncIterator[uvicorn.Server]:
    """Serve an app that is told its own address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(app_at(url), log_config=None, log_level="info")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        try:
            yield server
        finally:
            server.should_exit = True
            await task


async def test_braze_calls_one_server_and_a_job_at_another_is_woken(
    redis_server: RedisServer, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = SimpleNamespace()

    def app_at(url: str) -> FastAPI:
        made.gets = ExportCallbacks(url + PREFIX, through=shared(redis_server, workspace))
        made.waits = ExportCallbacks(url + PREFIX, through=shared(redis_server, workspace))

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            async with made.gets as gets, made.waits:
                app.include_router(gets.router, prefix=PREFIX)
                yield

        return FastAPI(lifespan=lifespan)

    async with (
        serving(app_at),
        Sandbox(users=50, profile="small", export_seconds=0.2) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, exports=RARELY) as braze,
    ):
        callback = made.waits.expect()
        job = await braze.users.export_segment(
            sandbox.segment_id(1), fields=["external_id"], callback_url=callback
        )
        began = time.monotonic()
        await job.wait(timeout=20)
        assert 0.1 < time.monotonic() - began < 5
        assert len([user async for user in job.profiles()]) == 50
        assert [record.status for record in sandbox.callbacks] == [200]
        access = [r.getMessage() for r in caplog.records if r.name == "uvicorn.access"]
        assert any(f'"POST {PREFIX}/... HTTP/1.1" 200' in line for line in access)
    assert callback.token not in "".join(r.getMessage() for r in caplog.records)


async def test_a_server_survives_large_and_broken_bodies(callbacks: ExportCallbacks) -> None:
    callback = callbacks.expect()
    async with serving(lambda _: app_of(callbacks)) as server:
        host, port = server.servers[0].sockets[0].getsockname()
        head = f"POST {PREFIX}/{callback.token} HTTP/1.1\r\nHost: x\r\n".encode()
        for rest, status in (
            (b"Content-Length: 100000\r\n\r\n" + b" " * 70_000, b"413"),
            (b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n", b"400"),
            (b"Content-Length: 17\r\n\r\n{", b""),
            (b"Connection: close\r\nContent-Length: 17\r\n\r\n" + GOOD, b"200"),
        ):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(head + rest)
            if status:
                assert (await reader.readline()).split()[1] == status
            writer.close()
            await writer.wait_closed()
    assert (await callback.wait()).success


async def test_whoever_says_that_it_failed(callbacks: ExportCallbacks) -> None:
    async with (
        Sandbox(users=50, profile="small", export_seconds=1000) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, exports=RARELY) as braze,
    ):
        callback = callbacks.expect()
        job = await braze.users.export_segment(
            sandbox.segment_id(1), fields=["external_id"], callback_url=callback
        )
        waiting = asyncio.create_task(job.wait())
        await send(callbacks, callback, BAD)
        async with asyncio.timeout(5):
            with pytest.raises(ExportExpiredError, match="Braze says that the export failed"):
                await waiting


APP = """
import asyncio, os, time
from contextlib import asynccontextmanager
from fastapi import FastAPI
from braze_export.integrations.fastapi_callbacks import ExportCallbacks
from braze_export.integrations.redis_callbacks import RedisCallbacks

through = RedisCallbacks(os.environ["SHARED"], workspace="two workers", every=0.02)
callbacks = ExportCallbacks(os.environ["PUBLIC"], through=through)
expected = {}

@asynccontextmanager
async def lifespan(app):
    async with callbacks:
        yield

app = FastAPI(lifespan=lifespan)
app.include_router(callbacks.router, prefix="/braze/callbacks")

@app.get("/pid")
async def pid():
    return os.getpid()

@app.get("/busy")
async def busy():
    time.sleep(0.2)  # the other worker takes new connections

@app.post("/jobs")
async def begin():
    callback = callbacks.expect()
    expected[callback.token] = asyncio.create_task(callback.wait())
    return callback.url

@app.get("/jobs/{token}")
async def end(token: str):
    return (await expected[token]).success
"""


@pytest.fixture
def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@asynccontextmanager
async def two_workers(folder: Path, address: str, server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread((folder / "braze_app.py").write_text, APP)
    of = ["--app-dir", str(folder), "--port", address.rpartition(":")[2], "--workers", "2"]
    process: Process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "braze_app:app", *of, "--log-level", "warning",
        env=os.environ | {"SHARED": server.url, "PUBLIC": f"{address}{PREFIX}"},
        start_new_session=True,
    )  # fmt: skip
    try:
        yield
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def connected(address: str) -> aiohttp.ClientSession:
    """Return one connection to one of the workers."""
    one = aiohttp.TCPConnector(limit=1, keepalive_timeout=60)
    return aiohttp.ClientSession(address, connector=one)


async def pid(session: aiohttp.ClientSession) -> int:
    async with session.get("/pid") as answer:
        return int(await answer.text())


async def the_other(address: str, stack: AsyncExitStack, waits: aiohttp.ClientSession) -> Any:
    """Return a connection to the worker that is not the one of this connection."""
    ours = await pid(waits)
    while True:
        busy = asyncio.create_task(waits.get("/busy"))
        await asyncio.sleep(0.05)
        gets = await stack.enter_async_context(connected(address))
        theirs = await pid(gets)
        (await busy).release()
        if theirs != ours:
            return gets


async def posted(session: aiohttp.ClientSession, path: str, body: bytes) -> int:
    async with session.post(path, data=body) as answer:
        return answer.status


async def test_two_workers_of_one_app(
    tmp_path: Path, address: str, redis_server: RedisServer
) -> None:
    async with two_workers(tmp_path, address, redis_server), AsyncExitStack() as stack:
        waits = await stack.enter_async_context(connected(address))
        async with asyncio.timeout(20):
            while True:
                try:
                    await pid(waits)
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.05)
            gets = await the_other(address, stack, waits)
            async with waits.post("/jobs") as answer:
                path = (await answer.json()).removeprefix(address)
            ending = asyncio.create_task(waits.get("/jobs/" + path.rpartition("/")[2]))
            while await posted(gets, path, b"") == 404:  # told in the background
                await asyncio.sleep(0.01)
            for body, status in ((b"", 400), (GOOD, 200), (BAD, 200)):
                assert await posted(gets, path, body) == status
            async with await ending as answer:
                assert await answer.json() is True
