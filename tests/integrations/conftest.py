"""A Redis for the tests, started when the first one wants it."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
import redis
from blockbuster import BlockBuster

from tests.integrations.redis_servers import RedisMissing, RedisServer
from tests.integrations.virtual_redis import World


def _started(server: Callable[[], RedisServer]) -> Iterator[RedisServer]:
    try:
        with server() as running:
            yield running
    except RedisMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from _started(lambda: RedisServer(tmp_path_factory.mktemp("redis")))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one."""

    def server() -> RedisServer:
        folder = tmp_path_factory.mktemp("cluster")
        options = ("--cluster-enabled", "yes", "--cluster-port", "{free}")
        return RedisServer(folder, *options, port=True)

    for running in _started(server):
        with redis.Redis(port=running.port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            while client.cluster("INFO")["cluster_state"] != "ok":
                time.sleep(0.01)
        yield running


@pytest.fixture
def redis_for_me(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that the test may kill and start again."""
    yield from _started(lambda: RedisServer(tmp_path_factory.mktemp("mine"), port=True))


@pytest.fixture(autouse=True)
def redis_may_look_up_its_version(blocking_calls_fail: BlockBuster) -> None:
    """A client of one's own does, for each connection."""
    for function in blocking_calls_fail.functions.values():
        function.can_block_in("redis/utils.py", {"get_lib_version"})


@pytest.fixture
def workspace() -> str:
    return f"tests {uuid4().hex}"


@pytest.fixture
def world(redis_server: RedisServer, blocking_calls_fail: BlockBuster) -> Iterator[World]:
    """A Redis in virtual time, which is called without asyncio."""
    blocking_calls_fail.deactivate()
    with ExitStack() as leaving:
        client = leaving.enter_context(
            redis.Redis(unix_socket_path=str(redis_server.socket), protocol=2)
        )
        client.flushall()
        yield World(client)
        client.flushall()
