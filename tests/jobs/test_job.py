"""Whole jobs over the local Braze."""

import asyncio
import errno
import json
import random
import sqlite3
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from braze_export import (
    AuthenticationError,
    BadRequestError,
    InputError,
    PermissionDeniedError,
    ServerError,
)
from braze_export.errors import JobChangedError, JobRunningError, JobStorageError
from braze_export.jobs import Input, JobProgress
from braze_export.jobs import slices as slices_room
from braze_export.jobs.journal import Journal
from braze_export.jobs.places import Places
from braze_export.jobs.staging import Piece, Staged
from braze_export.jobs.watching import ended
from braze_export.wire import Response
from tests.jobs.conftest import World, failing

KNOWN = [f"u{n}" for n in range(1, 251)]


def three_places(world: World) -> tuple[list[str], list[str], list[str]]:
    return sorted(world.found()), sorted(world.unknown), sorted(world.failed)


# --- one run


def test_each_identifier_is_in_one_of_three_places(world: World) -> None:
    world.sandbox.poisoned = frozenset({"u7", "u200"})
    world.give(*KNOWN, "nobody", "u1", "", "nöbody", *KNOWN[:3])
    report = world.export()
    assert three_places(world) == (
        sorted({*KNOWN} - {"u7", "u200"}),
        ["nobody", "nöbody"],
        ["u200", "u7"],
    )
    assert report.complete
    assert (report.total, report.done, report.profiles) == (252, 252, 248)
    assert (report.unknown, report.failed, report.repeated) == (2, 2, 4)
    assert report.reasons == {"BadRequestError 400": 2}
    assert (report.source, report.output) == (str(world.input), str(world.output))
    assert report.requests == len(world.wire.sent)
    assert all("400" in row["error"] for row in world.failures)


def test_profiles_are_written_as_braze_sent_them(world: World) -> None:
    world.give(*KNOWN)
    sent: list[bytes] = []
    world.wire.on_answer = lambda answer: sent.extend(
        map(bytes, msgspec.json.decode(answer.body, type=Answer).users)
    )
    world.export(fields=None)
    assert sorted(world.profiles()) == sorted(sent)
    assert len(sent) == 250


class Answer(msgspec.Struct):
    users: list[msgspec.Raw]


@pytest.mark.parametrize("kind", ["braze_id", "device_id", "email", "phone", "alias:amplitude_id"])
def test_identifiers_of_every_kind(world: World, kind: str) -> None:
    def name(n: int) -> str:
        person = world.sandbox.user(n)
        return person.alias.name if kind.startswith("alias") else getattr(person, kind)

    world.give(*(name(n) for n in range(1, 9)), "nobody")
    report = world.export(kind=kind, fields=["email"] if "alias" in kind else ["external_id"])
    assert report.complete
    assert (report.profiles, report.done, world.unknown, world.failed) == (8, 9, ["nobody"], [])
    if kind.startswith("alias"):
        assert all(b"user_aliases" in line for line in world.profiles())


def test_an_address_of_two_users_gives_two_profiles(world: World) -> None:
    world.give("user9@example.com")
    report = world.export(kind="email")
    assert sorted(world.found()) == ["u10", "u9"]
    assert (report.done, report.profiles) == (1, 2)


def test_the_field_that_tells_whose_a_profile_is_is_always_exported(world: World) -> None:
    world.give("u1")
    world.export(fields=["email"])
    assert json.loads(world.profiles()[0]).keys() == {"external_id", "email"}


@pytest.mark.parametrize("fields", ["email", [], [""]])
def test_fields_that_are_no_list_of_names_are_refused(world: World, fields: Any) -> None:
    world.give("u1")
    with pytest.raises(InputError, match="field"):
        world.export(fields=fields)
    assert world.wire.sent == []
    assert not world.job_folder.exists()


def test_lines_that_hold_no_identifier_are_failed(world: World) -> None:
    path = world.folder / "ids.ndjson"
    path.write_text('{"id":"u1"}\n{"id":[1]}\n{"id":"u2"}\nno json\n{"id":null}\n')
    report = world.export(source=Input(path=path, column="id"))
    assert three_places(world) == (["u1", "u2"], [], ["[1]", "no json"])
    assert (report.total, report.failed, report.blank) == (4, 2, 1)
    assert report.reasons == {"cannot be asked for": 2}


