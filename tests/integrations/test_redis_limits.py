"""``RedisLimits`` on a real Redis, with the sandbox over sockets."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import ConnectionError  # noqa: A004  what Redis calls it

from braze_export import BrazeClient, InputError, LimiterError, Limits, RateLimit
from braze_export.answers import RateWindow
from braze_export.integrations import redis_link
from braze_export.integrations.redis import RedisLimits
from braze_export.sandbox import Sandbox, Window
from tests.integrations.redis_servers import RedisServer

SMALL = Limits(ids=RateLimit(40, 1))


async def export(braze: BrazeClient, requests: int) -> int:
    ids = [f"u{number}" for number in range(1, 50 * requests + 1)]
    records = braze.users.export_ids(ids, fields=["external_id"], concurrency=16)
    return len([record async for record in records])


@pytest.fixture
async def admin(redis_server: RedisServer) -> AsyncIterator[Any]:
    client = redis.Redis(unix_socket_path=str(redis_server.socket))
    yield client
    await client.aclose()


async def stored(admin: Any) -> dict[bytes, dict[bytes, bytes]]:
    found = [key async for key in admin.scan_iter(b"braze_export*")]
    keys = [key for key in found if b":callback:" not in key]  # of other tests, and strings
    assert [key for key in keys if not 3600 < await admin.ttl(key) <= 3 * 3600] == []
    return {key: await admin.hgetall(key) for key in keys}


@pytest.mark.parametrize("processes", [2, 4])
async def test_limiters_share_one_limit(
    redis_server: RedisServer, workspace: str, processes: int, nothing_left: None
) -> None:
    async with Sandbox(ids_window=Window(40, 1.0), profile="small") as sandbox:

        async def one() -> int:
            limits = RedisLimits(redis_server.url, workspace=workspace, limits=SMALL)
            async with BrazeClient(sandbox.api_key, sandbox.url, limits=limits) as braze:
                return await export(braze, 60 // processes)

        exported = await asyncio.gather(*(one() for _ in range(processes)))
        counters = sandbox.counters

    assert exported == [3000 // processes] * processes
    assert (counters.requests, counters.rate_limited) == (60, 0)


async def test_redis_holds_no_key_and_forgets_everything(
    redis_server: RedisServer, admin: Any, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Sandbox(profile="small") as sandbox:
        limits = RedisLimits(redis_server.url, workspace=workspace)
        async with BrazeClient(sandbox.api_key, sandbox.url, limits=limits) as braze:
            await export(braze, 20)
            assert [segment async for segment in braze.segments.list()]
            during = await stored(admin)
        after = await stored(admin)

    name = workspace.encode()
    ours = {key for key in during if name in key}
    assert ours == {b"braze_export:{%s:%s}" % (name, pool) for pool in (b"ids", b"default")}
    assert any(field.startswith(b"p:") for key in ours for field in during[key])
    assert not any(field.startswith(b"p:") for key in ours for field in after[key])
    assert sandbox.api_key not in repr(during) + repr(after) + repr(limits) + caplog.text


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}]
)
async def test_a_client_of_ones_own_stays_open(
    redis_server: RedisServer, workspace: str, options: dict[str, Any]
) -> None:
    client = redis.Redis(unix_socket_path=str(redis_server.socket), **options)
    limits = RedisLimits(client, workspace=workspace)
    permit = await limits.acquire("ids", "bulk")
    permit.answered(RateWindow(limit=2500, remaining=2499, reset=99.0, clock=90.0, dated=True))
    (await limits.acquire("ids", "interactive")).unanswered(sent=True)
    pool = limits.snapshot()["ids"]
    await limits.aclose()

    assert await client.ping()
    await client.aclose()
    assert (pool.sent, pool.limit) == (2, 2500)
    assert pool.remaining is not None


async def test_closing_leaves_no_connection_and_the_limiter_can_be_used_again(
    redis_server: RedisServer, admin: Any, workspace: str
) -> None:
    before = len(await admin.client_list())
    limits = RedisLimits(redis_server.url, workspace=workspace)
    for _ in range(2):
        (await limits.acquire("ids", "bulk")).unanswered(sent=False)
        assert len(await admin.client_list()) > before
        await limits.aclose()
        await limits.aclose()
        assert len(await admin.client_list()) == before


async def test_a_permit_that_comes_back_after_the_end_wakes_nobody(
    redis_server: RedisServer, workspace: str, nothing_left: None
) -> None:
    limits = RedisLimits(redis_server.url, workspace=workspace)
    permit = await limits.acquire("ids", "bulk")
    await limits.aclose()
    permit.answered(RateWindow())
    await asyncio.sleep(0.06)


async def test_clients_share_a_limiter_and_one_may_close(
    redis_server: RedisServer, workspace: str
) -> None:
    async with Sandbox(ids_window=Window(10, 1.0), profile="small") as sandbox:
        limits = RedisLimits(redis_server.url, workspace=workspace)
        async with BrazeClient(sandbox.api_key, sandbox.url, limits=limits) as braze:
            running = asyncio.create_task(export(braze, 20))
            async with BrazeClient(sandbox.api_key, sandbox.url, limits=limits) as other:
                await other.users.get("u1", fields=["external_id"])
            assert await running == 1000
        assert sandbox.counters.rate_limited == 0


async def test_a_cluster(cluster: RedisServer, workspace: str, nothing_left: None) -> None:
    client = redis.RedisCluster(host="127.0.0.1", port=cluster.port)
    limits = [RedisLimits(client, workspace=workspace, limits=SMALL) for _ in range(2)]
    async with Sandbox(ids_window=Window(40, 1.0), profile="small") as sandbox:

        async def one(limits: RedisLimits) -> int:
            async with BrazeClient(sandbox.api_key, sandbox.url, limits=limits) as braze:
                return await export(braze, 20)

        assert await asyncio.gather(*map(one, limits)) == [1000, 1000]
        assert sandbox.counters.rate_limited == 0
    await client.aclose()
    assert repr(limits[0]).endswith(f" at 127.0.0.1:{cluster.port}>")


async def test_a_script_that_redis_forgot_is_sent_again(
    redis_server: RedisServer, admin: Any, workspace: str
) -> None:
    limits = RedisLimits(redis_server.url, workspace=workspace, when_gone="wait")
    (await limits.acquire("ids", "bulk")).unanswered(sent=False)
    await admin.script_flush()
    (await limits.acquire("ids", "bulk")).unanswered(sent=False)
    await limits.aclose()


async def test_the_wrong_kind_of_key_is_no_silence(
    redis_server: RedisServer, admin: Any, workspace: str
) -> None:
    await admin.set(f"braze_export:{{{workspace}:default}}", "x")
    limits = RedisLimits(redis_server.url, workspace=workspace)
    with pytest.raises(LimiterError, match="cannot share the limits"):
        await limits.start()
    await limits.aclose()


@pytest.mark.parametrize("when_gone", ["share", "wait"])
async def test_a_redis_that_is_not_there_is_found_at_the_start(
    when_gone: Any, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = "redis://user:secret@localhost:1/0"
    limits = RedisLimits(url, workspace=workspace, when_gone=when_gone)
    sentence = (
        "Redis at localhost:1 cannot be reached (Connection refused): start it, or give other "
        "limits"
    )

    with pytest.raises(LimiterError) as raised:
        async with BrazeClient("key", "http://127.0.0.1:9", limits=limits):
            pass
    with pytest.raises(LimiterError) as again:
        await limits.acquire("ids", "bulk")
    await limits.aclose()

    assert [str(raised.value), str(again.value)] == [sentence, sentence]
    assert raised.value.__cause__ is None
    assert repr(limits) == f"<RedisLimits of {workspace!r} at localhost:1>"
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "rule",
    [
        "+@all -evalsha -eval ~*",
        "+@all -eval ~*",
        "+@all -time ~*",
        "+@all -expire ~*",
        "+@all ~other:*",
    ],
)
async def test_a_user_who_may_not_run_the_script(
    redis_server: RedisServer, admin: Any, workspace: str, rule: str
) -> None:
    await admin.script_flush()
    await admin.execute_command("ACL SETUSER", "shop", "reset", "on", ">secret", *rule.split())
    url = f"unix://shop:secret@{redis_server.socket}"
    limits = RedisLimits(url, workspace=workspace)

    with pytest.raises(LimiterError) as raised:
        await limits.start()
    await limits.aclose()

    assert str(raised.value) == (
        f"Redis at {redis_server.socket} refuses the script that shares the limits: its user "
        "needs +evalsha +eval +time +hgetall +hset +hdel +expire and the keys ~braze_export:*"
    )


async def test_a_user_who_may_do_no_more_than_is_needed(
    redis_server: RedisServer, admin: Any, workspace: str
) -> None:
    await admin.script_flush()
    rule = redis_link._NEEDED.split()
    await admin.execute_command(
        "ACL SETUSER", "least", "reset", "on", ">secret", "~braze_export:*", *rule
    )
    limits = RedisLimits(f"unix://least:secret@{redis_server.socket}", workspace=workspace)
    (await limits.acquire("ids", "bulk")).unanswered(sent=False)

    # The rights may be lost at any time.
    await admin.execute_command("ACL SETUSER", "least", "-evalsha", "-eval")
    (await limits.acquire("ids", "bulk")).unanswered(sent=False)
    await limits.aclose()


def test_a_redis_behind_sentinels_is_named_by_its_service() -> None:
    sentinel: Any = Sentinel  # it has no types
    client = sentinel([("localhost", 26379)]).master_for("shop-limits")
    limits = RedisLimits(client, workspace="shop")
    assert repr(limits) == "<RedisLimits of 'shop' at shop-limits>"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("Error 111 connecting to localhost:6379."), "Connection refused"),
        (ConnectionError("Error -2 connecting to nowhere:6379."), "its name cannot be looked up"),
        (ConnectionError("Connection closed by server."), "the connection was lost"),
        (exceptions.TimeoutError("Timeout reading from x"), "no answer in time"),
        (TimeoutError(), "no answer in time"),
        (exceptions.BusyLoadingError("Redis is loading"), "it still loads its data"),
        (exceptions.ReadOnlyError("READONLY"), "it is a replica, which takes no writes"),
        (exceptions.ClusterDownError("CLUSTERDOWN"), "ClusterDownError"),
        (exceptions.AuthenticationError("secret"), "the login is refused"),
        (exceptions.NoPermissionError("user x"), "scripts are refused"),
    ],
)
def test_why_redis_is_gone(error: Exception, words: str) -> None:
    assert redis_link.reason(error) == words


async def test_a_login_that_is_refused(
    redis_server: RedisServer, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = RedisLimits(f"unix://nobody:secret@{redis_server.socket}", workspace=workspace)
    with pytest.raises(LimiterError, match="the login is refused") as raised:
        await limits.start()
    await limits.aclose()
    assert "secret" not in f"{raised.value}{limits!r}{caplog.text}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workspace": ""}, "workspace"),
        ({"workspace": "a{b}"}, "workspace"),
        ({"workspace": "a\nb"}, "workspace"),
        ({"workspace": "a" * 201}, "workspace"),
        ({"workspace": 5}, "workspace"),
        ({"processes": 0}, "processes"),
        ({"processes": 1.5}, "processes"),
        ({"processes": True}, "processes"),
        ({"when_gone": "fail"}, "when_gone"),
        ({"patience": 0}, "patience"),
        ({"patience": -1.0}, "patience"),
        ({"patience": float("nan")}, "patience"),
        ({"patience": "1"}, "patience"),
        ({"limits": 5}, "limits"),
        ({"redis": "http://localhost"}, "redis://"),
        ({"redis": "localhost:6379"}, "redis://"),
        ({"redis": ""}, "redis://"),
        ({"redis": "redis://u:secret@localhost:port/0"}, "cannot be read"),
        ({"redis": "redis://u:secret@localhost/0?socket_timeout=soon"}, "cannot be read"),
        ({"redis": "redis://u:secret@localhost/0?nothing=1"}, "cannot be read"),
        ({"redis": None}, "redis must be"),
    ],
)
def test_what_cannot_be_right_is_refused(options: dict[str, Any], message: str) -> None:
    given = {"redis": "redis://localhost", "workspace": "shop"} | options
    with pytest.raises(InputError, match=message) as raised:
        RedisLimits(**given)
    assert "secret" not in str(raised.value)


def test_without_the_extra_its_name_is_told() -> None:
    program = (
        "import sys\n"
        "sys.modules['redis'] = None\n"
        "try: import braze_export.integrations.redis\n"
        "except ImportError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == (
        'braze_export.integrations.redis needs: pip install "braze-export[redis]"\n'
    )
