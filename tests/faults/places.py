"""Places where no answer of Braze's can come from: nobody knows them, or they speak otherwise."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeAlias

import aiohttp
import httpx
import pytest
import trustme
from attrs import frozen

from braze_export import AiohttpTransport
from braze_export.transports.httpx import HttpxTransport
from braze_export.wire import Transport

#: Gives an address for as long as it is used.
Place: TypeAlias = Callable[[], AbstractAsyncContextManager[str]]


@frozen
class _Certificates:
    authority: trustme.CA
    good: ssl.SSLContext
    of_another: ssl.SSLContext
    expired: ssl.SSLContext
    of_a_stranger: ssl.SSLContext


def _served(authority: trustme.CA, host: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, **options).configure_cert(context)
    return context


@cache
def _certificates() -> _Certificates:
    ours = trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return _Certificates(
        authority=ours,
        good=_served(ours, "127.0.0.1"),
        of_another=_served(ours, "rest.example"),
        expired=_served(ours, "127.0.0.1", not_after=yesterday),
        of_a_stranger=_served(trustme.CA(), "127.0.0.1"),
    )


@cache
def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    _certificates().authority.configure_trust(context)
    return context


def make_certificates() -> None:
    """Make all certificates: to be called outside of the event loop, for it writes files."""
    _trusting()


@asynccontextmanager
async def trusting(name: str) -> AsyncIterator[Transport]:
    """Give a transport that trusts our authority."""
    if name == "aiohttp":
        connector = aiohttp.TCPConnector(ssl=_trusting())
        async with aiohttp.ClientSession(connector=connector) as session:
            yield AiohttpTransport(session)
    else:
        async with httpx.AsyncClient(verify=_trusting(), trust_env=False) as client:
            yield HttpxTransport(client)


@asynccontextmanager
async def unknown() -> AsyncIterator[str]:
    """A name that no server of names knows."""

    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield "https://rest.example"


@asynccontextmanager
async def refused() -> AsyncIterator[str]:
    """A port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def served(
    scheme: str = "https", certificate: str | None = None, says: bytes | None = None
) -> Place:
    """Return a server that says something, or nothing, once a connection is made.

    Args:
        scheme: how it is spoken to.
        certificate: a field of ``_Certificates``, for a server of TLS.
        says: is said, and then the connection is closed; ``None``: silence until it is left.
    """

    @asynccontextmanager
    async def place() -> AsyncIterator[str]:
        context = None if certificate is None else getattr(_certificates(), certificate)
        open_now: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_now.add(writer)
            try:
                if says is None:
                    await reader.read()
                else:
                    writer.write(says)
            except OSError:
                pass
            finally:
                writer.close()
                open_now.discard(writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        try:
            host, port = server.sockets[0].getsockname()[:2]
            yield f"{scheme}://{host}:{port}"
        finally:
            for _ in range(100):
                if not open_now:
                    break
                await asyncio.sleep(0.001)
            left = len(open_now)
            server.close()
            await server.wait_closed()
            assert not left, f"{left} connections are open"

    return place
