import io
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rich_click as click

from braze_export import __version__, cli
from braze_export.cli import failures
from braze_export.cli import screen as screens
from braze_export.cli.app import app
from braze_export.cli.failures import CODES, told
from braze_export.cli.screen import Screen
from tests.cli.conftest import KEY


def commands(command: click.Command = app, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path.strip(), command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")


PATHS = [path for path, _ in commands()]


def test_every_command_is_known() -> None:
    assert sorted(PATHS) == [
        "",
        "cancel",
        "control-group",
        "demo",
        "ids",
        "sandbox",
        "segment",
        "segments",
        "segments details",
        "segments list",
        "segments series",
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_has_examples_that_start_with_the_command(path: str, flag: str, run: Any) -> None:
    ran = run(*path.split(), flag)
    assert ran.code == 0
    examples = ran.out.partition("Examples:")[2]
    assert f"$ braze-export {path}" in examples
    assert "api-key " not in ran.out


def test_every_example_can_be_parsed() -> None:
    for _, command in commands():
        for line in (command.epilog or "").splitlines():
            words = line.removeprefix("  $ braze-export ").split()
            if words == line.split():
                continue
            end = next((n for n, word in enumerate(words) if word in {"|", "<", ">"}), None)
            context = click.Context(app, info_name="braze-export")
            name, child, rest = app.resolve_command(context, words[:end])
            while isinstance(child, click.Group):
                name, child, rest = child.resolve_command(context, rest)
            assert child is not None
            # Files need not exist, all else must be right.
            rest = [word if word not in {"ids.txt", "aliases.txt"} else "-" for word in rest]
            child.make_context(name, rest)


def test_the_exit_codes_stand_in_the_help(run: Any) -> None:
    text = run("--help").out
    for code, meaning in CODES.items():
        assert f" {code:<4} {meaning} " in text


def test_version(run: Any) -> None:
    assert run("--version").out == f"braze-export, version {__version__}\n"


def test_without_a_command_it_helps(run: Any) -> None:
    ran = run()
    assert ran.code == 2
    assert "Commands" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "No such option"),
        (["nonsense"], "No such command 'nonsense'"),
        (["ids", "--bogus"], "No such option"),
        (["segments", "details"], "Missing argument 'SEGMENT_ID'"),
        (["ids", "--as", "name", "u1"], "'name' is no kind of identifier: allowed are external_id"),
        (["ids", "--as", "alias: ", "u1"], "alias:LABEL"),
        (["ids", "--period", "5", "u1"], "--period needs --max-requests"),
        (["ids", "--api-key", KEY[:3], "u1"], "No such option"),
        (["segments", "series", "x", "--ending-at", "yesterday"], "no ISO 8601 date"),
        (["sandbox", "--ids-window", "60"], "REQUESTS/SECONDS"),
        (
            ["sandbox", "--host", "0.0.0.0"],
            "loopback; it is reached from this machine alone",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_where_to_look(
    arguments: list[str], message: str, run: Any
) -> None:
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    first, second = ran.err.splitlines()
    assert first.startswith("Error: ")
    assert message in first
    assert second.endswith("--help") or "sandbox" in arguments


def test_without_the_extra() -> None:
    script = """
import sys
import warnings
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rich_click", "click", "rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from braze_export.cli import main
main(["--help"])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr == 'The command line needs: pip install "braze-export[cli]"\n'


def test_without_the_extra_in_this_process(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "braze_export.cli.app")
    monkeypatch.setitem(sys.modules, "rich_click", None)
    ran = run("--help")
    assert (ran.code, ran.err[:26]) == (2, "The command line needs: pi")


def test_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["braze-export", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(Path(cli.__file__).with_name("__main__.py")), run_name="__main__")
    assert __version__ in capsys.readouterr().out


def test_another_module_that_is_missing_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "braze_export.cli.app", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main([])


def test_an_interrupt_before_anything_began(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "main", interrupted)
    with pytest.raises(SystemExit, match="130"):
        cli.main([])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(13, "Permission denied", "x.ndjson"), 1, "Error: x.ndjson: Permission"),
        (OSError("odd"), 1, "Error: odd"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (click.Abort(), 130, "Interrupted."),
        (BrokenPipeError(), 141, ""),
        (click.ClickException("no luck"), 1, "Error: no luck"),
    ],
)
def test_the_code_of_an_error(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.exceptions.Exit) as ended, told(Screen()):  # type: ignore[attr-defined]
        raise error
    assert ended.value.exit_code == code
    assert capsys.readouterr().err.startswith(message)


def test_a_broken_stream_is_silenced() -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream:
        failures._silence(stream)
        assert os.read(read, 1) == b""  # the other end is closed
        stream.write("goes nowhere")
    os.close(read)


def test_a_broken_pipe_under_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Stream())  # which cannot be reconfigured, either
    with pytest.raises(BrokenPipeError):
        Screen().out.print("x")


def test_other_warnings_stay_what_they_are() -> None:
    with pytest.warns(UserWarning, match="other"), told(Screen()):
        warnings.warn("other", stacklevel=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Zoë 🦊", "plain Zoë 🦊"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("a\u2028b\n", r"a\u2028b\n"),
        ("\ud800", r"\ud800"),
    ],
)
def test_text_from_elsewhere_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert screens.printable(text) == shown


def test_long_paths_are_not_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screens, "is_live", lambda *, stderr: True)
    monkeypatch.setenv("COLUMNS", "20")
    Screen().say("It is in /a/very/long/path/that/does/not/fit now")
    assert capsys.readouterr().err.split("\n") == [
        "It is in",
        "/a/very/long/path/that/does/not/fit",
        "now",
        "",
    ]


def test_a_terminal_that_cannot_redraw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert not screens.is_live(stderr=True)


@pytest.mark.parametrize(
    "arguments", [pytest.param(("--help",), marks=pytest.mark.slow), ("segments", "list")]
)
def test_a_reader_that_goes_away(
    arguments: tuple[str, ...], braze: Any, spawn: Callable[..., Any]
) -> None:
    process = spawn(*arguments)
    process.stdout.close()
    assert process.wait(10) == 141
    assert process.stderr.read() == ""
