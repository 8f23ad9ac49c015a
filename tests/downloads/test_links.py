import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from attrs import Factory, define
from hypothesis import given
from hypothesis import strategies as st

from braze_export import (
    APIError,
    BrazeError,
    ConnectError,
    ExportExpiredError,
    InputError,
    RequestTimeoutError,
    ServerError,
    Timeouts,
    TransportError,
)
from braze_export.downloads.fetching import ObjectChangedError
from braze_export.downloads.links import Link, NotReady, check_link, redirected
from braze_export.transports.aiohttp import AiohttpTransport
from braze_export.transports.httpx import HttpxTransport
from braze_export.wire import Download, Request, Response, Streamed

URL = "https://storage.example/exports/11-22-1700000000.zip?X-Amz-Signature=s1gn4ture"
NOW = 1_700_000_000.0


def xml(code: str = "", message: str = "", before: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{before}<Error><Code>{code}</Code>'
        f"<Message>{message}</Message><RequestId>1</RequestId></Error>"
    ).encode()


@define
class Storage:
    """A transport that answers from a list; the last answer stays."""

    answers: list[tuple[int, Mapping[str, str], Iterable[bytes]]]
    asked: list[Download] = Factory(list)
    read: int = 0

    async def send(self, request: Request) -> Response:
        raise AssertionError

    async def aclose(self) -> None:
        pass

    @asynccontextmanager
    async def stream(self, download: Download) -> AsyncIterator[Streamed]:
        self.asked.append(download)
        status, headers, chunks = self.answers.pop(0) if self.answers[1:] else self.answers[0]
        async with aclosing(self._chunks(chunks)) as body:
            yield Streamed(status, headers, body)

    async def _chunks(self, chunks: Iterable[bytes]) -> AsyncGenerator[bytes, None]:
        for chunk in chunks:
            self.read += len(chunk)
            yield chunk


def answering(
    status: int, headers: Mapping[str, str] | None = None, *chunks: bytes, url: str = URL
) -> tuple[Link, Storage]:
    storage = Storage([(status, headers or {}, chunks)])
    return Link(url, storage, Timeouts(), "tests", lambda: NOW), storage


async def probed(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Any:
    """What a look says: a value, or the error that it raised."""
    link, _ = answering(status, headers, body)
    try:
        return await link.probe()
    except BrazeError as error:
        return error


# --- looking


@pytest.mark.parametrize("error", [ConnectError("lost"), RequestTimeoutError("no byte in time")])
async def test_errors_of_the_way_are_raised_as_they_are(error: TransportError) -> None:
    def lost() -> bytes:
        raise error

    chunks = (lost() for _ in range(1))
    link = Link(URL, Storage([(403, {}, chunks)]), Timeouts(), "tests", lambda: NOW)
    with pytest.raises(TransportError) as caught:
        await link.probe()
    assert caught.value is error


@pytest.mark.parametrize("status", [200, 206, 416])
async def test_there_is_an_archive(status: int) -> None:
    link, storage = answering(status, {}, b"x" * 10, b"y" * 10)
    assert await link.probe() is None
    # One byte is asked for, with GET: nothing else is signed.
    assert storage.asked[0].headers["Range"] == "bytes=0-0"
    assert storage.read == 0


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, xml("AccessDenied", "Access Denied"), "AccessDenied"),
        (404, xml("NoSuchKey", "The specified key does not exist."), "NoSuchKey"),
        (404, xml("BlobNotFound", "The specified blob does not exist."), "BlobNotFound"),
        (403, b"", None),
        (404, b"<html>Not Found</html>", None),
        (403, b"\xff\xfe\x00<Code>\xff</Code>", None),
        (403, b"<Code></Code><Code>A B</Code>", None),
        (403, b'{"code": "AccessDenied"}', None),
        (403, xml(" AccessDenied\n"), "AccessDenied"),
        (410, xml("Gone"), "Gone"),
        (403, xml("A" * 61), None),
    ],
)
async def test_not_ready(status: int, body: bytes, code: str | None) -> None:
    assert await probed(status, body) == NotReady(status, code)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, xml("AccessDenied", "Request has expired"), "AccessDenied"),
        (403, xml("AccessDenied", "REQUEST HAS EXPIRED"), "AccessDenied"),
        (400, xml("ExpiredToken", "The provided token has expired."), "ExpiredToken"),
        (400, xml("ExpiredToken", "Invalid argument."), "ExpiredToken"),
        (403, xml("ExpiredToken"), "ExpiredToken"),
        (400, xml("TokenRefreshRequired"), "TokenRefreshRequired"),
        (403, xml("AuthenticationFailed", "Server failed"), "AuthenticationFailed"),
        (403, b"<Message>Request has expired</Message>", None),
    ],
)
async def test_run_out(status: int, body: bytes, code: str | None) -> None:
    error = await probed(status, body)
    assert isinstance(error, ExportExpiredError)
    assert (error.status, error.code, error.endpoint) == (status, code, "GET link of the export")
    assert "Start it anew" in str(error)
    assert (f"({code})" in str(error)) == (code is not None)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (403, xml("SignatureDoesNotMatch", "The request signature we calculated does not match")),
        (403, xml("InvalidAccessKeyId")),
        (404, xml("NoSuchBucket")),
        (400, xml("InvalidToken")),
        (400, xml("AuthorizationQueryParametersError")),
        (400, b"Bad Request"),
        (401, b""),
        (405, xml("MethodNotAllowed")),
        (204, b""),
        (301, xml("PermanentRedirect")),
        (304, b""),
        (412, xml("PreconditionFailed")),
        (418, b""),
    ],
)
async def test_refused_for_good(status: int, body: bytes) -> None:
    error = await probed(status, body)
    assert type(error) is APIError
    assert error.status == status
    assert "refuses the link" in str(error)


