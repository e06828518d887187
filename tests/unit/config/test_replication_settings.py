"""Every key of replication becomes the core's value, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from replicator.config.model import Settings
from replicator.config.nodes import NodeSettings
from replicator.core.destinations import RegistryRef
from replicator.core.errors import ConfigurationError
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import parse_node, parse_repository
from replicator.core.platforms import Platform
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy
from replicator.core.replication import Rename, ReplicationRule
from replicator.core.templates import CreationCause, CreationTemplate
from tests.support.configurations import AP, EU, US, node, peer


def settings(**sections: Any) -> NodeSettings:
    return NodeSettings.model_validate(node(US, 5001, **sections))


def replication(**keys: Any) -> NodeSettings:
    return settings(replication=keys)


def one_rule(**keys: Any) -> ReplicationRule:
    [rule] = replication(rules=[{"name": "r", "destinations": [EU], **keys}]).replication_rules()
    return rule


def refused(**keys: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        one_rule(**keys)
    return str(caught.value)


def test_every_key_of_a_rule_reaches_the_core() -> None:
    assert one_rule(
        destinations=[EU, {"registry": "harbor"}],
        filters=["team-"],
        repositories=["exact/name"],
        exclude_repositories=["team-x/*"],
        tags=["v*"],
        exclude_tags=["*-rc"],
        rename=[{"prefix": "team-", "to": "t/"}, {"to": "rest/"}],
        platforms=["linux/amd64", "linux/arm64/v8"],
        chain=True,
        delete_replication=True,
        priority=1,
        lag_objective="30s",
        lag_objective_target=99.5,
    ) == ReplicationRule(
        "r",
        (parse_node("111122223333/eu-west-1"), RegistryRef("harbor")),
        filters=("team-",),
        repositories=("exact/name",),
        excluded_repositories=("team-x/*",),
        tags=("v*",),
        excluded_tags=("*-rc",),
        rename=(Rename("team-", "t/"), Rename("", "rest/")),
        platforms=(Platform("linux", "amd64"), Platform("linux", "arm64", "v8")),
        chain=True,
        delete_replication=True,
        priority=1,
        lag_objective=30.0,
        lag_target=0.995,
    )


def test_a_rule_without_extensions_is_ecrs() -> None:
    assert one_rule() == ReplicationRule("r", (parse_node("111122223333/eu-west-1"),))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"destinations": [{"account": EU["account"]}]}, "expected account and region of a node, or registry"),
        ({"destinations": [{"region": EU["region"]}]}, "expected account and region of a node, or registry"),
        ({"destinations": [{**EU, "registry": "harbor"}]}, "expected account and region of a node, or registry"),
        ({"destinations": [{}]}, "expected account and region of a node, or registry"),
        ({"destinations": [{"registry": "Harbor"}]}, "registry"),
        ({"repositories": ["Upper"]}, "repositories"),
        ({"exclude_repositories": [""]}, "exclude_repositories"),
        ({"tags": ["a b"]}, "tags"),
        ({"exclude_tags": ["a" * 129]}, "exclude_tags"),
        ({"rename": [{"prefix": "a/", "to": "a/"}]}, "expected a prefix and to that differ"),
        ({"rename": [{}]}, "expected a prefix and to that differ"),
        ({"rename": [{"to": "/a"}]}, "rename"),
        ({"rename": [{"to": "A"}]}, "rename"),
        ({"platforms": ["linux"]}, "expected a platform such as linux/amd64"),
        ({"platforms": ["linux/amd64/v8/x"]}, "expected a platform such as linux/amd64"),
        ({"platforms": ["Linux/AMD64"]}, "expected a platform such as linux/amd64"),
        ({"platforms": [5]}, "expected text"),
        ({"chain": "yes"}, "chain"),
        ({"delete_replication": 1}, "delete_replication"),
        ({"priority": 0}, "priority"),
        ({"priority": 10}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"lag_objective": "30"}, "expected a duration"),
        ({"lag_objective_target": 99}, "lag_objective_target has no effect without lag_objective"),
        ({"lag_objective": "30s", "lag_objective_target": 100}, "lag_objective_target"),
        ({"lag_objective": "30s", "lag_objective_target": 0}, "lag_objective_target"),
    ],
)
def test_what_is_malformed_is_refused(keys: dict[str, Any], message: str) -> None:
    assert message in refused(**keys)


def test_accepted_accounts_are_the_registry_policy() -> None:
    accepting = replication(
        accept_from=[
            {"account": AP["account"], "repositories": ["shared/*"]},
            {"account": "777788889999", "actions": ["ecr:ReplicateImage"]},
        ]
    )
    assert accepting.registry_policy() == RegistryPolicy(
        accepting.account,
        (
            PolicyStatement(AP["account"], frozenset(Permission), ("shared/*",)),  # type: ignore[arg-type]
            PolicyStatement("777788889999", frozenset({Permission.REPLICATE_IMAGE}), ("*",)),  # type: ignore[arg-type]
        ),
    )
    for actions in ([], ["ecr:Nothing"], ["ReplicateImage"]):
        with pytest.raises(ValidationError):
            replication(accept_from=[{"account": AP["account"], "actions": actions}])


def test_templates_reach_the_core() -> None:
    exclusion = {"tag_mutability": "IMMUTABLE_WITH_EXCLUSION", "tag_mutability_exclusions": ["latest"]}
    templates = [
        {"prefix": "team-a", "applied_for": ["REPLICATION", "CREATE_ON_PUSH"], **exclusion},
        {"prefix": "ROOT", "applied_for": ["PULL_THROUGH_CACHE"]},
    ]
    assert settings(repositories={"templates": templates}).templates() == (
        CreationTemplate(
            "team-a",
            frozenset({CreationCause.REPLICATION, CreationCause.CREATE_ON_PUSH}),
            MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("latest",)),
        ),
        CreationTemplate("ROOT", frozenset({CreationCause.PULL_THROUGH_CACHE})),
    )
    for wrong in (
        {"prefix": "team-a"},
        {"prefix": "team-a", "applied_for": []},
        {"prefix": "team-a", "applied_for": ["PUSH"]},
        {"prefix": "Team", "applied_for": ["REPLICATION"]},
        {"prefix": "team/", "applied_for": ["REPLICATION"]},
        {"prefix": "t", "applied_for": ["REPLICATION"], "tag_mutability": "IMMUTABLE_WITH_EXCLUSION"},
    ):
        with pytest.raises(ValidationError):
            settings(repositories={"templates": [wrong]})


def test_a_destination_may_have_a_share_of_its_own() -> None:
    shares = replication(
        limits=[{**EU, "bandwidth": "5MB", "requests_per_second": 10}, {"registry": "harbor", "images": 1, "blobs": 2}]
    ).replication
    eu = shares.limit(parse_node("111122223333/eu-west-1"))
    assert eu is not None
    assert (eu.bandwidth, eu.requests_per_second, eu.images, eu.blobs) == (5_000_000, 10, None, None)
    harbor = shares.limit(RegistryRef("harbor"))
    assert harbor is not None
    assert (harbor.images, harbor.blobs) == (1, 2)
    assert shares.limit(RegistryRef("other")) is None
    for wrong in ({"bandwidth": 0}, {"images": 0}, {"blobs": 1.5}, {"requests_per_second": -1}, {"speed": 1}):
        with pytest.raises(ValidationError):
            replication(limits=[{**EU, **wrong}])


def test_read_through_and_anti_entropy_have_defaults() -> None:
    default = settings().replication
    assert (default.read_through.enabled, default.read_through.sources) == (True, ())
    assert default.anti_entropy.every == 900
    chosen = replication(
        read_through={"enabled": False, "sources": [{**AP, "repositories": ["shared/*"]}]},
        anti_entropy={"every": "1h"},
    ).replication
    assert not chosen.read_through.enabled
    [source] = chosen.read_through.sources
    assert (str(source.id), source.repositories) == ("444455556666/ap-southeast-1", ("shared/*",))
    assert chosen.anti_entropy.every == 3600
    assert replication(anti_entropy={"every": "off"}).replication.anti_entropy.every is None
    for wrong in ("never", "0s", 5, True, None):
        with pytest.raises(ValidationError):
            replication(anti_entropy={"every": wrong})


def test_registries_and_peers() -> None:
    whole = Settings.model_validate({
        "version": 1,
        "nodes": [node(US, 5001)],
        "registries": [{
            "name": "harbor",
            "url": "https://harbor.example.com",
            "credentials": {"username": "robot", "password": {"env": "TOKEN"}},
            "bandwidth": "1MiB",
            "max_connections": 4,
        }],
        "peers": [{**peer(EU), "secret": {"env": "PAIR"}}],
    })  # fmt: skip
    harbor = whole.registry("harbor")
    assert (harbor.bandwidth, harbor.max_connections, harbor.connect_timeout) == (2**20, 4, 5)
    assert str(whole.peers[0].secret) == "environment variable PAIR"
    with pytest.raises(ConfigurationError, match="there is no registry other"):
        whole.registry("other")


def test_a_template_is_for_what_lies_below_its_prefix() -> None:
    [template] = settings(repositories={"templates": [{"prefix": "team", "applied_for": ["REPLICATION"]}]}).templates()
    assert template.fits(parse_repository("team/app"))
    assert not template.fits(parse_repository("teams/app"))
