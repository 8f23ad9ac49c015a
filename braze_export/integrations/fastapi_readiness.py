"""Whether an instance of the app can serve, and how the rate limit stands, as a pydantic model."""

from attrs import asdict
from pydantic import BaseModel, Field

from braze_export.client import BrazeClient


class PoolReadiness(BaseModel):
    """One limit of Braze, as far as this client knows it. See ``braze_export.PoolSnapshot``."""

    limit: int = Field(description="Requests per window")
    remaining: int | None = Field(
        description="Requests left in this window; null before the first answer"
    )
    resets_in: float | None = Field(
        description="Seconds until the next window; null where it is not known"
    )
    waiting: int = Field(description="Requests that wait for their turn")
    in_flight: int = Field(description="Requests sent and not yet answered")
    sent: int = Field(description="Requests granted so far")
    refused: int = Field(description="Requests that the rate limit refused so far")
    seconds_waited: float = Field(description="Seconds that all requests waited for their turn")


class Readiness(BaseModel):
    """The answer of a readiness endpoint."""

    ready: bool = Field(description="Whether requests should be sent to this instance")
    pools: dict[str, PoolReadiness] = Field(description="The limits of Braze, by name")


def readiness(braze: BrazeClient) -> Readiness:
    """Return whether the client can be used, and how its limits stand. Sends nothing.

        @app.get("/ready")
        async def ready(braze: Braze) -> Readiness:
            return readiness(braze)

    ``ready`` is false once the client is closed. It stays true while a limit is used up: the limit
    is the workspace's, so every instance is in the same place, and a load balancer that took them
    all out would turn a wait for some calls into an outage of the whole app. Nor does it tell
    whether Braze can be reached, for the same reason.
    """
    pools = braze.limits.snapshot().items()
    return Readiness(
        ready=not braze.closed,
        pools={name: PoolReadiness(**asdict(pool)) for name, pool in pools},
    )
