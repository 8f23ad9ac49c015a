import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from itertools import islice
from random import Random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export.archives import inflate as _inflate
from braze_export.archives.inflate import ERRORS, GZIP, PIECE, RAW, SLICE, Inflater
from tests.archives.making import cut, deflate, endless_gzip, gzip_of, ways

MODULES = [zlib] if _inflate._fast is zlib else [zlib, _inflate._fast]
RANDOM = Random(1).randbytes(3000)


@pytest.fixture(autouse=True, params=MODULES, ids=lambda module: module.__name__, scope="module")
def module(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inflate, "_fast", request.param)
        yield request.param


def inflate(pieces: list[bytes], wbits: int) -> tuple[bytes, bool, bytes]:
    """Return what comes out, whether the end was found, and what stands behind it."""
    inflater, found = Inflater(wbits), bytearray()
    for number, piece in enumerate(pieces):
        for part in inflater.pieces(piece):
            assert 0 < len(part) <= PIECE
            found += part
        if inflater.finished:
            return bytes(found), True, inflater.unused + b"".join(pieces[number + 1 :])
    return bytes(found), False, b""


def packed(data: bytes, wbits: int, level: int = 6) -> bytes:
    return deflate(data, level, wbits)


CONTENTS = {
    "nothing": b"",
    "a byte": b"a",
    "text": b'{"external_id": "u1"}\n' * 50,
    "what does not pack": RANDOM,
    "one piece": bytes(PIECE),
    "one piece less one": bytes(PIECE - 1),
    "one piece and one": bytes(PIECE + 1),
    "three pieces": b"ab" * (3 * PIECE // 2),
    "a hundred to one": (bytes(98) + b"xy") * 5000,
}


@pytest.mark.parametrize("behind", [b"", b"\0", b"PK\x07\x08 and more", RANDOM])
@pytest.mark.parametrize("wbits", [RAW, GZIP])
@pytest.mark.parametrize("content", CONTENTS)
def test_what_was_deflated_comes_back_however_it_is_cut(
    content: str, wbits: int, behind: bytes
) -> None:
    data = CONTENTS[content]
    for pieces in ways(packed(data, wbits) + behind):
        assert inflate(pieces, wbits) == (data, True, behind)


@given(
    st.lists(st.sampled_from([b"a", b"b\n", bytes(1000), RANDOM[:40], RANDOM[:400]])).map(b"".join),
    st.sampled_from([RAW, GZIP]),
    st.integers(0, 9),
    st.lists(st.integers(0, 1000)),
    st.binary(max_size=20),
)
def test_all_levels(data: bytes, wbits: int, level: int, cuts: list[int], behind: bytes) -> None:
    pieces = cut(packed(data, wbits, level) + behind, cuts)
    assert inflate(pieces, wbits) == (data, True, behind)


@pytest.mark.parametrize("flags", range(32))
def test_a_gzip_header_may_have_fields_and_come_in_parts(flags: int) -> None:
    stream = gzip_of(b"text" * 20, flags=flags)
    assert gzip.decompress(stream) == b"text" * 20
    for place in range(1, len(stream)):
        assert inflate([stream[:place], stream[place:]], GZIP) == (b"text" * 20, True, b"")
    for pieces in ways(stream + b"behind"):
        assert inflate(pieces, GZIP) == (b"text" * 20, True, b"behind")


def test_a_gzip_header_has_an_end() -> None:
    head = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"
    name = b"n" * 100_000
    stream = head + name + b"\0" + gzip_of(b"text")[10:]
    assert inflate(cut(stream, range(0, len(stream), 1000)), GZIP) == (b"text", True, b"")

    name *= 2
    stream = head + name + b"\0" + gzip_of(b"text")[10:]
    for pieces in ([stream], cut(stream, range(0, len(stream), 1000)), [head, name]):
        with pytest.raises(ERRORS, match="header is too long"):
            inflate(pieces, GZIP)


@pytest.mark.parametrize("wbits", [RAW, GZIP])
@pytest.mark.parametrize("content", ["text", "what does not pack", "one piece"])
def test_a_stream_that_is_cut_off_has_no_end(content: str, wbits: int) -> None:
    data = CONTENTS[content]
    stream = packed(data, wbits)
    inflater, found = Inflater(wbits), b""
    for place in range(len(stream)):
        assert not inflater.finished, place
        found += b"".join(inflater.pieces(stream[place : place + 1]))
    assert inflater.finished
    assert found == data
    for place in range(0, len(stream), 1 + len(stream) // 200):
        found, finished, _ = inflate([stream[:place]] if place else [], wbits)
        assert data.startswith(found)
        assert not finished


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("wbits", [RAW, GZIP])
def test_every_flipped_bit_is_an_error_or_changes_the_checksum(
    wbits: int, *, one_by_one: bool
) -> None:
    data = b'{"a": 1, "b": "hello"}\n' * 3 + RANDOM[:9]
    stream = gzip_of(data, flags=31) if wbits == GZIP else packed(data, wbits)
    for place, bit in ((place, bit) for place in range(len(stream)) for bit in range(8)):
        flipped = stream[:place] + bytes([stream[place] ^ 1 << bit]) + stream[place + 1 :]
        try:
            found, finished, _ = inflate(
                cut(flipped, range(len(flipped)) if one_by_one else ()), wbits
            )
        except ERRORS:
            continue
        if finished and wbits == GZIP:
            assert found == data  # a bit that means nothing, in the padding before the checksum
        elif finished:
            assert found == data or zlib.crc32(found) != zlib.crc32(data)


@pytest.mark.parametrize("tail", [b"\0" * 8, b"crc?", b"\xff" * 8])
def test_checksum_and_length_of_gzip_are_checked(tail: bytes) -> None:
    stream = gzip_of(b"text")
    for wrong in (
        stream[:-8] + (tail * 2)[:8],
        stream[:-4] + tail[:4],
        stream[:-8] + tail[:4] + stream[-4:],
    ):
        for pieces in ways(wrong):
            with pytest.raises(ERRORS):
                inflate(pieces, GZIP)


@given(st.binary(), st.sampled_from([RAW, GZIP]), st.lists(st.integers(0, 100)))
def test_garbage_is_an_error_or_has_no_end(data: bytes, wbits: int, cuts: list[int]) -> None:
    for stream in (data, b"\x1f\x8b\x08" + data):
        try:
            inflate(cut(stream, cuts), wbits)
        except ERRORS:
            continue


def test_a_bomb_comes_out_piece_by_piece() -> None:
    whole = b"".join(islice(endless_gzip(), 65))  # a megabyte of a gigabyte of zeros
    assert len(whole) > SLICE
    inflater = Inflater(GZIP)
    tracemalloc.start()
    try:
        for number, piece in enumerate(inflater.pieces(whole)):
            assert len(piece) <= PIECE
            if number == 100:
                break
        assert tracemalloc.get_traced_memory()[1] < 4 * (len(whole) + PIECE)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("version", "sound"),
    [("1.7.0", False), ("1.8.0", False), ("1.9.0", True), ("1.10.2", True), ("2.0.0", True),
     ("1.9", True), ("dev", False), ("", False)],
)  # fmt: skip
def test_only_sound_versions_of_isal_are_used(version: str, sound: bool) -> None:
    assert _inflate._is_sound(version) is sound
