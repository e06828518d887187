"""What an import may change, whatever happened since the upstream was asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from replicator.cache.imports import Imports, TagImport
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.core.replication import Origin, ReplicationRule
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import cache_entries, images, replication_status, schema, tags
from replicator.storage.metadata.images import StoredManifest
from replicator.storage.metadata.statement import Statement
from tests.support.clock import FakeClock
from tests.support.images import BuiltImage, build_image
from tests.support.single_node import NODE, OTHER_NODE, open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from replicator.registry.node import RegistryNode

REPOSITORY, TAG = RepositoryName("hub/app"), Tag("latest")
FIRST, SECOND = build_image([b"first"]), build_image([b"second"])


@pytest.fixture(params=[TagMutability.MUTABLE])
async def node(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[RegistryNode]:
    settings = RegistrySettings(NODE, mutability=MutabilityRule(request.param))
    async with open_node(tmp_path, FakeClock(), store=MemoryBlobStore(), settings=settings) as node:
        yield node


def imported(image: BuiltImage, checked_at: float) -> TagImport:
    manifest = StoredManifest(image.digest, image.media_type, image.manifest)
    return TagImport(REPOSITORY, TAG, "hub", manifest, checked_at)


async def tag_of(node: RegistryNode) -> Digest | None:
    state = await node.database.read(tags.find(REPOSITORY, TAG))
    return state.digest if state else None


async def test_tag_moves_with_its_upstream(node: RegistryNode) -> None:
    imports = Imports(node)
    await imports.put_tag(imported(FIRST, 10.0))
    entry = await imports.put_tag(imported(SECOND, 20.0))
    assert entry is not None
    assert (entry.digest, entry.checked_at, entry.changed_at) == (SECOND.digest, 20.0, 20.0)
    assert await tag_of(node) == SECOND.digest
    assert await node.database.read(images.find_origin(REPOSITORY, FIRST.digest)) is Origin.CACHE


async def test_same_digest_again_changes_only_when_it_was_checked(node: RegistryNode) -> None:
    imports = Imports(node)
    await imports.put_tag(imported(FIRST, 10.0))
    before = await node.database.read(tags.find(REPOSITORY, TAG))
    entry = await imports.put_tag(imported(FIRST, 20.0))
    assert entry is not None
    assert (entry.checked_at, entry.changed_at) == (20.0, 10.0)
    assert await node.database.read(tags.find(REPOSITORY, TAG)) == before


async def test_tag_that_is_not_the_upstreams_is_left_alone(node: RegistryNode) -> None:
    imports = Imports(node)
    await imports.put_tag(imported(FIRST, 10.0))
    await node.database.write(lambda: tags.put(REPOSITORY, TAG, SECOND.digest, NODE, 15.0))
    assert await imports.put_tag(imported(FIRST, 20.0)) is None
    assert await tag_of(node) == SECOND.digest


@pytest.mark.parametrize("node", [TagMutability.IMMUTABLE], indirect=True)
async def test_immutable_tag_is_left_where_it_is_and_counts_as_checked(node: RegistryNode) -> None:
    imports = Imports(node)
    await imports.put_tag(imported(FIRST, 10.0))
    entry = await imports.put_tag(imported(SECOND, 20.0))
    assert entry is not None
    assert (entry.digest, entry.checked_at) == (FIRST.digest, 20.0)
    assert await tag_of(node) == FIRST.digest
    assert await node.database.read(images.find_origin(REPOSITORY, SECOND.digest)) is None
    assert entry.drift_digest == SECOND.digest
    assert not (await imports.observe(entry, SECOND.digest)).is_mutable


async def test_late_news_of_an_earlier_digest_is_dropped(node: RegistryNode) -> None:
    imports = Imports(node)
    old = await imports.put_tag(imported(FIRST, 10.0))
    new = await imports.put_tag(imported(SECOND, 20.0))
    assert old is not None
    await imports.update(replace(old, checked_at=30.0, failed_at=30.0, last_error="late"))
    assert await node.database.read(cache_entries.find(REPOSITORY, TAG)) == new


async def test_news_of_a_tag_that_is_forgotten_are_dropped(node: RegistryNode) -> None:
    entry = cache_entries.CacheEntry(REPOSITORY, TAG, "hub", FIRST.digest, 1.0, 1.0, 1.0)
    await Imports(node).update(entry)
    assert await node.database.read(cache_entries.find(REPOSITORY, TAG)) is None


async def test_what_a_tag_was_is_remembered(node: RegistryNode) -> None:
    imports = Imports(node)
    entry = await imports.put_tag(imported(FIRST, 10.0))
    assert entry is not None
    unknown = await imports.observe(entry, SECOND.digest)
    assert (unknown.seen_since, unknown.was_served, unknown.is_mutable) == (None, False, True)
    assert await imports.see(REPOSITORY, TAG, SECOND.digest, 15.0) == 15.0
    assert await imports.see(REPOSITORY, TAG, SECOND.digest, 16.0) == 15.0
    seen = await imports.observe(entry, SECOND.digest)
    assert (seen.seen_since, seen.was_served) == (15.0, False)
    moved = await imports.put_tag(imported(SECOND, 20.0))
    assert moved is not None
    assert moved.rolled_back_at is None
    back = await imports.observe(moved, FIRST.digest)
    assert (back.seen_since, back.was_served) == (10.0, True)
    again = await imports.put_tag(imported(FIRST, 30.0))
    assert again is not None
    assert again.rolled_back_at == 30.0
    confirmed = await imports.put_tag(imported(FIRST, 40.0))
    assert confirmed is not None
    assert confirmed.rolled_back_at == 30.0


async def test_what_a_tag_was_before_histories_were_kept_is_remembered_when_it_moves(node: RegistryNode) -> None:
    imports = Imports(node)
    await imports.put_tag(imported(FIRST, 10.0))
    forget = Statement(sa.delete(schema.cache_history))
    await node.database.write(forget)
    await imports.put_tag(imported(SECOND, 20.0))
    again = await imports.put_tag(imported(FIRST, 30.0))
    assert again is not None
    assert again.rolled_back_at == 30.0


async def test_use_is_not_what_a_check_brings(node: RegistryNode) -> None:
    imports = Imports(node)
    first = await imports.put_tag(replace(imported(FIRST, 10.0), used_at=11.0))
    second = await imports.put_tag(imported(SECOND, 20.0))
    third = await imports.put_tag(replace(imported(SECOND, 30.0), used_at=31.0))
    assert [entry.used_at for entry in (first, second, third) if entry] == [11.0, 11.0, 31.0]


async def test_tag_is_removed_only_while_it_is_the_upstreams(node: RegistryNode) -> None:
    imports = Imports(node)
    old = await imports.put_tag(imported(FIRST, 10.0))
    new = await imports.put_tag(imported(SECOND, 20.0))
    assert old is not None
    assert new is not None
    assert not await imports.remove_tag(old)
    assert await tag_of(node) == SECOND.digest
    await node.database.write(lambda: tags.put(REPOSITORY, TAG, FIRST.digest, NODE, 25.0))
    assert not await imports.remove_tag(new)
    assert await tag_of(node) == FIRST.digest
    assert await node.database.read(cache_entries.find(REPOSITORY, TAG)) is None


async def test_image_that_comes_ahead_of_its_tag_causes_nothing(tmp_path: Path) -> None:
    settings = RegistrySettings(NODE, replication_rules=(ReplicationRule("all", (OTHER_NODE,)),))
    async with open_node(tmp_path, FakeClock(), store=MemoryBlobStore(), settings=settings) as node:
        imports, image = Imports(node), imported(FIRST, 10.0)
        await imports.put_ahead(REPOSITORY, image.manifest)
        assert await node.database.read(images.find_origin(REPOSITORY, FIRST.digest)) is Origin.CACHE
        assert await tag_of(node) is None
        assert not await node.database.read(replication_status.of_image(REPOSITORY, FIRST.digest))
        await imports.put_tag(image)
        assert len(await node.database.read(replication_status.of_image(REPOSITORY, FIRST.digest))) == 1
