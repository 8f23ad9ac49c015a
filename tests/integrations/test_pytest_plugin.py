"""The pytest plugin: test sessions of users, in every mode, and the sandbox that they get."""

import asyncio
import json
import os
import re
import socket
import threading
import urllib.request
import warnings
from collections.abc import Callable, Coroutine, Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import aiohttp
import anyio.pytest_plugin
import pytest
import pytest_asyncio.plugin

from braze_export.errors import InputError
from braze_export.integrations.pytest_sandbox import merged, running
from braze_export.sandbox import Fault, Sandbox, Window

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would rather have another library
    # Loaded here, as C code can be loaded once only, and the sessions below begin without modules.
    import fastapi.testclient  # noqa: F401

pytest_plugins = ["pytester"]

Session = Callable[..., pytest.RunResult]
PLUGIN = ("-p", "braze_export.integrations.pytest")
ASYNCIO, ANYIO = pytest_asyncio.plugin, anyio.pytest_plugin
#: Of every session: warnings are errors, and tests leave neither threads nor clients behind.
CONFTEST = '''
import asyncio, threading
import pytest
from braze_export import BrazeClient

@pytest.fixture(autouse=True)
def threads():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before

@pytest.fixture(autouse=True)
def loops(threads, monkeypatch):
    """A test puts its loop here; then a client is closed, once, in that loop."""
    ran, closed, aclose = [], [], BrazeClient.aclose

    async def recorded(self):
        closed.append(asyncio.get_running_loop())
        await aclose(self)

    monkeypatch.setattr(BrazeClient, "aclose", recorded)
    yield ran
    assert closed == ran
'''


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Session:
    """Run a session of tests in this process, with these plugins of pytest only."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("PYTEST_ADDOPTS", "BRAZE_API_KEY", "BRAZE_REST_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers -rA")

    def run(source: str, *options: str, plugins: tuple[Any, ...] = ()) -> pytest.RunResult:
        pytester.makepyfile(source)
        loops = ("-o", "asyncio_default_fixture_loop_scope=function") if ASYNCIO in plugins else ()
        return pytester.runpytest_inprocess(*PLUGIN, *loops, *options, plugins=list(plugins))

    return run


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Return the outcome of each test by its name."""
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S+?::(\S+)", result.stdout.str(), re.MULTILINE)
    return {name: outcome.lower() for outcome, name in found}


# --- tests that know no event loop

SYNC = """
import asyncio, json, os, urllib.request
from contextlib import asynccontextmanager
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from braze_export import BrazeClient
from braze_export.sandbox import Fault, Window

pytestmark = pytest.mark.braze_sandbox(users=3, latency=0.001)
names = {"BRAZE_API_KEY", "BRAZE_REST_ENDPOINT"}
keys = set()

def ask(sandbox, *ids):
    body = json.dumps({"external_ids": ids, "fields_to_export": ["external_id"]}).encode()
    headers = {"authorization": f"Bearer {sandbox.api_key}", "content-type": "application/json"}
    request = urllib.request.Request(sandbox.url + "/users/export/ids", body, headers)
    with urllib.request.urlopen(request) as answer:
        return {user["external_id"] for user in json.load(answer)["users"]}

@pytest.mark.parametrize("turn", [1, 2])
def test_fresh(braze_sandbox, turn):
    keys.add(braze_sandbox.api_key)
    assert len(keys) == turn
    assert braze_sandbox.counters.requests == 0
    assert ask(braze_sandbox, "u1") == {"u1"}
    assert braze_sandbox.counters.requests == len(braze_sandbox.log) == 1

def test_module_marker(braze_sandbox):
    assert ask(braze_sandbox, "u3", "u4") == {"u3"}
    assert (braze_sandbox.users, braze_sandbox.latency) == (3, 0.001)

@pytest.mark.braze_sandbox(users=5)
class TestMarkers:
    def test_class_marker(self, braze_sandbox):
        assert (braze_sandbox.users, braze_sandbox.latency) == (5, 0.001)

    @pytest.mark.braze_sandbox(users=7, ids_window=Window(1, 86400), clock=lambda: 1.0)
    def test_closest_marker(self, braze_sandbox):
        assert ask(braze_sandbox, "u7") == {"u7"}
        with pytest.raises(OSError, match="429"):
            ask(braze_sandbox, "u7")

def test_fault(braze_sandbox):
    braze_sandbox.inject(Fault(status=503))
    with pytest.raises(OSError, match="503"):
        ask(braze_sandbox, "u1")
    assert ask(braze_sandbox, "u1") == {"u1"}

def test_no_env(braze_sandbox):
    assert not names & os.environ.keys()

def test_env(braze_env, braze_sandbox):
    assert braze_env is braze_sandbox
    assert os.environ["BRAZE_API_KEY"] == braze_sandbox.api_key
    assert os.environ["BRAZE_REST_ENDPOINT"] == braze_sandbox.url

def test_no_env_afterwards():
    assert not names & os.environ.keys()

@asynccontextmanager
async def lifespan(app):
    async with BrazeClient.from_env() as app.state.braze:
        yield

def test_fastapi(braze_env, loops):
    app = FastAPI(lifespan=lifespan)

    @app.get("/users/{name}")
    async def user(name: str, request: Request):
        loops[:] = [asyncio.get_running_loop()]
        found = await request.app.state.braze.users.get(name, fields=["external_id"])
        return {"id": found and found.external_id}

    with TestClient(app) as http:
        assert http.get("/users/u1").json() == {"id": "u1"}
        assert http.get("/users/u4").json() == {"id": None}
    assert braze_env.counters.identifiers == 2

def test_sync_client(braze_client):
    raise AssertionError
"""


