"""Take customer profiles and segments out of Braze: asyncio-first, typed, streamed."""

from braze_export._version import __version__
from braze_export.archives.archive import ArchiveLimits
from braze_export.batches.estimates import Estimate, estimate
from braze_export.batches.ids_export import IdsExport
from braze_export.client import BrazeClient
from braze_export.deadlines import deadline
from braze_export.errors import (
    APIError,
    ArchiveError,
    AuthenticationError,
    BadRequestError,
    BrazeError,
    BrazeWarning,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    DecodeError,
    ExportExpiredError,
    ExportInProgressError,
    ExportNotReadyError,
    InputError,
    InvalidIdentifierError,
    JobChangedError,
    JobError,
    JobRunningError,
    JobStorageError,
    LimiterError,
    NotFoundError,
    PayloadTooLargeError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    TransportError,
    UnknownFieldWarning,
    UnsupportedMediaTypeError,
)
from braze_export.exporting.job import ExportJob
from braze_export.exporting.waiting import ExportState
from braze_export.identifiers import (
    BrazeId,
    DeviceId,
    EmailAddress,
    Identifier,
    PhoneNumber,
    UserAlias,
)
from braze_export.limiting.limits import Limiter, Limits, PoolSnapshot, RateLimit
from braze_export.models.fields import ExportField
from braze_export.models.profile import UserProfile
from braze_export.models.results import (
    BadRecord,
    DownloadStats,
    ExportStats,
    FailedBatch,
    IdsResult,
    InvalidUserId,
)
from braze_export.models.segments import Segment, SegmentDetails, SegmentSize
from braze_export.observing import Observer, RequestInfo
from braze_export.retry import RetryPolicy
from braze_export.settings import ExportSettings, LookupSettings, Polling, ProfileCache
from braze_export.storage import read_archive
from braze_export.transports.aiohttp import AiohttpTransport
from braze_export.wire import Timeouts

__all__ = [
    "APIError",
    "AiohttpTransport",
    "ArchiveError",
    "ArchiveLimits",
    "AuthenticationError",
    "BadRecord",
    "BadRequestError",
    "BrazeClient",
    "BrazeError",
    "BrazeId",
    "BrazeWarning",
    "ClientClosedError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "DecodeError",
    "DeviceId",
    "DownloadStats",
    "EmailAddress",
    "Estimate",
    "ExportExpiredError",
    "ExportField",
    "ExportInProgressError",
    "ExportJob",
    "ExportNotReadyError",
    "ExportSettings",
    "ExportState",
    "ExportStats",
    "FailedBatch",
    "Identifier",
    "IdsExport",
    "IdsResult",
    "InputError",
    "InvalidIdentifierError",
    "InvalidUserId",
    "JobChangedError",
    "JobError",
    "JobRunningError",
    "JobStorageError",
    "Limiter",
    "LimiterError",
    "Limits",
    "LookupSettings",
    "NotFoundError",
    "Observer",
    "PayloadTooLargeError",
    "PermissionDeniedError",
    "PhoneNumber",
    "Polling",
    "PoolSnapshot",
    "ProfileCache",
    "RateLimit",
    "RateLimitError",
    "RequestInfo",
    "RequestTimeoutError",
    "RetryPolicy",
    "Segment",
    "SegmentDetails",
    "SegmentSize",
    "ServerError",
    "Timeouts",
    "TransportError",
    "UnknownFieldWarning",
    "UnsupportedMediaTypeError",
    "UserAlias",
    "UserProfile",
    "__version__",
    "deadline",
    "estimate",
    "read_archive",
]
