"""No client at all: bytes out, bytes in, nothing read. What the server can do at most."""

import asyncio
import json
from collections.abc import Iterator

from benchmarks.peers.sides.course import AT_ONCE, Course, run


async def _worker(course: Course, batches: Iterator[list[str]]) -> None:
    host, _, port = course.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**20)
    for batch in batches:
        body = json.dumps({"external_ids": batch}).encode()
        writer.write(
            b"POST /users/export/ids HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
            b"content-length: %d\r\n\r\n%s" % (course.key.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.partition(b"content-length: ")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))
    writer.close()
    await writer.wait_closed()


async def _export(course: Course) -> None:
    batches = course.batches()
    await asyncio.gather(*(_worker(course, batches) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    run(lambda course: asyncio.run(_export(course)))
