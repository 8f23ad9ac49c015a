"""Answers of ``/users/export/ids`` from canned bytes, in a process of its own.

``python -m benchmarks.canned``: prints ``{"url", "api_key", "profile_bytes"}`` and ends when
standard input does. The sandbox takes a millisecond for a request; where a client shall be
measured to its limit, this takes its place: no framework, no fields, nothing looked up.

An identifier that begins with ``x`` is unknown; with one that begins with ``p`` in it, a request
is refused with status 400. ``GET /counts`` tells what was asked so far.
"""

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.client import responses
from socket import SO_SNDBUF, SOL_SOCKET, socket
from typing import Any
from urllib.request import urlopen

import msgspec
from attrs import Factory, define, frozen

from benchmarks.server import Server, running
from braze_export.sandbox.people import People
from braze_export.sandbox.profiles import Profiles

WHOLE = 4_000  # bytes: more than a typical profile has
_SEED = 7
_TEMPLATES = 10  # one for each last digit
_LIMIT, _PERIOD = 100_000_000, 3600
_SEND_BUFFER = 1024 * 1024  # a whole answer fits, so that one system call sends it


class _Asked(msgspec.Struct):
    external_ids: list[msgspec.Raw]


_asked = msgspec.json.Decoder(_Asked).decode


@frozen
class Canned:
    """Typical profiles of the sandbox, cut open where the external id stands."""

    heads: list[bytes]
    tails: list[bytes]

    @classmethod
    def of(cls, profile_bytes: int) -> "Canned":
        """Take profiles of at most so many bytes: beyond that, their last members are left out."""
        profiles = Profiles(People(_TEMPLATES, _SEED), "typical", _SEED)
        heads, tails = [], []
        for number in range(1, _TEMPLATES + 1):
            whole = json.loads(b"".join(profiles.users([number], None)))[0]
            cut = _fitting(whole, profile_bytes).partition(b'"u%d"' % number)
            heads.append(cut[0])
            tails.append(cut[2])
        return cls(heads, tails)

    @property
    def size(self) -> int:
        """Bytes of a profile, on average, with an external id of eight."""
        total = sum(map(len, self.heads)) + sum(map(len, self.tails))
        return total // _TEMPLATES + len(b'"u1234567"')

    def profile(self, external_id: str) -> bytes:
        """Return the profile of this user, as it is sent."""
        return b"".join(self._pieces(json.dumps(external_id).encode()))

    def users(self, known: list[bytes]) -> bytes:
        """Return the array of these users; their external ids are JSON."""
        parts = [b"["]
        for external_id in known:
            parts += self._pieces(external_id)
            parts.append(b",")
        parts[-1] = b"]" if known else b"[]"
        return b"".join(parts)

    def _pieces(self, external_id: bytes) -> tuple[bytes, bytes, bytes]:
        which = external_id[-2] % _TEMPLATES
        return self.heads[which], external_id, self.tails[which]


def _fitting(profile: dict[str, Any], most: int) -> bytes:
    names = list(profile)
    while len(encoded := msgspec.json.encode(profile)) > most and names[-1] != "external_id":
        del profile[names.pop()]
    return encoded


@define
class _Books:
    """What was asked, by request and by identifier."""

    requests: int = 0
    answered: Counter[bytes] | None = None  # only where asked for: it takes time and memory

    def told(self) -> bytes:
        counter = self.answered or Counter()
        told = {
            "requests": self.requests,
            "identifiers": len(counter),
            "again": counter.total() - len(counter),
            "cpu": time.process_time(),
        }
        return json.dumps(told).encode()


