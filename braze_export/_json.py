"""JSON bytes to plain values, and nothing lost on the way."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_decoder = msgspec.json.Decoder()
_value_at = json.JSONDecoder().raw_decode


def loads(raw: bytes | memoryview | msgspec.Raw) -> Any:
    """Decode JSON. Integers stay integers, up to the number of digits that Python allows.

    Raises:
        ValueError: this is not JSON.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec refuses lone surrogates and numbers that no float holds; Braze may send both.
        try:
            return json.loads(_text(raw))
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None


def read_part(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T | None:
    """Decode the few keys that a decoder asks for; ``None`` where that cannot be done.

    What msgspec refuses in other keys, half an emoji say, must not hide these.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return msgspec.convert(loads(raw), decoder.type)
        except (msgspec.ValidationError, ValueError, RecursionError):
            return None


def dumps(value: Any) -> bytes:
    """Encode as JSON, records and lone surrogates too."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value)).encode()


def writable(text: str) -> str:
    """Return text as valid Unicode: what cannot be encoded is a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def one_line(raw: bytes) -> bytes:
    """Return JSON without line breaks: as it is, where it has none."""
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    try:
        return msgspec.json.format(raw, indent=-1)
    except msgspec.DecodeError:
        # Half of a pair of escapes, say. A line break in JSON is white space wherever it stands.
        return raw.replace(b"\r", b" ").replace(b"\n", b" ")


def members(raw: bytes) -> dict[str, bytes]:
    """Return the values of an object, each as the JSON that stands there.

    The slow way, for what msgspec refuses to split.

    Raises:
        ValueError: this is not JSON, or no object.
    """
    if not isinstance(loads(raw), dict):
        raise ValueError("no object")  # noqa: TRY004 - the data is wrong, not its Python type
    pieces = _pieces(_text(raw))
    return {json.loads(key): _bytes(value) for key, value in zip(pieces, pieces, strict=True)}


def items(raw: bytes) -> list[bytes]:
    """Return the items of an array, each as the JSON that stands there.

    Raises:
        ValueError: this is not JSON, or no array.
    """
    if not isinstance(loads(raw), list):
        raise ValueError("no array")  # noqa: TRY004 - the same
    return [_bytes(piece) for piece in _pieces(_text(raw))]


def _pieces(text: str) -> Iterator[str]:
    """Yield what stands in an array or object known to be sound: of an object keys and values."""
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] not in "]}":
        _, end = _value_at(text, at)
        yield text[at:end]
        at = _skip(text, end)
        if text[at] in ",:":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _text(raw: bytes | memoryview | msgspec.Raw) -> str:
    return bytes(raw).removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
