import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import pytest
from blockbuster import BlockBuster

from braze_export import (
    APIError,
    BrazeClient,
    BrazeError,
    ClientClosedError,
    ConnectionLostError,
    DecodeError,
    ExportExpiredError,
    ExportInProgressError,
    ExportJob,
    ExportNotReadyError,
    ExportSettings,
    ExportState,
    InputError,
    Polling,
    RequestTimeoutError,
    ServerError,
    Timeouts,
    UserProfile,
    read_archive,
)
from braze_export.downloads import unpacking
from braze_export.exporting import starting
from braze_export.models.results import DownloadStats
from braze_export.sandbox import Fault, Sandbox
from tests.contract.conftest import Connect
from tests.contract.exporting import (
    EAGER,
    EXPORT,
    LINKS,
    Clock,
    at_work,
    files_in,
    ids,
    looks,
    start,
    until,
)

XML = "<Error><Code>{}</Code><Message>{}</Message></Error>"


@pytest.fixture(autouse=True)
def _tests_may_look(blocking_calls_fail: BlockBuster) -> None:
    """What the tests themselves do to the disk."""
    for function in blocking_calls_fail.functions.values():
        function.can_block_in("tests/contract/exporting.py", {"files_in"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def preparing(clock: Clock) -> AsyncIterator[Sandbox]:
    """A sandbox whose exports take an hour of its clock."""
    async with Sandbox(users=100, segments=101, clock=clock, export_seconds=3600) as sandbox:
        yield sandbox


# --- what comes out


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
@pytest.mark.parametrize("members", [1, 4])
async def test_every_user_comes_once_and_in_order(
    connect: Connect, output_format: Any, members: int
) -> None:
    async with Sandbox(users=1_000, export_members=members) as sandbox:
        braze = connect(sandbox, exports=EAGER)
        for n in (1, 3):
            job = await start(braze, sandbox, n, output_format=output_format)
            expected = list(sandbox.segment_external_ids(n))
            assert await ids(job.profiles()) == expected
            once = attrs.evolve(job.stats)
            assert once == DownloadStats(
                objects=1,
                objects_done=1,
                bytes_total=once.bytes_received,
                bytes_received=once.bytes_received,
                bytes_unpacked=once.bytes_unpacked,
                users=len(expected),
            )
            assert 0 < once.bytes_received < once.bytes_unpacked
            # Again: it adds up.
            assert await ids(job.profiles()) == expected
            assert job.stats.users == 2 * len(expected)
            assert job.stats.bytes_unpacked == 2 * once.bytes_unpacked


async def test_the_fields_that_were_asked_for(connect: Connect, sandbox: Sandbox) -> None:
    braze = connect(sandbox, exports=EAGER)
    job = await start(braze, sandbox, fields=["email", "country", "external_id"])
    users = [user async for user in job.profiles(dict)]
    assert {key for user in users for key in user} == {"email", "country", "external_id"}
    assert users[4]["email"] == sandbox.user(5).email
    job = await start(braze, sandbox, custom_attributes=["loyaltyId", "score", "nothing_such"])
    found = {key async for user in job.profiles(dict) for key in user.get("custom_attributes", {})}
    assert found == {"loyaltyId", "score"}


async def test_the_control_group(connect: Connect, sandbox: Sandbox) -> None:
    braze = connect(sandbox, exports=EAGER)
    formats: list[Any] = [None, "gzip"]
    for output_format in formats:
        job = await braze.users.export_global_control_group(
            fields=["external_id"],
            output_format=output_format,
        )
        group = list(sandbox.segment_external_ids(0))
        assert len(group) == 100
        assert await ids(job.profiles()) == group


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
@pytest.mark.parametrize("n", [0, 1])
async def test_an_empty_segment(
    connect: Connect, tmp_path: Path, output_format: Any, n: int
) -> None:
    async with Sandbox(users=10, empty_segments=frozenset({0, 1})) as sandbox:
        users = connect(sandbox, exports=EAGER).users
        options: Any = {"fields": ["email"], "output_format": output_format}
        if n:
            job = await users.export_segment(sandbox.segment_id(n), **options)
        else:
            job = await users.export_global_control_group(**options)
        assert await ids(job.profiles()) == []
        assert (job.stats.objects_done, job.stats.users) == (1, 0)
        path = await job.download(tmp_path / "x")
        assert [user async for user in read_archive(path)] == []


async def test_into_whatever_you_like(connect: Connect, sandbox: Sandbox) -> None:
    @dataclass
    class Row:
        external_id: str
        email: str | None = None

    @attrs.frozen
    class Mine:
        external_id: str

    fields = ["external_id", "email"]
    job = await start(connect(sandbox, exports=EAGER), sandbox, 3, fields=fields)
    expected = list(sandbox.segment_external_ids(3))
    rows = [row async for row in job.profiles(Row)]
    assert all(type(row) is Row for row in rows)
    assert [row.external_id for row in rows] == expected
    assert rows[0].email == sandbox.user(3).email
    assert [mine async for mine in job.profiles(Mine)] == [Mine(e) for e in expected]
    users = [user async for user in job.profiles()]
    assert all(type(user) is UserProfile for user in users)
    raws = [raw async for raw in job.raw()]
    assert raws == [user.raw for user in users]
    assert raws == [raw async for raw in job.profiles(bytes)]
    assert [json.loads(raw) for raw in raws] == [user async for user in job.profiles(dict)]


async def test_a_class_that_does_not_fit(connect: Connect, sandbox: Sandbox) -> None:
    @dataclass
    class Row:
        external_id: int

    job = await start(connect(sandbox, exports=EAGER), sandbox, 3)
    with pytest.raises(DecodeError, match="external_id") as caught:
        _ = [row async for row in job.profiles(Row)]
    assert (caught.value.line, caught.value.offset) == (1, 0)
    bad = [row async for row in job.profiles(Row, on_error="yield")]
    assert len(bad) == len(list(sandbox.segment_external_ids(3)))
    assert job.stats.users == 0


@pytest.mark.parametrize("output_format", ["zip", "gzip"])
async def test_what_is_downloaded_reads_as_it_did(
    connect: Connect, sandbox: Sandbox, tmp_path: Path, output_format: Any
) -> None:
    job = await start(connect(sandbox, exports=EAGER), sandbox, 2, output_format=output_format)
    users = [user async for user in job.profiles()]
    size = job.stats.bytes_received
    path = await job.download(str(tmp_path / "x.archive"))
    assert path == tmp_path / "x.archive"
    stats = DownloadStats()
    assert [user async for user in read_archive(path, stats=stats)] == users
    assert [raw async for raw in read_archive(path, bytes)] == [user.raw for user in users]
    assert stats.bytes_total == size
    assert job.stats.bytes_received == 2 * size
    assert files_in(tmp_path) == ["x.archive"]


# --- waiting


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchKey")])
async def test_not_ready_and_then_ready(
    connect: Connect, clock: Clock, status: Any, code: str
) -> None:
    async with Sandbox(
        users=10, clock=clock, export_seconds=3600, not_ready_status=status
    ) as sandbox:
        job = await start(connect(sandbox, exports=EAGER), sandbox)
        seen: list[ExportState] = []
        async for state in job.states():
            seen.append(state)
            clock.now += 1200
        assert [state.phase for state in seen] == [*["preparing"] * 3, "ready"]
        assert [state.looks for state in seen] == [1, 2, 3, 4]
        assert [state.code for state in seen] == [code] * 3 + [None]
        assert all(0 < (state.next_look or 0) < 0.003 for state in seen[:3])
        assert seen[-1].next_look is None
        assert sorted(state.elapsed for state in seen) == [state.elapsed for state in seen]
        # From now on a look is enough.
        assert [state.looks async for state in job.states()] == [1]
        assert looks(sandbox) == 5
        assert len(await ids(job.profiles())) == 10


async def test_progress_is_told(connect: Connect, preparing: Sandbox, clock: Clock) -> None:
    job = await start(connect(preparing, exports=EAGER), preparing)
    seen: list[ExportState] = []

    def progress(state: ExportState) -> None:
        seen.append(state)
        clock.now += 1800

    await job.wait(on_progress=progress)
    assert [state.phase for state in seen] == ["preparing", "preparing", "ready"]


async def test_progress_is_told_to_an_async_function(
    connect: Connect, preparing: Sandbox, clock: Clock
) -> None:
    job = await start(connect(preparing, exports=EAGER), preparing)
    phases: list[str] = []

    async def progress(state: ExportState) -> None:
        await asyncio.sleep(0)
        phases.append(state.phase)
        clock.now += 1800

    await job.wait(on_progress=progress)
    assert phases == ["preparing", "preparing", "ready"]


async def test_who_cannot_be_told_is_refused_before_the_first_look(
    connect: Connect, preparing: Sandbox
) -> None:
    job = await start(connect(preparing, exports=EAGER), preparing)
    wrong: Any = 5
    with pytest.raises(InputError, match="on_progress must be a function, plain or async, not int"):
        await job.wait(on_progress=wrong)
    assert looks(preparing) == 0


async def test_an_error_of_whoever_is_told_ends_the_waiting(
    connect: Connect, preparing: Sandbox
) -> None:
    job = await start(connect(preparing, exports=EAGER), preparing)

    def progress(state: ExportState) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await job.wait(on_progress=progress)
    assert not at_work()


@pytest.mark.parametrize("seconds", [0, 0.0, 0.01])
async def test_not_ready_in_time(
    connect: Connect, preparing: Sandbox, clock: Clock, tmp_path: Path, seconds: float
) -> None:
    job = await start(connect(preparing, exports=EAGER), preparing)
    for use in (
        job.wait(timeout=seconds),
        ids(job.profiles(timeout=seconds)),
        ids(job.raw(timeout=seconds)),
        job.download(tmp_path / "x.zip", timeout=seconds),
    ):
        with pytest.raises(ExportNotReadyError, match=f"within {seconds:g} seconds") as caught:
            await use
        assert isinstance(caught.value, TimeoutError)
    assert files_in(tmp_path) == []
    assert (looks(preparing) == 4) == (seconds == 0)
    clock.now += 3600
    await job.wait(timeout=seconds)
    assert len(await ids(job.profiles(timeout=seconds))) == 100


async def everything_fails(job: ExportJob, path: Path, kind: type[BrazeError]) -> list[Any]:
    errors = []
    for use in (job.wait(), ids(job.profiles()), ids(job.raw()), job.download(path)):
        with pytest.raises(kind) as caught:
            await use
        errors.append(caught.value)
    return errors


async def test_a_link_that_ran_out(
    connect: Connect, preparing: Sandbox, clock: Clock, tmp_path: Path
) -> None:
    job = await start(connect(preparing, exports=EAGER), preparing)
    clock.now += 4 * 3600
    errors = await everything_fails(job, tmp_path / "x.zip", ExportExpiredError)
    assert {(error.code, error.status) for error in errors} == {("AccessDenied", 403)}
    assert looks(preparing) == 4
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ((400, "ExpiredToken", "The provided token has expired."), ExportExpiredError),
        ((403, "ExpiredToken", ""), ExportExpiredError),
        ((403, "AuthenticationFailed", "Signed expiry time must be after"), ExportExpiredError),
        ((403, "AccessDenied", "Request has expired"), ExportExpiredError),
        ((403, "SignatureDoesNotMatch", "The request signature we calculated"), APIError),
        ((404, "NoSuchBucket", ""), APIError),
        ((401, "Other", ""), APIError),
    ],
)
async def test_what_will_never_be_ready_is_not_waited_for(
    connect: Connect,
    preparing: Sandbox,
    tmp_path: Path,
    said: tuple[int, str, str],
    kind: type[BrazeError],
) -> None:
    status, code, message = said
    job = await start(connect(preparing, exports=EAGER), preparing)
    fault = Fault(status=status, body=XML.format(code, message).encode())
    preparing.inject(fault, path=LINKS, times=100)
    errors = await everything_fails(job, tmp_path / "x.zip", kind)
    assert {type(error) for error in errors} == {kind}
    assert all(code in str(error) and error.status == status for error in errors)
    assert looks(preparing) == 4


