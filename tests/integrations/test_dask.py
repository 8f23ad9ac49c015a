"""Look-ups and exports on a Dask cluster of processes, with a real Redis and real stores."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from blockbuster import BlockBuster
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import LocalStore, S3Store

from braze_export import (
    ArchiveError,
    AuthenticationError,
    BadRequestError,
    BrazeClient,
    DecodeError,
    EmailAddress,
    ExportNotReadyError,
    ExportSettings,
    InputError,
    LimiterError,
    Limits,
    NotFoundError,
    PermissionDeniedError,
    RateLimit,
)
from braze_export.integrations import dask_frames
from braze_export.integrations.dask import export_ids, read_export
from braze_export.integrations.dask_lookup import _sorted, _values
from braze_export.jobs.kinds import as_text, parse_kind
from braze_export.jobs.tables.schema import schema
from braze_export.sandbox import Sandbox, Window
from tests.archives.making import zipped
from tests.cli.conftest import KEY, serving
from tests.integrations.redis_servers import RedisServer
from tests.lazily import Lazily
from tests.storage import servers
from tests.storage.conftest import Bucket, s3_bucket, s3_server  # noqa: F401 - fixtures

if find_spec("distributed") is None:
    pytest.skip("needs the extra dask", allow_module_level=True)
dask: Any = Lazily("dask")
dd: Any = Lazily("dask.dataframe")
distributed: Any = Lazily("distributed")
pd: Any = Lazily("pandas")

# Some tests compute in this process though there is a cluster; Dask of 2025 takes it for a mistake.
pytestmark = pytest.mark.filterwarnings("ignore:Running on a single-machine:UserWarning")

LookUp: TypeAlias = Callable[..., Any]

read: Any = read_export  # Dask's own methods have no types
FIELDS: Final = ["external_id", "email"]
ELSEWHERE: Final = {"WRONG_KEY": "wrong", "NO_REDIS": "redis://127.0.0.1:1"}
QUICK: Final = ExportSettings(quiet_period=0.0)


@pytest.fixture(autouse=True, scope="module")
def dask_has_loops_of_its_own(_blockbuster: BlockBuster) -> Iterator[None]:
    """They block now and then, on reading files and on other threads."""
    _blockbuster.deactivate()
    yield
    _blockbuster.activate()


def set_environment(**values: str) -> None:
    os.environ.update(values)


@pytest.fixture(scope="module")
def workers(redis_server: RedisServer, dask_has_loops_of_its_own: None) -> Iterator[Any]:
    """Two processes, which know the secrets from their environment."""
    secrets = {"BRAZE_API_KEY": KEY, "BRAZE_REDIS_URL": redis_server.url} | ELSEWHERE
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        distributed.LocalCluster(env=secrets, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def braze() -> Iterator[Sandbox]:
    with serving(users=1000, profile="small", poisoned={"u7", "u500"}) as sandbox:
        yield sandbox


@pytest.fixture
def threads(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks run in this process, which knows the secrets."""
    monkeypatch.setenv("BRAZE_API_KEY", KEY)
    monkeypatch.setenv("BRAZE_REDIS_URL", redis_server.url)
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value)
    with dask.config.set(scheduler="threads"):
        yield


@pytest.fixture
def look_up(workspace: str) -> LookUp:
    def look_up(sandbox: Sandbox, identifiers: Any, **options: Any) -> Any:
        defaults: dict[str, Any] = {"fields": FIELDS, "workspace": workspace, "concurrency": 4}
        return export_ids(identifiers, base_url=sandbox.url, **(defaults | options))

    return look_up


def series(identifiers: Any, npartitions: int) -> Any:
    return dd.from_pandas(pd.Series(identifiers, name="user_id"), npartitions=npartitions)


# --- identifiers


def test_each_identifier_is_in_one_of_three_places_and_asked_for_once(
    braze: Sandbox, look_up: LookUp, workers: Any
) -> None:
    known = [f"u{n}" for n in range(1, 601)]
    found = look_up(braze, series([*known, "nobody", "u1001", *known[-3:], None, "  "], 5))
    assert braze.counters.requests == 0
    assert [part.npartitions for part in found] == [5, 5, 5]
    profiles, unknown, failed = dask.compute(*found)

    assert sorted(profiles["external_id"]) == sorted(set(known) - {"u7", "u500"})
    assert set(unknown["identifier"]) == {"nobody", "u1001"}
    assert set(failed["identifier"]) == {"u7", "u500", "  "}
    assert failed.set_index("identifier")["error"]["u7"].startswith("POST /users/export/ids: 400")
    asked = [i for seen in braze.log if seen.status == 200 for i in seen.body["external_ids"]]
    assert sorted(asked) == sorted({*known, "nobody", "u1001"} - {"u7", "u500"})


