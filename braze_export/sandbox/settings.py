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
_above_0: Any = validators.gt(0)


def _names(values: Iterable[str]) -> frozenset[str]:
    return frozenset(values)


def _numbers(values: Iterable[int]) -> frozenset[int]:
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
        empty_segments: numbers of segments that hold nobody; 0 is the control group.
        export_seconds: how long a segment export runs.
        export_members: among how many members an archive's users are spread.
        link_seconds: how long a link lives, from the start of its export.
        not_ready_status: what a link answers before its export is ready.
        ranges: serve parts of an archive to those who ask for a ``Range``.
        own_storage: None: answers carry a ``url``, as without own cloud storage; ``"null"`` and
            ``"absent"``: the two ways in which Braze leaves it out. With a ``storage`` and None:
            as ``"null"``.
        storage: own cloud storage: any object with ``async put_async(key, data)``; exports are
            put there when they end.
        storage_folder: the folder in ``storage`` that all keys begin with; empty: none.
        users_per_object: how many users an object in ``storage`` holds.
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
    empty_segments: frozenset[int] = attrs.field(default=frozenset(), converter=_numbers)
    export_seconds: float = attrs.field(default=0.0, validator=_at_least_0)
    export_members: int = attrs.field(default=3, validator=validators.gt(0))
    link_seconds: float = attrs.field(default=4 * 3_600.0, validator=_above_0)
    not_ready_status: Literal[403, 404] = attrs.field(
        default=403, validator=validators.in_((403, 404))
    )
    ranges: bool = True
    own_storage: Literal["null", "absent"] | None = attrs.field(
        default=None, validator=validators.in_((None, "null", "absent"))
    )
    storage: Any | None = attrs.field(default=None, repr=False)
    storage_folder: str = ""
    users_per_object: int = attrs.field(default=5_000, validator=validators.gt(0))
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
