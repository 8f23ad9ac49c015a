"""The receiver of callbacks: whom it believes, what it reads, and what it leaves behind."""

import asyncio
import codecs
import errno
import logging
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from braze_export._json import dumps
from braze_export.callbacks import Callback, CallbackReceiver, CallbackResult, _read, parse
from braze_export.errors import ClientClosedError, DecodeError, InputError, RequestTimeoutError

GOOD = b'{"success": true}'
FILE = "https://files.example.invalid/archive.zip"
HOUR = 3600.0


@pytest.fixture
async def receiver(nothing_left: None) -> AsyncIterator[CallbackReceiver]:
    async with CallbackReceiver() as receiver:
        yield receiver


async def send(url: str, body: Any = GOOD, method: str = "POST", **options: Any) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=body, **options) as answer,
    ):
        assert answer.content_type == "application/json"
        assert method == "HEAD" or isinstance((await answer.json())["message"], str)
        return answer.status


def token_of(callback: Callback) -> str:
    return callback.url.rpartition("/")[2]


def local(receiver: CallbackReceiver, callback: Callback, prefix: str = "") -> str:
    return f"{receiver.local_url}{prefix}/{token_of(callback)}"


async def connect(receiver: CallbackReceiver) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = receiver.local_url.removeprefix("http://").rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def raw(receiver: CallbackReceiver, data: bytes) -> bytes:
    reader, writer = await connect(receiver)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def requests(receiver: CallbackReceiver, count: int) -> None:
    """Wait until so many requests are being served, or were."""
    while receiver._http is None or receiver._http.requests_count < count:
        await asyncio.sleep(0)
    await asyncio.sleep(0.002)


class ShiftedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def run_shifted(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=ShiftedLoop) as runner:
        runner.run(main)


def put_forward(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, ShiftedLoop)
    loop.ahead += seconds


# --- reading

ACCEPTED: list[tuple[bytes, CallbackResult]] = [
    (GOOD, CallbackResult(success=True)),
    (b'{"success": false}', CallbackResult(success=False)),
    (b'{"success": "true"}', CallbackResult(success=True)),
    (b'{"success": "false"}', CallbackResult(success=False)),
    (b'{"success": true, "url": null}', CallbackResult(success=True)),
    (b'{"success": true, "url": ""}', CallbackResult(success=True)),
    (b'{"success": true, "url": "%b"}' % FILE.encode(), CallbackResult(True, FILE)),
    (b'{"url": "x", "success": false, "more": [1e999]}', CallbackResult(False, "x")),
    (b'"success": true', CallbackResult(success=True)),
    (b' \n"success" : true,\n"url" : "%b"\n' % FILE.encode(), CallbackResult(True, FILE)),
    (codecs.BOM_UTF8 + b' "success": true', CallbackResult(success=True)),
    (codecs.BOM_UTF8 + GOOD + b"\r\n", CallbackResult(success=True)),
]  # fmt: skip
REFUSED = [
    b"", b" ", b"{}", b"[]", b"null", b"true", b"success", b'"success"', b"success=true",
    b'[{"success": true}]', b'{"success": null}', b'{"success": 1}', b'{"success": 0}',
    b'{"success": 1.0}', b'{"success": "yes"}', b'{"success": "True"}', b'{"success": ""}',
    b'{"success": [true]}', b'{"success": {}}', b'{"Success": true}', b'{"url": "x"}',
    b'{"success": true, "url": 1}', b'{"success": true, "url": []}', b'{"success": true',
    b'"success": true}, {"a": 1', b'"success": true}', b'{"success": true}{"success": true}',
    GOOD.decode().encode("utf-16"), b"\xff", b"[" * 60_000, b'{"a":' * 10_000,
]  # fmt: skip


@pytest.mark.parametrize(("body", "result"), ACCEPTED)
def test_what_is_read(body: bytes, result: CallbackResult) -> None:
    assert parse(body) == result


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        parse(body)
    assert caught.value.status == 400
    assert caught.value.__cause__ is None


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["success", "url"]), inner),
)


@given(st.binary() | JSON.map(dumps))
@example(b"9" * 60_000)
@example(b'{"success": %b}' % (b"9" * 60_000))
@example(rb'{"success": "\ud800"}')
def test_any_body_is_read_or_refused_by_400(body: bytes) -> None:
    try:
        result = parse(body)
    except DecodeError as error:
        assert error.status == 400
    else:
        assert isinstance(result.success, bool)
        assert result.url is None or isinstance(result.url, str)