async def test_a_link_that_was_changed(connect: Connect, sandbox: Sandbox) -> None:
    braze = connect(sandbox, exports=EAGER)
    url = (await start(braze, sandbox)).url
    assert url is not None
    with pytest.raises(APIError, match="SignatureDoesNotMatch") as caught:
        await braze.users.resume_export(url[:-1] + "x").wait()
    assert type(caught.value) is APIError
    assert looks(sandbox) == 1


async def test_what_is_not_ready_in_the_life_of_a_link(
    connect: Connect, preparing: Sandbox
) -> None:
    short = ExportSettings(polling=Polling(base=0.001, cap=0.002, lifetime=0.02))
    job = await start(connect(preparing, exports=short), preparing)
    with pytest.raises(ExportExpiredError, match="did not become ready") as caught:
        await job.wait()
    assert caught.value.code == "AccessDenied"
    assert "too large" in str(caught.value)


async def test_an_old_link_is_not_waited_for(
    connect: Connect, preparing: Sandbox, clock: Clock
) -> None:
    clock.now -= 5 * 3600
    braze = connect(preparing, exports=EAGER)
    url = (await start(braze, preparing)).url
    assert url is not None
    clock.now += 1
    with pytest.raises(ExportExpiredError, match="did not become ready"):
        await braze.users.resume_export(url).wait()
    assert looks(preparing) == 1


