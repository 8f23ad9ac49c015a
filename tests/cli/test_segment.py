import gzip
import json
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from braze_export import DownloadStats, ExportSettings, ExportState, Polling
from braze_export.cli import export_run, readings, writing
from braze_export.jobs.pace import Pace
from braze_export.sandbox import Fault, Sandbox
from tests.cli.conftest import KEY, Ran, lines_of, point_to, serving
from tests.cli.test_ids import names, no_pauses

FIELDS = ("--fields", "external_id,email")
START = "/users/export/segment"
LINKS = "/exports/"
BAD_LINES = b'{"external_id": "u1"}\nsecret-line\n\n{"external_id": "u2"}\n[1]\n'


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often whether an export is ready."""
    settings = partial(ExportSettings, polling=Polling(base=0.05, cap=0.1))
    monkeypatch.setattr(export_run, "ExportSettings", settings)


@pytest.fixture
def segment(braze: Sandbox) -> str:
    return braze.segment_id(2)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A Braze whose exports are not ready in the time of a test."""
    with serving(users=20, export_seconds=1000) as sandbox:
        point_to(sandbox, monkeypatch)
        yield sandbox


def instead(sandbox: Sandbox, archive: bytes, **more: Any) -> None:
    """Have every link give another archive."""
    sandbox.inject(Fault(status=200, body=archive, **more), times=1000, path=LINKS)


def way_on(ran_err: str) -> list[str]:
    """Return the words of the command that a message ends with."""
    line = ran_err.splitlines()[-1]
    start, _, command = line.partition("o on with: braze-export ")
    assert start in {"G", "Once it is ready, g"}
    return shlex.split(command)


def test_profiles_to_standard_output(braze: Sandbox, segment: str, run: Any) -> None:
    ran: Ran = run("segment", segment, *FIELDS)
    assert ran.code == 0
    assert names(ran.out) == sorted(braze.segment_external_ids(2))
    assert all(set(json.loads(line)) == {"external_id", "email"} for line in ran.lines)
    assert ran.err.startswith("500 profiles, ")
    assert "X-Amz" not in ran.err


def test_profiles_into_a_file(braze: Sandbox, segment: str, run: Any, tmp_path: Path) -> None:
    arguments = ("-o", "users.ndjson", "--failed", "failed.ndjson")
    ran: Ran = run("segment", segment, *FIELDS, *arguments)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.endswith("The profiles are in users.ndjson\n")
    assert len(names((tmp_path / "users.ndjson").read_text())) == 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["failed.ndjson", "users.ndjson"]


