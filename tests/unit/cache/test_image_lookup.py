"""What image names mean at a node with cache rules."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.cache.image_lookup import ImageLookup, NoRule
from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.errors import InvalidInput
from replicator.core.names import RepositoryName
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import repositories
from replicator.storage.metadata.repositories import Repository
from tests.support.single_node import NODE, open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.registry.node import RegistryNode

DIGEST = "sha256:" + "ab" * 32
HUB = CacheRule("hub", "hub", namespaces=("docker.io",))
QUAY = CacheRule("quay", "quay", "org", namespaces=("quay.io",))
OWN_HOSTS = {"node.test:5001"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RegistryNode]:
    async with open_node(tmp_path, settings=RegistrySettings(NODE, cache_rules=(HUB, QUAY))) as opened:
        await create(opened, "team/app")
        yield opened


async def create(node: RegistryNode, name: str) -> None:
    made = Repository(RepositoryName(name), 1.0, "push", node.settings.mutability)
    await node.database.write(partial(repositories.create, made))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hub/library/nginx:1.27", "hub/library/nginx:1.27"),
        ("hub/library/nginx", "hub/library/nginx:latest"),
        (f"hub/library/nginx:1.27@{DIGEST}", f"hub/library/nginx@{DIGEST}"),
        ("nginx:1.27", "hub/library/nginx:1.27"),
        ("docker.io/nginx", "hub/library/nginx:latest"),
        ("docker.io/hub/library/nginx", "hub/library/nginx:latest"),
        ("index.docker.io/org/app:1", "hub/org/app:1"),
        ("team/app:1.0", "team/app:1.0"),
        ("docker.io/team/app:1.0", "hub/team/app:1.0"),
        ("team/other:1.0", "hub/team/other:1.0"),
        ("QUAY.io/org/app", "quay/app:latest"),
        (f"quay.io/org/app@{DIGEST}", f"quay/app@{DIGEST}"),
        ("node.test:5001/quay/app:2", "quay/app:2"),
        ("node.test:5001/team/app", "team/app:latest"),
        ("node.test:5001/nginx", "nginx:latest"),
    ],
)
async def test_a_name_is_ours_or_that_of_a_registry_that_a_rule_stands_for(
    node: RegistryNode, text: str, found: str
) -> None:
    assert str(await ImageLookup(node).find(text, OWN_HOSTS)) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ghcr.io/org/app:1", "no cache rule stands for ghcr.io/org/app"),
        ("quay.io/other/app:1", "no cache rule stands for quay.io/other/app"),
        ("node.test:5000/quay/app:2", "no cache rule stands for node.test:5000/quay/app"),
        ("localhost/app", "no cache rule stands for localhost/app"),
    ],
)
async def test_registries_without_a_rule_are_named(node: RegistryNode, text: str, said: str) -> None:
    with pytest.raises(NoRule, match=said):
        await ImageLookup(node).find(text, OWN_HOSTS)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "@", "app:", "app@", "a:b:c", "UPPER", "app@sha256:12", "app:-x", "hub//x", "x" * 2000),
        *("node.test:5001/", "node.test:5001/UPPER", "node.test:5001/app:", "node.test:5001/app@"),
    ],
)
async def test_what_is_no_name_is_refused(node: RegistryNode, text: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        await ImageLookup(node).find(text, OWN_HOSTS)


async def test_without_a_rule_for_docker_hub_a_short_name_is_ours(tmp_path: Path) -> None:
    rules = (QUAY, CacheRule(ROOT, "hub"))
    async with open_node(tmp_path, settings=RegistrySettings(NODE, cache_rules=rules)) as node:
        assert str(await ImageLookup(node).find("org/app")) == "org/app:latest"
        with pytest.raises(NoRule):
            await ImageLookup(node).find("docker.io/org/app")