TROUBLE = {
    "503": Fault(status=503, body=XML.format("SlowDown", "Reduce your rate.").encode()),
    "500": Fault(status=500, body=XML.format("InternalError", "").encode()),
    "429": Fault(status=429),
    "408": Fault(status=408),
    "dropped before": Fault(drop="before"),
    "dropped in the headers": Fault(drop="headers"),
}


@pytest.mark.parametrize("name", TROUBLE)
async def test_passing_trouble_while_waiting(connect: Connect, name: str, clock: Clock) -> None:
    trouble = True

    def faults(_: int, path: str) -> Fault | None:
        return TROUBLE[name] if trouble and path.startswith(LINKS) else None

    async with Sandbox(users=10, clock=clock, export_seconds=3600, faults=faults) as sandbox:
        job = await start(connect(sandbox, exports=EAGER), sandbox)
        seen: list[ExportState] = []
        async for state in job.states():
            seen.append(state)
            trouble = state.looks not in {9, 19}
            clock.now += 3600 * (state.looks == 10)
        # Nine in a row are lived through, as often as it may be.
        assert [state.looks for state in seen] == list(range(1, 21))
        assert [state.looks for state in seen if state.code] == [10]
        assert seen[-1].phase == "ready"
        trouble, seen = True, []
        with pytest.raises((ServerError, ConnectionLostError, RequestTimeoutError)):
            await job.wait(on_progress=seen.append)
        assert len(seen) == 9


