import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from attrs import define
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import Outcome
from braze_export.errors import BadRequestError, JobStorageError, RequestTimeoutError
from braze_export.identifiers import EmailAddress, UserAlias
from braze_export.jobs import recorder as rooms
from braze_export.jobs.halting import Halted
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.reading.compression import Gzip, Plain, open_decompressed
from braze_export.jobs.recorder import (
    FAILED,
    PROFILES,
    UNKNOWN,
    Recorder,
    Settled,
    after,
    failed_lines,
    profile_lines,
    unknown_lines,
)
from braze_export.jobs.slices import Slice
from braze_export.jobs.staging import Staged
from braze_export.jobs.values import Unusable
from braze_export.models.results import FailedBatch, InvalidUserId

few = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def settled(
    number: int, users: int = 1, unknown: int = 0, failed: int = 0, bad: int = 0
) -> Settled:
    """A slice, each of whose identifiers has one fate."""
    names = [f"s{number}-{n}" for n in range(users + unknown + failed)]
    gone, broken = names[users : users + unknown], names[users + unknown :]
    outcome = Outcome(
        [msgspec.Raw(b'{"external_id":"%s"}' % name.encode()) for name in names[:users]],
        [InvalidUserId(name) for name in gone],
        [FailedBatch((name,), BadRequestError("no", status=400)) for name in broken],
    )
    return Settled(
        Slice(number, Batch(tuple(names)), (Unusable("?", "line 1: is none"),) * bad), outcome
    )


@define
class Kept:
    """A recorder with its files, and what it told."""

    recorder: Recorder
    told: list[Record]
    folder: Path

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def names(self) -> list[str]:
        return [json.loads(line)["external_id"] for line in self.text(PROFILES).splitlines()]


def kept_in(folder: Path, record: Record | None = None) -> Kept:
    journal = Journal(folder / "journal.sqlite")
    journal.begin({}, {})
    files = {name: Staged(folder / name) for name in (PROFILES, UNKNOWN, FAILED)}
    for file in files.values():
        file.open(0)
    told: list[Record] = []
    return Kept(Recorder(journal, files, Plain(), record or Record(), told.append), told, folder)


def put_away(kept: Kept) -> None:
    kept.recorder.journal.close()
    for file in kept.recorder.files.values():
        file.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = kept_in(tmp_path)
    yield kept
    put_away(kept)


# --- lines


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (b'{"a":1}', b'{"a":1}'),
        (b'{"a": 1.50,\t"b":"\\n"}', b'{"a": 1.50,\t"b":"\\n"}'),
        (b'{\n  "a": 1\n}', b'{"a":1}'),
        (b'{\r\n"a": "x  y"\r\n}', b'{"a":"x  y"}'),
        (b'{"a":\r1}', b'{"a":1}'),
        (b'{\n"a":"\\ud800"}', b'{ "a":"\\ud800"}'),
    ],
)
def test_a_profile_is_one_line_as_it_was_sent(sent: bytes, line: bytes) -> None:
    whole = msgspec.Raw(b'{"first":0}')
    users = [whole, msgspec.Raw(sent), whole]
    text = b"".join(profile_lines([Outcome(users=users, broken=b"\n" in sent or b"\r" in sent)]))
    assert text.splitlines() == [b'{"first":0}', *line.splitlines(), b'{"first":0}']
    assert json.loads(text.split(b"\n")[1]) == json.loads(sent)
    assert text.count(b"\n") == 3


def test_the_lines_of_several_answers_follow_each_other() -> None:
    whole = Outcome(users=[msgspec.Raw(b'{"b":1}')])
    broken = Outcome(users=[msgspec.Raw(b'{"a":\n1}')], broken=True)
    assert b"".join(profile_lines([whole, broken, whole])) == b'{"b":1}\n{"a":1}\n{"b":1}\n'
    assert profile_lines([Outcome()]) == []


def test_unknown_identifiers_stand_as_they_were_read() -> None:
    unknown = ["ü, \"'", UserAlias("name", "label"), EmailAddress("a@b")]
    outcome = Outcome(invalid=[InvalidUserId(identifier) for identifier in unknown])  # type: ignore[arg-type]
    assert unknown_lines(outcome).decode() == "ü, \"'\nname\na@b\n"