@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 507, 520, 599])
async def test_busy(status: int) -> None:
    error = await probed(status, xml("SlowDown", "expired"), {"retry-after": "7"})
    assert isinstance(error, ServerError)
    assert (error.status, error.retry_after) == (status, 7.0)
    assert "SlowDown" in str(error)


async def test_retry_after_that_is_a_date() -> None:
    dates = {"retry-after": "Tue, 14 Nov 2023 22:13:30 GMT"}
    error = await probed(503, b"", dates)
    assert error.retry_after == 10.0
    assert (await probed(503, b"", {"retry-after": "soon"})).retry_after is None


async def test_a_long_error_page_is_not_read_to_its_end() -> None:
    def endless() -> Iterable[bytes]:
        while True:
            yield b"x" * 1000

    storage = Storage([(403, {}, endless())])
    link = Link(URL, storage, Timeouts(), "tests", lambda: NOW)
    assert await link.probe() == NotReady(403, None)
    assert storage.read < 10_000
    late = b" " * 8_190 + xml("ExpiredToken")
    assert await probed(403, late) == NotReady(403, None)


# --- opening


async def opened(
    link: Link, start: int = 0, version: str | None = None
) -> tuple[int, int | None, str | None, bytes]:
    async with link.open(start, version) as found:
        body = b"".join([chunk async for chunk in found.chunks])
        return found.start, found.total, found.version, body


@pytest.mark.parametrize(
    ("status", "headers", "start", "total"),
    [
        (200, {"content-length": "3"}, 0, 3),
        (200, {}, 0, None),
        (200, {"content-length": "x"}, 0, None),
        (200, {"content-length": "-3"}, 0, None),
        (200, {"content-length": "٣"}, 0, None),
        (200, {"content-length": "9" * 5_000}, 0, None),
        (206, {"content-range": "bytes 5-7/8", "content-length": "3"}, 5, 8),
        (206, {"content-range": " bytes 5-7/* "}, 5, None),
    ],
)
async def test_where_the_bytes_begin(
    status: int, headers: dict[str, str], start: int, total: int | None
) -> None:
    link, _ = answering(status, headers | {"etag": '"e"'}, b"abc")
    assert await opened(link, 5) == (start, total, '"e"', b"abc")