async def test_timeouts_while_waiting(connect: Connect, sandbox: Sandbox) -> None:
    url = (await start(connect(sandbox), sandbox)).url
    assert url is not None
    impatient = connect(sandbox, exports=EAGER, timeouts=Timeouts(read=0.1))
    sandbox.inject(Fault(delay=30), path=LINKS, times=2)
    phases = [state.phase async for state in impatient.users.resume_export(url).states()]
    assert phases[:2] == ["preparing", "preparing"]
    assert phases[-1] == "ready"
    await impatient.aclose()


# --- starting


async def test_an_export_that_runs_is_an_error_at_once(
    connect: Connect, preparing: Sandbox
) -> None:
    braze = connect(preparing, exports=EAGER)
    await start(braze, preparing)
    with pytest.raises(ExportInProgressError, match="already running") as caught:
        await start(braze, preparing)
    assert caught.value.attempts == 1
    assert preparing.counters.paths[EXPORT].requests == 2


async def test_an_export_that_runs_can_be_waited_for(
    connect: Connect, preparing: Sandbox, clock: Clock
) -> None:
    braze = connect(preparing, exports=EAGER)
    first = await start(braze, preparing)
    second = asyncio.create_task(start(braze, preparing, if_running="wait"))
    await until(lambda: preparing.counters.paths[EXPORT].rate_limited > 3)
    clock.now += 3600
    job = await second
    assert job.object_prefix != first.object_prefix
    refused = preparing.counters.paths[EXPORT].rate_limited
    assert preparing.counters.paths[EXPORT].requests == refused + 2


