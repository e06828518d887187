"""What the rows of a node mean, shown on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import Digest, digest_of
from replicator.core.manifest import parse_manifest
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.replication import Origin, ReplicateImage, ReplicationState
from replicator.core.revisions import Revision, TagRegister
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata import (
    blobs,
    cache_entries,
    cached_content,
    images,
    replication_status,
    repositories,
    tags,
    uploads,
)
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.due_tags import due_tags
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.storage.metadata.name_ranges import EVERYTHING, NameRange
from replicator.storage.metadata.replication_status import ReplicationStatus
from replicator.storage.metadata.repositories import Repository
from replicator.storage.metadata.schema import manifest_references, metadata
from replicator.storage.metadata.statement import Statement
from replicator.storage.metadata.uploads import UploadSession
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps
    from tests.support.images import Built

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
PEER = NodeId(AccountId("2" * 12), Region("us-east-1"))
REPOSITORY = RepositoryName("team/app")
OTHER = RepositoryName("team/other")
LATEST = Tag("latest")
UNSORTED = ["b", "a", "_", "Z", "1.0", "A", "1-0", "a-b", "a.b", "aa", "1_0", "10"]
BYTEWISE = ["1-0", "1.0", "10", "1_0", "A", "Z", "_", "a", "a-b", "a.b", "aa", "b"]


def stored(built: Built, origin: Origin = Origin.DIRECT) -> StoredImage:
    manifest = StoredManifest(built.digest, built.media_type, built.manifest)
    return StoredImage(manifest, parse_manifest(built.manifest, built.media_type), origin)


def put_images(repository: RepositoryName, built: Sequence[Built], origin: Origin = Origin.DIRECT) -> Steps[None]:
    for each in built:
        yield from images.put(repository, stored(each, origin), NODE, 1.0)


def digest(text: str) -> Digest:
    return digest_of(text.encode())


class TestRepositories:
    async def test_a_repository_with_its_settings(self, database: Database) -> None:
        rule = MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev-*", "la*st"))
        repository = Repository(REPOSITORY, 12.5, "cache", rule)
        assert await database.read(repositories.find(REPOSITORY)) is None
        await database.write(lambda: repositories.create(repository))
        assert await database.read(repositories.find(REPOSITORY)) == repository

    async def test_creating_one_that_exists_changes_nothing(self, database: Database) -> None:
        first = Repository(REPOSITORY, 1.0, "push", MutabilityRule(TagMutability.IMMUTABLE))
        await database.write(lambda: repositories.create(first))
        await database.write(lambda: repositories.create(Repository(REPOSITORY, 2.0, "cache", MutabilityRule())))
        assert await database.read(repositories.find(REPOSITORY)) == first
        assert await database.read(repositories.count()) == 1

    async def test_names_are_listed_bytewise_from_any_position(self, database: Database) -> None:
        def create() -> Steps[None]:
            for name in UNSORTED:
                yield from repositories.create(Repository(RepositoryName(name), 1.0, "push", MutabilityRule()))

        await database.write(create)
        assert await database.read(repositories.names_after("", 100)) == BYTEWISE
        assert await database.read(repositories.names_after("1_0", 3)) == ["A", "Z", "_"]
        assert await database.read(repositories.names_after("AA", 1)) == ["Z"]
        assert await database.read(repositories.names_after("b", 5)) == []
        assert await database.read(repositories.names_after("", 0)) == []


class TestTags:
    async def test_a_tag_that_never_was(self, database: Database) -> None:
        assert await database.read(tags.find(REPOSITORY, LATEST)) is None

    async def test_every_put_makes_a_new_revision_by_its_node(self, database: Database) -> None:
        first = await database.write(lambda: tags.put(REPOSITORY, LATEST, digest("a"), NODE, 1.0))
        again = await database.write(lambda: tags.put(REPOSITORY, LATEST, digest("b"), PEER, 2.0))
        assert first == TagRegister(digest("a"), Revision(1, 1000, str(NODE)), {str(NODE): 1000})
        assert again == TagRegister(digest("b"), Revision(1, 2000, str(PEER)), {str(NODE): 1000, str(PEER): 2000})
        assert await database.read(tags.find(REPOSITORY, LATEST)) == again

    async def test_a_deleted_tag_stays_as_a_tombstone_and_counts_on(self, database: Database) -> None:
        await database.write(lambda: tags.put(REPOSITORY, LATEST, digest("a"), NODE, 1.0))
        deleted = await database.write(lambda: tags.put(REPOSITORY, LATEST, None, NODE, 2.0))
        assert deleted == TagRegister(None, Revision(1, 2000, str(NODE)), {str(NODE): 2000})
        assert await database.read(tags.find(REPOSITORY, LATEST)) == deleted
        assert await database.read(tags.names_after(REPOSITORY, "", 10)) == []
        assert await database.read(tags.of_digest(REPOSITORY, digest("a"))) == []
        back = await database.write(lambda: tags.put(REPOSITORY, LATEST, digest("a"), NODE, 0.5))
        assert back.revision.counter == 2001  # a clock that was set back
        assert await database.read(tags.names_after(REPOSITORY, "", 10)) == [LATEST]

    async def test_tags_are_listed_bytewise_by_repository(self, database: Database) -> None:
        def put_all() -> Steps[None]:
            for name in UNSORTED:
                yield from tags.put(REPOSITORY, Tag(name), digest("a"), NODE, 1.0)
            yield from tags.put(OTHER, Tag("elsewhere"), digest("a"), NODE, 1.0)
            yield from tags.put(REPOSITORY, Tag("aaa"), digest("b"), NODE, 1.0)

        await database.write(put_all)
        assert await database.read(tags.names_after(REPOSITORY, "", 100)) == sorted([*BYTEWISE, "aaa"])
        assert await database.read(tags.names_after(REPOSITORY, "A", 2)) == ["Z", "_"]
        assert await database.read(tags.of_digest(REPOSITORY, digest("a"))) == BYTEWISE
        assert await database.read(tags.of_digest(OTHER, digest("b"))) == []

    async def test_tags_differ_by_case(self, database: Database) -> None:
        await database.write(lambda: tags.put(REPOSITORY, Tag("v1"), digest("a"), NODE, 1.0))
        assert await database.read(tags.find(REPOSITORY, Tag("V1"))) is None


class TestBlobs:
    BLOB = StoredBlob(digest("blob"), 2**40, "2026/first")

    async def test_a_blob_is_readable_only_where_it_is_linked(self, database: Database) -> None:
        assert await database.write(lambda: blobs.record(self.BLOB, 1.0))
        assert await database.read(blobs.find_linked(REPOSITORY, self.BLOB.digest)) is None
        assert await database.read(blobs.find(self.BLOB.digest)) == self.BLOB
        await database.write(lambda: blobs.link(REPOSITORY, self.BLOB.digest, 1.0))
        await database.write(lambda: blobs.link(REPOSITORY, self.BLOB.digest, 2.0))
        assert await database.read(blobs.find_linked(REPOSITORY, self.BLOB.digest)) == self.BLOB
        assert await database.read(blobs.find_linked(OTHER, self.BLOB.digest)) is None

    async def test_a_link_without_a_blob_finds_nothing(self, database: Database) -> None:
        await database.write(lambda: blobs.link(REPOSITORY, digest("never stored"), 1.0))
        assert await database.read(blobs.find_linked(REPOSITORY, digest("never stored"))) is None

    async def test_unlinking_takes_it_out_of_one_repository(self, database: Database) -> None:
        await database.write(lambda: blobs.record(self.BLOB, 1.0))
        for repository in (REPOSITORY, OTHER):
            await database.write(lambda to=repository: blobs.link(to, self.BLOB.digest, 1.0))  # type: ignore[misc]
        assert await database.write(lambda: blobs.unlink(REPOSITORY, self.BLOB.digest))
        assert not await database.write(lambda: blobs.unlink(REPOSITORY, self.BLOB.digest))
        assert await database.read(blobs.find_linked(REPOSITORY, self.BLOB.digest)) is None
        assert await database.read(blobs.find_linked(OTHER, self.BLOB.digest)) == self.BLOB

    async def test_the_first_copy_recorded_stays(self, database: Database) -> None:
        second = StoredBlob(self.BLOB.digest, self.BLOB.size, "2026/second")
        assert await database.write(lambda: blobs.record(self.BLOB, 1.0))
        assert not await database.write(lambda: blobs.record(second, 2.0))
        assert await database.write(lambda: blobs.record(self.BLOB, 3.0))
        assert await database.read(blobs.find(self.BLOB.digest)) == self.BLOB

    async def test_a_corrupt_blob_is_not_served_and_the_next_copy_replaces_it(self, database: Database) -> None:
        second = StoredBlob(self.BLOB.digest, self.BLOB.size, "2026/second")

        def store() -> Steps[None]:
            yield from blobs.record(self.BLOB, 1.0)
            yield from blobs.link(REPOSITORY, self.BLOB.digest, 1.0)

        await database.write(store)
        await database.write(lambda: blobs.mark_corrupt(self.BLOB))
        assert await database.read(blobs.find(self.BLOB.digest)) is None
        assert await database.read(blobs.find_linked(REPOSITORY, self.BLOB.digest)) is None
        assert await database.read(blobs.missing(REPOSITORY, [self.BLOB.digest])) == (self.BLOB.digest,)
        assert await database.write(lambda: blobs.record(second, 2.0))
        assert await database.read(blobs.find_linked(REPOSITORY, self.BLOB.digest)) == second

    async def test_a_copy_that_was_replaced_cannot_condemn_the_new_one(self, database: Database) -> None:
        second = StoredBlob(self.BLOB.digest, self.BLOB.size, "2026/second")
        await database.write(lambda: blobs.record(self.BLOB, 1.0))
        await database.write(lambda: blobs.mark_corrupt(self.BLOB))
        await database.write(lambda: blobs.record(second, 2.0))
        await database.write(lambda: blobs.mark_corrupt(self.BLOB))
        assert await database.read(blobs.find(self.BLOB.digest)) == second

    async def test_what_is_missing_is_told_in_order(self, database: Database) -> None:
        def store() -> Steps[None]:
            for name in ("held", "elsewhere"):
                yield from blobs.record(StoredBlob(digest(name), 1, name), 1.0)
            yield from blobs.link(REPOSITORY, digest("held"), 1.0)
            yield from blobs.link(OTHER, digest("elsewhere"), 1.0)

        await database.write(store)
        wanted = [digest(name) for name in ("z", "held", "elsewhere", "a")]
        missing = await database.read(blobs.missing(REPOSITORY, wanted))
        assert missing == (digest("z"), digest("elsewhere"), digest("a"))
        assert await database.read(blobs.missing(REPOSITORY, [])) == ()

    async def test_holders_are_listed_bytewise(self, database: Database) -> None:
        def link_all() -> Steps[None]:
            for name in UNSORTED:
                yield from blobs.link(RepositoryName(name), self.BLOB.digest, 1.0)

        await database.write(link_all)
        assert await database.read(blobs.holders(self.BLOB.digest, "", 100)) == BYTEWISE
        assert await database.read(blobs.holders(self.BLOB.digest, "Z", 2)) == ["_", "a"]
        assert await database.read(blobs.holders(digest("other"), "", 100)) == []

    async def test_totals_beyond_what_four_or_eight_bytes_hold_apart(self, database: Database) -> None:
        assert await database.read(blobs.totals()) == (0, 0)
        for name in ("a", "b"):
            await database.write(
                lambda name=name: blobs.record(StoredBlob(digest(name), 2**61, name), 1.0)  # type: ignore[misc]
            )
        assert await database.read(blobs.totals()) == (2, 2**62)


class TestImages:
    async def test_an_image_has_the_exact_bytes_and_type(self, database: Database) -> None:
        image = build_image([b"layer"], media="docker")
        await database.write(lambda: put_images(REPOSITORY, [image]))
        expected = StoredManifest(image.digest, image.media_type, image.manifest)
        assert await database.read(images.find(REPOSITORY, image.digest)) == expected
        assert await database.read(images.find(OTHER, image.digest)) is None
        assert await database.read(images.find_origin(REPOSITORY, image.digest)) is Origin.DIRECT
        assert await database.read(images.find_origin(OTHER, image.digest)) is None
        assert await database.read(images.count()) == 1

    async def test_an_image_is_found_by_its_tag(self, database: Database) -> None:
        image = build_image()
        await database.write(lambda: put_images(REPOSITORY, [image]))
        assert await database.read(images.find_by_tag(REPOSITORY, LATEST)) is None
        await database.write(lambda: tags.put(REPOSITORY, LATEST, image.digest, NODE, 1.0))
        found = await database.read(images.find_by_tag(REPOSITORY, LATEST))
        assert found is not None
        assert found.content == image.manifest
        assert await database.read(images.find_by_tag(OTHER, LATEST)) is None
        await database.write(lambda: tags.put(REPOSITORY, LATEST, None, NODE, 2.0))
        assert await database.read(images.find_by_tag(REPOSITORY, LATEST)) is None

    async def test_missing_images(self, database: Database) -> None:
        here, elsewhere = build_image([b"1"]), build_image([b"2"])
        await database.write(lambda: put_images(REPOSITORY, [here]))
        await database.write(lambda: put_images(OTHER, [elsewhere]))
        wanted = [elsewhere.digest, here.digest, digest("unknown")]
        assert await database.read(images.missing(REPOSITORY, wanted)) == (elsewhere.digest, digest("unknown"))

    @pytest.mark.parametrize(
        ("first", "then", "kept"),
        [
            (Origin.REPLICA, Origin.DIRECT, Origin.DIRECT),
            (Origin.CACHE, Origin.DIRECT, Origin.DIRECT),
            (Origin.DIRECT, Origin.REPLICA, Origin.DIRECT),
            (Origin.DIRECT, Origin.CACHE, Origin.DIRECT),
            (Origin.REPLICA, Origin.CACHE, Origin.REPLICA),
        ],
    )
    async def test_a_repeated_push_makes_it_direct_and_nothing_else(
        self, database: Database, first: Origin, then: Origin, kept: Origin
    ) -> None:
        image = build_image()
        await database.write(lambda: put_images(REPOSITORY, [image], first))
        await database.write(lambda: put_images(REPOSITORY, [image], then))
        assert await database.read(images.find_origin(REPOSITORY, image.digest)) is kept
        assert await database.read(images.count()) == 1

    async def test_a_manifest_is_forgotten_with_its_last_image(self, database: Database) -> None:
        image = build_image()
        for repository in (REPOSITORY, OTHER):
            await database.write(lambda to=repository: put_images(to, [image]))  # type: ignore[misc]
        assert await database.write(lambda: images.delete(REPOSITORY, image.digest))
        assert not await database.write(lambda: images.delete(REPOSITORY, image.digest))
        assert await database.read(images.find(REPOSITORY, image.digest)) is None
        assert await database.read(images.find(OTHER, image.digest)) is not None
        assert await references(database) != []
        assert await database.write(lambda: images.delete(OTHER, image.digest))
        assert await rows(database, "manifests") == 0
        assert await references(database) == []

    async def test_what_a_manifest_points_to(self, database: Database) -> None:
        image, index = build_image([b"1", b"1", b"2"]), build_index([build_image([b"1", b"1", b"2"])])
        await database.write(lambda: put_images(REPOSITORY, [image, index]))
        expected = {(image.digest, "blob", blob) for blob in image.blobs} | {(index.digest, "manifest", image.digest)}
        assert {tuple(row) for row in await references(database)} == expected

    async def test_referrers_by_subject_type_and_page(self, database: Database) -> None:
        subject = build_image()
        signatures = [
            build_image([bytes([n])], subject=subject, artifact_type="application/vnd.signature") for n in range(3)
        ]
        report = build_image([b"report"], subject=subject, artifact_type="application/vnd.report")
        unrelated = build_image([b"unrelated"], subject=report, artifact_type="application/vnd.signature")
        await database.write(lambda: put_images(REPOSITORY, [subject, *signatures, report, unrelated]))
        await database.write(lambda: put_images(OTHER, [signatures[0]]))

        async def listed(artifact_type: str | None, after: str = "", limit: int = 10) -> list[Digest]:
            found = await database.read(images.referrers(REPOSITORY, subject.digest, artifact_type, after, limit))
            return [manifest.digest for manifest in found]

        of_signatures = sorted(image.digest for image in signatures)
        everything = sorted([*of_signatures, report.digest])
        assert await listed(None) == everything
        assert await listed("application/vnd.signature") == of_signatures
        assert await listed("application/vnd.report") == [report.digest]
        assert await listed("application/vnd") == []
        assert await listed(None, after=everything[1], limit=1) == [everything[2]]
        assert await listed("application/vnd.signature", after=of_signatures[0]) == of_signatures[1:]
        at_other = await database.read(images.referrers(OTHER, subject.digest, None, "", 10))
        assert [manifest.digest for manifest in at_other] == [signatures[0].digest]


class TestUploads:
    async def test_the_life_of_a_session(self, database: Database) -> None:
        session = UploadSession("one", REPOSITORY, "user", "sha512", 1.0, 10.0)
        await database.write(lambda: uploads.create(session))
        assert await database.read(uploads.find("one")) == session
        assert await database.read(uploads.ids()) == ["one"]
        await database.write(lambda: uploads.extend("one", 20.0))
        extended = await database.read(uploads.find("one"))
        assert extended is not None
        assert (extended.started_at, extended.expires_at) == (1.0, 20.0)
        assert await database.write(lambda: uploads.delete("one"))
        assert not await database.write(lambda: uploads.delete("one"))
        assert await database.read(uploads.find("one")) is None

    async def test_sessions_expire_at_their_time_oldest_first(self, database: Database) -> None:
        for name, until in (("late", 30.0), ("second", 20.0), ("first", 10.0)):
            session = UploadSession(name, REPOSITORY, "", "sha256", 1.0, until)
            await database.write(lambda session=session: uploads.create(session))  # type: ignore[misc]
        assert await database.read(uploads.expired(9.9)) == []
        assert [session.id for session in await database.read(uploads.expired(20.0))] == ["first", "second"]

    async def test_extending_one_that_is_gone_makes_none(self, database: Database) -> None:
        await database.write(lambda: uploads.extend("gone", 20.0))
        assert await database.read(uploads.ids()) == []


class TestReplicationStatus:
    REPLICATION = ReplicateImage(REPOSITORY, digest("image"), LATEST, PEER, "rule")

    async def test_the_course_of_a_replication(self, database: Database) -> None:
        async def status() -> ReplicationStatus:
            (only,) = await database.read(replication_status.of_image(REPOSITORY, digest("image")))
            return only

        await database.write(lambda: replication_status.start(self.REPLICATION, 1.0))
        assert await status() == ReplicationStatus(
            REPOSITORY, digest("image"), LATEST, str(PEER), "rule", ReplicationState.IN_PROGRESS, None, 1.0, None, 0
        )
        await database.write(
            lambda: replication_status.settle(self.REPLICATION, ReplicationState.FAILED, 2.0, 5, "Denied")
        )
        failed = await status()
        assert (failed.status, failed.failure_code, failed.completed_at, failed.bytes) == (
            ReplicationState.FAILED,
            "Denied",
            2.0,
            5,
        )
        await database.write(lambda: replication_status.start(self.REPLICATION, 3.0))
        again = await status()
        assert (again.status, again.failure_code, again.enqueued_at, again.completed_at) == (
            ReplicationState.IN_PROGRESS,
            None,
            3.0,
            None,
        )
        await database.write(lambda: replication_status.settle(self.REPLICATION, ReplicationState.COMPLETE, 4.0, 2**40))
        assert (await status()).bytes == 2**40 + 5
        await database.write(lambda: replication_status.add_sent(self.REPLICATION, 7))
        assert ((await status()).bytes, (await status()).status) == (2**40 + 12, ReplicationState.COMPLETE)

    async def test_images_with_and_without_a_tag_are_told_apart(self, database: Database) -> None:
        untagged = ReplicateImage(REPOSITORY, digest("image"), None, PEER, "rule")
        near = ReplicateImage(REPOSITORY, digest("image"), LATEST, NODE, "rule")
        for replication in (self.REPLICATION, untagged, near):
            await database.write(lambda each=replication: replication_status.start(each, 1.0))  # type: ignore[misc]
        await database.write(lambda: replication_status.settle(untagged, ReplicationState.COMPLETE, 2.0))
        found = await database.read(replication_status.of_image(REPOSITORY, digest("image")))
        assert [(each.destination, each.tag, each.status.value) for each in found] == [
            (str(NODE), LATEST, "IN_PROGRESS"),
            (str(PEER), None, "COMPLETE"),
            (str(PEER), LATEST, "IN_PROGRESS"),
        ]

    async def test_the_status_of_a_deleted_image_is_dropped(self, database: Database) -> None:
        kept = ReplicateImage(REPOSITORY, digest("other"), LATEST, PEER, "rule")
        for replication in (self.REPLICATION, kept):
            await database.write(lambda each=replication: replication_status.start(each, 1.0))  # type: ignore[misc]
        await database.write(lambda: replication_status.forget(REPOSITORY, digest("image")))
        assert await database.read(replication_status.of_image(REPOSITORY, digest("image"))) == []
        assert len(await database.read(replication_status.of_image(REPOSITORY, digest("other")))) == 1


class TestCacheEntries:
    ENTRY = CacheEntry(REPOSITORY, LATEST, "docker-hub", digest("a"), 10.0, 5.0, 11.0)

    async def test_an_entry_is_replaced_as_a_whole(self, database: Database) -> None:
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) is None
        await database.write(lambda: cache_entries.put(self.ENTRY))
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) == self.ENTRY
        failed = CacheEntry(REPOSITORY, LATEST, "docker-hub", digest("b"), 20.0, 20.0, 21.0, 22.0, "timed out")
        await database.write(lambda: cache_entries.put(failed))
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) == failed
        await database.write(lambda: cache_entries.put(self.ENTRY))
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) == self.ENTRY
        assert await database.read(cache_entries.count()) == 1

    async def test_a_use_is_noted_on_one_entry(self, database: Database) -> None:
        for repository in (REPOSITORY, OTHER):
            entry = CacheEntry(repository, LATEST, "docker-hub", digest("a"), 10.0, 5.0, 11.0)
            await database.write(lambda entry=entry: cache_entries.put(entry))  # type: ignore[misc]
        await database.write(lambda: cache_entries.touch(REPOSITORY, LATEST, 99.0))
        touched = await database.read(cache_entries.find(REPOSITORY, LATEST))
        other = await database.read(cache_entries.find(OTHER, LATEST))
        assert touched is not None
        assert other is not None
        assert (touched.used_at, touched.checked_at, other.used_at) == (99.0, 10.0, 11.0)

    async def test_due_are_those_whose_time_has_come_and_that_were_used_lately(self, database: Database) -> None:
        for name, due_at, used_at in (
            ("fresh", 101.0, 500.0),
            ("unused", 50.0, 199.0),
            ("second", 100.0, 200.0),
            ("first", 60.0, 500.0),
        ):
            entry = CacheEntry(REPOSITORY, Tag(name), "docker-hub", digest("a"), 1.0, 1.0, used_at, due_at=due_at)
            await database.write(lambda entry=entry: cache_entries.put(entry))  # type: ignore[misc]
        assert [entry.tag for entry in await database.read(due_tags(EVERYTHING, 100.0, 200.0, 10))] == [
            "first",
            "second",
        ]
        assert [entry.tag for entry in await database.read(due_tags(EVERYTHING, 100.0, 200.0, 1))] == ["first"]

    async def test_due_tags_are_found_by_the_names_that_a_rule_covers(self, database: Database) -> None:
        names = ["hub/a", "hub/deep/b", "hub-mirror/c", "hub", "hub0", "other/d"]
        for number, name in enumerate(names):
            entry = CacheEntry(RepositoryName(name), LATEST, "docker-hub", digest("a"), 1.0, 1.0, 500.0, due_at=number)
            await database.write(lambda entry=entry: cache_entries.put(entry))  # type: ignore[misc]

        async def due(names: NameRange, limit: int = 10) -> list[str]:
            return [entry.repository for entry in await database.read(due_tags(names, 100.0, 1.0, limit))]

        assert await due(EVERYTHING) == names
        assert await due(NameRange(("hub",))) == ["hub/a", "hub/deep/b"]
        assert await due(NameRange(("hub",), ("hub/deep",))) == ["hub/a"]
        assert await due(NameRange(None, ("hub", "other")), limit=2) == ["hub-mirror/c", "hub"]


class TestCachedContent:
    async def test_only_content_that_came_from_an_upstream_vouches(self, database: Database) -> None:
        cached, pushed = build_image([b"shared", b"cached"]), build_image([b"shared", b"pushed"])
        index = build_index([cached])
        await database.write(lambda: put_images(REPOSITORY, [cached, index], Origin.CACHE))
        await database.write(lambda: put_images(OTHER, [pushed]))
        for repository in (REPOSITORY, OTHER):
            for blob in {**cached.blobs, **pushed.blobs}:
                await database.write(partial(blobs.link, repository, blob, 1.0))
        shared, only_cached = cached.layers
        only_pushed = pushed.layers[1]
        found = await database.read(cached_content.find_referring_manifest(REPOSITORY, only_cached))
        assert found == StoredManifest(cached.digest, cached.media_type, cached.manifest)
        assert await database.read(cached_content.find_referring_manifest(OTHER, only_pushed)) is None
        assert await database.read(cached_content.find_referring_manifest(REPOSITORY, only_pushed)) is None
        assert await database.read(cached_content.cached_holders(shared)) == [REPOSITORY]
        assert await database.read(cached_content.cached_holders(only_pushed)) == []
        assert await database.read(images.is_child(REPOSITORY, cached.digest))
        assert not await database.read(images.is_child(REPOSITORY, index.digest))
        assert not await database.read(images.is_child(OTHER, cached.digest))


async def references(database: Database) -> list[tuple[str, str, str]]:
    found = await database.read(Statement(manifest_references.select())())
    return [(row[0], row[1], row[2]) for row in found]


async def rows(database: Database, table: str) -> int:
    return len(await database.read(Statement(metadata.tables[table].select())()))
