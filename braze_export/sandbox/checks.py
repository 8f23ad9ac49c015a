"""Reading the body of a request: types first, all problems at once.

Undocumented: what Braze says to a wrong type. Here 400, with a list of ``errors``.
"""

from typing import Any, TypeVar

from braze_export.sandbox.messages import Refusal, Request, SyntaxRefusal, bad_request
from braze_export.sandbox.people import Alias

_MAX_CUSTOM_ATTRIBUTES = 500

_T = TypeVar("_T")


class Fields:
    """The fields of a JSON object; gathers what is wrong with those that are asked for.

    Undocumented: null where a value is expected. It is refused here.
    """

    def __init__(self, json: Any) -> None:
        if not isinstance(json, dict):
            raise bad_request(errors=["the body must be a JSON object"])
        self._json = json
        self._problems: list[str] = []

    def text(self, key: str) -> str:
        """Return a string, empty when absent."""
        value = self._json.get(key, "")
        return value if isinstance(value, str) else self._wrong(f"{key} must be a string", "")

    def texts(self, key: str) -> list[str]:
        """Return an array of strings, empty when absent."""
        value = self._json.get(key, [])
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        return self._wrong(f"{key} must be an array of strings", [])

    def aliases(self, key: str) -> list[Alias]:
        """Return an array of alias objects, empty when absent."""
        value = self._json.get(key, [])
        if isinstance(value, list) and all(_is_alias(item) for item in value):
            return [Alias(item["alias_name"], item["alias_label"]) for item in value]
        return self._wrong(f"{key} must be an array of objects: alias_name, alias_label", [])

    def given(self, *keys: str) -> dict[str, str]:
        """Return those of these string fields that are there."""
        return {key: self.text(key) for key in keys if key in self._json}

    def finish(self) -> None:
        """Refuse the request if anything was wrong."""
        if self._problems:
            raise bad_request(errors=self._problems)

    def _wrong(self, problem: str, instead: _T) -> _T:
        self._problems.append(problem)
        return instead


def check_body(request: Request) -> None:
    """Refuse a POST whose body cannot be read.

    Documented: 413 or 400 above 4 MB, depending on the endpoint; here always 413.
    """
    if request.too_large:
        raise Refusal(413, "Request Entity Too Large")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal(415, "Unsupported Media Type")
    if not request.readable:
        raise SyntaxRefusal


def check_export(json: Any, *, custom_attributes: bool) -> Fields:
    """Check what the two exports to files have in common, and return the fields for more.

    https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment/
    """
    fields = Fields(json)
    wanted = fields.texts("fields_to_export")
    fields.text("callback_endpoint")
    output_format = fields.given("output_format")
    attributes = fields.texts("custom_attributes_to_export") if custom_attributes else []
    fields.finish()
    if not wanted:
        raise bad_request("fields_to_export is required")
    if output_format.get("output_format", "zip") not in {"zip", "gzip"}:
        raise bad_request("output_format must be zip or gzip")
    if len(attributes) > _MAX_CUSTOM_ATTRIBUTES:
        raise bad_request("custom_attributes_to_export must not exceed 500 names")
    return fields


def _is_alias(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(key), str) for key in ("alias_name", "alias_label")
    )
