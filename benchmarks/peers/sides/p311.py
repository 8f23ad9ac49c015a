"""braze-client-p311 0.0.5: ``user_export``, one call after the other.

It tries three times, with two seconds for each, and waits for a limit that is spent if that
takes less than 1.25 s. Its error tells when to come again otherwise; the loop here does so.
"""

import time
from typing import Any

import requests  # type: ignore[import-untyped,unused-ignore]
from braze.client import (  # type: ignore[import-not-found]
    BrazeClient,
    BrazeClientError,
    BrazeRateLimitError,
)

from benchmarks.peers.sides.course import Course, run


def _ask(client: Any, batch: list[str]) -> Any:
    while True:
        try:
            return client.user_export(external_ids=batch)
        except BrazeRateLimitError as error:
            time.sleep(max(0.0, error.reset_epoch_s - time.time()))


def _export(course: Course) -> None:
    client = BrazeClient(api_key=course.key, api_url=course.url, use_auth_header=True)
    for batch in course.batches():
        try:
            course.took(_ask(client, batch))
        except (BrazeClientError, requests.RequestException) as error:
            course.failed(batch, error)


if __name__ == "__main__":
    run(_export)
