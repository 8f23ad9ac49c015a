import asyncio
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braze_export import BrazeError
from braze_export.cli import demo
from tests.cli.test_connection import on_a_terminal

SUMMARY = ["profiles", "unknown ids", "requests", "429 answers", "seconds", "ids a second"]


def test_from_end_to_end(spawn: Callable[..., Any], tmp_path: Path) -> None:
    process = spawn("demo", "--ids", "5000")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = out.splitlines()
    assert lines[1].split() == ["external_id", "first_name", "country", "created", "attributes"]
    values = {name: line for name in SUMMARY for line in lines if line.startswith(name)}
    assert values["profiles"].split()[-1] == "4,950"
    assert values["unknown ids"].split()[-1] == "50"
    assert values["requests"].split()[-1] == "100"
    assert values["429 answers"].split()[-1] == "0"
    assert "are in braze-demo.ndjson\n" in out
    assert "braze-export ids --help" in out
    profiles = (tmp_path / "braze-demo.ndjson").read_text(encoding="utf-8").split("\n")
    assert len({json.loads(line)["external_id"] for line in profiles[:-1]}) == 4950
    # Progress in plain lines, at most one a second and a last one.
    shown = [line for line in err.splitlines() if line.startswith("[")]
    assert 1 <= len(shown) <= 4
    assert "5,000/5,000 ids" in shown[-1]
    assert "\x1b" not in err


def test_live_progress_on_a_terminal() -> None:
    code, shown = on_a_terminal(["demo", "--ids", "2000"], b"", b"")
    assert code == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "2,000/2,000 ids" in text
    assert text.count("/2,000 ids") > 2  # drawn more than once
    assert "left" in text
    assert "/s" in text


def test_in_this_process(run: Any, tmp_path: Path) -> None:
    (tmp_path / "braze-demo.ndjson").write_text("mine")
    (tmp_path / "braze-demo-2.ndjson").write_text("mine, too")
    ran = run("demo", "--ids", "60")
    assert ran.code == 0
    assert "are in braze-demo-3.ndjson" in ran.out
    assert (tmp_path / "braze-demo.ndjson").read_text() == "mine"
    assert len((tmp_path / "braze-demo-3.ndjson").read_bytes().split(b"\n")) == 60
    ran = run("demo", "--ids", "10", "--output", "mine.ndjson")
    assert (tmp_path / "mine.ndjson").exists()


@pytest.mark.parametrize("code", ["import time; time.sleep(60)", "raise SystemExit(1)", "print(1"])
def test_a_local_braze_that_does_not_start(
    code: str, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = asyncio.create_subprocess_exec

    async def start(*_: Any, **options: Any) -> Any:
        return await real(sys.executable, "-c", code, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(demo, "_START", 0.5)
    monkeypatch.setattr(demo, "_STOP", 0.1)
    ran = run("demo")
    assert ran.code == 1
    assert "Error: The local Braze did not start" in ran.err
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_export(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def carry(_export: Any, _places: Any, tally: Any) -> None:
        tally.first_error = BrazeError("it broke")

    monkeypatch.setattr(demo, "carry", carry)
    ran = run("demo", "--ids", "10")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "Error: it broke")


@pytest.mark.slow
def test_ctrl_c(spawn: Callable[..., Any], tmp_path: Path) -> None:
    process = spawn("demo", "--ids", "50000")
    while not process.stderr.readline().startswith("["):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "kept in braze-demo.ndjson.partial\nInterrupted.\n" in err
    assert "Traceback" not in err
