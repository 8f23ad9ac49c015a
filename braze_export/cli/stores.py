"""The workspace's own storage, from a URL and the environment. Needs the extra ``storage``."""

import os
from datetime import timedelta
from typing import Any, Final, cast

import rich_click as click
from attrs import frozen

from braze_export.storage import ObjectStore


@frozen
class _Service:
    """What its variables begin with, and those that are needed first."""

    variables: str
    needed: str


_SERVICES: Final = {
    "s3": _Service("AWS", "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"),
    "gs": _Service("GOOGLE", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": _Service("AZURE", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
}

# obstore's own total timeout is 30 seconds, a whole file included; that of silence is none.
_TIMEOUTS: Final = {"TIMEOUT": "24h", "READ_TIMEOUT": "60s"}
_RETRIES: Final[dict[str, Any]] = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}


@frozen
class Storage:
    """A place in the workspace's own storage."""

    url: str
    store: ObjectStore
    service: _Service

    def __str__(self) -> str:
        return self.url

    async def check(self) -> None:
        """Look into it, so that nothing is begun in vain.

        Raises:
            ClickException: it cannot be read.
        """
        try:
            await self.store.list_with_delimiter_async()
        except Exception as error:  # noqa: BLE001 - whatever obstore raises
            raise _unusable(self.url, self.service, error, click.ClickException) from None


def storage_of(
    _context: click.Context, parameter: click.Parameter, url: str | None
) -> Storage | None:
    """Return the storage behind a URL, for ``--store``.

    Raises:
        UsageError: there is none.
    """
    if url is None:
        return None
    scheme, _, bucket = url.partition("://")
    service = _SERVICES.get(scheme)
    if service is None or not bucket.strip("/"):
        known = ", ".join(f"{name}://BUCKET" for name in _SERVICES)
        raise click.BadParameter(
            f"{url!r} is none of {known}, or a folder in one.", param=parameter
        )
    try:
        # Only here, for most workspaces need no storage.
        from obstore.store import from_url  # noqa: PLC0415
    except ModuleNotFoundError:
        raise click.UsageError('--store needs: pip install "braze-export[storage]"') from None
    for name, value in _TIMEOUTS.items():
        # By the environment, for options given in Python would replace all that stand there.
        os.environ.setdefault(f"{service.variables}_{name}", value)
    try:
        store = cast("Any", from_url)(url, retry_config=_RETRIES)
    except Exception as error:  # noqa: BLE001 - whatever obstore raises
        raise _unusable(url, service, error, click.UsageError) from None
    return Storage(url, store, service)


def _unusable(
    url: str, service: _Service, error: Exception, kind: type[click.ClickException]
) -> click.ClickException:
    # Not its text, which may hold what stands in the variables.
    return kind(
        f"The storage {url} cannot be read ({type(error).__name__}): check its name, and the "
        f"variables of its credentials, such as {service.needed}."
    )
