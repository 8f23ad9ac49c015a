"""What goes onto the socket, and how a connection is dropped.

Answers are written to the transport as bytes, past the response classes of aiohttp: faults need
every header and every byte in hand, and header names shall be in lower case as with Braze.
"""

import asyncio
import math
import random
import socket
import struct
from contextlib import suppress
from email.utils import formatdate

import attrs
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from braze_export.sandbox.faults import Fault
from braze_export.sandbox.messages import FilePart, Reply
from braze_export.sandbox.workspace import phrase

# Below this a copy is cheaper than a second system call.
_JOIN_BELOW = 65_536

# A slow answer comes in this many pieces a second.
_PIECES_PER_SECOND = 50

# A file is read and written by so many bytes.
_PIECE = 131_072

_BODILESS = (204, 304)


@attrs.frozen
class Packet:
    """An answer as bytes."""

    head: bytes
    body: bytes | FilePart
    keep_alive: bool


class Sent(web.StreamResponse):
    """Tells aiohttp that the answer is out already, and whether the connection stays open."""

    def __init__(self, status: int, *, keep_alive: bool) -> None:
        super().__init__(status=status)
        self._stays_open = keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether aiohttp shall wait for another request."""
        return self._stays_open

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - the base's signature
        """Write no headers."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write no body."""


def spoil(body: bytes | FilePart, fault: Fault) -> bytes | FilePart:
    """Do to a body what the fault says; garbage of files is made as they are sent."""
    if fault.garbage and isinstance(body, bytes):
        body = random.Random(len(body)).randbytes(len(body))
    return body if fault.truncate is None else _shortened(body, fault.truncate)


def compose(  # noqa: D417 - the rest says itself
    reply: Reply,
    body: bytes | FilePart,
    fault: Fault,
    *,
    now: float,
    keep_alive: bool,
    encoding: str | None,
) -> Packet:
    """Put the answer together.

    Args:
        body: the body in its final encoding.
        encoding: the name of that encoding, or None.
    """
    body = b"" if reply.status in _BODILESS else body
    headers: dict[str, str | None] = {
        "content-type": "application/json",
        "content-length": None if reply.status in _BODILESS else str(len(body)),
        "content-encoding": fault.content_encoding or encoding,
        "connection": None if keep_alive else "close",
        "date": formatdate(now + fault.clock_skew, usegmt=True),
    }
    if reply.rate is not None:
        headers |= {
            "x-ratelimit-limit": str(reply.rate.limit),
            "x-ratelimit-remaining": str(reply.rate.remaining),
            "x-ratelimit-reset": str(math.ceil(reply.rate.reset + fault.clock_skew)),
        }
    headers |= reply.headers
    headers |= {name.lower(): value for name, value in fault.headers.items()}
    lines = [line for early in fault.informational for line in _informational(early)]
    lines.append(f"HTTP/1.1 {reply.status} {phrase(reply.status)}")
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    # Without a length, only the end of the connection ends the body.
    ends = headers["content-length"] is not None or reply.status in _BODILESS
    return Packet("\r\n".join([*lines, "\r\n"]).encode("latin-1"), body, keep_alive and ends)


def _informational(status: int) -> list[str]:
    """An answer that comes before the answer: its lines, with the empty one that ends it."""
    return [f"HTTP/1.1 {status} {phrase(status)}", "link: </later>; rel=preload", ""]


async def send(incoming: web.BaseRequest, packet: Packet, fault: Fault) -> None:
    """Write the packet, or as much of it as the fault leaves, and drop the connection if so."""
    transport = incoming.transport
    # The client may be gone by now.
    if transport is None:
        return
    if fault.drop == "before":
        _reset_when_closed(transport, fault)
        transport.abort()
        return
    head = packet.head[: len(packet.head) // 2] if fault.drop == "headers" else packet.head
    body = _shortened(packet.body, fault.portion(len(packet.body)))
    if isinstance(body, FilePart):
        transport.write(head)
        await _stream(incoming, transport, body, fault)
    elif fault.slow is not None:
        await _trickle(transport, head + body, fault.slow)
    else:
        _write(transport, head, body)
    if fault.disconnects:
        _reset_when_closed(transport, fault)
        transport.close()


def _reset_when_closed(transport: asyncio.Transport, fault: Fault) -> None:
    """Have the system send a reset where it would say goodbye."""
    connection = transport.get_extra_info("socket")
    if fault.reset and connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _shortened(body: bytes | FilePart, length: int) -> bytes | FilePart:
    if isinstance(body, FilePart):
        return attrs.evolve(body, length=min(length, len(body)))
    return body[:length]


def _write(transport: asyncio.Transport, head: bytes, body: bytes) -> None:
    if len(body) < _JOIN_BELOW:
        transport.write(head + body)
    else:
        transport.write(head)
        transport.write(memoryview(body))


async def _trickle(transport: asyncio.Transport, data: bytes, pace: float) -> None:
    step = _step(pace)
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        transport.write(piece)
        await asyncio.sleep(len(piece) / pace)


async def _stream(
    incoming: web.BaseRequest, transport: asyncio.Transport, part: FilePart, fault: Fault
) -> None:
    """Write a file, no faster than the client reads it."""
    step = _PIECE if fault.slow is None else min(_PIECE, _step(fault.slow))
    dice = random.Random(len(part))
    for start in range(0, len(part), step):
        size = min(step, len(part) - start)
        if fault.garbage:
            piece = dice.randbytes(size)
        else:
            piece = await asyncio.to_thread(part.read, start, size)
        if transport.is_closing():
            return
        transport.write(piece)
        with suppress(ConnectionError):
            await incoming.writer.drain()
        if fault.slow is not None:
            await asyncio.sleep(size / fault.slow)


def _step(pace: float) -> int:
    return max(1, int(pace / _PIECES_PER_SECOND))


async def accept_no_more(listener: asyncio.Server) -> None:
    """Bring to its end what is being accepted: with the listener closed, nobody would close it."""
    loop = asyncio.get_running_loop()
    with suppress(RuntimeError, NotImplementedError):  # loops that see to it themselves
        for listening in listener.sockets:
            loop.remove_reader(listening.fileno())
    for _ in range(3):
        await asyncio.sleep(0)
