"""What a job is to do, checked before anything is read, written or sent."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from braze_export.errors import InputError
from braze_export.jobs.finishing import Shape
from braze_export.jobs.kinds import Kind, parse_kind
from braze_export.jobs.places import Places, places
from braze_export.jobs.reading.compression import Codec, Zstd, codec_for
from braze_export.jobs.reading.inputs import open_input
from braze_export.jobs.spooling import is_fleeting
from braze_export.jobs.tables.schema import arrow
from braze_export.jobs.values import CustomAttributes, Input, Table
from braze_export.validators import called, whole_above_zero, zero_or_more

_PARQUET: Final = ".parquet"
_CUSTOM_ATTRIBUTES: Final = ("json", "map")


@frozen(kw_only=True)
class Order:
    """What a job is to do.

    Attributes:
        source: of the identifiers.
        kind: what they are.
        shape: of the output.
        places: of everything.
        codec: of the profiles as they are collected.
        concurrency: requests under way at once.
        ordered: whether profiles keep the order of the input, request by request.
        patience: seconds without any answer after which the job ends.
        fresh: whether to start over.
        retry_failed: whether to ask for what failed, and nothing else.
    """

    source: Input
    kind: Kind
    shape: Shape
    places: Places
    codec: Codec
    concurrency: int = field(validator=whole_above_zero)
    ordered: bool
    patience: float = field(validator=zero_or_more)
    fresh: bool
    retry_failed: bool

    def definition(self, endpoint: str, fingerprint: str | None) -> dict[str, Any]:
        """Return what makes the job this one and no other, as JSON has it."""
        source, shape = self.source, self.shape
        output = self.places.output
        return {
            "fingerprint": fingerprint,
            "format": source.format,
            "column": source.column,
            "encoding": source.encoding,
            "delimiter": source.delimiter,
            "kind": str(self.kind),
            "fields": None if shape.fields is None else list(shape.fields),
            "endpoint": endpoint,
            "output": self.places.shown if isinstance(output, Table) else "".join(output.suffixes),
            "custom_attributes": shape.custom_attributes,
        }


def order(
    source: str | Path | Input,
    output: str | Path | Table,
    *,
    kind: str,
    fields: Iterable[str] | None,
    custom_attributes: CustomAttributes,
    unknown: str | Path | None,
    failed: str | Path | None,
    concurrency: int,
    ordered: bool,
    patience: float,
    fresh: bool,
    retry_failed: bool,
) -> Order:
    """Return what is to be done.

    Raises:
        InputError: something that cannot work.
    """
    if custom_attributes not in _CUSTOM_ATTRIBUTES:
        raise InputError(f"custom_attributes must be 'json' or 'map', not {custom_attributes!r}")
    if fresh and retry_failed:
        raise InputError("fresh starts over, retry_failed goes on: choose one of them")
    kinds = parse_kind(kind)
    found = places(output, unknown, failed)
    given = _input(source)
    _check_input(given, kinds, found)
    parquet = isinstance(output, Table) or found.output.suffix.lower() == _PARQUET  # type: ignore[union-attr]
    shape = Shape(
        fields=kinds.fields(fields, stacklevel=5),
        custom_attributes=custom_attributes,
        parquet=parquet,
    )
    if parquet:
        _check_columns(output)
    return Order(
        source=given,
        kind=kinds,
        shape=shape,
        places=found,
        # What is turned into columns later lies on the disk packed until then.
        codec=Zstd() if parquet else codec_for(Path(str(output))),
        concurrency=concurrency,
        ordered=ordered,
        patience=patience,
        fresh=fresh,
        retry_failed=retry_failed,
    )


def _input(source: str | Path | Input) -> Input:
    if isinstance(source, Input):
        return source
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"source must be a path or Input(...), not {called(source)}: a job reads its "
            "identifiers from a file, braze.users.export_ids takes lists"
        )
    return Input(path=source)


def _check_input(source: Input, kind: Kind, found: Places) -> None:
    if is_fleeting(source.path):
        return
    open_input(source, kind.name).close()
    written = [found.unknown, found.failed]
    written += [found.output] if isinstance(found.output, Path) else []
    if source.path.resolve() in {path.resolve() for path in written}:
        raise InputError(f"{source.path} is the input: name another file for the results")


def _check_columns(output: str | Path | Table) -> None:
    """Look whether what the end of the job needs is installed, and a table's destination known."""
    arrow()
    if isinstance(output, Table):
        from braze_export.jobs.tables.loading import check_table  # noqa: PLC0415 - an extra

        check_table(output)
