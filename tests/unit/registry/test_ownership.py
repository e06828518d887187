"""What the cache made is not this registry's own, and all else that exists is."""

from __future__ import annotations

import pytest

from replicator.core.mutability import MutabilityRule
from replicator.core.names import RepositoryName
from replicator.registry.ownership import CREATED_BY_CACHE, is_own
from replicator.storage.metadata.repositories import Repository


@pytest.mark.parametrize(("created_by", "own"), [("push", True), ("replication", True), (CREATED_BY_CACHE, False)])
def test_a_repository_is_own_unless_the_cache_made_it(created_by: str, *, own: bool) -> None:
    assert is_own(Repository(RepositoryName("team/app"), 0.0, created_by, MutabilityRule())) is own


def test_what_does_not_exist_is_nobodys() -> None:
    assert not is_own(None)