@define
class _Desk:
    """Makes whole answers, heads included."""

    canned: Canned
    key: bytes
    books: _Books = Factory(_Books)
    moment: int = 0
    lines: bytes = b""  # those headers that hold for a second

    def answer(self, head: bytes, body: bytes) -> bytes:
        """Answer a request."""
        if head.startswith(b"GET /counts "):
            return self._whole(200, self.books.told())
        self.books.requests += 1
        if not head.startswith(b"POST /users/export/ids "):
            return self._whole(404, b'{"message":"not found"}')
        if self.key not in head:
            return self._whole(401, b'{"message":"Invalid API key"}')
        try:
            names = [bytes(raw) for raw in _asked(body).external_ids]
        except msgspec.DecodeError:
            return self._whole(400, b'{"message":"external_ids must be given"}')
        return self._export(names)

    def _export(self, names: list[bytes]) -> bytes:
        if any(name.startswith(b'"p') for name in names):
            return self._whole(400, b'{"message":"Bad Request"}')
        if self.books.answered is not None:
            self.books.answered.update(names)
        unknown = [name for name in names if name.startswith(b'"x')]
        known = [name for name in names if not name.startswith(b'"x')] if unknown else names
        rest = b',"invalid_user_ids":[%s]}' % b",".join(unknown) if unknown else b"}"
        users = self.canned.users(known)
        return self._whole(200, b"".join((b'{"message":"success","users":', users, rest)))

    def _whole(self, status: int, body: bytes) -> bytes:
        now = int(time.time())
        if now != self.moment:
            self.moment, self.lines = now, _lines_of(now)
        remaining = max(_LIMIT - self.books.requests, 1)
        first = b"HTTP/1.1 %d %s\r\n" % (status, responses[status].encode())
        last = b"x-ratelimit-remaining: %d\r\ncontent-length: %d\r\n\r\n" % (remaining, len(body))
        return b"".join((first, self.lines, last, body))


def _lines_of(now: int) -> bytes:
    reset = (now // _PERIOD + 1) * _PERIOD
    return (
        "content-type: application/json\r\n"
        f"date: {formatdate(now, usegmt=True)}\r\n"
        f"x-ratelimit-limit: {_LIMIT}\r\n"
        f"x-ratelimit-reset: {reset}\r\n"
    ).encode()


class _Connection(asyncio.Protocol):
    """One request after the other, as HTTP clients send them that wait for each answer."""

    def __init__(self, desk: _Desk, latency: float) -> None:
        self._desk = desk
        self._latency = latency
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came = self._came + data if self._came else data
        head, found, body = self._came.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._came = b""
        answer = self._desk.answer(head, body)
        if self._latency and not head.startswith(b"GET"):
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)
        else:
            self._transport.write(answer)


def _length(head: bytes) -> int:
    found = head.lower().partition(b"\r\ncontent-length:")[2]
    return int(found.partition(b"\r\n")[0] or 0)


async def _serve(options: argparse.Namespace) -> None:
    key = secrets.token_hex(16)
    books = _Books(answered=Counter() if options.count else None)
    desk = _Desk(Canned.of(options.profile_bytes), key.encode(), books)
    loop = asyncio.get_running_loop()
    listener = socket()
    listener.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER)  # accepted sockets inherit it
    listener.bind(("127.0.0.1", 0))
    await loop.create_server(lambda: _Connection(desk, options.latency), sock=listener)
    url = "http://{}:{}".format(*listener.getsockname())
    said = {"url": url, "api_key": key, "profile_bytes": desk.canned.size}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


def counts(server: Server) -> dict[str, Any]:
    """Return what was asked of a canned server so far.

    ``requests``; ``identifiers``, different ones that were answered; ``again``, how often one
    of those was answered once more; ``cpu``, its processor's seconds.
    """
    with urlopen(f"{server.url}/counts", timeout=30) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


@contextmanager
def canned(*options: str) -> Iterator[Server]:
    """Start the process."""
    command = [sys.executable, "-m", "benchmarks.canned", *options]
    with running(command) as server:
        yield server


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canned")
    parser.add_argument("--profile-bytes", type=int, default=WHOLE, help="at most so many")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--count", action="store_true", help="count what each id was asked")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