def test_workers_share_one_limit(look_up: LookUp, workers: Any) -> None:
    with serving(users=5000, profile="small", ids_window=Window(30, 1.0)) as braze:
        ids = series([f"u{n}" for n in range(1, 4001)], 8)
        found = look_up(braze, ids, limits=Limits(ids=RateLimit(30, 1))).persist()
        profiles, unknown, failed = dask.compute(*found)
        counters = braze.counters
        holding = workers.who_has(found.profiles).values()
    assert len({worker for holders in holding for worker in holders}) == 2
    assert (len(set(profiles["external_id"])), len(unknown), len(failed)) == (4000, 0, 0)
    assert (counters.requests, counters.rate_limited) == (80, 0)


def test_a_worker_that_dies_costs_nobody_a_profile(look_up: LookUp, workers: Any) -> None:
    ids = [f"u{n}" for n in range(1, 2001)]
    with serving(users=2000, profile="small", latency=0.02) as braze:
        found = look_up(braze, series(ids, 4), concurrency=2).persist()
        while braze.counters.requests < 6:
            time.sleep(0.005)
        os.kill(next(iter(workers.run(os.getpid).values())), signal.SIGKILL)
        profiles, unknown, failed = dask.compute(*found)
    assert sorted(profiles["external_id"]) == sorted(ids)
    assert (len(unknown), len(failed)) == (0, 0)
    workers.wait_for_workers(2)  # its successor, for other tests


def test_no_secret_is_in_the_task_graph(
    braze: Sandbox, look_up: LookUp, redis_server: RedisServer
) -> None:
    found = look_up(braze, [["u1"], ["u2"]])
    for part in found:
        graph = cloudpickle.dumps(dict(part.optimize().__dask_graph__()))
        assert braze.url.encode() in graph
        assert b"BRAZE_API_KEY" in graph
        assert KEY.encode() not in graph
        assert redis_server.url.encode() not in graph
        assert "u2" not in repr(dict(part.optimize().__dask_graph__()))


@pytest.mark.parametrize("custom_attributes", ["json", "map"])
def test_columns_are_those_of_the_bulk_jobs(look_up: LookUp, custom_attributes: Any) -> None:
    columns = schema(None, custom_attributes)
    expected = {field.name: pd.ArrowDtype(field.type) for field in columns}
    with serving(users=10, profile="typical") as braze:
        found = look_up(braze, [["u1"], []], fields=None, custom_attributes=custom_attributes)
        profiles = found.profiles.compute()
    assert dict(found.profiles.dtypes) == dict(profiles.dtypes) == expected
    [profile] = pa.Table.from_pandas(profiles, columns).to_pylist()
    assert profile["external_id"] == "u1"
    assert profile["custom_attributes"]


def test_what_was_persisted_is_not_asked_for_again(
    braze: Sandbox, look_up: LookUp, workers: Any
) -> None:
    found = look_up(braze, [["u1", "u2"], ["u3", "x"]]).persist()
    assert sorted(found.profiles["external_id"].compute()) == ["u1", "u2", "u3"]
    assert list(found.unknown["identifier"].compute()) == ["x"]
    assert len(found.failed) == 0
    assert braze.counters.requests == 2


@pytest.mark.parametrize(
    "partitions",
    [
        lambda: [("u1", "u2"), ["x"]],
        lambda: (part for part in [["u1", "u2"], ["x", "x"]]),
        lambda: [np.array(["u1", "u2"]), pa.array(["x", None])],
        lambda: [pd.Series(["u1", "u2"], dtype="category"), pd.Series([None, "x"])],
        lambda: [dask.delayed(["u1", "u2", float("nan")]), dask.delayed(pd.Index)(["x"])],
        lambda: dd.from_pandas(pd.DataFrame({"id": ["u1", "u2", "x"]}), npartitions=2)["id"],
    ],
    ids=["lists", "generator", "arrays", "series", "delayed", "column"],
)
def test_partitions_of_every_kind_without_a_cluster(
    braze: Sandbox, look_up: LookUp, partitions: Callable[[], Any], threads: None
) -> None:
    profiles, unknown, failed = dask.compute(*look_up(braze, partitions()))
    assert sorted(profiles["external_id"]) == ["u1", "u2"]
    assert list(unknown["identifier"]) == ["x"]
    assert failed.empty


