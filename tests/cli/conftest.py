"""A local Braze in a thread of its own, and the command line: in this process, or in its own."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from braze_export.cli import main
from braze_export.sandbox import Sandbox

KEY = "the-secret-key-of-the-tests"


def lines_of(text: str) -> list[str]:
    """Split at line breaks alone: names hold other characters that ``splitlines`` splits at."""
    return text.removesuffix("\n").split("\n") if text else []


@attrs.frozen
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return lines_of(self.out)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Sandbox]:
    """Run a sandbox in a thread, for commands that block this one."""
    sandbox = Sandbox(api_key=KEY, **options)
    ready = threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with sandbox:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield sandbox
    finally:
        stop[0]()
        thread.join(10)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the machine's own settings; an empty directory to work in."""
    for name in ("BRAZE_API_KEY", "BRAZE_REST_ENDPOINT", "BRAZE_SANDBOX_API_KEY", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def braze(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A local Braze, to which the environment points."""
    with serving(users=1000, segments=120) as sandbox:
        point_to(sandbox, monkeypatch)
        yield sandbox


def point_to(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAZE_API_KEY", sandbox.api_key)
    monkeypatch.setenv("BRAZE_REST_ENDPOINT", sandbox.url)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in this process."""

    def run(*arguments: str, stdin: bytes | Path = b"") -> Ran:
        with from_file(stdin) if isinstance(stdin, Path) else typed(stdin) as stream:
            monkeypatch.setattr("sys.stdin", stream)
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        told = capsys.readouterr()
        for text in (told.out, told.err):
            assert KEY not in text
            assert "Traceback" not in text
        return Ran(int(ended.value.code or 0), told.out, told.err)

    return run


@contextlib.contextmanager
def typed(text: bytes) -> Iterator[Any]:
    """A standard input with a text in it, which must fit into a pipe."""
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    with os.fdopen(read) as stream:
        yield stream


@contextlib.contextmanager
def from_file(path: Path) -> Iterator[Any]:
    """A file as the standard input, by its number too: jobs read that."""
    real = os.dup(0)
    with path.open() as stream:
        os.dup2(stream.fileno(), 0)
        try:
            yield stream
        finally:
            os.dup2(real, 0)
            os.close(real)


@pytest.fixture
def spawn() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a command as a process; end what a failed test leaves."""
    started: list[subprocess.Popen[str]] = []

    def spawn(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        streams = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        command = [sys.executable, "-m", "braze_export.cli", *arguments]
        assert KEY not in " ".join(command)
        started.append(subprocess.Popen(command, text=True, **(streams | options)))
        return started[-1]

    yield spawn
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def ids_file(tmp_path: Path) -> Callable[..., str]:
    """Write a file of identifiers."""

    def write(content: bytes, name: str = "ids.txt") -> str:
        (tmp_path / name).write_bytes(content)
        return name

    return write