@pytest.mark.parametrize(
    "content_range",
    [
        None, "", "bytes */8", "bytes", "items 5-7/8", "bytes 5-7", "bytes -7/8", "bytes ٥-٧/٨",  # noqa: RUF001
        f"bytes {'9' * 5_000}-7/8", "bytes 5-7/8/9", "bytes=5-7/8",
    ],
)  # fmt: skip
async def test_a_part_of_nobody_knows_what(content_range: str | None) -> None:
    headers = {} if content_range is None else {"content-range": content_range}
    link, _ = answering(206, headers, b"abc")
    with pytest.raises(APIError, match="does not say which part"):
        await opened(link, 5)


@pytest.mark.parametrize(
    ("start", "version", "expected"),
    [
        (0, None, {}),
        (0, '"e"', {}),
        (5, None, {"Range": "bytes=5-"}),
        (5, '"e"', {"Range": "bytes=5-", "If-Match": '"e"'}),
        (5, 'W/"e"', {"Range": "bytes=5-"}),
    ],
)
async def test_what_is_asked(start: int, version: str | None, expected: dict[str, str]) -> None:
    link, storage = answering(200, {"content-length": "3"}, b"abc")
    await opened(link, start, version)
    always = {"User-Agent": "tests", "Accept-Encoding": "identity"}
    assert storage.asked[0].headers == always | expected
    assert storage.asked[0].url == URL


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (412, {}),
        (416, {}),
        (416, {"content-range": "bytes */3"}),
        (416, {"content-range": "bytes */*"}),
    ],
)
async def test_another_archive_by_now(status: int, headers: dict[str, str]) -> None:
    link, _ = answering(status, headers, xml("InvalidRange"))
    with pytest.raises(ObjectChangedError, match="replaced"):
        await opened(link, 5, '"e"')
    with pytest.raises(APIError, match="refuses"):
        await opened(link)


async def test_all_of_it_has_come_already() -> None:
    link, storage = answering(416, {"content-range": "bytes */5"}, xml("InvalidRange"))
    assert await opened(link, 5) == (5, 5, None, b"")
    assert storage.read == 0


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_an_archive_that_was_there_is_gone(status: int) -> None:
    link, _ = answering(status, {}, xml("AccessDenied"))
    with pytest.raises(ExportExpiredError) as caught:
        await opened(link, 5)
    assert (caught.value.status, caught.value.code) == (status, "AccessDenied")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/exports/11-22.zip?s=1", "11-22.zip"),
        ("/?s=1", "archive"),
        ("?s=1", "archive"),
        ("/a/b%0A.zip#f", "b%0A.zip"),
        ("/" + "x" * 300, "x" * 100 + "…"),
    ],
)
def test_the_name(path: str, name: str) -> None:
    link, _ = answering(200, url=f"https://storage.example{path}")
    assert link.name == name


def test_the_link_shows_in_no_repr() -> None:
    link, _ = answering(200)
    download = Download(URL, {}, Timeouts(), "link of the export")
    assert "s1gn4ture" not in f"{link!r} {download!r} {link!s} {download!s}"


# --- redirects


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a/x?s", "https://b/y?t", "https://b/y?t"),
        ("https://a/x?s", "/y?t", "https://a/y?t"),
        ("https://a/p/x?s", "y?t", "https://a/p/y?t"),
        ("https://a/x?s", "//b/y", "https://b/y"),
        ("https://a/x?s", "?t", "https://a/x?t"),
        ("http://a/x", "https://b/y", "https://b/y"),
        ("http://a:1/x", "http://a:2/y", "http://a:2/y"),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:2/y", "http://127.0.0.1:2/y"),
        ("https://a/x", "HTTPS://B/y%2F?s=%2B+", "https://B/y%2F?s=%2B+"),
        ("https://a/x", "https:///y", "https://a/y"),
    ],
)
def test_where_a_redirect_may_lead(url: str, location: str, target: str) -> None:
    assert redirected(url, location) == target


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://a/x", "http://a/x"),
        ("https://a/x", "http://b/x"),
        ("https://127.0.0.1/x", "http://127.0.0.1/x"),
        ("https://localhost/x", "http://localhost:80/x"),
        ("http://a/x", "http://b/x"),
        ("http://127.0.0.1/x", "http://localhost/x"),
        ("https://a/x", "ftp://a/x"),
        ("https://a/x", "file:///etc/passwd"),
        ("https://a/x", "data:,x"),
        ("https://a/x", "javascript:x"),
        ("https://a/x", "https://u:p@b/x"),
        ("https://a/x", "https://b:x/x"),
        ("https://a/x", "https://[::1/x"),
        ("https://a/x", "https://b/x y"),
        ("https://a/x", "https://b\\@c/x"),
        ("https://a/x", "https://b/x\x00y"),
        ("https://a/x", "https://b/\udcff"),
    ],
)
def test_where_no_redirect_leads(url: str, location: str) -> None:
    with pytest.raises(APIError, match="redirects to where") as caught:
        redirected(url, location)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_without_secrets(status: int) -> None:
    target = "https://cdn.example/y?t"
    storage = Storage([(status, {"location": target}, [b"x"]), (200, {}, [b"abc"])])
    link = Link(URL, storage, Timeouts(), "tests", lambda: NOW)
    assert (await opened(link, 5, '"e"'))[3] == b"abc"
    assert [download.url for download in storage.asked] == [URL, target]
    allowed = {"User-Agent", "Accept-Encoding", "Range", "If-Match"}
    assert storage.asked[1].headers.keys() == allowed


