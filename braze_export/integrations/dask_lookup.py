"""A partition of identifiers to its profiles: what a Dask worker does, in a task of its own."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from attrs import Factory, define, field, frozen

from braze_export._json import writable
from braze_export.batches.batching import Batch
from braze_export.batches.fanout import fan_out
from braze_export.batches.narrowing import Outcome
from braze_export.client import BrazeClient
from braze_export.errors import (
    AuthenticationError,
    InputError,
    LimiterError,
    PermissionDeniedError,
)
from braze_export.identifiers import Identifier, check_identifier
from braze_export.integrations.dask_frames import Rows, run
from braze_export.integrations.dask_secrets import Secret
from braze_export.integrations.redis import RedisLimits
from braze_export.jobs.accounting import Settler
from braze_export.jobs.kinds import Kind, as_text, parse_kind
from braze_export.jobs.recorder import profile_lines
from braze_export.jobs.tables.arrow import Tables
from braze_export.jobs.tables.schema import arrow
from braze_export.jobs.values import CustomAttributes
from braze_export.limiting.limits import Limits
from braze_export.models.results import ExportStats, FailedBatch
from braze_export.tasks import TaskScope
from braze_export.validators import whole_above_zero

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

_OF_ALL: Final = (AuthenticationError, PermissionDeniedError, LimiterError)
_ENOUGH: Final = 150  # identifiers that failed and none that did not: it is not them


@frozen(kw_only=True)
class Question:
    """What is asked of every partition. Holds no secret, so that it may lie in a task graph.

    Attributes:
        base_url: the workspace's REST endpoint.
        api_key: where it is.
        redis_url: where it is.
        workspace: its name in Redis.
        kind: of the identifiers, as ``parse_kind`` takes it.
        fields: what to export; ``None`` for everything.
        limits: of the workspace.
        custom_attributes: how they are held in a column.
        concurrency: requests under way at once, of each task.
        processes: tasks at work at once.
        allow_insecure_http: send the key over plain HTTP to another machine.
    """

    base_url: str
    api_key: Secret
    redis_url: Secret
    workspace: str
    kind: str
    fields: tuple[str, ...] | None
    limits: Limits
    custom_attributes: CustomAttributes
    concurrency: int = field(validator=whole_above_zero)
    processes: int
    allow_insecure_http: bool

    def client(self) -> BrazeClient:
        """Return a client that shares the limits with all other tasks. On the worker.

        Raises:
            InputError: the worker lacks a secret, or has one that cannot be right.
        """
        return BrazeClient(
            self.api_key.value(),
            self.base_url,
            limits=RedisLimits(
                self.redis_url.value(),
                workspace=self.workspace,
                limits=self.limits,
                processes=self.processes,
            ),
            allow_insecure_http=self.allow_insecure_http,
        )


@frozen
class Partition:
    """Identifiers that lie in the task graph. They are not in what Dask shows of it.

    Attributes:
        values: the identifiers.
    """

    values: Any = field(repr=False)


def look_up(partition: Any, question: Question) -> "tuple[pa.Table, pa.Table, pa.Table]":
    """Return the profiles of a partition, the unknown identifiers, and the failed ones.

    Raises:
        InputError: the worker lacks a secret, or this is no partition of identifiers.
        AuthenticationError, PermissionDeniedError: the key is refused.
        LimiterError: Redis cannot be used.
        BrazeError: no identifier of the first 150 got an answer.
    """
    values = _values(partition.values if isinstance(partition, Partition) else partition)
    kind = parse_kind(question.kind)
    identifiers, unusable = _sorted(values, kind)
    try:
        return run(_answered(question, kind, identifiers, unusable))
    except AuthenticationError as error:
        error.add_note(f"The worker took the API key from {question.api_key.place}")
        raise


def _values(partition: Any) -> list[Any]:
    """Return what a partition holds, missing values left out.

    Raises:
        InputError: it is no column or list.
    """
    if isinstance(partition, str | bytes | dict) or hasattr(partition, "columns"):
        raise InputError(
            "a partition of identifiers must be a column or list of them, not "
            f"{type(partition).__name__}"
        )
    import pandas as pd  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    if hasattr(partition, "tolist"):  # of pandas, numpy, Arrow
        partition = partition.tolist()
    return list(pd.Series(list(partition), dtype=object).dropna())


def _sorted(values: Iterable[Any], kind: Kind) -> tuple[list[Identifier], list[FailedBatch]]:
    """Return identifiers, each once, and what cannot be one."""
    identifiers: dict[Identifier, None] = {}
    unusable: list[FailedBatch] = []
    for value in values:
        try:
            identifiers[kind.make(_checked(value))] = None
        except InputError as error:
            unusable.append(FailedBatch((value,), error))
    return list(identifiers), unusable


def _checked(value: Any) -> str:
    text = check_identifier(value)
    if not isinstance(text, str):  # an EmailAddress, say, which needs a request of its own
        raise InputError(f"the identifier is of type {type(text).__name__}: give text, and kind=")
    return text


async def _answered(
    question: Question, kind: Kind, identifiers: list[Identifier], unusable: list[FailedBatch]
) -> "tuple[pa.Table, pa.Table, pa.Table]":
    answers = Answers(Rows(Tables(question.fields, question.custom_attributes)))
    answers.note(unusable)
    scope = TaskScope("look-up")
    async with question.client() as braze:
        narrower = braze.users.lookup(
            fields=question.fields, stats=ExportStats(), through=lambda limiter: limiter
        )
        outcomes = fan_out(
            _batches(identifiers, kind.together),
            Settler(narrower.outcome).outcome,
            concurrency=question.concurrency,
            ordered=False,
            scope=scope,
            stopped=lambda: False,
        )
        try:
            async with aclosing(outcomes):
                async for outcome in outcomes:
                    await answers.add(outcome)
        finally:
            await scope.aclose()
    return await answers.tables()


async def _batches(identifiers: list[Identifier], size: int) -> AsyncGenerator[Batch, None]:
    for at in range(0, len(identifiers), size):
        yield Batch(tuple(identifiers[at : at + size]))


@define
class Answers:
    """What has come of a partition.

    Attributes:
        rows: the profiles.
        unknown: identifiers.
        failed: identifiers, and why.
    """

    rows: Rows
    unknown: list[str] = Factory(list)
    failed: list[tuple[str, str]] = Factory(list)
    _answered: bool = field(init=False, default=False)
    _in_vain: int = field(init=False, default=0)

    async def add(self, outcome: Outcome) -> None:
        """Take in what became of a batch.

        Raises:
            BrazeError: it failed in a way that all others would.
        """
        self._check(outcome)
        self.note(outcome.failed)
        self.unknown += (writable(as_text(unknown.identifier)) for unknown in outcome.invalid)
        await self.rows.add(b"".join(profile_lines([outcome])))

    def _check(self, outcome: Outcome) -> None:
        self._answered |= bool(outcome.users or outcome.invalid)
        for failure in outcome.failed:
            self._in_vain += len(failure.identifiers)
            hopeless = not self._answered and self._in_vain >= _ENOUGH
            if hopeless or isinstance(failure.error, _OF_ALL):
                raise failure.error

    def note(self, failures: Iterable[FailedBatch]) -> None:
        """Take in what failed by itself."""
        self.failed += (
            (writable(_text(identifier)), writable(str(failure.error)))
            for failure in failures
            for identifier in failure.identifiers
        )

    async def tables(self) -> "tuple[pa.Table, pa.Table, pa.Table]":
        """Return profiles, unknown and failed identifiers."""
        return await self.rows.table(), unknown_table(self.unknown), failed_table(self.failed)


def unknown_table(identifiers: list[str]) -> "pa.Table":
    """Return the column ``identifier``."""
    return _table(identifier=identifiers)


def failed_table(pairs: list[tuple[str, str]]) -> "pa.Table":
    """Return the columns ``identifier`` and ``error``."""
    return _table(identifier=[name for name, _ in pairs], error=[why for _, why in pairs])


def _table(**columns: list[str]) -> "pa.Table":
    pa = arrow()
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _text(item: Any) -> str:
    """Return an identifier as it was given, also one that could not be asked for."""
    try:
        return as_text(check_identifier(item))
    except InputError:
        return str(item)
