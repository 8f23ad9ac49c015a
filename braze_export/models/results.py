"""What an export yields beside profiles, and its sum."""

from typing import Generic, TypeVar

from attrs import Factory, define, field, frozen

from braze_export.errors import BrazeError
from braze_export.identifiers import Identifier

T = TypeVar("T")


@frozen
class InvalidUserId:
    """An identifier that matched no user in Braze."""

    identifier: Identifier


@frozen
class FailedBatch:
    """Identifiers whose export failed for good, and why.

    A single item that could not be sent at all stands here alone, as it was given.
    """

    identifiers: tuple[Identifier, ...] = field(repr=lambda ids: f"<{len(ids)}>")
    error: BrazeError


@frozen
class IdsResult(Generic[T]):
    """Everything that an export gave, held in memory."""

    users: list[T] = Factory(list)
    invalid_user_ids: list[Identifier] = Factory(list)
    failed: list[FailedBatch] = Factory(list)


@define
class ExportStats:
    """How far an export has come. Read it at any time; it only ever grows.

    Attributes:
        identifiers: asked for so far, duplicates left out.
        duplicates: left out because the same identifier was read shortly before.
        users: profiles received.
        invalid_user_ids: identifiers that Braze does not know.
        failed: identifiers whose export failed for good.
        unaccounted: identifiers of answered requests for which Braze sent neither a user nor an
            invalid id. Several identifiers of one user are answered by one profile, so this is
            not an error in itself.
        requests: HTTP requests sent, retries included.
        retries: requests that were sent again.
        rate_limited: answers with status 429.
    """

    identifiers: int = 0
    duplicates: int = 0
    users: int = 0
    invalid_user_ids: int = 0
    failed: int = 0
    unaccounted: int = 0
    requests: int = 0
    retries: int = 0
    rate_limited: int = 0

    def sent(self, attempt: int, status: int | None) -> None:
        """Count a request: the number of the try, and its status, ``None`` without an answer."""
        self.requests += 1
        self.retries += attempt > 1
        self.rate_limited += status == 429