def test_plain_tests_use_the_sandbox_and_the_environment(session: Session) -> None:
    result = session(SYNC)
    assert outcomes(result) == {
        "test_fresh[1]": "passed",
        "test_fresh[2]": "passed",
        "test_module_marker": "passed",
        "TestMarkers::test_class_marker": "passed",
        "TestMarkers::test_closest_marker": "passed",
        "test_fault": "passed",
        "test_no_env": "passed",
        "test_env": "passed",
        "test_no_env_afterwards": "passed",
        "test_fastapi": "passed",
        "test_sync_client": "error",
    }
    result.stdout.fnmatch_lines(["braze_client is for async tests, *: use braze_sandbox *"])


# --- async tests

ASYNC = """
import asyncio
import pytest
from braze_export import AuthenticationError
from braze_export.sandbox import Fault

MARK

async def test_look_up(braze_client, braze_sandbox, loops):
    loops.append(asyncio.get_running_loop())
    user = await braze_client.users.get("u1", fields=["external_id"])
    assert user.external_id == "u1"
    assert braze_sandbox.counters.requests == 1
    assert braze_client.base_url == braze_sandbox.url

@pytest.mark.braze_sandbox(users=3)
async def test_marker(braze_client, loops):
    loops.append(asyncio.get_running_loop())
    assert await braze_client.users.get("u4", fields=["external_id"]) is None

async def test_fault(braze_sandbox, braze_client, loops):
    loops.append(asyncio.get_running_loop())
    braze_sandbox.inject(Fault(status=401))
    with pytest.raises(AuthenticationError):
        await braze_client.users.get("u1", fields=["email"])
    assert await braze_client.users.get("u1", fields=["external_id"])

async def test_left_in_the_middle(braze_client, braze_sandbox, loops):
    loops.append(asyncio.get_running_loop())
    braze_sandbox.inject(Fault(delay=60))
    task = asyncio.create_task(braze_client.users.get("u1", fields=["email"]))
    while not braze_sandbox.open_connections:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
"""
NAMES = ("test_look_up", "test_marker", "test_fault", "test_left_in_the_middle")
MODES = {
    "auto": ((ASYNCIO,), "", ["-o", "asyncio_mode=auto"], ""),
    "strict": ((ASYNCIO,), "pytestmark = pytest.mark.asyncio", [], ""),
    "anyio": ((ANYIO,), "pytestmark = pytest.mark.anyio", [], "[asyncio]"),
    "anyio auto": ((ANYIO,), "", ["-o", "anyio_mode=auto"], "[asyncio]"),
    "strict of two": ((ASYNCIO, ANYIO), "pytestmark = pytest.mark.asyncio", [], ""),
    "anyio of two": ((ASYNCIO, ANYIO), "pytestmark = pytest.mark.anyio", [], "[asyncio]"),
    "auto of two": ((ASYNCIO, ANYIO), "", ["-o", "asyncio_mode=auto"], ""),
    "session loop": (
        (ASYNCIO,),
        "",
        ["-o", "asyncio_mode=auto", "-o", "asyncio_default_test_loop_scope=session"],
        "",
    ),
    "module loop": ((ASYNCIO,), 'pytestmark = pytest.mark.asyncio(loop_scope="module")', [], ""),
}


