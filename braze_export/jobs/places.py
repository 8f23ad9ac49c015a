"""Where a job keeps what: its results, and a folder of its own beside them while it runs."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from attrs import field, frozen

from braze_export.errors import InputError
from braze_export.jobs.values import Table
from braze_export.validators import as_path, called

_ENDINGS: Final = (".gz", ".zst")


def _path(given: str | Path | None, name: str) -> Path | None:
    return None if given is None else as_path(given, name).absolute()


@frozen(kw_only=True)
class Places:
    """The files of a job.

    Attributes:
        output: the file of profiles, or the table.
        unknown: the identifiers that Braze does not know.
        failed: the identifiers that failed.
        folder: the job's own; ``NAME.job`` beside the output. A table other than ``duckdb:PATH``
            has no place beside it: its job is in the current directory.
    """

    output: Path | Table
    unknown: Path = field()
    failed: Path = field()
    folder: Path = field()

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.folder / "journal.sqlite"

    @property
    def spooled(self) -> Path:
        """Identifiers that came from where they cannot be read again."""
        return self.folder / "input"

    @property
    def parquet(self) -> Path:
        """The Parquet file, before it gets its name."""
        return self.folder / "output.parquet"

    @property
    def loading(self) -> Path:
        """What dlt needs to know."""
        return self.folder / "loading"

    def clean(self) -> None:
        """Remove what a job has made on its way, all but its input: it holds profiles."""
        made = [*self.folder.glob("*.partial"), *self.folder.glob("failed-*.ndjson")]
        for path in (self.parquet, *made):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.loading, ignore_errors=True)

    def abandon(self) -> None:
        """Remove all that a job has made of which nothing came."""
        self.clean()
        for path in (self.journal, self.folder / "input.new"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            self.folder.rmdir()

    def staged(self, name: str) -> Path:
        """Return where profiles, unknown or failed identifiers are collected."""
        return self.folder / f"{name}.partial"

    @property
    def shown(self) -> str:
        """The output, for people."""
        if isinstance(self.output, Table):
            return f"{self.output.dataset}.{self.output.name} in {self.output.destination}"
        return str(self.output)


def places(
    output: str | Path | Table, unknown: str | Path | None, failed: str | Path | None
) -> Places:
    """Return where a job with that output keeps what: in the current directory for most tables.

    Raises:
        InputError: nothing can be written there, or two of them are the same file.
    """
    beside = _beside(output)
    stem = beside.name if isinstance(output, Table) else _stem(beside)
    made = Places(
        output=output if isinstance(output, Table) else beside,
        unknown=_path(unknown, "unknown") or beside.with_name(f"{stem}.unknown.txt"),
        failed=_path(failed, "failed") or beside.with_name(f"{stem}.failed.ndjson"),
        folder=beside.with_name(f"{beside.name}.job"),
    )
    _check(made)
    return made


def _beside(output: str | Path | Table) -> Path:
    if isinstance(output, str | Path):
        return Path(output).absolute()
    if not isinstance(output, Table):
        raise InputError(f"output must be a path or Table(...), not {called(output)}")
    kind, _, place = output.destination.partition(":")
    if kind == "duckdb" and place:
        database = Path(place)
        return database.with_name(f"{database.name}.{output.dataset}.{output.name}").absolute()
    return Path(f"{kind}.{output.dataset}.{output.name}").absolute()


def _stem(path: Path) -> str:
    name = path.name
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return Path(name).stem or name


def _check(made: Places) -> None:
    files = [made.unknown, made.failed]
    if isinstance(made.output, Path):
        files.append(made.output)
        if made.output.is_dir():
            raise InputError(f"{made.output} is a directory: name a file in it")
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("the output, the unknown and the failed identifiers need a file each")
    for file in files:
        if file.exists() and not file.is_file():
            raise InputError(f"{file} is no file that can be replaced: choose another place")
        if not file.parent.is_dir():
            raise InputError(f"{file.parent} is no directory: make it, or choose another place")