def test_failed_identifiers_stand_with_their_reason() -> None:
    error = BadRequestError('said "no"\n', status=400)
    outcome = Outcome(failed=[FailedBatch(("a\\b", UserAlias("n", "l")), error)])
    piece = Slice(0, Batch(("a\\b", UserAlias("n", "l"))), (Unusable("x\ny", "line 2: \ud800"),))
    rows = [json.loads(line) for line in failed_lines(Settled(piece, outcome)).splitlines()]
    assert [row["identifier"] for row in rows] == ["a\\b", "n", "x\ny"]
    assert rows[0]["error"] == str(error)
    assert rows[2]["error"] == "line 2: ?"
    assert [row.get("row") for row in rows] == [None, None, True]


def test_reasons_are_counted_without_what_is_personal() -> None:
    both = Outcome(
        failed=[
            FailedBatch(("a", "b"), BadRequestError("a is bad", status=400)),
            FailedBatch(("c",), RequestTimeoutError("c took long")),
        ]
    )
    reasons = Settled(Slice(0, Batch(("a", "b", "c")), (Unusable("?", "line 1"),)), both).reasons()
    assert reasons == {"BadRequestError 400": 2, "RequestTimeoutError": 1, "cannot be asked for": 1}


# --- what is written


@few
@given(
    st.sets(st.integers(0, 30)),
    st.data(),
    st.integers(0, 5),
)
def test_exactly_the_unwritten_slices_remain(
    numbers: set[int], data: st.DataObject, watermark: int
) -> None:
    record = Record(watermark=watermark)
    order = data.draw(st.permutations(sorted(n + watermark for n in numbers)))
    while order:
        size = data.draw(st.integers(1, 4))
        record = after(record, [settled(number) for number in order[:size]], 7)
        order = order[size:]
    written = {n for n in range(40) if n < record.watermark or n in record.beyond}
    assert written == {*range(watermark), *(n + watermark for n in numbers)}
    assert record.watermark not in record.beyond
    assert all(n > record.watermark for n in record.beyond)
    assert list(record.beyond) == sorted(set(record.beyond))


def test_everything_is_counted() -> None:
    record = after(Record(), [settled(0, 3, 2, 1, 4), settled(1, 1, 1)], 100)
    counted = (record.done, record.profiles, record.unknown, record.failed, record.bytes)
    assert counted == (12, 4, 3, 5, 100)


async def test_a_slice_is_in_its_files_and_in_the_journal(kept: Kept) -> None:
    await kept.recorder.write(settled(0, 2, 1, 1, 1))
    await kept.recorder.aclose()
    record = kept.recorder.record
    await asyncio.to_thread(check_first, kept, record)


def check_first(kept: Kept, record: Record) -> None:
    assert kept.names() == ["s0-0", "s0-1"]
    assert kept.text(UNKNOWN) == "s0-2\n"
    assert [json.loads(row)["identifier"] for row in kept.text(FAILED).splitlines()] == [
        "s0-3",
        "?",
    ]
    assert next(kept.recorder.journal.records()) == record
    assert kept.told == [record]
    assert all(Staged(kept.folder / name).holds(mark) for name, mark in record.files.items())
    assert record.files.keys() == {PROFILES, UNKNOWN, FAILED}


async def test_what_comes_together_is_recorded_together(kept: Kept) -> None:
    await asyncio.gather(*(kept.recorder.write(settled(n)) for n in range(20)))
    await kept.recorder.aclose()
    assert [record.watermark for record in kept.told] == [20]


async def test_in_order_each_waits_for_those_before(kept: Kept) -> None:
    kept.recorder.ordered = True
    writes = [asyncio.create_task(kept.recorder.write(settled(n))) for n in (3, 1, 2)]
    await asyncio.sleep(0.01)
    assert not any(write.done() for write in writes)
    await kept.recorder.write(settled(0))
    await asyncio.gather(*writes)
    await kept.recorder.aclose()
    assert await asyncio.to_thread(kept.names) == ["s0-0", "s1-0", "s2-0", "s3-0"]


async def test_who_waits_in_vain_is_let_go(kept: Kept) -> None:
    kept.recorder.ordered = True
    late = asyncio.create_task(kept.recorder.write(settled(2)))
    first = asyncio.create_task(kept.recorder.write(settled(0)))
    await asyncio.sleep(0)
    kept.recorder.release()
    await first
    with pytest.raises(Halted):
        await late
    with pytest.raises(Halted):
        await kept.recorder.write(settled(3))
    await kept.recorder.aclose()
    assert kept.recorder.record.watermark == 1