def test_an_input_of_unusable_lines_alone(world: World) -> None:
    path = world.folder / "ids.ndjson"
    path.write_text('{"id":"u1"}\n' + '{"id":[1]}\n' * 2500)
    report = world.export(source=Input(path=path, column="id"), ordered=True)
    assert (report.complete, report.failed, len(world.failed)) == (True, 2500, 2500)


@pytest.mark.parametrize("content", ["", "\n\n"])
@pytest.mark.parametrize("name", ["out.ndjson", "out.ndjson.gz", "out.ndjson.zst"])
def test_an_input_without_identifiers(world: World, content: str, name: str) -> None:
    world.input.write_text(content)
    report = world.export(output=world.folder / name)
    assert report.complete
    assert (report.total, report.done, report.requests) == (0, 0, 0)
    assert world.profiles(world.folder / name) == []
    assert (world.unknown, world.failed) == ([], [])


@pytest.mark.parametrize("name", ["out.ndjson.gz", "out.ndjson.zst"])
def test_a_packed_output(world: World, name: str) -> None:
    world.give(*KNOWN)
    world.export(output=world.folder / name)
    first = (world.folder / name).read_bytes()[:4]
    assert first in (b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd")
    assert sorted(world.found(world.folder / name)) == sorted(KNOWN)


@pytest.mark.parametrize("concurrency", [1, 3, 32])
def test_the_order_of_the_input_is_kept_where_it_is_asked_for(
    world: World, concurrency: int
) -> None:
    world.sandbox.poisoned = frozenset({"u1"})
    names = [f"u{n}" for n in range(1, 501)]
    world.give(*names)
    world.export(ordered=True, concurrency=concurrency)
    found = world.found()
    blocks = [sorted(found[at : at + 50]) for at in range(49, len(found), 50)]
    assert blocks == [sorted(names[at : at + 50]) for at in range(50, 500, 50)]


def test_nothing_but_the_journal_is_left_beside_the_files(world: World) -> None:
    world.give("u1", "nobody")
    world.export()
    assert {path.name for path in world.folder.iterdir()} == {
        "ids.txt",
        "out.ndjson",
        "out.ndjson.job",
        "out.unknown.txt",
        "out.failed.ndjson",
    }
    assert [path.name for path in world.job_folder.iterdir()] == ["journal.sqlite"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_the_job_and_leaves_no_trace(world: World, status: int) -> None:
    world.give(*KNOWN)
    world.wire.spoil = lambda _: failing(status)
    with pytest.raises((AuthenticationError, PermissionDeniedError)):
        world.export()
    assert not world.job_folder.exists()
    assert not world.output.exists()


def test_traces_that_cannot_be_removed_hide_no_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Places) -> None:
        raise OSError(errno.EIO, "Input/output error")

    world.give(*KNOWN)
    world.wire.spoil = lambda _: failing(401)
    monkeypatch.setattr(Places, "abandon", broken)
    with pytest.raises(AuthenticationError):
        world.export()
    world.wire.spoil = lambda _: None
    assert world.export().complete  # nobody holds the journal


def test_everything_refused_ends_the_job(world: World) -> None:
    world.give(*(f"u{n}" for n in range(1, 1001)))
    world.wire.spoil = lambda _: failing(400)
    with pytest.raises(BadRequestError):
        world.export()
    assert len(world.wire.sent) < 400


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("names", [["bad"], ["bad", "worse"]])
def test_a_few_identifiers_all_of_which_are_refused(
    world: World, names: list[str], ordered: bool
) -> None:
    world.sandbox.poisoned = frozenset(names)
    world.give(*names)
    report = world.export(ordered=ordered, concurrency=1)
    assert report.complete
    assert three_places(world) == ([], [], names)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 32])
def test_a_slice_that_never_comes_is_failed_and_nobody_else(
    world: World, ordered: bool, concurrency: int
) -> None:
    world.give(*KNOWN)
    world.wire.spoil = lambda names: failing() if "u75" in names else None
    report = world.export(ordered=ordered, concurrency=concurrency)
    assert report.complete
    assert world.failed == KNOWN[50:100]
    assert sorted(world.found()) == sorted({*KNOWN} - {*KNOWN[50:100]})
    assert report.reasons == {"ServerError 500": 50}


@pytest.mark.parametrize("ordered", [False, True])
def test_an_outage_in_the_middle_fails_nobody(world: World, ordered: bool) -> None:
    world.give(*KNOWN)
    world.wire.spoil = lambda _: failing(503) if 3 <= len(world.wire.sent) < 60 else None
    report = world.export(ordered=ordered, concurrency=2)
    assert report.complete
    assert three_places(world) == (sorted(KNOWN), [], [])


