import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from braze_export.sandbox import Sandbox
from braze_export.sandbox import __main__ as process

COMMAND = [sys.executable, "-W", "error", "-m", "braze_export.sandbox"]


@pytest.fixture
def start() -> Iterator[Any]:
    """Start processes; end those that a failed test leaves."""
    started: list[subprocess.Popen[bytes]] = []

    def make(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        running = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
        )
        started.append(running)
        return running

    yield make
    for running in started:
        running.kill()
        running.communicate()


def first_line(running: "subprocess.Popen[bytes]") -> dict[str, str]:
    assert running.stdout
    line: dict[str, str] = json.loads(running.stdout.readline())
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_quietly(start: Any, number: signal.Signals) -> None:
    running = start("--users", "5", "--until-stdin-closes")
    told = first_line(running)
    assert set(told) == {"url", "api_key"}
    with urllib.request.urlopen(f"{told['url']}/sandbox/counters") as response:
        assert json.load(response)["requests"] == 0
    running.send_signal(number)
    assert running.communicate(timeout=10) == (b"", b"")
    assert running.returncode == 0


def test_the_end_of_its_parent_ends_it(start: Any) -> None:
    running = start("--until-stdin-closes", BRAZE_SANDBOX_API_KEY="given")
    assert first_line(running)["api_key"] == "given"
    assert running.communicate(timeout=10) == (b"", b"")
    assert running.returncode == 0


@pytest.fixture
def ended_stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A standard input that has ended; and signal handlers put back afterwards."""
    read, write = os.pipe()
    os.write(write, b"some input\n")
    os.close(write)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


ALL_OPTIONS = [
    *("--users", "7", "--segments", "4", "--seed", "1", "--profile", "small", "--port", "0"),
    *("--ids-window", "9/60", "--fast-ids-window", "8/1", "--default-window", "7/3600"),
    *("--latency", "0.5", "--gzip", "--new-workspace", "--host", "localhost"),
    *("--export-seconds", "2.5", "--export-members", "6", "--link-seconds", "90"),
]


def test_all_options(
    ended_stdin: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(process.API_KEY, "given")
    built: list[Any] = []
    real = Sandbox.new_workspace

    def new_workspace(**options: Any) -> Any:
        built.append(real(**options))
        return built[0]

    monkeypatch.setattr(Sandbox, "new_workspace", new_workspace)
    assert process.main([*ALL_OPTIONS, "--until-stdin-closes"]) == 0
    sandbox = built[0]
    assert (sandbox.users, sandbox.segments, sandbox.seed, sandbox.profile) == (7, 4, 1, "small")
    assert (sandbox.latency, sandbox.gzip, sandbox.fields_required) == (0.5, True, True)
    exports = (sandbox.export_seconds, sandbox.export_members, sandbox.link_seconds)
    assert exports == (2.5, 6, 90.0)
    windows = (sandbox.ids_window, sandbox.fast_ids_window, sandbox.default_window)
    assert [window.max_requests for window in windows] == [9, 8, 7]
    assert json.loads(capsys.readouterr().out)["api_key"] == sandbox.api_key == "given"


def test_the_defaults_stand_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        process.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(default: 10000)" in text
    assert "(default: 127.0.0.1)" in text
    assert "api-key" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "-1"], "users"),
        (["--users", "many"], "invalid int value"),
        (["--ids-window", "60"], "REQUESTS/SECONDS"),
        (["--host", "0.0.0.0"], "loopback"),
        (["--api-key", "secret"], "unrecognized arguments"),
    ],
)
def test_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        process.main(arguments)
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(
    ended_stdin: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def taken(_: object) -> None:
        raise OSError(98, "address already in use")

    monkeypatch.setattr(Sandbox, "start", taken)
    assert process.main([]) == 1
    assert "already in use" in capsys.readouterr().err


def test_the_line_is_out_before_the_process_waits(
    ended_stdin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.TextIOWrapper(io.BufferedWriter(raw := io.BytesIO()))
    monkeypatch.setattr("sys.stdout", out)
    assert process.main(["--until-stdin-closes"]) == 0
    assert raw.getvalue().count(b"\n") == 1
