import gzip
import random
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from braze_export import InputError
from braze_export.jobs.reading.compression import (
    PIECE,
    Codec,
    Gzip,
    Pieces,
    Plain,
    Zstd,
    codec_for,
    open_decompressed,
)

CODECS: list[Codec] = [Plain(), Gzip(), Zstd()]
PACKING: list[Codec] = [Gzip(), Zstd()]
NOISE = random.Random(5).randbytes(3 * PIECE)
SKIPPED = b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"


def unpacked(path: Path) -> bytes:
    with open_decompressed(path) as file:
        return file.read()


def written(folder: Path, data: bytes, name: str = "ids") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("codec", CODECS)
@given(members=st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_members_put_together_are_a_file(codec: Codec, members: list[bytes]) -> None:
    members = [b"text: " + member for member in members]  # nothing that looks packed
    with TemporaryDirectory() as folder:
        data = b"".join(map(codec.compress, members))
        assert unpacked(written(Path(folder), data)) == b"".join(members)


@pytest.mark.parametrize("codec", CODECS)
def test_large_files_come_in_small_pieces(codec: Codec, tmp_path: Path) -> None:
    data = b"text" + NOISE + bytes(5 * PIECE)
    path = written(tmp_path, codec.compress(data) + codec.compress(data))
    pieces = Pieces(path)
    found = list(pieces)
    pieces.close()
    assert b"".join(found) == data + data
    assert max(map(len, found)) <= PIECE
    assert pieces.consumed == path.stat().st_size


def test_other_programs_read_what_is_written() -> None:
    assert gzip.decompress(Gzip().compress(b"one") + Gzip().compress(b"two")) == b"onetwo"
    assert zstd.decompress(Zstd().compress(b"one") + Zstd().compress(b"two")) == b"onetwo"


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_data_give_the_same_bytes(codec: Codec) -> None:
    assert codec.compress(NOISE) == codec.compress(NOISE)


def test_gzip_holds_no_time() -> None:
    assert Gzip().compress(b"x")[4:8] == bytes(4)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.ndjson", Plain),
        ("a", Plain),
        ("a.gz.ndjson", Plain),
        ("a.ndjson.gz", Gzip),
        ("A.GZ", Gzip),
        ("a.ndjson.zst", Zstd),
    ],
)
def test_the_name_tells_how_to_compress(name: str, kind: type[Codec]) -> None:
    codec = codec_for(Path(name))
    assert type(codec) is kind
    assert name.lower().endswith(codec.suffix)


@pytest.mark.parametrize("codec", PACKING)
def test_a_file_that_is_cut_off_says_so(codec: Codec, tmp_path: Path) -> None:
    whole = codec.compress(b"some text " * 20)
    for size in range(4, len(whole)):
        path = written(tmp_path, (whole + whole)[: len(whole) + size])
        with pytest.raises(InputError, match=r"ids is cut off: it is no whole (gzip|Zstandard)"):
            unpacked(path)


@pytest.mark.parametrize("codec", PACKING)
def test_a_damaged_file_says_so(codec: Codec, tmp_path: Path) -> None:
    whole = bytearray(codec.compress(NOISE))
    whole[len(whole) // 2] ^= 1
    with pytest.raises(InputError, match="ids is damaged"):
        unpacked(written(tmp_path, bytes(whole)))


@pytest.mark.parametrize("codec", PACKING)
def test_something_else_behind_the_end_is_damage(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ids is damaged"):
        unpacked(written(tmp_path, codec.compress(b"text") + b"something else that is longer"))


def test_padding_of_gzip_is_passed_over(tmp_path: Path) -> None:
    member = Gzip().compress(b"text")
    for padding in (1, 500, 3 * PIECE):
        path = written(tmp_path, member + bytes(padding) + member + bytes(padding))
        assert unpacked(path) == b"texttext"


def test_frames_for_others_are_passed_over(tmp_path: Path) -> None:
    frame = Zstd().compress(b"text")
    assert unpacked(written(tmp_path, SKIPPED + frame + SKIPPED + frame)) == b"texttext"


@pytest.mark.parametrize(
    "data", [b"", b"\x1f", b"\x1f\x8b", b"\x28\xb5\x2f", b"(text)", SKIPPED[1:]]
)
def test_what_only_resembles_is_taken_as_it_is(data: bytes, tmp_path: Path) -> None:
    assert unpacked(written(tmp_path, data)) == data


def test_a_file_can_be_read_line_by_line(tmp_path: Path) -> None:
    with open_decompressed(written(tmp_path, Gzip().compress(b"a\nb\n"))) as file:
        assert list(file) == [b"a\n", b"b\n"]
    assert file.closed


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, Zstd().compress(b"text"))
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    for attempt in (lambda: codec_for(Path("a.zst")), lambda: open_decompressed(path)):
        with pytest.raises(InputError, match=r'pip install "braze-export\[zstd\]"'):
            attempt()


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none cannot be read \(No such file"):
        open_decompressed(tmp_path / "none")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        open_decompressed(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        open_decompressed(Path("a\0b"))
