"""The object stores of ``servers.py``, started when the first test wants one.

A bucket is fresh for every test. ``bucket``, ``store`` and ``store_access`` run a test for each
kind of store, and stand for the same bucket where a test asks for more than one of them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar
from uuid import uuid4

import pytest
from obstore.store import AzureStore, GCSStore, S3Store

from tests.storage import servers

KINDS = ("s3", "azure", "gcs")
Started = TypeVar("Started")
Store: TypeAlias = S3Store | AzureStore | GCSStore


class StoreAccess(NamedTuple):
    """What a program that runs by itself needs for a bucket."""

    url: str
    env: dict[str, str]


@dataclass(frozen=True)
class Bucket:
    """A fresh bucket, as a store and as what makes one."""

    kind: str
    store: Store
    access: StoreAccess


@pytest.fixture(scope="session")
def s3_server() -> Iterator[servers.S3Server]:
    yield from _started(servers.s3)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[servers.AzureServer]:
    yield from _started(servers.azure)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[servers.GcsServer]:
    yield from _started(servers.gcs)


@pytest.fixture
def s3_bucket(s3_server: servers.S3Server) -> Bucket:
    name = _made(s3_server)
    store = S3Store(
        name,
        endpoint=s3_server.url,
        access_key_id="tests",
        secret_access_key="tests",
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 2},
    )
    return Bucket("s3", store, _access(s3_server, name))


@pytest.fixture
def azure_bucket(azure_server: servers.AzureServer) -> Bucket:
    name = _made(azure_server)
    store = AzureStore(
        name,
        endpoint=azure_server.endpoint,
        account_name=azure_server.account,
        account_key=azure_server.key,
        client_options={"allow_http": True},
        retry_config={"max_retries": 2},
    )
    return Bucket("azure", store, _access(azure_server, name))


@pytest.fixture
def gcs_bucket(gcs_server: servers.GcsServer) -> Bucket:
    name = _made(gcs_server)
    store = GCSStore(
        name,
        service_account_key=gcs_server.service_account,
        client_options={"allow_http": True},
        retry_config={"max_retries": 2},
    )
    return Bucket("gcs", store, _access(gcs_server, name))


@pytest.fixture
def s3_store(s3_bucket: Bucket) -> Store:
    return s3_bucket.store


@pytest.fixture
def azure_store(azure_bucket: Bucket) -> Store:
    return azure_bucket.store


@pytest.fixture
def gcs_store(gcs_bucket: Bucket) -> Store:
    return gcs_bucket.store


@pytest.fixture(params=KINDS)
def bucket(request: pytest.FixtureRequest) -> Bucket:
    made = request.getfixturevalue(f"{request.param}_bucket")
    assert isinstance(made, Bucket)
    return made


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return bucket.store


@pytest.fixture
def store_access(bucket: Bucket) -> StoreAccess:
    return bucket.access


def _started(start: Callable[[], AbstractContextManager[Started]]) -> Iterator[Started]:
    """Skips the test, and all others that want the server, where it is not installed."""
    try:
        with start() as server:
            yield server
    except servers.ServerMissing as missing:
        pytest.skip(str(missing))


def _made(server: servers.Server) -> str:
    name = f"tests-{uuid4().hex}"
    server.create(name)
    return name


def _access(server: servers.Server, name: str) -> StoreAccess:
    return StoreAccess(server.address(name), server.environment())
