"""Headers of answers: read word by word, and believed by a ledger for whole conversations.

Whatever a server says, reading it never fails, and nobody waits longer than the longest wait
that there is, or for ever.
"""

import math
import re
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import evolve

from braze_export.answers import RateWindow, check, read_rate_window, read_retry_after
from braze_export.caller import _LONGEST_PAUSE
from braze_export.downloads.links import _opened, _part, _refusal, check_link, redirected
from braze_export.endpoints import EXPORT_IDS, EXPORT_SEGMENT
from braze_export.errors import APIError, BrazeError, ExportInProgressError, InputError
from braze_export.instances import is_loopback
from braze_export.limiting.ledger import _LATEST, _LONGEST_WINDOW, _SLACK, Ledger
from braze_export.limiting.server_clock import ServerClock
from braze_export.limiting.window import Sent
from braze_export.retry import RetryPolicy
from braze_export.wire import ApiKey, Request, Response, Streamed, Timeouts, check_encoding
from tests.fuzz.drawing import Draw, with_text

LONGEST: Final = 1024
_NOW: Final = 1_790_000_000.0  # of this machine, where the harness begins
_LONGEST_WAIT: Final = max(_LONGEST_PAUSE, _LONGEST_WINDOW + _SLACK + _LATEST) + 1
WORDS: Final = (
    *(b"0", b"1", b"-1", b"250", b"2500", b"1e308", b"1e309", b"nan", b"inf", b"1_0", b" 5 "),
    *(
        b"1790000030",
        b"1790000030000",
        b"1790003600.5",
        b"1e-320",
        b"100000000001",
        b"86400",
        b"\xb2",
    ),
    *(b"Sun, 22 Nov 2026 09:00:00 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Mon, ", b"a, b c d e"),
    *(
        b"1 Jan 99999999999999999999 0:0:0",
        b"Sun Nov 22 09:00:00 2026",
        b"1 Jan 1 0:0:0 +9999",
        b",",
    ),
    *(
        b"bytes 0-0/1",
        b"bytes */7",
        b"bytes 3-9/*",
        b"bytes 5-1/2",
        b'W/"a"',
        b'"a"',
        b"gzip",
        b"br",
    ),
    *(
        b"https://a.example.com/x",
        b"http://127.0.0.1/",
        b"//b",
        b"?q",
        b"https://[::1",
        b"https://a:b@c/",
    ),
    *(
        b"https://a:99999/",
        b"https://a\\b/",
        b"javascript:x",
        b"<Code>AccessDenied</Code>",
        b"\r\n",
    ),
)
_TEXTS: Final = ("", *(word.decode("latin-1") for word in WORDS))
_LIMITED: Final = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
_STEPS: Final = (0.0, 1e-6, 0.01, 0.3, 1.0, 2.5, 59.0, 61.0, 3599.0, 3700.0, 1e6)
_REQUESTS: Final = tuple(
    Request(endpoint, "https://rest.example.com", ApiKey("none"), "fuzz", Timeouts())
    for endpoint in (EXPORT_IDS, EXPORT_SEGMENT)
)


def seeds() -> Iterator[bytes]:
    for word in _TEXTS:
        yield b"\0" + with_text(word) * 6
        yield b"\1" + with_text(word) * 6
    for page in (b"<Code>ExpiredToken</Code>", b"<Code>X</Code><Message>Request has expired"):
        yield b"\1" + with_text("") * 6 + page
    for first in (2, 3):
        yield bytes([first]) + bytes(range(200))
        yield bytes([first]) + bytes(range(250, 0, -1))
        yield bytes([first, *(number * 7 % 251 for number in range(900))])
        yield bytes([first, 0, 1, 1, 3, 3, 0, 1, 2]) * 30


def try_one(data: bytes) -> None:
    draw = Draw(data)
    kind = draw.number(3)
    if kind == 0:
        _try_words(draw)
    elif kind == 1:
        _try_links(draw)
    else:
        _try_conversation(draw, plausible=kind == 3)


def _try_words(draw: Draw) -> None:
    names = (*_LIMITED, "date", "retry-after", "content-encoding")
    headers = {name: draw.text() for name in names if not draw.empty}
    window = read_rate_window(headers, now=_NOW)
    _hold_window(window, headers)
    pause = read_retry_after(headers, now=_NOW)
    assert pause is None or 0 <= pause < math.inf
    if (text := headers.get("retry-after", "")).isdecimal() and text.isascii():
        assert pause in {float(text), None}
        assert pause is not None or float(text) == math.inf
    try:
        check_encoding(headers, EXPORT_IDS)
    except BrazeError as error:
        assert str(error).isprintable()
    for request in _REQUESTS:
        for status in (429, 503):
            _try_refusal(request, Response(status, headers, draw.rest()))


def _hold_window(window: RateWindow, headers: dict[str, str]) -> None:
    assert window.limit is None or window.limit > 0
    assert window.remaining is None or window.remaining >= 0
    assert math.isfinite(window.clock)
    assert window.reset is None or window.clock < window.reset < math.inf
    for name, value in zip(_LIMITED, (window.limit, window.remaining), strict=False):
        if re.fullmatch(r"[1-9]\d{0,14}", headers.get(name, ""), re.ASCII):
            assert value == int(headers[name])


def _try_refusal(request: Request, response: Response) -> float | None:
    """Return the seconds that a refusal asks for, and hold that its repetition can be reckoned."""
    try:
        check(request, response, now=_NOW)
    except APIError as error:
        assert str(error).isprintable()
        asked: float | None = getattr(error, "retry_after", None)
        assert asked is None or 0 <= asked < math.inf
        delay = RetryPolicy().delay(error, EXPORT_IDS, failures=1, elapsed=7.0)
        assert delay is None or 0 <= delay <= 7200
        return None if isinstance(error, ExportInProgressError) else asked
    raise AssertionError("a refusal was taken for a success")


