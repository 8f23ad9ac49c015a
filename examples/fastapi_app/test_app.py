"""The backend, tested as any app on the library can be: by the fixtures of its pytest plugin.

``braze_env`` is a local Braze of each test alone, which ``BrazeClient.from_env()`` finds.
"""

import asyncio
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from braze_export import ExportSettings
from braze_export.integrations.fastapi import within
from braze_export.sandbox import Fault, Sandbox
from braze_export.settings import Polling
from examples.fastapi_app.__main__ import main
from examples.fastapi_app.backend import make_app, make_client
from examples.fastapi_app.users import in_time

pytestmark = pytest.mark.braze_sandbox(users=2_000, profile="small")
ELSEWHERE = {"BRAZE_API_KEY": "k", "BRAZE_REST_ENDPOINT": "US-01"}


@asynccontextmanager
async def serving(polling: Polling | None = None, patience: float = 2.0) -> AsyncIterator[Any]:
    """The app under a real server, and a client of it. Nothing is left behind in the end."""
    before = asyncio.all_tasks()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        make = partial(make_client, ExportSettings(polling=polling or Polling()))
        app = make_app(make=make, public_url=url)
        app.dependency_overrides[in_time] = within(patience)
        server = await _server_of(app)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield client
        server.should_exit = True
        await task
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"left behind: {left}"


async def _server_of(app: FastAPI) -> uvicorn.Server:
    config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
    await asyncio.to_thread(config.load)  # it reads files
    return uvicorn.Server(config)


