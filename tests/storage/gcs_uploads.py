"""What the Google emulator lacks: uploads as the XML API has them, put in front of it.

fake-gcs-server lists, serves and deletes by the XML API, which is what obstore speaks, but takes
uploads by the JSON API only. Run as a program with the emulator's URL, this passes every request
on as it is, and makes one JSON upload of a plain or a multipart XML upload.
"""

import asyncio
import json
import sys
from io import BytesIO
from itertools import count
from urllib.parse import unquote

from aiohttp import ClientError, ClientResponse, ClientSession, TCPConnector, web
from multidict import CIMultiDict
from yarl import URL

#: Of one connection, not of the message, or set anew by whoever sends it on.
HOP_BY_HOP = ("Connection", "Host", "Keep-Alive", "Transfer-Encoding")
BOUNDARY = "a-boundary-that-is-in-no-test"


def passed_on(message: web.Request | ClientResponse) -> CIMultiDict[str]:
    copied = CIMultiDict(message.headers)
    for name in HOP_BY_HOP:
        copied.popall(name, None)
    return copied


class Uploads:
    """Takes uploads, and sends on everything else."""

    def __init__(self, emulator: str, session: ClientSession) -> None:
        self._emulator = emulator
        self._session = session
        self._numbers = count(1)
        self._parts: dict[str, dict[int, bytes]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._handled(request)
        except ClientError as error:  # which the client may try again
            return web.Response(status=503, text=repr(error))

    async def _handled(self, request: web.Request) -> web.StreamResponse:
        if "uploads" in request.query or "uploadId" in request.query:
            return await self._put_parts(request, request.query.get("uploadId", ""))
        if request.method != "PUT":
            return await self._send_on(request)
        if "x-goog-copy-source" in request.headers:
            return web.Response(status=400, text="copies are not emulated")
        return await self._put(request, await request.read())

    async def _put_parts(self, request: web.Request, upload: str) -> web.Response:
        if not upload:
            upload = str(next(self._numbers))
            self._parts[upload] = {}
            return _xml("InitiateMultipartUploadResult", "UploadId", upload)
        if request.method == "PUT":
            number = request.query["partNumber"]
            self._parts[upload][int(number)] = await request.read()
            return web.Response(headers={"ETag": f'"part-{number}"'})
        parts = self._parts.pop(upload)
        if request.method == "DELETE":
            return web.Response(status=204)
        return await self._put(request, b"".join(parts[number] for number in sorted(parts)))

    async def _put(self, request: web.Request, content: bytes) -> web.Response:
        bucket, name = (unquote(part) for part in request.raw_path.split("?")[0][1:].split("/", 1))
        query = {"uploadType": "multipart", "name": name}
        if condition := request.headers.get("x-goog-if-generation-match"):
            query["ifGenerationMatch"] = condition
        kind = request.headers.get("Content-Type", "application/octet-stream")
        head = (
            f"--{BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': name})}"
            f"\r\n--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n"
        )
        async with self._session.post(
            URL(f"{self._emulator}/upload/storage/v1/b/{bucket}/o").with_query(query),
            data=BytesIO(head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()),
            headers={"Content-Type": f"multipart/related; boundary={BOUNDARY}"},
        ) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read())
            made = await answer.json()
        etag = f'"{made["etag"]}"'
        response = _xml("CompleteMultipartUploadResult", "ETag", etag)
        response.headers.update({"ETag": etag, "x-goog-generation": made["generation"]})
        return response

    async def _send_on(self, request: web.Request) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            URL(self._emulator + request.raw_path, encoded=True),
            headers=passed_on(request),
            data=await request.read(),
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=passed_on(answer))
            await response.prepare(request)
            if request.method != "HEAD":
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            await response.write_eof()
            return response


def _xml(root: str, name: str, value: str) -> web.Response:
    return web.Response(
        text=f"<{root}><{name}>{value}</{name}></{root}>", content_type="application/xml"
    )


async def main(emulator: str) -> None:
    # A connection that was kept may be closed just as it is used again.
    connector = TCPConnector(force_close=True)
    async with ClientSession(connector=connector, auto_decompress=False) as session:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", Uploads(emulator, session).handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        print(f"takes uploads at http://{host}:{port}", flush=True)  # noqa: T201  whoever started it reads this
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
