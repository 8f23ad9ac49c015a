"""Jobs that begin, go on, begin anew, and are tried again; and how they end."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from braze_export import BadRequestError, InputError
from braze_export.errors import JobChangedError, JobError
from braze_export.jobs import Input, Table
from braze_export.jobs import finishing as finishing_room
from braze_export.jobs.beginning import _next_round
from braze_export.jobs.definition import differences
from braze_export.jobs.finishing import Finisher
from braze_export.jobs.journal import Journal
from braze_export.jobs.places import Places, places
from braze_export.jobs.watching import Watch
from tests.jobs.conftest import World, failing

KNOWN = [f"u{n}" for n in range(1, 251)]
BAD = ["u7", "u200"]


def begun(world: World, **options: Any) -> None:
    """Stop a job in its middle."""
    world.wire.sent.clear()

    async def stopped() -> None:
        stop = asyncio.Event()
        world.wire.on_send = lambda sent: stop.set() if sent == 2 else None
        report = await world.job(stop=stop, concurrency=1, **options)
        assert (report.complete, report.done) == (False, 100)

    world.run(stopped())
    world.wire.on_send = lambda _: None
    world.wire.sent.clear()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- another job


def test_differences_are_said_in_words() -> None:
    was = {"kind": "email", "fields": None, "fingerprint": "a", "column": "x"}
    now = {"kind": "phone", "fields": ["a", "b"], "fingerprint": "b", "column": "x"}
    assert differences(was, now) == [
        "fields was not given, now a,b",
        "the content of the input has changed",
        "the kind of the identifiers was email, now phone",
    ]
    assert differences(was, was) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fields": ["email"]}, "fields was external_id, now external_id,email"),
        ({"fields": None}, "fields was external_id, now not given"),
        ({"kind": "email"}, "the kind of the identifiers was external_id, now email"),
        ({"kind": "alias:crm"}, "the kind of the identifiers was external_id, now alias:crm"),
        ({"custom_attributes": "map"}, "the form of custom attributes was json, now map"),
        ({"format": "csv", "column": "u1"}, "the column of the input was not given, now u1"),
        ({"encoding": "latin-1"}, "the encoding of the input was utf-8, now latin-1"),
    ],
)
def test_another_job_is_told_from_the_one_begun(world: World, change: Any, said: str) -> None:
    world.give(*KNOWN)
    begun(world)
    before = files(world.folder)
    words = {"format", "column", "encoding", "delimiter"} & change.keys()
    source = Input(path=world.input, **{word: change.pop(word) for word in words})
    with pytest.raises(JobChangedError) as caught:
        world.export(source=source, **change)
    assert said in str(caught.value)
    assert "100 identifiers" in str(caught.value)
    assert files(world.folder) == before
    assert world.wire.sent == []
    assert world.export().already == 100


def test_an_input_that_has_changed_is_noticed(world: World) -> None:
    world.give(*KNOWN)
    begun(world)
    world.give(*KNOWN, "one more")
    before = files(world.folder)
    with pytest.raises(JobChangedError, match="the content of the input has changed"):
        world.export()
    assert files(world.folder) == before
    world.give(*KNOWN)
    assert world.export().already == 100


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_files_that_lost_something_are_noticed(world: World, harm: str) -> None:
    world.give(*KNOWN)
    begun(world)
    path = world.job_folder / "profiles.partial"
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1])
    with pytest.raises(JobChangedError, match="do not hold what its journal says"):
        world.export()
    path.write_bytes(content)
    assert world.export().already == 100


def test_a_fresh_job_drops_the_one_begun(world: World) -> None:
    world.give(*KNOWN)
    begun(world)
    report = world.export(fields=["external_id", "email"], fresh=True)
    assert (report.complete, report.already, report.done) == (True, 0, 250)
    assert sorted(world.found()) == sorted(KNOWN)


def test_a_finished_job_begins_anew_and_the_old_output_stays_until_then(world: World) -> None:
    world.give(*KNOWN, "nobody")
    world.export()
    old = world.output.read_bytes()
    world.give(*KNOWN[:150])
    begun(world)
    assert world.output.read_bytes() == old
    assert world.unknown == ["nobody"]
    assert world.export().complete
    assert (sorted(world.found()), world.unknown) == (sorted(KNOWN[:150]), [])


def test_fresh_and_again_exclude_each_other(world: World) -> None:
    world.give("u1")
    with pytest.raises(InputError, match="choose one"):
        world.export(fresh=True, retry_failed=True)


# --- what failed, once more


@pytest.mark.parametrize("name", ["out.ndjson", "out.ndjson.gz", "out.ndjson.zst", "out.parquet"])
def test_only_what_failed_is_tried_again_and_added(world: World, name: str) -> None:
    output = world.folder / name
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN, "nobody")
    world.export(output=output)
    world.sandbox.poisoned = frozenset({"u200"})
    world.wire.sent.clear()
    report = world.export(output=output, retry_failed=True)
    assert (report.complete, report.done, report.profiles, report.failed) == (True, 2, 1, 1)
    assert set(world.wire.asked) == set(BAD)
    assert world.failed == ["u200"]
    world.sandbox.poisoned = frozenset()
    world.export(output=output, retry_failed=True)
    assert world.failed == []
    assert world.unknown == ["nobody"]
    assert found_in(world, output) == sorted(KNOWN)
    report = world.export(output=output, retry_failed=True)  # nothing is left
    assert (report.complete, report.done) == (True, 0)
    assert found_in(world, output) == sorted(KNOWN)
    assert world.export(output=output).done == 251  # and anew


def found_in(world: World, output: Path) -> list[str]:
    if output.suffix != ".parquet":
        return sorted(world.found(output))
    parquet = pytest.importorskip("pyarrow.parquet")
    return sorted(parquet.read_table(output).column("external_id").to_pylist())


def test_what_is_unknown_by_now_goes_to_the_unknown(world: World) -> None:
    world.sandbox.poisoned = frozenset({"u7", "stranger"})
    world.give("u1", "u7", "nobody", "stranger")
    world.export()
    world.sandbox.poisoned = frozenset()
    world.export(retry_failed=True)
    assert (sorted(world.found()), world.unknown, world.failed) == (
        ["u1", "u7"],
        ["nobody", "stranger"],
        [],
    )


def test_many_that_are_refused_again_do_not_end_it(world: World) -> None:
    world.sandbox.poisoned = frozenset(KNOWN[:200])
    world.give("u251", *(f"u{n}" for n in range(252, 301)), *KNOWN)
    world.export(concurrency=1)
    assert len(world.failed) == 200
    report = world.export(retry_failed=True, concurrency=1)
    assert (report.complete, report.failed) == (True, 200)
    assert sorted(world.failed) == sorted(KNOWN[:200])


def test_a_try_that_is_interrupted_is_gone_on_with(world: World) -> None:
    world.wire.spoil = lambda names: failing(400) if not {*names}.isdisjoint(KNOWN[:150]) else None
    world.give("u251", *KNOWN)
    world.export(concurrency=1)
    assert len(world.failed) == 150
    world.wire.spoil = lambda _: None

    world.wire.sent.clear()
    begun(world, retry_failed=True)
    report = world.export()  # with the word or without
    assert (report.complete, report.already, report.done) == (True, 100, 150)
    assert len(world.wire.sent) == 1
    assert sorted(world.found()) == sorted([*KNOWN, "u251"])


def test_a_fresh_job_drops_a_try_that_was_interrupted(world: World) -> None:
    world.wire.spoil = lambda names: failing(400) if not {*names}.isdisjoint(KNOWN[:150]) else None
    world.give("u251", *KNOWN)
    world.export(concurrency=1)
    world.wire.spoil = lambda _: None
    world.wire.sent.clear()
    begun(world, retry_failed=True)
    assert world.export(fresh=True).done == 251
    assert sorted(world.found()) == sorted([*KNOWN, "u251"])


def test_without_a_finished_job_nothing_can_be_tried_again(world: World) -> None:
    world.give(*KNOWN)
    with pytest.raises(JobError, match="no finished job"):
        world.export(retry_failed=True)
    assert not world.job_folder.exists()
    begun(world)
    with pytest.raises(JobError, match="is not finished"):
        world.export(retry_failed=True)
    assert world.export().already == 100


def test_another_input_is_noticed_also_while_a_try_is_unfinished(world: World) -> None:
    world.wire.spoil = lambda names: failing(400) if not {*names}.isdisjoint(KNOWN[:150]) else None
    world.give("u251", *KNOWN)
    world.export(concurrency=1)
    world.wire.spoil = lambda _: None
    begun(world, retry_failed=True)
    world.give("u1", "u2")
    with pytest.raises(JobChangedError, match="the content of the input has changed"):
        world.export()
    assert world.wire.sent == []
    assert world.export(retry_failed=True).already == 100


def test_rows_without_an_identifier_are_kept_but_not_asked_for(world: World) -> None:
    path = world.folder / "ids.ndjson"
    path.write_text('{"id":"u1"}\n{"id":["Ann"]}\n{"id":"u7"}\nno json\n{"id":"u200"}\n')
    source = Input(path=path, column="id")
    world.sandbox.poisoned = frozenset(BAD)
    world.export(source=source)
    rows = [row for row in world.failures if "row" in row]
    assert [row["identifier"] for row in rows] == ['["Ann"]', "no json"]
    world.sandbox.poisoned = frozenset({"u200"})
    world.wire.sent.clear()
    report = world.export(source=source, retry_failed=True)
    assert set(world.wire.asked) == set(BAD)
    assert (report.total, report.done, report.profiles, report.failed) == (4, 4, 1, 3)
    assert world.failures[:2] == rows
    assert world.failed == ['["Ann"]', "no json", "u200"]
    world.sandbox.poisoned = frozenset()
    report = world.export(source=source, retry_failed=True)
    assert (report.total, report.done, report.failed) == (3, 3, 2)
    assert world.failures == rows
    world.wire.sent.clear()
    assert world.export(source=source, retry_failed=True).complete  # nothing but rows
    assert (world.wire.sent, world.failures) == ([], rows)


def test_a_try_with_rows_that_is_interrupted_keeps_them_once(world: World) -> None:
    path = world.folder / "ids.ndjson"
    path.write_text('"u251"\nno json\n' + "".join(f'"{name}"\n' for name in KNOWN))
    world.wire.spoil = lambda names: failing(400) if not {*names}.isdisjoint(KNOWN[:150]) else None
    world.export(source=path, concurrency=1)
    world.wire.spoil = lambda _: None

    async def stopped() -> None:
        stop = asyncio.Event()
        world.wire.on_send = lambda sent: stop.set() if sent == 2 else None
        report = await world.job(source=path, stop=stop, concurrency=1, retry_failed=True)
        assert (report.complete, report.done, report.total) == (False, 101, 151)

    world.wire.sent.clear()
    world.run(stopped())
    world.wire.on_send = lambda _: None
    assert world.export(source=path).done == 151
    assert world.failed == ["no json"]
    assert sorted(world.found()) == sorted([*KNOWN, "u251"])


@pytest.mark.parametrize("tail", [b"", b'{"identifier":"u7"}', b'{"row":"x"}\n', b'"row\xff"\n'])
def test_what_failed_is_parted_whatever_was_made_of_it(world: World, tail: bytes) -> None:
    found = places(world.output, None, None)
    found.folder.mkdir()
    row, name = b'{"identifier":"x","error":"","row":true}\n', b'{"identifier":"a row"}\n'
    found.failed.write_bytes(row + name + row + tail)
    record = _next_round(found, 4)
    assert (record.round, record.done, record.failed, record.carried) == (4, 2, 2, 2)
    assert found.staged("failed").read_bytes() == row + row
    assert record.files == {"failed": 2 * len(row)}
    kept = (found.folder / "failed-4.ndjson").read_bytes()
    assert kept == name + (tail and tail.removesuffix(b"\n") + b"\n")


def test_columns_of_another_program_are_told_before_anybody_is_asked_for(world: World) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    output = world.folder / "out.parquet"
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN)
    world.export(output=output)
    content = output.read_bytes()
    parquet.write_table(pa.table({"external_id": ["u1"], "mine": [1]}), output)
    world.sandbox.poisoned = frozenset()
    world.wire.sent.clear()
    with pytest.raises(JobChangedError, match="other columns"):
        world.export(output=output, retry_failed=True)
    assert world.wire.sent == []
    output.write_bytes(content)
    world.export(output=output, retry_failed=True)
    assert found_in(world, output) == sorted(KNOWN)


def test_a_table_that_is_damaged_is_told_before_anybody_is_asked_for(world: World) -> None:
    output = world.folder / "out.parquet"
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN)
    world.export(output=output)
    output.write_bytes(b"PAR1 and no more PAR1")
    world.wire.sent.clear()
    with pytest.raises(JobChangedError, match=r"out\.parquet is gone or damaged"):
        world.export(output=output, retry_failed=True)
    assert world.wire.sent == []


@pytest.mark.parametrize("lost", ["out.ndjson", "out.unknown.txt", "out.failed.ndjson"])
def test_with_a_file_gone_nothing_is_made_up(world: World, lost: str) -> None:
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN, "nobody")
    world.export()
    path = world.folder / lost
    content = path.read_bytes()
    path.unlink()
    world.sandbox.poisoned = frozenset()
    world.wire.sent.clear()
    with pytest.raises(JobError, match=lost):
        world.export(retry_failed=True)
    assert not path.exists()
    assert world.wire.sent == []  # told before
    path.write_bytes(content)
    world.export(retry_failed=True)
    assert sorted(world.found()) == sorted(KNOWN)


# --- the end


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("after", range(10))
def test_an_end_that_is_interrupted_at_any_step_is_done_again(
    world: World, monkeypatch: pytest.MonkeyPatch, after: int, retry: bool
) -> None:
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN, "nobody")
    if retry:
        world.export()
        world.sandbox.poisoned = frozenset({"u200"})
    steps = iter(range(100))

    def interrupted(step: Any) -> Any:
        def then(*arguments: Any, **named: Any) -> Any:
            if world.wire.sent and next(steps) == after:
                raise KeyError("killed")
            return step(*arguments, **named)

        return then

    world.wire.sent.clear()
    with monkeypatch.context() as crash:
        for name in ("put_in_place", "append_to", "size_of"):
            crash.setattr(finishing_room, name, interrupted(getattr(finishing_room, name)))
        for name in ("_output", "_text", "_replace"):
            crash.setattr(Finisher, name, interrupted(getattr(Finisher, name)))
        crash.setattr(Places, "clean", interrupted(Places.clean))
        crash.setattr(Finisher, "finish", marked(crash, interrupted))
        try:
            world.export(retry_failed=retry)
        except KeyError:
            world.wire.sent.clear()
            crash.undo()
            report = world.export(retry_failed=retry and not finished(world))
            assert report.complete
    gone = {"u200"} if retry else set(BAD)
    assert sorted(world.found()) == sorted({*KNOWN} - gone)
    assert (world.unknown, sorted(world.failed)) == (["nobody"], sorted(gone))


def test_rows_that_were_added_before_an_interruption_are_not_added_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = world.folder / "out.parquet"
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN)
    world.export(output=output)
    world.sandbox.poisoned = frozenset()
    with monkeypatch.context() as crash:
        crash.setattr(Finisher, "_text", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.export(output=output, retry_failed=True)
    added = output.read_bytes()
    output.unlink()
    with pytest.raises(JobChangedError, match=r"out\.parquet is gone or damaged"):
        world.export(output=output, retry_failed=True)
    output.write_bytes(added)
    assert world.export(output=output, retry_failed=True).complete
    assert found_in(world, output) == sorted(KNOWN)


def test_an_end_that_is_stopped_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    output = world.folder / "out.parquet"
    world.give(*KNOWN)

    async def stopped() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()

        async def halt() -> None:
            stop.set()
            for _ in range(3):
                await asyncio.sleep(0)

        def wrote(_: Watch, size: int) -> None:
            asyncio.run_coroutine_threadsafe(halt(), loop).result()

        with monkeypatch.context() as writing:
            writing.setattr(Watch, "wrote", wrote)
            report = await world.job(output=output, stop=stop)
        assert (report.complete, report.done) == (False, 250)

    world.run(stopped())
    assert not output.exists()
    world.wire.sent.clear()
    assert world.export(output=output).complete
    assert world.wire.sent == []
    assert found_in(world, output) == sorted(KNOWN)


def marked(crash: pytest.MonkeyPatch, interrupted: Any) -> Any:
    """Have the journal interrupted as well, once the end has begun."""
    finish = Finisher.finish

    def begin(self: Finisher, record: Any) -> Any:
        crash.setattr(Journal, "record_safely", interrupted(Journal.record_safely))
        return finish(self, record)

    return begin


def finished(world: World) -> bool:
    with Journal(world.job_folder / "journal.sqlite") as journal:
        return next(journal.records()).stage == "finished"


@pytest.mark.parametrize("retry", [False, True])
def test_an_end_that_is_done_again_keeps_to_its_files(
    world: World, monkeypatch: pytest.MonkeyPatch, retry: bool
) -> None:
    world.sandbox.poisoned = frozenset(BAD)
    world.give(*KNOWN, "nobody")
    if retry:
        world.export()
    other = {name: world.folder / f"precious.{name}" for name in ("unknown", "failed")}
    for path in other.values():
        path.write_text("somebody's own")
    with monkeypatch.context() as crash:
        crash.setattr(finishing_room, "put_in_place", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.export(retry_failed=retry)
    report = world.export(**other)
    assert (world.unknown, sorted(world.failed)) == (["nobody"], sorted(BAD))
    assert {path.read_text() for path in other.values()} == {"somebody's own"}
    assert report.unknown_file == world.folder / "out.unknown.txt"
    assert report.failed_file == world.folder / "out.failed.ndjson"


def test_a_finished_job_keeps_nothing_that_it_loaded(world: World) -> None:
    pytest.importorskip("dlt")
    table = Table(destination=f"duckdb:{world.folder / 'people.duckdb'}")
    world.give("u1")
    world.export(output=table)
    (folder,) = world.folder.glob("*.job")
    assert [path.name for path in folder.iterdir()] == ["journal.sqlite"]


def test_an_empty_packed_output_can_be_unpacked_by_others(world: World) -> None:
    world.give("nobody")
    output = world.folder / "out.ndjson.gz"
    world.export(output=output)
    assert (
        subprocess.run(["gzip", "-dc", str(output)], check=True, capture_output=True).stdout == b""
    )


def test_a_refused_job_may_be_changed_and_begun(world: World) -> None:
    world.give(*KNOWN)
    world.wire.spoil = lambda _: failing(400)
    with pytest.raises(BadRequestError):
        world.export()
    world.wire.spoil = lambda _: None
    assert world.export(fields=["external_id", "email"]).complete
