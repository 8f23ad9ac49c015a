"""Profiles into a table, by dlt. Each row once, however often the loading is killed.

What dlt promises is each row at least once: a file of rows that was loaded just before a kill is
loaded again. So the rows carry a number, by which a repeated file is found; but for ``replace``,
which begins anew and empties the table first.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from braze_export.errors import BrazeError, InputError
from braze_export.jobs.halting import Halted
from braze_export.jobs.staging import storage_error
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.parquet import pieces_of
from braze_export.jobs.tables.schema import arrow
from braze_export.jobs.values import Table

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

#: The column with the number of the row, which dlt has for this.
ROW_ID: Final = "_dlt_id"
_KEY: Final = "external_id"
_PIPELINE: Final = "braze_export"


def load(
    blocks: Iterable[bytes],
    tables: Tables,
    table: Table,
    workdir: Path,
    *,
    round: int = 0,  # noqa: A002 - the word of the journal
    written: Callable[[int], None] | None = None,
) -> None:
    """Load profiles into a table. After a crash call it again with the same arguments.

    Columns have the names of the schema. dlt stores lists and objects within a profile as JSON
    where the destination has such a type (DuckDB: ``JSON``, PostgreSQL: ``JSONB``), else as
    text, and in files as Parquet's own nested types; there are no tables beside this one.
    ``_dlt_id`` is the row's own number.

    With ``merge``, rows whose ``external_id`` comes are replaced; users without one are only
    added. File systems know no ``merge``: there rows are added.

    Args:
        blocks: whole lines each, of any size. Read only if no earlier call has read all.
        tables: turns them into tables.
        table: where they belong.
        workdir: of this job alone; kept until the job is done. Everything that dlt writes
            beside the table itself is in it.
        round: 0 for the job's own rows, 1 and on for rows that came later, which are added:
            also with ``replace``. What an earlier call has loaded for a round is not loaded again.
        written: told after each step how many bytes of JSON are read so far.

    Raises:
        InputError: dlt is not installed, or does not know the destination, or cannot reach it.
        JobStorageError: there is no room for it.
        BrazeError: dlt has failed otherwise.
    """
    dlt = _dlt()
    made = _destination(dlt, table)
    home = workdir / f"round-{round}"
    done = home / "done"
    if done.exists():
        return
    mode = "append" if round and table.mode == "replace" else table.mode
    if not _is_loaded(home):
        extracted = home / "extracted"
        if mode == "replace" or not extracted.exists():
            shutil.rmtree(home, ignore_errors=True)
        pipeline = _pipeline(dlt, table, made, home)
        if not extracted.exists():
            resource = _resource(dlt, _rows(blocks, tables, written), table, mode)
            _tell(table, workdir, lambda: pipeline.extract(resource))
            extracted.touch()
        _tell(table, workdir, pipeline.normalize)
        _tell(table, workdir, pipeline.load)
    done.touch()


def check_table(table: Table) -> None:
    """Look whether a table can be loaded into, as far as that can be told beforehand.

    Raises:
        InputError: dlt is not installed, or does not know the destination.
    """
    _destination(_dlt(), table)


def _is_loaded(home: Path) -> bool:
    """Say whether dlt has finished; its last steps, which come after, may be lacking."""
    return any(file.read_text() == "loaded" for file in home.rglob("package_completed.json"))


def _dlt() -> Any:
    """Return dlt, silent in this process from now on: it tells nobody of its use, logs nothing."""
    try:
        import dlt  # noqa: PLC0415 - an extra
        from dlt.common.runtime.anon_tracker import disable_anon_tracker  # noqa: PLC0415
    except ImportError as error:
        raise InputError('tables need dlt: pip install "braze-export[dlt]"') from error
    # In memory only. The first of these lines already starts dlt, with whatever it was set to.
    dlt.config["runtime.dlthub_telemetry"] = False
    dlt.config["runtime.log_level"] = "CRITICAL"
    dlt.current.run_context().initialize_runtime()
    disable_anon_tracker()
    return dlt


def _destination(dlt: Any, table: Table) -> Any:
    kind, _, place = table.destination.partition(":")
    if kind == "duckdb" and place:
        path = Path(place).absolute()
        if not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent} for the database {path.name}")
        return dlt.destinations.duckdb(str(path))
    if kind == "filesystem" and place:
        return dlt.destinations.filesystem(place)
    known = _known(dlt)
    if ":" in table.destination or kind not in known:
        raise InputError(
            f"dlt knows no destination {table.destination!r}: allowed are duckdb:PATH, "
            f"filesystem:URL, and the names {', '.join(known)}"
        )
    return getattr(dlt.destinations, kind)()


def _known(dlt: Any) -> list[str]:
    others = {"destination", "dataset"}
    return sorted(name for name in dlt.destinations.__all__ if name not in others)


def _pipeline(dlt: Any, table: Table, destination: Any, home: Path) -> Any:
    return dlt.pipeline(
        _PIPELINE,
        pipelines_dir=str(home),
        destination=destination,
        dataset_name=table.dataset,
    )


def _resource(dlt: Any, rows: "Iterator[pa.Table]", table: Table, mode: str) -> Any:
    files = table.destination.partition(":")[0] == "filesystem"
    keys: dict[str, Any] = {"write_disposition": "append" if files and mode == "merge" else mode}
    if mode != "replace" and not files:
        # Also to append: the number of the row is what makes a repeated file harmless. To a
        # file system it is so anyway, as the file has the same name.
        keys = {"write_disposition": "merge", "primary_key": ROW_ID}
    if mode == "merge" and not files:
        keys |= {"merge_key": _KEY, "columns": {_KEY: {"nullable": True}}}
    return dlt.resource(rows, name=table.name, **keys)


def _rows(
    blocks: Iterable[bytes], tables: Tables, written: Callable[[int], None] | None
) -> "Iterator[pa.Table]":
    load_id = uuid4().hex
    numbers = count()
    done = 0
    yield _numbered(tables.table(b""), load_id, numbers)  # a table without rows is one, too
    for piece in pieces_of(blocks):
        yield _numbered(tables.table(piece), load_id, numbers)
        done += len(piece)
        if written is not None:
            written(done)


def _numbered(table: "pa.Table", load_id: str, numbers: Iterator[int]) -> "pa.Table":
    pa = arrow()
    ids = [f"{load_id}-{next(numbers)}" for _ in range(table.num_rows)]
    return table.append_column(
        pa.field(ROW_ID, pa.string(), nullable=False), pa.array(ids, pa.string())
    )


def _tell(table: Table, workdir: Path, step: Callable[[], object]) -> None:
    """Do a step of the pipeline; what goes wrong is told without what may quote a profile."""
    from dlt.destinations.exceptions import DestinationConnectionError  # noqa: PLC0415
    from dlt.pipeline.exceptions import PipelineStepFailed  # noqa: PLC0415 - an extra

    try:
        step()
    except PipelineStepFailed as error:
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, BrazeError | Halted):
                raise cause from None
            if isinstance(cause, OSError):
                raise storage_error(workdir, cause) from None
            if isinstance(cause, DestinationConnectionError):
                raise InputError(f"{table.destination} cannot be opened: {causes[-1]}") from None
        raise BrazeError(
            f"dlt could not load into {table.destination}: {type(causes[-1]).__name__} in its "
            f"step {error.step!r}"
        ) from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