async def test_a_writer_that_is_cancelled_does_not_disturb_the_others(kept: Kept) -> None:
    writes = [asyncio.create_task(kept.recorder.write(settled(n))) for n in range(3)]
    await asyncio.sleep(0)
    writes[1].cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    await kept.recorder.aclose()
    assert kept.recorder.record.watermark == 3  # it had come, so it is recorded


async def test_nothing_is_written_that_the_journal_does_not_know_of(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.recorder.write(settled(0, 1, 1, 1))
    before = kept.recorder.record
    sizes = {name: file.length for name, file in kept.recorder.files.items()}

    def full(self: Journal, record: Record) -> None:
        raise JobStorageError("full")

    with monkeypatch.context() as disk:
        disk.setattr(Journal, "record", full)
        writes = [kept.recorder.write(settled(n, 1, 1, 1)) for n in (1, 2)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [JobStorageError, JobStorageError]
    assert kept.recorder.record == before
    assert {name: file.length for name, file in kept.recorder.files.items()} == sizes
    assert sum(kept.recorder.reasons.values()) == 1
    await kept.recorder.write(settled(2, 1, 1, 1))  # there is room again
    await kept.recorder.aclose()
    assert await asyncio.to_thread(kept.names) == ["s0-0", "s2-0"]
    assert await asyncio.to_thread(kept.text, UNKNOWN) == "s0-1\ns2-1\n"
    assert kept.recorder.record.beyond == (2,)


@pytest.mark.parametrize("step", ["sync", "record_safely"])
async def test_the_same_where_it_is_brought_to_the_disk(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(rooms, "_SYNCED_EVERY", 0.0)
    await kept.recorder.write(settled(0))
    before = kept.recorder.record

    def full(*_: object) -> None:
        raise JobStorageError("full")

    with monkeypatch.context() as disk:
        disk.setattr(Staged if step == "sync" else Journal, step, full)
        with pytest.raises(JobStorageError):
            await kept.recorder.write(settled(1))
    assert kept.recorder.record == before
    await kept.recorder.write(settled(1))
    await kept.recorder.aclose()
    assert await asyncio.to_thread(kept.names) == ["s0-0", "s1-0"]
    assert kept.recorder.record.watermark == 2


async def test_now_and_then_it_is_brought_to_the_disk(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept.recorder.write(settled(0))
    recorded = lambda: list(kept.recorder.journal.records())  # noqa: E731
    assert (await asyncio.to_thread(recorded))[1] == Record()
    kept.recorder._synced = time.monotonic() - 11
    await kept.recorder.write(settled(1))
    await kept.recorder.aclose()
    now, safe = await asyncio.to_thread(recorded)
    assert now == safe == kept.recorder.record


def test_each_group_is_a_member_of_a_packed_file(kept: Kept) -> None:
    kept.recorder.codec = Gzip()
    kept.recorder.write_now([settled(0), settled(1)])
    kept.recorder.write_now([settled(2, 0, 1)])
    kept.recorder.write_now([settled(3)])
    with open_decompressed(kept.folder / PROFILES) as file:
        assert len(file.read().splitlines()) == 3
    assert kept.recorder.record.bytes == 3 * len(b'{"external_id":"s0-0"}\n')


@few
@given(st.permutations(range(12)), st.booleans(), st.lists(st.integers(0, 3), min_size=12))
def test_whatever_comes_when_each_slice_is_written_once(
    tmp_path_factory: pytest.TempPathFactory,
    numbers: Sequence[int],
    ordered: bool,
    pauses: list[int],
) -> None:
    kept = kept_in(tmp_path_factory.mktemp("kept"))
    kept.recorder.ordered = ordered

    async def write(number: int, pause: int) -> None:
        for _ in range(pause):
            await asyncio.sleep(0)
        await kept.recorder.write(settled(number))

    async def write_all() -> None:
        await asyncio.gather(*map(write, numbers, pauses))
        await kept.recorder.aclose()

    asyncio.run(write_all())
    put_away(kept)
    names, expected = kept.names(), [f"s{n}-0" for n in range(12)]
    assert (names if ordered else sorted(names)) == (expected if ordered else sorted(expected))
    assert (kept.recorder.record.watermark, kept.recorder.record.beyond) == (12, ())