async def test_redirects_without_end() -> None:
    link, storage = answering(302, {"location": URL})
    for use in (link.probe(), opened(link)):
        storage.asked.clear()
        with pytest.raises(APIError, match="for ever") as caught:
            await use
        assert len(storage.asked) == 5
        assert "s1gn4ture" not in str(caught.value)


# --- links that are none


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "storage.example/x", "ftp://a/x", "file:///x", "https://", "https:///x", "https:x",
        "https://a:b/x", "https://a:99999/x", "https://a:0/x", "https://[::1/x", "https://a b/x",
        "https://a/x\n", "https://a\\b/x", "https://a/\x00",
    ],
)  # fmt: skip
def test_no_link(url: str) -> None:
    for plain_http in (False, True):
        with pytest.raises(InputError, match="no URL that starts with https") as caught:
            check_link(url, plain_http=plain_http)
        assert caught.value.__context__ is None


@pytest.mark.parametrize("url", ["https://u@a/x", "https://u:p@a/x", "https://:p@a/x"])
def test_no_link_with_a_password(url: str) -> None:
    with pytest.raises(InputError, match="user name or password"):
        check_link(url)


def test_plain_http_is_for_this_machine_or_for_those_who_ask() -> None:
    with pytest.raises(InputError, match="plain HTTP"):
        check_link("http://storage.example/x?secret")
    for url in ("http://127.0.0.1:1/x", "http://localhost/x", "http://[::1]/x", "https://a/x"):
        assert check_link(url) == url
    assert check_link("http://storage.example/x", plain_http=True)


texts = st.text(st.characters(exclude_categories=()), max_size=30)
odd = st.sampled_from(["https://", "http://", *"@:[]%?#a.\\", ".."])


@given(st.lists(odd | texts, max_size=8).map("".join), texts)
def test_whatever_a_storage_says(url: str, location: str) -> None:
    """Nothing but our errors, and nothing of another kind."""
    checks: list[Callable[[], str]] = [
        lambda: check_link(url),
        lambda: redirected("https://a/x", location),
    ]
    for check in checks:
        try:
            target = check()
        except (InputError, APIError):
            continue
        assert target.lower().startswith(("https:", "http://"))


@pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
@pytest.mark.parametrize(
    "host",
    ["a..b", ".", "%zz", "a%2eb", "é" * 70, "-", "[::1%25lo]", "[v1.a]", "x" * 70, "‥", "*"],
)
async def test_no_host_so_odd_that_something_else_is_raised(
    transport: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(host: str | bytes, *args: Any, **kwargs: Any) -> Any:
        if isinstance(host, str):
            host.encode("idna")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    url = f"https://{host}:1/x?s1gn4ture"
    try:
        check_link(url)
    except InputError:
        return
    over = transport()
    link = Link(url, over, Timeouts(connect=0.5), "tests", lambda: NOW)
    with pytest.raises(TransportError) as caught:
        await link.probe()
    await over.aclose()
    assert caught.value.__context__ is None
    assert "s1gn4ture" not in str(caught.value)
