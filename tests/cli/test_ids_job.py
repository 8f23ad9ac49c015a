"""``braze-export ids INPUT -o OUTPUT`` as a job: killed, stopped, resumed, out of room."""

import csv
import gzip
import io
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from braze_export import RetryPolicy
from braze_export.jobs.reading.compression import open_decompressed
from braze_export.sandbox import Fault, Sandbox, Window
from tests.cli.conftest import KEY, Ran, lines_of, point_to, serving

Spawn = Callable[..., "subprocess.Popen[str]"]

WIDE = Window(1_000_000, 60)


@attrs.frozen
class Places:
    """The three places: each identifier, and how often it is there."""

    profiles: Counter[str]
    unknown: Counter[str]
    failed: Counter[str]

    @classmethod
    def of(cls, output: Path) -> "Places":
        stem = output.name.partition(".")[0]
        with output.open("rb") as raw, open_decompressed(output) as file:
            assert raw.read(1) or not output.stat().st_size
            profiles = [json.loads(line)["external_id"] for line in file.read().splitlines()]
        return cls.beside(output, stem, profiles)

    @classmethod
    def beside(cls, output: Path, stem: str, profiles: list[str]) -> "Places":
        unknown = lines_of(output.with_name(f"{stem}.unknown.txt").read_text("utf-8"))
        failed = lines_of(output.with_name(f"{stem}.failed.ndjson").read_text("utf-8"))
        names = [json.loads(line)["identifier"] for line in failed]
        return cls(Counter(profiles), Counter(unknown), Counter(names))


def once(*names: str) -> Counter[str]:
    return Counter(dict.fromkeys(names, 1))


def numbered(first: int, last: int, letter: str = "u") -> list[str]:
    return [f"{letter}{n}" for n in range(first, last + 1)]


def write_ids(names: list[str], path: str = "ids.txt") -> str:
    Path(path).write_text("".join(f"{name}\n" for name in names))
    return path


def ended(process: "subprocess.Popen[str]") -> Ran:
    out, err = process.communicate(timeout=20)
    for text in (out, err):
        assert KEY not in text
        assert "Traceback" not in text
    return Ran(process.returncode, out, err)


