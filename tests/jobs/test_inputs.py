import hashlib
import io
import random
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from backports import zstd

from braze_export import InputError
from braze_export.jobs.reading.compression import Gzip
from braze_export.jobs.reading.inputs import fingerprint, format_of, open_input
from braze_export.jobs.values import Input, Unusable


def written(folder: Path, data: str | bytes, name: str = "ids") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(path: Path, kind: str = "external_id", **options: Any) -> tuple[list[Any], int]:
    """Return all identifiers, and how many rows have none; of what is none text and reason."""
    reader = open_input(Input(path=path, **options), kind)
    try:
        items = [item for block in reader.blocks() for item in block]
        assert reader.read_bytes == path.stat().st_size
    finally:
        reader.close()
        reader.close()
    return [(i.text, i.reason) if isinstance(i, Unusable) else i for i in items], reader.blank


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ids", "lines"),
        ("ids.txt", "lines"),
        ("csv", "lines"),
        ("ids.csv", "csv"),
        ("IDS.CSV", "csv"),
        ("ids.tsv", "csv"),
        ("ids.csv.gz", "csv"),
        ("ids.tsv.zst", "csv"),
        ("ids.ndjson", "ndjson"),
        ("ids.jsonl", "ndjson"),
        ("ids.jsonl.zst", "ndjson"),
        ("ids.parquet", "parquet"),
        ("ids.csv.bak", "lines"),
        ("ids.gz", "lines"),
    ],
)
def test_the_name_tells_the_format(name: str, form: str) -> None:
    assert format_of(Input(path=Path("folder.csv") / name)) == form


def test_a_format_that_is_named_goes_first() -> None:
    assert format_of(Input(path=Path("a.csv"), format="lines")) == "lines"
    odd: Any = "xml"
    with pytest.raises(InputError, match="allowed are lines, csv, ndjson, parquet"):
        format_of(Input(path=Path("a.csv"), format=odd))


@pytest.mark.parametrize("name", ["ids", "ids.csv", "ids.ndjson", "ids.parquet"])
def test_what_cannot_be_opened_says_why(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match=rf"{name} cannot be read \(No such file"):
        open_input(Input(path=path), "email")
    with pytest.raises(InputError, match=rf"{name} cannot be read \(No such file"):
        fingerprint(path)
    path.mkdir()
    with pytest.raises(InputError, match=rf"{name} cannot be read \(Is a directory"):
        open_input(Input(path=path), "email")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        fingerprint(path)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("ids", {"column": "id"}, "lines, which have no columns: name its format, one of csv"),
        ("ids", {"delimiter": ";"}, "read as lines: a delimiter is for CSV alone"),
        ("ids.parquet", {"delimiter": ";"}, "read as parquet: a delimiter"),
        ("ids", {"encoding": "utf-9"}, "encoding is 'utf-9': allowed are .* such as utf-8"),
        ("ids", {"encoding": "hex"}, "encoding is 'hex'"),
        ("ids", {"encoding": "a\0b"}, "encoding is"),
        ("ids.csv", {"encoding": ""}, "encoding is ''"),
        ("ids.ndjson", {"encoding": "rot13"}, "encoding is 'rot13'"),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(
    name: str, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "id\n1\n", name)
    with pytest.raises(InputError, match=reason):
        open_input(Input(path=path, **options), "external_id")


def test_the_fingerprint_is_of_the_bytes(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(700_000)
    path = written(tmp_path, data)
    expected = hashlib.blake2b(data, digest_size=32).hexdigest()
    assert fingerprint(path) == f"blake2b:{expected}"
    assert fingerprint(written(tmp_path, data, "copy")) == fingerprint(path)
    assert fingerprint(written(tmp_path, data[:-1], "other")) != fingerprint(path)


@pytest.mark.parametrize("name", ["ids", "ids.csv", "ids.ndjson"])
@pytest.mark.parametrize("pack", [Gzip().compress, zstd.compress])
def test_compressed_files_are_read_as_others(name: str, pack: Any, tmp_path: Path) -> None:
    texts = [f"user-{number}" for number in range(30_000)]
    lines = ['"id"', *(f'"{text}"' for text in texts)]
    data = "\n".join(lines if name == "ids.csv" else lines[1:] if "ndjson" in name else texts)
    packed = pack(data[:5000].encode()) + pack(data[5000:].encode())
    assert read(written(tmp_path, packed, name)) == (texts, 0)


@pytest.mark.parametrize("name", ["ids", "ids.csv", "ids.ndjson"])
def test_a_damaged_file_is_an_error_with_its_name(name: str, tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(100_000).hex()
    header = "id" if name == "ids.csv" else "1"
    lines = [header, *(noise[n : n + 40] for n in range(60_000))]
    packed = Gzip().compress("\n".join(lines).encode())
    path = written(tmp_path, packed[: len(packed) // 2], name)
    with pytest.raises(InputError, match=f"{name} is cut off"):
        read(path)


def test_lists_have_a_handy_size(tmp_path: Path) -> None:
    for number, width in ((100_000, 1), (100_000, 5), (10_000, 300)):
        path = written(tmp_path, f"{'x' * width}\n" * number)
        reader = open_input(Input(path=path), "external_id")
        sizes = [len(block) for block in reader.blocks()]
        reader.close()
        assert sum(sizes) == number
        assert max(sizes) <= 8192
        assert len(sizes) <= number / 1000


def test_how_much_was_read_can_be_told_meanwhile(tmp_path: Path) -> None:
    path = written(tmp_path, "0123456789\n" * 100_000)
    reader = open_input(Input(path=path), "external_id")
    shares = [reader.read_bytes / path.stat().st_size for _ in reader.blocks()]
    reader.close()
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == 1


class Broken(io.RawIOBase):
    """A file on a disk that fails."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise OSError(5, "Input/output error")


def test_a_disk_that_fails_is_an_error_with_the_name_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = Broken()
    monkeypatch.setattr("braze_export.jobs.reading.compression.open_raw", lambda path: broken)
    monkeypatch.setattr("braze_export.jobs.reading.inputs.open_raw", lambda path: broken)
    with pytest.raises(InputError, match=r"ids cannot be read \(Input/output error\)"):
        open_input(Input(path=Path("ids")), "email")
    assert broken.closed
    broken = Broken()
    with pytest.raises(InputError, match=r"ids cannot be read \(Input/output error\)"):
        fingerprint(Path("ids"))
    assert broken.closed


def test_what_was_closed_reads_no_further(tmp_path: Path) -> None:
    reader = open_input(Input(path=written(tmp_path, "0123456789\n" * 100_000)), "email")
    blocks = reader.blocks()
    assert next(blocks)
    reader.close()
    with pytest.raises(InputError, match="cannot be read"):
        next(blocks)


def test_what_is_refused_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[BinaryIO] = []

    def spy(path: Path) -> BinaryIO:
        opened.append(path.open("rb", buffering=0))
        return opened[-1]

    monkeypatch.setattr("braze_export.jobs.reading.compression.open_raw", spy)
    monkeypatch.setattr("braze_export.jobs.reading.parquet.open_raw", spy)
    for name, column in (
        ("ids", "c"),
        ("ids.csv", "c"),
        ("ids.ndjson", None),
        ("ids.parquet", "c"),
    ):
        with pytest.raises(InputError):
            open_input(Input(path=written(tmp_path, "a,b\n", name), column=column), "email")
    assert [file.closed for file in opened] == [True] * 4
