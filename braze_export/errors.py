"""Every exception and warning of the package. What it raises, and nothing about when.

::

    BrazeError
    ├── InputError (also ValueError)         bad input, found before a request is sent
    │   └── InvalidIdentifierError           it is an identifier that cannot be sent
    ├── ClientClosedError (also RuntimeError) the client was closed, or not yet opened
    ├── DeadlineExceededError (also TimeoutError) a call was not, or cannot be, done in time
    ├── ExportNotReadyError (also TimeoutError) an export was not ready in the time given
    ├── LimiterError                         what grants the requests cannot work
    ├── JobError                             a bulk job cannot start, or go on; nothing is damaged
    │   ├── JobChangedError                  it, its input or its files are not what they were
    │   ├── JobRunningError                  another run is at work on it
    │   └── JobStorageError                  its files cannot be written: the disk is full, say
    ├── TransportError                       no whole answer came
    │   ├── ConnectError                     nothing was sent: name look-up, refused, TLS
    │   ├── ConnectionLostError              the connection broke once the request was under way
    │   └── RequestTimeoutError (also TimeoutError)
    └── APIError                             an answer came that cannot be used
        ├── BadRequestError                  400
        ├── AuthenticationError              401
        ├── PermissionDeniedError            403
        ├── NotFoundError                    404
        ├── PayloadTooLargeError             413
        ├── UnsupportedMediaTypeError        415
        ├── RateLimitError                   429
        │   └── ExportInProgressError        429 that is no rate limit: an export is running
        ├── ServerError                      5xx
        ├── ExportExpiredError               the link to an export's archive has run out
        ├── ArchiveError                     the archive is damaged, hostile, or none
        └── DecodeError                      the body is not what the endpoint documents

    BrazeWarning (UserWarning)
    └── UnknownFieldWarning                  a name in ``fields`` looks misspelt
"""

from collections.abc import Sequence


class BrazeError(Exception):
    """Anything that this package raises on purpose.

    Attributes:
        identifiers: the identifiers whose export failed, where the error belongs to some.
        partial: what ``collect()`` had received before the error, an ``IdsResult``.
    """

    identifiers: tuple[object, ...] = ()
    partial: object | None = None


class InputError(BrazeError, ValueError):
    """Input that cannot be sent. The message names what was wrong and what is allowed."""


class InvalidIdentifierError(InputError):
    """What was passed for an identifier cannot be one: it is empty, say, or no string."""


class ClientClosedError(BrazeError, RuntimeError):
    """The client was used after ``aclose()``, or closed while the call was under way."""


class DeadlineExceededError(BrazeError, TimeoutError):
    """A call was not done by its deadline, or cannot be (see ``braze_export.deadline``).

    Attributes:
        retry_after: seconds until the rate limit lets requests through, where that is what the
            call would have to wait for; then nothing was sent.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ExportNotReadyError(BrazeError, TimeoutError):
    """An export was not ready in the time that the caller gave it. It may yet become so."""


class LimiterError(BrazeError):
    """What grants the requests cannot work, such as limits in a Redis that cannot be reached."""


class JobError(BrazeError):
    """A bulk job cannot start, or cannot go on. What it has written so far is kept."""


class JobChangedError(JobError):
    """A job cannot go on: its definition, its input or its files are not what they were."""


class JobRunningError(JobError):
    """Another run is at work on the same job."""


class JobStorageError(JobError):
    """The files of a job cannot be written: the disk is full, or the directory read-only."""


class TransportError(BrazeError):
    """No whole answer came: the request may or may not have been carried out.

    Attributes:
        endpoint: method and path, such as ``POST /users/export/ids``.
        attempts: how many times the request was tried.
        sent: whether the request may have reached the server.
        hint: what to do about it.
    """

    sent: bool = True

    def __init__(
        self, message: str, *, endpoint: str = "", attempts: int = 1, hint: str = ""
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.attempts = attempts
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.endpoint}: " if self.endpoint else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{where}{self.args[0]}{_tries(self.attempts)}{hint}"


class ConnectError(TransportError):
    """No connection could be made, so nothing was sent."""

    sent = False


class ConnectionLostError(TransportError):
    """The connection broke before the whole answer had come."""


class RequestTimeoutError(TransportError, TimeoutError):
    """The answer did not come in time (see ``Timeouts``)."""


class APIError(BrazeError):
    """Braze answered, and the answer cannot be used.

    Attributes:
        status: the HTTP status code.
        message: what Braze said, or a short description where it said nothing readable.
        errors: further messages of the answer's ``errors`` array, as text.
        endpoint: method and path, such as ``POST /users/export/ids``.
        attempts: how many times the request was tried.
        hint: what to do about it, with Braze's documentation page.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        errors: Sequence[str] = (),
        endpoint: str = "",
        attempts: int = 1,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.errors = tuple(errors)
        self.endpoint = endpoint
        self.attempts = attempts
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.endpoint}: " if self.endpoint else ""
        more = f" ({'; '.join(self.errors)})" if self.errors else ""
        status = f"{self.status} " if self.status else ""
        text = f"{where}{status}{self.message}{more}{_tries(self.attempts)}"
        return f"{text.removesuffix('.')}. {self.hint}" if self.hint else text


class BadRequestError(APIError):
    """400: Braze refuses the request as it stands."""


class AuthenticationError(APIError):
    """401: the key is wrong, or belongs to another workspace or instance."""


class PermissionDeniedError(APIError):
    """403: the key lacks the permission that the endpoint needs."""


class NotFoundError(APIError):
    """404: there is no such endpoint, or no such segment."""


class PayloadTooLargeError(APIError):
    """413: the request body is over Braze's 4 MB."""


class UnsupportedMediaTypeError(APIError):
    """415: something on the way changed the request's content type."""


class RateLimitError(APIError):
    """429: the workspace has used up its requests for this window.

    Attributes:
        retry_after: seconds until the server says it will answer again, or ``None``.
    """

    retry_after: float | None = None


class ExportInProgressError(RateLimitError):
    """429 on an export: one of the same segment is running, or too many are."""


class ServerError(APIError):
    """5xx: Braze failed, or something between here and there did.

    Attributes:
        retry_after: seconds that the server asks to wait (``Retry-After``), or ``None``.
    """

    retry_after: float | None = None


class ExportExpiredError(APIError):
    """The link to an export's archive has run out, or the export came to nothing.

    Attributes:
        code: the storage's own word for it, such as ``AccessDenied``, or ``None``.
    """

    code: str | None = None


class ArchiveError(APIError):
    """What an export's link or storage gave is no archive, or one that is damaged or hostile.

    Attributes:
        file: the name of the archive, or of the member in it, made harmless to print.
    """

    file: str = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.file}: {text}" if self.file else text


class DecodeError(APIError):
    """A body, or one record of it, that cannot be read as what the endpoint documents.

    Attributes:
        raw: the bytes that could not be read, of a whole body the first 10,000. Personal data:
            never part of the message.
        file: the file of an archive that the record stands in, where it is of one.
        line: the number of its line in that file, from 1.
        offset: bytes of that file, unpacked, before the line.
    """

    raw: bytes = b""
    file: str | None = None
    line: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        text = super().__str__()
        if self.file is None:
            return text
        return f"{self.file}, line {self.line:,} (byte {self.offset:,}): {text}"


class BrazeWarning(UserWarning):
    """Something that probably is a mistake, and that Braze may accept all the same."""


class UnknownFieldWarning(BrazeWarning):
    """A name in ``fields`` that Braze does not document but that resembles one it does."""


def _tries(attempts: int) -> str:
    return f" (tried {attempts} times)" if attempts > 1 else ""
