"""edx-braze-client 1.1.4: ``get_braze_external_id_batch``, which asks by aliases.

It yields no profiles but a dictionary of e-mail addresses and external ids, and asks for these
two fields only. It takes any number and asks for 50 after the other, but an error costs all that
had come; so it is given 50 a call. It does not try again; its error tells when to come again
after a refusal, and the loop here does so.
"""

import time
from typing import Any

import requests  # type: ignore[import-untyped,unused-ignore]
from braze.client import BrazeClient  # type: ignore[import-not-found]
from braze.exceptions import (  # type: ignore[import-not-found]
    BrazeClientError,
    BrazeRateLimitError,
)

from benchmarks.peers.sides.course import Course, run

_LABEL = "amplitude_id"  # that of all aliases in the local Braze


def _ask(client: Any, batch: list[str]) -> Any:
    while True:
        try:
            return client.get_braze_external_id_batch(batch, _LABEL)
        except BrazeRateLimitError as error:
            time.sleep(max(0.0, error.reset_epoch_s - time.time()))


def _export(course: Course) -> None:
    client = BrazeClient(api_key=course.key, api_url=course.url, app_id="none")
    for batch in course.batches():
        try:
            found = set(_ask(client, batch).values())
        except (BrazeClientError, requests.RequestException) as error:
            course.failed(batch, error)
            continue
        course.answered |= found
        # Nothing names them, but who has an external id stands in the dictionary: the users of
        # these aliases all do, and no two share an e-mail address.
        course.unknown.update(name for name in batch if f"u{name.rpartition('_')[2]}" not in found)


if __name__ == "__main__":
    run(_export)
