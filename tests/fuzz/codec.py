"""Bodies of answers and JSON of profiles, arbitrary and nearly right, through the codec.

The witness is the standard library's JSON, as strict as it can be made.
"""

import json
import math
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import Factory, frozen

from braze_export._json import dumps, loads, one_line
from braze_export.answers import check, read_error
from braze_export.batches.batching import Batch
from braze_export.batches.narrowing import read
from braze_export.codec import (
    IdsAnswer,
    decode_object,
    decode_profile,
    decoder_for,
    identity,
    records,
    split_ids_answer,
    without,
)
from braze_export.endpoints import EXPORT_IDS, SEGMENTS_LIST
from braze_export.errors import APIError, BrazeError, DecodeError
from braze_export.identifiers import Identifier, UserAlias, is_unicode
from braze_export.lookups.whose import sort
from braze_export.models.lenient import structure_leniently
from braze_export.models.profile import UserProfile
from braze_export.models.segments import Segment
from braze_export.sandbox import samples
from braze_export.wire import ApiKey, Request, Response, Timeouts
from tests.fuzz.drawing import Draw

LONGEST: Final = 8192
KEY: Final = "secret-key-0123456789"
CANARY: Final = "can.ary@example.com"  # stands for personal data: no error may show it
WORDS: Final = (
    *(f'"{name}":'.encode() for name in UserProfile.__struct_fields__ if name[0] != "_"),
    *(b'"%b":' % name for name in (b"users", b"invalid_user_ids", b"errors", b"message", b"error")),
    *(b'"%b":' % name for name in (b"alias_name", b"alias_label", b"first", b"sessions", b"count")),
    *(b"null", b"true", b"[", b"]", b"{}", b"[]", b"1e400", b"-0", b"1" * 40, b"0.1", b"NaN"),
    *(b'"\\ud83d"', b'"\\u0000"', b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff", b"\n", b"\r\n"),
    *(b'"2020-07-10 15:00:00.000 UTC"', b'"2021-06-28T17:02:43.032Z"', b'"0001-01-01T00:00+23:59"'),
    *(f'"{CANARY}"'.encode(), KEY.encode()),
)
_NOTHING: Final = object()
_SHALLOW: Final = 100  # brackets: beyond, one parser may give up sooner than another
_NAMES: Final = (*(word[1:-2] for word in WORDS if word.endswith(b'":')), b"_raw", b"a.b")
_VALUES: Final = (
    *(b"null", b"true", b"false", b"0", b"-0", b"-1", b"1.0", b"2.5", b"1e3", b"1e400", b"-1e-400"),
    *(b"9223372036854775808", b"18446744073709551616", b"1" * 400, b"1" * 4301, b"0.1e-5", b"NaN"),
    *(b'""', b'" "', b'"1"', b'" 1 "', b'"1.5"', b'"true"', b'"yes"', b'"nan"', b'"inf"', b'"1_0"'),
    *(b'"\\ud83d"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\xed\xa0\x80"', b'"\xff"', b'"\n"'),
    *(b'"\0"', b'[{"alias_name":" ","alias_label":"l"}]', b'{"alias_name":"n","alias_label":"l"}'),
    *(b'"2020-07-10 15:00:00.000 UTC"', b'"2021-06-28T17:02:43.032Z"', b'"2021-06-28"', b'"null"'),
    *(b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59.999999-23:59"', b'"20210628T170243Z"'),
    *(b'"2021-06-28T24:00:00Z"', b'"2021-W01-1"', b'"2021-06-28T17:02:43.0321234567Z"', b"[]"),
    *(f'"{CANARY}"'.encode(), b'"%b"' % KEY.encode(), b"[[null]]", b"{}", b'{"a":{"b":[{}]}}'),
    *(b'"2021-06-28T17:02:43"', b'"2021-06-28T17:02:43+05:30"'),
)
_STATUSES: Final = (400, 401, 403, 404, 413, 415, 429, 500, 302, 418)


@frozen
class OwnDevice:
    model: str
    ad_tracking_enabled: bool | None


@frozen
class Own:
    external_id: str | None
    email: str | None
    random_bucket: int | None
    total_revenue: Decimal | None
    created_at: datetime | None
    dob: date | None
    custom_attributes: dict[str, Any]
    last_coordinates: tuple[float, ...]
    devices: list[OwnDevice] = Factory(list)


_DECODERS: Final = {
    into: decoder_for(into, EXPORT_IDS, checked=False) for into in (UserProfile, dict, bytes, Own)
}


def seeds() -> Iterator[bytes]:
    for path in sorted((Path(__file__).parents[1] / "data").glob("*.json")):
        yield b"\0\0" + json.dumps(json.loads(path.read_bytes())).encode()
    for number in range(3):
        yield b"\0\0" + json.dumps(samples.profile(size="typical", number=number, seed=1)).encode()
    yield b"\0\1" + bytes(range(256))
    yield b"\0\1" + bytes(range(255, -1, -2))
    yield b"\1\0" + b"[" * 950 + b"]" * 950
    yield b"\1\0" + b'{"errors":%b%b}' % (b"[" * 950, b"]" * 950)
    yield b'\2\0{"users":[{"external_id":"a"},null,1,{"user_aliases":[{"alias_name":"n"}]}]}'
    yield b'\3\0{"users":[{"first_name":"\\ud83d","email":"%b"}]}' % CANARY.encode()
    yield b'\4\0{"message":"no %b","errors":[{"message":"x"},7]}' % KEY.encode()


def try_one(data: bytes) -> None:
    draw = Draw(data)
    status = draw.one_of(_STATUSES)
    body = _made(draw) if draw.yes() else draw.rest()
    _try_profile(body)
    _try_answer(body)
    _try_answer(b'{"message":"success","users":[%b]}' % body)
    _try_error(status, body)
    _try_object(body)


def _made(draw: Draw) -> bytes:
    """Return JSON put together of pieces, which is right more often than what is only mutated."""
    pairs = []
    while not draw.empty:
        name = draw.one_of(_NAMES)
        pairs.append(b'"%b":%b' % (name, _value(draw, 3)))
    return b"{%b}" % b",".join(pairs)


def _value(draw: Draw, deep: int) -> bytes:
    kind = draw.number(7)
    if kind > 1 or not deep:
        return draw.one_of(_VALUES)
    inner = [_value(draw, deep - 1) for _ in range(draw.number(3))]
    if kind:
        return b"[%b]" % b",".join(inner)
    return b"{%b}" % b",".join(b'"%b":%b' % (draw.one_of(_NAMES), value) for value in inner)


def _witness(raw: bytes, *, once: bool = False) -> Any:
    """Return the value of JSON that leaves no doubt, or ``_NOTHING``; ``once``: of each key one."""
    if not _shallow(raw):
        return _NOTHING
    hook = _each_once if once else None
    try:
        return json.loads(raw.decode(), parse_constant=_refuse, object_pairs_hook=hook)
    except ValueError:
        return _NOTHING


def _shallow(raw: bytes) -> bool:
    return raw.count(b"[") + raw.count(b"{") <= _SHALLOW


def _refuse(word: str) -> None:
    raise ValueError(word)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands there twice")
    return made


def _same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # also tells 1 from 1.0 from True


def _told(error: BrazeError) -> None:
    """Hold that an error shows nothing of what it was given."""
    text = f"{error} {error!r}"
    assert CANARY not in text
    assert KEY not in text
    assert str(error).isprintable()


def _decoded(into: Any, raw: bytes) -> Any:
    try:
        return _DECODERS[into](raw)
    except DecodeError as error:
        _told(error)
        assert error.raw == raw
        return None


def _try_profile(raw: bytes) -> None:
    sent = _witness(raw)
    made = {into: _decoded(into, raw) for into in _DECODERS}
    if isinstance(sent, dict):
        assert made[UserProfile] is not None
        assert _same(made[dict], sent)
        assert made[bytes] is not None
    elif sent is not _NOTHING:
        assert list(made.values()) == [None] * len(made)
    row = made[bytes]
    if row is not None:
        assert row == raw.strip(b" \t\r\n")
        # But for more digits than Python takes, or brackets.
        assert made[dict] is not None or len(row) > 4300 or not _shallow(row)
        line = one_line(row)
        assert b"\n" not in line
        assert b"\r" not in line
        assert _witness(line) is _NOTHING or _same(_witness(line), sent)
    if made[UserProfile] is not None:
        _try_record(raw, made[UserProfile], sent)
    _try_parts(raw, sent)


def _try_record(raw: bytes, profile: UserProfile, sent: Any) -> None:
    """Hold that a record keeps what was sent, and is the same whichever way it was made."""
    assert profile.raw == raw
    assert repr(profile)
    if not isinstance(sent, dict):
        return
    slowly, misfits = structure_leniently(UserProfile, sent)
    assert _same(slowly._values(), profile._values())
    assert profile._misfits <= misfits | profile._misfits
    empty, extra = UserProfile(), profile.extra
    for name, value in sent.items():
        if value not in (None, [], {}) and str(value).lower() != "null":  # as text it counts too
            known = name in empty._names()
            left = known and getattr(profile, name) != getattr(empty, name)
            assert name in extra or left, (name, value)
            assert known or _same(extra[name], value)
    for name, value in profile._values().items():
        assert not isinstance(value, str) or value == str(sent[name])
    written = dumps(profile._values())
    if _writable(profile):
        assert decode_profile(written) == profile


def _writable(profile: UserProfile) -> bool:
    """Say whether JSON can hold all that is in the record: every number, and every offset."""
    numbers = [profile.total_revenue or 0, *profile.last_coordinates]
    sound = all(isinstance(number, int) or math.isfinite(number) for number in numbers)
    moments = (value for value in profile._values().values() if isinstance(value, datetime))
    offsets = (moment.utcoffset() for moment in moments)
    sound = sound and not any(offset and offset.total_seconds() % 60 for offset in offsets)
    return sound and not profile.custom_attributes


def _try_parts(raw: bytes, sent: Any) -> None:
    names = identity(raw)
    if isinstance(_witness(raw, once=True), dict):
        ids = (sent.get("external_id"), sent.get("braze_id"))
        if all(one is None or (isinstance(one, str) and is_unicode(one)) for one in ids):
            assert names == tuple(one for one in ids if one)[:1]
        left = without(msgspec.Raw(raw), ("email", "apps"))
        kept = {key: value for key, value in sent.items() if key not in {"email", "apps"}}
        assert _same(loads(left), kept)


def _try_answer(body: bytes) -> None:
    sent = _witness(body, once=True)
    try:
        answer = split_ids_answer(body, EXPORT_IDS)
    except DecodeError as error:
        _told(error)
        assert not _is_answer(sent)
        return
    for user in answer.users:
        assert bytes(user) in body
    assert answer.broken or not any(b"\n" in bytes(user) for user in answer.users)
    assert all(message.isprintable() for message in answer.errors)
    if sent is not _NOTHING:
        assert _same([loads(user) for user in answer.users], sent.get("users") or [])
    for user in answer.users[:5]:
        _try_profile(bytes(user))
    _try_sorted(answer, sent)


def _is_answer(sent: Any) -> bool:
    if not isinstance(sent, dict):
        return False
    users = sent.get("users")
    return isinstance(users, list) or (users is None and bool(sent.get("invalid_user_ids")))


def _try_sorted(answer: IdsAnswer, sent: Any) -> None:
    """Hold that each identifier of a request comes out in one place, and in one only."""
    users = (sent.get("users") or []) if isinstance(sent, dict) else []
    ids = [user.get("external_id") for user in users[:40] if isinstance(user, dict)]
    names: list[Identifier] = [name for name in ids if isinstance(name, str) and _sendable(name)]
    batch = Batch(tuple(dict.fromkeys([*names, "nobody", UserAlias("n", "l")])))
    found = sort(batch, read(batch, answer))
    places = [*found.found, *found.failed, *found.unknown, *found.silent]
    assert len(places) == len(batch.identifiers)
    assert set(places) == set(batch.identifiers)
    assert set(names) <= set(found.found)
    assert 0 <= found.strangers <= len(answer.users)
    for name, user in found.found.items():
        if isinstance(name, str):
            assert loads(user)["external_id"] == name


def _sendable(name: str) -> bool:
    return bool(name.strip()) and is_unicode(name)


def _try_error(status: int, body: bytes) -> None:
    key = ApiKey(KEY)
    response = Response(status, {}, body)
    message, errors = read_error(response, key.redact)
    for line in (message, *errors):
        assert line.isprintable()
        assert len(line) <= 300
        assert KEY not in line
        line.encode()
    request = Request(EXPORT_IDS, "https://rest.example.com", key, "fuzz", Timeouts())
    try:
        check(request, response, now=1e9)
    except APIError as error:
        assert str(error).isprintable()
        assert KEY not in str(error)
    else:
        raise AssertionError("an error was taken for a success")


def _try_object(body: bytes) -> None:
    sent = _witness(body)
    try:
        answer = decode_object(body, SEGMENTS_LIST)
    except DecodeError as error:
        _told(error)
        assert not isinstance(sent, dict)
        return
    assert sent is _NOTHING or _same(answer, sent)
    try:
        made = records(answer, "segments", Segment, SEGMENTS_LIST)
    except DecodeError:
        assert not isinstance(answer.get("segments"), list)
    else:
        assert len(made) == sum(isinstance(item, dict) for item in answer["segments"])
