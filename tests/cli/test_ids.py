import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braze_export import (
    ConnectError,
    RateLimitError,
    RetryPolicy,
)
from braze_export.cli import exporting, reading, writing
from braze_export.cli.failures import in_our_words
from braze_export.sandbox import Fault, Sandbox
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
    assert writing.one_line(raw) == line


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
    assert "The unknown ids are in unknown.txt" in ran.err
    assert ran.err.endswith("The profiles are in users.ndjson\n")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("extra", [[], ["--input", "-"]])
def test_standard_input(extra: list[str], braze: Sandbox, run: Any) -> None:
    assert names(run("ids", *extra, stdin=b"u1\nu2\n").out) == ["u1", "u2"]


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
        (["u1", "--format", "table", "-o", "x"], "leave --format table out"),
        (["-i", "ids.txt", "-o", "./ids.txt"], "different files"),
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
        with pytest.raises(Exception, match="No identifiers"), reading.opened((), None):
            pass


def test_a_line_that_is_not_utf_8(
    braze: Sandbox, run: Any, ids_file: Callable[..., str], tmp_path: Path
) -> None:
    ran = run("ids", "-i", ids_file(b"u1\nu2\ncaf\xe9\n"), "-o", "users.ndjson")
    assert ran.code == 2
    assert "ids.txt, line 3 is not UTF-8" in ran.err
    assert list(tmp_path.iterdir()) == [tmp_path / "ids.txt"]


def test_a_line_that_is_no_identifier(
    braze: Sandbox, run: Any, ids_file: Callable[..., str]
) -> None:
    ran = run("ids", "-i", ids_file(b"u1\n" + b"x" * 200_000))
    assert ran.code == 2
    assert "ids.txt, line 2 is longer than" in ran.err


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c(
    number: signal.Signals, code: int, braze: Sandbox, spawn: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text("".join(f"u{n}\n" for n in range(1, 1001)))
    arguments = ("--max-requests", "10", "--period", "60", "-o", "users.ndjson")
    process = spawn("ids", "-i", "ids.txt", *arguments)
    while " 50/1,000 ids" not in process.stderr.readline():
        pass  # the progress says when the answer was taken
    process.send_signal(number)
    err = process.stderr.read()
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
    limited = RateLimitError("x", status=429, hint="lower the client's limits")
    assert in_our_words(limited) == "429 x. lower --max-requests"
    unreachable = ConnectError("x", hint="Check base_url and the network")
    assert in_our_words(unreachable) == "x. Check the endpoint and the network"
