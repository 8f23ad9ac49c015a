"""The command line on the workspace's own storage."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from braze_export import ExportSettings, Polling
from braze_export.cli import export_run
from braze_export.sandbox import Sandbox
from tests.cli.conftest import Ran, no_settings, point_to, run, serving  # noqa: F401 - fixtures
from tests.cli.test_ids import names
from tests.cli.test_segment import FIELDS, way_on
from tests.storage.conftest import Bucket, StoreAccess


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = partial(ExportSettings, polling=Polling(base=0.05, cap=0.1))
    monkeypatch.setattr(export_run, "ExportSettings", settings)


def enter(access: StoreAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in access.env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def braze(
    bucket: Bucket,
    no_settings: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Sandbox]:
    """A Braze that writes exports to the bucket, which the environment opens."""
    enter(bucket.access, monkeypatch)
    options = {"storage": bucket.store, "storage_folder": "team", "users_per_object": 50}
    with serving(users=200, **options) as sandbox:
        point_to(sandbox, monkeypatch)
        yield sandbox


def test_it_is_read_once_nothing_more_comes(
    braze: Sandbox,
    store_access: StoreAccess,
    run: Any,  # noqa: F811
) -> None:
    segment = braze.segment_id(1)
    ran: Ran = run(
        "segment", segment, *FIELDS, "--store", store_access.url, "--settled-after", "0.5"
    )
    assert ran.code == 0
    assert names(ran.out) == sorted(braze.segment_external_ids(1))


def test_it_is_taken_up_by_its_prefix(
    bucket: Bucket,
    braze: Sandbox,
    run: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = ("--store", f"{bucket.access.url}/team")
    ran: Ran = run("control-group", "--fields", "external_id", "--no-wait", *store)
    assert json.loads(ran.out)["url"] is None
    command = way_on(ran.err)
    assert command == [
        *("control-group", "--resume-from", json.loads(ran.out)["object_prefix"]),
        *store,
    ]
    monkeypatch.delenv("BRAZE_API_KEY")
    ran = run(*command, "--settled-after", "0.5")
    assert ran.code == 0
    assert names(ran.out) == sorted(braze.segment_external_ids(0))


def test_a_storage_that_cannot_be_read_is_found_before_anything_is_started(
    azure_bucket: Bucket,  # the others take any key
    no_settings: None,  # noqa: F811
    run: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enter(azure_bucket.access, monkeypatch)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with serving() as sandbox:
        point_to(sandbox, monkeypatch)
        store = ("--store", azure_bucket.access.url)
        ran: Ran = run("segment", sandbox.segment_id(1), *FIELDS, *store)
        assert sandbox.counters.requests == 0
    assert ran.code == 1
    assert ran.err.startswith(f"Error: The storage {azure_bucket.access.url} cannot be read (")
    assert ran.err.count("\n") == 1


def test_a_link_is_preferred(
    s3_bucket: Bucket,
    no_settings: None,  # noqa: F811
    run: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enter(s3_bucket.access, monkeypatch)
    with serving(users=30) as sandbox:
        point_to(sandbox, monkeypatch)
        store = ("--store", s3_bucket.access.url)
        ran: Ran = run("segment", sandbox.segment_id(1), *FIELDS, *store)
    assert (ran.code, len(ran.lines)) == (0, 30)
    assert "Warning: The export has a link, so that --store is not looked at." in ran.err
