import re

import pytest

from braze_export import endpoints
from braze_export.endpoints import Endpoint

#: Method, path, pool, permission, whether it starts an export: as Braze documents it.
DOCUMENTED = [
    ("POST", "/users/export/ids", "ids", "users.export.ids", False),
    ("POST", "/users/export/segment", "default", "users.export.segment", True),
    (
        "POST",
        "/users/export/global_control_group",
        "default",
        "users.export.global_control_group",
        True,
    ),
    ("POST", "/export/segment/cancel", "default", "segments.list", False),
    ("GET", "/segments/list", "default", "segments.list", False),
    ("GET", "/segments/details", "default", "segments.details", False),
    ("GET", "/segments/data_series", "default", "segments.data_series", False),
]
ENDPOINTS = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]


def test_the_table_is_the_documented_one() -> None:
    assert [
        (e.method, e.path, e.pool, e.permission, e.starts_export) for e in ENDPOINTS
    ] == DOCUMENTED


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.label)
def test_an_endpoint_names_its_page(endpoint: Endpoint) -> None:
    page = r"https://www\.braze\.com/docs/api/endpoints/export/(user_data|segments)/(get|post)_\w+"
    assert re.fullmatch(page, endpoint.docs)
    assert f"/{endpoint.method.lower()}_" in endpoint.docs
    assert not endpoint.path.endswith("/")