# --- going on


def test_an_outage_that_lasts_ends_the_job_and_the_next_run_goes_on(world: World) -> None:
    world.give(*KNOWN)
    world.wire.spoil = lambda _: failing(503) if len(world.wire.sent) > 2 else None
    with pytest.raises(ServerError) as caught:
        world.export(concurrency=1, patience=0.0)
    assert caught.value.__notes__ == [
        "100 of 250 identifiers are done and kept. Run the same again to go on."
    ]
    assert not world.output.exists()
    world.wire.spoil = lambda _: None
    world.wire.answered.clear()
    report = world.export()
    assert (report.complete, report.already, report.done) == (True, 100, 250)
    assert three_places(world) == (sorted(KNOWN), [], [])
    assert sum(map(len, world.wire.answered)) == 150


def test_a_run_into_the_same_outage_ends_at_once_and_fails_nobody(world: World) -> None:
    world.give(*KNOWN)
    world.wire.spoil = lambda _: failing(503) if len(world.wire.sent) > 2 else None
    for _ in range(3):
        with pytest.raises(ServerError):
            world.export(concurrency=1, patience=0.0)
    world.wire.spoil = lambda _: None
    assert world.export().failed == 0
    assert sorted(world.found()) == sorted(KNOWN)


async def stopped_after(world: World, requests: int, **options: Any) -> Any:
    stop = asyncio.Event()
    world.wire.on_send = lambda sent: stop.set() if sent == requests else None
    return await world.job(stop=stop, **options)


@pytest.mark.parametrize("ordered", [False, True])
def test_a_job_that_is_stopped_records_what_is_under_way(world: World, ordered: bool) -> None:
    world.give(*KNOWN)
    report = world.run(stopped_after(world, 2, concurrency=2, ordered=ordered))
    assert not report.complete
    assert report.done == 100
    assert sum(map(len, world.wire.answered)) == 100
    assert not world.output.exists()
    report = world.export()
    assert (report.complete, report.already) == (True, 100)
    assert max(world.wire.asked.values()) == 1
    assert sorted(world.found()) == sorted(KNOWN)


def test_a_job_that_is_stopped_before_it_begins_sends_nothing(world: World) -> None:
    async def stopped() -> Any:
        stop = asyncio.Event()
        stop.set()
        return await world.job(stop=stop)

    world.give(*KNOWN)
    report = world.run(stopped())
    assert (report.complete, report.done, world.wire.sent) == (False, 0, [])
    assert world.export().complete


