"""Settings made at run time are rows of the node's store: written whole, counted, and never lost to another writer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.account_settings import AccountSettingName, AccountSettings, PolicyScope
from replicator.core.errors import (
    DeclaredInFile,
    InvalidInput,
    InvalidPolicy,
    RegistryPolicyNotFound,
    SigningConfigurationNotFound,
    StorageError,
)
from replicator.core.errors import TemplateExists as Exists
from replicator.core.errors import TemplateNotFound as NotThere
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region, RepositoryName
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy
from replicator.core.replication import ReplicationRule
from replicator.core.replication_configuration import RegistryRule
from replicator.core.signing import SigningConfiguration, SigningRule
from replicator.core.templates import ROOT, CreationCause, CreationTemplate
from replicator.registry.node import RegistryNode
from replicator.registry.run_time_documents import REFRESH
from replicator.registry.run_time_replication import RULES
from replicator.registry.run_time_settings import RunTimeSettings
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import registry_documents
from replicator.storage.metadata.registry_documents import RegistryDocument
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicator.storage.metadata.database import Database

ACCOUNT, FRIEND = AccountId("111111111111"), AccountId("222222222222")
HERE, EU, AP = (NodeId(ACCOUNT, Region(name)) for name in ("us-east-1", "eu-west-1", "ap-south-1"))
FILE = "/etc/replicator.yaml"
EMPTY = RegistrySettings(HERE)
PROFILE = "arn:aws:signer:us-east-1:111111111111:/signing-profiles/release"
TO_EU, TO_AP = RegistryRule((EU,), ("team/",)), RegistryRule((AP,), delete_replication=True)
POLICY_TEXT = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "friends",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{FRIEND}:root"},
                "Action": ["ecr:ReplicateImage"],
                "Resource": [f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/team/*"],
            }
        ],
    }
)
TEMPLATE = CreationTemplate(
    "team",
    frozenset({CreationCause.REPLICATION, CreationCause.CREATE_ON_PUSH}),
    MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev*",)),
)


async def opened(
    database: Database, declared: RegistrySettings = EMPTY, clock: FakeClock | None = None
) -> RunTimeSettings:
    """Return the settings of a node as it finds them at its start."""
    node = RegistryNode(declared, database, MemoryBlobStore(), clock or FakeClock())
    found = RunTimeSettings(node, {HERE, EU, AP}, FILE)
    await found.load()
    return found


def settings_of(one: RunTimeSettings) -> RegistrySettings:
    return one.documents.node.settings


class TestRows:
    async def test_a_document_is_written_in_place_of_another(self, database: Database) -> None:
        assert await database.read(registry_documents.find("x")) is None
        first = await database.write(lambda: registry_documents.put("x", "{}", 1.0))
        second = await database.write(lambda: registry_documents.put("x", '{"text": "ä"}', 2.5))
        other = await database.write(lambda: registry_documents.put("a", "[]", 3.0))
        assert first == RegistryDocument("x", "{}", 1, 1.0)
        assert second == RegistryDocument("x", '{"text": "ä"}', 2, 2.5)
        assert await database.read(registry_documents.find("x")) == second
        assert await database.read(registry_documents.all_documents()) == [other, second]


class TestReplicationConfiguration:
    async def test_rules_are_in_force_at_once_and_after_a_restart(self, database: Database) -> None:
        one = await opened(database)
        assert one.replication.get().rules == ()
        put = await one.replication.put([TO_EU, TO_AP])
        assert put.rules == (
            ReplicationRule("api-1", (EU,), ("team/",)),
            ReplicationRule("api-2", (AP,), delete_replication=True),
        )
        for each in (one, await opened(database)):
            assert settings_of(each).replication_rules == put.rules
            assert each.replication.get() == put

    async def test_a_put_replaces_all_and_none_turns_it_off(self, database: Database) -> None:
        one = await opened(database)
        await one.replication.put([TO_EU, TO_AP])
        await one.replication.put([])
        assert settings_of(one).replication_rules == ()
        await one.replication.put([])
        assert settings_of(await opened(database)).replication_rules == ()

    async def test_a_rule_keeps_its_name_and_no_name_comes_twice(self, database: Database) -> None:
        one = await opened(database)
        await one.replication.put([TO_EU, TO_AP])
        put = await one.replication.put([TO_AP, RegistryRule((AP,), ("x/",))])
        assert [rule.name for rule in put.rules] == ["api-2", "api-3"]
        put = await one.replication.put([TO_EU, TO_AP, TO_AP])
        assert [rule.name for rule in put.rules] == ["api-4", "api-2", "api-5"]

    async def test_rules_of_the_file_stay_in_force_and_come_first(self, database: Database) -> None:
        declared = (ReplicationRule("api-1", (EU,), ("base/",), priority=1), ReplicationRule("plain", (AP,), ("p/",)))
        one = await opened(database, replace(EMPTY, replication_rules=declared))
        put = await one.replication.put([TO_EU])
        assert (put.declared, [rule.name for rule in put.rules]) == (declared, ["api-2"])
        assert settings_of(one).replication_rules == (*declared, *put.rules)
        with pytest.raises(DeclaredInFile, match=f"replication rule plain is declared in {FILE}"):
            await one.replication.put([RegistryRule((AP,), ("p/",), delete_replication=True)])
        await one.replication.put([])
        assert settings_of(one).replication_rules == declared
        with pytest.raises(DeclaredInFile, match=FILE):
            await one.replication.put([])

    async def test_a_name_that_the_file_has_taken_since_is_changed(self, database: Database) -> None:
        await (await opened(database)).replication.put([TO_EU, TO_AP])
        declared = (ReplicationRule("api-2", (EU,), ("base/",)),)
        one = await opened(database, replace(EMPTY, replication_rules=declared))
        assert [rule.name for rule in settings_of(one).replication_rules] == ["api-2", "api-1", "api-3"]

    async def test_a_destination_that_the_file_has_lost_since_is_told(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        await (await opened(database)).replication.put([TO_EU])
        node = RegistryNode(EMPTY, database, MemoryBlobStore(), FakeClock())
        await RunTimeSettings(node, {AP}, FILE).load()
        assert "destination of a rule is unknown" in caplog.text
        assert len(node.settings.replication_rules) == 1

    async def test_what_is_refused_changes_nothing(self, database: Database) -> None:
        one = await opened(database)
        await one.replication.put([TO_EU])
        with pytest.raises(InvalidInput):
            await one.replication.put([RegistryRule((HERE,))])
        for each in (one, await opened(database)):
            assert [rule.destinations for rule in settings_of(each).replication_rules] == [(EU,)]


class TestRegistryPolicy:
    async def test_a_policy_is_in_force_until_it_is_deleted(self, database: Database) -> None:
        one = await opened(database)
        for ask in (one.policy.delete, _get(one)):
            with pytest.raises(RegistryPolicyNotFound, match=f"in the registry with id '{ACCOUNT}'"):
                await ask()
        await one.policy.put(POLICY_TEXT)
        for each in (one, await opened(database)):
            assert each.policy.get() == POLICY_TEXT
            assert lacks(each, FRIEND) is None
        assert await one.policy.delete() == POLICY_TEXT
        for each in (one, await opened(database)):
            assert lacks(each, FRIEND) is Permission.REPLICATE_IMAGE

    async def test_what_the_file_accepts_stays_in_force(self, database: Database) -> None:
        stranger = AccountId("333333333333")
        declared = RegistryPolicy(ACCOUNT, (PolicyStatement(stranger),))
        one = await opened(database, replace(EMPTY, registry_policy=declared))
        await one.policy.put(POLICY_TEXT)
        assert lacks(one, FRIEND) is lacks(one, stranger) is None
        await one.policy.delete()
        assert lacks(one, stranger) is None
        with pytest.raises(DeclaredInFile, match=FILE):
            await one.policy.delete()
        assert lacks(one, FRIEND) is Permission.REPLICATE_IMAGE

    async def test_what_is_no_policy_changes_nothing(self, database: Database) -> None:
        one = await opened(database)
        await one.policy.put(POLICY_TEXT)
        for text in ("", "{}", "[]", POLICY_TEXT.replace("Allow", "Maybe"), POLICY_TEXT.replace("Resource", "Place")):
            with pytest.raises(InvalidPolicy, match="Invalid registry policy provided"):
                await one.policy.put(text)
        assert one.policy.get() == POLICY_TEXT

    async def test_scope_v1_takes_its_own_actions_only_and_keeps_what_was_there(self, database: Database) -> None:
        one, pulls = await opened(database), POLICY_TEXT.replace("ecr:ReplicateImage", "ecr:BatchGetImage")
        await one.policy.put(pulls)
        await one.account.put(AccountSettingName.REGISTRY_POLICY_SCOPE, "V1")
        assert (await opened(database)).policy.get() == pulls
        with pytest.raises(InvalidPolicy):
            await one.policy.put(pulls)
        await one.policy.put(POLICY_TEXT)

    async def test_statements_that_an_earlier_version_kept_are_a_policy(self, database: Database) -> None:
        before = {"account": FRIEND, "permissions": ["ecr:ReplicateImage"], "repositories": ["team/*", "base"]}
        content = json.dumps({"statements": [before]})
        await database.write(lambda: registry_documents.put("registry-policy", content, 1.0))
        one = await opened(database)
        assert lacks(one, FRIEND) is None
        assert lacks(one, FRIEND, "elsewhere") is Permission.REPLICATE_IMAGE
        assert json.loads(one.policy.get())["Statement"][0]["Action"] == ["ecr:ReplicateImage"]


def _get(one: RunTimeSettings) -> Callable[[], Awaitable[str]]:
    async def get() -> str:
        return one.policy.get()

    return get


def lacks(one: RunTimeSettings, account: AccountId, repository: str = "team/app") -> Permission | None:
    """Return what an account lacks to replicate into a repository that exists."""
    policy = settings_of(one).registry_policy or RegistryPolicy(ACCOUNT)
    return policy.missing(HERE, NodeId(account, EU.region), RepositoryName(repository), exists=True)


class TestTemplates:
    async def test_a_template_is_made_once_changed_and_deleted(self, database: Database) -> None:
        one = await opened(database)
        root = CreationTemplate(ROOT, frozenset({CreationCause.PULL_THROUGH_CACHE}))
        with pytest.raises(NotThere):
            await one.templates.update("team", lambda before: before)
        team = await one.templates.create(TEMPLATE)
        root = await one.templates.create(root)
        assert (team.created_at, team.updated_at) == (one.documents.node.clock.now(),) * 2
        assert replace(team, created_at=0.0, updated_at=0.0) == TEMPLATE
        with pytest.raises(Exists):
            await one.templates.create(replace(TEMPLATE, prefix="team/", mutability=MutabilityRule()))
        assert settings_of(await opened(database)).templates == (team, root)
        immutable = MutabilityRule(TagMutability.IMMUTABLE)
        changed = await one.templates.update("team", lambda before: replace(before, mutability=immutable))
        assert (changed.mutability, changed.created_at) == (immutable, team.created_at)
        assert [each.template for each in one.templates.list()] == [root, changed]
        assert await one.templates.delete("team/") == changed
        with pytest.raises(NotThere):
            await one.templates.delete("team")
        assert settings_of(await opened(database)).templates == settings_of(one).templates == (root,)

    async def test_a_template_of_the_file_cannot_be_changed(self, database: Database) -> None:
        one = await opened(database, replace(EMPTY, templates=(TEMPLATE,)))
        changed = replace(TEMPLATE, mutability=MutabilityRule(TagMutability.IMMUTABLE))
        for change in (
            partial(one.templates.create, changed),
            partial(one.templates.update, "team", lambda _: changed),
            partial(one.templates.delete, "team"),
        ):
            with pytest.raises(DeclaredInFile, match=f"template team is declared in {FILE}"):
                await change()
        assert [(each.template, each.is_declared) for each in one.templates.list()] == [(TEMPLATE, True)]

    async def test_a_template_that_the_file_has_since_takes_precedence(self, database: Database) -> None:
        await (await opened(database)).templates.create(replace(TEMPLATE, mutability=MutabilityRule()))
        one = await opened(database, replace(EMPTY, templates=(TEMPLATE,)))
        assert settings_of(one).templates == (TEMPLATE,)

    async def test_templates_made_at_the_same_time_are_all_kept(self, databases: tuple[Database, Database]) -> None:
        one, other = await opened(databases[0]), await opened(databases[1])
        made = [CreationTemplate(f"team-{number}", TEMPLATE.applied_for) for number in range(8)]
        async with asyncio.TaskGroup() as group:
            for number, template in enumerate(made):
                group.create_task((one, other)[number % 2].templates.create(template))
        await one.load()
        assert {template.prefix for template in settings_of(one).templates} == {template.prefix for template in made}


class TestAccountSettings:
    async def test_what_was_put_is_in_force_and_the_rest_as_the_node_says(self, database: Database) -> None:
        declared = replace(EMPTY, account_settings=AccountSettings(is_mounting=False))
        one = await opened(database, declared)
        assert {name.value: one.account.get(name) for name in AccountSettingName} == {
            "BASIC_SCAN_TYPE_VERSION": "AWS_NATIVE",
            "REGISTRY_POLICY_SCOPE": "V2",
            "BLOB_MOUNTING": "DISABLED",
        }
        await one.account.put(AccountSettingName.REGISTRY_POLICY_SCOPE, "V1")
        await one.account.put(AccountSettingName.BLOB_MOUNTING, "ENABLED")
        for each in (one, await opened(database, declared)):
            assert settings_of(each).account_settings == AccountSettings("AWS_NATIVE", PolicyScope.V1)
        with pytest.raises(InvalidInput, match=r"Invalid parameter at 'value' .*: \[V1, V2\]'"):
            await one.account.put(AccountSettingName.REGISTRY_POLICY_SCOPE, "V3")


class TestSigning:
    async def test_a_configuration_is_in_force_until_it_is_deleted(self, database: Database) -> None:
        one, wanted = await opened(database), SigningConfiguration((SigningRule(PROFILE, ("team/*",)),))
        with pytest.raises(SigningConfigurationNotFound):
            one.signing.get()
        await one.signing.put(wanted)
        for each in (one, await opened(database)):
            assert each.signing.get() == settings_of(each).signing == wanted
        with pytest.raises(InvalidInput, match="signing profile of region us-east-1"):
            await one.signing.put(SigningConfiguration((SigningRule(PROFILE.replace("us-east-1", "eu-west-1")),)))
        assert await one.signing.delete() == wanted
        with pytest.raises(SigningConfigurationNotFound):
            await one.signing.delete()
        assert settings_of(one).signing == SigningConfiguration()


class TestStore:
    async def test_what_another_process_sets_is_seen_after_a_while(self, databases: tuple[Database, Database]) -> None:
        clock = FakeClock()
        one, other = await opened(databases[0]), await opened(databases[1], clock=clock)
        changed = asyncio.Event()
        other.documents.node.on_settings(changed.set)
        await one.replication.put([TO_EU])
        running = asyncio.create_task(other.run())  # noqa: TID251 - cancelled below
        await clock.sleepers(1)
        assert settings_of(other).replication_rules == ()
        clock.advance(REFRESH)
        await changed.wait()
        assert settings_of(other).replication_rules == settings_of(one).replication_rules
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    @pytest.mark.parametrize(
        "content",
        ["", "[]", "{}", '{"rules": [{"name": "api-1"}], "next_number": 1}', '{"rules": [], "next_number": {}}'],
    )
    async def test_a_document_that_cannot_be_read_is_no_document_without_rules(
        self, database: Database, content: str
    ) -> None:
        await database.write(lambda: registry_documents.put(RULES, content, 1.0))
        with pytest.raises(StorageError, match=f"the document {RULES} of this store cannot be read"):
            await opened(database)
