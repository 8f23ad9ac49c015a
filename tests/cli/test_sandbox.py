import json
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from braze_export.sandbox import Sandbox
from tests.cli.conftest import Ran

OPTIONS = [
    *("--users", "7", "--segments", "4", "--seed", "1", "--profile", "small", "--latency", "0"),
    *("--ids-window", "9/60", "--fast-ids-window", "8/1", "--default-window", "7/3600", "--gzip"),
    *("--export-seconds", "2.5"),
]


# What it prints as JSON is held in this process, below.
@pytest.mark.parametrize("as_json", [pytest.param(True, marks=pytest.mark.slow), False])
def test_it_serves_until_ctrl_c(as_json: bool, spawn: Callable[..., Any]) -> None:
    process = spawn("sandbox", "--users", "5", *(["--json"] if as_json else []))
    line = process.stdout.readline()
    url = json.loads(line)["url"] if as_json else line.split()[-1]
    with urllib.request.urlopen(f"{url}/sandbox/counters") as answer:
        assert json.load(answer)["requests"] == 0
    told = [] if as_json else list(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert err == "Served 0 requests, 0 answers 429\n"
    if not as_json:
        assert told[2].startswith(f"  export BRAZE_REST_ENDPOINT={url} BRAZE_API_KEY=")


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes as soon as it serves."""

    class Event:
        async def wait(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("braze_export.cli.sandbox.asyncio.Event", Event)


def test_its_options(stopped: None, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    real = Sandbox.new_workspace

    def new_workspace(**options: Any) -> Any:
        built.append(real(**options))
        return built[0]

    monkeypatch.setenv("BRAZE_SANDBOX_API_KEY", "given")
    monkeypatch.setattr(Sandbox, "new_workspace", new_workspace)
    ran: Ran = run("sandbox", *OPTIONS, "--new-workspace", "--json")
    assert json.loads(ran.out)["api_key"] == "given"
    assert (built[0].users, built[0].segments, built[0].profile) == (7, 4, "small")
    assert built[0].fields_required
    assert built[0].export_seconds == 2.5
    windows = (built[0].ids_window, built[0].fast_ids_window, built[0].default_window)
    assert [window.max_requests for window in windows] == [9, 8, 7]


def test_what_it_prints(stopped: None, run: Any) -> None:
    ran: Ran = run("sandbox", "--users", "1234")
    assert ran.code == 0
    assert ran.lines[0].startswith("A local Braze with 1,234 users listens at http://127.0.0.1:")
    assert "  braze-export ids u1 u2 nobody --format table" in ran.lines


def test_a_port_that_is_taken(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def taken(_: object) -> None:
        raise OSError(98, "address already in use")

    monkeypatch.setattr(Sandbox, "start", taken)
    ran: Ran = run("sandbox")
    assert (ran.code, ran.err) == (1, "Error: address already in use\n")