def test_what_is_no_text_fails_alone(braze: Sandbox, look_up: LookUp, threads: None) -> None:
    mail = EmailAddress("u3@example.com")
    profiles, _, failed = dask.compute(*look_up(braze, [["u1", 17, "u2", "\ud800", mail]]))
    assert sorted(profiles["external_id"]) == ["u1", "u2"]
    assert list(failed["identifier"]) == ["17", "?", "u3@example.com"]
    assert "of type int: allowed are" in failed["error"][0]


def test_many_profiles_are_made_into_tables_piece_by_piece(
    braze: Sandbox,
    look_up: LookUp,
    threads: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dask_frames, "_AT_ONCE", 20_000)
    found = look_up(braze, [[f"u{n}" for n in range(501, 901)]])
    assert sorted(found.profiles["external_id"].compute()) == [f"u{n}" for n in range(501, 901)]


@pytest.mark.parametrize("kind", ["email", "alias:amplitude_id", "braze_id"])
def test_identifiers_of_other_kinds(
    braze: Sandbox, look_up: LookUp, kind: str, threads: None
) -> None:
    people = [braze.user(n) for n in (1, 2, 3)]
    names = {
        "email": [person.email for person in people],
        "alias:amplitude_id": [person.alias.name for person in people],
        "braze_id": [person.braze_id for person in people],
    }[kind]
    found = look_up(braze, [names[:2], [names[2], "x@example.com"]], kind=kind)
    profiles, unknown, failed = dask.compute(found)[0]
    assert set(profiles["external_id"]) >= {"u1", "u2", "u3"}
    assert (len(profiles), list(failed["identifier"])) == (3, [])
    assert list(unknown["identifier"]) == ["x@example.com"]


REFUSED: Final[list[tuple[dict[str, Any], type[Exception], str]]] = [
    ({"api_key_from": "WRONG_KEY"}, AuthenticationError, "environment variable WRONG_KEY"),
    ({"api_key_from": lambda: "wrong"}, AuthenticationError, "API key from the function given"),
    ({"api_key_from": "NOT_SET"}, InputError, "nothing from its environment variable NOT_SET"),
    ({"redis_url_from": lambda: ""}, InputError, "nothing from the function given"),
    ({"redis_url_from": "NO_REDIS"}, LimiterError, "cannot be reached"),
]