async def test_but_not_for_ever(connect: Connect, preparing: Sandbox) -> None:
    short = ExportSettings(polling=Polling(base=0.001, cap=0.002, lifetime=0.3))
    braze = connect(preparing, exports=short)
    await start(braze, preparing)
    with pytest.raises(ExportInProgressError) as caught:
        await start(braze, preparing, if_running="wait")
    assert caught.value.attempts > 1
    assert "tried" in str(caught.value)


@pytest.mark.parametrize("if_running", ["raise", "wait"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=500), ServerError),
        (Fault(status=503), ServerError),
        (Fault(drop="before"), ConnectionLostError),
        (Fault(drop="headers"), ConnectionLostError),
        (Fault(drop="body"), ConnectionLostError),
        (Fault(delay=5), RequestTimeoutError),
        (Fault(garbage=True), DecodeError),
        (Fault(body={"message": "success", "url": "", "object_prefix": None}), DecodeError),
    ],
)
async def test_a_start_that_may_have_worked_is_not_repeated(
    connect: Connect, sandbox: Sandbox, if_running: Any, fault: Fault, kind: type[Exception]
) -> None:
    timeouts = Timeouts(read=0.02) if fault.delay else Timeouts()
    braze = connect(sandbox, exports=EAGER, timeouts=timeouts)
    sandbox.inject(fault)
    with pytest.raises(kind):
        await start(braze, sandbox, if_running=if_running)
    assert sandbox.counters.requests == 1
    await braze.aclose()


async def test_a_hundred_exports_at_once(
    connect: Connect, preparing: Sandbox, clock: Clock
) -> None:
    braze = connect(preparing, exports=EAGER)
    jobs = [await start(braze, preparing, n) for n in range(1, 101)]
    with pytest.raises(ExportInProgressError, match="100 exports of this client are running"):
        await start(braze, preparing, 101)
    # Each of them was looked at, and Braze was not asked.
    assert looks(preparing) == 100
    assert preparing.counters.paths[EXPORT].requests == 100
    await braze.users.cancel_segment_export(preparing.segment_id(50))
    await start(braze, preparing, 101)
    assert looks(preparing) == 100
    clock.now += 3600
    await start(braze, preparing, 50)
    assert looks(preparing) == 101  # one that has ended is enough
    assert len(await ids(jobs[0].profiles())) == 100


@pytest.fixture
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "MOST_RUNNING", 2)


async def test_jobs_that_have_ended_make_room(
    connect: Connect, preparing: Sandbox, clock: Clock, two_at_once: None
) -> None:
    braze = connect(preparing, exports=EAGER)
    for n in (1, 3, 5):
        jobs = [await start(braze, preparing, n), await start(braze, preparing, n + 1)]
        clock.now += 3600
        for job in jobs:
            await job.wait()
    # They were seen to end: nobody had to look again.
    assert looks(preparing) == 6


async def test_jobs_that_have_run_out_make_room(
    connect: Connect, preparing: Sandbox, clock: Clock, two_at_once: None
) -> None:
    braze = connect(preparing, exports=EAGER)
    jobs = [await start(braze, preparing, n) for n in (1, 2)]
    clock.now += 5 * 3600
    await start(braze, preparing, 3)
    with pytest.raises(ExportExpiredError):
        await jobs[1].wait()
    await start(braze, preparing, 4)


async def test_waiting_for_room(
    connect: Connect, preparing: Sandbox, clock: Clock, two_at_once: None
) -> None:
    braze = connect(preparing, exports=EAGER)
    _ = [await start(braze, preparing, n) for n in (1, 2)]
    waiting = asyncio.create_task(start(braze, preparing, 3, if_running="wait"))
    await until(lambda: looks(preparing) > 4)
    assert preparing.counters.paths[EXPORT].requests == 2
    clock.now += 3600
    assert (await waiting).segment_id == preparing.segment_id(3)


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=401), Fault(drop="before"), Fault(status=302)],
)
async def test_a_link_in_trouble_is_no_trouble_of_the_next_export(
    connect: Connect, preparing: Sandbox, two_at_once: None, fault: Fault
) -> None:
    braze = connect(preparing, exports=EAGER)
    _ = [await start(braze, preparing, n) for n in (1, 2)]
    preparing.inject(fault, path=LINKS, times=2)
    with pytest.raises(ExportInProgressError, match="of this client are running"):
        await start(braze, preparing, 3)


