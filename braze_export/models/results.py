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


@frozen
class BadRecord:
    """A line of an export's archive that is no profile, or a file that breaks off.

    Attributes:
        file: the file it stands in, made harmless to print.
        line: the number of the line, from 1; ``None`` where the rest of the file, or all of it,
            cannot be read.
        offset: bytes of the file, unpacked, before the line.
        raw: the line; of one that is too long the first 10,000 bytes. Personal data.
        error: why it cannot be read.
    """

    file: str
    line: int | None
    offset: int | None
    raw: bytes = field(repr=lambda raw: f"<{len(raw)} bytes>")
    error: BrazeError


@define
class DownloadStats:
    """How far the reading of an export's archive has come.

    Attributes:
        objects: files begun: 1 for a link, any number in a store.
        objects_done: of these, read to their end.
        bytes_total: of those opened so far, as the server says.
        bytes_received: of these, fetched.
        bytes_unpacked: what they have unpacked to.
        users: profiles read.
        bad_records: lines, and files, that could not be read.
        resumed: connections that were lost, and taken up again.
    """

    objects: int = 0
    objects_done: int = 0
    bytes_total: int = 0
    bytes_received: int = 0
    bytes_unpacked: int = 0
    users: int = 0
    bad_records: int = 0
    resumed: int = 0


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

    def again(self, error: BrazeError, delay: float) -> None:
        """Note nothing of a pause: the next try is counted when it is made."""
