"""Lines of profiles into a Parquet file, in bounded memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from braze_export.errors import JobChangedError
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.schema import arrow

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

_GROUP_ROWS: Final = 50_000
_GROUP_BYTES: Final = 10 * 1024 * 1024  # of JSON; a group lies in memory until it is written
_PIECE: Final = 512 * 1024  # bytes of JSON that become a table at once
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


def write_parquet(
    blocks: Iterable[bytes],
    target: Path,
    tables: Tables,
    *,
    keep: Path | None = None,
    written: Callable[[int], None] | None = None,
    metadata: Mapping[str, str] = _NO_METADATA,
) -> int:
    """Write profiles to a file, which is on the disk when this returns; return its rows.

    The file is written under its name from the first byte on: a whole one needs another name
    meanwhile. If anything is raised, what is there is to be thrown away.

    Args:
        blocks: whole lines each, of any size.
        target: the file, which is replaced.
        tables: with the schema.
        keep: a file of the same schema, whose rows come first.
        written: told after each step how many bytes of JSON are done so far.
        metadata: of the file, beside the schema.

    Raises:
        OSError: the file cannot be written, or ``keep`` not be read.
        ValueError: ``keep`` has other columns, or is no Parquet file.
    """
    kept = _groups_of(keep, tables.schema) if keep is not None else iter(())
    with target.open("wb") as file:
        rows = _write(kept, _tables_of(blocks, tables, written), file, tables.schema, metadata)
        file.flush()
        os.fsync(file.fileno())
    return rows


def blocks_of(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield a file from where it stands to its end, in whole lines of about ``size`` bytes.

    A block is longer only if a line of it is. The last line may lack its line feed.
    """
    while block := file.read(size):
        if not block.endswith(b"\n"):
            block += file.readline()
        yield block


def pieces_of(blocks: Iterable[bytes], size: int = _PIECE) -> Iterator[bytes]:
    """Yield the same lines in pieces of about ``size`` bytes, large blocks cut, small joined."""
    begun: list[bytes] = []
    length = 0
    for block in blocks:
        for piece in _cut(block if block.endswith(b"\n") else block + b"\n", size):
            begun.append(piece)
            length += len(piece)
            if length >= size:
                yield b"".join(begun)
                begun, length = [], 0
    if begun:
        yield b"".join(begun)


def _cut(block: bytes, size: int) -> Iterator[bytes]:
    at = 0
    while at < len(block):
        end = block.find(b"\n", min(at + size, len(block)) - 1) + 1
        yield block[at:end]
        at = end


def _write(
    kept: Iterable["pa.Table"],
    made: Iterable["tuple[pa.Table, int]"],
    file: BinaryIO,
    schema: "pa.Schema",
    metadata: Mapping[str, str],
) -> int:
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    rows = 0
    _give_back()
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        writer.add_key_value_metadata(dict(metadata))
        for group in kept:
            writer.write_table(group)
            rows += group.num_rows
        for group in _grouped(made):
            writer.write_table(group, row_group_size=_GROUP_ROWS)
            rows += group.num_rows
            _give_back()
    return rows


def _give_back() -> None:
    """Give the system the memory back that Arrow keeps for later, or it is never less."""
    arrow().default_memory_pool().release_unused()
    arrow().system_memory_pool().release_unused()


def _tables_of(
    blocks: Iterable[bytes], tables: Tables, written: Callable[[int], None] | None
) -> "Iterator[tuple[pa.Table, int]]":
    done = 0
    for table, size in _made(pieces_of(blocks), [tables, tables.twin()]):
        yield table, size
        done += size
        if written is not None:
            written(done)


def _made(pieces: Iterable[bytes], makers: Sequence[Tables]) -> "Iterator[tuple[pa.Table, int]]":
    """Yield the table of each piece, in order, while each maker makes one in its own thread."""
    waiting: deque[tuple[Future[pa.Table], int]] = deque()
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in makers]
        turns = cycle(zip(threads, makers, strict=True))
        for piece, (thread, maker) in zip(pieces, turns, strict=False):
            if len(waiting) == len(makers):
                made, size = waiting.popleft()
                yield made.result(), size
            waiting.append((thread.submit(maker.table, piece), len(piece)))
        while waiting:
            made, size = waiting.popleft()
            yield made.result(), size


def _grouped(made: "Iterable[tuple[pa.Table, int]]") -> "Iterator[pa.Table]":
    """Yield tables put together to row groups."""
    group: list[pa.Table] = []
    rows = size = 0
    for table, json_bytes in made:
        group.append(table)
        rows += table.num_rows
        size += json_bytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield arrow().concat_tables(group)
            group, rows, size = [], 0, 0
    if rows:
        yield arrow().concat_tables(group)


def _groups_of(keep: Path, schema: "pa.Schema") -> "Iterator[pa.Table]":
    """Yield the row groups of a file, one in memory at a time."""
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    with parquet.ParquetFile(keep) as old:
        check_same(old.schema_arrow, schema)
        for number in range(old.num_row_groups):
            yield old.read_row_group(number).replace_schema_metadata(None)


def check_same(found: "pa.Schema", wanted: "pa.Schema") -> None:
    """Look whether rows of one schema can be added to those of another.

    Raises:
        ValueError: the columns differ; it says in which.
    """
    if not found.equals(wanted):
        odd: list[Any] = [
            name
            for name in dict.fromkeys([*wanted.names, *found.names])
            if name not in found.names
            or name not in wanted.names
            or found.field(name) != wanted.field(name)
        ]
        raise ValueError(f"the file to keep has other columns: {', '.join(odd) or 'their order'}")


def metadata(path: Path) -> dict[str, str]:
    """Return the keys and values in a Parquet file's metadata.

    Raises:
        JobChangedError: it is gone, or no Parquet file.
    """
    arrow()
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    try:
        found = pq.read_metadata(path).metadata or {}
    except (OSError, ValueError) as error:
        raise JobChangedError(
            f"{path} is gone or damaged, to which what is tried again would be added: put it back, "
            "or start over (fresh)"
        ) from error
    return {key.decode(): value.decode(errors="replace") for key, value in found.items()}
