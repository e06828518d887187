"""Rules, policies and templates that are put while nodes run hold from the next push on, and after a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core import texts
from replicator.core.errors import InvalidInput
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.replication import ReplicationState
from replicator.core.replication_configuration import RegistryRule
from replicator.core.templates import CreationCause, CreationTemplate
from replicator.replication.drift_round import AntiEntropySettings
from tests.support.drift import Keeper, lose_tag
from tests.support.images import build_image
from tests.support.nodes import OTHER_ACCOUNT, NodePlan, cluster

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.nodes import Cluster

EU, US, AP = "eu-west-1", "us-east-1", "ap-south-1"
REPOSITORY = "team/app"
IMAGE, NEWER, NEWEST = (build_image([text]) for text in (b"image", b"newer", b"newest"))
WITHOUT_RULES = NodePlan(US, destinations=())


def policy(source: str, *actions: str) -> str:
    """Return a registry policy that lets an account do something in the team's repositories."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{source}:root"},
        "Action": actions,
        "Resource": "arn:aws:ecr:*:*:repository/team/*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


async def put(nodes: Cluster, *regions: str, filters: tuple[str, ...] = ()) -> None:
    """Have us-east-1 replicate to regions, and no others."""
    rules = [RegistryRule(tuple(nodes[region].plan.id for region in regions), filters)] if regions else []
    await nodes[US].run_time_settings.replication.put(rules)


async def test_a_rule_holds_from_the_next_push_on(tmp_path: Path) -> None:
    async with cluster(tmp_path, WITHOUT_RULES, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.push(IMAGE, REPOSITORY, "before")
        await nodes.until_quiet()
        await put(nodes, EU, filters=("team/",))
        await us.push(NEWER, REPOSITORY, "v1")
        await us.push(NEWER, "elsewhere", "v1")
        await nodes.until_quiet()  # no time passes: nobody waits for the next look at the queue
        await eu.check(NEWER, REPOSITORY, "v1")
        assert [one.rule for one in us.recorder.replications] == ["api-1"]
        assert await eu.tag(REPOSITORY, "before") is None
        assert await eu.tag("elsewhere", "v1") is None


async def test_a_rule_is_kept_by_a_node_that_starts_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, WITHOUT_RULES, EU) as nodes:
        await put(nodes, EU)
        await nodes[US].restart()
        await nodes[US].push(IMAGE, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].check(IMAGE, REPOSITORY, "v1")


async def test_without_the_rule_nothing_more_is_sent_but_what_is_queued(tmp_path: Path) -> None:
    async with cluster(tmp_path, WITHOUT_RULES, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await put(nodes, EU)
        await nodes.wire(US, EU).refuse()
        await us.push(IMAGE, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1, "retry")
        await put(nodes)
        await us.push(NEWER, REPOSITORY, "v2")
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        await eu.check(IMAGE, REPOSITORY, "v1")
        (status,) = await us.statuses(REPOSITORY, "v1")
        assert status.status is ReplicationState.COMPLETE
        assert await eu.tag(REPOSITORY, "v2") is None
        assert await us.statuses(REPOSITORY, "v2") == []


async def test_rules_of_the_file_hold_besides(tmp_path: Path) -> None:
    async with cluster(tmp_path, NodePlan(US, destinations=[EU]), EU, AP) as nodes:
        await put(nodes, AP, filters=("team/",))
        await nodes[US].push(IMAGE, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].check(IMAGE, REPOSITORY, "v1")
        await nodes[AP].check(IMAGE, REPOSITORY, "v1")
        await put(nodes)
        await nodes[US].push(NEWER, REPOSITORY, "v2")
        await nodes.until_quiet()
        await nodes[EU].check(NEWER, REPOSITORY, "v2")
        assert await nodes[AP].tag(REPOSITORY, "v2") is None


async def test_a_rule_to_oneself_or_to_nobody_known_is_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path, WITHOUT_RULES, EU) as nodes:
        with pytest.raises(InvalidInput, match=texts.REPLICATION_TO_ITSELF):
            await put(nodes, US)
        unknown = replace(nodes[EU].plan, region="mars-1").id
        with pytest.raises(InvalidInput, match="is not known here"):
            await nodes[US].run_time_settings.replication.put([RegistryRule((unknown,))])


