"""The cache in words."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.daemon.amounts import age_text
from replicator.daemon.cache_text import here_text, space_lines, upstream_line
from replicator.daemon.upstream_text import health_text

WELL: dict[str, Any] = {"breaker": "closed", "paused_seconds": {}, "rate_limit": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (3600, "60 min"), (7200, "2 h"), (86400, "24 h"), (691200, "8 d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("health", "text"),
    [
        ({}, ""),
        ({"breaker": "open"}, "not asked, breaker open"),
        ({"breaker": "half-open"}, "being tried again"),
        ({"paused_seconds": {"manifests": 300.0, "blobs": 2.0}}, "blobs paused for 2 s, manifests paused for 5 min"),
        ({"rate_limit": {"remaining": 3, "limit": 100}}, "3 of 100 requests left"),
        ({"rate_limit": {"remaining": 3, "limit": None}}, "3 requests left"),
    ],
)
def test_what_is_wrong_with_an_upstream(health: dict[str, Any], text: str) -> None:
    assert health_text({"health": {**WELL, **health}}) == text


def test_an_upstream_is_well_or_has_a_last_error() -> None:
    found = {"name": "hub", "url": "https://hub.test", "health": WELL}
    assert upstream_line({**found, "last_error": None}) == "hub https://hub.test: well"
    assert upstream_line({**found, "last_error": "hub: 500"}) == "hub https://hub.test: well, last error: hub: 500"


def test_what_is_missing_of_an_image_is_named() -> None:
    whole = {"here": 3, "all": 3}
    assert here_text({"complete": True, "manifests": whole, "blobs": whole}) == "complete"
    part = {"complete": False, "manifests": {"here": 2, "all": 9}, "blobs": whole}
    assert here_text(part) == "2 of 9 manifests"
    assert here_text({**part, "blobs": {"here": 0, "all": 3}}) == "2 of 9 manifests, 0 of 3 blobs"


def test_space_is_shown_with_its_limits() -> None:
    rules = [{"prefix": "hub", "bytes": 512, "limit": 1024}, {"prefix": "ROOT", "bytes": 0, "limit": None}]
    assert list(space_lines({"bytes": 2048, "limit": None, "keep_free": None, "rules": rules})) == [
        "altogether: 2.0 KiB",
        "rule hub: 512 B of 1.0 KiB (50%)",
        "rule ROOT: 0 B",
    ]
