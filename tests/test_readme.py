"""What the README shows is run: Python blocks as scripts, our commands as they stand."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from braze_export.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
SCRIPTS = [code for language, code in BLOCKS if language == "python"]
PAGES = "".join(
    (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    for name in ("fastapi", "jobs", "limits", "segments")
)
ON_PAGES = re.findall(r"^```python\n(.*?)^```", PAGES, re.DOTALL | re.MULTILINE)
SNIPPETS = re.findall(r"^```python notest\n(.*?)^```", PAGES, re.DOTALL | re.MULTILINE)
COMMANDS = [line for language, code in BLOCKS if language == "bash" for line in code.splitlines()]
OURS = [line for line in COMMANDS if line.startswith("braze-export")]
SET_UP = [line for line in COMMANDS if line.startswith("python -m pip install -e")]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of a user whose Braze is the local one."""
    command = [sys.executable, "-m", "braze_export.sandbox", "--until-stdin-closes"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield {
            **os.environ,
            "BRAZE_API_KEY": said["api_key"],
            "BRAZE_REST_ENDPOINT": said["url"],
            "PYTHONWARNINGS": "error",
        }
        process.stdin.close()
        process.wait(10)


@pytest.fixture
def at_home(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is that user's, in a directory of its own."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def run(command: list[str], environment: dict[str, str], place: Path) -> str:
    done = subprocess.run(
        command, env=environment, cwd=place, capture_output=True, text=True, check=False, timeout=25
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow  # each also runs for what it is shown for, below
@pytest.mark.parametrize("number", range(len(SCRIPTS)))
def test_scripts_run(number: int, environment: dict[str, str], tmp_path: Path) -> None:
    out = run([sys.executable, "-c", SCRIPTS[number]], environment, tmp_path)
    assert out.strip()


def test_scripts_do_what_they_are_shown_for(environment: dict[str, str], tmp_path: Path) -> None:
    many, one, segment, long, tests = (
        run([sys.executable, "-c", script], environment, tmp_path) for script in SCRIPTS
    )
    assert many.count("unknown:") == 1
    assert "users=200" in many
    assert "user1@" in one
    assert "None" in one
    assert segment.startswith("u1 20")
    assert "users=10000, bad_records=0" in segment
    assert "5000 profiles, 0 unknown, 0 failed" in long
    assert (tmp_path / "users.ndjson").read_bytes().count(b"\n") == 5000
    assert "1000 users in 21 requests" in tests


@pytest.mark.parametrize("line", OURS)
def test_commands_run(
    line: str, at_home: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line)[1:])
    told = capsys.readouterr()
    assert not ended.value.code, told.err
    assert told.out.strip() or list(tmp_path.iterdir())


@pytest.mark.parametrize("script", ON_PAGES, ids=str.__len__)
def test_scripts_of_the_pages_run(
    script: str, at_home: None, capsys: pytest.CaptureFixture[str], blocking_calls_fail: BlockBuster
) -> None:
    """In this process: those of the README show that scripts run in their own."""
    blocking_calls_fail.deactivate()  # a script may print and write files as it likes
    exec(compile(script, "script", "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert out.strip() or "BadRecord" in script  # a sound archive has none


@pytest.mark.parametrize("snippet", SNIPPETS, ids=str.__len__)
def test_snippets_of_the_pages_are_python(snippet: str) -> None:
    code = compile(snippet, "snippet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert code.co_names


def test_the_two_set_up_commands_come_first() -> None:
    assert COMMANDS[:2] == SET_UP[:2]
    demo, tests = SET_UP[:2]
    assert demo.endswith("&& braze-export demo")
    assert tests.endswith("&& python -m pytest")


def test_the_gate_calls_the_test_command_as_it_stands() -> None:
    assert SET_UP[1] in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert [t for t in targets if not (ROOT / t).exists()] == []
