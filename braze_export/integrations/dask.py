"""Braze on a Dask cluster: profiles by identifier, and finished exports as data frames.

Needs the extra ``dask``: ``pip install "braze-export[dask]"``, on the workers as well::

    found = export_ids(
        frame["user_id"].drop_duplicates(), base_url="EU-01", workspace="shop", fields=["email"]
    )
    profiles, unknown, failed = dask.compute(*found)

Secrets are never in the task graph, for every scheduler shows and keeps it: workers have the
API key and the address of Redis in their environment.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args
from uuid import uuid4

from braze_export.errors import InputError
from braze_export.identifiers import check_name, check_prefix
from braze_export.instances import resolve_base_url
from braze_export.integrations.dask_frames import dask, frame
from braze_export.integrations.dask_lookup import (
    Partition,
    Question,
    failed_table,
    look_up,
    unknown_table,
)
from braze_export.integrations.dask_objects import (
    ObjectReader,
    OnError,
    Storage,
    StoreSource,
    listed,
)
from braze_export.integrations.dask_secrets import Secret
from braze_export.integrations.redis import RedisLimits
from braze_export.jobs.kinds import parse_kind
from braze_export.jobs.tables.schema import schema
from braze_export.jobs.values import CustomAttributes
from braze_export.limiting.limits import Limits
from braze_export.models.fields import check_fields
from braze_export.settings import ExportSettings

if TYPE_CHECKING:
    import dask.dataframe as dd

__all__ = ["LookedUp", "export_ids", "read_export"]

_ALLOWED: Final = "identifiers must be a Dask series, or a list of partitions of identifiers"
_NO_SERVER: Final = "redis://localhost"  # is made for its checks, and never connects


class LookedUp(NamedTuple):
    """What a look-up gives: each identifier is in exactly one of the three.

    Nothing is sent before one of them is computed. Compute them together, as by
    ``dask.compute(*found)``, or persist them: each partition is then asked for once, otherwise
    once for each computation.

    Attributes:
        profiles: the columns of ``braze_export.jobs``, held by Arrow.
        unknown: the column ``identifier``: those that Braze does not know.
        failed: the columns ``identifier`` and ``error``: those that could not be asked for.
    """

    profiles: "dd.DataFrame"
    unknown: "dd.DataFrame"
    failed: "dd.DataFrame"

    def persist(self) -> "LookedUp":
        """Have the cluster ask now, and keep the answers as long as the result is kept."""
        return LookedUp(*dask()[0].persist(*self))


def export_ids(
    identifiers: Any,
    *,
    base_url: str,
    workspace: str,
    kind: str = "external_id",
    fields: Iterable[str] | None = None,
    limits: Limits | None = None,
    custom_attributes: CustomAttributes = "json",
    concurrency: int = 16,
    processes: int = 8,
    api_key_from: str | Callable[[], str] = "BRAZE_API_KEY",
    redis_url_from: str | Callable[[], str] = "BRAZE_REDIS_URL",
    allow_insecure_http: bool = False,
) -> LookedUp:
    """Look up the profiles of partitions of identifiers, all workers within one rate limit.

    Each partition is one task, which holds its profiles in memory: some 10,000 identifiers are a
    good size. Of an identifier that stands in a partition more than once the others are left
    out; across partitions nothing is compared, so call ``drop_duplicates()`` first. Missing
    values are left out.

    What Braze refuses is narrowed down to the identifiers at fault, which fail alone. What all
    would fail of is raised: a key or a Redis that is refused, or no answer to the first 150
    identifiers of a partition. A partition that is lost with its worker is asked for again;
    partitions that are being asked for when a computation is cancelled come to their end.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_identifier

    Args:
        identifiers: a Dask series of text, such as ``frame["user_id"]``, or another Dask
            collection of one column; or an iterable of partitions: lists of text, or ``delayed``
            objects that become such lists or columns.
        base_url: the workspace's REST endpoint, or the name of its instance.
        workspace: a name for the Braze workspace, the same in all programs that share its
            limit: see ``RedisLimits``.
        kind: what the identifiers are: ``external_id``, ``braze_id``, ``device_id``, ``email``,
            ``phone``, or ``alias:LABEL`` for aliases of a label.
        fields: what to export; the column that tells whose a profile is comes in any case.
            Without, everything. Workspaces made on or after 2024-08-22 must name fields.
        limits: of the workspace, as for ``BrazeClient``.
        custom_attributes: ``json``: a column of JSON text. ``map``: a map from each name to its
            value as JSON text.
        concurrency: requests under way at once, of each task.
        processes: how many tasks are at work at once at most: their shares while Redis is gone.
        api_key_from: where a worker finds the API key: the name of an environment variable, or
            a function to call there. It must look the key up, not hold it.
        redis_url_from: where it finds the URL of Redis, in the same way.
        allow_insecure_http: send the key over plain HTTP to another machine.

    Returns:
        Three data frames of as many partitions as there are of identifiers.

    Raises:
        InputError: an argument that cannot be right, or packages that are missing. What only a
            worker can see is raised when the result is computed.
    """
    question = Question(
        base_url=resolve_base_url(base_url, allow_insecure_http=allow_insecure_http),
        api_key=Secret("api_key_from", api_key_from),
        redis_url=Secret("redis_url_from", redis_url_from),
        workspace=workspace,
        kind=kind,
        fields=parse_kind(kind).fields(fields, stacklevel=4),
        limits=limits or Limits(),
        custom_attributes=custom_attributes,
        concurrency=concurrency,
        processes=processes,
        allow_insecure_http=allow_insecure_http,
    )
    RedisLimits(_NO_SERVER, workspace=workspace, limits=limits, processes=processes)
    empty = (
        schema(question.fields, custom_attributes).empty_table(),
        unknown_table([]),
        failed_table([]),
    )
    package, dataframe = dask()
    # Not deterministic, for Braze may say something else tomorrow.
    name = f"braze-export-ids-{uuid4().hex}"
    ask = package.delayed(look_up, pure=False)
    pick = package.delayed(_pick, pure=False)
    asked = [
        ask(partition, question, dask_key_name=f"{name}-{number}")
        for number, partition in enumerate(_partitions(identifiers))
    ]
    return LookedUp(
        *(
            dataframe.from_delayed(
                [pick(tables, place) for tables in asked],
                meta=frame(table),
                verify_meta=False,  # tables are made by the same schema
            )
            for place, table in enumerate(empty)
        )
    )


def read_export(
    store: StoreSource,
    segment_id: str,
    *,
    object_prefix: str | None = None,
    folder: str | None = None,
    fields: Iterable[str] | None = None,
    custom_attributes: CustomAttributes = "json",
    on_error: OnError = "raise",
    timeout: float | None = None,
    settings: ExportSettings | None = None,
) -> "dd.DataFrame":
    """Return a segment's export in the workspace's own storage, one partition for each file.

    Waits until the files are all there, as ``braze_export.storage.read_export`` does, and lists
    them once. They are read when the frame is computed, each by the worker that has its
    partition. Columns that are not used are dropped as early as possible.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment

    Args:
        store: the URL of the bucket, such as ``s3://bucket``, for which this process and the
            workers have the credentials in their environment (extra ``storage``); or a function
            that makes a store, here and on the workers. No store, for it holds its credentials.
        segment_id: the segment's API identifier; for the global control group its own.
        object_prefix: of the export; ``None`` for the newest one that is there.
        folder: the folder configured in Braze; ``None``: it is looked for.
        fields: with which the export was started; what else is in the files comes to lie in the
            column ``extra``. ``None`` for all columns.
        custom_attributes: as for ``export_ids``.
        on_error: ``"raise"`` the first line that is no profile, or file that is damaged;
            ``"skip"`` what cannot be read, and log how much that was, never what.
        timeout: seconds to wait for the files.
        settings: how to wait and to read.

    Raises:
        InputError: an argument that cannot be right, or packages that are missing.
        NotFoundError: there is no export of this segment, where no ``object_prefix`` is given.
        ExportNotReadyError: the timeout is over.
        ExportExpiredError: no file came in ``settings.polling.lifetime``.
        TransportError, APIError: the store does not answer, or refuses.
        ArchiveError, DecodeError: when computed: a file, or a line, cannot be read.
    """
    check_name(segment_id, "segment_id")
    if object_prefix is not None:
        check_prefix(check_name(object_prefix, "object_prefix"))
    if on_error not in get_args(OnError):
        raise InputError(f'on_error must be "raise" or "skip", not {on_error!r}')
    settings = settings or ExportSettings()
    names = None if fields is None else check_fields(fields, stacklevel=3)
    meta = frame(schema(names, custom_attributes).empty_table())
    storage = Storage(store)
    reader = ObjectReader(
        storage=storage,
        fields=names,
        custom_attributes=custom_attributes,
        skip=on_error == "skip",
        settings=settings,
    )
    _, dataframe = dask()
    objects = listed(storage, (segment_id, object_prefix, folder), settings, timeout)
    profiles: dd.DataFrame = dataframe.from_map(
        reader.read, objects, meta=meta, label="braze-export", enforce_metadata=False
    )
    return profiles


def _partitions(identifiers: Any) -> list[Any]:
    """Return the partitions, each ``delayed``, or of values.

    Raises:
        InputError: these are no partitions of identifiers.
    """
    if hasattr(identifiers, "to_delayed"):
        _check_column(identifiers)
        return list(identifiers.to_delayed())
    if isinstance(identifiers, str | bytes | dict) or not isinstance(identifiers, Iterable):
        raise InputError(f"{_ALLOWED}, not {type(identifiers).__name__}")
    parts = [_partition(part) for part in identifiers]
    if not parts:
        raise InputError(f"{_ALLOWED}; there is not one partition")
    return parts


def _partition(part: Any) -> Any:
    if dask()[0].is_dask_collection(part):
        return part
    if isinstance(part, str | bytes | dict) or not isinstance(part, Iterable):
        raise InputError(f"{_ALLOWED}, not {type(part).__name__}: for one partition [identifiers]")
    return Partition(part if hasattr(part, "tolist") else tuple(part))


def _check_column(identifiers: Any) -> None:
    """Accept one column of text.

    Raises:
        InputError: there are several columns, or there is no text in it.
    """
    if getattr(identifiers, "ndim", 1) != 1:
        raise InputError('identifiers must be one column, such as frame["user_id"], not a frame')
    import pandas as pd  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

    dtype = getattr(identifiers, "dtype", object)
    if pd.api.types.is_numeric_dtype(dtype):
        raise InputError(f'identifiers must be text, not {dtype}: use .astype("string")')


def _pick(tables: Sequence[Any], place: int) -> Any:
    return frame(tables[place])
