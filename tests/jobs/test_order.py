"""What a job is to do, before anything is done: kinds, places, checks; and its pace."""

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from braze_export import BrazeClient, InputError, Limits
from braze_export.endpoints import Pool
from braze_export.errors import JobStorageError
from braze_export.identifiers import BrazeId, DeviceId, EmailAddress, PhoneNumber, UserAlias
from braze_export.jobs import Input, Table, export_ids, spooling
from braze_export.jobs.halting import Halted, Halting, to_its_end
from braze_export.jobs.kinds import as_text, parse_kind
from braze_export.jobs.pace import Pace
from braze_export.jobs.places import places
from braze_export.jobs.values import JobProgress
from braze_export.limiting.governor import LocalLimiter
from tests.jobs.conftest import World


@pytest.mark.parametrize(
    ("word", "made", "together", "needs"),
    [
        ("external_id", "x", 50, "external_id"),
        ("braze_id", BrazeId("x"), 1, None),
        ("device_id", DeviceId("x"), 1, None),
        ("email", EmailAddress("x"), 1, None),
        ("phone", PhoneNumber("x"), 1, None),
        ("alias:crm", UserAlias("x", "crm"), 50, "user_aliases"),
        ("alias:a:b", UserAlias("x", "a:b"), 50, "user_aliases"),
    ],
)
def test_kinds_of_identifiers(word: str, made: Any, together: int, needs: str | None) -> None:
    kind = parse_kind(word)
    assert (kind.make("x"), kind.together, kind.needs, str(kind)) == (made, together, needs, word)
    assert as_text(made) == "x"


@pytest.mark.parametrize("word", ["", "mail", "alias", "alias:", "alias: ", "email:x", "EMAIL"])
def test_no_kind(word: str) -> None:
    with pytest.raises(InputError, match="allowed are external_id"):
        parse_kind(word)


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.ndjson", "a"), ("a.b.ndjson.gz", "a.b"), ("a.parquet", "a"), ("a", "a"), (".gz", ".gz")],
)
def test_where_what_is_kept(tmp_path: Path, name: str, stem: str) -> None:
    found = places(tmp_path / name, None, None)
    assert found.folder == tmp_path / f"{name}.job"
    assert found.failed.name.endswith(".failed.ndjson")
    if name != ".gz":
        assert found.unknown == tmp_path / f"{stem}.unknown.txt"


def test_a_table_is_kept_beside_its_database(tmp_path: Path) -> None:
    found = places(Table(destination=f"duckdb:{tmp_path}/p.duckdb"), None, None)
    assert found.folder == tmp_path / "p.duckdb.braze.profiles.job"


def test_other_tables_are_kept_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = places(Table(destination="filesystem:/data/lake"), None, None)
    assert found.folder == tmp_path / "filesystem.braze.profiles.job"


@pytest.mark.parametrize(
    "destination",
    [
        "filesystem:sftp://user:hush@host/lake",
        "filesystem:sftp://user:hu/sh@host",
        "filesystem:s3://:hush@bucket",
        "postgres://user:hush@host:5432/db",
        "filesystem:az://lake?sig=hush",
        "duckdb:md:db?motherduck_token=hush",
    ],
)
def test_credentials_have_no_place_in_a_destination(destination: str) -> None:
    with pytest.raises(InputError, match="neither a password nor a query") as caught:
        Table(destination=destination)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "destination",
    [
        "bigquery",
        "duckdb:a@b:c.duckdb",
        "duckdb:what?.duckdb",
        "filesystem:/data/day=1/x@y",
        "filesystem:file:///data/a:b@c",
        "filesystem:sftp://user@host:22/a@b",
        "filesystem:sftp://host:22/a@b",
        "filesystem:abfss://lake@account.dfs.core.windows.net/x:y",
    ],
)
def test_other_destinations_are_taken(destination: str) -> None:
    assert Table(destination=destination).destination == destination


@pytest.mark.parametrize(
    ("unknown", "failed"),
    [("out.ndjson", None), (None, "out.ndjson"), ("same", "same"), ("x/../same", "same")],
)
def test_two_files_of_one_name(tmp_path: Path, unknown: str | None, failed: str | None) -> None:
    (tmp_path / "x").mkdir()
    given = [None if name is None else tmp_path / name for name in (unknown, failed)]
    with pytest.raises(InputError, match="need a file each"):
        places(tmp_path / "out.ndjson", *given)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        places(tmp_path, None, None)
    with pytest.raises(InputError, match="is no directory"):
        places(tmp_path / "nowhere" / "out", None, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "mail"}, "no kind"),
        ({"custom_attributes": "xml"}, "'json' or 'map'"),
        ({"concurrency": 0}, "concurrency"),
        ({"patience": -1}, "patience"),
        ({"source": "nowhere.txt"}, r"nowhere\.txt cannot be read"),
    ],
)
def test_orders_that_cannot_work(world: World, options: Any, said: str) -> None:
    world.give("u1")
    with pytest.raises(InputError, match=said):
        world.export(**options)
    assert not world.job_folder.exists()


