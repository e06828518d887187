from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.cache.shadowed import report_shadowed, shadowed_repositories
from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.names import RepositoryName
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import repositories
from replicator.storage.metadata.repositories import Repository
from tests.support.single_node import NODE, open_node

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from replicator.registry.node import RegistryNode

RULES = (
    CacheRule("hub", "hub"),
    CacheRule("open", "hub", accept_pushes=True),
    CacheRule(ROOT, "hub"),
)


async def create(node: RegistryNode, name: str, created_by: str) -> None:
    made = Repository(RepositoryName(name), 1.0, created_by, node.settings.mutability)
    await node.database.write(partial(repositories.create, made))


async def test_pushed_repositories_below_a_prefix_are_shadowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_node(tmp_path, settings=RegistrySettings(NODE, cache_rules=RULES)) as node:
        assert await shadowed_repositories(node) == {}
        for name, created_by in (
            ("hub/cached", "cache"),
            ("hub/replica", "replication"),
            ("hub/team/b", "push"),
            ("hub/team/a", "push"),
            ("hubble/app", "push"),
            ("open/app", "push"),
            ("own/app", "push"),
        ):
            await create(node, name, created_by)
        assert await shadowed_repositories(node) == {"hub/team/a": "hub", "hub/team/b": "hub"}
        await report_shadowed(node)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    said = record.msg
    assert isinstance(said, dict)
    assert (said["rule"], said["repositories"], said["example"]) == ("hub", 2, "hub/team/a")
