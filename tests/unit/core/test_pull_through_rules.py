"""Which registry a pull-through cache rule means, and what is wrong with a rule (ECR §10.1)."""

from __future__ import annotations

import pytest

from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.errors import InvalidInput, UnsupportedUpstream
from replicator.core.names import AccountId, NodeId, Region
from replicator.core.pull_through_rules import (
    FoundUpstream,
    KnownUpstream,
    PullThroughRule,
    check_rule,
    client_name,
    find_upstream,
    host_of,
    kind_of,
    parse_client_name,
)

HERE = NodeId(AccountId("111111111111"), Region("us-east-1"))
ARN = "arn:aws:secretsmanager:us-east-1:111111111111:secret:ecr-pullthroughcache/hub"


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("public.ecr.aws", "ecr-public"),
        ("registry.k8s.io", "k8s"),
        ("quay.io", "quay"),
        ("registry-1.docker.io", "docker-hub"),
        ("docker.io", "docker-hub"),
        ("ghcr.io", "github-container-registry"),
        ("registry.gitlab.com", "gitlab-container-registry"),
        ("office.azurecr.io", "azure-container-registry"),
        ("cgr.dev", "chainguard"),
        ("111111111111.dkr.ecr.eu-west-1.amazonaws.com", "ecr"),
        ("mcr.microsoft.com", None),
        ("xquay.io", None),
        ("azurecr.io.example.org", None),
        ("dkr.ecr.eu-west-1.amazonaws.com", None),
    ],
)
def test_ecrs_upstreams_are_known_by_their_hosts(host: str, kind: str | None) -> None:
    assert kind_of(host) == kind


@pytest.mark.parametrize("url", ["quay.io", "https://quay.io", "https://QUAY.io/", " quay.io "])
def test_a_host_is_written_with_a_scheme_or_without(url: str) -> None:
    assert host_of(url) == "quay.io"


@pytest.mark.parametrize(
    "url", ["", "quay.io/team", "user@quay.io", "ftp://quay.io", "qu ay.io", "-quay.io", "quay.io?x"]
)
def test_what_is_no_host_is_no_upstream(url: str) -> None:
    with pytest.raises(UnsupportedUpstream):
        host_of(url)


def test_a_registry_of_the_configuration_stands_for_a_host() -> None:
    known = KnownUpstream("hub", frozenset({"hub", "registry-1.docker.io"}), "registry-1.docker.io", "docker-hub")
    assert find_upstream([known], "https://registry-1.docker.io").name == "hub"
    assert find_upstream([known], "hub").name == "hub"
    assert find_upstream([known], "quay.io") == FoundUpstream("quay.io", "quay", False, ("quay.io",))
    with pytest.raises(UnsupportedUpstream, match=r"mcr\.microsoft\.com"):
        find_upstream([known], "mcr.microsoft.com")


def test_a_client_with_other_credentials_is_another_one() -> None:
    assert parse_client_name(client_name("hub", None)) == ("hub", None)
    assert parse_client_name(client_name("hub", ARN)) == ("hub", ARN)


def test_a_rule_of_the_api_asks_once_a_day_before_it_serves() -> None:
    rule = PullThroughRule("team/", "quay.io", upstream_prefix="office/", credential_arn=ARN)
    found = FoundUpstream("quay.io", "quay", False, ("quay.io",))
    assert rule.to_cache_rule(found) == CacheRule(
        "team", f"quay.io#{ARN}", "office", namespaces=("quay.io",), stale_while_revalidate=0.0
    )


def test_upstreams_that_want_a_password_are_given_one() -> None:
    hub = FoundUpstream("registry-1.docker.io", "docker-hub", False, ())
    bare = PullThroughRule("hub", "registry-1.docker.io")
    with pytest.raises(UnsupportedUpstream, match="requires authentication"):
        check_rule(bare, hub, None, HERE)
    check_rule(PullThroughRule("hub", "registry-1.docker.io", credential_arn=ARN), hub, "docker-hub", HERE)
    check_rule(bare, FoundUpstream("hub", "docker-hub", True, ()), None, HERE)
    with pytest.raises(UnsupportedUpstream):
        check_rule(bare, FoundUpstream("hub", "docker-hub", True, ()), "quay", HERE)


def test_a_registry_of_another_account_needs_a_role() -> None:
    own, foreign = (f"{account}.dkr.ecr.eu-west-1.amazonaws.com" for account in ("1" * 12, "2" * 12))
    check_rule(PullThroughRule("own", own), FoundUpstream(own, "ecr", False, ()), None, HERE)
    found = FoundUpstream(foreign, "ecr", False, ())
    with pytest.raises(InvalidInput, match="customRoleArn"):
        check_rule(PullThroughRule("foreign", foreign), found, None, HERE)
    check_rule(PullThroughRule("foreign", foreign, custom_role_arn="arn:aws:iam::1:role/x"), found, None, HERE)


def test_all_names_map_to_all_names_only() -> None:
    found = FoundUpstream("quay.io", "quay", False, ())
    check_rule(PullThroughRule(ROOT, "quay.io"), found, None, HERE)
    with pytest.raises(InvalidInput, match="upstreamRepositoryPrefix"):
        check_rule(PullThroughRule(ROOT, "quay.io", upstream_prefix="team"), found, None, HERE)
