import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze_export import InputError
from braze_export.instances import INSTANCES, is_loopback, resolve_base_url

# https://www.braze.com/docs/api/basics#endpoints
DOCUMENTED = {
    "US-01": "https://rest.iad-01.braze.com",
    "US-02": "https://rest.iad-02.braze.com",
    "US-03": "https://rest.iad-03.braze.com",
    "US-04": "https://rest.iad-04.braze.com",
    "US-05": "https://rest.iad-05.braze.com",
    "US-06": "https://rest.iad-06.braze.com",
    "US-07": "https://rest.iad-07.braze.com",
    "US-08": "https://rest.iad-08.braze.com",
    "US-10": "https://rest.us-10.braze.com",
    "EU-01": "https://rest.fra-01.braze.eu",
    "EU-02": "https://rest.fra-02.braze.eu",
    "AU-01": "https://rest.au-01.braze.com",
    "ID-01": "https://rest.id-01.braze.com",
    "JP-01": "https://rest.jp-01.braze.com",
    "KR-01": "https://rest.kr-01.braze.com",
}


def test_the_instances_are_those_documented() -> None:
    assert INSTANCES == DOCUMENTED


@pytest.mark.parametrize(("name", "url"), DOCUMENTED.items())
def test_an_instance_has_a_name_in_any_case_and_an_address(name: str, url: str) -> None:
    for text in (name, name.lower(), name.title(), f" {name}\n", url, f"{url}/", url.upper()):
        assert resolve_base_url(text).lower() == url


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("https://rest.new-99.braze.com", "https://rest.new-99.braze.com"),
        ("https://proxy.example/braze", "https://proxy.example/braze"),
        ("https://proxy.example/braze/v1//", "https://proxy.example/braze/v1"),
        ("https://proxy.example:8443/", "https://proxy.example:8443"),
        ("HTTPS://proxy.example", "https://proxy.example"),
        ("https://10.0.0.7", "https://10.0.0.7"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://LOCALHOST:8080", "http://LOCALHOST:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9", "http://127.9.9.9"),
        ("http://[::1]:8080/prefix", "http://[::1]:8080/prefix"),
    ],
)
def test_addresses_that_the_key_may_be_sent_to(given_url: str, expected: str) -> None:
    assert resolve_base_url(given_url) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "base_url is empty"),
        ("  \n", "base_url is empty"),
        (None, "base_url is empty"),
        (b"US-01", "base_url is empty"),
        ("US-09", "no known Braze instance"),
        ("EU-03", "no known Braze instance"),
        ("US01", "no known Braze instance"),
        ("localhost", "no known Braze instance"),
        ("rest.iad-01.braze.com", "no URL"),
        ("//rest.iad-01.braze.com", "no URL"),
        ("https:rest.iad-01.braze.com", "no URL"),
        ("https://", "no URL"),
        ("https:///path", "no URL"),
        ("https://:443", "no URL"),
        ("ftp://rest.iad-01.braze.com", "no URL"),
        ("https://rest.iad-01.braze.com:port", "no URL"),
        ("https://rest.iad-01.braze.com:99999", "no URL"),
        ("https://rest.iad-01.braze.com:-1", "no URL"),
        ("https://[::1", "no URL"),
        ("https://\u2100.example", "no URL"),
        ("https://user@rest.iad-01.braze.com", "user name"),
        ("https://user:pw@rest.iad-01.braze.com", "user name"),
        ("https://:pw@rest.iad-01.braze.com", "user name"),
        ("https://@rest.iad-01.braze.com", "user name"),
        ("https://rest.iad-01.braze.com?a=b", "scheme and host only"),
        ("https://rest.iad-01.braze.com/#a", "scheme and host only"),
        ("https://rest.iad-01.braze.com/a b", "scheme and host only"),
        ("https://rest iad-01.braze.com", "scheme and host only"),
        ("https://rest.iad-01\u2028.braze.com", "scheme and host only"),
        ("https://rest.iad-01.braze.com/\r\nX: y", "scheme and host only"),
        ("https://rest.iad-01.braze.com\x00", "scheme and host only"),
        ("https://evil.example\\.braze.com", "scheme and host only"),
        ("https://rest.iad-01.braze.com/users/export/ids", "the path of an endpoint"),
        ("https://proxy.example/braze/segments/list/", "the path of an endpoint"),
        ("https://dashboard-01.braze.com", "not the REST host"),
        ("https://dashboard.us-10.braze.com", "not the REST host"),
        ("https://Dashboard-01.Braze.EU/x", "not the REST host"),
        ("https://sdk.iad-01.braze.com", "not the REST host"),
        ("http://rest.iad-01.braze.com", "plain HTTP"),
        ("http://127.0.0.1.evil.example", "plain HTTP"),
        ("http://localhost.evil.example", "plain HTTP"),
        ("http://10.0.0.7", "plain HTTP"),
        ("http://0.0.0.0", "plain HTTP"),
        ("http://[2001:db8::1]", "plain HTTP"),
    ],
)
def test_what_the_key_is_not_sent_to(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        resolve_base_url(text)


@pytest.mark.parametrize("url", ["http://10.0.0.7:80/x", "http://sandbox:8080/x"])
def test_plain_http_on_request(url: str) -> None:
    assert resolve_base_url(url, allow_insecure_http=True) == url
    with pytest.raises(InputError, match="allow_insecure_http"):
        resolve_base_url(url)


@pytest.mark.parametrize(
    "text",
    [
        "0123abcd-1111-2222-3333-444455556666",
        "0123abcd.1111.2222.3333.444455556666",
        "https://rest.iad-01.braze.com?api_key=0123abcd",
        "https://rest.iad-01.braze.com:0123abcd",
        "https://key:0123abcd@rest.iad-01.braze.com",
        "https://key:0123abcd@\u2100.example",
        "http://rest.iad-01.braze.com/0123abcd",
    ],
)
def test_a_key_in_the_place_of_the_address_is_not_shown(text: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_base_url(text)
    assert "0123abcd" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(st.characters()) | st.text("htps:/.@?#[]\\ 01abc").map(lambda t: f"https://{t}"))
def test_any_text_gives_an_address_or_our_own_error(text: str) -> None:
    try:
        url = resolve_base_url(text)
    except InputError:
        return
    assert re.fullmatch(r"https?://[^/?#@\s\\]+(/[^?#\s\\]*)?", url)
    assert not url.endswith("/")
    assert resolve_base_url(url) == url


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("127.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
