import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from attrs import define, field

from braze_export import (
    AiohttpTransport,
    BrazeClient,
    BrazeError,
    ConnectError,
    InputError,
    Limits,
    Observer,
    RateLimit,
    RequestInfo,
    RetryPolicy,
    ServerError,
)
from braze_export.codec import decode_object
from braze_export.endpoints import EXPORT_IDS, SEGMENTS_LIST, Pool
from braze_export.limiting.limits import PoolSnapshot
from braze_export.observing import Observing
from braze_export.sandbox import Fault, Sandbox
from braze_export.transports.httpx import HttpxTransport
from tests import virtual
from tests.test_caller import LOST, OK, Script, answer, make

BOTH = pytest.mark.parametrize("transport", [AiohttpTransport, HttpxTransport])
QUICK = RetryPolicy(max_attempts=3, base=0.001)


@define
class Notes(Observer):
    """Writes down what it is told."""

    begun: list[RequestInfo] = field(factory=list)
    ends: list[tuple[int | None, str | None]] = field(factory=list)
    waits: list[tuple[Pool, float]] = field(factory=list)
    hosts: list[str] = field(factory=list)
    snapshots: list[Callable[[], Mapping[Pool, PoolSnapshot]]] = field(factory=list)
    unwatched: int = 0

    def request(self, info: RequestInfo) -> Callable[[int | None, BaseException | None], None]:
        self.begun.append(info)
        return lambda status, error: self.ends.append(
            (status, type(error).__name__ if error else None)
        )

    def waited(self, pool: Pool, seconds: float) -> None:
        self.waits.append((pool, seconds))

    def watch(
        self, host: str, snapshot: Callable[[], Mapping[Pool, PoolSnapshot]]
    ) -> Callable[[], None]:
        self.hosts.append(host)
        self.snapshots.append(snapshot)
        return self._unwatch

    def _unwatch(self) -> None:
        self.unwatched += 1


def observed(script: Script, observer: Observer, calls: int = 1, **options: Any) -> None:
    async def main() -> None:
        caller = make(script, limits=options.pop("limits", None))
        object.__setattr__(caller, "observing", Observing(observer, "https://rest.example"))
        for _ in range(calls):
            await caller.call(options.pop("endpoint", EXPORT_IDS), decode_object, **options)

    virtual.run(main)


def test_every_request_is_told_with_its_end() -> None:
    notes = Notes()
    observed(Script([LOST, answer(503), answer(429), OK]), notes)
    assert [info.attempt for info in notes.begun] == [1, 2, 3, 4]
    lost = (None, "ConnectionLostError")
    assert notes.ends == [lost, (503, None), (429, None), (200, None)]


def test_a_request_is_told_without_its_query() -> None:
    notes = Notes()
    observed(Script([OK]), notes, endpoint=SEGMENTS_LIST, params={"segment_id": "secret"})
    assert notes.begun == [
        RequestInfo(
            method="GET",
            path="/segments/list",
            url="https://rest.example/segments/list",
            host="rest.example",
            port=443,
            pool="default",
            attempt=1,
        )
    ]


@pytest.mark.parametrize(
    ("base_url", "place"),
    [
        ("https://rest.example", ("rest.example", 443)),
        ("http://rest.example", ("rest.example", 80)),
        ("http://[::1]:8080/braze", ("::1", 8080)),
    ],
)
async def test_the_place_of_the_address(base_url: str, place: tuple[str, int]) -> None:
    notes = Notes()
    script = Script([OK])
    caller = make(script)
    await caller.call(SEGMENTS_LIST, decode_object)
    observing = Observing(notes, base_url)
    script.answers.append(OK)
    await observing.send(script, script.requests[0], "default", 1)
    (info,) = notes.begun
    assert (info.host, info.port) == place
    assert (info.url, info.path) == (f"{base_url}/segments/list", "/segments/list")


def test_every_wait_is_told_with_its_length() -> None:
    notes = Notes()
    observed(Script([OK, OK]), notes, calls=2, limits=Limits(ids=RateLimit(1, 1000)))
    (first, none), (second, long) = notes.waits
    assert (first, second) == ("ids", "ids")
    assert none == pytest.approx(0, abs=0.1)
    assert long == pytest.approx(1000, abs=1)


@BOTH
async def test_a_client_tells_of_itself_once_and_ends_with_that(transport: Any) -> None:
    notes = Notes()
    async with Sandbox(users=3) as sandbox:
        async with BrazeClient(
            sandbox.api_key, sandbox.url, transport=transport(), observer=notes
        ) as braze:
            assert notes.hosts == []  # before the first request there is nothing to see
            for user in sandbox.external_ids():
                await braze.users.get(user)
            (snapshot,) = notes.snapshots
            assert snapshot()["ids"].sent == braze.limits.snapshot()["ids"].sent == 3
            assert notes.unwatched == 0
        await braze.aclose()
    assert notes.hosts == ["127.0.0.1"]
    assert notes.unwatched == 1
    assert notes.ends == [(200, None)] * 3


async def test_a_client_that_sent_nothing_is_not_watched() -> None:
    notes = Notes()
    async with BrazeClient("key", "US-01", observer=notes):
        pass
    assert (notes.hosts, notes.unwatched) == ([], 0)


async def test_a_client_from_the_environment_has_an_observer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes = Notes()
    async with Sandbox(users=1) as sandbox:
        monkeypatch.setenv("BRAZE_API_KEY", sandbox.api_key)
        monkeypatch.setenv("BRAZE_REST_ENDPOINT", sandbox.url)
        async with BrazeClient.from_env(observer=notes) as braze:
            await braze.users.get("u1")
        port = int(sandbox.url.rpartition(":")[2])
    assert [(info.host, info.port) for info in notes.begun] == [("127.0.0.1", port)]


