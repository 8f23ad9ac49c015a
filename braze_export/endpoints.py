"""The endpoints, one line each: how to call them, whose limit they draw on, where Braze tells.

A table and nothing else. https://www.braze.com/docs/api/endpoints/export
"""

from typing import Final, Literal, TypeAlias

from attrs import frozen

Pool: TypeAlias = Literal["ids", "ids_fast", "default", "campaign_series", "lists"]
"""The requests of one limit.

``ids`` and ``ids_fast``, its 40-a-second tier, are ``/users/export/ids``; ``campaign_series`` is
``/campaigns/data_series``; ``lists`` are ``/events``, ``/events/list``, ``/custom_attributes``,
``/purchases/product_list`` and, read carefully, the two series of purchases; ``default`` is
everything else. https://www.braze.com/docs/api/api_limits
"""

_DOCS = "https://www.braze.com/docs/api/endpoints/export"


@frozen
class Endpoint:
    """One endpoint of Braze.

    Attributes:
        method: HTTP method.
        path: below the REST base URL.
        pool: the limit that its requests count against.
        permission: what the key must be allowed to do.
        docs: Braze's page.
        starts_export: a repetition would start, or collide with, a second export: after a
            failure that leaves open whether Braze acted, the request is not repeated.
    """

    method: Literal["GET", "POST"]
    path: str
    pool: Pool
    permission: str
    docs: str
    starts_export: bool = False

    @property
    def label(self) -> str:
        """Method and path, as errors and logs name the endpoint."""
        return f"{self.method} {self.path}"


EXPORT_IDS: Final = Endpoint(
    "POST", "/users/export/ids", "ids", "users.export.ids",
    f"{_DOCS}/user_data/post_users_identifier",
)  # fmt: skip
EXPORT_SEGMENT: Final = Endpoint(
    "POST", "/users/export/segment", "default", "users.export.segment",
    f"{_DOCS}/user_data/post_users_segment", starts_export=True,
)  # fmt: skip
EXPORT_GLOBAL_CONTROL_GROUP: Final = Endpoint(
    "POST", "/users/export/global_control_group", "default", "users.export.global_control_group",
    f"{_DOCS}/user_data/post_users_global_control_group", starts_export=True,
)  # fmt: skip
# Braze prints segments.list as the permission of this one, though it changes something.
CANCEL_SEGMENT_EXPORT: Final = Endpoint(
    "POST", "/export/segment/cancel", "default", "segments.list",
    f"{_DOCS}/segments/post_cancel_export",
)  # fmt: skip
SEGMENTS_LIST: Final = Endpoint(
    "GET", "/segments/list", "default", "segments.list", f"{_DOCS}/segments/get_segment"
)
SEGMENTS_DETAILS: Final = Endpoint(
    "GET", "/segments/details", "default", "segments.details",
    f"{_DOCS}/segments/get_segment_details",
)  # fmt: skip
SEGMENTS_DATA_SERIES: Final = Endpoint(
    "GET", "/segments/data_series", "default", "segments.data_series",
    f"{_DOCS}/segments/get_segment_analytics",
)  # fmt: skip
