"""GET /exports/...: the links to archives, as Amazon S3 serves presigned ones.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html

Documented by Braze: 403 before an archive is ready, and that links end after hours.
"""

import re
from collections.abc import Mapping
from email.utils import formatdate

from braze_export.sandbox.archives import Archive, Archives
from braze_export.sandbox.exports import Export, Exports, Format
from braze_export.sandbox.faults import Fault
from braze_export.sandbox.messages import FilePart, Reply, Request
from braze_export.sandbox.settings import Settings
from braze_export.sandbox.workspace import phrase

_RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})", re.ASCII | re.IGNORECASE)


class Downloads:
    """Answers whoever has a link: no key is needed, no rate limit holds."""

    def __init__(self, settings: Settings, exports: Exports, archives: Archives) -> None:
        self._settings = settings
        self._exports = exports
        self._archives = archives

    async def answer(self, request: Request, now: float) -> Reply:
        """Serve an archive or a part of it, once it is ready."""
        export = self._exports.find(request.path)
        if export is None:
            return _error(403, "AccessDenied", "Access Denied")
        if refusal := self._refusal(export, request, now):
            return refusal
        archive = await self._archives.get(export)
        return self._part(archive, export.output_format, request.headers)

    def stand_in(self, fault: Fault) -> Reply:
        """Answer with a fault in place of the archive."""
        status = fault.status or 200
        return Reply(status=status, body=fault.encoded_body(phrase(status)))

    def _refusal(self, export: Export, request: Request, now: float) -> Reply | None:
        # The method is signed as well: a link to GET does not even open for HEAD.
        if request.method != "GET" or request.query != export.query:
            text = "The request signature we calculated does not match the signature you provided."
            return _error(403, "SignatureDoesNotMatch", text)
        if now >= export.expires:
            return _error(403, "AccessDenied", "Request has expired")
        if export.is_ready(now):
            return None
        if self._settings.not_ready_status == 404:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        return _error(403, "AccessDenied", "Access Denied")

    def _part(self, archive: Archive, kind: Format, asked: Mapping[str, str]) -> Reply:
        modified = formatdate(archive.modified, usegmt=True)
        if not _matches(asked.get("if-match"), archive.etag):
            text = "At least one of the pre-conditions you specified did not hold"
            return _error(412, "PreconditionFailed", text)
        wanted = None
        same = asked.get("if-range", archive.etag) in {archive.etag, modified}
        if self._settings.ranges and same:
            wanted = _selected(asked.get("range", ""), archive.size)
        if wanted is not None and not wanted:
            text = "The requested range is not satisfiable"
            extent = {"content-range": f"bytes */{archive.size}"}
            return _error(416, "InvalidRange", text, extent)
        headers = {
            "content-type": f"application/{kind}",
            "etag": archive.etag,
            "last-modified": modified,
        }
        if self._settings.ranges:
            headers["accept-ranges"] = "bytes"
        status, sent = 200, range(archive.size)
        if wanted:
            status, sent = 206, wanted
            headers["content-range"] = f"bytes {sent[0]}-{sent[-1]}/{archive.size}"
        part = FilePart(path=archive.path, start=sent.start, length=len(sent))
        return Reply(status=status, body=part, headers=headers)


def _selected(text: str, size: int) -> range | None:
    """Return the bytes that a Range asks for, empty if there are none; None: it is ignored.

    Documented by S3: several ranges are not served.
    """
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or match[0].endswith("=-"):
        return None
    if not match["first"]:
        return range(max(0, size - int(match["last"])), size)
    first, last = int(match["first"]), int(match["last"] or size)
    if match["last"] and last < first:
        return None
    return range(first, min(last + 1, size))


def _matches(condition: str | None, etag: str) -> bool:
    if condition is None or condition.strip() == "*":
        return True
    return etag in {tag.strip() for tag in condition.split(",")}


def _error(status: int, code: str, message: str, more: Mapping[str, str] | None = None) -> Reply:
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    headers = {"content-type": "application/xml", **(more or {})}
    return Reply(status=status, body=body.encode(), headers=headers)
