from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.cache_rules import ROOT, CacheRule, match_cache_rule
from replicator.core.names import RepositoryName


@pytest.mark.parametrize(
    ("prefix", "upstream_prefix", "local", "upstream"),
    [
        # the table of Amazon ECR, "Customizing repository prefixes"
        ("ecr-public", ROOT, "ecr-public/my-app/image1", "my-app/image1"),
        (ROOT, ROOT, "my-app/image1", "my-app/image1"),
        ("team-a", "team-a", "team-a/myapp/image1", "team-a/myapp/image1"),
        ("my-app", "upstream-app", "my-app/image1", "upstream-app/image1"),
        ("docker-hub", ROOT, "docker-hub/library/alpine", "library/alpine"),
        # and what follows from it
        ("docker-hub", ROOT, "docker-hub/alpine", "alpine"),
        ("docker-hub", "library", "docker-hub/alpine", "library/alpine"),
        (ROOT, "mirror", "my-app", "mirror/my-app"),
        ("a/b", ROOT, "a/b/c", "c"),
        ("ecr-public", ROOT, "ecr-publicity/x", None),
        ("ecr-public", ROOT, "ecr-public", None),
        ("ecr-public", ROOT, "team/ecr-public/x", None),
        ("a/b", ROOT, "a/bc", None),
        ("short", "x" * 250, "short/long-name", None),
    ],
)
def test_names_at_the_upstream(prefix: str, upstream_prefix: str, local: str, upstream: str | None) -> None:
    match = match_cache_rule([CacheRule(prefix, "hub", upstream_prefix)], RepositoryName(local))
    assert (match.upstream_repository if match else None) == upstream


def test_the_longest_prefix_wins_and_root_comes_last() -> None:
    rules = [CacheRule(ROOT, "root"), CacheRule("a", "a"), CacheRule("a/b", "a/b"), CacheRule("longer-prefix", "other")]
    for name, upstream in (("a/b/c", "a/b"), ("a/x", "a"), ("ab/c", "root"), ("a", "root"), ("longer-prefix", "root")):
        match = match_cache_rule(rules, RepositoryName(name))
        assert match is not None
        assert match.rule.upstream == upstream


def test_a_name_its_rule_cannot_carry_goes_to_no_other_upstream() -> None:
    rules = [CacheRule(ROOT, "root"), CacheRule("a", "deep", "x" * 250)]
    assert match_cache_rule(rules, RepositoryName("a/long-name")) is None


def test_without_rules_there_is_no_match() -> None:
    assert match_cache_rule([], RepositoryName("a/b")) is None


@given(st.permutations([CacheRule(ROOT, "root"), CacheRule("a", "a"), CacheRule("a/b", "ab"), CacheRule("b", "b")]))
def test_the_order_of_rules_means_nothing(rules: list[CacheRule]) -> None:
    found = [match_cache_rule(rules, RepositoryName(name)) for name in ("a/b/c", "a/c", "b/c", "c")]
    assert [match.rule.upstream for match in found if match] == ["ab", "a", "b", "root"]
