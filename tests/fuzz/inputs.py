"""What users give: files of identifiers in every format, identifiers, addresses, callbacks.

The witnesses read a file as a whole, with nothing but the standard library.
"""

import csv
import gzip
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx
from backports import zstd
from click import UsageError
from yarl import URL

from braze_export.callbacks import check_base, parse
from braze_export.cli.connection import _of_file
from braze_export.cli.options import names
from braze_export.downloads.links import check_link
from braze_export.errors import DecodeError, InputError
from braze_export.identifiers import (
    EmailAddress,
    UserAlias,
    check_identifier,
    check_name,
    check_prefix,
)
from braze_export.instances import resolve_base_url
from braze_export.jobs.kinds import parse_kind
from braze_export.jobs.reading import compression
from braze_export.jobs.reading.inputs import format_of, open_input
from braze_export.jobs.values import Input, InputFormat, Table, Unusable
from braze_export.models.fields import check_fields
from braze_export.models.timestamps import parse_moment
from braze_export.wire import ApiKey
from tests.fuzz.drawing import Draw, scratch_file

LONGEST: Final = 4096
WORDS: Final = (
    *(b"\r\n", b"\n", b"\r", b'"', b'""', b",", b";", b"\t", b"\0", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"external_id", b"email", b"a.b", b"id", b'{"id":1}\n', b'{"id":1.0}\n', b'{"id":"x"}\n'),
    *(b'{"a":{"b":2}}\n', b'{"a.b":null,"a":{"b":"c"}}\n', b"null\n", b"true\n", b"1e3\n", b"-0\n"),
    *(
        b'"\\ud83d"\n',
        b'"a\\nb"\n',
        b"9" * 20,
        b"\x1f\x8b\x08",
        b"\x28\xb5\x2f\xfd",
        b"\x50\x2a\x4d\x18",
    ),
    *(
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\x1c",
        b"\xed\xa0\x80",
        b"PAR1",
        b"US-01",
        b"alias:",
        b"https://",
    ),
    *(
        b'"success":true',
        b'"url":null',
        b"{",
        b"}",
        b"2026-01-31T00:00:00+00:00",
        b"@",
        b"[::1]",
        b":0",
    ),
)
_FORMS: Final[tuple[InputFormat, ...]] = ("lines", "csv", "ndjson")
_ENCODINGS: Final = ("utf-8", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "shift_jis")
_COLUMNS: Final = (None, "id", "external_id", "a.b", "a", "a..b", "email")
_PLACE: Final = scratch_file()
_SHOWN: Final = 1000
_PIECES: Final = (compression.PIECE, 9, 50)
Rows = list[str | None]  # None: something that cannot be an identifier


def seeds() -> Iterator[bytes]:
    rows = b'external_id,email\r\na,b@example.com\n"c\nd",\n\n e ,f\n'
    objects = b'{"id":"a","a":{"b":7}}\n{"id":null}\n\n{"id":"b","a":null,"a.b":"c"}\n[1]\n'
    for form, text in (
        (0, b"a\r\n\n b \nc\r\rd\nlast"),
        (1, rows),
        (2, objects),
        (2, b'"a"\n17\n'),
    ):
        for packing in range(4):
            yield bytes([form, packing, 0, 0, 0, packing]) + text
        yield bytes([form, 0, 3, 0, 0, 1]) + text.decode().encode("utf-16")
        yield bytes([form, 0, 0, 1, 0, 2]) + text
        yield bytes([form, 3, 0, 0, 0, 1]) + gzip.compress(text, mtime=0) + bytes(9)
        yield bytes([form, 3, 0, 0, 0, 1]) + zstd.compress(text)
    for word in WORDS:
        yield b"\3" + word
    yield b'\3"success": "true", "url": "https://x"'
    yield b"\3https://rest.iad-01.braze.com/"
    yield b"\3alias:label"