@BOTH
async def test_what_goes_wrong_is_told(transport: Any) -> None:
    notes = Notes()
    sandbox = Sandbox(users=1, faults=lambda *_: Fault(status=500))
    async with sandbox:
        url = sandbox.url
        braze = BrazeClient(
            sandbox.api_key, url, transport=transport(), retry=QUICK, observer=notes
        )
        with pytest.raises(ServerError):
            await braze.users.get("u1")
    async with braze:  # nobody listens there any more
        with pytest.raises(ConnectError):
            await braze.users.get("u1")
    assert notes.ends == [(500, None)] * 3 + [(None, "ConnectError")] * 3


@BOTH
async def test_a_cancelled_request_has_an_end(transport: Any) -> None:
    notes = Notes()
    async with (
        Sandbox(users=1, faults=lambda *_: Fault(delay=30)) as sandbox,
        BrazeClient(sandbox.api_key, sandbox.url, transport=transport(), observer=notes) as braze,
    ):
        call = asyncio.create_task(braze.users.get("u1"))
        while not notes.begun:
            await asyncio.sleep(0.01)
        assert notes.ends == []
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert notes.ends == [(None, "CancelledError")]


def _raise(*_: object) -> Any:
    raise ValueError("alice@example.com")


def _raise_later(*_: object) -> Any:
    return _raise


def _lacking(*_: object) -> Any:
    return None


BROKEN = {
    "all of it": {"request": _raise, "waited": _raise, "watch": _raise},
    "the ends": {"request": _raise_later, "watch": _raise_later},
    "no ends": {"request": _lacking, "watch": _lacking},
    "ends that are none": {"request": lambda *_: 1, "watch": lambda *_: 1},
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_observer_that_raises_breaks_no_call_and_is_logged_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    observer: Any = type("Broken", (Observer,), BROKEN[name])()
    async with Sandbox(users=2) as sandbox:
        sandbox.inject(Fault(status=503))
        async with BrazeClient(
            sandbox.api_key, sandbox.url, retry=QUICK, observer=observer
        ) as braze:
            assert await braze.users.get("u1") is not None
            assert await braze.users.get("u2") is not None
            with pytest.raises(BrazeError):
                await braze.users.export_ids(["u1"], fields=["email"], into=int).collect()
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    kinds = {"no ends": [], "ends that are none": ["TypeError"]}.get(name, ["ValueError"])
    assert [w.partition(":")[0] for w in warnings] == [f"the observer raised {k}" for k in kinds]
    assert "alice" not in caplog.text
    assert "users" not in "".join(warnings)


async def test_an_observer_cannot_turn_an_error_into_another() -> None:
    observer: Any = type("Broken", (Observer,), BROKEN["the ends"])()
    observing = Observing(observer, "https://rest.example")
    script = Script([LOST, OK])
    request = Script([OK])
    await make(request).call(EXPORT_IDS, decode_object)
    with pytest.raises(type(LOST)) as caught:
        await observing.send(script, request.requests[0], "ids", 1)
    assert caught.value is LOST
    assert await observing.send(script, request.requests[0], "ids", 1) is OK


async def test_what_is_no_error_of_the_observer_is_not_held_back() -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    observer: Any = type("Broken", (Observer,), {"watch": interrupted})()
    with pytest.raises(KeyboardInterrupt):
        await Observing(observer, "https://x").acquire(make(Script([])).limiter, "ids", "bulk")


def test_what_is_no_observer_is_refused() -> None:
    class Half:
        def request(self, info: object) -> None: ...

    wrong: Any = Half()
    with pytest.raises(InputError, match=r"Half lacks waited, watch$"):
        BrazeClient("key", "https://rest.example", observer=wrong)


async def _later(*_: object) -> Any: ...


@pytest.mark.parametrize("name", ["request", "waited", "watch"])
def test_an_observer_with_async_methods_is_refused(name: str) -> None:
    observer: Any = type("Late", (Observer,), {name: _later})()
    with pytest.raises(InputError) as caught:
        BrazeClient("key", "https://rest.example", observer=observer)
    assert str(caught.value) == (
        f"the methods of an observer are plain functions: {name} of Late must not be async"
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Notes, "Notes is a class, give an object of it"),
        (print, "builtin_function_or_method lacks request, waited, watch"),
        (type("Nothing", (Observer,), {"waited": None})(), "Nothing lacks waited"),
    ],
)
def test_what_has_not_the_methods_is_no_observer(wrong: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        BrazeClient("key", "https://rest.example", observer=wrong)
    assert str(caught.value) == f"observer must have the methods of Observer: {told}"


def test_an_observer_need_not_override_everything() -> None:
    class Patient(Observer):
        """Overrides nothing."""

    observed(Script([OK]), Patient())


def test_without_an_observer_nothing_is_told() -> None:
    script = Script([answer(503), OK])

    async def main() -> None:
        caller = make(script)
        assert caller.observing.observer is None
        await caller.call(EXPORT_IDS, decode_object)
        caller.observing.close()

    virtual.run(main)
    assert len(script.requests) == 2


def test_what_an_observer_gets_holds_no_secret() -> None:
    notes = Notes()
    script = Script([OK])
    observed(script, notes, params={"email": "ada@example.com"}, content={"external_ids": ["ada"]})
    assert "very-secret-key" not in f"{notes!r}"
    assert "ada" not in f"{notes!r}"
