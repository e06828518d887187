from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.core.digest import (
    algorithm_of,
    digest_of,
    encoded_of,
    finished,
    is_digest,
    new_hasher,
    parse_algorithm,
    parse_digest,
)
from replicator.core.errors import InvalidDigest

SHA256, SHA512 = "sha256:" + "0a" * 32, "sha512:" + "0a" * 64


@pytest.mark.parametrize("text", [SHA256, SHA512])
def test_a_canonical_digest_is_parsed_as_it_is(text: str) -> None:
    assert parse_digest(text) == text
    assert is_digest(text)
    assert f"{algorithm_of(parse_digest(text))}:{encoded_of(parse_digest(text))}" == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:zz",
        "sha256:baddigeststring",
        SHA256[:-1],
        SHA256 + "0",
        SHA256 + "\n",
        " " + SHA256,
        SHA256.upper(),
        "sha256:" + "0A" * 32,
        "SHA256:" + "0a" * 32,
        "sha512:" + "0a" * 32,
        "sha256:" + "0a" * 64,
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:../../../../etc/passwd",
        "sha256:%2e%2e%2f" + "0" * 55,
        "sha256:" + "\u0660" * 64,
        "sha256+b64:" + "0" * 64,
        "sha256::" + "0" * 63,
        "x" * 100_000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    assert not is_digest(text)
    with pytest.raises(InvalidDigest) as raised:
        parse_digest(text)
    assert len(str(raised.value)) < 250


@given(st.text())
@example("sha256:\ud800" + "0" * 63)
def test_parsing_raises_nothing_else(text: str) -> None:
    message = ""
    try:
        parse_digest(text)
    except InvalidDigest as error:
        message = str(error)
    assert message.isprintable()


@given(st.binary(), st.sampled_from(["sha256", "sha512"]))
def test_a_computed_digest_can_be_parsed(content: bytes, algorithm: str) -> None:
    digest = digest_of(content, algorithm)
    assert parse_digest(digest) == digest
    assert algorithm_of(digest) == algorithm
    assert encoded_of(digest) == hashlib.new(algorithm, content).hexdigest()


@given(st.lists(st.binary()))
def test_the_digest_of_parts_is_that_of_the_whole(parts: list[bytes]) -> None:
    hasher = new_hasher("sha512")
    for part in parts:
        hasher.update(part)
    assert finished(hasher) == digest_of(b"".join(parts), "sha512")


@pytest.mark.parametrize("text", ["md5", "SHA256", "", "sha256 ", "x" * 1000])
def test_other_algorithms_are_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_algorithm(text)
    with pytest.raises(InvalidDigest):
        new_hasher(text)
