"""What the stores do, as obstore shows it, and where one of them differs from the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from obstore.exceptions import (
    AlreadyExistsError,
    GenericError,
    NotModifiedError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
)
from obstore.store import AzureStore, S3Store

from tests.storage import servers
from tests.storage.conftest import Bucket, Store, StoreAccess

if TYPE_CHECKING:
    from obstore import GetOptions  # there for type checkers only

NAMES = ["a-b.txt", "a/B.txt", "a/a.txt", "a/b/1.txt", "a/b/2.txt", "a/é ü+%.txt", "z.txt"]


@pytest.fixture
def filled(store: Store) -> Store:
    for name in reversed(NAMES):
        store.put(name, f"this is {name}".encode())
    return store


async def names(store: Store, prefix: str | None = None, offset: str | None = None) -> list[str]:
    return [one["path"] async for chunk in store.list(prefix, offset=offset) for one in chunk]


async def test_lists_by_whole_segments_in_the_order_of_bytes(filled: Store) -> None:
    assert await names(filled) == NAMES
    within = [name for name in NAMES if name.startswith("a/")]
    assert await names(filled, "a") == await names(filled, "a/") == within  # never "a-b.txt"
    assert await names(filled, "nothing/here") == []


async def test_an_offset_is_no_promise(bucket: Bucket, filled: Store) -> None:
    after = await names(filled, "a", offset="a/a.txt")
    # Amazon's and Google's own services start behind the offset, and so does moto.
    # Azurite and fake-gcs-server list from the beginning all the same.
    everything = ["a/B.txt", "a/a.txt", "a/b/1.txt", "a/b/2.txt", "a/é ü+%.txt"]
    assert after == (everything[2:] if bucket.kind == "s3" else everything)


async def test_lists_one_level(filled: Store) -> None:
    top = await filled.list_with_delimiter_async()
    assert list(top["common_prefixes"]) == ["a"]
    assert [one["path"] for one in top["objects"]] == ["a-b.txt", "z.txt"]
    below = await filled.list_with_delimiter_async("a")
    assert list(below["common_prefixes"]) == ["a/b"]
    assert [one["path"] for one in below["objects"]] == ["a/B.txt", "a/a.txt", "a/é ü+%.txt"]


async def test_lists_in_chunks(filled: Store) -> None:
    assert [len(chunk) async for chunk in filled.list(chunk_size=3)] == [3, 3, 1]
    assert len(await filled.list().collect_async()) == 7


async def test_gets_all_and_parts(filled: Store) -> None:
    whole = await filled.get_async("a/é ü+%.txt")
    assert bytes(await whole.bytes_async()) == "this is a/é ü+%.txt".encode()
    assert await part(filled, {"range": (5, 7)}) == (b"is", (5, 7), 13)
    assert await part(filled, {"range": {"offset": 8}}) == (b"z.txt", (8, 13), 13)
    assert await part(filled, {"range": (8, 1_000)}) == (b"z.txt", (8, 13), 13)
    assert bytes(await filled.get_range_async("z.txt", start=5, length=2)) == b"is"


async def test_no_part_is_empty(filled: Store) -> None:
    with pytest.raises(GenericError):
        await part(filled, {"range": {"offset": 13}})  # the object's size
    with pytest.raises(GenericError):
        await part(filled, {"range": (3, 3)})
    filled.put("empty", b"")
    assert bytes(filled.get("empty").bytes()) == b""
    with pytest.raises(GenericError):
        await filled.get_async("empty", options={"range": {"offset": 0}})


async def test_the_last_bytes(bucket: Bucket, filled: Store) -> None:
    if bucket.kind == "azure":  # the service has no such request
        with pytest.raises(NotSupportedError):
            await part(filled, {"range": {"suffix": 3}})
    else:
        assert await part(filled, {"range": {"suffix": 3}}) == (b"txt", (10, 13), 13)


async def part(store: Store, options: "GetOptions") -> tuple[bytes, tuple[int, int], int]:
    got = await store.get_async("z.txt", options=options)
    return bytes(await got.bytes_async()), got.range, got.meta["size"]


async def test_what_is_known_of_an_object(bucket: Bucket, store: Store) -> None:
    put = await store.put_async("a/b.txt", b"some bytes")
    head = await store.head_async("a/b.txt")
    assert (head["path"], head["size"], head["e_tag"]) == ("a/b.txt", 10, put["e_tag"])
    assert head["last_modified"].microsecond == 0  # by every one of them, to the second
    assert abs(datetime.now(UTC) - head["last_modified"]) < timedelta(seconds=10)
    assert (head["version"] is not None) == (bucket.kind == "gcs")
    assert (await store.get_async("a/b.txt")).meta == head

    [[listed]] = [chunk async for chunk in store.list("a")]
    assert listed["last_modified"] == head["last_modified"]
    assert (listed["size"], listed["version"]) == (10, None)
    # Only moto's listing has the quotes that are part of an entity tag.
    quotes = '"' if bucket.kind == "s3" else ""
    assert head["e_tag"] is not None
    assert listed["e_tag"] == quotes + head["e_tag"].strip('"') + quotes


async def test_the_same_bytes_again(bucket: Bucket, store: Store) -> None:
    first = await store.put_async("x", b"one")
    same = await store.put_async("x", b"one")
    other = await store.put_async("x", b"two")
    # Azure's tag is of the write, the others' of the content.
    assert (first["e_tag"] == same["e_tag"]) == (bucket.kind != "azure")
    assert other["e_tag"] not in {first["e_tag"], same["e_tag"]}


async def test_a_part_of_what_was_seen(bucket: Bucket, store: Store) -> None:
    seen = (await store.put_async("x", b"hello world"))["e_tag"]
    assert seen is not None
    for tag in (seen, seen.strip('"')):  # as heads and as listings have it
        got = await store.get_async("x", options={"range": {"offset": 6}, "if_match": tag})
        assert bytes(await got.bytes_async()) == b"world"

    await store.put_async("x", b"HELLO WORLD")
    if bucket.kind == "gcs":
        # Google's own service refuses, fake-gcs-server ignores all conditions of a read:
        # what came must be compared with what was seen.
        got = await store.get_async("x", options={"range": {"offset": 6}, "if_match": seen})
        assert bytes(await got.bytes_async()) == b"WORLD"
        assert got.meta["e_tag"] != seen
        return
    with pytest.raises(PreconditionError):
        await store.get_async("x", options={"range": {"offset": 6}, "if_match": seen})
    now = (await store.head_async("x"))["e_tag"]
    with pytest.raises(NotModifiedError):
        await store.get_async("x", options={"if_none_match": now})


async def test_only_if_new(store: Store) -> None:
    await store.put_async("x", b"one", mode="create")
    with pytest.raises(AlreadyExistsError):
        await store.put_async("x", b"two", mode="create")
    assert bytes((await store.get_async("x")).bytes()) == b"one"


async def test_what_is_not_there(bucket: Bucket, store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        await store.get_async("x")
    with pytest.raises(FileNotFoundError):
        await store.head_async("x")
    if bucket.kind == "s3":
        await store.delete_async("x")
    else:
        with pytest.raises(FileNotFoundError):
            await store.delete_async("x")


async def test_deletes(filled: Store) -> None:
    await filled.delete_async(["a/a.txt", "z.txt"])
    assert await names(filled) == [n for n in NAMES if n not in {"a/a.txt", "z.txt"}]


async def test_a_large_object_in_parts_and_chunks(store: Store) -> None:
    content = os.urandom(1 << 20) * 12
    await store.put_async("large", content, chunk_size=5 << 20)  # three parts
    got = await store.get_async("large")
    assert got.meta["size"] == len(content)
    chunks = [bytes(chunk) async for chunk in got.stream(min_chunk_size=1 << 20)]
    assert b"".join(chunks) == content
    assert all(len(chunk) >= 1 << 20 for chunk in chunks[:-1])


async def test_a_wrong_key(azure_server: servers.AzureServer, azure_bucket: Bucket) -> None:
    stranger = AzureStore(  # moto and fake-gcs-server take any key
        azure_bucket.access.url.removeprefix("az://"),
        endpoint=azure_server.endpoint,
        account_name=azure_server.account,
        account_key="d3Jvbmc=",
        client_options={"allow_http": True},
    )
    with pytest.raises(PermissionDeniedError):
        await stranger.get_async("x")
    with pytest.raises(GenericError, match="403"):  # a listing's error has no kind of its own
        await names(stranger)


async def test_nobody_answers() -> None:
    nowhere = S3Store(
        "bucket",
        endpoint="http://127.0.0.1:1",
        access_key_id="x",
        secret_access_key="x",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    with pytest.raises(GenericError):
        await nowhere.get_async("x")


def test_a_program_gets_at_a_bucket_by_url_and_environment(
    store: Store, store_access: StoreAccess
) -> None:
    program = (
        "import sys; from obstore.store import from_url; store = from_url(sys.argv[1]);"
        "store.put('b.txt', bytes(store.get('a.txt').bytes()).upper())"
    )
    store.put("a.txt", b"bytes")
    for url in (store_access.url, f"{store_access.url}/below"):
        environment = {**os.environ, **store_access.env}
        run([sys.executable, "-c", program, url], environment)
        store.put("below/a.txt", b"bytes below")
    assert bytes(store.get("b.txt").bytes()) == b"BYTES"
    assert bytes(store.get("below/b.txt").bytes()) == b"BYTES BELOW"


def run(command: Sequence[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


SERVES = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
SLEEPS = "import time; print('here I am at http://127.0.0.1:1', flush=True); time.sleep(60)"


def test_a_server_that_dies_tells_why() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no room')"]
    with (
        pytest.raises(servers.ServerFailed, match=r"(?s)died.*no room"),
        servers.serving(command, "x"),
    ):
        pass


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "STARTS_WITHIN", 0.5)
    command = [sys.executable, "-c", SLEEPS]
    with (
        pytest.raises(servers.ServerFailed, match=r"(?s)did not answer.*here I am"),
        servers.serving(command, r"at (\S+)"),
    ):
        pass


def test_no_server_outlives_tests_that_are_killed() -> None:
    program = (
        "import os, time; from tests.storage import servers\n"
        f"with servers.serving({SERVES}, r'(http://[0-9.:]+)') as url:\n"
        "    print(url, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        url = tests.stdout.readline().strip()
        assert servers.answers(url)
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while servers.answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)
