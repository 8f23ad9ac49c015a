"""The pytest plugin: a local Braze, and a client of it, for the tests of those who use this.

It is there wherever the package is installed; ``pytest --fixtures`` shows the fixtures. Loading it
loads the package itself, some 0.3 s, and nothing more until a test wants one of them; where none
does, ``-p no:braze_export`` leaves it out.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from braze_export.client import BrazeClient
    from braze_export.sandbox import Sandbox

_MARKER: Final = (
    "braze_sandbox(**options): the options of the braze_sandbox of this test, such as users=500; "
    "those of braze_export.sandbox.Sandbox."
)
_OF_PYTEST_ASYNCIO: Final = "braze_export.integrations.pytest_asyncio"
_SYNC: Final = (
    "braze_client is for async tests, and this one is not: use braze_sandbox (its url and api_key) "
    "or braze_env (for BrazeClient.from_env()), and make the client where your code runs its loop"
)
_NOBODY: Final = (
    "braze_client needs a plugin that runs this test in an event loop: pytest-asyncio (its auto "
    "mode, or @pytest.mark.asyncio) or anyio's (@pytest.mark.anyio)"
)
_BOTH: Final = (  # the fixtures would be run by one, the test by the other
    "braze_client cannot tell in which event loop this test runs, as pytest-asyncio and anyio's "
    "plugin both take it: leave out @pytest.mark.anyio, or pytest-asyncio's auto mode"
)
_NOT_ASYNCIO: Final = (
    "braze_client runs on asyncio, not on {name}: have anyio's plugin use asyncio alone, by a "
    'fixture anyio_backend that returns "asyncio", or use braze_sandbox with a client of your own'
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixtures that need pytest-asyncio where it is."""
    config.addinivalue_line("markers", _MARKER)
    if any(map(config.pluginmanager.has_plugin, ("asyncio", "pytest_asyncio.plugin"))):
        config.pluginmanager.import_plugin(_OF_PYTEST_ASYNCIO)


@pytest.fixture
def braze_sandbox(request: pytest.FixtureRequest) -> "Iterator[Sandbox]":
    """A local Braze of this test alone: a running ``braze_export.sandbox.Sandbox``.

    It is for tests of every kind, sync and async, and listens on this machine only::

        def test_a_page(braze_sandbox):
            app = make_app(url=braze_sandbox.url, key=braze_sandbox.api_key)
            braze_sandbox.inject(Fault(status=503))  # the next request fails
            ...
            assert braze_sandbox.counters.requests == 2

    Its users are ``u1`` to ``u10000``; ``@pytest.mark.braze_sandbox(users=500, seed=7)`` sets
    options, on a test, a class or a module, of which the closest counts, option by option.

    It runs in a thread, and may be used from the test's: ``inject``, ``use_up``,
    ``change_limit``, ``counters``, ``log`` and the rest; ``await braze_sandbox.aclose()`` is
    Braze gone. Your own ``clock``, ``faults`` and ``storage`` are called in its thread.
    """
    from braze_export.errors import InputError  # noqa: PLC0415 - see above
    from braze_export.integrations.pytest_sandbox import merged, running  # noqa: PLC0415

    markers = [(m.args, m.kwargs) for m in request.node.iter_markers("braze_sandbox")]
    with ExitStack() as stack:
        try:
            sandbox = stack.enter_context(running(merged(markers)))
        except InputError as error:
            problem = f"@pytest.mark.braze_sandbox: {error}"
            raise pytest.fail.Exception(problem, pytrace=False) from None
        yield sandbox


@pytest.fixture
def braze_env(braze_sandbox: "Sandbox", monkeypatch: pytest.MonkeyPatch) -> "Sandbox":
    """The same ``braze_sandbox``, found by ``BrazeClient.from_env()`` while the test runs.

    ``BRAZE_API_KEY`` and ``BRAZE_REST_ENDPOINT`` are set to it, and set back at the end::

        def test_a_page(braze_env):
            with TestClient(app) as http:  # its lifespan makes a client from the environment
                assert http.get("/users/u1").status_code == 200
    """
    monkeypatch.setenv("BRAZE_API_KEY", braze_sandbox.api_key)
    monkeypatch.setenv("BRAZE_REST_ENDPOINT", braze_sandbox.url)
    return braze_sandbox


@pytest.fixture
def braze_client(request: pytest.FixtureRequest) -> "BrazeClient":
    """An open ``BrazeClient`` of this test's ``braze_sandbox``, closed at the end.

    For async tests, in the loop in which they run, by pytest-asyncio (auto and strict mode, every
    ``loop_scope``) or anyio's plugin (on asyncio)::

        async def test_a_look_up(braze_client):
            user = await braze_client.users.get("u1", fields=["email"])
    """
    client: BrazeClient = request.getfixturevalue(_fixture_for(request))
    return client


@pytest.fixture
async def _braze_client_of_anyio(braze_sandbox: "Sandbox") -> "AsyncIterator[BrazeClient]":
    # Its plugin runs this in the loop of the test, for which it is requested only there.
    from braze_export.client import BrazeClient  # noqa: PLC0415 - see above

    async with BrazeClient(braze_sandbox.api_key, braze_sandbox.url) as braze:
        yield braze


def _fixture_for(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture whose client lives in the loop of this test."""
    of_asyncio: Any = request.config.pluginmanager.get_plugin(_OF_PYTEST_ASYNCIO)
    is_asyncios = of_asyncio is not None and of_asyncio.claims(request.node)
    is_anyios = "anyio_backend" in request.fixturenames
    if is_asyncios and is_anyios:
        pytest.fail(_BOTH, pytrace=False)
    if is_asyncios:
        return str(of_asyncio.fixture_for(request.node))
    if not is_anyios:
        is_async = iscoroutinefunction(getattr(request.node, "obj", None))
        pytest.fail(_NOBODY if is_async else _SYNC, pytrace=False)
    backend = request.getfixturevalue("anyio_backend")
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        pytest.fail(_NOT_ASYNCIO.format(name=name), pytrace=False)
    return "_braze_client_of_anyio"