def wait_for(happened: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Watch a child process: until something happens, or it ends."""
    deadline = time.monotonic() + 15
    while not happened() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.003)


def until_line(process: "subprocess.Popen[str]", fits: Callable[[dict[str, Any]], bool]) -> None:
    """Read lines of ``--json`` until one fits."""
    assert process.stdout is not None
    for line in process.stdout:
        if fits(json.loads(line)):
            return
    raise AssertionError("no such line")


def report_of(ran: Ran) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(ran.lines[-1])
    assert last["event"] == "report"
    return last


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    real = RetryPolicy.delay

    def delay(self: Any, *arguments: Any, **options: Any) -> float | None:
        return None if real(self, *arguments, **options) is None else 0.0

    monkeypatch.setattr(RetryPolicy, "delay", delay)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sandbox]]:
    """Start a Braze with options of the test's own, to which the environment points."""
    running = []

    def serve(**options: Any) -> Sandbox:
        context = serving(**{"ids_window": WIDE, **options})
        sandbox = context.__enter__()
        running.append(context)
        point_to(sandbox, monkeypatch)
        return sandbox

    yield serve
    for context in running:
        context.__exit__(None, None, None)


# Killed


def test_killed_at_random_moments_it_loses_and_repeats_nothing(
    serve: Callable[..., Sandbox], spawn: Spawn, run: Any, tmp_path: Path
) -> None:
    known, unknown, bad = numbered(1, 2500), numbered(1, 200, "x"), ["u77", "u1200", "u2300"]
    mixed = known + unknown + known[:300]
    random.shuffle(mixed)
    kills, at_once = 3, 4
    sandbox = serve(users=3000, poisoned=bad, latency=0.03)
    command = ("ids", write_ids(mixed), "-o", "users.ndjson", "--concurrency", str(at_once))
    for share in sorted(random.uniform(0.02, 0.75) for _ in range(kills)):
        process = spawn(*command)
        most = int(share * len({*mixed}))
        wait_for(lambda most=most: sandbox.counters.identifiers >= most, process)  # type: ignore[misc]
        process.kill()
        ended(process)
    ran = run(*command)
    assert ran.code == 4
    assert ", going on after " in ran.err
    assert re.search(r"Identifiers  2,700 \([\d,]+ of them in earlier runs\)", ran.err)
    assert Places.of(tmp_path / "users.ndjson") == Places(
        once(*(set(known) - {*bad})), once(*unknown), once(*bad)
    )
    again = sandbox.counters.identifiers - 2700 + len(bad)
    assert again <= kills * at_once * 50
    assert {path.name for path in (tmp_path / "users.ndjson.job").iterdir()} == {"journal.sqlite"}


@pytest.mark.slow
def test_killed_while_the_file_is_made_it_makes_it_again(
    serve: Callable[..., Sandbox], spawn: Spawn, run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=5000)
    command = ("ids", write_ids([*numbered(1, 3000), "x1"]), "-o", "users.parquet", "--json")
    for _ in range(2):
        process = spawn(*command)
        until_line(process, lambda line: line.get("phase") == "writing")
        process.kill()
        process.communicate()
        assert not (tmp_path / "users.parquet").exists()
    report = report_of(run(*command))
    assert (report["complete"], report["already"], report["requests"]) == (True, 3001, 0)
    assert sandbox.counters.identifiers == 3001
    assert Places.beside(
        tmp_path / "users.parquet", "users", parquet_ids(tmp_path / "users.parquet")
    ) == Places(once(*numbered(1, 3000)), once("x1"), once())


def parquet_ids(path: Path) -> list[str]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    found: list[str] = pq.read_table(path)["external_id"].to_pylist()
    return found


# Stopped


# Of both signals one is quick here, and the other one where a second signal follows.
@pytest.mark.parametrize(
    "ending",
    [(signal.SIGINT, 130), pytest.param((signal.SIGTERM, 143), marks=pytest.mark.slow)],
)
def test_a_signal_lets_the_requests_under_way_finish(
    ending: tuple[signal.Signals, int],
    serve: Callable[..., Sandbox],
    spawn: Spawn,
    run: Any,
    tmp_path: Path,
) -> None:
    sandbox = serve(users=1000, latency=0.25)
    names = numbered(1, 900)
    command = ("ids", write_ids(names), "-o", "users.ndjson", "--json", "--concurrency", "4")
    process = spawn(*command, "--report", "run.html")
    wait_for(lambda: sandbox.counters.requests >= 5, process)
    process.send_signal(ending[0])
    ran = ended(process)
    assert ran.code == ending[1]
    assert "Finishing what is under way. Once more ends it at once." in ran.err
    report = report_of(ran)
    assert report["complete"] is False
    assert report["done"] == sandbox.counters.identifiers >= 200
    assert (tmp_path / "run.html").read_text().startswith("<!")
    assert not (tmp_path / "users.ndjson").exists()
    sandbox.latency = 0.0
    ran = run(*command)
    assert ran.code == 0
    assert report_of(ran)["already"] == report["done"]
    assert sandbox.counters.identifiers == 900  # none of them twice
    assert Places.of(tmp_path / "users.ndjson") == Places(once(*names), once(), once())


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_a_second_signal_ends_it_at_once(
    number: signal.Signals, code: int, serve: Callable[..., Sandbox], spawn: Spawn
) -> None:
    sandbox = serve(users=1000, latency=60)
    process = spawn("ids", write_ids(numbered(1, 900)), "-o", "users.ndjson")
    wait_for(lambda: sandbox.counters.requests, process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "Finishing what is under way" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    ran = ended(process)
    assert ran.code == code
    assert ran.err.endswith("Interrupted. Run the same command again to go on.\n")


def test_an_interrupt_does_not_wait_for_the_rate_limit(
    serve: Callable[..., Sandbox], spawn: Spawn
) -> None:
    serve(users=1000, ids_window=Window(2, 3600), clock=lambda: 1_800_000_000.0)
    process = spawn("ids", write_ids(numbered(1, 900)), "-o", "users.ndjson", "--json")
    until_line(process, lambda line: line["done"] == 100 and line["pool"]["waiting"] > 0)
    process.send_signal(signal.SIGINT)
    ran = ended(process)  # long before the hour is over
    assert (ran.code, report_of(ran)["done"]) == (130, 100)


def test_an_interrupt_does_not_wait_for_a_silent_pipe(
    serve: Callable[..., Sandbox], spawn: Spawn, tmp_path: Path
) -> None:
    sandbox = serve(users=1000)
    read, write = os.pipe()
    process = spawn("ids", "-i", "-", "-o", "users.ndjson", stdin=read)
    os.close(read)
    os.write(write, b"u1\nu2\n")
    copy = tmp_path / "users.ndjson.job" / "input.new"
    wait_for(copy.exists, process)
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    os.close(write)
    assert ran.code == 130
    assert ran.err.endswith("Warning: Not complete. Run the same command again to go on.\n")
    assert "Fatal" not in ran.err
    assert sandbox.counters.requests == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_interrupt_while_the_file_is_made(
    serve: Callable[..., Sandbox], spawn: Spawn, run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=5000)
    command = ("ids", write_ids(numbered(1, 4000)), "-o", "users.parquet", "--json")
    process = spawn(*command)
    until_line(process, lambda line: line.get("phase") == "writing")
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    assert (ran.code, report_of(ran)["complete"]) == (130, False)
    assert not (tmp_path / "users.parquet").exists()
    report = report_of(run(*command))
    assert (report["complete"], report["requests"]) == (True, 0)
    assert sandbox.counters.identifiers == 4000
    assert Counter(parquet_ids(tmp_path / "users.parquet")) == once(*numbered(1, 4000))


# No room


@attrs.frozen
class Disk:
    """A small disk of its own."""

    path: Path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if made.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {made.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("name", ["users.ndjson", "users.parquet"])
def test_a_disk_that_fills(
    name: str, serve: Callable[..., Sandbox], run: Any, disk: Disk, tmp_path: Path
) -> None:
    sandbox = serve(users=3000)
    output = disk.path / name
    if name.endswith(".parquet"):
        disk.remount("size=120k")  # what is collected is packed
    command = ("ids", write_ids([*numbered(1, 2000), "x1"]), "-o", str(output))
    for _ in range(2):  # again without more room: the same error, and nothing lost
        ran = run(*command)
        assert ran.code == 1
        last = ran.err.splitlines()[-1]
        assert last.startswith(f"Error: {output}")
        assert "No space left on device" in last or "disk is full" in last
        assert last.endswith(
            "make room or choose a place that can be written, and run the same command again to go "
            "on"
        )
        assert not output.exists()
    disk.remount("size=64m")
    asked = sandbox.counters.identifiers
    ran = run(*command, "--json")
    assert ran.code == 0
    report = report_of(ran)
    assert report["already"] > 0
    assert sandbox.counters.identifiers - asked == 2001 - report["already"]
    ids = parquet_ids(output) if name.endswith(".parquet") else None
    found = Places.of(output) if ids is None else Places.beside(output, "users", ids)
    assert found == Places(once(*numbered(1, 2000)), once("x1"), once())


def test_a_directory_that_cannot_be_written(
    serve: Callable[..., Sandbox], run: Any, disk: Disk
) -> None:
    sandbox = serve(users=100)
    output = disk.path / "users.ndjson"
    command = ("ids", write_ids(numbered(1, 100)), "-o", str(output), "--concurrency", "1")
    disk.remount("ro")
    ran = run(*command)
    assert ran.code == 1
    assert ran.err.startswith(f"Error: {output}.job: Read-only file system. ")
    disk.remount("rw")
    sandbox.inject(Fault(status=401), after=1)
    assert run(*command).code == 3
    disk.remount("ro")
    ran = run(*command)
    assert ran.code == 1
    assert ran.err.startswith(f"Error: {output}.job: Read-only file system. ")
    disk.remount("rw")
    assert run(*command).code == 0
    assert Places.of(output).profiles == once(*numbered(1, 100))
    assert sandbox.counters.identifiers == 100


# Others, and changes


def test_two_runs_at_once(
    serve: Callable[..., Sandbox], spawn: Spawn, run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=1000, latency=0.2)
    command = ("ids", write_ids(numbered(1, 500)), "-o", "users.ndjson", "--concurrency", "2")
    process = spawn(*command)
    wait_for(lambda: sandbox.counters.requests >= 2, process)
    ran = run(*command)
    assert ran.code == 1
    assert ran.err.startswith("Error: another run is at work on this job (it holds ")
    assert "wait until it ends, or name another output" in ran.err
    assert process.poll() is None
    sandbox.latency = 0.0
    assert ended(process).code == 0
    assert sandbox.counters.identifiers == 500
    assert Places.of(tmp_path / "users.ndjson").profiles == once(*numbered(1, 500))


@pytest.fixture
def unfinished(serve: Callable[..., Sandbox], run: Any) -> Sandbox:
    """A job of 200 identifiers in users.ndjson, of which 100 are done."""
    sandbox = serve(users=1000)
    sandbox.inject(Fault(status=401), after=2)
    ran = run("ids", write_ids(numbered(1, 200)), "-o", "users.ndjson", "--concurrency", "1")
    assert ran.code == 3
    assert "100 of 200 identifiers are done and kept. Run the same command again" in ran.err
    return sandbox


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--fields", "external_id,email"], "fields was not given, now external_id,email"),
        (["--encoding", "cp1252"], "the encoding of the input was utf-8, now cp1252"),
        (["--input-format", "lines"], "the format of the input was not given, now lines"),
        (["--as", "alias:x"], "the kind of the identifiers was external_id, now alias:x"),
        ([], "the content of the input has changed"),
    ],
)
def test_another_job_is_refused(
    change: list[str], told: str, unfinished: Sandbox, run: Any, tmp_path: Path
) -> None:
    if not change:
        write_ids(numbered(1, 201))
    before = snapshot(tmp_path / "users.ndjson.job")
    ran = run("ids", "ids.txt", "-o", "users.ndjson", *change)
    assert ran.code == 2
    assert told in ran.err
    assert "start over (--fresh), which drops what came for 100 identifiers" in ran.err
    assert snapshot(tmp_path / "users.ndjson.job") == before
    assert unfinished.counters.identifiers == 100


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fresh_starts_over(unfinished: Sandbox, run: Any, tmp_path: Path) -> None:
    write_ids(numbered(101, 250))
    ran = run("ids", "ids.txt", "-o", "users.ndjson", "--fresh")
    assert ran.code == 0
    assert Places.of(tmp_path / "users.ndjson").profiles == once(*numbered(101, 250))
    assert unfinished.counters.identifiers == 250


def test_what_was_given_goes_on(unfinished: Sandbox, run: Any, tmp_path: Path) -> None:
    ran = run("ids", "ids.txt", "-o", "users.ndjson", "--concurrency", "7", "--patience", "5")
    assert ran.code == 0
    assert ", going on after 100\n" in ran.err
    assert Places.of(tmp_path / "users.ndjson").profiles == once(*numbered(1, 200))
    assert unfinished.counters.identifiers == 200


def test_what_failed_is_tried_again(
    serve: Callable[..., Sandbox], run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=1000, poisoned=["u7", "u60", "x1"])
    command = ("ids", write_ids([*numbered(1, 100), "x1", "x2"]), "-o", "users.ndjson")
    ran = run(*command)
    assert ran.code == 4
    assert "3 identifiers failed. Run the same command with --retry-failed" in ran.err
    bad = Places.of(tmp_path / "users.ndjson").failed
    assert bad == once("u7", "u60", "x1")
    sandbox.poisoned = frozenset({"u60"})
    asked = sandbox.counters.identifiers
    assert run(*command, "--retry-failed").code == 4
    assert Places.of(tmp_path / "users.ndjson") == Places(
        once(*numbered(1, 59), *numbered(61, 100)), once("x1", "x2"), once("u60")
    )
    sandbox.poisoned = frozenset()
    assert run(*command, "--retry-failed").code == 0
    assert sandbox.counters.identifiers - asked == 3
    assert Places.of(tmp_path / "users.ndjson") == Places(
        once(*numbered(1, 100)), once("x1", "x2"), once()
    )


def test_an_empty_input_is_told(serve: Callable[..., Sandbox], run: Any) -> None:
    serve(users=100)
    ran = run("ids", write_ids([]), "-o", "users.ndjson")
    assert ran.code == 0
    last = ran.err.splitlines()[-1]
    assert last == "There were no identifiers: ids.txt is empty, and so is the output."


def test_nothing_had_failed(serve: Callable[..., Sandbox], run: Any) -> None:
    serve(users=100)
    command = ("ids", write_ids(["u1"]), "-o", "users.ndjson")
    assert run(*command).code == 0
    ran = run(*command, "--retry-failed")
    assert ran.code == 0
    assert ran.err.splitlines()[-1] == "Nothing had failed: users.ndjson is as it was."
    assert run(*command, "--retry-failed", "--quiet").err == ""
    assert Places.of(Path("users.ndjson")).profiles == once("u1")


def test_there_is_nothing_to_retry_yet(unfinished: Sandbox, run: Any, tmp_path: Path) -> None:
    ran = run("ids", "ids.txt", "-o", "users.ndjson", "--retry-failed")
    assert ran.code == 2
    assert "is not finished: run it without --retry-failed first" in ran.err
    ran = run("ids", "ids.txt", "-o", "other.ndjson", "--retry-failed")
    assert ran.code == 2
    assert "there is no finished job of " in ran.err
    assert not (tmp_path / "other.ndjson.job").exists()


def test_fresh_drops_a_retry_that_is_not_finished(
    serve: Callable[..., Sandbox], run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=100, poisoned=["u7"])
    command = ("ids", write_ids(numbered(1, 60)), "-o", "users.ndjson")
    assert run(*command).code == 4
    sandbox.inject(Fault(status=401))
    assert run(*command, "--retry-failed").code == 3
    sandbox.poisoned = frozenset()
    assert run(*command, "--fresh").code == 0
    assert Places.of(tmp_path / "users.ndjson") == Places(once(*numbered(1, 60)), once(), once())


def test_a_wrong_key(
    serve: Callable[..., Sandbox], run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(users=100)
    monkeypatch.setenv("BRAZE_API_KEY", "another-key")
    write_ids(numbered(1, 100))
    ran = run("ids", "ids.txt", "-o", "users.ndjson")
    assert ran.code == 3
    assert "401" in ran.err
    assert "key" in ran.err
    assert "another-key" not in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["ids.txt"]  # of nothing no trace
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    assert run("ids", "ids.txt", "-o", "users.ndjson").code == 0


def test_a_server_that_is_not_there(
    unfinished: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_pauses(monkeypatch)
    nowhere = ("--endpoint", "http://127.0.0.1:9")
    ran = run("ids", "ids.txt", "-o", "other.ndjson", *nowhere)
    assert ran.code == 1
    assert "Check the endpoint and the network" in ran.err
    assert not (tmp_path / "other.ndjson.job").exists()
    unfinished.inject(Fault(drop="before"), times=1000)
    ran = run("ids", "ids.txt", "-o", "users.ndjson", "--concurrency", "1", "--patience", "0")
    assert ran.code == 1
    assert "100 of 200 identifiers are done and kept. Run the same command again" in ran.err


# What goes in


def as_csv(names: list[str]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)
    writer.writerow(["n", "user_id"])
    writer.writerows(enumerate(names))
    return b"\xef\xbb\xbf" + file.getvalue().encode()


def as_ndjson(names: list[str]) -> bytes:
    return b"".join(json.dumps({"user": {"id": name}}).encode() + b"\n" for name in names)


def as_parquet(names: list[str]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    file = io.BytesIO()
    pq.write_table(pa.table({"n": list(range(len(names))), "user_id": names}), file)
    return file.getvalue()


def as_lines(names: list[str]) -> bytes:
    return "\r\n".join(["", *names, ""]).encode()


def as_zst(content: bytes) -> bytes:
    from backports import zstd  # noqa: PLC0415 - an extra

    packed: bytes = zstd.compress(content)
    return packed


NAMES = [*numbered(1, 60), "u3", "x1", "u4"]
INPUTS: list[tuple[str, Callable[[list[str]], bytes], list[str]]] = [
    ("ids.csv", as_csv, ["--column", "user_id"]),
    ("ids.CSV.gz", lambda names: gzip.compress(as_csv(names)), ["--column", "user_id"]),
    ("export", as_csv, ["--input-format", "csv", "--column", "user_id"]),
    ("ids.ndjson", as_ndjson, ["--column", "user.id"]),
    ("ids.jsonl.zst", lambda names: as_zst(as_ndjson(names)), ["--column", "user.id"]),
    ("ids.parquet", as_parquet, ["--column", "user_id"]),
    ("ids", as_lines, []),
    ("ids.txt.gz", lambda names: gzip.compress(as_lines(names)), []),
]


@pytest.fixture(params=INPUTS, ids=lambda given: given[0])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """A file with ``NAMES``, and the options to read it."""
    name, written, options = request.param
    (tmp_path / name).write_bytes(written(NAMES))
    return [name, *options]


def test_inputs(given: list[str], serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    serve(users=100)
    ran = run("ids", *given, "-o", "users.ndjson")
    assert ran.code == 0
    assert re.search(r"^Repeated +2 *$", ran.err, re.MULTILINE)
    assert Places.of(tmp_path / "users.ndjson") == Places(
        once(*numbered(1, 60)), once("x1"), once()
    )
    assert len(run("ids", *given, "--fields", "external_id").lines) == 60


def test_a_dry_run_counts_each_identifier_once(given: list[str], run: Any, tmp_path: Path) -> None:
    ran = run("ids", *given, "-o", "users.ndjson", "--dry-run")
    assert ran.code == 0
    assert rows_of(ran) == {
        "identifiers": "61",
        "repeated": "2, left out",
        "requests": "2",
        "limit": "2,500 requests per 60 s",
        "least time": "0 s",
    }
    assert [path.name for path in tmp_path.iterdir()] == given[:1]


def rows_of(ran: Ran) -> dict[str, str]:
    return dict(re.split(r"  +", row.rstrip(), maxsplit=1) for row in ran.lines)


def test_rows_that_hold_no_identifier(
    serve: Callable[..., Sandbox], run: Any, ids_file: Callable[..., str], tmp_path: Path
) -> None:
    serve(users=100)
    ids_file(b'name,user_id\na,u1\nb,"u\n2"\nc,\nd\ne,u3\n', "ids.csv")
    command = ("ids", "ids.csv", "--column", "user_id", "-o", "users.ndjson")
    rows = rows_of(run(*command, "--dry-run"))
    assert (rows["identifiers"], rows["unusable"]) == ("2", "2, see --failed")
    assert rows["blank rows"] == "1"
    ran = run(*command, "--failed", "bad.ndjson")
    assert ran.code == 4
    assert re.search(r"^Blank rows +1 *$", ran.err, re.MULTILINE)
    assert "2: cannot be asked for" in ran.err
    bad = [json.loads(line) for line in (tmp_path / "bad.ndjson").read_text().splitlines()]
    assert [item["identifier"] for item in bad] == ["u\n2", "d"]
    assert [item["error"].partition(":")[0] for item in bad] == ["row 3", "row 5"]
    ran = run("ids", "ids.csv", "--column", "user_id")
    assert ran.code == 2
    assert "row 3: holds a line break. With --output FILE it would go to --failed." in ran.err


def test_text_of_another_encoding(
    serve: Callable[..., Sandbox], run: Any, ids_file: Callable[..., str], tmp_path: Path
) -> None:
    serve(users=100)
    ids_file("u1\ncafé€\n".encode("cp1252"))
    ran = run("ids", "ids.txt", "-o", "users.ndjson")
    assert ran.code == 2
    assert "line 2 is not utf-8: give --encoding, such as cp1252" in ran.err
    assert run("ids", "ids.txt", "-o", "users.ndjson", "--encoding", "cp1252").code == 0
    assert (tmp_path / "users.unknown.txt").read_text("utf-8") == "café€\n"


@pytest.mark.parametrize(
    ("kind", "pick"),
    [
        ("email", lambda person: person.email),
        ("alias:amplitude_id", lambda person: person.alias.name),
    ],
)
def test_other_kinds(
    kind: str, pick: Any, serve: Callable[..., Sandbox], run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=100)
    write_ids([pick(sandbox.user(n)) for n in range(1, 31)] + ["nobody@example.com"])
    ran = run("ids", "ids.txt", "--as", kind, "-o", "users.ndjson")
    assert ran.code == 0
    assert Places.of(tmp_path / "users.ndjson") == Places(
        once(*numbered(1, 30)), once("nobody@example.com"), once()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input-format", "csv", "--delimiter", ";;"], "--delimiter is ';;': allowed is one"),
        (["--delimiter", ";"], "is read as lines: --delimiter is for CSV alone"),
        (["--encoding", "nonsense"], "--encoding is 'nonsense': allowed are those that Python"),
        (["--input-format", "csv"], "has 2 columns: give --column, the one that holds"),
        (["--column", "b"], "which have no columns: give --input-format, one of csv, ndjson"),
        (["--fresh", "--retry-failed"], "--fresh starts over, --retry-failed goes on: choose one"),
        (["--unknown", "-"], "--unknown and --failed need files of their own"),
        (["--report", "users.ndjson"], "and --report must be different files"),
        (["--report", "no/run.html"], "no is no directory: --report goes there"),
        (["--unknown", "fifo"], "fifo is no file that can be replaced"),
        (["--into", "duckdb:x.duckdb"], "--into is for a file of identifiers, without --output"),
        (["-o", "users.csv"], "users.csv: what is written are lines of JSON, so name it .ndjson"),
        (["--fields", " ,"], "--fields names none: leave it out for all fields"),
        (["--new-workspace"], "New workspaces must name fields: give --fields"),
    ],
)
def test_messages_name_the_options(
    options: list[str], message: str, run: Any, serve: Callable[..., Sandbox], tmp_path: Path
) -> None:
    sandbox = serve()
    write_ids(["a,b", "c,d"])
    os.mkfifo("fifo")
    ran = run("ids", "ids.txt", "-o", "users.ndjson", *options)
    assert ran.code == 2
    assert message in ran.err
    assert sandbox.counters.requests == 0
    assert {path.name for path in tmp_path.iterdir()} == {"ids.txt", "fifo"}


@pytest.mark.parametrize("option", ["--fresh", "--retry-failed", "--json", "--report=x.html"])
def test_some_options_are_for_jobs_alone(option: str, run: Any) -> None:
    ran = run("ids", "u1", option)
    assert ran.code == 2
    assert f"{option.partition('=')[0]} is for jobs: it needs a file of identifiers" in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patience", "900"], "--patience is for jobs"),
        (["--mode", "replace"], "--mode is for tables: it needs --into"),
        (["--table", "x"], "--table is for tables: it needs --into"),
        (["--custom-attributes", "json"], "--custom-attributes is for Parquet and tables"),
        (["-o", "users.ndjson", "--mode", "merge"], "--mode is for tables"),
        (["-o", "users.parquet", "--table", "x"], "--table is for tables"),
        (["-o", "users.ndjson", "--custom-attributes", "map"], "is for Parquet and tables"),
    ],
)
def test_options_that_would_do_nothing(options: list[str], message: str, run: Any) -> None:
    ran = run("ids", write_ids(["u1"]), *options)
    assert ran.code == 2
    assert message in ran.err


def test_a_destination_with_a_password_is_not_repeated(run: Any) -> None:
    ran = run("ids", write_ids(["u1"]), "--into", "filesystem:sftp://user:hush@host")
    assert ran.code == 2
    assert "neither a password nor a query" in ran.err
    assert "hush" not in ran.err


@pytest.mark.parametrize("output", [["-o", "users.ndjson"], []])
def test_a_pipe_of_the_shell_is_an_input(
    output: list[str], run: Any, serve: Callable[..., Sandbox]
) -> None:
    serve(users=100)
    read, write = os.pipe()
    os.write(write, b"u1\nu2\n")
    os.close(write)
    try:
        ran = run("ids", f"/dev/fd/{read}", *output)
    finally:
        os.close(read)
    assert ran.code == 0
    if output:
        assert Places.of(Path("users.ndjson")) == Places(once("u1", "u2"), once(), once())
    else:
        assert Counter(json.loads(line)["external_id"] for line in ran.lines) == once("u1", "u2")


def test_a_directory_may_be_called_like_an_identifier(
    run: Any, serve: Callable[..., Sandbox]
) -> None:
    serve(users=100)
    Path("u1").mkdir()
    assert len(run("ids", "u1").lines) == 1


def test_a_directory_that_is_called_like_a_file_is_no_input(
    run: Any, serve: Callable[..., Sandbox]
) -> None:
    serve()
    Path("ids.csv").mkdir()
    ran = run("ids", "ids.csv", "-o", "users.ndjson")
    assert ran.code == 2
    assert "Is a directory" in ran.err


@pytest.mark.parametrize("given", [[], ["-i", "-"]])
def test_nothing_on_standard_input_replaces_nothing(
    given: list[str], run: Any, serve: Callable[..., Sandbox], tmp_path: Path
) -> None:
    serve(users=100)
    (tmp_path / "users.ndjson").write_text("of yesterday\n")
    ran = run("ids", *given, "-o", "users.ndjson", stdin=Path(os.devnull))
    assert ran.code == 2
    assert "standard input is empty: name a file, or pipe identifiers in" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["users.ndjson"]
    assert (tmp_path / "users.ndjson").read_text() == "of yesterday\n"


def test_standard_input_as_a_stream_is_lines(run: Any, serve: Callable[..., Sandbox]) -> None:
    sandbox = serve()
    ran = run("ids", "--input-format", "csv", "--column", "b", stdin=b"a,b\n1,u1\n")
    assert ran.code == 2
    assert "standard input and pipes are read as lines in UTF-8: name a file" in ran.err
    assert sandbox.counters.requests == 0


def test_standard_input_is_kept_to_go_on(
    serve: Callable[..., Sandbox], run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=1000)
    form = ("--input-format", "csv", "--column", "user_id")
    command = ("ids", *form, "-o", "users.ndjson", "--concurrency", "1")

    def piped(last: int) -> Ran:
        (tmp_path / "piped").write_bytes(as_csv(numbered(1, last)))
        ran: Ran = run(*command, stdin=tmp_path / "piped")
        return ran

    sandbox.inject(Fault(status=401), after=2)
    ran = piped(300)
    assert ran.code == 3
    assert "100 of 300 identifiers are done" in ran.err
    ran = piped(301)
    assert ran.code == 2
    assert "the content of the input has changed" in ran.err
    sandbox.inject(Fault(status=401), after=2)
    assert piped(300).code == 3
    ran = run(*command, stdin=Path(os.devnull))
    assert ran.code == 0
    assert "(200 of them in earlier runs)" in ran.err
    assert sandbox.counters.identifiers == 300
    assert Places.of(tmp_path / "users.ndjson").profiles == once(*numbered(1, 300))
    assert [path.name for path in (tmp_path / "users.ndjson.job").iterdir()] == ["journal.sqlite"]


def test_a_terminal_is_no_input_but_what_was_kept_is_gone_on_with(
    serve: Callable[..., Sandbox], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = serve(users=100)
    command = ("ids", "-o", "users.ndjson", "--concurrency", "1")
    write_ids(numbered(1, 100), "piped")
    with monkeypatch.context() as typing:
        typing.setattr("os.isatty", lambda descriptor: descriptor == 0)
        ran = run(*command)
    assert ran.code == 2
    assert "standard input is a terminal: name a file, or pipe identifiers in" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["piped"]
    sandbox.inject(Fault(status=401), after=1)
    assert run(*command, stdin=tmp_path / "piped").code == 3
    monkeypatch.setattr("os.isatty", lambda descriptor: descriptor == 0)
    assert run(*command).code == 0
    assert sandbox.counters.identifiers == 100
    assert Places.of(tmp_path / "users.ndjson").profiles == once(*numbered(1, 100))


# What comes out


@pytest.mark.parametrize("name", ["users.ndjson", "users.ndjson.gz", "users.ndjson.zst", "users"])
def test_outputs(name: str, serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    serve(users=100)
    command = ("ids", write_ids(["x1", *numbered(1, 60)]), "-o", name)
    assert run(*command, "--ordered", "--fields", "external_id").code == 0
    assert Places.of(tmp_path / name) == Places(once(*numbered(1, 60)), once("x1"), once())
    magic = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}.get(Path(name).suffix, b"{")
    assert (tmp_path / name).read_bytes().startswith(magic)


@pytest.mark.parametrize("form", ["json", "map"])
def test_parquet(form: str, serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415 - takes its time

    serve(users=100)
    command = ("ids", write_ids(["x1", *numbered(1, 60)]), "-o", "users.parquet")
    assert run(*command, "--custom-attributes", form).code == 0
    query = "SELECT external_id, custom_attributes FROM 'users.parquet'"
    rows = duckdb.execute(query).fetchall()
    assert Counter(row[0] for row in rows) == once(*numbered(1, 60))
    assert {type(row[1]) for row in rows} - {type(None)} == {dict if form == "map" else str}


def test_a_table(serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    import duckdb  # noqa: PLC0415 - takes its time

    serve(users=100, poisoned=["u7"])
    command = ("ids", write_ids(["x1", *numbered(1, 60)]), "--into", "duckdb:profiles.duckdb")
    assert run(*command, "--table", "crm.people").code == 4
    with duckdb.connect("profiles.duckdb", read_only=True) as db:
        rows = db.execute("SELECT external_id FROM crm.people").fetchall()
    assert Counter(row[0] for row in rows) == once(*numbered(1, 6), *numbered(8, 60))
    beside = tmp_path / "profiles.duckdb.crm.people"
    assert Path(f"{beside}.unknown.txt").read_text() == "x1\n"
    assert '"u7"' in Path(f"{beside}.failed.ndjson").read_text()


# What is told


def test_json_lines(serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    serve(users=100)
    ran = run("ids", write_ids(["x1", *numbered(1, 60)]), "-o", "users.ndjson", "--json")
    *progress, report = map(json.loads, ran.lines)
    assert ran.err == ""
    assert {line["event"] for line in progress} == {"progress"}
    assert progress[-1]["phase"] == "done"
    assert report["event"] == "report"
    assert report["complete"] is True
    assert (report["total"], report["profiles"], report["unknown"]) == (61, 60, 1)
    assert report["output"] == str(tmp_path / "users.ndjson")


def test_paths_are_told_as_they_are_seen_from_here(
    serve: Callable[..., Sandbox], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(users=100)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir("here")
    ran = run("ids", write_ids(["u1", "x1"]), "-o", "users.ndjson")
    assert re.search(r"^Output +users\.ndjson *$", ran.err, re.MULTILINE)
    assert re.search(r"^Unknown in +users\.unknown\.txt *$", ran.err, re.MULTILINE)
    ran = run("ids", "ids.txt", "-o", "../users.ndjson")
    assert "../users.ndjson" in ran.err.replace("\n", "").replace(" ", "")


def test_quiet(serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    serve(users=100)
    ran = run("ids", write_ids(["u1"]), "-o", "users.ndjson", "-q", "--report", "run.html")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (tmp_path / "run.html").exists()


def test_a_link_stays_one(serve: Callable[..., Sandbox], run: Any, tmp_path: Path) -> None:
    serve(users=100)
    (tmp_path / "there").mkdir()
    (tmp_path / "users.ndjson").symlink_to("there/of-today.ndjson")
    assert run("ids", write_ids(["u1"]), "-o", "users.ndjson").code == 0
    assert (tmp_path / "users.ndjson").is_symlink()
    assert (tmp_path / "there" / "of-today.ndjson").read_text().startswith("{")


def test_neither_the_key_nor_addresses_are_told(
    serve: Callable[..., Sandbox], spawn: Spawn, run: Any, tmp_path: Path
) -> None:
    sandbox = serve(users=100, latency=0.05)
    emails = [sandbox.user(n).email for n in range(1, 41)]
    sandbox.poisoned = frozenset(emails[:2])
    sandbox.inject(Fault(status=401), after=30)
    source = ("ids", write_ids([*emails, "nobody@example.com"]), "--as", "email")
    command = (*source, "-o", "users.ndjson", "-vv", "--report", "run.html", "--concurrency", "8")
    process = spawn(*command)
    wait_for(lambda: sandbox.counters.requests, process)
    seen = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    first = ended(process)
    seen += b"".join(path.read_bytes() for path in (tmp_path / "users.ndjson.job").glob("jour*"))
    second = run(*command, "--json")
    assert (first.code, second.code) == (3, 4)
    seen += b"".join(path.read_bytes() for path in (tmp_path / "users.ndjson.job").glob("jour*"))
    seen += f"{first}{second}".encode()
    seen += (tmp_path / "run.html").read_bytes()
    assert KEY.encode() not in seen
    assert not [email for email in (*emails, "nobody@example.com") if email.encode() in seen]
    assert (tmp_path / "users.unknown.txt").read_text() == "nobody@example.com\n"


def test_the_help_goes_from_what_matters_to_what_rarely_does(run: Any) -> None:
    text = run("ids", "--help").out
    panels = re.findall(r"^╭─ (.+?) ─", text, re.MULTILINE)
    assert panels == ["Options", "Input", "Job", "Rate limit", "Connection"]