@pytest.mark.parametrize(("plugins", "mark", "options", "suffix"), MODES.values(), ids=MODES)
def test_a_client_lives_in_the_loop_of_its_test(
    session: Session, plugins: tuple[Any, ...], mark: str, options: list[str], suffix: str
) -> None:
    result = session(ASYNC.replace("MARK", mark), *options, plugins=plugins)
    assert outcomes(result) == {name + suffix: "passed" for name in NAMES}


#: Plugins, options, the words before the test, what the error says.
NO_LOOP: dict[str, tuple[tuple[Any, ...], list[str], str, str]] = {
    "no plugin": ((), [], "", "needs a plugin that runs this test"),
    "no mark": ((ASYNCIO,), [], "", "needs a plugin that runs this test"),
    "no mark of anyio": ((ANYIO,), [], "", "needs a plugin that runs this test"),
    "trio": (
        (ANYIO,),
        [],
        '@pytest.mark.anyio\n@pytest.mark.parametrize("anyio_backend", ["trio"])',
        "runs on asyncio, not on trio",
    ),
    "trio with options": (
        (ANYIO,),
        [],
        '@pytest.mark.anyio\n@pytest.mark.parametrize("anyio_backend", [("trio", {})])',
        "runs on asyncio, not on trio",
    ),
    "two that take it": (
        (ASYNCIO, ANYIO),
        ["-o", "asyncio_mode=auto"],
        "@pytest.mark.anyio",
        "pytest-asyncio and anyio's plugin both take it",
    ),
}


@pytest.mark.parametrize(("plugins", "options", "mark", "message"), NO_LOOP.values(), ids=NO_LOOP)
def test_without_a_loop_of_asyncio_there_is_no_client(
    session: Session, plugins: tuple[Any, ...], options: list[str], mark: str, message: str
) -> None:
    source = f"import pytest\n{mark}\nasync def test_it(braze_client): raise AssertionError"
    result = session(source, *options, plugins=plugins)
    assert set(outcomes(result).values()) == {"error"}
    result.stdout.fnmatch_lines([f"braze_client *{message}*"])
    result.stdout.no_fnmatch_line("*Traceback*")


# --- what the plugin says of itself


def test_the_fixtures_and_the_marker_tell_what_they_are(session: Session) -> None:
    shown = session("", "--fixtures").stdout
    shown.fnmatch_lines(
        [
            "braze_sandbox*",
            "    A local Braze of this test alone*",
            "braze_env*",
            "    The same ``braze_sandbox``*",
            "braze_client*",
            "    An open ``BrazeClient``*",
        ]
    )
    shown.no_fnmatch_line("_braze_client*")
    session("", "--markers").stdout.fnmatch_lines(["@pytest.mark.braze_sandbox(**options): *"])


def test_it_is_there_once_the_package_is_installed_also_side_by_side(
    pytester: pytest.Pytester, session: Session
) -> None:
    """In processes of their own: by the name of the entry point."""
    pytester.makepyfile(test_side=ASYNC.replace("MARK", ""))
    plugins = ("-p", "braze_export", "-p", "xdist", "-p", "pytest_asyncio.plugin")
    options = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
    result = pytester.runpytest_subprocess(*plugins, *options, "-n", "2", timeout=25)
    found = re.findall(r"^PASSED test_side.py::(\S+)", result.stdout.str(), re.MULTILINE)
    assert sorted(found) == sorted(NAMES)