async def test_a_start_that_failed_takes_no_room(
    connect: Connect, preparing: Sandbox, two_at_once: None
) -> None:
    braze = connect(preparing, exports=EAGER)
    preparing.inject(Fault(status=500), times=5)
    for n in range(1, 6):
        with pytest.raises(ServerError):
            await start(braze, preparing, n)
    _ = [await start(braze, preparing, n) for n in (1, 2)]


async def test_a_link_of_braze_that_is_none(connect: Connect, two_at_once: None) -> None:
    body = {"message": "success", "url": "ftp://storage.example/x", "object_prefix": "p"}
    async with Sandbox(faults=lambda *_: Fault(body=body)) as sandbox:
        braze = connect(sandbox, exports=EAGER)
        jobs = [await start(braze, sandbox, n) for n in (1, 2)]
        with pytest.raises(InputError, match="no URL"):
            jobs[0].profiles()
        with pytest.raises(ExportInProgressError):
            await start(braze, sandbox, 3)


# --- taking up


async def test_a_link_is_taken_up_by_another_client(connect: Connect, sandbox: Sandbox) -> None:
    job = await start(connect(sandbox), sandbox)
    assert job.url is not None
    later = connect(sandbox, exports=EAGER).users.resume_export(job.url)
    assert (later.url, later.object_prefix, later.segment_id) == (job.url, None, None)
    assert await ids(later.profiles()) == list(sandbox.segment_external_ids(1))


async def test_a_prefix_needs_a_store(connect: Connect, tmp_path: Path) -> None:
    async with Sandbox(own_storage="null") as sandbox:
        braze = connect(sandbox, exports=EAGER)
        started = await start(braze, sandbox)
        assert started.object_prefix is not None
        resumed = braze.users.resume_export(started.object_prefix, segment_id="s")
        assert (resumed.object_prefix, resumed.segment_id) == (started.object_prefix, "s")
        for job in (started, resumed):
            with pytest.raises(InputError, match=r"no link: .* with profiles\(store="):
                job.profiles()
            with pytest.raises(InputError, match="no link"):
                job.raw()
            with pytest.raises(InputError, match="no link"):
                await job.wait()
            with pytest.raises(InputError, match="no link"):
                await job.download(tmp_path / "x.zip")
            assert await job.ended() is False
    assert files_in(tmp_path) == []


def test_a_store_is_known_again() -> None:
    """What a store had when it was looked at is kept for this store alone."""
    job = BrazeClient("key", "US-01").users.resume_export("11-22-1700000000")
    one, other = object(), object()
    kept = [job._place(store) for store in (one, other, one, other)]  # type: ignore[arg-type]
    assert kept[:2] == kept[2:]
    assert kept[0] is not kept[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"link_or_prefix": ""}, "the link or object prefix must be a string that is not empty"),
        ({"link_or_prefix": None}, "the link or object prefix must be .* not None"),
        ({"link_or_prefix": 5}, "not of type int"),
        ({"link_or_prefix": "a/b"}, "without slashes: <uuid>-<unix seconds>"),
        ({"link_or_prefix": "ftp://a/b"}, "no URL that starts with https://"),
        ({"link_or_prefix": "https://"}, "no URL that starts with https://"),
        ({"link_or_prefix": "https://u:p@a/b"}, "user name or password"),
        ({"segment_id": ""}, "segment_id must be a string that is not empty"),
        ({"segment_id": 5}, "segment_id must be .* not of type int"),
    ],
)
def test_what_cannot_be_taken_up(options: dict[str, Any], message: str) -> None:
    braze = BrazeClient("key", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=message):
        braze.users.resume_export(**({"link_or_prefix": "p-1700000000"} | options))


async def test_plain_http_is_refused_where_the_api_is_https() -> None:
    async with BrazeClient("key", "US-01") as braze:
        with pytest.raises(InputError, match="plain HTTP"):
            braze.users.resume_export("http://storage.example/x")
        assert braze.users.resume_export("https://storage.example/x").url