_LISTS = "a job reads its identifiers from a file, braze.users.export_ids takes lists"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source": ["u1"]}, rf"source must be a path or Input\(\.\.\.\), not list: {_LISTS}"),
        ({"source": None}, "not NoneType"),
        ({"source": Input}, "not the class Input"),
        ({"output": 5}, r"output must be a path or Table\(\.\.\.\), not int"),
        ({"output": Table}, "not the class Table"),
        ({"unknown": 5}, "unknown must be a str or a Path"),
        ({"failed": []}, "failed must be a str or a Path"),
        ({"stop": 5}, r"stop must have the methods of asyncio\.Event: int lacks is_set, wait"),
        ({"stop": False}, "bool lacks"),
        ({"stop": asyncio.Event}, "Event is a class"),
        ({"stop": threading.Event()}, "whose wait is async"),
        ({"progress_every": 0}, "progress_every must be a number of seconds above zero, not 0"),
        ({"progress_every": -1.5}, "progress_every"),
        ({"progress_every": float("nan")}, "progress_every"),
        ({"progress_every": "1"}, "progress_every"),
        ({"progress_every": None}, "progress_every"),
        ({"on_progress": 5}, "on_progress must be a function, plain or async, not int"),
    ],
)
def test_arguments_of_the_wrong_kind(world: World, options: Any, said: str) -> None:
    world.give("u1")
    with pytest.raises(InputError, match=said):
        world.export(**options)
    assert not world.job_folder.exists()
    assert not world.wire.sent


@pytest.mark.parametrize("wrong", [None, "key", BrazeClient])
async def test_a_job_needs_a_client(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"client must be BrazeClient\(\.\.\.\), not "):
        await export_ids(wrong, "nowhere.txt", "nothing.ndjson")


def test_an_input_is_a_file() -> None:
    wrong: Any = ["u1"]
    with pytest.raises(InputError, match="path must be a str or a Path, not of type list"):
        Input(path=wrong)


def test_the_input_is_not_overwritten(world: World) -> None:
    world.give("u1")
    with pytest.raises(InputError, match="is the input"):
        world.export(unknown=world.input)
    assert world.input.read_text() == "u1\n"


def test_a_pipe_is_kept_so_that_the_job_can_go_on(world: World) -> None:
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)

    async def job() -> None:
        stop = asyncio.Event()
        world.wire.on_send = lambda sent: stop.set() if sent == 1 else None
        feeding = asyncio.to_thread(pipe.write_text, "".join(f"u{n}\n" for n in range(1, 201)))
        job = world.job(source=pipe, stop=stop, concurrency=1)
        report, _ = await asyncio.gather(job, feeding)
        assert (report.complete, report.done) == (False, 50)

    world.run(job())
    assert (world.job_folder / "input").exists()
    world.wire.on_send = lambda _: None

    async def again() -> None:
        feeding = asyncio.to_thread(pipe.write_text, "".join(f"u{n}\n" for n in range(1, 201)))
        report, _ = await asyncio.gather(world.job(source=pipe), feeding)
        assert (report.complete, report.already, report.done) == (True, 50, 200)

    world.run(again())
    assert not (world.job_folder / "input").exists()
    assert sorted(world.found()) == sorted(f"u{n}" for n in range(1, 201))


def test_a_job_that_was_stopped_takes_nothing_more_from_its_pipe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)
    names = [f"u{n}" for n in range(1, 201)]
    is_ready, looked = spooling._is_ready, threading.Event()

    def looking(descriptor: int) -> bool:
        looked.set()
        return is_ready(descriptor)

    monkeypatch.setattr(spooling, "_is_ready", looking)

    async def job() -> None:
        stop = asyncio.Event()
        silent = asyncio.create_task(world.job(source=pipe, stop=stop))
        await asyncio.to_thread(looked.wait)
        stop.set()
        assert not (await silent).complete
        feeding = asyncio.to_thread(pipe.write_text, "\n".join(names))
        report, _ = await asyncio.gather(world.job(source=pipe), feeding)
        assert report.complete

    world.run(job())
    assert sorted(world.found()) == sorted(names)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ids.csv", "a,external_id\nx,u1\n"),
        ("ids.TSV", "a\texternal_id\nx,y\tu1\n"),
        ("ids.ndjson", '{"external_id": "u1"}\n'),
        ("ids", "u1\n"),
    ],
)
def test_the_name_of_a_pipe_tells_its_format(world: World, name: str, text: str) -> None:
    pipe = world.folder / name
    os.mkfifo(pipe)

    async def job() -> None:
        feeding = asyncio.to_thread(pipe.write_text, text)
        report, _ = await asyncio.gather(world.job(source=pipe), feeding)
        assert (report.complete, report.profiles, report.failed) == (True, 1, 0)

    world.run(job())
    assert world.found() == ["u1"]


