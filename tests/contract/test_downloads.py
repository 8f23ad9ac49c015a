"""Archives over connections that break, from storages that do as they like."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import httpx
import pytest
import trustme
from blockbuster import BlockBuster

from braze_export import (
    AiohttpTransport,
    APIError,
    ArchiveError,
    BrazeClient,
    ConnectionLostError,
    ExportExpiredError,
    ExportJob,
    InputError,
    RetryPolicy,
    Timeouts,
    TransportError,
    read_archive,
)
from braze_export.downloads.fetching import ObjectChangedError
from braze_export.sandbox import Fault, Sandbox
from braze_export.transports.httpx import HttpxTransport
from tests.contract.conftest import QUICK, Connect
from tests.contract.exporting import EAGER, LINKS, Clock, at_work, files_in, ids, looks, start

FIELDS = ["external_id", "custom_attributes"]
PATH = "/11-22-1700000000.gz?s1gn4ture"


@pytest.fixture(autouse=True)
def _tests_may_look(blocking_calls_fail: BlockBuster) -> None:
    """What the tests themselves do to the disk."""
    for function in blocking_calls_fail.functions.values():
        function.can_block_in("tests/contract/exporting.py", {"files_in"})
        function.can_block_in("tests/contract/test_downloads.py", {"content"})


def content(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture(params=[True, False], ids=["ranges", "no-ranges"])
async def broken(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """A sandbox with archives of some 65 KB."""
    async with Sandbox(users=300, profile="full", ranges=request.param) as sandbox:
        yield sandbox


async def both(job: ExportJob, sandbox: Sandbox, path: Path) -> None:
    """Read and download: every user comes once, in order."""
    expected = list(sandbox.segment_external_ids(1))
    assert await ids(job.profiles()) == expected
    assert job.stats.bytes_received == job.stats.bytes_total
    assert await job.download(path) == path
    assert await ids(read_archive(path)) == expected
    assert job.stats.bytes_received == job.stats.bytes_total == 2 * len(content(path))
    assert files_in(path.parent) == [path.name]


# --- what the sandbox can do to a download


TROUBLE = {
    "dropped before": Fault(drop="before"),
    "dropped in the headers": Fault(drop="headers"),
    "dropped in the body": Fault(drop="body"),
    "dropped after": Fault(drop="after"),
    "cut at once": Fault(cut=0),
    "cut at the first byte": Fault(cut=1),
    "cut in the middle": Fault(cut=3_000),
    "busy": Fault(status=503, body=b"<Error><Code>SlowDown</Code></Error>"),
    "failing": Fault(status=500),
    "limited": Fault(status=429, headers={"retry-after": "0"}),
}


@pytest.mark.parametrize("name", TROUBLE)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
async def test_passing_trouble_loses_nothing_and_repeats_nothing(
    connect: Connect, tmp_path: Path, name: str, ranges: bool
) -> None:
    async with Sandbox(users=200, profile="typical", ranges=ranges) as sandbox:
        job = await start(connect(sandbox, exports=EAGER), sandbox, fields=FIELDS)
        await job.wait()
        for after in (1, 4):  # the first request of each use only looks
            sandbox.inject(TROUBLE[name], path=LINKS, after=after, times=2)
        await both(job, sandbox, tmp_path / "x.zip")
        assert job.stats.bytes_received > 10_000


async def test_an_answer_that_does_not_come(
    connect: Connect, broken: Sandbox, tmp_path: Path
) -> None:
    job = await start(connect(broken, exports=EAGER), broken, fields=FIELDS)
    await job.wait()
    assert job.url is not None
    impatient = connect(broken, exports=EAGER, timeouts=Timeouts(read=0.1))
    job = impatient.users.resume_export(job.url)
    for after in (1, 4):
        broken.inject(Fault(delay=30), path=LINKS, after=after)
    await both(job, broken, tmp_path / "x.zip")
    assert job.stats.resumed >= 2
    await impatient.aclose()


async def test_a_connection_that_breaks_over_and_over(
    connect: Connect, broken: Sandbox, tmp_path: Path
) -> None:
    job = await start(connect(broken, exports=EAGER), broken, fields=FIELDS)
    await job.wait()
    for after in (1, 23):
        for number in range(20):
            # Without ranges each try must come further than the one before.
            size = 2_500 if broken.ranges else 2_500 * (number + 1)
            broken.inject(Fault(cut=size), path=LINKS, after=after)
    before = looks(broken)
    await both(job, broken, tmp_path / "x.zip")
    assert job.stats.resumed == 40
    assert looks(broken) - before == 44
    downloads = [r for r in broken.log if r.path.startswith(LINKS)]
    assert not any(record.authorized for record in downloads)
    assert any(record.status == 206 for record in downloads[3:]) == broken.ranges
    assert all(
        "if-match" in r.headers for r in downloads if r.headers.get("range", "-0") > "bytes=1"
    )


async def test_it_breaks_in_the_same_place_for_ever(
    connect: Connect, broken: Sandbox, tmp_path: Path
) -> None:
    job = await start(connect(broken, exports=EAGER), broken, fields=FIELDS)
    await job.wait()
    broken.inject(Fault(cut=25_000), path=LINKS, after=1)
    broken.inject(Fault(drop="before"), path=LINKS, after=2, times=100)
    taken: list[str] = []
    with pytest.raises(ConnectionLostError):
        async for user in job.profiles():
            taken += [str(user.external_id)]
    assert taken == list(broken.segment_external_ids(1))[: len(taken)]
    assert 0 < len(taken) < 300
    with pytest.raises(ConnectionLostError):
        await job.download(tmp_path / "x.zip")
    assert files_in(tmp_path) == []


async def test_a_trickle_is_no_timeout(connect: Connect, tmp_path: Path) -> None:
    async with Sandbox(users=200, profile="full") as sandbox:
        timeouts = Timeouts(read=0.5, total=0.05)
        job = await start(connect(sandbox, exports=EAGER, timeouts=timeouts), sandbox)
        await job.wait()
        for after in (1, 3):
            sandbox.inject(Fault(slow=10_000), path=LINKS, after=after)
        await both(job, sandbox, tmp_path / "x.zip")
        assert job.stats.resumed == 0


async def test_bytes_that_come_too_slowly(connect: Connect, sandbox: Sandbox) -> None:
    job = await start(connect(sandbox, exports=EAGER), sandbox)
    await job.wait()
    assert job.url is not None
    impatient = connect(sandbox, exports=EAGER, timeouts=Timeouts(read=0.1))
    job = impatient.users.resume_export(job.url)
    sandbox.inject(Fault(slow=1), path=LINKS, after=1)
    assert await ids(job.profiles()) == list(sandbox.segment_external_ids(1))
    assert job.stats.resumed >= 1
    await impatient.aclose()


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
async def test_an_archive_that_is_cut_off_though_its_length_is_right(
    connect: Connect, tmp_path: Path, output_format: Any
) -> None:
    async with Sandbox(users=2_000, profile="full") as sandbox:
        braze = connect(sandbox, exports=EAGER)
        job = await start(braze, sandbox, fields=FIELDS, output_format=output_format)
        await job.wait()
        for after in (1, 3):
            sandbox.inject(Fault(truncate=200_000), path=LINKS, after=after)
        taken: list[str] = []
        with pytest.raises(ArchiveError, match="cut off"):
            async for user in job.profiles():
                taken += [str(user.external_id)]
        assert taken == list(sandbox.segment_external_ids(1))[: len(taken)]
        assert len(taken) > 100
        path = await job.download(tmp_path / "x")
        with pytest.raises(ArchiveError, match="cut off"):
            await ids(read_archive(path))


async def test_garbage(connect: Connect, sandbox: Sandbox) -> None:
    job = await start(connect(sandbox, exports=EAGER), sandbox)
    sandbox.inject(Fault(garbage=True), path=LINKS, after=1)
    with pytest.raises(ArchiveError, match="no archive"):
        await ids(job.profiles())
    sandbox.inject(
        Fault(body=b"<html>Looks like the file doesn't exist anymore"), path=LINKS, after=1
    )
    with pytest.raises(ArchiveError, match="a page of HTML"):
        await ids(job.profiles())
    assert len(await ids(job.profiles())) == 1_000


@pytest.mark.parametrize("how", ["profiles", "download"])
async def test_the_link_runs_out_under_way(connect: Connect, tmp_path: Path, how: str) -> None:
    clock = Clock()
    number = 0

    def faults(_: int, path: str) -> Fault | None:
        nonlocal number
        number += path.startswith(LINKS)
        clock.now += 4 * 3600 * (number == 3)
        return Fault(cut=25_000) if number == 2 and path.startswith(LINKS) else None

    async with Sandbox(users=300, profile="full", clock=clock, faults=faults) as sandbox:
        job = await start(connect(sandbox, exports=EAGER), sandbox, fields=FIELDS)
        with pytest.raises(ExportExpiredError) as caught:
            await (ids(job.profiles()) if how == "profiles" else job.download(tmp_path / "x.zip"))
    assert caught.value.code == "AccessDenied"
    assert number == 3
    assert files_in(tmp_path) == []


# --- an archive that is replaced


@pytest.fixture(params=[True, False], ids=["ranges", "no-ranges"])
async def rewritten(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Sandbox, list[int]]]:
    """A sandbox that breaks downloads off, and makes their archives anew; and at which requests."""
    places: list[int] = []
    number = 0

    def faults(_: int, path: str) -> Fault | None:
        nonlocal number
        if not path.startswith(LINKS):
            return None
        number += 1
        if number in places:
            sandbox.rewrite_exports()
        return Fault(cut=25_000) if number + 1 in places else None

    async with Sandbox(users=300, profile="full", ranges=request.param, faults=faults) as sandbox:
        yield sandbox, places


async def test_profiles_of_two_archives_are_not_joined(
    connect: Connect, rewritten: tuple[Sandbox, list[int]]
) -> None:
    sandbox, places = rewritten
    places.append(3)
    job = await start(connect(sandbox, exports=EAGER), sandbox, fields=FIELDS)
    taken: list[str] = []
    with pytest.raises(ConnectionLostError, match="replaced while it was being downloaded"):
        async for user in job.profiles():
            taken += [str(user.external_id)]
    assert taken == list(sandbox.segment_external_ids(1))[: len(taken)]
    assert taken
    assert not at_work()
    assert len(await ids(job.profiles())) == 300


async def test_a_download_begins_anew(
    connect: Connect, rewritten: tuple[Sandbox, list[int]], tmp_path: Path
) -> None:
    sandbox, places = rewritten
    places += [3, 5]
    job = await start(connect(sandbox, exports=EAGER), sandbox, fields=FIELDS)
    path = await job.download(tmp_path / "x.zip")
    assert await ids(read_archive(path)) == list(sandbox.segment_external_ids(1))
    assert job.stats.bytes_received == job.stats.bytes_total == len(content(path))
    assert files_in(tmp_path) == ["x.zip"]
    places += range(7, 1_000, 2)
    with pytest.raises(ObjectChangedError):
        await job.download(tmp_path / "y.zip")
    assert files_in(tmp_path) == ["x.zip"]


# --- storages of another kind


@attrs.frozen
class Asked:
    """A request, with the number of it, from 0."""

    number: int
    line: str
    headers: dict[str, str]

    @property
    def start(self) -> int:
        return int(self.headers.get("range", "bytes=0-").split("=")[1].split("-")[0])


USERS = [f"u{n}" for n in range(300)]
ARCHIVE = gzip.compress("".join(f'{{"external_id":"{user}"}}\n' for user in USERS).encode(), 0)
SIZE = len(ARCHIVE)
Answer = Callable[[Asked], bytes]


def http(status: int, body: bytes = b"", **headers: Any) -> bytes:
    """Make an answer; a header that is ``None`` is left out."""
    given: dict[str, Any] = {"content_length": len(body)} | headers
    lines = [f"{k.replace('_', '-')}: {v}" for k, v in given.items() if v is not None]
    return (
        "\r\n".join([f"HTTP/1.1 {status} X", *lines, "Connection: close", "", ""]).encode() + body
    )


def whole(cut: int = SIZE, **headers: Any) -> bytes:
    return http(200, ARCHIVE[:cut], **({"content_length": SIZE, "etag": '"1"'} | headers))


def part(start: int, cut: int = SIZE, said: str | None = None, **headers: Any) -> bytes:
    """Make an answer with a part, which may say that it is another."""
    said = f"bytes {start}-{SIZE - 1}/{SIZE}" if said is None else said
    more: dict[str, Any] = {"content_length": SIZE - start, "content_range": said, "etag": '"1"'}
    return http(206, ARCHIVE[start:cut], **(more | headers))


@asynccontextmanager
async def storage(
    answer: Answer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[Asked]]]:
    """A server that answers as told; the first request, which looks, finds an archive."""
    asked: list[Asked] = []
    speaking: set[Any] = set()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        speaking.add(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        asked.append(Asked(len(asked), head[0], {k.lower(): v for k, v in pairs}))
        writer.write(answer(asked[-1]))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", asked
        await asyncio.gather(*speaking)


def resumed(connect: Connect, sandbox: Sandbox, url: str, **options: Any) -> ExportJob:
    return connect(sandbox, exports=EAGER, **options).users.resume_export(f"{url}{PATH}")


def parts(size: int = 700, **headers: Any) -> Answer:
    """Answer with so much at a time, however much was asked for; parts with these headers."""
    return lambda a: part(a.start, a.start + size, **headers) if a.start else whole(size)


def pieces(asked: Asked) -> bytes:
    """Answer with more and more of the whole, without its length and without an end."""
    body = ARCHIVE[: 700 * asked.number]
    if len(body) == SIZE:
        return whole()
    chunk = b"%x\r\n%b" % (SIZE, body)
    return http(200, chunk, content_length=None, transfer_encoding="chunked")


def short(asked: Asked) -> bytes:
    """Answer with a part that ends too early, and says so."""
    body = ARCHIVE[asked.start : asked.start + 700]
    last = asked.start + len(body) - 1
    return http(206, body, content_range=f"bytes {asked.start}-{last}/{SIZE}")


def unsigned(answer: Answer, **headers: Any) -> Answer:
    """The same answer with another ETag, or none."""

    def changed(asked: Asked) -> bytes:
        new = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        return answer(asked).replace(b'etag: "1"\r\n', new.encode(), 1)

    return changed


ODD: dict[str, Answer] = {
    "as it should be": parts(),
    "no ETag": unsigned(parts()),
    "weak ETag": unsigned(parts(), etag='W/"1"'),
    "no ETag in parts": parts(etag=None),
    "no size in parts": lambda a: (
        part(a.start, a.start + 700, f"bytes {a.start}-{SIZE}/*") if a.start else whole(700)
    ),
    "whole for a part": lambda a: whole(700 * a.number),
    "whole and no ETag": lambda a: whole(700 * a.number, etag=None),
    "the part before": lambda a: (
        part(max(0, a.start - 100), a.start + 700) if a.start else whole(700)
    ),
    "a part at first": lambda a: part(a.start, a.start + 700),
    "short parts": short,
    "chunked": pieces,
    "no length": lambda _: whole(content_length=None),
    "odd headers": lambda _: whole(last_modified="never", content_type="", accept_ranges="none"),
}


@pytest.mark.parametrize("name", ODD)
async def test_storages_that_are_odd_but_right(
    connect: Connect, sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    def counted_anew(asked: Asked) -> bytes:
        return ODD[name](attrs.evolve(asked, number=asked.number - begun))

    begun = 0
    async with storage(counted_anew) as (url, seen):
        job = resumed(connect, sandbox, url)
        assert await ids(job.profiles()) == USERS
        begun = len(seen)
        path = await job.download(tmp_path / "x.gz")
        assert content(path) == ARCHIVE
        assert job.stats.users == len(USERS)
    assert files_in(tmp_path) == ["x.gz"]


def said(text: str) -> Answer:
    """Answer with the right part, and say something else."""
    return lambda a: part(a.start, said=text.format(start=a.start, size=SIZE))


SKIPPED = (ConnectionLostError, "skipped a part")
UNCLEAR = (APIError, "does not say which part")
CHANGED = (ObjectChangedError, "replaced")
REFUSED = (APIError, "refuses the link")

WRONG: dict[str, tuple[Answer, tuple[type[Exception], str]]] = {
    "a part further on": (lambda a: part(a.start + 5), SKIPPED),
    "a part of nobody knows what": (said(""), UNCLEAR),
    "a part without a start": (said("bytes */{size}"), UNCLEAR),
    "404": (lambda _: http(404, b"<Code>NoSuchKey</Code>"), (ExportExpiredError, "NoSuchKey")),
    "400": (lambda _: http(400), REFUSED),
    "204": (lambda _: http(204), REFUSED),
    "302 in circles": (lambda _: http(302, location=PATH), (APIError, "for ever")),
    "302 to nowhere": (lambda _: http(302), REFUSED),
    "302 to a file": (lambda _: http(302, location="file:///x"), (APIError, "redirects to where")),
    "nothing more": (lambda a: part(a.start, a.start), (ConnectionLostError, "lost")),
}
#: Wrong only where some of it has come already.
WRONG_LATER: dict[str, tuple[Answer, tuple[type[Exception], str]]] = {
    "another size": (said("bytes {start}-{size}/9"), CHANGED),
    "another ETag": (lambda a: part(a.start, etag='"2"'), CHANGED),
    "another ETag of the whole": (lambda _: whole(etag='"2"'), CHANGED),
    "another length of the whole": (lambda _: whole(9, content_length=9, etag=None), CHANGED),
    "412": (lambda _: http(412), CHANGED),
    "416": (lambda a: http(416, content_range=f"bytes */{a.start - 1}"), CHANGED),
}


@pytest.mark.parametrize(
    ("name", "later"),
    [*((n, late) for n in WRONG for late in (0, 1_000)), *((n, 1_000) for n in WRONG_LATER)],
)
async def test_storages_that_are_wrong(
    connect: Connect, sandbox: Sandbox, tmp_path: Path, name: str, later: int
) -> None:
    wrong, (kind, message) = (WRONG | WRONG_LATER)[name]

    def answer(asked: Asked) -> bytes:
        if asked.headers.get("range") == "bytes=0-0":
            return part(0, 1)
        return whole(later) if later and not asked.start else wrong(asked)

    async with storage(answer) as (url, _):
        job = resumed(connect, sandbox, url)
        taken: list[str] = []
        with pytest.raises(kind, match=message):
            async for user in job.profiles():
                taken += [str(user.external_id)]
        assert taken == USERS[: len(taken)]
        assert bool(taken) == bool(later)
        assert not at_work()
        with pytest.raises(kind, match=message):
            await job.download(tmp_path / "x.gz")
    assert files_in(tmp_path) == []


async def test_the_whole_has_come_but_nobody_said_so(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Without a length, and without the end: there is nothing more to be had."""
    unended = b"%x\r\n%b\r\n" % (SIZE, ARCHIVE)
    chunked = http(200, unended, content_length=None, transfer_encoding="chunked")
    beyond = http(416, content_range=f"bytes */{SIZE}")
    async with storage(lambda a: beyond if a.start else chunked) as (url, _):
        job = resumed(connect, sandbox, url)
        assert await ids(job.profiles()) == USERS
        assert content(await job.download(tmp_path / "x.gz")) == ARCHIVE


