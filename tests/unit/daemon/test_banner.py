"""What is printed at start names what rules cover, and an example that they replicate."""

from __future__ import annotations

from typing import Any

import pytest

from replicator.config.model import Settings
from replicator.core.names import parse_node
from replicator.daemon.banner import banner, suggestions
from tests.support.configurations import EU, US, node

URLS = {
    parse_node(f"{one['account']}/{one['region']}"): f"http://127.0.0.1:{port}"
    for one, port in ((US, 5001), (EU, 5002))
}


def settings(**rule: Any) -> Settings:
    rules = [{"name": "r", "destinations": [EU], **rule}]
    nodes = [node(US, 5001, replication={"rules": rules}), node(EU, 5002)]
    return Settings.model_validate({"version": 1, "nodes": nodes})


@pytest.mark.parametrize(
    ("rule", "pushed", "arrived"),
    [
        ({}, "demo/app:1.0", "demo/app:1.0"),
        ({"filters": ["team-a/"]}, "team-a/app:1.0", "team-a/app:1.0"),
        ({"repositories": ["exact"], "tags": ["v*"]}, "exact:v1", "exact:v1"),
        ({"rename": [{"to": "mirror/"}]}, "demo/app:1.0", "mirror/demo/app:1.0"),
    ],
)
def test_the_example_is_an_image_that_goes(rule: dict[str, Any], pushed: str, arrived: str) -> None:
    _, copy, inspect, _ = suggestions(settings(**rule), "x.yaml", URLS)
    assert copy.endswith(f"docker://127.0.0.1:5001/{pushed}")
    assert f"docker://127.0.0.1:5002/{arrived} " in inspect


def test_the_banner_names_what_goes() -> None:
    shown = banner(settings(filters=["team-"], repositories=["exact"]), "x.yaml", URLS)
    assert "replicates team-*, exact to 111122223333/eu-west-1" in shown
    assert "replicates every repository to 111122223333/eu-west-1" in banner(settings(), "x.yaml", URLS)


@pytest.mark.parametrize(
    ("prefix", "named", "example"),
    [("hub", "pulls through hub/", "hub/library/alpine"), ("ROOT", "pulls through every other name", "library/alpine")],
)
def test_what_is_pulled_through_is_named_with_an_example(prefix: str, named: str, example: str) -> None:
    one = Settings.model_validate({
        "version": 1,
        "upstreams": [{"name": "hub", "preset": "docker-hub"}],
        "nodes": [node(US, 5001, cache={"rules": [{"prefix": prefix, "upstream": "hub"}]})],
    })  # fmt: skip
    assert named in banner(one, "x.yaml", URLS)
    assert any(line.endswith(f"docker://127.0.0.1:5001/{example}:latest") for line in suggestions(one, "x.yaml", URLS))
