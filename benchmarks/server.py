"""The local Braze in a process of its own, so that the client's processor time is its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import frozen


@frozen
class Server:
    """Where the local Braze listens."""

    url: str
    api_key: str


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    """Start the local Braze, practically without a limit unless the options set one."""
    command = [
        sys.executable,
        "-m",
        "braze_export.sandbox",
        "--until-stdin-closes",
        "--ids-window=100000000/3600",
        *options,
    ]
    with running(command) as server:
        yield server


@contextmanager
def running(command: list[str]) -> Iterator[Server]:
    """Start a server that says where it listens, and ends when its standard input does."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            yield Server(said["url"], said["api_key"])
        finally:
            process.stdin.close()
            process.wait(10)
