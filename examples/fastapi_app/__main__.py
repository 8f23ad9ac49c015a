"""``python -m examples.fastapi_app``: the app on this machine, with a local Braze if need be."""

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

import uvicorn

from braze_export import BrazeClient, InputError
from braze_export.sandbox import Sandbox
from examples.fastapi_app.backend import make_app

_TRY = """\
Braze: {braze}
App:   {app} (see {app}/docs), until Ctrl-C. Try:

  curl -w '\\n' {app}/users/{user}
  curl {app}/users/lookup -H 'content-type: application/json' -d '["{user}", "nobody"]'
  export=$(curl -s -X POST {app}/segments/{segment}/export | sed 's/.*"id":"\\([^"]*\\).*/\\1/')
  until curl -s {app}/exports/$export | grep -v preparing; do sleep 1; done
  curl -s {app}/exports/$export/users | head -n 3
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; return the exit code."""
    port: int = _parser().parse_args(arguments).port
    is_local = not {"BRAZE_API_KEY", "BRAZE_REST_ENDPOINT"} & os.environ.keys()
    try:
        with _local_braze() if is_local else nullcontext(), _listener(port) as listener:
            return _serve(listener, is_local=is_local)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _serve(listener: socket.socket, *, is_local: bool) -> int:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    braze = BrazeClient.from_env()  # opens nothing: the app makes its own
    app = make_app(public_url=url if is_local else os.environ.get("PUBLIC_URL"))
    user, segment = ("u1", Sandbox().segment_id(1)) if is_local else ("USER_ID", "SEGMENT_ID")
    where = f"a local one, with users u1 to u{Sandbox().users}" if is_local else braze.base_url
    print(_TRY.format(braze=where, app=url, user=user, segment=segment), flush=True)
    # No access log: it would show ids. Streams that nobody ends are cut off after a while.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0 if server.started else 1


@contextmanager
def _local_braze() -> Iterator[None]:
    """Run a local Braze in a process of its own, which ends when its standard input does."""
    command = [sys.executable, "-m", "braze_export.sandbox", "--until-stdin-closes"]
    with subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
        [*command, "--export-seconds", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us; it ends after us
    ) as process:
        told = json.loads(process.stdout.readline() if process.stdout else b"")
        os.environ |= {"BRAZE_API_KEY": told["api_key"], "BRAZE_REST_ENDPOINT": told["url"]}
        yield


def _listener(port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise InputError(f"--port must be from 0 to 65535, not {port}")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InputError(f"cannot listen on port {port} ({error}): give --port another") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.fastapi_app",
        description="A small backend on Braze: a local one, unless BRAZE_API_KEY and "
        "BRAZE_REST_ENDPOINT are set. PUBLIC_URL is where your Braze reaches this app, if it does.",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="0 for any free one (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
