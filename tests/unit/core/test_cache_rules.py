from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.cache_rules import (
    DEFAULT_FRESHNESS,
    ROOT,
    SEMVER,
    CacheRule,
    FreshnessProfile,
    Selection,
    covering_rule,
    match_cache_rule,
    match_namespace,
    matches,
    refusing_rule,
)
from replicator.core.names import RepositoryName, Tag


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


@pytest.mark.parametrize(
    ("rule", "local", "upstream"),
    [
        (CacheRule("hub", "hub", fill_library=True), "hub/nginx", "library/nginx"),
        (CacheRule("hub", "hub", fill_library=True), "hub/team/nginx", "team/nginx"),
        (CacheRule("hub", "hub", "mirror", fill_library=True), "hub/nginx", "mirror/nginx"),
        (CacheRule(ROOT, "hub", fill_library=True), "nginx", "library/nginx"),
    ],
)
def test_names_without_a_slash_may_stand_for_the_library(rule: CacheRule, local: str, upstream: str) -> None:
    assert rule.upstream_repository(RepositoryName(local)) == upstream


@pytest.mark.parametrize(
    ("prefix", "upstream_prefix", "upstream", "local"),
    [
        ("hub", ROOT, "library/nginx", "hub/library/nginx"),
        (ROOT, ROOT, "library/nginx", "library/nginx"),
        ("hub", "team", "team/nginx", "hub/nginx"),
        (ROOT, "team", "team/nginx", "nginx"),
        ("hub", "team", "teams/nginx", None),
        ("hub", "team", "team", None),
        ("hub", ROOT, "x" * 254, None),
    ],
)
def test_names_here_of_repositories_of_the_upstream(
    prefix: str, upstream_prefix: str, upstream: str, local: str | None
) -> None:
    assert CacheRule(prefix, "hub", upstream_prefix).local_repository(RepositoryName(upstream)) == local


def test_the_rule_that_covers_a_name_may_not_be_able_to_name_it() -> None:
    rule = CacheRule("a", "deep", "x" * 250)
    assert covering_rule([rule], RepositoryName("a/long-name")) is rule
    assert covering_rule([rule], RepositoryName("b/name")) is None


@pytest.mark.parametrize(
    ("pattern", "name", "matched"),
    [
        ("*", "anything/at/all", True),
        ("library/*", "library/nginx", True),
        ("library/*", "library/a/b", True),
        ("library/*", "library", False),
        ("library/*", "mylibrary/nginx", False),
        ("*-alpine", "1.27-alpine", True),
        ("*-alpine", "1.27-alpine3", False),
        ("v1.*.0", "v1.2.0", True),
        ("v1.*.0", "v1x2.0", False),
        ("a?c", "abc", False),
        ("a?c", "a?c", True),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("", "", True),
    ],
)
def test_only_the_asterisk_of_a_pattern_stands_for_something(pattern: str, name: str, matched: bool) -> None:
    assert matches(pattern, name) is matched


@pytest.mark.parametrize(
    ("allow", "deny", "permitted"),
    [
        ((), (), ["library/nginx", "team/app"]),
        (("library/*",), (), ["library/nginx"]),
        ((), ("library/*",), ["team/app"]),
        (("*",), ("team/*",), ["library/nginx"]),
        (("team/app",), ("team/*",), []),
    ],
)
def test_what_is_denied_is_not_allowed(allow: tuple[str, ...], deny: tuple[str, ...], permitted: list[str]) -> None:
    selection = Selection(allow, deny)
    assert [name for name in ("library/nginx", "team/app") if selection.permits(name)] == permitted


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        (Selection(), "everything is allowed that is not denied"),
        (Selection(("team/*", "library/*")), "allowed by 'library/*'"),
        (Selection(("team/*",)), "no allowed pattern matches"),
        (Selection(("library/*",), ("*/nginx",)), "denied by '*/nginx'"),
    ],
)
def test_a_verdict_names_the_pattern_that_decides(selection: Selection, reason: str) -> None:
    assert selection.judge("library/nginx").reason == reason


