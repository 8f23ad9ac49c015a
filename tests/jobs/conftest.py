"""A Braze, a client of it and a directory: what jobs are tried on."""

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from braze_export import AiohttpTransport, BrazeClient, RetryPolicy
from braze_export.jobs import JobReport, export_ids
from braze_export.jobs.reading import repeats
from braze_export.jobs.reading.compression import open_decompressed
from braze_export.jobs.verdicts import Judge
from braze_export.sandbox import Sandbox, Window
from braze_export.wire import Download, Request, Response, Streamed

T = TypeVar("T")

QUICK = RetryPolicy(max_attempts=2, max_refusals=4, base=0.0005, cap=0.001)
_MANY = Window(1_000_000, 60.0)
ANSWERED = {"content-type": "application/json"}

#: What a request is answered with instead of Braze's answer: by the identifiers that it names.
Spoil = Callable[[list[str]], Response | None]


def failing(status: int = 500) -> Response:
    return Response(status, ANSWERED, b'{"message":"no"}')


@attrs.define
class Wire:
    """A transport that notes who was asked for, and may answer in Braze's place."""

    spoil: Spoil = lambda _: None
    sent: list[list[str]] = attrs.Factory(list)
    answered: list[list[str]] = attrs.Factory(list)
    on_send: Callable[[int], object] = lambda _: None
    on_answer: Callable[[Response], object] = lambda _: None
    _wire: AiohttpTransport = attrs.Factory(AiohttpTransport)

    async def send(self, request: Request) -> Response:
        names = names_in(json.loads(request.body or b"{}"))
        self.sent.append(names)
        self.on_send(len(self.sent))
        response = self.spoil(names)
        if response is None:
            response = await self._wire.send(request)
        if response.status == 200:
            self.answered.append(names)
            self.on_answer(response)
        return response

    def stream(self, download: Download) -> AbstractAsyncContextManager[Streamed]:
        return self._wire.stream(download)

    async def aclose(self) -> None:
        await self._wire.aclose()

    @property
    def asked(self) -> Counter[str]:
        return Counter(name for names in self.sent for name in names)


def names_in(body: dict[str, Any]) -> list[str]:
    aliases = [alias["alias_name"] for alias in body.get("user_aliases", [])]
    single = [
        body[key] for key in ("braze_id", "device_id", "email_address", "phone") if key in body
    ]
    return [*body.get("external_ids", []), *aliases, *single]


@attrs.define
class World:
    """Where jobs run. Its loop runs when told, so that files may be looked at in between."""

    folder: Path
    runner: asyncio.Runner
    sandbox: Sandbox
    wire: Wire
    braze: BrazeClient

    @property
    def output(self) -> Path:
        return self.folder / "out.ndjson"

    @property
    def input(self) -> Path:
        return self.folder / "ids.txt"

    @property
    def job_folder(self) -> Path:
        return self.folder / "out.ndjson.job"

    def give(self, *identifiers: str) -> Path:
        self.input.write_bytes("".join(f"{name}\n" for name in identifiers).encode())
        return self.input

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def export(self, **options: Any) -> JobReport:
        return self.run(self.job(**options))

    async def job(self, **options: Any) -> JobReport:
        given: dict[str, Any] = {
            "source": self.input,
            "output": self.output,
            "fields": ["external_id"],
        } | options
        return await export_ids(self.braze, given.pop("source"), given.pop("output"), **given)

    def profiles(self, output: Path | None = None) -> list[bytes]:
        with open_decompressed(output or self.output) as file:
            return file.read().splitlines()

    def found(self, output: Path | None = None) -> list[str]:
        return [json.loads(line)["external_id"] for line in self.profiles(output)]

    @property
    def unknown(self) -> list[str]:
        return (self.folder / "out.unknown.txt").read_text().splitlines()

    @property
    def failed(self) -> list[str]:
        return [row["identifier"] for row in self.failures]

    @property
    def failures(self) -> list[dict[str, str]]:
        lines = (self.folder / "out.failed.ndjson").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(Judge, "pause", lambda self, now: 0.001 if self.failing else 0.0)
    monkeypatch.setattr(repeats, "_PARTS", 16)  # to look at 1,024 takes longer than these jobs
    with asyncio.Runner() as runner:
        world: World = runner.run(_world(tmp_path, runner))
        yield world
        runner.run(world.braze.aclose())
        runner.run(world.sandbox.aclose())


async def _world(folder: Path, runner: asyncio.Runner) -> World:
    sandbox = Sandbox(users=3_000, profile="small", ids_window=_MANY, log_size=0)
    await sandbox.start()
    wire = Wire()
    braze = BrazeClient(sandbox.api_key, sandbox.url, retry=QUICK, transport=wire)
    return World(folder, runner, sandbox, wire, braze)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 64 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount_read_only(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
