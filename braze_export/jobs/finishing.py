"""The end of a job: what was collected becomes the output, and each file gets its name.

Every step may be done again: whoever is killed here does all of them anew.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from attrs import frozen

from braze_export.errors import JobChangedError
from braze_export.jobs.journal import Journal, Record
from braze_export.jobs.places import Places
from braze_export.jobs.reading.compression import codec_for, open_decompressed
from braze_export.jobs.recorder import FAILED, PROFILES, UNKNOWN
from braze_export.jobs.staging import append_to, put_in_place, told
from braze_export.jobs.values import CustomAttributes, Table

_ROUND: Final = "braze_export.round"
_BLOCK: Final = 2 * 1024 * 1024


@frozen(kw_only=True)
class Shape:
    """What the output is to look like.

    Attributes:
        fields: that were asked for; ``None``: everything.
        custom_attributes: how they are kept in a column.
        parquet: whether it is a Parquet file.
    """

    fields: tuple[str, ...] | None
    custom_attributes: CustomAttributes
    parquet: bool


@frozen(kw_only=True)
class Finisher:
    """Makes the output of what was collected. Its methods block.

    Attributes:
        journal: is told.
        places: of everything.
        shape: of the output.
        written: is told how many bytes of profiles were taken into the output.
    """

    journal: Journal
    places: Places
    shape: Shape
    written: Callable[[int], None]

    def finish(self, record: Record) -> Record:
        """Give every file its name, and say so in the journal.

        Raises:
            JobStorageError: a file cannot be written.
            JobChangedError: what this round adds to is gone.
        """
        if record.stage == "exporting":
            record = msgspec.structs.replace(
                record,
                stage="finishing",
                bases=bases(self.places, self.shape) if record.round else {},
                targets={name: str(path) for name, path in _targets(self.places).items()},
            )
            self.journal.record_safely(record)
        # Those from here on: who does it again may have been given others.
        targets = {name: Path(path) for name, path in record.targets.items()}
        self._output(targets, record)
        self._text(UNKNOWN, targets[UNKNOWN], record)
        self._replace(FAILED, targets[FAILED])
        record = msgspec.structs.replace(record, stage="finished", files={}, bases={})
        self.journal.record_safely(record)
        self.places.clean()
        self.places.spooled.unlink(missing_ok=True)
        return record

    def _output(self, targets: Mapping[str, Path], record: Record) -> None:
        if isinstance(self.places.output, Table):
            self._load(self.places.output, record)
        elif self.shape.parquet:
            self._parquet(targets[PROFILES], record)
        else:
            self._pack_nothing(targets[PROFILES])
            self._text(PROFILES, targets[PROFILES], record)

    def _pack_nothing(self, target: Path) -> None:
        staged = self.places.staged(PROFILES)
        with told(staged):
            if staged.exists() and not staged.stat().st_size:  # which is no packed file
                staged.write_bytes(codec_for(target).compress(b""))

    def _text(self, name: str, target: Path, record: Record) -> None:
        if record.round:
            append_to(target, self.places.staged(name), record.bases[name])
        else:
            self._replace(name, target)

    def _replace(self, name: str, target: Path) -> None:
        staged = self.places.staged(name)
        if staged.exists():  # else it has its name already
            put_in_place(staged, target)

    def _parquet(self, target: Path, record: Record) -> None:
        from braze_export.jobs.tables.arrow import Tables  # noqa: PLC0415 - an extra
        from braze_export.jobs.tables.parquet import (  # noqa: PLC0415 - the same
            blocks_of,
            metadata,
            write_parquet,
        )

        word = str(record.round)
        if record.round and metadata(target).get(_ROUND) == word:
            return
        if record.round:
            check_columns(target, self.shape)
        tables = Tables(self.shape.fields, self.shape.custom_attributes)
        with told(target), open_decompressed(self.places.staged(PROFILES)) as file:
            write_parquet(
                blocks_of(file, _BLOCK),
                self.places.parquet,
                tables,
                keep=target if record.round else None,
                written=self.written,
                metadata={_ROUND: word},
            )
        put_in_place(self.places.parquet, target)

    def _load(self, table: Table, record: Record) -> None:
        from braze_export.jobs.tables.arrow import Tables  # noqa: PLC0415 - an extra
        from braze_export.jobs.tables.loading import load  # noqa: PLC0415 - the same
        from braze_export.jobs.tables.parquet import blocks_of  # noqa: PLC0415 - the same

        tables = Tables(self.shape.fields, self.shape.custom_attributes)
        with open_decompressed(self.places.staged(PROFILES)) as file:
            load(
                blocks_of(file, _BLOCK),
                tables,
                table,
                self.places.loading,
                written=self.written,
                round=record.round,
            )


def _targets(places: Places) -> dict[str, Path]:
    """Return the paths that files get, from whatever folder it is run again."""
    files = {UNKNOWN: places.unknown, FAILED: places.failed}
    if isinstance(places.output, Path):
        files[PROFILES] = places.output
    return {name: path.absolute() for name, path in files.items()}


def bases(places: Places, shape: Shape) -> dict[str, int]:
    """Return the sizes of the files that one more round adds to.

    Raises:
        JobChangedError: one is gone, or nothing can be added to it.
    """
    files = {name: path for name, path in _targets(places).items() if name != FAILED}
    sizes = {name: size_of(path) for name, path in files.items()}
    if shape.parquet and PROFILES in files:
        check_columns(files[PROFILES], shape)
    return sizes


def check_columns(path: Path, shape: Shape) -> None:
    """Look whether rows can be added to a Parquet file.

    Raises:
        JobChangedError: it has other columns, is damaged or gone.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    from braze_export.jobs.tables.arrow import Tables  # noqa: PLC0415 - the same
    from braze_export.jobs.tables.parquet import check_same, metadata  # noqa: PLC0415 - the same

    metadata(path)
    try:
        check_same(pq.read_schema(path), Tables(shape.fields, shape.custom_attributes).schema)
    except ValueError as error:
        raise JobChangedError(
            f"{path} has other columns than this job gives it, so that another program has written "
            "it: put the old one back, or start over (fresh)"
        ) from error


def size_of(path: Path) -> int:
    """Return the size of a file of an earlier round.

    Raises:
        JobChangedError: it is gone.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        raise JobChangedError(
            f"{path} is gone, to which what is tried again would be added: put it back, or start "
            "over (fresh)"
        ) from None