def try_one(data: bytes) -> None:
    draw = Draw(data)
    kind = draw.number(3)
    if kind == 3:
        _try_word(draw.rest())
        return
    packing, encoding = draw.number(3), draw.one_of(_ENCODINGS)
    column, delimiter = draw.one_of(_COLUMNS), draw.one_of((None, ";", "\t", "x", "é"))
    piece, body = draw.one_of(_PIECES), draw.rest()
    source = Input(
        path=_PLACE,
        format=_FORMS[kind],
        column=column if kind else None,
        encoding=encoding,
        delimiter=delimiter if kind == 1 else None,
    )
    _PLACE.write_bytes(_packed(body, packing))
    with _read_in(piece):
        _hold(source, _text(body, encoding) if packing < 3 else None)


@contextmanager
def _read_in(piece: int) -> Iterator[None]:
    """Read files in pieces so small that lines, letters and archives are cut anywhere."""
    before = compression.PIECE
    compression.PIECE = piece  # type: ignore[misc] # it is final for all others
    try:
        yield
    finally:
        compression.PIECE = before  # type: ignore[misc] # the same


def _packed(body: bytes, packing: int) -> bytes:
    if packing == 1:
        return gzip.compress(body[:100], 1, mtime=0) + gzip.compress(body[100:], 1, mtime=0)
    return zstd.compress(body[:50]) + zstd.compress(body[50:]) if packing == 2 else body