@pytest.mark.parametrize("where", [pytest.param("workers", marks=pytest.mark.slow), "threads"])
def test_what_all_would_fail_of_is_raised(
    braze: Sandbox, look_up: LookUp, where: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(where)
    for options, error, message in REFUSED:
        with pytest.raises(error) as caught:
            look_up(braze, [["u1"]], **options).profiles.compute()
        told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert message in told
    assert braze.counters.identifiers == 0


def test_logs_of_the_cluster_hold_neither_secrets_nor_identifiers(
    braze: Sandbox, look_up: LookUp, workers: Any
) -> None:
    ids = [["u1@example.com"], dask.delayed(list)(["u2@example.com"])]
    found = look_up(braze, ids, kind="email", redis_url_from="NO_REDIS")
    with pytest.raises(LimiterError):
        dask.compute(*found)
    logs = f"{workers.get_worker_logs()}{workers.get_scheduler_logs()}"
    assert "LimiterError" in logs
    assert "@example.com" not in logs
    assert KEY not in logs


def test_a_permission_that_lacks_is_raised(look_up: LookUp, threads: None) -> None:
    with (
        serving(permissions=["segments.list"]) as braze,
        pytest.raises(PermissionDeniedError, match="permission"),
    ):
        look_up(braze, [["u1"]]).unknown.compute()


@pytest.mark.parametrize(("count", "raised"), [(140, False), (150, True)])
def test_nobody_is_at_fault_where_nobody_is_answered(
    look_up: LookUp, count: int, raised: bool, threads: None
) -> None:
    with serving(fields_required=True) as braze:
        found = look_up(braze, [[f"u{n}" for n in range(count)]], fields=None)
        if raised:
            with pytest.raises(BadRequestError, match="fields_to_export"):
                found.failed.compute()
        else:
            assert len(found.failed.compute()) == count


@pytest.mark.parametrize(
    ("identifiers", "options", "message"),
    [
        (["u1", "u2"], {}, "for one partition"),
        ("u1", {}, "not str"),
        (17, {}, "not int"),
        ([17], {}, "not int"),
        ([], {}, "not one partition"),
        (lambda: series([1, 2], 1), {}, r"must be text, not int64: use .astype\("),
        (lambda: series(["a"], 1).to_frame(), {}, "one column"),
        ([["u1"]], {"kind": "name"}, "no kind of identifier"),
        ([["u1"]], {"fields": []}, "fields is empty"),
        ([["u1"]], {"concurrency": 0}, "concurrency must be"),
        ([["u1"]], {"processes": 0}, "processes must be"),
        ([["u1"]], {"workspace": ""}, "workspace must be"),
        ([["u1"]], {"limits": 250}, "limits must be"),
        ([["u1"]], {"custom_attributes": "xml"}, "custom_attributes"),
        ([["u1"]], {"base_url": "http://example.com"}, "https"),
        ([["u1"]], {"api_key_from": "b4c0ffee-secret"}, "never the secret itself"),
        ([["u1"]], {"redis_url_from": "redis://:secret@host"}, "never the secret itself"),
        ([["u1"]], {"redis_url_from": None}, "redis_url_from must be"),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(
    identifiers: Any, options: Any, message: str
) -> None:
    identifiers = identifiers() if callable(identifiers) else identifiers
    options = {"base_url": "US-01", "workspace": "w"} | options
    with pytest.raises(InputError, match=message) as caught:
        export_ids(identifiers, **options)
    assert "secret@" not in str(caught.value)
    assert "b4c0ffee" not in str(caught.value)


@pytest.mark.parametrize("partition", [lambda: "u1", lambda: pd.DataFrame({"u1": ["u2"]})])
def test_a_partition_that_is_no_column(
    braze: Sandbox, look_up: LookUp, partition: Callable[[], Any], threads: None
) -> None:
    found = look_up(braze, [dask.delayed(partition())])
    with pytest.raises(InputError, match="must be a column or list"):
        found.profiles.compute()


@given(st.lists(st.none() | st.integers() | st.just(float("nan")) | st.sampled_from("abc \x00é")))
def test_every_value_is_an_identifier_or_unusable_or_missing(values: list[Any]) -> None:
    identifiers, unusable = _sorted(_values(values), parse_kind("email"))
    there = [value for value in values if not pd.isna(value)]
    assert [as_text(identifier) for identifier in identifiers] == list(
        dict.fromkeys(v for v in there if isinstance(v, str) and v.strip())
    )
    assert [failure.identifiers[0] for failure in unusable] == [
        v for v in there if not (isinstance(v, str) and v.strip())
    ]


# --- exports in a bucket


DAY: Final = "segment-export/seg/2026-03-10"
PREFIX: Final = "0f3b2c1d-1111-4222-8333-444455556666-1773186600"


@attrs.frozen
class Folder:
    """A bucket that is a folder, with an export in it."""

    path: Path
    url: str

    def add(self, name: str, *lines: bytes, data: bytes | None = None) -> None:
        place = self.path / DAY / PREFIX
        place.mkdir(parents=True, exist_ok=True)
        data = zipped({"a.txt": b"\n".join(lines)}) if data is None else data
        (place / f"{name}.zip").write_bytes(data)


def users(*numbers: int) -> list[bytes]:
    return [b'{"external_id": "u%d", "email": "%d@example.com"}' % (n, n) for n in numbers]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Three files, with users 1 to 5."""
    folder = Folder(tmp_path, tmp_path.as_uri())
    folder.add("a", *users(1, 2))
    folder.add("b", *users(3))
    folder.add("c", *users(5, 4))
    return folder


def test_an_export_is_a_frame_of_one_partition_for_each_file(folder: Folder, workers: Any) -> None:
    frame = read(folder.url, "seg", settings=QUICK)
    assert [list(part["external_id"]) for part in dask.compute(*frame.partitions)] == [
        ["u1", "u2"],
        ["u3"],
        ["u5", "u4"],
    ]
    columns = {field.name: pd.ArrowDtype(field.type) for field in schema(None, "json")}
    assert dict(frame.dtypes) == dict(frame.compute().dtypes) == columns
    assert list(frame["email"].compute())[2] == "3@example.com"
    assert frame[["email", "external_id"]].compute().shape == (5, 2)


def test_columns_that_are_not_used_are_dropped_where_they_are_read(folder: Folder) -> None:
    frame = read(folder.url, "seg", settings=QUICK, fields=FIELDS)
    assert list(frame.columns) == ["external_id", "email", "extra"]
    assert "columns=['email']" in frame["email"].nunique().optimize().expr.tree_repr()


def test_a_store_is_made_where_it_is_used(folder: Folder, workers: Any) -> None:
    path = str(folder.path)
    frame = read(lambda: LocalStore(path), "seg", object_prefix=PREFIX, settings=QUICK)
    assert frame["external_id"].nunique().compute() == 5


async def test_an_export_is_listed_where_a_loop_runs_as_in_notebooks(folder: Folder) -> None:
    frame = read(folder.url, "seg", settings=QUICK)
    assert len(frame.compute(scheduler="synchronous")) == 5


def test_a_line_that_is_no_profile_is_raised(folder: Folder, workers: Any) -> None:
    folder.add("d", *users(6), b'{"email": "7@example.com"')
    frame = read(folder.url, "seg", settings=QUICK)
    with pytest.raises(DecodeError, match=r"d\.zip: a\.txt, line 2") as caught:
        frame.compute()
    assert "7@example.com" not in str(caught.value)


def test_what_cannot_be_read_is_skipped_and_counted(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.add("d", *users(6), b'{"email": "7@example.com"', b"17", *users(8))
    folder.add("e", data=b"PK\x03\x04 is no archive")
    frame = read(folder.url, "seg", on_error="skip", settings=QUICK)
    found = frame.compute(scheduler="synchronous")
    assert sorted(found["external_id"]) == ["u1", "u2", "u3", "u4", "u5", "u6", "u8"]
    assert sorted(record.getMessage().partition("/")[2] for record in caplog.records) == [
        "d.zip: 2 lines or files left out",
        "e.zip: 1 lines or files left out",
    ]


def test_a_damaged_file_is_raised(folder: Folder, workers: Any) -> None:
    folder.add("e", data=b"PK\x03\x04 is no archive")
    frame = read(folder.url, "seg", settings=QUICK)
    with pytest.raises(ArchiveError, match=r"e\.zip"):
        frame["email"].compute()


def test_an_export_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no export of this segment"):
        read(tmp_path.as_uri(), "seg", settings=QUICK)
    with pytest.raises(ExportNotReadyError):
        read(tmp_path.as_uri(), "seg", object_prefix=PREFIX, settings=QUICK, timeout=0.01)


@pytest.mark.parametrize(
    ("store", "options", "message"),
    [
        (S3Store("b", access_key_id="AKSECRET", secret_access_key="s"), {}, "not S3Store"),
        ("s3://b?sig=AKSECRET", {}, "without password and query"),
        ("s3://user:AKSECRET@b", {}, "without password and query"),
        ("bucket", {}, "must be like s3://"),
        ("nowhere://AKSECRET", {}, r"no store can be made of the URL \("),
        ("s3://b", {"segment_id": ""}, "segment_id must be"),
        ("s3://b", {"object_prefix": "a/b"}, "without slashes"),
        ("s3://b", {"on_error": "yield"}, 'must be "raise" or "skip"'),
        ("s3://b", {"fields": []}, "fields is empty"),
        ("s3://b", {"custom_attributes": "xml"}, "custom_attributes"),
    ],
)
def test_what_cannot_be_a_store_is_refused(store: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(store, **({"segment_id": "seg"} | options))
    assert "AKSECRET" not in str(caught.value)


def test_an_export_that_braze_wrote_into_a_bucket(
    s3_server: servers.S3Server,  # noqa: F811
    s3_bucket: Bucket,  # noqa: F811
    workers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workers.run(set_environment, **s3_server.environment())
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    with serving(storage=s3_bucket.store, users=60, users_per_object=20, profile="small") as braze:
        prefix = asyncio.run(exported(braze, s3_bucket.store))
        wanted = sorted(braze.segment_external_ids(1))
        segment = braze.segment_id(1)
    url, settings = s3_bucket.access.url, QUICK
    frame = read(url, segment, object_prefix=prefix, fields=FIELDS, settings=settings)
    assert frame.npartitions == 3
    assert sorted(frame["external_id"].compute()) == wanted
    graph = cloudpickle.dumps(dict(frame.optimize().__dask_graph__()))
    assert segment.encode() in graph
    assert b"tests" not in graph.replace(url.encode(), b"")  # the credentials


async def exported(braze: Sandbox, store: Any) -> str:
    """Have the first segment exported, and return the object prefix once its files are there."""
    async with asyncio.timeout(10), BrazeClient(braze.api_key, braze.url) as client:
        job = await client.users.export_segment(braze.segment_id(1), fields=FIELDS)
        while len(await store.list().collect_async()) < 3:
            await asyncio.sleep(0.01)
        assert job.object_prefix is not None
        return job.object_prefix


# --- where packages are missing


@pytest.mark.parametrize("package", ["dask", "dask.dataframe"])
def test_without_dask(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(import_module("dask"), "dataframe")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r'pip install "braze-export\[dask\]"'):
        export_ids([["u1"]], base_url="US-01", workspace="w")


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(InputError, match=r'pip install "braze-export\[storage\]"'):
        read("s3://bucket", "seg")
