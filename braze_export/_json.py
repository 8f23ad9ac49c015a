"""JSON bytes to plain values, and nothing lost on the way."""

import json
from typing import Any

import msgspec

_decoder = msgspec.json.Decoder()


def loads(raw: bytes | memoryview | msgspec.Raw) -> Any:
    """Decode JSON. Integers of any size stay integers.

    Raises:
        ValueError: this is not JSON.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # msgspec refuses lone surrogates and numbers that no float holds; Braze may send both.
        try:
            return json.loads(bytes(raw))
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
