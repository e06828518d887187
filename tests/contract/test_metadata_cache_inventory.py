"""Pages of what a cache holds, over every database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import Digest, digest_of
from replicator.core.manifest import parse_manifest
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.replication import Origin
from replicator.storage.blobs.location import new_location
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata import blobs, cache_entries, cache_inventory, cached_images, images, tags
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.cache_inventory import CachedUse, Holdings
from replicator.storage.metadata.images import StoredImage, StoredManifest
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps
    from tests.support.images import Built

BY = NodeId(AccountId("111111111111"), Region("eu"))
APP, OTHER = RepositoryName("hub/app"), RepositoryName("hub/app-b")
ONE, TWO = build_image([b"one"]), build_image([b"two"], platform=("linux", "arm64"))
INDEX = build_index([ONE, TWO])


def put_image(repository: RepositoryName, built: Built) -> Steps[None]:
    manifest = StoredManifest(built.digest, built.media_type, built.manifest)
    parsed = parse_manifest(built.manifest, built.media_type)
    yield from images.put(repository, StoredImage(manifest, parsed, Origin.CACHE), BY, 1.0)
    yield from cached_images.put(repository, built.digest, 2.0)


def put_tag(repository: RepositoryName, tag: str, digest: Digest) -> Steps[None]:
    yield from tags.put(repository, Tag(tag), digest, BY, 1.0)
    yield from cache_entries.put(CacheEntry(repository, Tag(tag), "hub", digest, 1.0, 1.0, 1.0))


def put_blob(repository: RepositoryName, content: bytes) -> Steps[None]:
    digest = digest_of(content)
    yield from blobs.record(StoredBlob(digest, len(content), new_location(digest)), 1.0)
    yield from blobs.link(repository, digest, 1.0)


async def pages(database: Database, first: str, last: str, size: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        page = await database.read(cache_inventory.page(first, last, after, size))
        found += [row.key for row in page.rows]
        after = page.next_after
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 50])
async def test_tags_and_loose_images_are_joined_in_order(database: Database, size: int) -> None:
    for built in (INDEX, ONE, TWO):
        await database.write(partial(put_image, APP, built))
    await database.write(partial(put_image, OTHER, ONE))
    for tag in ("z", "a", "Z"):
        await database.write(partial(put_tag, APP, tag, INDEX.digest))
    await database.write(partial(put_tag, OTHER, "moved", ONE.digest))
    await database.write(partial(tags.put, OTHER, Tag("moved"), TWO.digest, BY, 2.0))
    of_app = [(APP, "Z"), (APP, "a"), (APP, "z")]
    assert await pages(database, "", "~", size) == [*of_app, (OTHER, ONE.digest)]
    assert await pages(database, APP, f"{APP}!", size) == of_app
    assert await pages(database, "hub/b", "hub/b~", size) == []


async def test_what_lies_here_is_counted(database: Database) -> None:
    for built in (INDEX, ONE):
        await database.write(partial(put_image, APP, built))
    assert await database.read(cache_inventory.holdings(APP, INDEX.digest)) == Holdings(2, 3, 0, 2, 0)
    for content in ONE.blobs.values():
        await database.write(partial(put_blob, APP, content))
        await database.write(partial(put_blob, OTHER, content))
    size = sum(map(len, ONE.blobs.values()))
    assert await database.read(cache_inventory.holdings(APP, INDEX.digest)) == Holdings(2, 3, 2, 2, size)
    await database.write(partial(put_image, APP, TWO))
    found = await database.read(cache_inventory.holdings(APP, INDEX.digest))
    assert (found.manifests, found.blobs, found.size) == (3, 2, size)
    assert found.all_blobs == len({**ONE.blobs, **TWO.blobs})


async def test_uses_and_tags_of_a_repository(database: Database) -> None:
    await database.write(partial(put_image, APP, ONE))
    assert await database.read(cache_inventory.find_use(APP, ONE.digest)) == CachedUse(2.0, 2.0)
    assert await database.read(cache_inventory.find_use(OTHER, ONE.digest)) is None
    for tag in ("b", "a"):
        await database.write(partial(put_tag, APP, tag, ONE.digest))
    assert await database.read(cache_inventory.tags_of(APP, 10)) == ["a", "b"]
    assert await database.read(cache_inventory.tags_of(APP, 1)) == ["a"]
