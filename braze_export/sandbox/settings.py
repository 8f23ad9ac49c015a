"""Everything that can be set on a sandbox, with its default and its bounds."""

import ipaddress
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs
from attrs import validators

from braze_export.sandbox.faults import Fault
from braze_export.sandbox.windows import Window

Profile: TypeAlias = Literal["full", "mixed", "small", "typical"]
PROFILES: Final = get_args(Profile)
FaultSource: TypeAlias = Callable[[int, str], Fault | None]

# A workspace onboarded on or after 2024-08-22 (https://www.braze.com/docs/api/api_limits/).
NEW_WORKSPACE: Final[dict[str, Any]] = {
    "ids_window": Window(250, 60.0),
    "fast_ids_window": Window(40, 1.0),
    "fields_required": True,
}

_at_least_0: Any = validators.ge(0)  # of any number type


def _names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(values)


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is this machine only; names other than localhost are not trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@attrs.define(kw_only=True, eq=False)
class Settings:
    """The options of a sandbox.

    Attributes:
        users: how many users there are, ``u1`` to ``uN``; they are computed, never held.
        segments: how many segments there are; computed as well.
        seed: the same seed makes the same users and segments, byte for byte.
        profile: the size of the users: ``small``, ``typical`` (2 KB), ``full`` (20 KB), ``mixed``.
        ids_window: the limit of ``/users/export/ids``.
        fast_ids_window: the faster limit for requests that name their fields and want neither
            ``campaigns_received`` nor ``canvases_received``; None: there is none.
        default_window: the limit shared by all other endpoints.
        fields_required: refuse ids requests without ``fields_to_export``.
        latency: seconds to wait before each answer.
        gzip: compress answers for clients that accept it.
        permissions: those of the API key; None: all.
        api_key: random unless given.
        host: the address to listen on.
        port: 0: any free one.
        allow_remote: allow a host that is not loopback.
        clock: seconds since the epoch; decides windows, ``Date`` and timestamps.
        export_seconds: how long a segment export runs.
        own_storage: None: answers carry a ``url``, as without own cloud storage; ``"null"`` and
            ``"absent"``: the two ways in which Braze leaves it out.
        strict_identifiers: refuse ids requests that mix kinds of identifiers.
        poisoned: identifiers that turn a whole ids request into a 400.
        faults: asked for a fault with the number of each request (from 1) and its path.
        log_size: how many requests ``Sandbox.log`` keeps.
    """

    users: int = attrs.field(default=10_000, validator=_at_least_0)
    segments: int = attrs.field(default=3, validator=_at_least_0)
    seed: int = 0
    profile: Profile = attrs.field(default="mixed", validator=validators.in_(PROFILES))
    ids_window: Window = attrs.field(default=Window(2_500, 60.0))
    fast_ids_window: Window | None = None
    default_window: Window = attrs.field(default=Window(250_000, 3_600.0))
    fields_required: bool = False
    latency: float = attrs.field(default=0.0, validator=_at_least_0)
    gzip: bool = False
    permissions: Collection[str] | None = None
    api_key: str = attrs.field(
        factory=lambda: secrets.token_hex(16), validator=validators.min_len(1), repr=False
    )
    host: str = "127.0.0.1"
    port: int = attrs.field(default=0, validator=_at_least_0)
    allow_remote: bool = False
    clock: Callable[[], float] = time.time
    export_seconds: float = attrs.field(default=0.0, validator=_at_least_0)
    own_storage: Literal["null", "absent"] | None = attrs.field(
        default=None, validator=validators.in_((None, "null", "absent"))
    )
    strict_identifiers: bool = True
    poisoned: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    faults: FaultSource | None = None
    log_size: int = attrs.field(default=1_000, validator=_at_least_0)

    def __attrs_post_init__(self) -> None:
        """Refuse to be reachable from other machines by accident."""
        if not self.allow_remote and not is_loopback(self.host):
            raise ValueError(f"{self.host!r} is not loopback; pass allow_remote=True to mean it")


def default(name: str) -> Any:
    """Return the default of the option ``name``, for help texts."""
    return attrs.fields_dict(Settings)[name].default