@pytest.mark.parametrize("seed", range(16))
def test_a_job_killed_at_any_request_ends_as_if_it_was_not(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(slices_room, "_AHEAD", 60)
    world.sandbox.poisoned = frozenset({"u7", "u200"})
    names = [*KNOWN, *(f"nobody{n}" for n in range(20))]
    chance.shuffle(names)
    world.give(*names, *names[:30])
    options: dict[str, Any] = {
        "concurrency": chance.choice([1, 2, 8]),
        "ordered": chance.random() < 0.3,
        "output": world.folder / chance.choice(["out.ndjson", "out.ndjson.gz", "out.ndjson.zst"]),
    }

    async def cancelled(after: int) -> bool:
        task = asyncio.create_task(world.job(**options))
        world.wire.sent.clear()
        world.wire.on_send = lambda sent: task.cancel() if sent == after else None
        if not after:
            await asyncio.sleep(chance.random() / 100)
            task.cancel()
        try:
            return (await task).complete
        except asyncio.CancelledError:
            return False

    # Later and later: what is narrowed down takes some requests.
    kills = count()
    while not world.run(cancelled(chance.randint(0, 4) * next(kills))):
        pass
    assert sorted(world.found(options["output"])) == sorted({*KNOWN} - {"u7", "u200"})
    assert sorted(world.unknown) == sorted(f"nobody{n}" for n in range(20))
    assert sorted(world.failed) == ["u200", "u7"]


def test_nobody_is_asked_again_for_whom_something_is_recorded(world: World) -> None:
    world.give(*(f"u{n}" for n in range(1, 2001)))
    world.run(stopped_after(world, 36, concurrency=4))
    world.export(concurrency=4)
    assert max(world.wire.asked.values()) == 1
    assert len(world.wire.sent) == 40


def test_a_job_that_is_cancelled_is_free_at_once(world: World) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(world.job())
        world.wire.on_send = lambda _: task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        world.wire.on_send = lambda _: None
        assert (await world.job()).complete

    world.give(*KNOWN)
    world.run(cancelled())
    assert sorted(world.found()) == sorted(KNOWN)


def test_two_runs_of_one_job_at_a_time(world: World) -> None:
    async def both() -> list[Any]:
        return [*await asyncio.gather(world.job(), world.job(), return_exceptions=True)]

    world.give(*KNOWN)
    world.sandbox.latency = 0.4  # longer than one waits for the other
    kinds = sorted(type(outcome).__name__ for outcome in world.run(both()))
    assert kinds == ["JobReport", "JobRunningError"]
    assert sorted(world.found()) == sorted(KNOWN)


def test_a_second_run_does_not_disturb_the_first(world: World) -> None:
    world.give("u1")
    world.job_folder.mkdir()
    with Journal(world.job_folder / "journal.sqlite") as journal:
        journal.begin({"kind": "mine"}, {})
        with pytest.raises(JobRunningError):
            world.export(fresh=True)
        assert journal.definition == {"kind": "mine"}


def test_what_a_machine_that_dies_has_lost_is_asked_for_again(world: World) -> None:
    world.give(*KNOWN)
    world.run(stopped_after(world, 2, concurrency=1))
    profiles = world.job_folder / "profiles.partial"
    journal = sqlite3.connect(world.job_folder / "journal.sqlite")
    now, safe = (body for (body,) in journal.execute("SELECT body FROM record ORDER BY id"))
    assert now == safe  # a stop is safe
    more = msgspec.json.decode(now)
    more["watermark"], more["done"] = 3, 150
    more["files"]["profiles"] += 1000  # told, but never on the disk
    with journal:
        change = "UPDATE record SET body = ?, machine = 'before it died' WHERE id = 0"
        journal.execute(change, (msgspec.json.encode(more),))
    journal.close()
    with profiles.open("ab") as file:
        file.write(bytes(1000))
    report = world.export()
    assert (report.complete, report.already) == (True, 100)
    assert sorted(world.found()) == sorted(KNOWN)


@pytest.mark.parametrize("harm", ["damaged", "of another version", "of odd content"])
def test_a_fresh_job_needs_nothing_of_the_journal(world: World, harm: str) -> None:
    world.give(*KNOWN)
    world.run(stopped_after(world, 2, concurrency=1))
    path = world.job_folder / "journal.sqlite"
    if harm == "damaged":
        path.write_bytes(b"no journal" * 1000)
    else:
        odd = "SET value = '99' WHERE name = 'version'"
        journal = sqlite3.connect(path)
        with journal:
            journal.execute(f"UPDATE job {odd if harm == 'of another version' else 'SET value=1'}")
        journal.close()
    world.wire.on_send = lambda _: None
    with pytest.raises(JobChangedError):
        world.export()
    report = world.export(fresh=True)
    assert (report.complete, report.already) == (True, 0)
    assert sorted(world.found()) == sorted(KNOWN)


def test_a_journal_of_another_version_that_is_held_stays(world: World) -> None:
    world.give("u1")
    world.job_folder.mkdir()
    path = world.job_folder / "journal.sqlite"
    with Journal(path) as journal:
        journal.begin({"kind": "mine"}, {})
        journal._db.execute("UPDATE job SET value = '99' WHERE name = 'version'")
        with pytest.raises(JobRunningError):
            world.export(fresh=True)
        assert path.exists()


# --- disks


def test_a_disk_that_fills_costs_nothing_that_is_recorded(world: World, small_disk: Path) -> None:
    world.give(*(f"u{n}" for n in range(1, 2001)))
    output = small_disk / "out.ndjson"
    with pytest.raises(JobStorageError, match="make room"):
        world.export(output=output, fields=None, concurrency=2)
    done = world.run(_room_for(world, output, small_disk))
    assert 0 < done < 2000
    assert max(world.wire.asked.values()) <= 2


async def _room_for(world: World, output: Path, disk: Path) -> int:
    import subprocess  # noqa: PLC0415

    command = ["mount", "-o", "remount,size=32m", str(disk)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    report = await world.job(output=output, fields=None, concurrency=2)
    assert report.complete
    text = await asyncio.to_thread(output.read_bytes)
    found = [json.loads(line)["external_id"] for line in text.splitlines()]
    assert sorted(found) == sorted(f"u{n}" for n in range(1, 2001))
    return report.already


def test_a_write_that_fails_in_order_ends_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.give(*KNOWN)
    append, calls = Staged.append, iter(range(100))

    def full(self: Staged, data: Sequence[Piece]) -> None:
        if next(calls) > 2:
            raise JobStorageError("full")
        append(self, data)

    with monkeypatch.context() as disk:
        disk.setattr(Staged, "append", full)
        with pytest.raises(JobStorageError):
            world.export(ordered=True, concurrency=4)
    assert world.export(ordered=True).complete
    assert sorted(world.found()) == sorted(KNOWN)


# --- telling


def test_a_hook_is_told_how_far_it_is(world: World) -> None:
    told: list[JobProgress] = []

    async def hook(progress: JobProgress) -> None:
        told.append(progress)

    world.give(*KNOWN, "nobody", "u1")
    world.export(on_progress=hook, progress_every=0.001)
    last = told[-1]
    assert (last.phase, last.done, last.total, last.profiles) == ("done", 251, 251, 250)
    assert (last.unknown, last.failed, last.repeated, last.requests) == (1, 0, 1, 6)
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)


def test_a_hook_may_be_a_plain_function(world: World) -> None:
    told: list[JobProgress] = []
    world.give(*KNOWN)
    world.export(on_progress=told.append, progress_every=float("inf"))  # at the end, and not before
    assert [(progress.phase, progress.done) for progress in told] == [("done", 250)]


def test_a_hook_is_told_that_nothing_comes_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[JobProgress] = []
    loop, outage = world.runner.get_loop(), range(3, 60)
    real, ahead = loop.time, count(1)
    skipped = 0.0

    def spoil(_: list[str]) -> Response | None:
        nonlocal skipped
        if len(world.wire.sent) not in outage:
            return None
        skipped = next(ahead) * 10.0  # each request takes so many seconds
        return failing(503)

    async def hook(progress: JobProgress) -> None:
        told.append(progress)

    monkeypatch.setattr(loop, "time", lambda: real() + skipped)
    world.give(*KNOWN)
    world.wire.spoil = spoil
    report = world.export(on_progress=hook, progress_every=0.0001, concurrency=1)
    assert report.complete
    silent = [progress for progress in told if progress.silent]
    assert {progress.trouble for progress in silent} == {"ServerError 503"}
    lasting = [progress.silent for progress in silent]
    assert lasting == sorted(lasting)
    assert 400 < lasting[-1] < 600
    borne = [progress.silent + (progress.patience_left or 0.0) for progress in silent]
    assert borne == pytest.approx([900.0] * len(silent), abs=0.5)
    # Before it and after it all is well.
    well = [progress for progress in told if not progress.trouble]
    assert {(progress.silent, progress.patience_left) for progress in well} == {(0.0, None)}
    assert told[0] in well
    assert told[-1] in well
    assert told[-1].phase == "done"


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("at", [0, 2])
def test_a_hook_that_raises_ends_the_job_in_good_order(world: World, at: int, plain: bool) -> None:
    calls = iter(range(1_000_000))

    def raising(_: JobProgress) -> None:
        if next(calls) == at:
            raise ZeroDivisionError("mine")

    async def waiting(progress: JobProgress) -> None:
        raising(progress)

    hook = raising if plain else waiting

    world.give(*KNOWN)
    world.sandbox.latency = 0.01
    with pytest.raises(ZeroDivisionError):
        world.export(on_progress=hook, progress_every=0.001, concurrency=1)
    world.sandbox.latency = 0
    assert world.export().complete
    assert max(world.wire.asked.values()) == 1
    assert sorted(world.found()) == sorted(KNOWN)


def test_a_hook_that_raises_leaves_the_callers_own_event_alone(world: World) -> None:
    async def hook(_: JobProgress) -> None:
        raise ZeroDivisionError("mine")

    async def both() -> bool:
        stop = asyncio.Event()
        with pytest.raises(ZeroDivisionError):
            await world.job(on_progress=hook, progress_every=0.001, stop=stop)
        return stop.is_set()

    world.give(*KNOWN)
    world.sandbox.latency = 0.01
    assert world.run(both()) is False


async def test_waiting_for_the_end_of_a_task_can_be_cancelled() -> None:
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            begun.set()
            await let_go.wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(ended(task))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert task.done()


def test_the_course_of_a_run_is_reported(world: World) -> None:
    world.give(*KNOWN)
    report = world.export()
    assert (report.course[-1].done, report.course[-1].requests) == (250, 5)
    assert report.seconds >= report.course[-1].at > 0
