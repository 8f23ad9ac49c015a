"""What a bulk job is made of and what it tells: values alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import Attribute, Factory, field, frozen

from braze_export.errors import InputError
from braze_export.limiting.limits import PoolSnapshot
from braze_export.validators import as_path

InputFormat: TypeAlias = Literal["lines", "csv", "ndjson", "parquet"]
CustomAttributes: TypeAlias = Literal["json", "map"]
Phase: TypeAlias = Literal["reading", "exporting", "writing", "done"]

#: The reason why rows failed that hold no identifier: they were in no request, and never will be.
NOT_ASKED: Final = "cannot be asked for"

#: ``//user:password@`` but not ``//host:22/a@b``; and what may be a token in a query.
_CREDENTIALS: Final = re.compile(r"//[^/@]*:(?!\d+/)[^@]*@|\?.*=", re.DOTALL)


def _name(_: object, attribute: "Attribute[Any]", value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise InputError(f"{attribute.name} must be a name, not blank")


def _no_credentials(_: object, attribute: "Attribute[Any]", value: str) -> None:
    # What was given is not in the message. It would be in the journal, and in other messages.
    if _CREDENTIALS.search(value):
        raise InputError(
            f"{attribute.name} must hold neither a password nor a query: credentials belong where "
            "dlt looks for them, in environment variables or its secrets.toml"
        )


@frozen(kw_only=True)
class Input:
    """Where the identifiers of a job come from.

    Attributes:
        path: the file; compressed with gzip or zstd, or not: its first bytes tell.
        format: how it is written; by the file's name if not given: ``.csv`` and ``.tsv``,
            ``.ndjson`` and ``.jsonl``, ``.parquet``, each with ``.gz`` or ``.zst`` after it or
            without; anything else is lines.
        column: of a CSV file the column's name, of a Parquet file the column's path, of NDJSON
            the path of keys, with dots between. Not needed where there is one column only, or
            one that is called as the identifiers are (``external_id``, ``email``, ...).
        encoding: of text, as Python names it. A byte order mark is left out.
        delimiter: between the columns of a CSV file: a comma if not given; in ``.tsv`` a tab.
    """

    path: Path = field(converter=as_path)
    format: InputFormat | None = None
    column: str | None = field(default=None, validator=_name)
    encoding: str = "utf-8"
    delimiter: str | None = None


@frozen
class Unusable:
    """Something in the input that cannot be an identifier, and why.

    Attributes:
        text: as it stands there, as far as it can be told; may be personal data.
        reason: with the place: ``line 17: ...``.
    """

    text: str = field(repr=False)
    reason: str


@frozen(kw_only=True)
class Table:
    """A table that the profiles are loaded into, by dlt (extra ``dlt``).

    The job's folder and the other files are beside the database of ``duckdb:PATH``; of any other
    destination in the current directory, in which the job must be run again to go on.

    Attributes:
        destination: one of dlt's: ``duckdb:profiles.duckdb`` with the path of the database,
            ``filesystem:/data/lake`` with the bucket or folder, or the name alone, such as
            ``bigquery``, with its settings where dlt looks for them. Without credentials.
        dataset: the schema that the table is in.
        name: of the table.
        mode: ``replace``: the table holds what this job gives. ``merge``: rows of the same
            ``external_id`` are replaced, others stay. ``append``: rows are added.
    """

    destination: str = field(validator=[_name, _no_credentials])
    dataset: str = field(default="braze", validator=_name)
    name: str = field(default="profiles", validator=_name)
    mode: Literal["replace", "merge", "append"] = "replace"


@frozen(kw_only=True)
class JobProgress:
    """How far a job is at one moment.

    Attributes:
        phase: ``reading`` the input, ``exporting``, ``writing`` the Parquet file or the table,
            ``done``.
        done: identifiers that lie in one of the three places, those of earlier runs included.
        total: identifiers in all, repeated ones left out; ``None`` while they are counted.
        profiles: rows written.
        unknown: identifiers that Braze does not know.
        failed: identifiers that failed.
        repeated: identifiers left out because they stand in the input before.
        already: of ``done``, those of earlier runs.
        requests: sent by this run.
        retries: of these, sent again.
        rate_limited: of these, refused with status 429.
        elapsed: seconds since this run began.
        rate: identifiers per second of late.
        seconds_left: to go at this rate; ``None`` where it cannot be told.
        written: the share, 0 to 1, that is written in the phase ``writing``.
        pool: how the rate limit stands; ``None`` before the first request.
        silent: seconds since a request failed, with all its retries, after which nothing came;
            0 while things come. A window that is used up is no silence: until it is over nobody
            knows of more than had failed before, and this stands still.
        trouble: why the latest that failed did, such as ``ServerError 503``, without personal
            data; empty while things come.
        patience_left: seconds after which the next failure ends the job if nothing comes until
            then; ``None`` while things come.
    """

    phase: Phase
    done: int = 0
    total: int | None = None
    profiles: int = 0
    unknown: int = 0
    failed: int = 0
    repeated: int = 0
    already: int = 0
    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    elapsed: float = 0.0
    rate: float = 0.0
    seconds_left: float | None = None
    written: float = 0.0
    pool: PoolSnapshot | None = None
    silent: float = 0.0
    trouble: str = ""
    patience_left: float | None = None


@frozen(kw_only=True)
class Moment:
    """One point of a run's course, for charts. All numbers are of this run, from its start on.

    Attributes:
        at: seconds since the run began.
        done: identifiers.
        requests: sent.
        rate_limited: of these, refused.
        limit: requests of a window, where known.
        remaining: of these, left.
        waiting: requests that waited for their turn at this moment.
    """

    at: float
    done: int
    requests: int
    rate_limited: int
    limit: int | None = None
    remaining: int | None = None
    waiting: int = 0


@frozen(kw_only=True)
class JobReport:
    """What came of a job. Read ``complete`` first.

    Attributes:
        complete: whether nothing is left to do; else the same call goes on.
        source: the input's name.
        output: where the profiles are, or will be.
        unknown_file: the identifiers that Braze does not know, one a line.
        failed_file: the identifiers that failed, each with the reason, as NDJSON.
        total: identifiers, repeated ones left out.
        done: of these, those in one of the three places.
        profiles: rows written. More or fewer than identifiers: several users may share an
            e-mail address, several aliases may be one user's.
        unknown: identifiers that Braze does not know.
        failed: identifiers that failed.
        repeated: identifiers left out because they stand in the input before.
        blank: rows of the input without an identifier.
        already: of ``done``, those of earlier runs.
        requests: sent by this run.
        retries: of these, sent again.
        rate_limited: of these, refused with status 429.
        seconds: that this run took.
        seconds_waited: during which requests surely waited for the rate limit.
        reasons: of this run's failures: how often each, without personal data.
        course: of this run.
    """

    complete: bool
    source: str
    output: str
    unknown_file: Path
    failed_file: Path
    total: int
    done: int
    profiles: int
    unknown: int
    failed: int
    repeated: int = 0
    blank: int = 0
    already: int = 0
    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    seconds: float = 0.0
    seconds_waited: float = 0.0
    reasons: Mapping[str, int] = Factory(dict)
    course: tuple[Moment, ...] = ()