BAD_READING: list[tuple[dict[str, Any], str]] = [
    ({"into": 5}, "into"),
    ({"into": "dict"}, "into"),
    ({"on_error": "skip"}, 'on_error must be "raise" or "yield", not \'skip\''),
    ({"on_error": ["raise"]}, 'on_error must be "raise" or "yield"'),
    ({"timeout": -1}, "timeout must be a number of seconds, 0 or more, or None"),
    ({"timeout": "5"}, "timeout must be a number of seconds, 0 or more, or None"),
    ({"timeout": float("nan")}, "timeout must be a number of seconds, 0 or more, or None"),
]


@pytest.mark.parametrize(("options", "message"), BAD_READING)
async def test_arguments_that_make_no_sense_are_refused_at_once(
    connect: Connect, sandbox: Sandbox, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    job = await start(connect(sandbox, exports=EAGER), sandbox)
    with pytest.raises(InputError, match=message):
        job.profiles(**options)
    if "into" not in options:
        with pytest.raises(InputError, match=message):
            job.raw(**options)
    if "timeout" in options:
        for use in (job.wait(**options), job.download(tmp_path / "x", **options)):
            with pytest.raises(InputError, match=message):
                await use
    assert looks(sandbox) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"if_running": "skip"}, 'if_running must be "raise" or "wait", not \'skip\''),
        ({"if_running": ["wait"]}, 'if_running must be "raise" or "wait"'),
        ({"fields": []}, "fields is empty"),
        ({"fields": "email"}, "fields must be a list"),
        ({"fields": None}, "fields must be a list"),
        ({"callback_url": 5}, "callback_url must be"),
        ({"callback_url": object()}, "callback_url must be"),
        ({"callback_url": ""}, "callback_url must be"),
        ({"output_format": ["zip"]}, "output_format must be"),
        ({"custom_attributes": 5}, "custom_attributes must be"),
    ],
)
async def test_arguments_that_cannot_be_sent(
    connect: Connect, sandbox: Sandbox, options: dict[str, Any], message: str
) -> None:
    users = connect(sandbox, exports=EAGER).users
    given: dict[str, Any] = {"fields": ["email"]} | options
    with pytest.raises(InputError, match=message):
        await users.export_segment("s", **given)
    if "custom_attributes" not in options:
        with pytest.raises(InputError, match=message):
            await users.export_global_control_group(**given)
    assert sandbox.counters.requests == 0


# --- leaving


PHASES = ["polling", "downloading", "unpacking"]


@attrs.define
class Under:
    """A job in a phase, with something that is going on."""

    braze: BrazeClient
    sandbox: Sandbox
    job: ExportJob
    directory: Path
    taken: int = 0

    async def take(self) -> None:
        """Take the first that comes, and stay there."""
        async with aclosing(self.job.profiles()) as profiles:
            async for _ in profiles:
                self.taken += 1
                await asyncio.Event().wait()

    async def has_begun(self, phase: str) -> None:
        stats = self.job.stats
        conditions = {
            "polling": lambda: looks(self.sandbox) > 2,
            "downloading": lambda: stats.bytes_received > 0,
            "unpacking": lambda: self.taken > 0 and stats.bytes_received == stats.bytes_total,
        }
        await until(conditions[phase])
        if phase == "unpacking":
            await until(lambda: bool(files_in(self.directory)))

    async def has_ended(self) -> None:
        """Nothing is left, but for a connection that may be used again."""
        assert not at_work()
        await until(lambda: self.sandbox.open_connections <= 1)
        assert files_in(self.directory) == []

    async def has_closed(self) -> None:
        assert not at_work()
        await until(lambda: self.sandbox.open_connections == 0)
        assert files_in(self.directory) == []


