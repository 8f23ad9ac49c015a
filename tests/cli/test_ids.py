import json
import os
import re
import signal
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from braze_export import (
    ConnectError,
    ExportInProgressError,
    ExportStats,
    RetryPolicy,
)
from braze_export._json import one_line
from braze_export.cli import exporting, reading, writing
from braze_export.cli.failures import in_our_words
from braze_export.cli.screen import Screen
from braze_export.jobs.kinds import Kind
from braze_export.sandbox import Fault, Sandbox, Window
from tests.cli.conftest import KEY, lines_of, point_to, serving

IDS = "/users/export/ids"


def names(text: str) -> list[str]:
    return sorted(json.loads(line)["external_id"] for line in lines_of(text))


def test_arguments(braze: Sandbox, run: Any) -> None:
    ran = run("ids", "u1", "nobody", "u2", "u1")
    assert ran.code == 0
    assert names(ran.out) == ["u1", "u2"]
    first, second = ran.err.splitlines()
    assert first.startswith("2 profiles, 1 unknown id, 1 request, 1 duplicate left out, ")
    assert second == "Unknown: nobody"


def test_lines_are_the_bytes_of_braze(braze: Sandbox, run: Any) -> None:
    users = [b'{"external_id": "u1", "e": "\\u00e9\\ud800", "n": 1e400}', b"{ }"]
    braze.inject(Fault(body=b'{"users": [%s]}' % b", ".join(users)))
    assert run("ids", "u1", "u2").lines == [user.decode() for user in users]


def test_pretty_printed_json_becomes_one_line(braze: Sandbox, run: Any) -> None:
    body = b'{"message": "success",\n "users": [{\r\n  "external_id": "u1",\n  "n": 1e400\n}]}'
    braze.inject(Fault(body=body))
    ran = run("ids", "u1")
    assert ran.out == '{"external_id":"u1","n":1e400}\n'


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b'{\n  "a": "\\n  x",\r  "b": [ ]}', b'{"a":"\\n  x","b":[]}'),
        (b'{\n "a": "\\ud800  x"\r\n}', b'{  "a": "\\ud800  x"  }'),
    ],
)
def test_one_line(raw: bytes, line: bytes) -> None:
    assert one_line(raw) == line


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfu1\r\n\r\n  \r\nu2\r\nnobody", b"u1\nu2\n\nnobody\n"]
)
def test_files(
    content: bytes, braze: Sandbox, run: Any, ids_file: Callable[..., str], tmp_path: Path
) -> None:
    arguments = ("-o", "users.ndjson", "--unknown", "unknown.txt", "--failed", "failed.ndjson")
    ran = run("ids", "--input", ids_file(content), *arguments)
    assert ran.code == 0
    assert ran.out == ""
    assert names((tmp_path / "users.ndjson").read_text()) == ["u1", "u2"]
    assert (tmp_path / "unknown.txt").read_text() == "nobody\n"
    assert (tmp_path / "failed.ndjson").read_text() == ""
    assert re.search(r"^Unknown in +unknown.txt *$", ran.err, re.MULTILINE)
    assert re.search(r"^Output +.*users.ndjson *$", ran.err, re.MULTILINE)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("extra", "text"), [([], b"u1\nu2\n"), (["--input", "-"], b"\xef\xbb\xbfu1\r\n\r\nu2")]
)
def test_standard_input(extra: list[str], text: bytes, braze: Sandbox, run: Any) -> None:
    assert names(run("ids", *extra, stdin=text).out) == ["u1", "u2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"u1\ncaf\xe9\n", "standard input, line 2 is not UTF-8: convert it"),
        (b"u1\n" + b"x" * 140_000, "standard input, line 2 is longer than 65,536 bytes"),
    ],
)
def test_standard_input_that_holds_something_else(
    text: bytes, message: str, braze: Sandbox, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "piped").write_bytes(text)
    ran = run("ids", stdin=tmp_path / "piped")
    assert ran.code == 2
    assert message in ran.err