def test_quiet(braze: Sandbox, segment: str, run: Any) -> None:
    ran: Ran = run("segment", segment, *FIELDS, "-o", "users.ndjson", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_what_braze_is_asked_for(braze: Sandbox, segment: str, run: Any) -> None:
    more = ("--custom-attributes", "plan, score", "--custom-attributes", "x")
    where = ("--output-format", "gzip", "--callback-url", "http://127.0.0.1:9/x")
    assert run("segment", segment, "--fields", "external_id", *more, *where).code == 0
    asked = next(record.body for record in braze.log if record.path == START)
    assert asked == {
        "segment_id": segment,
        "fields_to_export": ["external_id"],
        "custom_attributes_to_export": ["plan", "score", "x"],
        "callback_endpoint": "http://127.0.0.1:9/x",
        "output_format": "gzip",
    }


def test_the_control_group(braze: Sandbox, run: Any) -> None:
    ran: Ran = run("control-group", "--fields", "external_id")
    assert ran.code == 0
    assert names(ran.out) == sorted(braze.segment_external_ids(0))


def test_a_limit(braze: Sandbox, segment: str, run: Any) -> None:
    ran: Ran = run("segment", segment, *FIELDS, "--limit", "7")
    assert (ran.code, len(ran.lines)) == (0, 7)
    assert ran.err.endswith("Stopped at 7 profiles: see --limit\n")


@pytest.mark.parametrize("source", ["line", "file", "stdin", "link"])
def test_started_now_and_fetched_later(
    source: str, braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    segment = braze.segment_id(2)
    ran: Ran = run("segment", segment, *FIELDS, "--no-wait", "-o", "users.ndjson")
    assert (ran.code, len(ran.lines)) == (0, 1)
    started = json.loads(ran.out)
    assert set(started) == {"object_prefix", "url", "segment_id"}
    assert started["segment_id"] == segment
    words = ["segment", segment, "--resume-from", started["url"], "--output", "users.ndjson"]
    assert way_on(ran.err) == words

    (tmp_path / "started").write_text(ran.out if source == "line" else started["url"] + "\n")
    words[3] = {"link": started["url"], "stdin": "-"}.get(source, "@started")
    for name in ("BRAZE_API_KEY", "BRAZE_REST_ENDPOINT"):
        monkeypatch.delenv(name)
    assert run(*words, stdin=ran.out.encode()).code == 0
    assert len(names((tmp_path / "users.ndjson").read_text())) == 500
    assert not any(record.authorized for record in braze.log if record.path != START)


def test_started_in_silence(braze: Sandbox, segment: str, run: Any) -> None:
    ran: Ran = run("segment", segment, *FIELDS, "--no-wait", "--quiet")
    assert (ran.code, len(ran.lines), ran.err) == (0, 1, "")


def test_the_time_is_over(slow: Sandbox, run: Any, tmp_path: Path) -> None:
    segment = slow.segment_id(1)
    given = ("-o", "my users.ndjson", "--timeout", "0.2", "-q", "--limit", "5", "--failed", "x")
    ran: Ran = run("segment", segment, *FIELDS, *given)
    assert ran.code == 1
    error, _ = ran.err.splitlines()
    assert error.startswith("Error: the export was not ready within 0.2 seconds.")
    command, shown, option, link, *more = way_on(ran.err)
    assert (command, shown, option) == ("segment", segment, "--resume-from")
    assert link.startswith(f"{slow.url}/exports/")
    assert shlex.join(more) == (
        "--output 'my users.ndjson' --failed x --limit 5 --quiet --timeout 0.2"
    )
    assert list(tmp_path.iterdir()) == []
    # The same once more: what it says is good for another time.
    assert way_on(run(command, shown, option, link, *more).err) == way_on(ran.err)


def test_a_link_that_was_hidden_stays_hidden(slow: Sandbox, run: Any, tmp_path: Path) -> None:
    segment = slow.segment_id(1)
    (tmp_path / "started").write_text(run("segment", segment, *FIELDS, "--no-wait").out)
    resumed = ("--resume-from", "@started", "--timeout", "1.2", "-vv", "--allow-insecure-http")
    ran: Ran = run("segment", segment, *resumed, "--settled-after", "1")
    assert re.search(r"begun [123] s ago, next look in 0 s", ran.err)
    assert "X-Amz" not in ran.err
    assert shlex.join(way_on(ran.err)) == (
        f"segment {segment} --resume-from @started --timeout 1.2 --settled-after 1 "
        "--allow-insecure-http --verbose --verbose"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_while_it_waits(
    number: signal.Signals, code: int, slow: Sandbox, spawn: Callable[..., Any], tmp_path: Path
) -> None:
    process = spawn("segment", slow.segment_id(1), *FIELDS, "-o", "users.ndjson")
    while "Braze is preparing the export" not in process.stderr.readline():
        pass
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-2] == "Interrupted."
    assert way_on(err)[2] == "--resume-from"
    assert "Traceback" not in err
    assert KEY not in err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_it_reads(
    braze: Sandbox, segment: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = writing.Output.write

    async def write(self: writing.Output, line: bytes) -> None:
        if self.lines == 70:
            raise KeyboardInterrupt
        await real(self, line)

    monkeypatch.setattr(writing.Output, "write", write)
    ran: Ran = run("segment", segment, *FIELDS, "-o", "users.ndjson")
    assert ran.code == 130
    summary, kept, end, _ = ran.err.splitlines()
    assert summary.startswith("70 profiles, ")
    assert kept == "70 lines kept in users.ndjson.partial"
    assert end == "Interrupted."
    assert way_on(ran.err)[-1] == "users.ndjson"
    assert [path.name for path in tmp_path.iterdir()] == ["users.ndjson.partial"]


def test_ctrl_c_while_it_reads(
    braze: Sandbox, segment: str, spawn: Callable[..., Any], tmp_path: Path
) -> None:
    braze.inject(Fault(slow=20_000), times=1000, path=LINKS, after=2)  # looks are quick
    fields = ("--fields", "external_id,custom_attributes,custom_events,purchases")
    process = spawn("segment", segment, *fields, "-o", "users.ndjson")
    while " profiles, " not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 143
    assert way_on(err)[-1] == "users.ndjson"
    assert not (tmp_path / "users.ndjson").exists()


@pytest.mark.parametrize("fault", [Fault(drop="before"), KeyboardInterrupt()])
def test_nobody_knows_whether_it_was_started(
    fault: Any, braze: Sandbox, segment: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(fault, Fault):
        braze.inject(fault, path=START)
    else:

        async def interrupted(*_: Any, **__: Any) -> None:
            raise fault

        monkeypatch.setattr("braze_export.resources.users.Users.export_segment", interrupted)
    ran: Ran = run("segment", segment, *FIELDS)
    assert ran.code == (1 if isinstance(fault, Fault) else 130)
    assert "Braze may have started the export all the same." in ran.err.splitlines()[-1]
    assert "--if-running wait" in ran.err


def test_a_connection_that_is_lost_for_good(
    braze: Sandbox, segment: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_pauses(monkeypatch)
    braze.inject(Fault(drop="before"), times=1000, path=LINKS, after=2)
    ran: Ran = run("segment", segment, *FIELDS, "-o", "users.ndjson")
    assert ran.code == 1
    assert ran.err.splitlines()[-2].startswith("Error: GET link of the export: the connection was")
    assert way_on(ran.err)[-1] == "users.ndjson"
    assert list(tmp_path.iterdir()) == []


def test_lines_that_are_no_profiles(braze: Sandbox, segment: str, run: Any, tmp_path: Path) -> None:
    instead(braze, gzip.compress(BAD_LINES))
    ran: Ran = run("segment", segment, *FIELDS, "-o", "users.ndjson", "--failed", "failed.ndjson")
    assert ran.code == 4
    assert names((tmp_path / "users.ndjson").read_text()) == ["u1", "u2"]
    first, second = map(json.loads, lines_of((tmp_path / "failed.ndjson").read_text()))
    assert set(first) == {"file", "line", "offset", "error", "raw"}
    assert (first["line"], first["offset"], first["raw"]) == (2, 22, "secret-line")
    assert (second["line"], second["raw"]) == (5, "[1]")
    assert "Warning: 2 lines are no profiles. In failed.ndjson. The first: " in ran.err
    assert ", line 2 (byte 22): " in ran.err
    assert "secret-line" not in ran.err
    assert "--failed FILE writes them all" in run("segment", segment, *FIELDS).err


def test_no_line_is_a_profile(braze: Sandbox, segment: str, run: Any, tmp_path: Path) -> None:
    instead(braze, gzip.compress(b"one\ntwo\n"))
    ran: Ran = run("segment", segment, *FIELDS, "-o", "users.ndjson")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("Error: ")
    assert ", line 1 (byte 0)" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_archive(braze: Sandbox, segment: str, run: Any, tmp_path: Path) -> None:
    instead(braze, gzip.compress(BAD_LINES)[:-6])
    ran: Ran = run("segment", segment, *FIELDS, "-o", "users.ndjson", "--failed", "failed.ndjson")
    assert ran.code == 1
    assert "cut off" in ran.err.splitlines()[-1]
    assert "Go on with" not in ran.err
    kept = {"failed.ndjson.partial", "users.ndjson.partial"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    last = lines_of((tmp_path / "failed.ndjson.partial").read_text())[-1]
    assert json.loads(last)["line"] is None


def test_one_is_running(slow: Sandbox, run: Any) -> None:
    segment = slow.segment_id(1)
    run("segment", segment, *FIELDS, "--no-wait")
    ran: Ran = run("segment", segment, *FIELDS)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "wait until it ends (--if-running wait), or cancel it first" in ran.err


def test_one_is_running_and_waited_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(users=20, export_seconds=0.4) as sandbox:
        point_to(sandbox, monkeypatch)
        segment = sandbox.segment_id(1)
        run("segment", segment, *FIELDS, "--no-wait")
        ran: Ran = run("segment", segment, *FIELDS, "--if-running", "wait")
        assert (ran.code, len(ran.lines)) == (0, 20)


def test_cancel(slow: Sandbox, run: Any) -> None:
    segment = slow.segment_id(1)
    run("segment", segment, *FIELDS, "--no-wait")
    ran: Ran = run("cancel", segment)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"Braze cancels whatever export of {segment} is running\n"
    assert run("segment", segment, *FIELDS, "--no-wait").code == 0
    assert run("cancel", "nobody's").code == 1


def test_a_link_that_has_run_out(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(export_seconds=10, link_seconds=0.2) as sandbox:
        point_to(sandbox, monkeypatch)
        ran: Ran = run("segment", sandbox.segment_id(1), *FIELDS)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("Error: GET link of the export: 403 ")
    assert "Start it anew" in ran.err
    assert "Go on with" not in ran.err


@pytest.mark.parametrize("extra", [["--no-wait"], []])
def test_own_storage_that_is_not_named(
    extra: list[str], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(own_storage="null") as sandbox:
        point_to(sandbox, monkeypatch)
        segment = sandbox.segment_id(1)
        ran: Ran = run("segment", segment, *FIELDS, *extra)
        assert ran.code == (0 if extra else 1)
        command, shown, option, prefix, *more = way_on(ran.err)
        assert (command, shown, option) == ("segment", segment, "--resume-from")
        assert more == ["--store", "s3://BUCKET"]
        if extra:
            assert json.loads(ran.out)["object_prefix"] == prefix
            assert json.loads(ran.out)["url"] is None
        else:
            assert "the workspace's own storage: say which with --store." in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--fields external_id,email"),
        (["--fields", " , "], "--fields external_id,email"),
        (["--resume-from", "https://x.test/y", "--no-wait"], "leave --no-wait out"),
        (["--resume-from", "7f3a-1700000000"], "say which with --store URL"),
        (["--resume-from", "@missing"], "@missing cannot be read (No such file or directory)"),
        (["--resume-from", "@latin-1"], "@latin-1 cannot be read (no UTF-8)"),
        (["--resume-from", "@empty"], "@empty gives neither a link nor an object prefix"),
        (["--resume-from", "@long"], "@long gives neither a link nor an object prefix"),
        (["--resume-from", "@json"], "@json gives neither a link nor an object prefix"),
        (["--resume-from", "@broken"], "@broken gives neither a link nor an object prefix"),
        (["--resume-from", "-"], "- gives neither a link nor an object prefix"),
        (["--resume-from", "http://x.test/y"], "link is plain HTTP"),
        ([*FIELDS, "-o", "x", "--failed", "./x"], "must be different files"),
        ([*FIELDS, "--failed", "-"], "must be different files"),
        ([*FIELDS, "-o", "missing/x"], "missing/x cannot be written"),
        ([*FIELDS, "--callback-url", "here"], "'here' does not start with https://"),
        ([*FIELDS, "--custom-attributes", ",".join(map(str, range(501)))], "--custom-attributes"),
        ([*FIELDS, "--timeout", "0"], "--timeout"),
        ([*FIELDS, "--store", "ftp://x"], "'ftp://x' is none of s3://BUCKET"),
        ([*FIELDS, "--store", "s3:///"], "'s3:///' is none of s3://BUCKET"),
        ([*FIELDS, "--store", "az://x"], "such as AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, braze: Sandbox, run: Any, tmp_path: Path
) -> None:
    files = {"latin-1": b"\xe9", "empty": b"\n", "long": b"x" * 70_000, "json": b'{"url": null}'}
    for name, content in (files | {"broken": b"{"}).items():
        (tmp_path / name).write_bytes(content)
    ran: Ran = run("segment", braze.segment_id(2), *arguments)
    assert ran.code == 2
    assert message in ran.err.splitlines()[0]
    assert ran.err.startswith("Error: ")
    assert braze.counters.requests == 0


def test_without_the_extra(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    ran: Ran = run("segment", "x", *FIELDS, "--store", "s3://bucket")
    assert ran.code == 2
    assert ran.err.splitlines()[0] == 'Error: --store needs: pip install "braze-export[storage]"'


def test_a_storage_that_does_not_answer(
    braze: Sandbox, segment: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found before anything is started."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "tests")
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    ran: Ran = run("segment", segment, *FIELDS, "--store", "s3://bucket")
    assert ran.code == 1
    assert ran.err.startswith("Error: The storage s3://bucket cannot be read (GenericError): ")
    assert ran.err.count("\n") == 1
    assert braze.counters.requests == 0


@pytest.mark.parametrize("longest_wait", [0.0, 100.0])
def test_a_full_disk(
    longest_wait: float, braze: Sandbox, segment: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(writing, "_LONGEST_WAIT", longest_wait)
    ran: Ran = run("segment", segment, *FIELDS, "-o", "/dev/full")
    assert ran.code == 1
    assert ran.err.splitlines()[-2] == "Error: /dev/full: No space left on device"
    assert way_on(ran.err)[-1] == "/dev/full"


def test_a_reader_that_goes_away(
    braze: Sandbox, segment: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(_output: writing.Output, _line: bytes) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(writing.Output, "write", write)
    ran: Ran = run("segment", segment, *FIELDS)
    assert (ran.code, ran.err) == (141, "")


def test_the_progress_of_waiting_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    waiting = readings.Waiting("asking", clock=lambda: now)
    pace = Pace()

    def told(*, narrow: bool = False) -> str:
        return " / ".join(waiting.parts(pace, narrow=narrow))

    assert (told(), waiting.done, waiting.total) == ("asking", 0, None)
    waiting.saw(ExportState("preparing", 61.0, 3, "AccessDenied", 20.0))
    now += 5
    expected = "Braze is preparing the export / next look in 15 s"
    assert told() == expected
    assert told(narrow=True) == expected
    waiting.resumed = True
    assert told() == expected.replace("/ n", "/ begun 1:06 ago / n")
    now += 50
    waiting.saw(ExportState("preparing", 116.0, 4, "ServerBusy", 20.0))
    assert "the export (the storage says ServerBusy) / begun" in told()
    assert told(narrow=True) == "Braze is preparing the export / next look in 20 s"
    waiting.saw(ExportState("ready", 130.0, 5))
    assert (told(), waiting.done, waiting.total) == ("the export is ready", 1, 1)


def test_the_progress_of_reading_is_told_in_words() -> None:
    now = 100.0
    stats, pace = DownloadStats(), Pace()
    one = readings.Download(stats, of_one=True, clock=lambda: now)
    many = readings.Download(stats, of_one=False, clock=lambda: now)
    assert (one.done, one.total) == (0, None)
    pace.mark(now, one.done)
    assert one.parts(pace, narrow=True) == ["0 bytes", "0 profiles"]
    now += 10
    stats.objects, stats.bytes_total, stats.bytes_received = 1, 4_000_000, 1_000_000
    stats.users, stats.resumed = 5_000, 1
    pace.mark(now, one.done)
    told = ["1.0 MB of 4.0 MB", "5,000 profiles", "500/s", "1 connection lost", "30 s left"]
    assert one.parts(pace, narrow=False) == told
    assert one.parts(pace, narrow=True) == [told[0], told[1], told[-1]]
    assert many.parts(pace, narrow=True) == ["1.0 MB of 1 file", "5,000 profiles"]
    stats.resumed = 0
    assert many.parts(pace, narrow=False)[1:] == ["5,000 profiles", "500/s"]
    stats.bytes_received = 4_000_000
    assert (one.done, one.total) == (3_999_999, 4_000_000)  # not all of it is read
    assert "left" not in " ".join(one.parts(pace, narrow=False))
    stats.objects_done = 1
    assert one.done == one.total
    assert many.total is None
