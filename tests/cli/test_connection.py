import os
import pty
import select
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from braze_export import ExportSettings, InputError, Limits, RateLimit
from braze_export.cli import connection
from braze_export.sandbox import Fault, Sandbox
from tests.cli.conftest import KEY, serving


def test_the_key_of_a_file_wins(
    braze: Sandbox, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAZE_API_KEY", "another")
    file = tmp_path / "key"
    for content in (KEY, f"{KEY}\n", f"{KEY}\r\n", f"\ufeff{KEY}\n"):
        file.write_text(content, newline="")
        file.chmod(0o600)
        ran = run("segments", "details", braze.segment_id(1), "--api-key-file", "key")
        assert (ran.code, ran.err) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")
def test_a_key_that_others_can_read(braze: Sandbox, run: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o644)
    ran = run("segments", "details", braze.segment_id(1), "--api-key-file", "key")
    assert ran.code == 0
    assert ran.err == "Warning: key can be read by other users: chmod 600 it.\n"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 5000])
def test_a_file_that_holds_no_key(content: bytes, run: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(0o600)
    ran = run("segments", "list", "--endpoint", "US-01", "--api-key-file", "key")
    assert ran.code == 2
    assert "key holds no API key" in ran.err


def test_standard_input_is_no_key_file(run: Any) -> None:
    ran = run("segments", "list", "--endpoint", "US-01", "--api-key-file", "-", stdin=b"secret")
    assert ran.code == 2
    assert "does not exist" in ran.err


def test_no_key_anywhere(run: Any) -> None:
    ran = run("segments", "list", "--endpoint", "US-01")
    assert ran.code == 2
    for way in ("BRAZE_API_KEY", "--api-key-file", "terminal"):
        assert way in ran.err


def test_no_endpoint(run: Any) -> None:
    ran = run("segments", "list")
    assert ran.code == 2
    assert "set BRAZE_REST_ENDPOINT or give --endpoint" in ran.err


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("US-99", "no known Braze instance"),
        ("ftp://example.com", "the endpoint"),
        ("http://10.0.0.1", "--allow-insecure-http"),
    ],
)
def test_an_endpoint_that_cannot_be_right(
    endpoint: str, message: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    ran = run("segments", "list", "--endpoint", endpoint)
    assert ran.code == 2
    assert message in ran.err
    assert "base_url" not in ran.err
    assert ran.err.count("\n") == 1


def test_a_key_that_is_refused(braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAZE_API_KEY", "wrong")
    for arguments in (["segments", "list"], ["ids", "u1"]):
        ran = run(*arguments)
        assert ran.code == 3
        assert ran.err.startswith("Error: ")
        assert "401" in ran.err
        assert ran.err.count("\n") == 1


def test_a_permission_that_is_missing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    with serving(permissions=["segments.list"]) as sandbox:
        ran = run("ids", "u1", "--endpoint", sandbox.url)
    assert ran.code == 3
    assert "users.export.ids" in ran.err


def test_the_log_on_standard_error(braze: Sandbox, run: Any) -> None:
    braze.inject(Fault(status=500))
    ran = run("ids", "u1", "-vv")
    assert ran.code == 0
    assert "next try in" in ran.err
    braze.inject(Fault(status=500))
    assert "next try in" not in run("ids", "u1").err


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({}, Limits()),
        ({"new_workspace": True}, Limits.new_workspace()),
        ({"max_requests": 7}, Limits(ids=RateLimit(7, 60))),
        ({"max_requests": 7, "period": 2.5}, Limits(ids=RateLimit(7, 2.5))),
        ({"new_workspace": True, "max_requests": 7}, Limits(ids=RateLimit(7, 60))),
        ({"oldest_workspace": True}, Limits.oldest_workspace()),
        ({"oldest_workspace": True, "max_requests": 7}, Limits(ids=RateLimit(7, 60))),
        ({"reserve": 0.2}, Limits(reserve=0.2)),
        ({"reserve": 0.2, "new_workspace": True}, Limits.new_workspace(reserve=0.2)),
        ({"reserve": 0.2, "oldest_workspace": True}, Limits.oldest_workspace(reserve=0.2)),
        ({"reserve": 0.2, "max_requests": 7}, Limits(ids=RateLimit(7, 60), reserve=0.2)),
    ],
)
def test_limits(options: dict[str, Any], limits: Limits) -> None:
    none = {"new_workspace": False, "oldest_workspace": False, "max_requests": None, "period": None}
    assert connection._limits(**({"reserve": 0.0} | none | options)) == limits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--new-workspace", "--oldest-workspace"], "--new-workspace or --oldest-workspace, not"),
        (["--period", "5"], "--period needs --max-requests"),
        (["--reserve", "1"], "'--reserve': 1.0 is not in the range 0<=x<1"),
        (["--reserve", "-0.1"], "'--reserve': -0.1 is not in the range 0<=x<1"),
        (["--reserve", "20%"], "'--reserve': '20%' is not a valid float"),
        (["--reserve", "nan"], "reserve must be a share from 0 to below 1, not nan"),
    ],
)
def test_limits_that_cannot_be_right(options: list[str], message: str, run: Any) -> None:
    ran = run("ids", "u1", *options, "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_the_limits_reach_the_client(braze: Sandbox, run: Any, monkeypatch: Any) -> None:
    made: list[Limits | None] = []
    real = connection.Connection.client

    def client(self: Any, screen: Any, limits: Limits | None = None, **more: Any) -> Any:
        made.append(limits)
        return real(self, screen, limits, **more)

    monkeypatch.setattr(connection.Connection, "client", client)
    assert run("ids", "u1", "--oldest-workspace", "--reserve", "0.25").code == 0
    assert made == [Limits.oldest_workspace(reserve=0.25)]


def on_a_terminal(arguments: list[str], answer: bytes, until: bytes) -> tuple[int, bytes]:
    """Run a command on a pseudo-terminal and type an answer once it asks and shows nothing more.

    What is typed before is thrown away, for echo is switched off after the question is shown.
    """
    child, terminal = pty.fork()
    if not child:  # pragma: no cover - another process
        os.execv(sys.executable, [sys.executable, "-m", "braze_export.cli", *arguments])
    shown, deadline = b"", time.monotonic() + 20
    while time.monotonic() < deadline:
        if answer and until in shown and not termios.tcgetattr(terminal)[3] & termios.ECHO:
            os.write(terminal, answer)
            answer = b""
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            block = os.read(terminal, 4096)
        except OSError:  # it has ended
            break
        if not block:
            break
        shown += block
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def test_the_key_is_asked_for_and_not_shown(
    braze: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRAZE_API_KEY")
    arguments = ["segments", "details", braze.segment_id(1)]
    code, shown = on_a_terminal(arguments, f"{KEY}\n".encode(), b"Braze API key:")
    assert code == 0
    assert b"Lapsed 1" in shown
    assert KEY.encode() not in shown


def test_ctrl_c_instead_of_a_key(braze: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRAZE_API_KEY")
    code, shown = on_a_terminal(["segments", "list"], b"\x03", b"Braze API key:")
    assert code == 130
    assert b"Interrupted." in shown
    assert b"Traceback" not in shown


def test_the_prompt(braze: Sandbox, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process, to be measured."""
    monkeypatch.delenv("BRAZE_API_KEY")
    monkeypatch.setattr("braze_export.cli.connection.sys", Terminal())
    monkeypatch.setattr("rich_click.prompt", lambda *_, **__: KEY)
    assert run("segments", "list").code == 0


class Terminal:
    @property
    def stdin(self) -> "Terminal":
        return self

    stderr = stdin

    def isatty(self) -> bool:
        return True


async def test_without_a_key_nothing_goes_to_braze() -> None:
    own = connection.Connection(None, None, allow_insecure_http=False, verbosity=0)
    async with own.downloader(ExportSettings()) as braze:
        with pytest.raises(InputError, match="without the API key nothing is sent"):
            await braze.users.get("u1")
