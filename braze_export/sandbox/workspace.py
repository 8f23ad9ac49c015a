"""A workspace of Braze: takes a request, gives an answer. No sockets, no waiting.

https://www.braze.com/docs/api/basics/ (keys and permissions)
https://www.braze.com/docs/api/api_limits/
"""

import secrets
from collections.abc import Callable
from http import HTTPStatus

import attrs

from braze_export.sandbox.checks import check_body
from braze_export.sandbox.exports import Exports
from braze_export.sandbox.faults import Fault
from braze_export.sandbox.ids import IdsExport, is_fast
from braze_export.sandbox.messages import Answer, Refusal, Reply, Request
from braze_export.sandbox.people import People
from braze_export.sandbox.profiles import Profiles
from braze_export.sandbox.segments import Segments
from braze_export.sandbox.settings import Settings
from braze_export.sandbox.windows import Pool, PoolName

IDS = "/users/export/ids"


@attrs.frozen
class Endpoint:
    """What there is at a path: its method, the permission it takes, and what it does."""

    method: str
    permission: str
    handle: Callable[[Request, float], Answer]


class Workspace:
    """Everything that Braze knows and decides."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.people = People(settings.users, settings.seed)
        self.segments = segments = Segments(settings)
        self.exports = exports = Exports(settings, segments)
        self.profiles = profiles = Profiles(self.people, settings.profile, settings.seed)
        ids = IdsExport(settings, self.people, profiles)
        self.endpoints = {
            IDS: Endpoint("POST", "users.export.ids", ids),
            "/users/export/segment": Endpoint("POST", "users.export.segment", exports.segment),
            "/users/export/global_control_group": Endpoint(
                "POST", "users.export.global_control_group", exports.control_group
            ),
            # Surprising for a write, but so it is documented.
            "/export/segment/cancel": Endpoint("POST", "segments.list", exports.cancel),
            "/segments/list": Endpoint("GET", "segments.list", segments.list),
            "/segments/details": Endpoint("GET", "segments.details", segments.details),
            "/segments/data_series": Endpoint("GET", "segments.data_series", segments.data_series),
        }
        self.pools: dict[PoolName, Pool] = {
            "default": Pool(settings.default_window),
            "ids": Pool(settings.ids_window),
        }
        if settings.fast_ids_window:
            self.pools["fast_ids"] = Pool(settings.fast_ids_window)

    def answer(self, request: Request, now: float) -> Reply:
        """Serve a request, or refuse it as documented.

        Undocumented: whether refused requests count. Those without access to the endpoint do
        not, nor do those above the limit; those that turn out to be malformed do.
        """
        pool = self._pool(request)
        try:
            endpoint = self._admit(request)
            _take(pool, now)
            if endpoint.method == "POST":
                check_body(request)
            answer = endpoint.handle(request, now)
        except Refusal as refusal:
            return Reply(status=refusal.status, body=refusal.body, rate=pool.rate(now))
        return Reply(
            status=200, body=answer.body, rate=pool.rate(now), identifiers=answer.identifiers
        )

    def stand_in(self, request: Request, fault: Fault, now: float) -> Reply:
        """Answer with a fault in place of the workspace."""
        pool = self._pool(request)
        status = fault.status or 200
        limited = status == HTTPStatus.TOO_MANY_REQUESTS
        if not limited:
            pool.take(now)
        rate = attrs.evolve(pool.rate(now), remaining=0) if limited else pool.rate(now)
        return Reply(status=status, body=fault.encoded_body(phrase(status)), rate=rate)

    def _admit(self, request: Request) -> Endpoint:
        endpoint = self.endpoints.get(request.path)
        if endpoint is None and request.path.rstrip("/") in self.endpoints:
            raise Refusal(403, "Access Denied")  # documented: a trailing slash
        # Undocumented: a wrong method; here an invalid URL like any other.
        if endpoint is None or endpoint.method != request.method:
            raise Refusal(404, "Not Found")
        # Quotes, a second blank, another scheme: any deviation is documented as 401.
        given = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(given, f"Bearer {self._settings.api_key}".encode()):
            raise Refusal(401, "Unauthorized")
        permissions = self._settings.permissions
        if permissions is not None and endpoint.permission not in permissions:
            raise Refusal(403, "Access Denied")
        return endpoint

    def _pool(self, request: Request) -> Pool:
        """Choose the limit by the shape of the request.

        Undocumented: whether slow and fast requests share a counter. They do not here.
        """
        if request.path != IDS:
            return self.pools["default"]
        if "fast_ids" in self.pools and is_fast(request.json):
            return self.pools["fast_ids"]
        return self.pools["ids"]


def _take(pool: Pool, now: float) -> None:
    if not pool.take(now):
        raise Refusal(429, "Rate Limited")


def phrase(status: int) -> str:
    """Name a status, also one that nobody registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
