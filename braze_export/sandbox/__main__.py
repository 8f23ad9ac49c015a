"""``python -m braze_export.sandbox``: the local Braze as a process of its own.

Writes one line of JSON, ``{"url": ..., "api_key": ...}``, once it listens, then nothing more.
The key comes from the environment or is random; it is never an argument, which any process
could read.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from braze_export.sandbox.server import Sandbox
from braze_export.sandbox.settings import PROFILES, default
from braze_export.sandbox.windows import Window

API_KEY = "BRAZE_SANDBOX_API_KEY"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sandbox until a signal, or the end of standard input, stops it."""
    parser = _parser()
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    until_stdin_closes = options.pop("until_stdin_closes", False)
    build = Sandbox.new_workspace if options.pop("new_workspace", False) else Sandbox
    if api_key := os.environ.get(API_KEY):
        options["api_key"] = api_key
    try:
        sandbox = build(**options)
    except ValueError as error:
        parser.error(str(error.args[0]))
    try:
        asyncio.run(_serve(sandbox, until_stdin_closes=until_stdin_closes))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _serve(sandbox: Sandbox, *, until_stdin_closes: bool) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def stop_soon(*_: object) -> None:
        # A second signal may come when the loop is closed already.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop.set)

    # Plain signal handlers, because those of the loop do not exist on every system.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_soon)
    async with sandbox:
        sys.stdout.write(json.dumps({"url": sandbox.url, "api_key": sandbox.api_key}) + "\n")
        sys.stdout.flush()
        if until_stdin_closes:
            watch = (sys.stdin.fileno(), stop_soon)
            threading.Thread(target=_wait_for_end, args=watch, daemon=True).start()
        await stop.wait()


def _wait_for_end(descriptor: int, stop_soon: Any) -> None:
    # Not by sys.stdin: its lock, held here, would break the end of the interpreter.
    while os.read(descriptor, 4096):
        pass
    stop_soon()


def _parser() -> argparse.ArgumentParser:
    # Options that are not given are left out, so that defaults stand in one place.
    parser = argparse.ArgumentParser(
        prog="python -m braze_export.sandbox",
        description=f"A local Braze. Its API key is random unless ${API_KEY} is set.",
        argument_default=argparse.SUPPRESS,
    )
    numbers = {
        "users": (int, "how many users: u1 to uN"),
        "segments": (int, "how many segments"),
        "seed": (int, "the same seed makes the same users"),
        "latency": (float, "seconds before each answer"),
        "port": (int, "0: any free port"),
        "export_seconds": (float, "how long an export of a segment runs"),
        "export_members": (int, "files in an archive"),
        "link_seconds": (float, "how long the link to an archive lives"),
    }
    for name, (kind, text) in numbers.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, help=f"{text} (default: {default(name)})")
    windows = {
        "ids-window": "limit of /users/export/ids",
        "fast-ids-window": "limit of those requests that name their fields",
        "default-window": "limit shared by all other endpoints",
    }
    for name, text in windows.items():
        parser.add_argument(
            f"--{name}", type=_window, metavar="REQUESTS/SECONDS", help=f"{text}, such as 2500/60"
        )
    parser.add_argument("--profile", choices=PROFILES, help="the size of the users")
    parser.add_argument("--host", help=f"a loopback address (default: {default('host')})")
    switches = {
        "gzip": "compress answers",
        "new-workspace": "the limits of a workspace from after 2024-08-22",
        "until-stdin-closes": "stop when standard input ends, as when the parent dies",
    }
    for name, text in switches.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def _window(text: str) -> Window:
    try:
        return Window.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
