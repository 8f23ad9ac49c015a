"""A client in a FastAPI app: its life cycle, how endpoints get it, their deadlines, readiness."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any

import aiohttp
import httpx
import pytest
import uvicorn
import uvloop
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Depends,
    FastAPI,
    Request,
    Response,
    WebSocket,
)
from fastapi.responses import StreamingResponse

from braze_export import AiohttpTransport, BrazeClient, InputError, Limits, RateLimit
from braze_export.deadlines import left
from braze_export.integrations.fastapi import (
    Braze,
    Readiness,
    braze_lifespan,
    braze_of,
    braze_state,
    get_braze,
    readiness,
    within,
)
from braze_export.sandbox import Sandbox
from braze_export.transports.httpx import HttpxTransport
from tests.integrations.fastapi_apps import asking, making, running, serving, talk, unconnected

pytestmark = pytest.mark.usefixtures("nothing_left")

#: Since then dependencies end after the answer, not before it.
ENDS_LATE = tuple(map(int, version("fastapi").split(".")[:2])) >= (0, 118)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(users=100, profile="small") as sandbox:
        yield sandbox


def closed(braze: BrazeClient) -> bool:
    return braze._scope.closed


def with_lookup(app: FastAPI) -> FastAPI:
    @app.get("/users/{user_id}")
    async def user(user_id: str, braze: Braze) -> str | None:
        profile = await braze.users.get(user_id, fields=["external_id"])
        return None if profile is None else profile.external_id

    return app


# --- life cycle


async def test_the_client_is_open_while_the_app_runs_and_closed_afterwards() -> None:
    seen = []
    app = FastAPI(lifespan=braze_lifespan(unconnected))

    @app.get("/")
    async def index(braze: Braze) -> None:
        seen.append((braze, closed(braze)))

    async with asking(app) as client:
        await client.get("/")
        await client.get("/")
    (braze, was_closed), again = seen
    assert again == (braze, False)
    assert not was_closed
    assert closed(braze)


async def test_each_start_of_the_app_opens_a_client_of_its_own() -> None:
    app = FastAPI(lifespan=braze_lifespan(unconnected))
    lifespan = app.router.lifespan_context
    async with lifespan(app) as first, lifespan(app) as second:
        clients = [(state or {})["braze_export"] for state in (first, second)]
        assert clients[0] is not clients[1]
    assert all(map(closed, clients))
    with pytest.raises(InputError, match="no open client"):
        braze_of(app)


async def test_several_apps_have_clients_of_their_own() -> None:
    apps = [FastAPI(lifespan=braze_lifespan(unconnected)) for _ in range(2)]
    async with running(apps[0]), running(apps[1]):
        assert braze_of(apps[0]) is not braze_of(apps[1])


async def test_the_apps_own_lifespan_lies_within_and_its_state_is_kept() -> None:
    events = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        braze = braze_of(app)
        events.append(f"begins, closed: {closed(braze)}")
        yield {"database": "d", "number": 1}
        events.append(f"ends, closed: {closed(braze)}")

    app = FastAPI(lifespan=braze_lifespan(unconnected, around=own))

    @app.get("/")
    async def index(request: Request, braze: Braze) -> list[Any]:
        return [request.state.database, request.state.number, closed(braze)]

    async with asking(app) as client:
        assert (await client.get("/")).json() == ["d", 1, False]
    assert events == ["begins, closed: False", "ends, closed: False"]


async def test_the_apps_own_lifespan_need_not_have_a_state() -> None:
    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(lifespan=braze_lifespan(unconnected, around=own))
    async with app.router.lifespan_context(app) as state:
        assert state == {"braze_export": braze_of(app)}


@pytest.mark.parametrize("when", ["start", "end"])
async def test_the_client_is_closed_when_the_apps_own_lifespan_fails(when: str) -> None:
    made = unconnected()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[None]:
        if when == "start":
            raise ZeroDivisionError
        yield
        raise ZeroDivisionError

    app = FastAPI(lifespan=braze_lifespan(lambda: made, around=own))
    with pytest.raises(ZeroDivisionError):
        async with running(app):
            pass
    assert closed(made)


async def test_a_lifespan_written_by_hand_hands_the_client_on() -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with unconnected() as braze:
            yield {"database": "d", **braze_state(braze)}

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def index(request: Request, braze: Braze) -> list[Any]:
        return [request.state.database, closed(braze)]

    async with asking(app) as client:
        assert (await client.get("/")).json() == ["d", False]


async def test_the_lifespan_can_be_that_of_a_router() -> None:
    router = APIRouter(lifespan=braze_lifespan(unconnected))

    @router.get("/")
    async def index(braze: Braze) -> bool:
        return closed(braze)

    app = FastAPI()
    app.include_router(router)
    async with asking(app) as client:
        assert (await client.get("/")).json() is False
    async with router.lifespan_context(None) as state:  # without an app
        assert list(state or {}) == ["braze_export"]


async def test_a_mounted_app_has_the_client_of_the_outer_one() -> None:
    inner = FastAPI()

    @inner.get("/same")
    async def same(request: Request, braze: Braze) -> bool:
        return braze is request.state.braze_export

    app = FastAPI(lifespan=braze_lifespan(unconnected))
    app.mount("/inner", inner)
    async with asking(app) as client:
        assert (await client.get("/inner/same")).json() is True


def own_aiohttp(sandbox: Sandbox) -> Any:
    @asynccontextmanager
    async def make() -> AsyncIterator[BrazeClient]:
        async with aiohttp.ClientSession() as session:
            async with making(sandbox, transport=AiohttpTransport(session))() as braze:
                yield braze
            assert not session.closed

    return make


def own_httpx(sandbox: Sandbox) -> Any:
    @asynccontextmanager
    async def make() -> AsyncIterator[BrazeClient]:
        context = await asyncio.to_thread(httpx.create_ssl_context, trust_env=False)
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            async with making(sandbox, transport=HttpxTransport(client))() as braze:
                yield braze
            assert not client.is_closed

    return make


@pytest.mark.parametrize("kind", [making, own_aiohttp, own_httpx])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_look_ups_of_a_served_app(kind: Callable[[Sandbox], Any], loop: Any) -> None:
    async def main() -> None:
        async with Sandbox(users=10, profile="small") as sandbox:
            app = with_lookup(FastAPI(lifespan=braze_lifespan(kind(sandbox))))
            async with serving(app) as client:
                answers = await asyncio.gather(*(client.get(f"/users/u{n}") for n in (1, 2, 99)))
        assert [answer.json() for answer in answers] == ["u1", "u2", None]
        assert len(asyncio.all_tasks()) == 1

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_without_a_key_the_server_says_so_once_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("BRAZE_API_KEY", raising=False)
    monkeypatch.delenv("BRAZE_REST_ENDPOINT", raising=False)
    with pytest.raises(SystemExit) as ended:
        uvicorn.run(FastAPI(lifespan=braze_lifespan()), port=0, log_config=None)
    assert ended.value.code == 3
    *_, sentence, last = [line for line in caplog.text.splitlines() if line]
    assert sentence.startswith("braze_export.errors.InputError: the environment variables BRAZE_")
    assert last.endswith("Application startup failed. Exiting.")
    assert caplog.text.count("the environment variables BRAZE_") == 1


# --- the dependency


async def test_without_the_lifespan_the_error_says_what_to_do() -> None:
    app = with_lookup(FastAPI())
    for lifespan in (True, False):
        with pytest.raises(InputError, match=r"FastAPI\(lifespan=braze_lifespan\(\)\)"):
            transport = httpx.ASGITransport(app)
            async with (
                asking(app, lifespan=lifespan),
                httpx.AsyncClient(transport=transport, base_url="http://app") as client,
            ):
                await client.get("/users/u1")


async def test_a_lifespan_run_by_hand_is_enough_for_tests() -> None:
    app = FastAPI(lifespan=braze_lifespan(unconnected))

    @app.get("/")
    async def index(braze: Braze) -> bool:
        return closed(braze)

    async with app.router.lifespan_context(app), asking(app, lifespan=False) as client:
        assert (await client.get("/")).json() is False


async def test_websockets_and_dependencies_have_the_client() -> None:
    app = FastAPI(lifespan=braze_lifespan(unconnected))

    async def address(braze: Braze) -> str:
        return braze.base_url

    @app.websocket("/ws")
    async def answer(
        websocket: WebSocket, braze: Braze, url: Annotated[str, Depends(address)]
    ) -> None:
        await websocket.accept()
        await websocket.send_json([url, closed(braze), braze is braze_of(websocket)])
        await websocket.close()

    async with running(app) as with_state:
        sent = await talk(with_state, "/ws")
    assert [message.get("text") for message in sent] == [
        None,
        '["https://rest.example.invalid",false,true]',
        None,
    ]


async def test_the_dependency_can_be_overridden() -> None:
    app = FastAPI()
    other = unconnected()

    @app.get("/")
    async def index(braze: Braze) -> bool:
        return braze is other

    async def override() -> BrazeClient:
        return other

    app.dependency_overrides[get_braze] = override
    async with asking(app) as client:
        assert (await client.get("/")).json() is True
    await other.aclose()


# --- deadlines


async def later() -> float | None:
    return left()


async def in_force() -> float | None:
    return left()


InForce = Annotated[float | None, Depends(in_force)]


def at_most(seconds: float, times: list[float | None]) -> bool:
    return all(time is not None and seconds - 1 < time <= seconds for time in times)


async def test_a_deadline_holds_for_all_that_the_endpoint_awaits_and_no_longer() -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(within(2.0))])
    async def index(sub: InForce) -> list[float | None]:
        return [left(), sub, await asyncio.create_task(later())]

    @app.get("/free")
    async def free(sub: InForce) -> list[float | None]:
        return [left(), sub]

    async with asking(app) as client:  # which runs the app in our own task
        assert at_most(2.0, (await client.get("/")).json())
        assert left() is None
        assert (await client.get("/free")).json() == [None, None]


async def test_the_shortest_deadline_counts() -> None:
    app = FastAPI(dependencies=[Depends(within(9.0))])
    router = APIRouter(dependencies=[Depends(within(5.0))])

    @router.get("/short", dependencies=[Depends(within(2.0))])
    async def short() -> list[float | None]:
        return [left()]

    @router.get("/long", dependencies=[Depends(within(20.0))])
    async def long() -> list[float | None]:
        return [left()]

    @app.get("/app")
    async def of_app() -> list[float | None]:
        return [left()]

    app.include_router(router)
    async with asking(app) as client:
        for path, seconds in {"/short": 2.0, "/long": 5.0, "/app": 9.0}.items():
            assert at_most(seconds, (await client.get(path)).json()), path
    assert left() is None


async def test_a_deadline_ends_with_an_endpoint_that_fails() -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(within(2.0))])
    async def index() -> None:
        raise ZeroDivisionError

    async with asking(app) as client:
        assert (await client.get("/")).status_code == 500
    assert left() is None


async def test_a_deadline_holds_until_a_streamed_answer_has_ended() -> None:
    app = FastAPI()
    times: list[float | None] = []

    async def note() -> None:
        times.append(left())

    async def rows() -> AsyncIterator[bytes]:
        await note()
        yield b"x"
        await note()

    @app.get("/", dependencies=[Depends(within(2.0))])
    async def index(background: BackgroundTasks) -> StreamingResponse:
        background.add_task(note)
        return StreamingResponse(rows(), background=background)

    async with serving(app) as client:
        assert (await client.get("/")).content == b"x"
    assert len(times) == 3
    if ENDS_LATE:
        assert at_most(2.0, times)
    else:
        assert times == [None] * 3


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "2", None])
def test_bad_seconds_are_refused_where_they_are_written(seconds: Any) -> None:
    with pytest.raises(InputError, match="seconds must be a number above zero"):
        within(seconds)


# --- readiness


async def test_readiness_tells_how_the_limits_stand(sandbox: Sandbox) -> None:
    limits = Limits(ids=RateLimit(2500, 60))
    app = with_lookup(FastAPI(lifespan=braze_lifespan(making(sandbox, limits=limits))))

    @app.get("/ready")
    async def ready(braze: Braze, response: Response) -> Readiness:
        state = readiness(braze)
        response.status_code = 200 if state.ready else 503
        return state

    async with asking(app) as client:
        before = (await client.get("/ready")).json()
        await client.get("/users/u1")
        after = (await client.get("/ready")).json()
        schema = (await client.get("/openapi.json")).json()["components"]["schemas"]
    nothing = {
        "limit": 2500, "remaining": None, "resets_in": None, "waiting": 0, "in_flight": 0,
        "sent": 0, "refused": 0, "seconds_waited": 0.0,
    }  # fmt: skip
    assert before["ready"] is True
    assert before["pools"]["ids"] == nothing
    assert after["pools"]["ids"]["sent"] == 1
    assert after["pools"]["ids"]["remaining"] == 2499
    assert 0 < after["pools"]["ids"]["resets_in"] <= 61
    assert sorted(after["pools"]) == ["campaign_series", "default", "ids", "lists"]
    assert {"Readiness", "PoolReadiness"} <= schema.keys()


async def test_an_app_stays_ready_while_the_limit_is_used_up(sandbox: Sandbox) -> None:
    sandbox.use_up(2500)
    braze = making(sandbox)()
    async with braze:
        with pytest.raises(Exception, match="429"):
            await braze.users.get("u1", fields=["email"])
        state = readiness(braze)
        assert state.ready
        assert state.pools["ids"].remaining == 0
        assert state.pools["ids"].refused == 1
    assert not readiness(braze).ready
