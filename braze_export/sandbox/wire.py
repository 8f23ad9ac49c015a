"""What goes onto the socket, and how a connection is dropped.

Answers are written to the transport as bytes, past the response classes of aiohttp: faults need
every header and every byte in hand, and header names shall be in lower case as with Braze.
"""

import asyncio
import math
import random
from email.utils import formatdate

import attrs
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from braze_export.sandbox.faults import Drop, Fault
from braze_export.sandbox.messages import Reply
from braze_export.sandbox.workspace import phrase

# Below this a copy is cheaper than a second system call.
_JOIN_BELOW = 65_536

# A slow answer comes in this many pieces a second.
_PIECES_PER_SECOND = 50

_BODILESS = (204, 304)


@attrs.frozen
class Packet:
    """An answer as bytes."""

    head: bytes
    body: bytes
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


def spoil(body: bytes, fault: Fault) -> bytes:
    """Do to a body what the fault says."""
    if fault.garbage:
        body = random.Random(len(body)).randbytes(len(body))
    return body if fault.truncate is None else body[: fault.truncate]


def compose(  # noqa: D417 - the rest says itself
    reply: Reply, body: bytes, fault: Fault, *, now: float, keep_alive: bool, encoding: str | None
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
        "x-ratelimit-limit": str(reply.rate.limit),
        "x-ratelimit-remaining": str(reply.rate.remaining),
        "x-ratelimit-reset": str(math.ceil(reply.rate.reset + fault.clock_skew)),
    }
    headers |= {name.lower(): value for name, value in fault.headers.items()}
    lines = [f"HTTP/1.1 {reply.status} {phrase(reply.status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if value is not None]
    # Without a length, only the end of the connection ends the body.
    ends = headers["content-length"] is not None or reply.status in _BODILESS
    return Packet("\r\n".join([*lines, "\r\n"]).encode("latin-1"), body, keep_alive and ends)


async def send(transport: asyncio.Transport, packet: Packet, fault: Fault) -> None:
    """Write the packet, or as much of it as the fault leaves, and drop the connection if so."""
    if fault.drop == "before":
        transport.abort()
        return
    if fault.slow is not None:
        await _trickle(transport, b"".join(_portion(packet, fault.drop)), fault.slow)
    else:
        _write(transport, *_portion(packet, fault.drop))
    if fault.drop is not None:
        transport.close()


def _portion(packet: Packet, drop: Drop | None) -> tuple[bytes, bytes]:
    if drop == "headers":
        return packet.head[: len(packet.head) // 2], b""
    if drop == "body":
        return packet.head, packet.body[: len(packet.body) // 2]
    return packet.head, packet.body


def _write(transport: asyncio.Transport, head: bytes, body: bytes) -> None:
    if len(body) < _JOIN_BELOW:
        transport.write(head + body)
    else:
        transport.write(head)
        transport.write(memoryview(body))


async def _trickle(transport: asyncio.Transport, data: bytes, pace: float) -> None:
    step = max(1, int(pace / _PIECES_PER_SECOND))
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        transport.write(piece)
        await asyncio.sleep(len(piece) / pace)
