"""Settings made at run time are rows of the node's store: written whole, counted, and never lost to another writer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import DeclaredInFile, InvalidInput, RegistryPolicyNotFound, StorageError
from replicator.core.errors import TemplateExists as Exists
from replicator.core.errors import TemplateNotFound as NotThere
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy
from replicator.core.replication import ReplicationRule
from replicator.core.replication_configuration import RegistryRule
from replicator.core.templates import ROOT, CreationCause, CreationTemplate
from replicator.registry.node import RegistryNode
from replicator.registry.run_time_settings import MAX_POLICY, REFRESH, RunTimeSettings
from replicator.registry.settings import RegistrySettings
from replicator.registry.settings_documents import RULES
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import registry_documents
from replicator.storage.metadata.registry_documents import RegistryDocument
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database

ACCOUNT, FRIEND = AccountId("111111111111"), AccountId("222222222222")
HERE, EU, AP = (NodeId(ACCOUNT, Region(name)) for name in ("us-east-1", "eu-west-1", "ap-south-1"))
FILE = "/etc/replicator.yaml"
EMPTY = RegistrySettings(HERE)
TO_EU, TO_AP = RegistryRule((EU,), ("team/",)), RegistryRule((AP,), delete_replication=True)
ALLOWED = PolicyStatement(FRIEND, frozenset({Permission.REPLICATE_IMAGE}), ("team/*", "base"))
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
    return one._node.settings


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
        assert one.get_replication_configuration().rules == ()
        put = await one.put_replication_configuration([TO_EU, TO_AP])
        assert put.rules == (
            ReplicationRule("api-1", (EU,), ("team/",)),
            ReplicationRule("api-2", (AP,), delete_replication=True),
        )
        for each in (one, await opened(database)):
            assert settings_of(each).replication_rules == put.rules
            assert each.get_replication_configuration() == put

    async def test_a_put_replaces_all_and_none_turns_it_off(self, database: Database) -> None:
        one = await opened(database)
        await one.put_replication_configuration([TO_EU, TO_AP])
        await one.put_replication_configuration([])
        assert settings_of(one).replication_rules == ()
        await one.put_replication_configuration([])
        assert settings_of(await opened(database)).replication_rules == ()

    async def test_a_rule_keeps_its_name_and_no_name_comes_twice(self, database: Database) -> None:
        one = await opened(database)
        await one.put_replication_configuration([TO_EU, TO_AP])
        put = await one.put_replication_configuration([TO_AP, RegistryRule((AP,), ("x/",))])
        assert [rule.name for rule in put.rules] == ["api-2", "api-3"]
        put = await one.put_replication_configuration([TO_EU, TO_AP, TO_AP])
        assert [rule.name for rule in put.rules] == ["api-4", "api-2", "api-5"]

    async def test_rules_of_the_file_stay_in_force_and_come_first(self, database: Database) -> None:
        declared = (ReplicationRule("api-1", (EU,), ("base/",), priority=1), ReplicationRule("plain", (AP,), ("p/",)))
        one = await opened(database, replace(EMPTY, replication_rules=declared))
        put = await one.put_replication_configuration([TO_EU])
        assert (put.declared, [rule.name for rule in put.rules]) == (declared, ["api-2"])
        assert settings_of(one).replication_rules == (*declared, *put.rules)
        with pytest.raises(DeclaredInFile, match=f"replication rule plain is declared in {FILE}"):
            await one.put_replication_configuration([RegistryRule((AP,), ("p/",), delete_replication=True)])
        await one.put_replication_configuration([])
        assert settings_of(one).replication_rules == declared
        with pytest.raises(DeclaredInFile, match=FILE):
            await one.put_replication_configuration([])

    async def test_a_name_that_the_file_has_taken_since_is_changed(self, database: Database) -> None:
        await (await opened(database)).put_replication_configuration([TO_EU, TO_AP])
        declared = (ReplicationRule("api-2", (EU,), ("base/",)),)
        one = await opened(database, replace(EMPTY, replication_rules=declared))
        assert [rule.name for rule in settings_of(one).replication_rules] == ["api-2", "api-1", "api-3"]

    async def test_a_destination_that_the_file_has_lost_since_is_told(
        self, database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        await (await opened(database)).put_replication_configuration([TO_EU])
        node = RegistryNode(EMPTY, database, MemoryBlobStore(), FakeClock())
        await RunTimeSettings(node, {AP}, FILE).load()
        assert "destination of a rule is unknown" in caplog.text
        assert len(node.settings.replication_rules) == 1

    async def test_what_is_refused_changes_nothing(self, database: Database) -> None:
        one = await opened(database)
        await one.put_replication_configuration([TO_EU])
        with pytest.raises(InvalidInput):
            await one.put_replication_configuration([RegistryRule((HERE,))])
        for each in (one, await opened(database)):
            assert [rule.destinations for rule in settings_of(each).replication_rules] == [(EU,)]


class TestRegistryPolicy:
    async def test_statements_are_in_force_until_they_are_deleted(self, database: Database) -> None:
        one = await opened(database)
        with pytest.raises(RegistryPolicyNotFound):
            one.get_registry_policy()
        with pytest.raises(RegistryPolicyNotFound):
            await one.delete_registry_policy()
        await one.put_registry_policy([ALLOWED])
        for each in (one, await opened(database)):
            assert each.get_registry_policy().statements == (ALLOWED,)
            assert settings_of(each).registry_policy == RegistryPolicy(ACCOUNT, (ALLOWED,))
        assert (await one.delete_registry_policy()).statements == (ALLOWED,)
        for each in (one, await opened(database)):
            assert settings_of(each).registry_policy == RegistryPolicy(ACCOUNT)

    async def test_statements_of_the_file_are_kept(self, database: Database) -> None:
        declared = (PolicyStatement(AccountId("333333333333")),)
        one = await opened(database, replace(EMPTY, registry_policy=RegistryPolicy(ACCOUNT, declared)))
        put = await one.put_registry_policy([ALLOWED])
        assert (put.statements, put.declared) == ((ALLOWED,), declared)
        assert settings_of(one).registry_policy == RegistryPolicy(ACCOUNT, (*declared, ALLOWED))
        await one.delete_registry_policy()
        assert one.get_registry_policy().statements == ()
        with pytest.raises(DeclaredInFile, match=FILE):
            await one.delete_registry_policy()
        assert settings_of(one).registry_policy == RegistryPolicy(ACCOUNT, declared)

    async def test_a_policy_has_statements_and_is_not_too_long(self, database: Database) -> None:
        one = await opened(database)
        for statements in ([], [replace(ALLOWED, repositories=("a" * 256,) * (MAX_POLICY // 256))]):
            with pytest.raises(InvalidInput):
                await one.put_registry_policy(statements)
        with pytest.raises(RegistryPolicyNotFound):
            one.get_registry_policy()


class TestTemplates:
    async def test_a_template_is_made_once_changed_and_deleted(self, database: Database) -> None:
        one = await opened(database)
        root = CreationTemplate(ROOT, frozenset({CreationCause.PULL_THROUGH_CACHE}))
        with pytest.raises(NotThere):
            await one.update_template(TEMPLATE)
        await one.create_template(TEMPLATE)
        await one.create_template(root)
        with pytest.raises(Exists):
            await one.create_template(replace(TEMPLATE, mutability=MutabilityRule()))
        assert settings_of(await opened(database)).templates == (TEMPLATE, root)
        changed = replace(TEMPLATE, mutability=MutabilityRule(TagMutability.IMMUTABLE))
        await one.update_template(changed)
        assert [each.template for each in one.list_templates()] == [root, changed]
        await one.delete_template("team")
        with pytest.raises(NotThere):
            await one.delete_template("team")
        assert settings_of(await opened(database)).templates == settings_of(one).templates == (root,)

    async def test_a_template_of_the_file_cannot_be_changed(self, database: Database) -> None:
        one = await opened(database, replace(EMPTY, templates=(TEMPLATE,)))
        changed = replace(TEMPLATE, mutability=MutabilityRule(TagMutability.IMMUTABLE))
        for change in (
            partial(one.create_template, changed),
            partial(one.update_template, changed),
            partial(one.delete_template, "team"),
        ):
            with pytest.raises(DeclaredInFile, match=f"template team is declared in {FILE}"):
                await change()
        assert [(each.template, each.is_declared) for each in one.list_templates()] == [(TEMPLATE, True)]

    async def test_a_template_that_the_file_has_since_takes_precedence(self, database: Database) -> None:
        await (await opened(database)).create_template(replace(TEMPLATE, mutability=MutabilityRule()))
        one = await opened(database, replace(EMPTY, templates=(TEMPLATE,)))
        assert settings_of(one).templates == (TEMPLATE,)

    async def test_templates_made_at_the_same_time_are_all_kept(self, databases: tuple[Database, Database]) -> None:
        one, other = await opened(databases[0]), await opened(databases[1])
        made = [CreationTemplate(f"team-{number}", TEMPLATE.applied_for) for number in range(8)]
        async with asyncio.TaskGroup() as group:
            for number, template in enumerate(made):
                group.create_task((one, other)[number % 2].create_template(template))
        await one.load()
        assert set(settings_of(one).templates) == set(made)


class TestStore:
    async def test_what_another_process_sets_is_seen_after_a_while(self, databases: tuple[Database, Database]) -> None:
        clock = FakeClock()
        one, other = await opened(databases[0]), await opened(databases[1], clock=clock)
        changed = asyncio.Event()
        other._node.on_settings(changed.set)
        await one.put_replication_configuration([TO_EU])
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