# --- options

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"usres": 5}, "there is no option 'usres': there are users, segments, .*log_size"),
    ({"home": None}, "there is no option 'home'"),
    ({"users": -5}, "'users' must be >= 0: -5"),
    ({"users": "5"}, "users must be int, not str"),
    ({"users": None}, "users must be int, not NoneType"),
    ({"latency": "1"}, "latency must be int or float, not str"),
    ({"gzip": 1}, "gzip must be bool, not int"),
    ({"ids_window": "1/2"}, "ids_window must be Window, not str"),
    ({"fast_ids_window": (1, 2)}, "fast_ids_window must be Window or None, not tuple"),
    ({"clock": 1.0}, "clock must be Callable, not float"),
    ({"faults": []}, "faults must be Callable or None, not list"),
    ({"poisoned": 1}, "poisoned must be Iterable, not int"),
    ({"permissions": 1}, "permissions must be Collection or None, not int"),
    ({"profile": "huge"}, "'profile' must be in .*'small'"),
    ({"not_ready_status": 500}, r"must be in \(403, 404\)"),
    ({"empty_segments": [[]]}, "unhashable"),
    ({"api_key": ""}, "'api_key' must be >= 1"),
    ({"host": "0.0.0.0"}, "is not loopback; pass allow_remote=True"),
    ({"port": 65_536}, r"cannot listen on 127.0.0.1:65536 \(.*0-65535.*\): leave out host and"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    before = threading.active_count()
    with pytest.raises(InputError, match=message), running(options):
        pass
    assert threading.active_count() == before


def test_a_port_that_is_taken_is_refused() -> None:
    with running({}) as one:
        port = urlsplit(one.url).port
        with (
            pytest.raises(InputError, match=r"cannot listen .* leave out"),
            running({"port": port}),
        ):
            pass


def test_the_closest_marker_counts_option_by_option() -> None:
    markers = [((), {"users": 1}), ((), {"users": 2, "seed": 2}), ((), {"seed": 3, "segments": 3})]
    assert merged(markers) == {"users": 1, "seed": 2, "segments": 3}
    assert merged([]) == {}
    with pytest.raises(InputError, match="options have names"):
        merged([((500,), {})])


def test_wrong_options_of_a_marker_fail_its_test_in_one_line(session: Session) -> None:
    result = session(
        """
        import pytest
        @pytest.mark.braze_sandbox(usres=5)
        def test_name(braze_sandbox): raise AssertionError
        @pytest.mark.braze_sandbox(500)
        def test_unnamed(braze_sandbox): raise AssertionError
        """
    )
    assert outcomes(result) == {"test_name": "error", "test_unnamed": "error"}
    result.stdout.fnmatch_lines(
        ["@pytest.mark.braze_sandbox: there is no option 'usres': there are users, *"]
    )
    result.stdout.fnmatch_lines(["@pytest.mark.braze_sandbox: options have names, as in *"])
    result.stdout.no_fnmatch_line("*another exception*")


# --- the sandbox, used from another thread than its own


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running({"ids_window": Window(50, 86_400), "clock": lambda: 1.0}) as sandbox:
        yield sandbox


def ask(sandbox: Sandbox) -> int:
    """Send a request, and return the status of its answer."""
    key = {"authorization": f"Bearer {sandbox.api_key}"}
    request = urllib.request.Request(f"{sandbox.url}/segments/list", headers=key)
    try:
        with urllib.request.urlopen(request) as answer:
            status: int = answer.status
            return status
    except HTTPError as error:
        with error:
            return error.code


def finish(work: Coroutine[Any, Any, None]) -> None:
    """Run something async that needs no event loop, so that any may run it."""
    with pytest.raises(StopIteration):
        work.send(None)


async def test_it_may_be_used_up_while_requests_come(sandbox: Sandbox) -> None:
    headers = {"authorization": f"Bearer {sandbox.api_key}"}
    body = {"external_ids": ["u1"], "fields_to_export": ["external_id"]}
    statuses: list[int] = []

    async def look_up(http: aiohttp.ClientSession) -> None:
        async with http.post("/users/export/ids", json=body) as answer:
            statuses.append(answer.status)

    async with aiohttp.ClientSession(sandbox.url, headers=headers) as http:
        tasks = [asyncio.create_task(look_up(http)) for _ in range(40)]
        used = 0
        while len(statuses) < 40:
            used += sandbox.use_up(1)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
    used += sandbox.use_up(50)
    assert used + statuses.count(200) == 50
    assert sandbox.counters.requests == len(statuses)
    assert sandbox.counters.rate_limited == statuses.count(429)


def test_the_limit_may_be_changed(sandbox: Sandbox) -> None:
    sandbox.change_limit(Window(2, 86_400), "default")
    assert [ask(sandbox) for _ in range(3)] == [200, 200, 429]
    with pytest.raises(LookupError, match="no limit 'fast_ids': there are "):
        sandbox.change_limit(Window(2, 60), "fast_ids")
    with pytest.raises(LookupError, match="no limit 'fast_ids': there are "):
        sandbox.use_up(1, "fast_ids")


def test_faults_are_injected_and_come_in_order(sandbox: Sandbox) -> None:
    sandbox.inject(Fault(status=500), times=2, path="/segments/list", after=1)
    assert [ask(sandbox) for _ in range(4)] == [200, 500, 500, 200]
    with pytest.raises(ValueError, match="times must be at least 1"):
        sandbox.inject(Fault(), times=0)


def test_a_log_that_is_being_read_may_grow(sandbox: Sandbox) -> None:
    ask(sandbox)
    ask(sandbox)
    paths = []
    for record in sandbox.log:
        paths.append(record.path)
        ask(sandbox)
    assert paths == ["/segments/list"] * 2
    assert len(sandbox.log) == 4


def test_faults_of_ones_own_may_use_the_sandbox() -> None:
    made: list[Sandbox] = []

    def faults(number: int, path: str) -> Fault | None:
        made[0].use_up(249_998, "default")
        return Fault(headers={"x-number": str(number)})

    with running({"faults": faults, "clock": lambda: 1.0}) as sandbox:
        made.append(sandbox)
        assert [ask(sandbox), ask(sandbox)] == [200, 429]


def test_braze_may_go_and_come_back(sandbox: Sandbox) -> None:
    url = sandbox.url
    finish(sandbox.aclose())
    finish(sandbox.aclose())
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url
    with pytest.raises(URLError):
        urllib.request.urlopen(url)
    finish(sandbox.start())
    with pytest.raises(RuntimeError, match="running already"):
        sandbox.start().send(None)
    assert ask(sandbox) == 200


def test_archives_may_be_made_anew(sandbox: Sandbox) -> None:
    tags = []
    link = _export(sandbox)
    for _ in range(2):
        with urllib.request.urlopen(link) as answer:
            tags.append(answer.headers["etag"])
        sandbox.rewrite_exports()
    assert len(set(tags)) == 2


def _export(sandbox: Sandbox) -> str:
    body = (
        b'{"segment_id": "%b", "callback_endpoint": "http://127.0.0.1:9/", '
        b'"fields_to_export": ["email"]}' % sandbox.segment_id(1).encode()
    )
    headers = {"authorization": f"Bearer {sandbox.api_key}", "content-type": "application/json"}
    url = f"{sandbox.url}/users/export/segment"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        link: str = json.load(answer)["url"]
        return link


def test_nothing_is_left_of_many_sandboxes_whatever_they_were_doing() -> None:
    with running({}):
        pass  # what is loaded once
    before = threading.active_count(), len(os.listdir("/dev/fd"))
    for _ in range(10):
        with pytest.raises(ZeroDivisionError), running({}) as sandbox:
            address = urlsplit(sandbox.url)
            _export(sandbox)  # its archive is being made
            sandbox.inject(Fault(delay=60.0))
            connection = HTTPConnection(address.hostname or "", address.port)
            connection.request("GET", "/segments/list")  # it is being answered
            raise ZeroDivisionError
        connection.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.hostname or "", address.port or 0))
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == before


def test_two_are_strangers() -> None:
    with running({}) as one, running({}) as other:
        assert one.url != other.url
        assert one.api_key != other.api_key
        ask(one)
        assert (one.counters.requests, other.counters.requests) == (1, 0)
