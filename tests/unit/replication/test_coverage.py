"""Rules that cover nothing are said by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.names import RepositoryName, parse_node
from replicator.core.replication import ReplicationRule
from replicator.core.templates import CreationCause
from replicator.registry.repository_creation import ensure_repository
from replicator.registry.settings import RegistrySettings
from replicator.replication.coverage import idle_rules
from tests.support.single_node import NODE, open_node

if TYPE_CHECKING:
    from pathlib import Path

EU = parse_node("1" * 12 + "/eu")
RULES = (ReplicationRule("typo", (EU,), ("taem/",)), ReplicationRule("team", (EU,), ("team/",)))


async def test_a_rule_that_covers_none_of_the_repositories_is_named(tmp_path: Path) -> None:
    async with open_node(tmp_path, settings=RegistrySettings(NODE, replication_rules=RULES)) as node:
        assert await idle_rules(node) == [], "a new node says nothing"
        await node.database.write(
            lambda: ensure_repository(node, RepositoryName("team/app"), 1.0, CreationCause.CREATE_ON_PUSH)
        )
        assert await idle_rules(node) == ["typo"]