def test_an_empty_input(braze: Sandbox, run: Any) -> None:
    ran = run("ids")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "There were no identifiers: the input is empty\n"


def test_quiet(braze: Sandbox, run: Any) -> None:
    ran = run("ids", "u1", "nobody", "-o", "users.ndjson", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize(
    ("kind", "pick"),
    [
        ("external_id", lambda person: person.external_id),
        ("braze_id", lambda person: person.braze_id),
        ("device_id", lambda person: person.device_id),
        ("email", lambda person: person.email),
        ("phone", lambda person: person.phone),
        ("alias:amplitude_id", lambda person: person.alias.name),
    ],
)
def test_kinds(kind: str, pick: Any, braze: Sandbox, run: Any, tmp_path: Path) -> None:
    arguments = ("--as", kind, "--fields", "external_id", "--unknown", "unknown.txt")
    ran = run("ids", pick(braze.user(3)), "nobody", *arguments)
    assert ran.out == '{"external_id":"u3"}\n'
    assert (tmp_path / "unknown.txt").read_text() == "nobody\n"


def test_fields(braze: Sandbox, run: Any) -> None:
    ran = run("ids", "u1", "--fields", "email, external_id,", "--fields", "braze_id")
    assert set(json.loads(ran.out)) == {"email", "external_id", "braze_id"}


def test_a_misspelt_field(braze: Sandbox, run: Any) -> None:
    ran = run("ids", "u1", "--fields", "external_id,emial")
    assert ran.code == 0
    assert "Warning: Braze documents no field 'emial': did you mean 'email'?\n" in ran.err


def test_ordered(braze: Sandbox, run: Any) -> None:
    braze.inject(Fault(delay=0.1))
    ran = run("ids", *(f"u{n}" for n in range(1, 101)), "--ordered", "--fields", "external_id")
    assert names("\n".join(ran.lines[:50])) == sorted(f"u{n}" for n in range(1, 51))


def test_new_workspaces_need_fields(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    with serving(fields_required=True) as sandbox:
        ran = run("ids", "u1", "--new-workspace", "--endpoint", sandbox.url)
        assert ran.code == 2
        assert "give --fields" in ran.err
        ran = run("ids", "u1", "--new-workspace", "--endpoint", sandbox.url, "--format", "table")
        assert ran.code == 0


def test_table(braze: Sandbox, run: Any) -> None:
    ran = run("ids", *(f"u{n}" for n in range(1, 60)), "--format", "table", "--limit", "7")
    assert ran.code == 0
    assert ran.lines[0].split() == [
        *("external_id", "first_name", "last_name", "email", "country", "language"),
    ]
    assert len(ran.lines) == 2 + 7
    assert "Stopped at 7 profiles: see --limit" in ran.err
    assert braze.counters.requests == 1  # none for what is not shown


def test_table_of_chosen_fields(braze: Sandbox, run: Any) -> None:
    body = {
        "users": [
            {
                "external_id": "\x1b[31mred",
                "is_vip": True,
                "tags": ["a", "b"],
                "nested": {"k": ["v" * 99]},
                "n": 1.5,
            }
        ]
    }
    braze.inject(Fault(body=body))
    ran = run("ids", "u1", "--format", "table", "--fields", "external_id,is_vip,tags,nested,n,gone")
    row = ran.lines[2]
    assert r"\x1b[31mred" in row
    assert "yes" in row
    assert "a, b" in row
    assert '{"k": ["vvv' in row
    assert "v…" in row
    assert "1.5" in row


def test_limit_of_ndjson(braze: Sandbox, run: Any) -> None:
    ran = run("ids", *(f"u{n}" for n in range(1, 120)), "--limit", "60")
    assert len(ran.lines) == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["u1", "--input", "ids.txt"], "not both"),
        (["ids.txt", "more.txt"], "ids.txt is a file, and not the only argument"),
        (["u1", "ids.txt"], "ids.txt is a file, and not the only argument"),
        (["u1", "--fields", ""], "--fields names none: leave it out for all fields"),
        (["u1", "-o", "users.parquet"], "lines of JSON, so name it .ndjson, not .parquet"),
        (["ids.txt", "--limit", "5", "-o", "users.ndjson.gz"], "Other files are written where"),
        (["gone.csv"], "There is no file gone.csv. If it is an identifier, give it on standard"),
        (["u1", "--format", "table", "-o", "x"], "leave --format table out"),
        (["-i", "ids.txt", "-o", "./ids.txt"], "is the input: name another file"),
        (["-i", "ids.txt", "-o", "./ids.txt", "--limit", "1"], "different files"),
        (["u1", "-o", "x", "--unknown", "x"], "different files"),
        (["u1", "--unknown", "-"], "different files"),
        (["u1", "-o", "missing/x"], "missing/x cannot be written (No such file or directory)"),
        (["u1", "-o", "."], ". cannot be written"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], message: str, braze: Sandbox, run: Any, ids_file: Callable[..., str]
) -> None:
    ids_file(b"u1\n")
    ran = run("ids", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert braze.counters.requests == 0


def test_nowhere_to_read_from(braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    for stdin in (Terminal(), None):
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(Exception, match="No identifiers"):
            reading.opened((), None, Kind("external_id")).__enter__()


def test_a_line_that_is_not_utf_8(
    braze: Sandbox, run: Any, ids_file: Callable[..., str], tmp_path: Path
) -> None:
    ran = run("ids", "-i", ids_file(b"u1\nu2\ncaf\xe9\n"), "-o", "users.ndjson")
    assert ran.code == 2
    assert (
        ran.err
        == "Error: ids.txt: line 3 is not utf-8: give --encoding, such as cp1252 or utf-16\n"
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "ids.txt"]


def test_a_line_that_is_no_identifier(
    braze: Sandbox, run: Any, ids_file: Callable[..., str]
) -> None:
    ran = run("ids", "-i", ids_file(b"u1\n" + b"x" * 200_000))
    assert ran.code == 2
    assert "ids.txt, line 2: it has more than 65,536 characters" in ran.err


def test_an_input_that_cannot_be_read(braze: Sandbox, run: Any, monkeypatch: Any) -> None:
    real = os.read

    def read(descriptor: int, size: int) -> bytes:
        if size == 64 * 1024:
            raise OSError(5, "Input/output error")
        return real(descriptor, size)

    monkeypatch.setattr("os.read", read)
    ran = run("ids", stdin=b"u1\n")
    assert ran.code == 2
    assert "standard input: Input/output error." in ran.err


def test_some_identifiers_failed(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(users=100, poisoned=["u7", "u60"]) as sandbox:
        point_to(sandbox, monkeypatch)
        arguments = [f"u{n}" for n in range(1, 101)]
        ran = run("ids", *arguments, "-o", "users.ndjson", "--failed", "failed.ndjson")
        assert ran.code == 4
        assert len(lines_of((tmp_path / "users.ndjson").read_text())) == 98
        lines = (tmp_path / "failed.ndjson").read_text().splitlines()
        failed = {json.loads(line)["identifier"]: json.loads(line)["error"] for line in lines}
        assert set(failed) == {"u7", "u60"}
        assert "400" in failed["u7"]
        assert "Warning: 2 identifiers failed. They are in failed.ndjson. The first: " in ran.err
        assert "--failed FILE writes them all" in run("ids", "u1", "u7").err


def test_all_identifiers_failed(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(poisoned=["u7"]) as sandbox:
        point_to(sandbox, monkeypatch)
        ran = run("ids", "u7", "-o", "users.ndjson")
    assert ran.code == 1
    assert ran.err.startswith("Error: POST /users/export/ids: 400")
    assert ran.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_profile_that_cannot_be_read(braze: Sandbox, run: Any, tmp_path: Path) -> None:
    braze.inject(Fault(body={"users": [5, {"external_id": "u1"}]}))
    ran = run("ids", "u1", "u2", "--failed", "failed.ndjson")
    assert ran.code == 4
    assert names(ran.out) == ["u1"]
    assert json.loads((tmp_path / "failed.ndjson").read_text())["identifier"] is None


def test_words_that_are_no_unicode(braze: Sandbox, run: Any, tmp_path: Path) -> None:
    ran = run("ids", "u1", "\udcff", "--failed", "failed.ndjson")
    assert ran.code == 4
    assert "not valid Unicode" in ran.err
    assert json.loads((tmp_path / "failed.ndjson").read_text())["identifier"] == "?"
    assert run("ids", "\udcff").code == 2


def test_it_gives_up_when_nothing_comes(
    braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    braze.inject(Fault(status=503), times=10_000)
    ran = run("ids", *(f"u{n}" for n in range(1, 1000)), "--concurrency", "1")
    assert ran.code == 1
    assert "503" in ran.err
    assert "try again later" in ran.err
    assert braze.counters.requests == 6  # the tries of one request


def test_it_gives_up_after_an_outage(
    braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setattr(exporting, "_PATIENCE", 3)
    braze.inject(Fault(status=503), times=10_000, after=2)
    arguments = [f"u{n}" for n in range(1, 1000)]
    ran = run("ids", *arguments, "--concurrency", "1", "-o", "users.ndjson")
    assert ran.code == 1
    summary, failed, kept, error = ran.err.splitlines()[-4:]
    assert summary.startswith("100 profiles")
    assert "150 identifiers failed" in failed
    assert kept == "100 lines kept in users.ndjson.partial"
    assert error.startswith("Error: ")
    assert len(lines_of((tmp_path / "users.ndjson.partial").read_text())) == 100


def test_no_connection(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    ran = run("ids", "u1", "--endpoint", "http://127.0.0.1:9")
    assert ran.code == 1
    assert "Check the endpoint and the network" in ran.err


def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    real = RetryPolicy.delay

    def delay(self: Any, *arguments: Any, **options: Any) -> float | None:
        return None if real(self, *arguments, **options) is None else 0.0

    monkeypatch.setattr(RetryPolicy, "delay", delay)


def test_a_full_disk(braze: Sandbox, run: Any) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ran = run("ids", "u1", "-o", "/dev/full")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "Error: /dev/full: No space left on device"


def test_devices_and_links_stay_what_they_are(braze: Sandbox, run: Any, tmp_path: Path) -> None:
    assert run("ids", "u1", "-o", os.devnull, "--unknown", os.devnull).code == 0
    assert not stat.S_ISREG(Path(os.devnull).stat().st_mode)
    (tmp_path / "link").symlink_to("target")
    assert run("ids", "u1", "-o", "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert names((tmp_path / "target").read_text()) == ["u1"]


def test_blocks_are_written_on_the_way(
    braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = [f"u{n}" for n in range(1, 120)]
    for name, value in (("_BLOCK", 1000), ("_LONGEST_WAIT", 0.0)):
        with monkeypatch.context() as patch:
            patch.setattr(writing, name, value)
            assert run("ids", *arguments, "-o", "users.ndjson").code == 0
        assert len(names((tmp_path / "users.ndjson").read_text())) == 119


def test_an_interrupt_keeps_what_has_come(
    braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In this process, to be measured; the real signal is below."""
    real = writing.Output.write

    async def write(self: writing.Output, line: bytes) -> None:
        if self.lines == 70:
            raise KeyboardInterrupt
        await real(self, line)

    monkeypatch.setattr(writing.Output, "write", write)
    ran = run("ids", *(f"u{n}" for n in range(1, 200)), "-o", "users.ndjson")
    assert ran.code == 130
    summary, kept, end = ran.err.splitlines()
    assert summary.startswith("70 profiles, ")
    assert kept == "70 lines kept in users.ndjson.partial"
    assert end == "Interrupted."
    assert len(names((tmp_path / "users.ndjson.partial").read_text())) == 70


def one_window(requests: int) -> AbstractContextManager[Sandbox]:
    """A Braze whose clock stands still, so that its one window never ends."""
    return serving(ids_window=Window(requests, 3600), clock=lambda: 1_800_000_000.0)


def signalled(
    number: signal.Signals,
    spawn: Callable[..., Any],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *options: str,
) -> tuple[Any, str, str]:
    """Send a signal once 50 of 1,000 are there; return the process, and what it said."""
    (folder / "ids.txt").write_text("".join(f"u{n}\n" for n in range(1, 1001)))
    with one_window(1) as sandbox:
        point_to(sandbox, monkeypatch)
        process = spawn("ids", "-i", "ids.txt", "-o", "users.ndjson", *options)
        while " 50/1,000 ids" not in (line := process.stderr.readline()):
            pass  # the progress says when the answer was taken
        process.send_signal(number)
        return process, line, process.stderr.read()


# Of both signals one is quick here, and the other one where a stream is ended.
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_ctrl_c(
    number: signal.Signals,
    code: int,
    spawn: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, line, err = signalled(number, spawn, tmp_path, monkeypatch)
    assert "1 request, limit 0/1, next window in " in line
    assert process.stdout.read() == ""
    assert process.wait(10) == code
    assert err.endswith(
        "Warning: Not complete. Run the same command again to go on after 50 of 1,000.\n"
    )
    assert "Traceback" not in err
    assert not (tmp_path / "users.ndjson").exists()


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_ctrl_c_of_a_stream(
    number: signal.Signals,
    code: int,
    spawn: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, _, err = signalled(number, spawn, tmp_path, monkeypatch, "--limit", "999")
    assert "\nRate limit: waited at least " in err
    assert process.stdout.read() == ""
    assert process.wait(10) == code
    assert "50 lines kept in users.ndjson.partial\nInterrupted.\n" in err
    assert "Traceback" not in err
    assert len(names((tmp_path / "users.ndjson.partial").read_text())) == 50


def test_ctrl_c_while_standard_input_is_silent(braze: Sandbox, spawn: Callable[..., Any]) -> None:
    read, write = os.pipe()
    process = spawn("ids", stdin=read)
    os.close(read)
    os.write(write, b"".join(b"u%d\n" % n for n in range(1, 51)))
    wait_for(lambda: braze.counters.requests > 0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    os.close(write)
    assert process.returncode == 130
    assert err.endswith("Interrupted.\n")
    assert "Traceback" not in err
    assert "Fatal" not in err


def test_a_broken_pipe(
    braze: Sandbox, spawn: Callable[..., Any], ids_file: Callable[..., str]
) -> None:
    content = b"".join(b"u%d\n" % n for n in range(1, 1001))
    process = spawn("ids", "-i", ids_file(content))
    assert process.stdout.readline().startswith("{")
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr.read() == ""


def test_a_pipe_from_end_to_end(braze: Sandbox, spawn: Callable[..., Any]) -> None:
    process = spawn("ids", "--fields", "external_id", stdin=-1)
    out, err = process.communicate("u1\nu2\nnobody\n", timeout=10)
    assert names(out) == ["u1", "u2"]
    assert err.startswith("2 profiles, 1 unknown id, 1 request, ")
    assert process.returncode == 0


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_reader_that_goes_away_in_this_process(
    braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(_output: writing.Output, _line: bytes) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(writing.Output, "write", write)
    ran = run("ids", "u1")
    assert (ran.code, ran.err) == (141, "")


def test_errors_speak_of_options_and_not_of_arguments() -> None:
    running = ExportInProgressError("x", status=429, hint='pass if_running="wait"')
    assert in_our_words(running) == "429 x. give --if-running wait"
    unreachable = ConnectError("x", hint="Check base_url and the network")
    assert in_our_words(unreachable) == "x. Check the endpoint and the network"


@pytest.mark.parametrize(
    ("waited", "refused", "told"),
    [
        (0.0, 0, ""),
        (1.0, 0, ""),
        (125.0, 0, "Rate limit: waited at least 2:05\n"),
        (0.5, 1, "Rate limit: 1 request refused and sent again\n"),
        (125.0, 3, "Rate limit: waited at least 2:05; 3 requests refused and sent again\n"),
    ],
)
def test_what_the_rate_limit_cost(
    waited: float, refused: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = ExportStats(identifiers=1, requests=1, rate_limited=refused)
    exporting.Tally(stats, waited=waited).tell(Screen(), seconds=1, unknown=None, failed=None)
    assert capsys.readouterr().err.partition("\n")[2] == told


def test_a_refusal_is_told_in_the_end(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(ids_window=Window(100, 1)) as sandbox:
        point_to(sandbox, monkeypatch)
        sandbox.inject(Fault(status=429))
        ran = run("ids", "u1")
    assert ran.code == 0
    assert "\nRate limit: " in ran.err
    assert "1 request refused and sent again\n" in ran.err


def dry(run: Any, *arguments: str, stdin: bytes = b"") -> tuple[dict[str, str], str]:
    """The table of a dry run, and its advice."""
    ran = run("ids", "--dry-run", *arguments, stdin=stdin)
    assert ran.code == 0
    assert ran.err.endswith(
        "Nothing was sent. The time that the requests themselves take comes on top.\n"
    )
    rows, _, advice = ran.out.partition("\n\n")
    return dict(re.split(r"  +", row.rstrip(), maxsplit=1) for row in lines_of(rows)), advice


def test_a_dry_run_needs_neither_key_nor_endpoint(run: Any, tmp_path: Path) -> None:
    outputs = ("-o", "users.ndjson", "--unknown", "unknown.txt", "--failed", "failed.ndjson")
    rows, advice = dry(run, "u1", "u2", "u1", *outputs)
    assert rows == {
        "identifiers": "2",
        "repeated": "1, left out",
        "requests": "1",
        "limit": "2,500 requests per 60 s",
        "least time": "0 s",
    }
    assert advice == ""
    assert not list(tmp_path.iterdir())


def test_a_dry_run_sends_nothing(braze: Sandbox, run: Any, tmp_path: Path) -> None:
    (tmp_path / "users.ndjson").write_text("as it was")
    dry(run, "u1", "-o", "users.ndjson")
    assert braze.counters.requests == 0
    assert [path.read_text() for path in tmp_path.iterdir()] == ["as it was"]


CONTENT = b"\xef\xbb\xbf" + b"".join(b"u%d\r\n\r\n" % n for n in range(1, 25_002))


@pytest.mark.parametrize("extra", [("-i", "ids.txt"), ("-i", "-"), ()])
def test_a_dry_run_counts_the_input(
    extra: tuple[str, ...], run: Any, ids_file: Callable[..., str]
) -> None:
    content = CONTENT if "ids.txt" in extra else CONTENT[:4096].rpartition(b"u")[0]  # a pipe's
    ids_file(content)
    number = content.count(b"u")
    rows, _ = dry(run, *extra, stdin=b"" if "ids.txt" in extra else content)
    assert rows.get("lines read") == (None if "ids.txt" in extra else f"{2 * number:,}")
    assert rows["identifiers"] == f"{number:,}"
    assert rows["requests"] == str((number + 49) // 50)


@pytest.mark.parametrize(
    ("options", "limit", "time"),
    [
        ([], "2,500 requests per 60 s", "0 s"),
        (["--new-workspace", "--fields", "email"], "40 requests per 1 s", "12 s"),
        (["--new-workspace", "--fields", "canvases_received"], "250 requests per 60 s", "2:00"),
        (["--oldest-workspace"], "250,000 requests per 3,600 s", "0 s"),
        (["--max-requests", "7", "--period", "2.5"], "7 requests per 2.5 s", "2:58"),
        (
            ["--max-requests", "100", "--reserve", "0.2"],
            "100 requests per 60 s, 20 of them left to others",
            "6:00",
        ),
    ],
)
def test_a_dry_run_knows_the_limit(
    options: list[str], limit: str, time: str, run: Any, ids_file: Callable[..., str]
) -> None:
    rows, _ = dry(run, "-i", ids_file(CONTENT), *options)
    assert (rows["limit"], rows["least time"]) == (limit, time)


def test_a_dry_run_gives_advice(run: Any, ids_file: Callable[..., str]) -> None:
    slow = ("--fields", "email,campaigns_received")
    _, advice = dry(run, "-i", ids_file(CONTENT), "--new-workspace", *slow)
    assert "neither campaigns_received nor canvases_received" in advice
    assert "it takes 12 s instead of 2 min" in advice
    rows, advice = dry(run, "-i", "ids.txt", "--max-requests", "1")
    assert rows["least time"] == "8:20:00"
    assert advice.startswith("If a segment can describe these users")
    assert "instead of 501" in advice


@pytest.mark.parametrize(
    ("options", "needed", "requests"),
    [
        (["--limit", "60"], "60, see --limit", "2"),
        (["--limit", "30000"], None, "501"),
        (["--format", "table"], "50, see --limit", "1"),
    ],
)
def test_a_dry_run_up_to_a_limit(
    options: list[str], needed: str | None, requests: str, run: Any, ids_file: Callable[..., str]
) -> None:
    rows, _ = dry(run, "-i", ids_file(CONTENT), *options)
    assert rows["identifiers"] == "25,001"
    assert (rows.get("needed"), rows["requests"]) == (needed, requests)


@pytest.mark.parametrize(
    ("kind", "requests"),
    [
        ("external_id", "1"), ("alias:label", "1"),
        ("braze_id", "3"), ("device_id", "3"), ("email", "3"), ("phone", "3"),
    ],
)  # fmt: skip
def test_a_dry_run_knows_what_goes_alone(kind: str, requests: str, run: Any) -> None:
    assert dry(run, "a", "b", "c", "--as", kind)[0]["requests"] == requests


def test_a_dry_run_of_other_characters(run: Any) -> None:
    rows, _ = dry(run, "é", "e", "é", "\udcff")
    assert (rows["identifiers"], rows["repeated"]) == ("3", "1, left out")


def test_a_dry_run_of_a_misspelt_field(run: Any) -> None:
    ran = run("ids", "u1", "--fields", "emial", "--dry-run")
    assert ran.code == 0
    assert ran.err.startswith("Warning: Braze documents no field 'emial'")


def test_a_dry_run_of_nothing(run: Any) -> None:
    ran = run("ids", "--dry-run", stdin=b"\n\n")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "There were no identifiers: the input is empty\n"
    assert run("ids", "--dry-run", "-q").err == ""


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (["-i", "ids.txt"], b"u1\ncaf\xe9\n", "ids.txt: line 2 is not utf-8: give --encoding"),
        (["-i", "ids.txt"], b"x" * 200_000, "ids.txt, line 1: it has more than"),
        (["-i", "missing.txt"], b"", "missing.txt"),
        (["-i", "ids.txt", "-o", "ids.txt"], b"u1\n", "different files"),
        (["-i", "ids.txt", "--new-workspace"], b"u1\n", "give --fields"),
    ],
)
def test_a_dry_run_refuses_what_cannot_work(
    arguments: list[str], content: bytes, message: str, run: Any, ids_file: Callable[..., str]
) -> None:
    ids_file(content)
    ran = run("ids", *arguments, "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_a_quiet_dry_run(run: Any) -> None:
    ran = run("ids", "u1", "--dry-run", "-q")
    assert ran.err == ""
    assert ran.out.startswith("identifiers")