def _text(body: bytes, encoding: str) -> str | None:
    """Return the text of a file, or ``None`` where it is none, or looks like another file."""
    if body.startswith((b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd")) or body[1:4] == b"\x2a\x4d\x18":
        return None
    if encoding == "utf-16" and not body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    try:
        text = body.decode(encoding)
    except UnicodeError:
        return None
    return None if "\0" in text else text.removeprefix("\ufeff")


def _hold(source: Input, text: str | None) -> None:
    """Hold that a file is read as its witness reads it, or refused for a reason."""
    right = None if text is None else _witness(source, text)
    try:
        found = _read(source)
    except InputError as error:
        assert "\n" not in str(error), error
        assert right is None, error
        return
    assert right is None or found == right, (found, right)


def _read(source: Input) -> Rows:
    reader = open_input(source, "external_id")
    try:
        rows: Rows = []
        for block in reader.blocks():
            assert 0 < len(block) <= 8192
            for item in block:
                if isinstance(item, Unusable):
                    assert len(item.text) <= _SHOWN
                    item.text.encode()
                    rows.append(None)
                else:
                    assert check_identifier(item) == item
                    assert "\n" not in item
                    assert "\r" not in item
                    rows.append(item)
        assert reader.read_bytes == source.path.stat().st_size
        assert reader.blank >= 0
        return rows
    finally:
        reader.close()


def _witness(source: Input, text: str) -> Rows | None:
    """Return what stands in a file; ``None`` where the witness has no opinion."""
    if source.format == "csv":
        return _csv(text, source.column, source.delimiter or ",")
    return _ndjson(text, source.column) if source.format == "ndjson" else _lines(text)


def _sifted(texts: list[str | None]) -> Rows:
    kept = [text for text in texts if text is None or (text and not text.isspace())]
    return [None if text is None or _broken(text) else text for text in kept]


def _broken(text: str) -> bool:
    return "\n" in text or "\r" in text or any("\ud800" <= c <= "\udfff" for c in text)


def _lines(text: str) -> Rows:
    return _sifted([line.removesuffix("\r") for line in text.split("\n")])


def _csv(text: str, column: str | None, delimiter: str) -> Rows | None:
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header, *rest = list(rows) or [[]]
    except (csv.Error, ValueError):
        return None
    if column is None or header.count(column) != 1:
        return None  # which column it is, the reader decides
    at = header.index(column)
    return _sifted([row[at] if len(row) > at else None for row in rest if row])


def _ndjson(text: str, column: str | None) -> Rows | None:
    lines = [line for line in text.split("\n") if line.strip()]
    values = [_value(line) for line in lines]
    if column is None:
        first = values[0] if values else None
        if not isinstance(first, str | int):
            return None  # which key it is, the reader decides
        return _sifted([_name(value) for value in values])
    under = [_under(value, column) for value in values]
    if not any(found for found, _ in under):
        return None
    return _sifted([_name(value) for _, value in under])


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return _ODD


_ODD: Final = object()


def _under(value: Any, column: str) -> tuple[bool, Any]:
    """Return whether there is something under a path of keys, and what."""
    if not isinstance(value, dict):
        return False, _ODD
    if column in value:
        return True, value[column]
    for key in column.split("."):
        if value is None:
            return True, None
        if not isinstance(value, dict) or key not in value:
            return False, None
        value = value[key]
    return True, value


def _name(value: Any) -> str | None:
    if value is None:
        return ""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _try_word(raw: bytes) -> None:
    """Whatever is typed, or posted, is taken or refused in our own words."""
    word = raw.decode("utf-8", "surrogateescape")
    _try_callback(raw)
    _try_key(raw, word)
    _try_addresses(word)
    for check in (check_identifier, EmailAddress, check_prefix):
        _refused(check, word)
    _refused(lambda text: UserAlias(text, text), word)
    _refused(lambda text: check_name(text, "it"), word)
    moment = _refused(lambda text: parse_moment(text, "it"), word)
    assert moment is None or moment.tzinfo is UTC
    kind = _refused(parse_kind, word)
    assert kind is None or str(kind) == word
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _refused(check_fields, [word, "email"])
    assert all(name.strip() for name in names([word]) or ())
    _refused(lambda text: Table(destination=text), word)
    _refused(lambda text: format_of(Input(path=text)), word)
    _refused(lambda text: open_input(Input(path=text + "/x", encoding=text), "email"), word)
    _PLACE.write_bytes(b"a,b\n1,2\n")
    _refused(lambda text: _read(Input(path=_PLACE, encoding=text)), word)
    _refused(lambda text: _read(Input(path=_PLACE, format="csv", column=text)), word)
    _refused(lambda text: _read(Input(path=_PLACE, format="ndjson", column=text)), word)
    _refused(lambda text: _read(Input(path=_PLACE, format="csv", delimiter=text)), word)


def _refused(check: Callable[[Any], Any], given: Any) -> Any:
    """Return what is made of a word, or ``None`` if it is refused."""
    try:
        return check(given)
    except InputError as error:
        assert str(error)
        return None


def _try_callback(raw: bytes) -> None:
    try:
        result = parse(raw)
    except DecodeError as error:
        assert error.status == 400
        assert str(error).isprintable()
        return
    text = raw.removeprefix(b"\xef\xbb\xbf").strip().decode("utf-8", "surrogatepass")
    sent = json.loads(f"{{{text}}}" if text.startswith('"') else text)
    assert sent["success"] in (result.success, str(result.success).lower())
    assert (sent.get("url") or None) == result.url


def _try_key(raw: bytes, word: str) -> None:
    key = _refused(ApiKey, word)
    if key is not None:
        assert len(word) < 8 or word not in repr(key)
        header = key.bearer()
        assert header.isascii()
        assert header.isprintable()
        assert "*" in word or word not in key.redact(f"a {word} b")
    _PLACE.write_bytes(raw)
    os.chmod(_PLACE, 0o600)
    try:
        read = _of_file(_PLACE, None)  # type: ignore[arg-type] # nothing is shown
    except UsageError:
        return
    assert read == word.removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")


def _try_addresses(word: str) -> None:
    """Hold that every library takes the same host out of an address that is taken."""
    base = _refused(resolve_base_url, word)
    if base is not None:
        _hold_host(f"{base}/users")
    link = _refused(check_link, word)
    if link is not None:
        _hold_host(link)
    _refused(check_base, word)


def _hold_host(url: str) -> None:
    host = urlsplit(url).hostname
    with suppress(UnicodeError, httpx.InvalidURL):  # which transports take for "no such host"
        assert (URL(url, encoded=True).host or "").lower() == host
        assert unquote(httpx.URL(url).host).lower() == host