@pytest.fixture
async def under(
    connect: Connect,
    clock: Clock,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Under]:
    # Little waits to be taken, so that most of the archive is still packed, and in a file.
    monkeypatch.setattr(unpacking, "_BATCH", 10_000)
    monkeypatch.setattr(unpacking, "_AHEAD", 100_000)
    phase = request.param
    seconds = 3600.0 if phase == "polling" else 0.0
    async with Sandbox(users=2_000, profile="full", clock=clock, export_seconds=seconds) as sandbox:
        if phase == "downloading":
            sandbox.inject(Fault(slow=100_000), path=LINKS, after=1)
        settings = attrs.evolve(EAGER, spool_memory=1_000, spool_directory=tmp_path)
        braze = connect(sandbox, exports=settings)
        job = await start(braze, sandbox, fields=["custom_attributes", "external_id"])
        yield Under(braze, sandbox, job, tmp_path)


@pytest.mark.parametrize(("under", "phase"), [(p, p) for p in PHASES], indirect=["under"])
async def test_cancelled(under: Under, phase: str) -> None:
    task = asyncio.create_task(under.take())
    await under.has_begun(phase)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await under.has_ended()
    await under.braze.aclose()
    await under.has_closed()


@pytest.mark.parametrize(("under", "phase"), [(p, p) for p in PHASES], indirect=["under"])
async def test_the_client_is_closed_meanwhile(under: Under, phase: str) -> None:
    async def take() -> None:
        async for _ in under.job.profiles():
            under.taken += 1
            await closed.wait()

    closed = asyncio.Event()
    task = asyncio.create_task(take())
    await under.has_begun(phase)
    await under.braze.aclose()
    await under.has_closed()
    closed.set()
    with pytest.raises(ClientClosedError):
        await task
    for use in (under.job.wait(), ids(under.job.profiles()), under.job.download("x.zip")):
        with pytest.raises(ClientClosedError):
            await use
    with pytest.raises(ClientClosedError):
        await start(under.braze, under.sandbox, 2)


@pytest.mark.parametrize("under", ["downloading", "unpacking"], indirect=True)
async def test_the_loop_is_left(under: Under) -> None:
    async with aclosing(under.job.profiles()) as profiles:
        async for _ in profiles:
            break
    await under.has_ended()
    # The same again, without the block; the generator is closed when it is collected.
    async for _ in under.job.profiles():
        break
    await until(lambda: not at_work())
    await until(lambda: files_in(under.directory) == [])
    await under.has_ended()


@pytest.mark.parametrize("under", ["polling"], indirect=True)
async def test_the_states_are_left(under: Under) -> None:
    async with aclosing(under.job.states()) as states:
        async for _ in states:
            break
    await under.has_ended()
    async for _ in under.job.states():
        break
    await under.has_ended()


@pytest.mark.parametrize("under", ["downloading"], indirect=True)
async def test_what_is_never_begun(under: Under) -> None:
    under.job.profiles()
    under.job.states()
    await under.job.profiles().aclose()
    assert looks(under.sandbox) == 0
    await under.has_ended()


@pytest.mark.parametrize(
    ("under", "phase"), [(p, p) for p in ("polling", "downloading")], indirect=["under"]
)
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_a_download_is_ended(under: Under, phase: str, how: str, tmp_path: Path) -> None:
    task = asyncio.create_task(under.job.download(tmp_path / "x.zip"))
    await under.has_begun(phase)
    if how == "cancel":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await under.has_ended()
    else:
        await under.braze.aclose()
        with pytest.raises(ClientClosedError):
            await task
        await under.has_closed()


@pytest.mark.parametrize("under", ["unpacking"], indirect=True)
async def test_two_readers_at_once(under: Under) -> None:
    expected = list(under.sandbox.segment_external_ids(1))
    one, other = await asyncio.gather(ids(under.job.profiles()), ids(under.job.profiles()))
    assert one == other == expected
    await until(lambda: not at_work())
    assert files_in(under.directory) == []


async def test_waiting_is_ended_with_the_client(connect: Connect, preparing: Sandbox) -> None:
    braze = connect(preparing, exports=EAGER)
    job = await start(braze, preparing)
    waits = [
        asyncio.create_task(job.wait()),
        asyncio.create_task(start(braze, preparing, if_running="wait")),
    ]
    await until(lambda: looks(preparing) > 1 and preparing.counters.paths[EXPORT].requests > 2)
    await braze.aclose()
    for wait in waits:
        with pytest.raises(ClientClosedError):
            await wait
    assert not at_work()