async def test_deletions_go_by_a_rule_that_asks_for_them(tmp_path: Path) -> None:
    async with cluster(tmp_path, WITHOUT_RULES, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await put(nodes, EU)
        await us.push(IMAGE, REPOSITORY, "v1", "v2")
        await nodes.until_quiet()
        await us.delete(REPOSITORY, "v1")
        await nodes.until_quiet()
        assert await eu.tag(REPOSITORY, "v1") == IMAGE.digest
        rule = RegistryRule((eu.plan.id,), delete_replication=True)
        await us.run_time_settings.replication.put([rule])
        await us.delete(REPOSITORY, "v2")
        await nodes.until_quiet()
        assert await eu.tag(REPOSITORY, "v2") is None
        assert await eu.holds(REPOSITORY, IMAGE.digest)


async def test_a_foreign_account_comes_in_while_a_statement_lets_it(tmp_path: Path) -> None:
    there = NodePlan(EU, account=OTHER_ACCOUNT)
    async with cluster(tmp_path, US, there) as nodes:
        us, eu = nodes[US], nodes[EU]

        async def failure(tag: str) -> str | None:
            (status,) = await us.statuses(REPOSITORY, tag)
            return status.failure_code

        await us.push(IMAGE, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1, "failed")
        assert await failure("v1") == "AccessDenied:ecr:ReplicateImage"
        source = us.plan.id.account
        await eu.run_time_settings.policy.put(policy(source, "ecr:ReplicateImage"))
        await us.push(NEWER, REPOSITORY, "v2")
        await nodes.until_attempts(US, 2, "failed")
        assert await failure("v2") == "AccessDenied:ecr:CreateRepository"
        await eu.run_time_settings.policy.put(policy(source, "ecr:ReplicateImage", "ecr:CreateRepository"))
        await nodes.heal_with_time(900.0)
        await eu.check(IMAGE, REPOSITORY, "v1")
        await eu.check(NEWER, REPOSITORY, "v2")
        await eu.run_time_settings.policy.delete()
        await us.push(NEWEST, REPOSITORY, "v3")
        await nodes.until_attempts(US, 3, "failed")
        assert await failure("v3") == "AccessDenied:ecr:ReplicateImage"
        assert await eu.tag(REPOSITORY, "v3") is None


async def test_a_template_is_used_for_the_next_repository(tmp_path: Path) -> None:
    immutable = MutabilityRule(TagMutability.IMMUTABLE)
    template = CreationTemplate("team", frozenset({CreationCause.REPLICATION}), immutable)
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.push(IMAGE, "team/before", "v1")
        await nodes.until_quiet()
        await eu.run_time_settings.templates.create(template)
        await us.push(IMAGE, "team/after", "v1")
        await nodes.until_quiet()
        for repository in ("team/before", "team/after"):
            await us.push(NEWER, repository, "v1")
        await nodes.until_quiet()
        assert await eu.tag("team/before", "v1") == NEWER.digest
        assert await eu.tag("team/after", "v1") == IMAGE.digest
        await eu.run_time_settings.templates.delete("team")
        await us.push(IMAGE, "team/last", "v1")
        await us.push(NEWER, "team/last", "v1")
        await nodes.until_quiet()
        assert await eu.tag("team/last", "v1") == NEWER.digest


async def test_a_template_lets_a_push_create_a_repository(tmp_path: Path) -> None:
    template = CreationTemplate("team", frozenset({CreationCause.CREATE_ON_PUSH}))
    async with cluster(tmp_path, replace(WITHOUT_RULES, create_on_push=False)) as nodes:
        async with nodes[US].client() as client:
            assert (await client.send("POST", f"/v2/{REPOSITORY}/blobs/uploads/")).status == 404
        await nodes[US].run_time_settings.templates.create(template)
        await nodes[US].push(IMAGE, REPOSITORY, "v1")


async def test_destinations_that_join_are_compared_and_those_that_leave_are_not(tmp_path: Path) -> None:
    async with cluster(tmp_path, WITHOUT_RULES, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        keeper = Keeper(nodes, us, AntiEntropySettings(interval=100.0))
        sleepers = 5  # two of each worker, and the backfills'
        async with keeper.running():
            await nodes.clock.sleepers(sleepers)
            await put(nodes, EU)
            await us.push(IMAGE, REPOSITORY, "v1")
            await nodes.until_quiet()
            await lose_tag(eu, REPOSITORY, "v1")
            while await eu.tag(REPOSITORY, "v1") is None:
                await nodes.clock.sleepers(sleepers + 1)
                nodes.clock.advance(50.0)
                await nodes.until_quiet()
            await put(nodes)
            asked = len(eu.recorder.requests)
            for _ in range(6):
                await nodes.clock.sleepers(sleepers)
                nodes.clock.advance(50.0)
                await nodes.until_quiet()
            assert len(eu.recorder.requests) == asked
            assert keeper.anti_entropy.destinations == ()
