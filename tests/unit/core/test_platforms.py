"""Platforms as people write them, and which manifests of an index belong to one."""

from __future__ import annotations

import pytest

from replicator.core.errors import InvalidInput
from replicator.core.platforms import Platform, parse_platform


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("windows/x86_64", Platform("windows", "x86_64")),
    ],
)
def test_is_read_and_written_alike(text: str, platform: Platform) -> None:
    assert parse_platform(text) == platform
    assert str(platform) == text


@pytest.mark.parametrize(
    "text",
    ["", "linux", "linux/", "/amd64", "linux/amd64/", "Linux/amd64", "linux/amd64/v1/x", "a/b\n", "a/" + "b" * 80],
)
def test_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected a platform such as linux/amd64"):
        parse_platform(text)


@pytest.mark.parametrize(
    ("described", "matches"),
    [
        ({"os": "linux", "architecture": "arm64", "variant": "v8"}, True),
        ({"os": "linux", "architecture": "arm64", "variant": "v9"}, False),
        ({"os": "linux", "architecture": "arm64"}, False),
        ({"os": "linux", "architecture": "amd64", "variant": "v8"}, False),
        ({"os": "windows", "architecture": "arm64", "variant": "v8"}, False),
        ({"os": "unknown", "architecture": "unknown"}, True),  # an attestation
        ({"os": "linux"}, True),
        (None, True),
    ],
)
def test_with_a_variant_matches_it_alone(described: dict[str, object] | None, *, matches: bool) -> None:
    assert Platform("linux", "arm64", "v8").matches(described) is matches


@pytest.mark.parametrize("variant", [{}, {"variant": "v7"}, {"variant": "v8"}])
def test_without_a_variant_matches_every_one(variant: dict[str, object]) -> None:
    assert Platform("linux", "arm64").matches({"os": "linux", "architecture": "arm64", **variant})
