from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.challenge import Challenge, parse_challenge, realm_is_trusted


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            Challenge(
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull,push",
                },
            ),
        ),
        ('Basic realm="x"', Challenge("basic", {"realm": "x"})),
        ("BASIC", Challenge("basic", {})),
        (
            "  bearer   Realm = plain , Error=invalid_token",
            Challenge("bearer", {"realm": "plain", "error": "invalid_token"}),
        ),
        (r'Basic realm="a \"quoted\" \\ name"', Challenge("basic", {"realm": r'a "quoted" \ name'})),
        ('Basic realm="first", realm="second"', Challenge("basic", {"realm": "first"})),
        ('Basic realm="a", Bearer realm="b"', Challenge("basic", {"realm": "a"})),
        ('Basic realm="unfinished', Challenge("basic", {})),
        ("Negotiate abc==", Challenge("negotiate", {})),
        ("", None),
        ("=", None),
        ('"Basic"', None),
        ("Basic " + "x" * 9000, None),
    ],
)
def test_challenges(header: str, challenge: Challenge | None) -> None:
    assert parse_challenge(header) == challenge


@given(st.one_of(st.text(), st.text(st.sampled_from('aB=", \\\t'))))
def test_parsing_raises_nothing(header: str) -> None:
    challenge = parse_challenge(header)
    assert challenge is None or challenge.scheme == challenge.scheme.lower()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(st.characters(min_codepoint=32, max_codepoint=126))
    )
)
def test_what_is_quoted_is_read_back(parameters: dict[str, str]) -> None:
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in parameters.items()}
    header = "Bearer " + ",".join(f'{name}="{value}"' for name, value in quoted.items())
    assert parse_challenge(header) == Challenge("bearer", parameters)


@pytest.mark.parametrize(
    "header", ["Basic " + " " * 8000, "Basic a" * 1100, 'Basic a="' + "\\" * 8000, "Basic " + "a=," * 2000]
)
def test_no_header_takes_long(header: str) -> None:
    started = time.process_time()
    parse_challenge(header)
    assert time.process_time() - started < 1


HUB = "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("registry", "realm", "allowed", "trusted"),
    [
        ("https://r.example", "https://r.example/token", (), True),
        ("https://R.example", "https://r.EXAMPLE/token", (), True),
        ("https://r.example:443", "https://r.example/token", (), True),
        ("http://localhost:5000", "http://localhost:5000/token", (), True),
        (HUB, "https://auth.docker.io/token", (), True),
        ("https://r.example", "https://auth.r.example/token", ("auth.r.example",), True),
        ("https://r.example", "https://auth.r.example:8443/token", ("auth.r.example:8443",), True),
        ("https://[::1]:5000", "https://[::1]:5000/token", (), True),
        # another host, another port, another scheme
        ("https://r.example", "https://evil.example/token", (), False),
        ("https://r.example", "https://r.example.evil.example/token", (), False),
        ("https://r.example", "https://evil-r.example/token", (), False),
        ("https://r.example", "https://r.example:8443/token", (), False),
        ("https://r.example", "https://auth.r.example:8443/token", ("auth.r.example",), False),
        ("https://r.example", "http://r.example/token", (), False),
        (HUB, "http://auth.docker.io/token", (), False),
        ("http://localhost:5000", "http://localhost:5001/token", (), False),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5000/token", (), False),
        ("https://r.example", "https://auth.docker.io/token", (), False),
        # what two parsers could read in two ways
        ("https://r.example", "https://r.example@evil.example/token", (), False),
        ("https://r.example", "https://user:password@r.example/token", (), False),
        ("https://r.example", "https://r.example\\@evil.example/", (), False),
        ("https://r.example", "https://evil.example\\.r.example/", (), False),
        ("https://r.example", "//r.example/token", (), False),
        ("https://r.example", "ftp://r.example/token", (), False),
        ("https://r.example", "/token", (), False),
        ("https://r.example", "", (), False),
        ("https://r.example", "https://", (), False),
        ("https://r.example", "https://[::1", (), False),
        ("https://r.example", "https://r.example:port/", (), False),
        ("https://r.example", "https://r.example:999999/", (), False),
        ("https://r.example", "https://r.example\n.evil.example/", (), False),
        ("not a url", "https://r.example/", (), False),
    ],
)
def test_who_may_see_credentials(registry: str, realm: str, allowed: tuple[str, ...], trusted: bool) -> None:
    assert realm_is_trusted(registry, realm, allowed) is trusted


@given(st.text(), st.text())
def test_asking_raises_nothing(registry: str, realm: str) -> None:
    assert realm_is_trusted(registry, realm) in {True, False}
    assert realm_is_trusted("https://r.example", f"https://{realm}") in {True, False}
