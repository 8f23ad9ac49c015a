"""Braze's instances, and the check of the address that a client is given.

https://www.braze.com/docs/api/basics#endpoints
"""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from braze_export.errors import InputError

#: Instance name to REST base URL. New instances keep being added, so any URL is accepted too.
INSTANCES = {
    **{f"US-0{n}": f"https://rest.iad-0{n}.braze.com" for n in range(1, 9)},
    "US-10": "https://rest.us-10.braze.com",
    "EU-01": "https://rest.fra-01.braze.eu",
    "EU-02": "https://rest.fra-02.braze.eu",
    "AU-01": "https://rest.au-01.braze.com",
    "ID-01": "https://rest.id-01.braze.com",
    "JP-01": "https://rest.jp-01.braze.com",
    "KR-01": "https://rest.kr-01.braze.com",
}

_IN_BRACKETS: Final = re.compile(r"\[[^][]+\](:\d*)?", re.ASCII)


def resolve_base_url(base_url: str, *, allow_insecure_http: bool = False) -> str:
    """Return the REST base URL for an instance name or a URL, without a trailing slash.

    Args:
        base_url: ``"US-01"`` or ``"https://rest.iad-01.braze.com"``.
        allow_insecure_http: accept plain HTTP to a host other than this machine.

    Raises:
        InputError: neither a known instance nor a URL that the key may be sent to.
    """
    if not isinstance(base_url, str) or not base_url.strip():
        raise InputError(
            "base_url is empty: give your workspace's REST endpoint, such as "
            '"https://rest.iad-01.braze.com", or the name of its instance, such as "US-01"'
        )
    text = base_url.strip()
    # No message below shows the text: someone will pass the key for the address.
    known = INSTANCES.get(text.upper())
    if known is not None:
        return known
    if "/" not in text and "." not in text:
        raise InputError(
            f"base_url is no known Braze instance and no URL. Known: {', '.join(INSTANCES)}. "
            "For a newer instance give its REST URL"
        )
    url = _split(text)
    if re.search(r"/(users|segments|export|campaigns|canvas)(/|$)", url.path):
        raise InputError(
            "base_url holds the path of an endpoint: give scheme and host, such as "
            '"https://rest.iad-01.braze.com"'
        )
    _check_host(url, allow_insecure_http=allow_insecure_http)
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"


def _split(text: str) -> SplitResult:
    example = 'expected something like "https://rest.iad-01.braze.com"'
    try:
        url = urlsplit(text)
        port_is_number = url.port is None or url.port >= 0
        is_readable = has_host(url)
    except ValueError:
        raise InputError(f"base_url is no URL: {example}") from None
    if url.username is not None or url.password is not None:
        raise InputError("base_url must not hold a user name or password: the key goes in api_key")
    if url.scheme not in {"http", "https"} or not is_readable or not port_is_number:
        raise InputError(f"base_url is no URL: {example}")
    # HTTP libraries read a backslash differently, and so may send the key to another host.
    if url.query or url.fragment or not text.isprintable() or " " in text or "\\" in text:
        raise InputError(f"base_url must be scheme and host only: {example}")
    return url


def _check_host(url: SplitResult, *, allow_insecure_http: bool) -> None:
    host = url.hostname or ""
    if host.startswith(("dashboard", "sdk.")) and host.endswith((".braze.com", ".braze.eu")):
        raise InputError(
            f"{host} is not the REST host: use the one that starts with 'rest.', such as "
            '"https://rest.iad-01.braze.com"'
        )
    if url.scheme == "http" and not (allow_insecure_http or is_loopback(host)):
        raise InputError(
            f"base_url is plain HTTP to {host}, which would show the API key to the network: use "
            "https, or pass allow_insecure_http=True if you know the network is yours"
        )


def has_host(url: SplitResult) -> bool:
    """Say whether a URL has a host that HTTP libraries can read: brackets are around all of it."""
    place = url.netloc.rpartition("@")[2]
    in_brackets = "[" in place or "]" in place
    return bool(url.hostname) and (not in_brackets or _IN_BRACKETS.fullmatch(place) is not None)


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
