"""Redis servers on this machine, each in a process of its own that ends with the tests."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.storage.servers import GUARD

STARTS_WITHIN = 10.0


class RedisMissing(Exception):  # noqa: N818  the tests are skipped, nothing is wrong
    """The server is not installed; the message says how to install it."""


class RedisServer:
    """Listens on a socket in a folder and, if asked to, on a port; keeps nothing on disk."""

    def __init__(self, folder: Path, *options: str, port: bool = False) -> None:
        self.program = shutil.which("redis-server")
        if self.program is None:
            raise RedisMissing("redis-server is missing: install the system's package of Redis")
        self.socket = folder / "redis.sock"
        self.folder = folder
        self.options = [o.replace("{free}", str(_free_port())) for o in options]
        self.port = _free_port() if port else 0
        self.guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, empty, and return when it answers."""
        own = ["--port", str(self.port), "--unixsocket", str(self.socket)]
        quiet = ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        pid = ["--pidfile", str(self.folder / "pid"), "--logfile", str(self.folder / "log")]
        assert self.program is not None
        self.guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, self.program, *own, *quiet, *pid, *self.options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + STARTS_WITHIN
        while not self.answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.005)
        self.pid = int((self.folder / "pid").read_text())

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                return bool(client.recv(5))
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        if self.guard is not None:
            self.signal(signal.SIGKILL)
            self.guard.wait(5)
            assert self.guard.stdin is not None
            self.guard.stdin.close()
            self.guard = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
