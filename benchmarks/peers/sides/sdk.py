"""braze-client-sdk 1.0.0: ``users.export.ids``, one call after the other.

It neither tries again nor waits. What it is given beside the content goes to ``requests``: here
a timeout, without which it would wait for ever.
"""

import requests  # type: ignore[import-untyped,unused-ignore]
from braze import Braze  # type: ignore[import-not-found]

from benchmarks.peers.sides.course import PATIENCE, Course, run


def _export(course: Course) -> None:
    braze = Braze(host=course.url, token=course.key)
    for batch in course.batches():
        try:
            course.took(braze.users.export.ids(content={"external_ids": batch}, timeout=PATIENCE))
        except requests.RequestException as error:
            course.failed(batch, error)


if __name__ == "__main__":
    run(_export)
