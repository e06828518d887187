"""Settings of repositories, their pages, and what is left when one is taken away, on SQLite and PostgreSQL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.digest import Digest, digest_of
from replicator.core.jobs import JobKind, NewJob
from replicator.core.manifest import parse_manifest
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.replication import Origin, ReplicateImage
from replicator.core.revisions import Revision
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata import (
    blobs,
    images,
    jobs,
    node_keys,
    replication_status,
    repositories,
    repository_removal,
    tags,
    uploads,
)
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.storage.metadata.repositories import Repository
from replicator.storage.metadata.schema import metadata
from replicator.storage.metadata.statement import Statement
from replicator.storage.metadata.uploads import UploadSession
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps
    from tests.support.images import Built

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
DESTINATION = NodeId(AccountId("2" * 12), Region("us-east-1"))
NAME = RepositoryName("team/my_app")
SIMILAR = RepositoryName("team/myxapp")


def made(name: str, *, public: bool = False) -> Repository:
    return Repository(RepositoryName(name), 1.0, "api", MutabilityRule(), is_public=public)


async def create(database: Database, *names: str, public: bool = False) -> None:
    for name in names:
        await database.write(partial(repositories.create, made(name, public=public)))


async def page(database: Database, after: str, limit: int, *, public: bool = False) -> list[str]:
    return [one.name for one in await database.read(repositories.page(after, limit, is_public=public))]


async def test_pages_follow_the_names_and_leave_public_ones_out(database: Database) -> None:
    await create(database, "b", "a/b", "a-b", "c", "a")
    await create(database, "alias/a", public=True)
    assert await page(database, "", 3) == ["a", "a-b", "a/b"]
    assert await page(database, "a/b", 3) == ["b", "c"]
    assert await page(database, "", 3, public=True) == ["alias/a"]


async def test_whether_there_are_so_many(database: Database) -> None:
    assert await database.read(repositories.has_at_least(0))
    await create(database, "a", "b")
    await create(database, "alias/a", public=True)
    assert await database.read(repositories.has_at_least(2))
    assert not await database.read(repositories.has_at_least(3))
    assert await database.read(repositories.has_at_least(1, is_public=True))


async def test_settings_are_replaced_one_by_one(database: Database) -> None:
    await create(database, NAME, SIMILAR)
    rule = MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev-*",))
    await database.write(partial(repositories.set_mutability, NAME, rule))
    await database.write(partial(repositories.set_scan_on_push, NAME, scan=True))
    await database.write(partial(repositories.set_resource_tags, NAME, {"b": "1", "a": "é"}))
    changed = await database.read(repositories.find(NAME))
    assert changed is not None
    assert (changed.mutability, changed.scan_on_push, list(changed.resource_tags.items())) == (
        rule,
        True,
        [("b", "1"), ("a", "é")],
    )
    assert await database.read(repositories.find(SIMILAR)) == made(SIMILAR)


async def test_a_key_is_kept_for_good(database: Database) -> None:
    assert await database.write(partial(node_keys.keep, "downloads", b"\x00first")) == b"\x00first"
    assert await database.write(partial(node_keys.keep, "downloads", b"second")) == b"\x00first"
    assert await database.write(partial(node_keys.keep, "other", b"second")) == b"second"


def replication(name: RepositoryName, digest: Digest, tag: str | None) -> ReplicateImage:
    return ReplicateImage(name, digest, None if tag is None else Tag(tag), DESTINATION, "rule")


def put_image(name: RepositoryName, built: Built) -> Steps[None]:
    manifest = StoredManifest(built.digest, built.media_type, built.manifest)
    stored = StoredImage(manifest, parse_manifest(built.manifest, built.media_type), Origin.DIRECT)
    yield from images.put(name, stored, NODE, 1.0)


def fill(name: RepositoryName, built: Built, blob: StoredBlob) -> Steps[None]:
    """Put something of `name` into the tables that pushes and their replication write."""
    yield from repositories.create(made(name))
    yield from put_image(name, built)
    yield from tags.put(name, Tag("1.0"), built.digest, NODE, 1.0)
    yield from tags.put(name, Tag("gone"), None, NODE, 1.0)
    yield from images.remember_deletion(name, digest_of(b"gone"), Revision(1, 1, str(NODE)), 1.0)
    yield from blobs.record(blob, 1.0)
    yield from blobs.link(name, blob.digest, 1.0)
    yield from uploads.create(UploadSession(f"upload-{len(name)}-{name[7]}", name, "user:a", "sha256", 1.0, 9.0))
    for tag in ("1.0", None):
        work = replication(name, built.digest, tag)
        yield from replication_status.start(work, 1.0)
        yield from jobs.enqueue(work.to_job(), 1.0)


def rows_naming(name: RepositoryName) -> Steps[dict[str, int]]:
    found = {}
    for table in metadata.sorted_tables:
        column = "name" if table.name == "repositories" else "repository"
        if column in table.c:
            query = sa.select(sa.func.count()).select_from(table).where(table.c[column] == sa.bindparam("of_name"))
            rows = yield from Statement(query)(of_name=name)
            if rows[0][0]:
                found[table.name] = rows[0][0]
    return found


def count(table: str) -> Steps[int]:
    rows = yield from Statement(sa.select(sa.func.count()).select_from(metadata.tables[table]))()
    return int(rows[0][0])


class TestRemoval:
    async def test_nothing_is_left_that_names_the_repository(self, database: Database) -> None:
        built = build_image([b"only here"])
        blob = StoredBlob(digest_of(b"layer"), 5, "lies/here")
        await database.write(partial(fill, NAME, built, blob))
        assert await database.read(repository_removal.holds_images(NAME))
        assert len(await database.read(rows_naming(NAME))) >= 7
        dropped = await database.write(partial(repository_removal.remove, NAME))
        assert dropped == [blob]
        assert await database.read(rows_naming(NAME)) == {}
        for table in ("manifests", "manifest_references", "blobs", "jobs"):
            assert await database.read(count(table)) == 0, table

    async def test_what_others_share_stays(self, database: Database) -> None:
        built = build_image([b"shared"])
        blob = StoredBlob(digest_of(b"layer"), 5, "lies/here")
        await database.write(partial(fill, NAME, built, blob))
        await database.write(partial(fill, SIMILAR, built, blob))
        before = await database.read(rows_naming(SIMILAR))
        assert await database.write(partial(repository_removal.remove, NAME)) == []
        assert await database.read(rows_naming(SIMILAR)) == before
        assert await database.read(images.find(SIMILAR, built.digest)) is not None
        assert await database.read(blobs.find_linked(SIMILAR, blob.digest)) == blob
        for tag in ("1.0", None):
            assert await database.read(jobs.is_pending(JobKind.REPLICATE, replication(SIMILAR, built.digest, tag).key))
            assert not await database.read(jobs.is_pending(JobKind.REPLICATE, replication(NAME, built.digest, tag).key))

    async def test_other_work_goes_on(self, database: Database) -> None:
        await create(database, NAME)
        other = NewJob(JobKind.PREFETCH, f"x|{NAME}:1", {})
        await database.write(partial(jobs.enqueue, other, 1.0))
        await database.write(partial(repository_removal.remove, NAME))
        assert await database.read(jobs.is_pending(other.kind, other.key))

    async def test_an_index_and_its_images_go_together(self, database: Database) -> None:
        child = build_image([b"child"])
        index = build_index([child])
        await create(database, NAME)
        for one in (child, index):
            await database.write(partial(put_image, NAME, one))
        await database.write(partial(repository_removal.remove, NAME))
        assert await database.read(count("manifest_references")) == 0
        assert not await database.read(repository_removal.holds_images(NAME))