async def test_an_archive_of_no_bytes(connect: Connect, sandbox: Sandbox, tmp_path: Path) -> None:
    def answer(asked: Asked) -> bytes:
        return http(416) if "range" in asked.headers else http(200)

    async with storage(answer) as (url, _):
        job = resumed(connect, sandbox, url)
        assert await ids(job.profiles()) == []
        assert content(await job.download(tmp_path / "x.gz")) == b""


# --- redirects


HARMLESS = {
    "host", "accept", "accept-encoding", "user-agent", "connection", "range", "if-match",
}  # fmt: skip


async def test_a_redirect_to_another_host_takes_nothing_along(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with storage(lambda a: part(a.start) if a.start else whole(1_000)) as (other, seen):
        for status in (301, 302, 303, 307, 308):
            seen.clear()
            fault = Fault(status=status, headers={"location": f"{other}{PATH}"})
            sandbox.inject(fault, path=LINKS, times=3)
            job = await start(connect(sandbox, exports=EAGER), sandbox)
            assert await ids(job.profiles()) == USERS
            # One looks, one fetches, one goes on.
            assert [asked.line for asked in seen] == [f"GET {PATH} HTTP/1.1"] * 3
            allowed = {
                "host",
                "accept",
                "accept-encoding",
                "user-agent",
                "connection",
                "range",
                "if-match",
            }
            for asked in seen:
                assert asked.headers.keys() <= allowed
                assert sandbox.api_key not in str(asked.headers)


async def test_redirects_within_a_host(connect: Connect, sandbox: Sandbox) -> None:
    targets = {"/11": "22?a=b", "/22": "./33/", "/33/": "/44", "/44": "?z"}

    def answer(asked: Asked) -> bytes:
        path = asked.line.split()[1]
        where = targets.get(path.partition("?")[0]) if path != "/44?z" else None
        return http(307, location=where) if where else whole()

    async with storage(answer) as (url, seen):
        job = connect(sandbox, exports=EAGER).users.resume_export(f"{url}/11?sig")
        assert await ids(job.profiles()) == USERS
    lines = [asked.line.split()[1] for asked in seen]
    assert lines == ["/11?sig", "/22?a=b", "/33/", "/44", "/44?z"] * 2


@pytest.fixture
def authority() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS of a server, and of those who trust it."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@asynccontextmanager
async def trusting(
    make_transport: Any, tls: ssl.SSLContext
) -> AsyncIterator[AiohttpTransport | HttpxTransport]:
    if make_transport is AiohttpTransport:
        connector = aiohttp.TCPConnector(ssl=tls)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield AiohttpTransport(session)
    else:
        client = await asyncio.to_thread(httpx.AsyncClient, verify=tls)
        async with client:
            yield HttpxTransport(client)


async def test_redirects_between_http_and_https(
    make_transport: Any, authority: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    server, client = authority
    leads_to = ""
    async with (
        trusting(make_transport, client) as transport,
        storage(lambda _: whole()) as (plain, seen_plainly),
        storage(lambda _: whole(), server) as (safe, seen_safely),
        storage(lambda _: http(302, location=leads_to)) as (from_plain, _),
        storage(lambda _: http(302, location=leads_to), server) as (from_safe, _),
        BrazeClient("key", plain, transport=transport, exports=EAGER, retry=QUICK) as braze,
    ):
        for before, after in ((from_plain, safe), (from_plain, plain), (from_safe, safe)):
            leads_to = f"{after}{PATH}"
            job = braze.users.resume_export(f"{before}{PATH}")
            assert await ids(job.profiles()) == USERS
        assert (len(seen_plainly), len(seen_safely)) == (2, 4)
        # Never from https to http, not even on this machine.
        leads_to = f"{plain}{PATH}"
        job = braze.users.resume_export(f"{from_safe}{PATH}")
        for use in (job.wait(), ids(job.profiles()), job.download(tmp_path / "x.gz")):
            with pytest.raises(APIError, match="must not be fetched from"):
                await use
        assert len(seen_plainly) == 2
    assert files_in(tmp_path) == []


# --- where it is saved


async def test_a_place_that_will_not_do_is_told_at_once(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Sandbox(users=10, export_seconds=3600) as sandbox:
        job = await start(connect(sandbox, exports=EAGER), sandbox)
        bad: list[tuple[Any, str]] = [
            (tmp_path, "is a directory: name a file in it"),
            ("", "is a directory"),
            (tmp_path / "no" / "x.zip", "cannot be written"),
            ("a\0b", "cannot be written"),
            (None, "path must be a str or a Path, not of type NoneType"),
            (5, "path must be a str or a Path, not of type int"),
            (b"x", "path must be a str or a Path, not of type bytes"),
        ]
        for path, message in bad:
            with pytest.raises(InputError, match=message):
                await job.download(path)
        assert looks(sandbox) == 0
    assert files_in(tmp_path) == []


async def test_what_is_there_is_replaced_when_the_new_one_is_whole(
    connect: Connect, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "x.zip"
    job = await start(connect(sandbox, exports=EAGER), sandbox)
    await asyncio.to_thread(path.write_bytes, b"old")
    sandbox.inject(Fault(cut=100), path=LINKS, after=1, times=1)
    sandbox.inject(Fault(status=400), path=LINKS, after=2)
    with pytest.raises(APIError):
        await job.download(path)
    assert content(path) == b"old"
    assert files_in(tmp_path) == ["x.zip"]
    await job.download(path)
    assert len(await ids(read_archive(path))) == 1_000


async def test_a_full_disk(
    connect: Connect, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    job = await start(connect(sandbox, exports=EAGER), sandbox)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        await job.download(tmp_path / "x.zip")
    assert files_in(tmp_path) == []
    assert not at_work()


async def test_once_means_once(connect: Connect, sandbox: Sandbox) -> None:
    braze = connect(sandbox, exports=EAGER, retry=RetryPolicy(max_attempts=1))
    job = await start(braze, sandbox)
    await job.wait()
    sandbox.inject(Fault(cut=1_000), path=LINKS, after=1)
    with pytest.raises(TransportError):
        await ids(job.profiles())
    assert job.stats.resumed == 0
