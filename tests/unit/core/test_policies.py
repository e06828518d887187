"""Who may replicate into a registry, which settings a new repository gets, and how destinations are written."""

from __future__ import annotations

import pytest

from replicator.core.destinations import DestinationId, RegistryRef, parse_destination
from replicator.core.errors import InvalidInput
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, parse_node
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy
from replicator.core.templates import ROOT, CreationCause, CreationTemplate, template_for

OWNER, OTHER, THIRD = (AccountId(digit * 12) for digit in "123")
NAME = RepositoryName("prod/api")
REPLICATE, CREATE = Permission.REPLICATE_IMAGE, Permission.CREATE_REPOSITORY


@pytest.mark.parametrize(
    ("statements", "source", "exists", "missing"),
    [
        ((), OWNER, False, None),
        ((), OTHER, True, REPLICATE),
        ((), OTHER, False, REPLICATE),
        ((PolicyStatement(OTHER),), OTHER, False, None),
        ((PolicyStatement(OTHER),), THIRD, True, REPLICATE),
        ((PolicyStatement(OTHER, frozenset({REPLICATE})),), OTHER, True, None),
        ((PolicyStatement(OTHER, frozenset({REPLICATE})),), OTHER, False, CREATE),
        ((PolicyStatement(OTHER, frozenset({CREATE})),), OTHER, False, REPLICATE),
        ((PolicyStatement(OTHER, repositories=("dev/*",)),), OTHER, True, REPLICATE),
        ((PolicyStatement(OTHER, repositories=("dev/*", "prod/*")),), OTHER, False, None),
        (
            (
                PolicyStatement(OTHER, frozenset({REPLICATE})),
                PolicyStatement(OTHER, frozenset({CREATE}), ("prod/*",)),
            ),
            OTHER,
            False,
            None,
        ),
    ],
)
def test_the_permission_that_is_missing(
    statements: tuple[PolicyStatement, ...], source: AccountId, exists: bool, missing: Permission | None
) -> None:
    here, there = NodeId(OWNER, Region("eu-west-1")), NodeId(source, Region("us-east-1"))
    assert RegistryPolicy(OWNER, statements).missing(here, there, NAME, exists=exists) is missing


def template(prefix: str, *causes: CreationCause) -> CreationTemplate:
    return CreationTemplate(prefix, frozenset(causes), MutabilityRule(TagMutability.IMMUTABLE))


@pytest.mark.parametrize(
    ("repository", "cause", "prefix"),
    [
        ("prod/api", CreationCause.REPLICATION, "prod"),
        ("prod/team/api", CreationCause.REPLICATION, "prod/team"),
        ("prod/team/api", CreationCause.CREATE_ON_PUSH, "prod"),
        ("production/api", CreationCause.REPLICATION, ROOT),
        ("prod", CreationCause.REPLICATION, ROOT),
        ("dev/api", CreationCause.CREATE_ON_PUSH, None),
        ("prod/api", CreationCause.PULL_THROUGH_CACHE, None),
    ],
)
def test_the_longest_prefix_for_the_cause_counts(repository: str, cause: CreationCause, prefix: str | None) -> None:
    templates = [
        template(ROOT, CreationCause.REPLICATION),
        template("prod", CreationCause.REPLICATION, CreationCause.CREATE_ON_PUSH),
        template("prod/team", CreationCause.REPLICATION),
    ]
    found = template_for(templates, RepositoryName(repository), cause)
    assert (found.prefix if found else None) == prefix


@pytest.mark.parametrize("text", ["111111111111/eu-west-1", "registry:harbor", "registry:0-9"])
def test_a_destination_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_destination(text)) == text


@pytest.mark.parametrize("text", ["", "registry:", "registry:Harbor", "registry:a b", "harbor", "registry:" + "a" * 64])
def test_other_destinations_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_destination(text)


def test_a_destination_is_a_node_or_a_registry() -> None:
    node: DestinationId = parse_destination("111111111111/eu")
    assert node == parse_node("111111111111/eu")
    assert parse_destination("registry:harbor") == RegistryRef("harbor")