def test_a_result_hides_its_url() -> None:
    assert "archive" not in repr(CallbackResult(success=True, url=FILE))


# --- the socket


async def test_a_callback_is_received(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    assert callback.url.startswith("http://127.0.0.1:")
    states = [callback.received]
    waiting = asyncio.create_task(callback.wait())
    assert await send(callback.url, b'{"success": true, "url": "%b"}' % FILE.encode()) == 200
    states.append(callback.received)
    assert states == [False, True]
    assert await waiting == await callback.wait() == CallbackResult(True, FILE)


@pytest.mark.parametrize("body", [GOOD, b'"success": true', b"", b"[]"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "a/b; charset=x", "nonsense"])
async def test_the_content_type_says_nothing(
    receiver: CallbackReceiver, body: bytes, kind: str
) -> None:
    callback = receiver.expect()
    status = await send(callback.url, body, headers={"Content-Type": kind})
    assert (status, callback.received) == ((200, True) if b"success" in body else (400, False))


async def test_after_a_refused_body_a_good_one_counts(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    assert await send(callback.url, b'{"success": 1}') == 400
    assert not callback.received
    assert await send(callback.url) == 200
    assert (await callback.wait()).success


async def test_the_first_one_counts(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    assert await send(callback.url, b'{"success": false}') == 200
    assert await send(callback.url, b'{"success": true, "url": "other"}') == 200
    assert await callback.wait() == CallbackResult(success=False)


async def test_each_job_has_its_own(receiver: CallbackReceiver) -> None:
    one, other = receiver.expect(), receiver.expect()
    assert one.url != other.url
    assert len(token_of(one)) >= 43  # 256 bits
    await send(one.url)
    assert (one.received, other.received) == (True, False)


async def test_unknown_paths_and_other_methods(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    for path in ("", "/", "/x", "/braze/x", f"/x/{token_of(callback)}"):
        assert await send(receiver.local_url + path) == 404
    assert await send(callback.url[:-1]) == 404
    assert await send(f"{callback.url}/") == 404
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"):
        assert await send(callback.url, None, method) == 405
        assert await send(f"{receiver.local_url}/x", None, method) == 404
    assert not callback.received


@pytest.mark.parametrize(
    ("public_url", "prefix"),
    [
        ("https://me.example.com", ""),
        ("https://me.example.com/", ""),
        ("HTTP://me.example.com:8443/braze", "/braze"),
        ("https://me.example.com/braze/", "/braze"),
        ("https://me.example.com/a/b%20c", "/a/b%20c"),
    ],
)
async def test_the_proxy_may_strip_the_prefix_or_not(
    public_url: str, prefix: str, nothing_left: None
) -> None:
    async with CallbackReceiver(public_url=public_url) as receiver:
        for sent in (prefix, ""):
            callback = receiver.expect()
            assert callback.url.lower().startswith(public_url.lower().rstrip("/") + "/")
            assert callback.url.endswith(f"{prefix}/{token_of(callback)}")
            assert await send(local(receiver, callback, sent)) == 200
            assert callback.received
        assert await send(local(receiver, receiver.expect(), "/other")) == 404


async def test_a_path_that_starts_like_the_prefix_is_not_cut(nothing_left: None) -> None:
    async with CallbackReceiver(public_url="https://me.example.com/a") as receiver:
        callback = receiver.expect()
        while not token_of(callback).startswith("a"):
            callback = receiver.expect()
        assert await send(local(receiver, callback)) == 200


async def test_size_is_bounded(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    limit = 64 * 1024
    assert await send(callback.url, GOOD + b" " * (limit + 1 - len(GOOD))) == 413
    assert await send(callback.url, b" " * (4 * limit)) == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * 10_000

    assert await send(callback.url, endless()) == 413
    assert not callback.received
    assert await send(callback.url, GOOD + b" " * (limit - len(GOOD))) == 200


async def test_nothing_is_decompressed(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    assert await send(callback.url, b" " * 10**6 + GOOD, compress="gzip") == 400


def test_a_slow_body_is_given_up() -> None:
    async def main() -> None:
        async with CallbackReceiver() as receiver:
            callback = receiver.expect()
            head = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{"
            sending = asyncio.create_task(raw(receiver, head % token_of(callback).encode()))
            await requests(receiver, 1)
            put_forward(29)
            await asyncio.sleep(0.001)
            assert not sending.done()
            put_forward(2)
            while not sending.done():
                await asyncio.sleep(0.001)
                put_forward(1)  # the server reads on for a while, to be heard
            assert (await sending).startswith(b"HTTP/1.1 408 ")
            assert not callback.received

    run_shifted(main())


async def test_a_sender_that_breaks_off_does_no_harm(
    receiver: CallbackReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    callback = receiver.expect()
    head = b"POST /%b HTTP/1.1\r\nHost: x\r\n" % token_of(callback).encode()
    answer = await raw(receiver, head + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n")
    assert b" 400 " in answer.splitlines()[0]
    _, writer = await connect(receiver)
    writer.write(head + b"Content-Length: 17\r\n\r\n{")
    await requests(receiver, 2)
    writer.close()
    await writer.wait_closed()
    assert await send(callback.url) == 200
    assert caplog.messages == ["callback received"]


async def test_a_body_that_http_cannot_read_is_refused() -> None:
    content = asyncio.StreamReader()
    content.set_exception(web.RequestPayloadError("no chunk"))
    request: Any = SimpleNamespace(content=content)
    with pytest.raises(DecodeError) as caught:
        await _read(request)
    assert caught.value.status == 400


async def test_a_silent_connection_is_closed_with_the_receiver(nothing_left: None) -> None:
    receiver = CallbackReceiver()
    async with receiver:
        callback = receiver.expect()
        head = f"POST /{token_of(callback)} HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{{"
        ends = [await connect(receiver) for _ in range(2)]
        ends[1][1].write(head.encode())
        await requests(receiver, 1)
    for reader, writer in ends:
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    with pytest.raises(aiohttp.ClientConnectorError):
        await send(callback.url)


# --- waiting


async def test_several_wait(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()
    waiting = [asyncio.create_task(callback.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(callback.wait(), 0.001)
    await send(callback.url)
    assert await asyncio.gather(*waiting[1:], callback.wait()) == [CallbackResult(True)] * 3


async def test_a_closed_callback_is_forgotten(receiver: CallbackReceiver) -> None:
    callback, come = receiver.expect(), receiver.expect()
    await send(come.url)
    waiting = asyncio.create_task(callback.wait())
    await asyncio.sleep(0)
    for each in (callback, come, callback):
        each.close()
        assert await send(each.url) == 404
    for wait in (waiting, callback.wait()):
        with pytest.raises(ClientClosedError):
            await wait
    assert (callback.received, come.received) == (False, True)
    assert await come.wait() == CallbackResult(success=True)


async def test_one_closed_while_its_body_comes_is_not_received(receiver: CallbackReceiver) -> None:
    callback = receiver.expect()

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.002)
        callback.close()
        yield GOOD[1:]

    assert await send(callback.url, body()) == 404
    assert not callback.received


async def test_closing_the_receiver_ends_the_waiting(nothing_left: None) -> None:
    receiver = CallbackReceiver()
    await receiver.start()
    callback, come = receiver.expect(), receiver.expect()
    receiver.expect()  # nobody waits for this one, and nobody complains
    await send(come.url)
    waiting = [asyncio.create_task(callback.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    await receiver.aclose()
    await receiver.aclose()
    for wait in (*waiting, callback.wait()):
        with pytest.raises(ClientClosedError, match="the callback receiver is closed"):
            await wait
    assert (await come.wait()).success
    callback.close()
    with pytest.raises(ClientClosedError, match="closed"):
        receiver.expect()


def test_a_callback_is_forgotten_after_its_lifetime() -> None:
    async def main() -> None:
        async with CallbackReceiver() as receiver:
            late, come = receiver.expect(), receiver.expect()
            await send(come.url)
            waiting = asyncio.create_task(late.wait())
            put_forward(4 * HOUR - 60)
            newer = receiver.expect()
            assert await send(come.url) == 200
            assert not waiting.done()
            assert len(receiver._open) == 3
            put_forward(61)
            with pytest.raises(RequestTimeoutError):
                await waiting
            with pytest.raises(RequestTimeoutError):
                await late.wait()
            assert await send(late.url) == 404
            assert len(receiver._open) == 1
            assert (await come.wait()).success
            assert await send(newer.url) == 200
            put_forward(4 * HOUR)
            receiver.expect()
            assert len(receiver._open) == 1

    run_shifted(main())


# --- secrecy


async def test_nothing_shows_the_token(
    receiver: CallbackReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("braze_export", "braze_export.callbacks", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    callback = receiver.expect()
    token = token_of(callback)
    path = token.encode()
    for request in (
        b"POST /%b HTTP/9.9.9\r\n\r\n",
        b"P\x01ST /%b HTTP/1.1\r\n\r\n",
        b"POST /%b\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /%b HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
    ):
        assert b" 400 " in (await raw(receiver, request % path)).splitlines()[0]
    assert await send(callback.url, f'{{"{token}": 1}}'.encode()) == 400
    assert await send(callback.url, f'{{"success": true, "url": "{FILE}"}}'.encode()) == 200
    assert await send(callback.url) == 200
    shown = caplog.text + repr(callback) + str(callback) + repr(receiver)
    assert token not in shown
    assert FILE not in shown
    ours = [(r.levelname, r.message) for r in caplog.records if r.name.startswith("braze_export")]
    assert ours == [("INFO", "callback received")]


# --- input

HIDDEN = "s3cr3t"


@pytest.mark.parametrize(
    "public_url",
    [
        "", "me.example.com", "//me.example.com", "ftp://me.example.com", "https://", "https:///x",
        "https://me.example.com:0", "https://me.example.com:99999", "https://me.example.com:x",
        f"https://user:{HIDDEN}@me.example.com", f"https://{HIDDEN}@me.example.com",
        f"https://:{HIDDEN}@me.example.com", f"https://me.example.com/?a={HIDDEN}",
        f"https://me.example.com/#{HIDDEN}", "https://me.example.com/?", "https://me.example.com#",
        "https://me.example.com/a b", "https://me.example.com\\@x", "https://[::1", 5, b"https://x",
        "https://me.example.com/\n", " https://me.example.com",
    ],
)  # fmt: skip
def test_a_public_url_that_cannot_be_right(public_url: Any) -> None:
    with pytest.raises(InputError, match="public_url must be where Braze reaches") as caught:
        CallbackReceiver(public_url=public_url)
    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"port": p} for p in (-1, 65536, "80", 1.5, True, None)]
    + [{"host": h} for h in ("", " ", None, 5)]
    + [{"lifetime": t} for t in (0, -1, float("inf"), float("nan"), "1", None)],
)
def test_options_that_cannot_be_right(options: Any) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        CallbackReceiver(**options)


async def test_a_port_that_is_taken(receiver: CallbackReceiver) -> None:
    port = int(receiver.local_url.rpartition(":")[2])
    second = CallbackReceiver(port=port)
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}") as caught:
        await second.start()
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ClientClosedError):
        second.expect()


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 64, "no\0host"])
async def test_a_host_that_is_not_here(host: str, nothing_left: None) -> None:
    with pytest.raises(InputError, match="cannot listen on"):
        async with CallbackReceiver(host=host):
            pass


async def test_it_must_be_started_and_once(nothing_left: None) -> None:
    receiver = CallbackReceiver()
    with pytest.raises(ClientClosedError, match="not started"):
        receiver.expect()
    await receiver.aclose()
    async with receiver:
        with pytest.raises(RuntimeError, match="started already"):
            await receiver.start()
        assert await send(receiver.expect().url) == 200


async def test_being_cancelled_while_starting_leaves_no_socket(nothing_left: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for turns in range(4):
        receiver = CallbackReceiver(port=port)
        starting = asyncio.create_task(receiver.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        await receiver.aclose()
    async with CallbackReceiver(port=port) as receiver:
        assert await send(receiver.expect().url) == 200


@pytest.mark.parametrize("turns", range(6))
async def test_closing_closes_a_connection_that_is_just_accepted(
    turns: int, nothing_left: None
) -> None:
    async with CallbackReceiver() as receiver:
        url = URL(receiver.local_url)
        caller = socket.socket()
        caller.setblocking(False)
        assert caller.connect_ex((url.host, url.port)) == errno.EINPROGRESS
        for _ in range(turns):
            await asyncio.sleep(0)
    with caller, suppress(ConnectionResetError):  # it was not accepted yet
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
async def test_ipv6(nothing_left: None) -> None:
    try:
        async with CallbackReceiver(host="::1") as receiver:
            assert receiver.local_url.startswith("http://[::1]:")
            assert await send(receiver.expect().url) == 200
    except InputError:
        pytest.skip("no IPv6 here")