@pytest.mark.parametrize(
    ("tag", "is_semver"),
    [
        ("1.27.3", True),
        ("v2.0.1", True),
        ("1.27.3-alpine", True),
        ("1.27.3-rc.1", True),
        ("1.27.3_build.5", True),
        ("1.27", False),
        ("v1", False),
        ("latest", False),
        ("1.27.3.4", False),
        ("x1.27.3", False),
        ("1.27.3-", False),
    ],
)
def test_tags_that_look_like_versions(tag: str, is_semver: bool) -> None:
    assert FreshnessProfile((SEMVER,), 1.0).covers(Tag(tag)) is is_semver


def test_the_first_profile_that_covers_a_tag_holds() -> None:
    profiles = (FreshnessProfile(("latest", "main-*"), 10.0), FreshnessProfile(("*",), 20.0))
    rule = CacheRule("hub", "hub", fresh_for=30.0, freshness=profiles)
    assert [rule.freshness_of(Tag(tag)) for tag in ("latest", "main-5", "main", "1.0.0")] == [10.0, 10.0, 20.0, 20.0]
    assert CacheRule("hub", "hub", fresh_for=30.0).freshness_of(Tag("latest")) == 30.0


def test_versions_are_looked_at_seldom_and_moving_tags_often() -> None:
    rule = CacheRule("hub", "hub", freshness=DEFAULT_FRESHNESS)
    assert rule.freshness_of(Tag("latest")) < rule.freshness_of(Tag("stable")) < rule.freshness_of(Tag("1.2.3"))


def test_mirrors_come_first_and_the_upstream_once_and_last() -> None:
    assert CacheRule("hub", "hub", mirrors=("near", "hub", "far")).sources == ("near", "far", "hub")


HUB = CacheRule("docker-hub", "hub", namespaces=("docker.io", "index.docker.io"))
TEAM = CacheRule("team", "hub", "team", namespaces=("docker.io",))
QUAY = CacheRule("quay", "quay", namespaces=("quay.io",))


@pytest.mark.parametrize(
    ("rules", "namespace", "repository", "found"),
    [
        ([HUB, QUAY], "docker.io", "library/nginx", ("docker-hub", "docker-hub/library/nginx")),
        ([HUB, QUAY], "Index.Docker.IO", "library/nginx", ("docker-hub", "docker-hub/library/nginx")),
        ([HUB, QUAY], "quay.io", "org/app", ("quay", "quay/org/app")),
        ([HUB, QUAY], "ghcr.io", "org/app", None),
        ([HUB, QUAY], "", "org/app", None),
        # clients that rewrite paths write the prefix themselves
        ([HUB, QUAY], "docker.io", "docker-hub/library/nginx", ("docker-hub", "docker-hub/library/nginx")),
        # but not that of a rule that does not stand for the registry
        ([HUB, QUAY], "quay.io", "docker-hub/library/nginx", ("quay", "quay/docker-hub/library/nginx")),
        ([HUB, TEAM], "docker.io", "team/app", ("team", "team/app")),
        ([TEAM], "docker.io", "other/app", None),
        ([CacheRule(ROOT, "hub", namespaces=("docker.io",))], "docker.io", "library/nginx", (ROOT, "library/nginx")),
        # a name that another rule answers for is nobody's
        ([CacheRule(ROOT, "hub", namespaces=("docker.io",)), QUAY], "docker.io", "quay/app", None),
    ],
)
def test_rule_that_stands_for_another_registry(
    rules: list[CacheRule], namespace: str, repository: str, found: tuple[str, str] | None
) -> None:
    match = match_namespace(rules, namespace, RepositoryName(repository))
    assert (None if match is None else (match[0].prefix, match[1])) == found


@pytest.mark.parametrize(
    ("rule", "is_cached", "refused"),
    [
        (CacheRule("hub", "hub"), False, True),
        (CacheRule("hub", "hub"), True, True),
        (CacheRule("hub", "hub", accept_pushes=True), True, False),
        (CacheRule(ROOT, "hub"), False, False),
        (CacheRule(ROOT, "hub"), True, True),
        (CacheRule(ROOT, "hub", accept_pushes=True), True, False),
        (CacheRule("other", "hub"), True, False),
    ],
)
def test_what_the_cache_fills_users_do_not(rule: CacheRule, is_cached: bool, refused: bool) -> None:
    refusing = refusing_rule([rule], RepositoryName("hub/app"), is_cached=is_cached)
    assert refusing is (rule if refused else None)
