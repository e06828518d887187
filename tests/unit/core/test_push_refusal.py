from __future__ import annotations

from dataclasses import replace

import pytest

from replicator.core.cache_rules import ROOT, CacheRule, covering_rule, refusing_rule
from replicator.core.names import RepositoryName

HUB = CacheRule("docker-hub", "hub")
OPEN = CacheRule("docker-hub/ours", "hub", accept_pushes=True)
EVERYTHING = CacheRule(ROOT, "hub")
RULES = (EVERYTHING, HUB, OPEN)


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("name", ["docker-hub/library/alpine", "docker-hub/ours-too/app"])
def test_below_a_prefix_pushes_are_refused(name: str, is_cached: bool) -> None:
    assert refusing_rule(RULES, RepositoryName(name), is_cached=is_cached) is HUB


def test_what_the_upstream_could_not_call_so_is_refused_too() -> None:
    long = replace(HUB, upstream_prefix="a" * 250)
    name = RepositoryName("docker-hub/library/alpine")
    assert long.upstream_repository(name) is None
    assert refusing_rule([long], name) is long


@pytest.mark.parametrize("is_cached", [False, True])
def test_the_longest_prefix_decides(is_cached: bool) -> None:
    name = RepositoryName("docker-hub/ours/app")
    assert covering_rule(RULES, name) is OPEN
    assert refusing_rule(RULES, name, is_cached=is_cached) is None


def test_of_all_names_only_what_the_cache_made_is_refused() -> None:
    name = RepositoryName("team/app")
    assert refusing_rule(RULES, name) is None
    assert refusing_rule(RULES, name, is_cached=True) is EVERYTHING
    assert refusing_rule([replace(EVERYTHING, accept_pushes=True)], name, is_cached=True) is None


@pytest.mark.parametrize("name", ["docker-hub", "docker-hubs/app", "team/app"])
def test_what_no_rule_covers_is_not_refused(name: str) -> None:
    assert covering_rule([HUB, OPEN], RepositoryName(name)) is None
    assert refusing_rule([HUB, OPEN], RepositoryName(name), is_cached=True) is None
