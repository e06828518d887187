"""A caller who may see little of a large registry costs it few reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.mutability import MutabilityRule
from replicator.core.names import RepositoryName
from replicator.core.pagination import Page
from replicator.core.principal import Principal, PrincipalKind
from replicator.core.rights import Grant, Right, policies_of
from replicator.registry.listings import Listings
from replicator.storage.metadata import repositories
from replicator.storage.metadata.repositories import Repository
from tests.support.single_node import open_node

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from replicator.storage.metadata.statement import Steps

NARROW = Principal("ann", PrincipalKind.USER, policies_of((Grant(frozenset({Right.PULL}), ("z/*",)),)))


def _many() -> Steps[None]:
    for number in range(3000):
        yield from repositories.create(Repository(RepositoryName(f"a/{number:04}"), 0.0, "push", MutabilityRule()))
    for name in ("z/one", "z/two"):
        yield from repositories.create(Repository(RepositoryName(name), 0.0, "push", MutabilityRule()))


async def test_a_small_page_behind_many_others_costs_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_node(tmp_path) as node:
        await node.database.write(_many)
        asked: list[int] = []
        names_after = repositories.names_after

        def counted(after: str, limit: int) -> Steps[list[RepositoryName]]:
            asked.append(limit)
            return names_after(after, limit)

        monkeypatch.setattr(repositories, "names_after", counted)
        for size, found in ((1, ("z/one",)), (0, ())):
            asked.clear()
            listing = await Listings(node).list_repositories(NARROW, Page(size))
            assert listing.entries == found
            assert len(asked) < 20
            assert max(asked) <= 1000
