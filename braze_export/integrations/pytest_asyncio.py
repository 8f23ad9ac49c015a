"""Clients for tests that pytest-asyncio runs: one fixture for each scope of its event loops.

Loaded by ``braze_export.integrations.pytest``, where pytest-asyncio is. A client belongs to one
loop, and which one a test runs in is decided for each test, but for each fixture once.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Literal, TypeAlias

import pytest
import pytest_asyncio

from braze_export.client import BrazeClient
from braze_export.sandbox import Sandbox

_Scope: TypeAlias = Literal["function", "class", "module", "package", "session"]


def claims(item: pytest.Item) -> bool:
    """Tell whether it is pytest-asyncio that runs this test."""
    return pytest_asyncio.is_async_test(item)


def fixture_for(item: pytest.Item) -> str:
    """Return the name of the fixture whose client lives in the loop of this test."""
    marker = item.get_closest_marker("asyncio")
    named = marker.kwargs if marker else {}
    scope = named.get("loop_scope") or named.get("scope")
    return _name(scope or item.config.getini("asyncio_default_test_loop_scope"))


def _name(scope: str) -> str:
    return f"_braze_client_in_{scope}_loop"


def _fixture(scope: _Scope) -> Callable[..., Any]:
    @pytest_asyncio.fixture(name=_name(scope), loop_scope=scope)
    async def client(braze_sandbox: Sandbox) -> AsyncIterator[BrazeClient]:
        async with BrazeClient(braze_sandbox.api_key, braze_sandbox.url) as braze:
            yield braze

    return client


in_function_loop = _fixture("function")
in_class_loop = _fixture("class")
in_module_loop = _fixture("module")
in_package_loop = _fixture("package")
in_session_loop = _fixture("session")