def test_a_pipe_that_gives_nothing_replaces_nothing(world: World) -> None:
    world.give("u1")
    world.export()
    before = world.output.read_bytes()
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)

    async def job(**options: Any) -> None:
        feeding = asyncio.to_thread(pipe.write_bytes, b"")
        job = world.job(source=pipe, **options)
        error, _ = await asyncio.gather(job, feeding, return_exceptions=True)
        assert isinstance(error, InputError)
        assert "pipe is empty: name a file" in str(error)

    world.run(job())
    assert world.output.read_bytes() == before
    world.run(job(output=world.folder / "other.ndjson"))
    assert not list(world.folder.glob("other*"))


def test_a_file_that_is_empty_is_no_mistake(world: World) -> None:
    world.give()
    assert world.export().complete
    assert world.output.read_bytes() == b""


def test_a_directory_is_no_input(world: World) -> None:
    (world.folder / "ids").mkdir()
    with pytest.raises(InputError, match=r"ids cannot be read \(Is a directory\)"):
        world.export(source=world.folder / "ids")
    assert not world.job_folder.exists()


def test_a_socket_is_no_input(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)  # names of sockets must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("ids")
        with pytest.raises(InputError, match=r"ids cannot be read \(No such device"):
            world.export(source="ids")
    assert not world.job_folder.exists()


def test_a_directory_is_no_standard_input(world: World) -> None:
    real, folder = os.dup(0), os.open(world.folder, os.O_RDONLY)
    os.dup2(folder, 0)
    try:
        with pytest.raises(InputError, match=r"standard input cannot be read \(Is a directory\)"):
            world.export(source="-")
    finally:
        os.dup2(real, 0)
        os.close(real)
        os.close(folder)
    assert not world.job_folder.exists()


def test_a_folder_that_cannot_be_made(world: World) -> None:
    world.give("u1")
    world.job_folder.write_text("mine")
    with pytest.raises(JobStorageError):
        world.export()
    assert world.job_folder.read_text() == "mine"


def test_the_rate_is_that_of_late() -> None:
    pace = Pace()
    pace.mark(0.0, 0)
    assert pace.rate == 0.0
    for second in range(1, 101):
        pace.mark(float(second), 1000 if second < 50 else 1000 + 10 * (second - 50))
    assert pace.rate == pytest.approx(10.0)
    reading = JobProgress(phase="exporting", done=1500, total=1600)
    assert pace.left(reading) == pytest.approx(10.0)
    assert pace.left(JobProgress(phase="exporting", done=1600, total=1600)) is None
    assert pace.left(JobProgress(phase="exporting", done=1600)) is None


class Never:
    """A limiter that grants nothing."""

    async def acquire(self, pool: Pool, lane: str) -> None:
        await asyncio.Event().wait()


async def test_who_waits_for_a_request_is_told_to_halt() -> None:
    gate = Halting(Never())  # type: ignore[arg-type]
    waiting = [asyncio.create_task(gate.acquire("ids", "bulk")) for _ in range(3)]
    await asyncio.sleep(0)
    gate.halt()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Halted] * 3
    with pytest.raises(Halted):
        await gate.acquire("ids", "bulk")


async def test_whoever_may_halt_tells_how_the_limits_stand() -> None:
    limiter = LocalLimiter(Limits.new_workspace())
    gate = Halting(limiter)
    (await gate.acquire("ids", "bulk")).unanswered(sent=True)
    assert gate.limits == limiter.limits
    assert gate.snapshot() == limiter.snapshot()
    assert gate.snapshot()["ids"].sent == 1


async def test_who_is_cancelled_as_well_is_cancelled() -> None:
    gate = Halting(Never())  # type: ignore[arg-type]
    waiting = asyncio.create_task(gate.acquire("ids", "bulk"))
    await asyncio.sleep(0)
    gate.halt()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_work_in_a_thread_is_waited_for_also_when_cancelled() -> None:
    ended = []
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        ended.append(True)

    task = asyncio.create_task(to_its_end(work, go_on.set))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]