@pytest.fixture
async def http(braze_env: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with serving() as client:
        yield client


async def until(said: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not said():
            await asyncio.sleep(0.005)


def lines(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.split("\n")[:-1]]


# --- look-ups


async def test_a_user_is_looked_up(http: httpx.AsyncClient, braze_env: Sandbox) -> None:
    answer = await http.get("/users/u7")
    assert answer.status_code == 200
    assert answer.json()["external_id"] == "u7"
    assert answer.json()["email"] == braze_env.user(7).email
    assert braze_env.counters.requests == 1


async def test_an_unknown_user_is_not_found(http: httpx.AsyncClient) -> None:
    for id_ in ("nobody", "a/b", "%C3%A9%20%3F", "lookup"):
        answer = await http.get(f"/users/{id_}")
        assert (answer.status_code, answer.json()) == (404, {"detail": "Nobody has this id."})


async def test_many_users_are_streamed_and_unknown_ids_are_told(http: httpx.AsyncClient) -> None:
    ids = [f"u{n}" for n in range(1, 121)]
    found = lines(await http.post("/users/lookup", json=[*ids, "nobody"]))
    assert {"unknown_id": "nobody"} in found
    assert sorted(line.get("external_id", "nobody") for line in found) == sorted([*ids, "nobody"])


CLEAR = "An id has 1 to 997 bytes of valid UTF-8, not all blank"
MALFORMED: list[tuple[str, str, bytes, list[Any], str]] = [
    ("GET", "/users/", b"", ["path", "external_id"], CLEAR),
    ("GET", "/users/%20%09", b"", ["path", "external_id"], CLEAR),
    ("GET", "/users/" + "x" * 998, b"", ["path", "external_id"], CLEAR),
    ("POST", "/segments/%20/export", b"", ["path", "segment_id"], CLEAR),
    ("POST", "/users/lookup", b'["u1", " "]', ["body", 1], CLEAR),
    ("POST", "/users/lookup", b'[""]', ["body", 0], CLEAR),
    ("POST", "/users/lookup", rb'["Ada \ud800"]', ["body", 0], CLEAR),
    ("POST", "/users/lookup", b'["%b"]' % (b"\xc3\xa9" * 499), ["body", 0], CLEAR),
    ("POST", "/users/lookup", b"[1]", ["body", 0], "Input should be a valid string"),
    ("POST", "/users/lookup", rb'{"Ada \ud800": 1}', ["body"], "Input should be a valid list"),
    ("POST", "/users/lookup", b'["Ada"', ["body", 6], "JSON decode error"),
]  # fmt: skip


async def test_what_is_malformed_is_told_and_not_quoted(
    http: httpx.AsyncClient, braze_env: Sandbox
) -> None:
    for method, path, body, place, text in MALFORMED:
        headers = {"content-type": "application/json"}
        answer = await http.request(method, path, content=body, headers=headers)
        (problem,) = answer.json()["detail"]
        assert (answer.status_code, problem["loc"], problem["msg"]) == (422, place, text)
        assert "Ada" not in answer.text
    assert braze_env.counters.requests == 0


async def test_odd_ids_may_be_ids(http: httpx.AsyncClient) -> None:
    for id_ in ("x" * 997, "\u3000x", "😀"):
        assert lines(await http.post("/users/lookup", json=[id_])) == [{"unknown_id": id_}]


async def test_a_client_that_hangs_up_ends_the_requests(braze_env: Sandbox) -> None:
    ids = [f"nobody-{n}" for n in range(50_000)]
    async with serving() as http:
        assert (await http.get("/ready")).is_success
        idle = asyncio.all_tasks()
        async with http.stream("POST", "/users/lookup", json=ids) as answer:
            assert "unknown_id" in await anext(answer.aiter_lines())
        await until(lambda: asyncio.all_tasks() == idle)
        assert 0 < braze_env.counters.requests < 1_000


# --- when Braze fails


async def test_a_limit_that_is_used_up(http: httpx.AsyncClient, braze_env: Sandbox) -> None:
    braze_env.use_up(2_500)
    answer = await http.get("/users/u1")
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "rate limit" in answer.json()["detail"]


async def test_braze_is_gone(http: httpx.AsyncClient, braze_env: Sandbox) -> None:
    await braze_env.aclose()
    answer = await http.get("/users/u1")
    assert (answer.status_code, answer.json()) == (502, {"detail": "Braze could not be reached."})


async def test_braze_is_too_slow(braze_env: Sandbox) -> None:
    braze_env.inject(Fault(delay=20))
    async with serving(patience=0.1) as http:
        answer = await http.get("/users/u1")
    assert answer.status_code == 504
    assert "in time" in answer.json()["detail"]


async def test_a_stream_that_cannot_begin_is_an_error(
    http: httpx.AsyncClient, braze_env: Sandbox
) -> None:
    braze_env.inject(Fault(status=401))
    assert (await http.post("/users/lookup", json=["u1"])).status_code == 502


# --- exports


@pytest.mark.braze_sandbox(export_seconds=0.2)
async def test_an_export_is_ready_by_callback_and_can_be_read_again(braze_env: Sandbox) -> None:
    segment = braze_env.segment_id(1)
    members = sorted(braze_env.segment_external_ids(1))
    async with serving(Polling(base=600, cap=600)) as http:  # nobody looks in between
        begun = await http.post(f"/segments/{segment}/export")
        place = begun.headers["location"]
        early = await http.get(f"{place}/users")
        again = await http.post(f"/segments/{segment}/export")
        while (export := (await http.get(place)).json())["state"] == "preparing":
            await asyncio.sleep(0.02)
        read = [lines(await http.get(f"{place}/users")) for _ in range(2)]
    assert begun.status_code == 202
    assert begun.json() == {**export, "state": "preparing"}
    assert export == {"id": export["id"], "segment_id": segment, "state": "ready"}
    assert (early.status_code, again.status_code) == (409, 409)
    assert [sorted(user["external_id"] for user in users) for users in read] == [members] * 2


@pytest.mark.braze_sandbox(export_seconds=3600)
async def test_an_export_of_which_nothing_comes_has_failed(braze_env: Sandbox) -> None:
    async with serving(Polling(base=0.01, lifetime=0.02)) as http:
        place = (await http.post(f"/segments/{braze_env.segment_id(1)}/export")).headers["location"]
        while (await http.get(place)).json()["state"] == "preparing":
            await asyncio.sleep(0.005)
        answer = await http.get(f"{place}/users")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "The export is not ready: failed.",
    )


@pytest.mark.braze_sandbox(export_seconds=3600)
async def test_an_export_that_is_still_waited_for_does_not_hold_up_the_end(
    http: httpx.AsyncClient, braze_env: Sandbox
) -> None:
    place = (await http.post(f"/segments/{braze_env.segment_id(1)}/export")).headers["location"]
    assert (await http.get(place)).json()["state"] == "preparing"  # ``serving`` sees to the rest


async def test_what_is_unknown_is_not_found(http: httpx.AsyncClient) -> None:
    asked = {"/exports/x": "GET", "/exports/x/users": "GET", "/segments/x/export": "POST"}
    for path, method in asked.items():
        answer = await http.request(method, path)
        assert answer.status_code == 404
        assert "no such" in answer.json()["detail"]


# --- operation


async def test_readiness_tells_of_the_limits(http: httpx.AsyncClient) -> None:
    await http.get("/users/u1")
    ready = (await http.get("/ready")).json()
    assert ready["ready"] is True
    assert ready["pools"]["ids"]["sent"] == 1


def test_what_openapi_shows() -> None:
    schema = make_app(public_url="https://app.example.com").openapi()
    paths = schema["paths"]
    assert list(paths) == [
        "/users/{external_id}", "/users/lookup", "/segments/{segment_id}/export",
        "/exports/{export_id}", "/exports/{export_id}/users", "/ready",
    ]  # fmt: skip
    one = paths["/users/{external_id}"]["get"]
    assert set(one["responses"]) == {"200", "404", "422", "502", "503", "504"}
    model = one["responses"]["200"]["content"]["application/json"]["schema"]
    assert model == {"$ref": "#/components/schemas/UserProfile"}
    assert "custom_attributes" in schema["components"]["schemas"]["UserProfile"]["properties"]
    for path in ("/users/lookup", "/exports/{export_id}/users"):
        (operation,) = paths[path].values()
        assert list(operation["responses"]["200"]["content"]) == ["application/x-ndjson"]
    operations = [operation for path in paths.values() for operation in path.values()]
    assert all(operation["summary"] and operation["tags"] for operation in operations)


@pytest.mark.parametrize("missing", sorted(ELSEWHERE))
def test_one_setting_without_the_other_is_told(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(missing)
    assert main(["--port", "0"]) == 2
    with pytest.raises(SystemExit, match=f"{missing} is not set"):
        importlib.import_module("examples.fastapi_app.app")
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert f"variable {missing} is not set" in said.err


def test_a_port_that_cannot_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert [main(["--port", text]) for text in ("-1", "70000", str(port))] == [2, 2, 2]
    *out_of_range, of_another = capsys.readouterr().err.splitlines()
    assert out_of_range == [f"--port must be from 0 to 65535, not {n}" for n in (-1, 70000)]
    assert of_another.startswith(f"cannot listen on port {port} (")


async def test_the_app_for_servers_is_made_of_the_environment(
    braze_env: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLIC_URL", "https://app.example.com")
    module = await asyncio.to_thread(importlib.import_module, "examples.fastapi_app.app")
    monkeypatch.delitem(sys.modules, "examples.fastapi_app.app")
    async with module.app.router.lifespan_context(module.app) as state:
        assert (await state["braze_export"].users.get("u1", fields=["email"])) is not None


@pytest.mark.skipif(not shutil.which("curl"), reason="what is printed to try needs curl")
def test_the_command_shows_what_to_try_and_ends_with_ctrl_c() -> None:
    environment = {name: text for name, text in os.environ.items() if name not in ELSEWHERE}
    command = [sys.executable, "-m", "examples.fastapi_app", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = [process.stdout.readline() for _ in range(8)]
        tries = "set -e\n" + "".join(said[3:])
        tried = subprocess.run(["bash", "-c", tries], check=True, capture_output=True, text=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() + process.stdout.read() == "\n"
    user, *rest = map(json.loads, tried.stdout.rstrip().split("\n"))
    assert user["external_id"] == "u1"
    assert {"unknown_id": "nobody"} in rest[:2]
    assert [line.get("state") for line in rest].count("ready") == 1
    assert len(rest) == 6
    assert all("external_id" in line for line in rest[3:])
