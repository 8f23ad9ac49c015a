"""The bodies of the requests that start exports in the background, checked before they are sent.

https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment
"""

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from braze_export.errors import InputError
from braze_export.identifiers import check_name
from braze_export.models.fields import check_fields, warn_beyond_group

_MOST_CUSTOM_ATTRIBUTES: Final = 500


def segment_body(
    segment_id: str,
    fields: Iterable[str],
    custom_attributes: Iterable[str] | None,
    callback_url: str | None,
    output_format: str | None,
) -> dict[str, Any]:
    """Return the body for a segment.

    Raises:
        InputError: something that cannot be sent.
    """
    body: dict[str, Any] = {"segment_id": check_name(segment_id, "segment_id")}
    body |= _common(fields, callback_url, output_format, stacklevel=5)
    if custom_attributes is not None:
        body["custom_attributes_to_export"] = _check_custom_attributes(custom_attributes)
    return body


def group_body(
    fields: Iterable[str], callback_url: str | None, output_format: str | None
) -> dict[str, Any]:
    """Return the body for the global control group.

    Raises:
        InputError: something that cannot be sent.
    """
    body = _common(fields, callback_url, output_format, stacklevel=5)
    warn_beyond_group(body["fields_to_export"], stacklevel=4)
    return body


def _common(
    fields: Iterable[str], callback_url: str | None, output_format: str | None, stacklevel: int
) -> dict[str, Any]:
    body: dict[str, Any] = {"fields_to_export": check_fields(fields, stacklevel=stacklevel)}
    if callback_url is not None:
        body["callback_endpoint"] = _check_callback(callback_url)
    if output_format is not None:
        if output_format not in ("zip", "gzip"):
            raise InputError(f'output_format must be "zip" or "gzip", not {output_format!r}')
        body["output_format"] = output_format
    return body


def _check_callback(url: str) -> str:
    if not _is_url(url):
        raise InputError(
            "callback_url must be a URL that starts with https:// or http://, or a callback that "
            "a CallbackReceiver expects"
        )
    return url


def _is_url(url: object) -> bool:
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.isprintable() else None
        return parts is not None and parts.scheme in {"https", "http"} and bool(parts.hostname)
    except ValueError:
        return False


def _check_custom_attributes(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"custom_attributes must be a list of names: write [{names!r}]")
    try:
        given = list(names)
    except TypeError:
        raise InputError(
            f"custom_attributes must be a list of names, not of type {type(names).__name__}"
        ) from None
    # Each once, in the given order.
    checked = list(dict.fromkeys(check_name(n, "a name in custom_attributes") for n in given))
    if len(checked) > _MOST_CUSTOM_ATTRIBUTES:
        raise InputError(
            f"custom_attributes holds {len(checked)} names: Braze takes at most "
            f"{_MOST_CUSTOM_ATTRIBUTES}. Name custom_attributes in fields to have them all"
        )
    return checked
