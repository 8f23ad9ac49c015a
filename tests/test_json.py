import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export._json import dumps, items, loads, members
from braze_export.models.profile import Device
from tests.payloads import encode, values


@given(values)
def test_everything_json_comes_back(value: Any) -> None:
    raw = encode(value)
    expected = json.loads(raw)
    for form in (raw, memoryview(raw), msgspec.Raw(raw)):
        found = loads(form)
        assert found == expected
        assert type(found) is type(expected)


@given(st.binary() | st.text('[]{}",:\\ud8305eE+-. tfn', max_size=30).map(str.encode))
def test_any_bytes_give_a_value_or_a_value_error(raw: bytes) -> None:
    try:
        loads(raw)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says
            json.loads(raw.decode("utf-8-sig"))
    for split in (members, items):
        try:
            parts: Any = split(raw)
        except ValueError:
            continue
        assert loads(raw) == (
            {key: loads(part) for key, part in parts.items()}
            if split is members
            else [loads(part) for part in parts]
        )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'"\\ud83d"', "\ud83d"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xed\xa0\xbd"', "\ud83d"),
        ('"a\u2028b"'.encode(), "a\u2028b"),
        (b"18446744073709551616", 2**64),
        (b"-18446744073709551617", -(2**64) - 1),
        (b"1" * 4300, int("1" * 4300)),
        (b"1e999", math.inf),
        (b"\xef\xbb\xbf[1]", [1]),
        (b' {"a" : 1}\r\n', {"a": 1}),
    ],
)
def test_what_is_read(raw: bytes, expected: Any) -> None:
    assert loads(raw) == expected


def test_not_a_number_is_read() -> None:
    assert math.isnan(loads(b"NaN"))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"[1,]",
        b"'a'",
        b"1 2",
        b'"\xff"',
        b"[" * 100_000,
        b"1" * 4301,
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_is_no_json(raw: bytes) -> None:
    for read in (loads, members, items):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says
            read(raw)


@given(st.lists(values, max_size=4), st.sampled_from(["", " ", "\r\n\t "]))
def test_items_are_cut_out_as_they_stand(sent: list[Any], gap: str) -> None:
    pieces = [encode(value) for value in sent]
    comma = f"{gap},{gap}".encode()
    raw = f"{gap}[{gap}".encode() + comma.join(pieces) + f"{gap}]{gap}".encode()
    assert items(raw) == pieces


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), values, max_size=4),
    st.sampled_from(["", " ", "\n\t"]),
)
def test_members_are_cut_out_as_they_stand(sent: dict[str, Any], gap: str) -> None:
    pieces = {key: encode(value) for key, value in sent.items()}
    colon = f"{gap}:{gap}".encode()
    pairs = [encode(key) + colon + piece for key, piece in pieces.items()]
    raw = f"{gap}{{{gap}".encode() + f"{gap},{gap}".encode().join(pairs) + f"{gap}}}".encode()
    assert members(raw) == pieces


def test_of_equal_keys_the_last_counts() -> None:
    assert members(b'{"a": 1, "\\u0061": [2]}') == {"a": b"[2]"}


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"a"'])
def test_members_are_of_objects(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no object"):
        members(raw)


@pytest.mark.parametrize("raw", [b"{}", b"1", b"null", b'"a"'])
def test_items_are_of_arrays(raw: bytes) -> None:
    with pytest.raises(ValueError, match="no array"):
        items(raw)


@given(values)
def test_what_is_written_can_be_read(value: Any) -> None:
    sound = json.loads(encode(value))
    assert loads(dumps(sound)) == sound


@pytest.mark.parametrize("text", ["Pixel", "Zoë", "\ud83d"])
def test_records_are_written_as_objects(text: str) -> None:
    assert loads(dumps([Device(model=text)]))[0]["model"] == text