def _try_links(draw: Draw) -> None:
    one, other = draw.text(), draw.text()
    names = ("content-range", "content-length", "etag", "retry-after")
    headers = {name: draw.text() for name in names if not draw.empty}
    first, total = _part(headers)
    assert first is None or first >= 0
    assert total is None or total >= 0
    for status in (200, 206):
        try:
            opened = _opened(Streamed(status, headers, _page(b"")))
        except APIError:
            assert status == 206
            assert first is None
        else:
            assert opened.start == (first if status == 206 else 0)
    _try_link(one, other)
    page = draw.rest()
    for status in (403, 404, 400, 503):
        said = _at_once(_refusal(Streamed(status, headers, _page(page)), lambda: _NOW))
        assert str(said).isprintable()
        assert not isinstance(said, APIError) or said.hint or status == 503


def _try_link(one: str, other: str) -> None:
    try:
        link = check_link(one)
    except InputError:
        link = "https://storage.example.com/a?b"
    else:
        assert urlsplit(link).scheme == "https" or is_loopback(urlsplit(link).hostname or "")
    try:
        target = redirected(link, other)
    except APIError as error:
        assert str(error).isprintable()
        return
    before, after = urlsplit(link), urlsplit(target)
    same_host = before.hostname == after.hostname and before.scheme == after.scheme
    assert after.scheme == "https" or same_host
    assert after.username is None


async def _page(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body[:7]
    yield body[7:]


def _at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


class _Server:
    """Says of a limit what the draw wants: the truth about some window, or anything."""

    def __init__(self, draw: Draw, *, plausible: bool) -> None:
        self._draw = draw
        self._plausible = plausible
        self._skew = (0.0, 90.0, -4000.0, 1e8)[draw.number(3)]

    def headers(self, now: float) -> dict[str, str]:
        draw, clock = self._draw, _NOW + now + self._skew
        if not self._plausible:
            names = (*_LIMITED, "date", "retry-after")
            return {name: draw.one_of(_TEXTS) for name in names if draw.yes()}
        date = datetime.fromtimestamp(clock, UTC)
        limit = draw.one_of((1, 4, 40, 250))
        reset = clock + draw.one_of((0.5, 1, 6, 60, 3600, 3650, 5000, -3))
        told = {
            "x-ratelimit-limit": str(limit),
            "x-ratelimit-remaining": str(draw.number(limit)),
            "x-ratelimit-reset": str(int(reset)),
            "date": format_datetime(date, usegmt=True),
            "retry-after": draw.one_of(("1", "60", "9000", "1e300")),
        }
        return {name: text for name, text in told.items() if draw.number(7)}


def _try_conversation(draw: Draw, *, plausible: bool) -> None:
    """Send, be answered and wait, in any order."""
    limit, period = draw.one_of((1, 3, 40, 2500)), draw.one_of((1.0, 60.0, 3600.0))
    ledger = Ledger(limit, period, draw.one_of((0.0, 0.5, 0.99)), ServerClock())
    server, under_way, now = _Server(draw, plausible=plausible), deque[Sent](), 1000.0
    while not draw.empty:
        what = draw.number(3)
        if what == 0:
            now += draw.one_of(_STEPS)
        elif what == 1 or not under_way:
            _send(ledger, under_way, now, draw.number(20))
        elif what == 2:
            _answer(ledger, under_way.popleft(), server.headers(now), now, refused=draw.yes())
        else:
            ledger.unanswered(under_way.pop(), counted=draw.yes())
        _hold_ledger(ledger, now, len(under_way))
    for sent in under_way:
        ledger.unanswered(sent, counted=True)
    _hold_somebody_passes(ledger, now)


def _send(ledger: Ledger, under_way: "deque[Sent]", now: float, wanted: int) -> None:
    room = wanted if ledger.blind else ledger.room(now, bulk=wanted)
    assert 0 <= room <= max(1, ledger.allowance(), wanted)
    for _ in range(min(room, wanted)):
        under_way.append(ledger.send(now))


def _answer(
    ledger: Ledger, sent: Sent, headers: dict[str, str], now: float, *, refused: bool
) -> None:
    window = read_rate_window(headers, now=_NOW + now)
    if refused:  # as the caller does it
        pause = _try_refusal(_REQUESTS[0], Response(429, headers, b""))
        window = evolve(window, pause=None if pause is None else min(pause, _LONGEST_PAUSE))
    ledger.answered(sent, now, window, refused=refused)


def _hold_ledger(ledger: Ledger, now: float, under_way: int) -> None:
    assert ledger.in_flight == under_way
    assert ledger.limit >= 1
    assert ledger.allowance() >= 1
    resets_in = ledger.resets_in(now)
    assert resets_in is None or 0 < resets_in <= _LONGEST_WAIT
    left = ledger.spendable(now)
    assert left is None or 0 <= left <= ledger.allowance()


def _hold_somebody_passes(ledger: Ledger, now: float) -> None:
    """Hold that one who waits alone, with nothing under way, passes, and in good time."""
    began = now
    for _ in range(20):
        if ledger.blind or ledger.room(now, bulk=1):
            assert now - began <= 2 * _LONGEST_WAIT
            return
        opens = ledger.opens_at(now)
        assert now < opens <= now + _LONGEST_WAIT
        now = opens
    raise AssertionError("nobody passes")
