"""ECR's limits of a replication configuration, each at its edge, and the sense of a policy and a template."""

from __future__ import annotations

import pytest

from replicator.core import texts
from replicator.core.destinations import DestinationId, RegistryRef
from replicator.core.errors import InvalidInput, InvalidName
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region
from replicator.core.quotas import DEFAULT_QUOTAS, Quotas
from replicator.core.replication import Rename, ReplicationRule
from replicator.core.replication_configuration import (
    RegistryRule,
    check_rules,
)
from replicator.core.templates import ROOT, CreationCause, CreationTemplate, check_template

ACCOUNT = AccountId("111111111111")
HERE = NodeId(ACCOUNT, Region("us-east-1"))
HARBOR = RegistryRef("harbor")
NODES = tuple(NodeId(ACCOUNT, Region(f"eu-west-{number}")) for number in range(1, 40))
EU = NODES[0]
KNOWN: set[DestinationId] = {*NODES, HERE, HARBOR}
MAX_RULES, MAX_DESTINATIONS = DEFAULT_QUOTAS.replication_rules, DEFAULT_QUOTAS.replication_destinations
MAX_FILTERS = DEFAULT_QUOTAS.replication_filters
PUSH = frozenset({CreationCause.CREATE_ON_PUSH})


def check(*rules: RegistryRule, others: tuple[ReplicationRule, ...] = ()) -> None:
    check_rules(rules, HERE, KNOWN, others)


def test_what_ecr_takes_is_taken() -> None:
    check()
    check(RegistryRule(()))
    check(RegistryRule((EU, HARBOR), ("team/", "te", "a-b.c_d/e", "a" * 256), delete_replication=True))
    check(RegistryRule((EU,)), RegistryRule((EU,)))


@pytest.mark.parametrize("text", ["", "a", "a" * 257, "Team/", "/team", "team//app", "team/*", "te am", "team/\n"])
def test_a_filter_is_the_start_of_a_repository_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="replication rule 2: expected a filter"):
        check(RegistryRule((EU,)), RegistryRule((EU,), ("team/", text)))


def test_a_rule_leads_to_another_registry_that_is_known_once() -> None:
    with pytest.raises(InvalidInput, match=texts.REPLICATION_TO_ITSELF):
        check(RegistryRule((EU, HERE)))
    for unknown in (NodeId(ACCOUNT, Region("mars-1")), NodeId(AccountId("9" * 12), EU.region), RegistryRef("quay")):
        with pytest.raises(InvalidInput, match="is not known here"):
            check(RegistryRule((unknown,)))
    with pytest.raises(InvalidInput, match="is named twice"):
        check(RegistryRule((EU, HARBOR, EU)))


def test_the_numbers_of_rules_destinations_and_filters_are_limited() -> None:
    check(*[RegistryRule((EU,))] * MAX_RULES)
    with pytest.raises(InvalidInput, match="expected at most 10 replication rules, got 11"):
        check(*[RegistryRule((EU,))] * (MAX_RULES + 1))
    check(RegistryRule((EU,), ("team/",) * MAX_FILTERS))
    with pytest.raises(InvalidInput, match="expected at most 100 filters, got 101"):
        check(RegistryRule((EU,), ("team/",) * (MAX_FILTERS + 1)))
    half = MAX_DESTINATIONS // 2
    check(RegistryRule(NODES[:half]), RegistryRule(NODES[:MAX_DESTINATIONS]))
    with pytest.raises(InvalidInput, match="expected at most 25 different destinations over all rules, got 26"):
        check(RegistryRule(NODES[:half]), RegistryRule(NODES[half : MAX_DESTINATIONS + 1]))


def test_the_limits_are_those_of_the_quotas() -> None:
    quotas = Quotas(replication_rules=2, replication_destinations=2, replication_filters=1)
    rule = RegistryRule(NODES[:2], ("team/",))
    check_rules([rule, rule], HERE, KNOWN, quotas=quotas)
    with pytest.raises(InvalidInput, match="expected at most 2 replication rules, got 3"):
        check_rules([rule] * 3, HERE, KNOWN, quotas=quotas)
    with pytest.raises(InvalidInput, match="expected at most 2 different destinations over all rules, got 3"):
        check_rules([RegistryRule(NODES[:3])], HERE, KNOWN, quotas=quotas)
    with pytest.raises(InvalidInput, match="expected at most 1 filters, got 2"):
        check_rules([RegistryRule(NODES[:1], ("team/", "app/"))], HERE, KNOWN, quotas=quotas)


def test_rules_of_the_file_count_towards_the_limits() -> None:
    others = (ReplicationRule("file", (HARBOR,)),)
    check(*[RegistryRule((EU,))] * (MAX_RULES - 1), others=others)
    with pytest.raises(InvalidInput, match="got 10 and 1 of the configuration file"):
        check(*[RegistryRule((EU,))] * MAX_RULES, others=others)
    with pytest.raises(InvalidInput, match="got 26"):
        check(RegistryRule(NODES[:MAX_DESTINATIONS]), others=others)


def test_a_rule_repeats_another_of_the_same_filters_and_a_common_destination() -> None:
    rule = RegistryRule((EU, HARBOR), ("a/b", "c/"))
    assert rule.repeats(ReplicationRule("x", (EU,), ("c/", "a/b"), delete_replication=True))
    assert not rule.repeats(ReplicationRule("x", (NODES[1],), ("a/b", "c/")))
    assert not rule.repeats(ReplicationRule("x", (EU,), ("a/b",)))
    assert not rule.repeats(ReplicationRule("x", (EU,), ("a/b", "c/"), rename=(Rename("", "x/"),)))


def test_a_template_has_a_prefix_a_cause_and_exclusions_that_fit() -> None:
    check_template(CreationTemplate(ROOT, PUSH))
    check_template(CreationTemplate("team/a", PUSH, MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev*",))))
    with pytest.raises(InvalidName):
        check_template(CreationTemplate("team//", PUSH))
    with pytest.raises(InvalidInput, match="at least one cause"):
        check_template(CreationTemplate("team", frozenset()))


@pytest.mark.parametrize(
    ("setting", "exclusions"),
    [
        (TagMutability.IMMUTABLE, ("dev*",)),
        (TagMutability.MUTABLE_WITH_EXCLUSION, ()),
        (TagMutability.IMMUTABLE_WITH_EXCLUSION, ("a",) * 6),
        (TagMutability.IMMUTABLE_WITH_EXCLUSION, ("de v",)),
    ],
)
def test_exclusions_of_a_template_go_with_its_setting(setting: TagMutability, exclusions: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="template team: expected"):
        check_template(CreationTemplate("team", PUSH, MutabilityRule(setting, exclusions)))
