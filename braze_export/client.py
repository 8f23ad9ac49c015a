"""``BrazeClient``: puts the rooms together, and decides nothing."""

import os
import sys
from types import TracebackType
from typing import Self

from braze_export._version import __version__
from braze_export.caller import Caller
from braze_export.errors import InputError
from braze_export.exporting.context import ExportContext
from braze_export.exporting.starting import Running
from braze_export.instances import resolve_base_url
from braze_export.limiting.governor import LocalLimiter
from braze_export.limiting.limits import Limiter, Limits
from braze_export.observing import Observer, Observing
from braze_export.resources.segments import Segments
from braze_export.resources.users import Users
from braze_export.retry import RetryPolicy
from braze_export.settings import ExportSettings, LookupSettings
from braze_export.tasks import TaskScope
from braze_export.transports.aiohttp import AiohttpTransport
from braze_export.validators import or_default
from braze_export.wire import ApiKey, Timeouts, Transport, check_transport

_USER_AGENT = f"braze-export/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}"


class BrazeClient:
    """A client of Braze's export API, for one workspace and one event loop.

    Use it as an async context manager, or call ``aclose()`` at the end::

        async with BrazeClient(api_key="...", base_url="US-01") as braze:
            user = await braze.users.get("u1", fields=["email"])

    Make one client for each workspace and share it: the limits hold for what goes through it.

    Args:
        api_key: a REST API key. It is shown nowhere, and sent to ``base_url`` only.
        base_url: the workspace's REST endpoint, or the name of its instance, such as
            ``"US-01"`` or ``"EU-01"``.
        limits: requests per period, by pool; ``Limits.new_workspace()`` for workspaces made
            on or after 2024-08-22. Or a limiter, such as the ``RedisLimits`` that several
            processes share (``braze_export.integrations.redis``); it is closed with the client.
        retry: when a failed request is tried again.
        timeouts: of each single request, in seconds.
        exports: how exports of segments are waited for and read.
        lookups: how concurrent ``users.get`` share requests, and whether answers are kept.
        transport: ``HttpxTransport(...)``, or ``AiohttpTransport(session)`` with your own
            session. Default: aiohttp with a session of its own.
        observer: is told of each request and each wait for one, for metrics and traces, such as
            ``OpenTelemetry()`` (``braze_export.integrations.opentelemetry``). Clients may share it.
        allow_insecure_http: send the key over plain HTTP to another machine.

    Attributes:
        users: exports of users.
        segments: segments and their sizes.
        limits: what grants the requests; ``limits.snapshot()`` tells how each pool stands.

    Raises:
        InputError: a key or an address that cannot be right, or an argument of the wrong kind.
    """

    users: Users
    segments: Segments
    limits: Limiter

    def __init__(
        self,
        api_key: str,
        base_url: str,
        *,
        limits: Limits | Limiter | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        exports: ExportSettings | None = None,
        lookups: LookupSettings | None = None,
        transport: Transport | None = None,
        observer: Observer | None = None,
        allow_insecure_http: bool = False,
    ) -> None:
        try:
            key = ApiKey(api_key)
        finally:
            del api_key  # a traceback with locals would show it, whatever else is wrong
        self.limits = _limiter(limits)
        self._transport = _transport(transport)
        self._scope = TaskScope()
        base_url = resolve_base_url(base_url, allow_insecure_http=allow_insecure_http)
        self._caller = Caller(
            scope=self._scope,
            base_url=base_url,
            key=key,
            transport=self._transport,
            limiter=self.limits,
            retry=or_default(retry, RetryPolicy, "retry"),
            timeouts=or_default(timeouts, Timeouts, "timeouts"),
            user_agent=_USER_AGENT,
            observing=Observing(observer, base_url),
        )
        exports = or_default(exports, ExportSettings, "exports")
        running = Running(exports.polling.lifetime)
        context = ExportContext(self._caller, exports, running)
        self.users = Users(self._caller, context, or_default(lookups, LookupSettings, "lookups"))
        self.segments = Segments(self._caller)

    @classmethod
    def from_env(
        cls,
        *,
        limits: Limits | Limiter | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        exports: ExportSettings | None = None,
        lookups: LookupSettings | None = None,
        transport: Transport | None = None,
        observer: Observer | None = None,
        allow_insecure_http: bool = False,
    ) -> Self:
        """Make a client from ``BRAZE_API_KEY`` and ``BRAZE_REST_ENDPOINT``.

        Raises:
            InputError: one of them is not set, or cannot be right.
        """
        missing = [n for n in ("BRAZE_API_KEY", "BRAZE_REST_ENDPOINT") if not os.environ.get(n)]
        if missing:
            are = "variable {} is" if len(missing) == 1 else "variables {} and {} are"
            raise InputError(
                f"the environment {are.format(*missing)} not set: BRAZE_API_KEY is the REST API "
                "key, BRAZE_REST_ENDPOINT the REST URL or the instance's name"
            )
        return cls(
            os.environ["BRAZE_API_KEY"],
            os.environ["BRAZE_REST_ENDPOINT"],
            limits=limits,
            retry=retry,
            timeouts=timeouts,
            exports=exports,
            lookups=lookups,
            transport=transport,
            observer=observer,
            allow_insecure_http=allow_insecure_http,
        )

    @property
    def base_url(self) -> str:
        """The REST endpoint that the key is sent to, without a trailing slash."""
        return self._caller.base_url

    @property
    def closed(self) -> bool:
        """Whether ``aclose()`` was called: calls raise ``ClientClosedError``."""
        return self._scope.closed

    def __repr__(self) -> str:
        caller = getattr(self, "_caller", None)  # missing where __init__ failed: logs show it then
        return f"<BrazeClient of {caller.base_url if caller else 'nothing'}>"

    async def __aenter__(self) -> Self:
        self._scope.check_open()
        try:
            await self.limits.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is under way and close the connections. Closing twice does nothing.

        Raises:
            InputError: the client is in use in another event loop: it is to be closed there.
        """
        self._scope.check_loop()
        self._caller.observing.close()
        try:
            await self._scope.aclose()
        finally:
            try:
                await self._transport.aclose()
            finally:
                await self.limits.aclose()


def _transport(transport: Transport | None) -> Transport:
    if transport is None:
        return AiohttpTransport()
    check_transport(transport)
    return transport


def _limiter(limits: Limits | Limiter | None) -> Limiter:
    if limits is None or isinstance(limits, Limits):
        return LocalLimiter(limits or Limits())
    if isinstance(limits, type) or not callable(getattr(limits, "acquire", None)):
        # Not its value: somebody may give the address of a Redis, with its password.
        raise InputError(
            "limits must be Limits(...), or a limiter such as RedisLimits(...), not "
            f"{type(limits).__name__}"
        )
    return limits
