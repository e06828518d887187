"""The rows of replication at a destination, shown on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.delivery import ImageRegister
from replicator.core.manifest import parse_manifest
from replicator.core.names import RepositoryName, Tag, parse_node
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER, Revision, TagRegister
from replicator.storage.metadata import images, replicas, tag_conflicts, tags
from replicator.storage.metadata.images import ListedImage, StoredImage, StoredManifest
from replicator.storage.metadata.replicas import HeldTag
from replicator.storage.metadata.tag_conflicts import TagConflict
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import NodeId
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps
    from tests.support.images import Built

NODE, PEER, THIRD = (parse_node(f"{'1' * 12}/{region}") for region in ("eu", "us", "ap"))
REPOSITORY, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
V1, V2, V3 = Tag("v1"), Tag("v2"), Tag("v3")


def revision(counter: int, node: NodeId = PEER) -> Revision:
    return Revision(1, counter, str(node))


def stored(built: Built, origin: Origin = Origin.REPLICA) -> StoredImage:
    manifest = StoredManifest(built.digest, built.media_type, built.manifest)
    return StoredImage(manifest, parse_manifest(built.manifest, built.media_type), origin)


ONE, TWO, THREE = sorted((build_image([text]) for text in (b"1", b"2", b"3")), key=lambda built: built.digest)


class TestImageRegisters:
    async def test_a_put_makes_a_revision_and_a_register_is_stored_as_it_is(self, database: Database) -> None:
        made = await database.write(lambda: images.put(REPOSITORY, stored(ONE, Origin.DIRECT), NODE, 2.0))
        assert made == revision(2000, NODE)
        again = await database.write(lambda: images.put(REPOSITORY, stored(ONE, Origin.DIRECT), NODE, 1.0))
        assert again == revision(2001, NODE)
        await database.write(lambda: images.put_register(REPOSITORY, stored(TWO), revision(5), 3.0, PEER))
        assert await database.read(images.find_register(REPOSITORY, TWO.digest)) == ImageRegister(
            Origin.REPLICA, revision(5)
        )
        assert await database.read(images.find_register(OTHER, TWO.digest)) is None
        assert await database.read(images.find_listed(REPOSITORY, TWO.digest)) == ListedImage(
            TWO.digest, Origin.REPLICA, revision(5), str(PEER), None
        )
        assert await database.read(images.find_listed(OTHER, TWO.digest)) is None

    async def test_a_deletion_is_remembered_until_the_image_is_back(self, database: Database) -> None:
        await database.write(lambda: images.remember_deletion(REPOSITORY, ONE.digest, revision(5), 1.0))
        await database.write(lambda: images.remember_deletion(REPOSITORY, ONE.digest, revision(7), 2.0))
        assert await database.read(images.find_register(REPOSITORY, ONE.digest)) == ImageRegister(None, revision(7))
        assert await database.read(images.find_register(OTHER, ONE.digest)) is None
        made = await database.write(lambda: images.put(REPOSITORY, stored(ONE, Origin.DIRECT), NODE, 0.0))
        assert made == revision(8, NODE)
        assert await database.read(images.find_register(REPOSITORY, ONE.digest)) == ImageRegister(Origin.DIRECT, made)
        assert await database.read(images.deletions_after(REPOSITORY, "", 10)) == []

    async def test_an_image_that_was_sent_again_keeps_its_origin(self, database: Database) -> None:
        await database.write(lambda: images.put_register(REPOSITORY, stored(ONE, Origin.DIRECT), NEVER, 1.0))
        await database.write(lambda: images.renew(REPOSITORY, ONE.digest, revision(9), PEER))
        assert await database.read(images.find_listed(REPOSITORY, ONE.digest)) == ListedImage(
            ONE.digest, Origin.DIRECT, revision(9), str(PEER), None
        )

    async def test_a_push_of_a_replica_keeps_the_source_that_sent_it(self, database: Database) -> None:
        await database.write(lambda: images.put_register(REPOSITORY, stored(ONE), revision(5), 1.0, PEER))
        await database.write(lambda: images.put(REPOSITORY, stored(ONE, Origin.DIRECT), NODE, 1.0))
        found = await database.read(images.find_listed(REPOSITORY, ONE.digest))
        assert found is not None
        assert (found.origin, found.source) == (Origin.DIRECT, str(PEER))

    async def test_lists_by_digest(self, database: Database) -> None:
        referrer = build_image([b"signature"], subject=ONE, artifact_type="a/b")

        def put() -> Steps[None]:
            for built in (ONE, TWO, referrer):
                yield from images.put_register(REPOSITORY, stored(built), revision(5), 1.0, PEER)
            yield from images.put_register(OTHER, stored(THREE), revision(5), 1.0)
            for built in (THREE, TWO):
                yield from images.remember_deletion(OTHER, built.digest, revision(6), 1.0)

        await database.write(put)
        everything = sorted([ONE.digest, TWO.digest, referrer.digest])
        listed = await database.read(images.list_after(REPOSITORY, "", 10))
        assert [one.digest for one in listed] == everything
        assert [one.subject for one in listed if one.subject] == [ONE.digest]
        assert [one.digest for one in await database.read(images.list_after(REPOSITORY, everything[0], 1))] == [
            everything[1]
        ]
        deleted = await database.read(images.deletions_after(OTHER, "", 10))
        assert deleted == [(TWO.digest, revision(6)), (THREE.digest, revision(6))]
        assert await database.read(images.deletions_after(OTHER, TWO.digest, 1)) == [(THREE.digest, revision(6))]

    async def test_indexes_that_list_an_image(self, database: Database) -> None:
        index, nested = build_index([ONE]), build_index([build_index([ONE])])

        def put() -> Steps[None]:
            for built in (ONE, index, nested, *nested.children):
                yield from images.put_register(REPOSITORY, stored(built), revision(5), 1.0)
            yield from images.put_register(OTHER, stored(ONE), revision(5), 1.0)

        await database.write(put)
        expected = sorted({index.digest, nested.children[0].digest})
        assert await database.read(images.parents(REPOSITORY, ONE.digest, 10)) == expected
        assert await database.read(images.parents(REPOSITORY, ONE.digest, 1)) == expected[:1]
        assert await database.read(images.parents(OTHER, ONE.digest, 10)) == []
        assert await database.read(images.is_child(REPOSITORY, ONE.digest))
        assert not await database.read(images.is_child(REPOSITORY, nested.digest))
        assert not await database.read(images.is_child(OTHER, ONE.digest))


class TestTagRegisters:
    async def test_a_register_is_stored_as_it_is_and_listed_with_deleted_ones(self, database: Database) -> None:
        first = TagRegister(ONE.digest, revision(5), {str(PEER): 5, str(NODE): 2})
        gone = TagRegister(None, revision(6, THIRD), {})

        def put() -> Steps[None]:
            yield from tags.set_register(REPOSITORY, V2, gone, 1.0)
            yield from tags.set_register(REPOSITORY, V1, first, 1.0)
            yield from tags.set_register(OTHER, V3, first, 1.0)

        await database.write(put)
        assert await database.read(tags.find(REPOSITORY, V1)) == first
        assert await database.read(tags.registers_after(REPOSITORY, "", 10)) == [(V1, first), (V2, gone)]
        assert await database.read(tags.registers_after(REPOSITORY, V1, 1)) == [(V2, gone)]


class TestConflicts:
    async def test_the_newest_of_a_loser_counts_and_the_last_found_come_first(self, database: Database) -> None:
        first = TagConflict(REPOSITORY, V1, ONE.digest, TWO.digest, str(revision(5)), 1.0)
        other = TagConflict(OTHER, V1, ONE.digest, None, str(revision(6)), 2.0)
        again = TagConflict(REPOSITORY, V1, ONE.digest, THREE.digest, str(revision(7)), 3.0)
        assert await database.read(tag_conflicts.recent(10)) == []
        for conflict in (first, other):
            await database.write(lambda each=conflict: tag_conflicts.put(each))  # type: ignore[misc]
        assert await database.read(tag_conflicts.recent(10)) == [other, first]
        await database.write(lambda: tag_conflicts.put(again))
        assert await database.read(tag_conflicts.recent(10)) == [again, other]
        assert await database.read(tag_conflicts.recent(1)) == [again]
        assert await database.read(tag_conflicts.count()) == 2


class TestWhatASourceSent:
    async def test_repositories_images_and_tags_of_a_source(self, database: Database) -> None:
        def put(repository: RepositoryName, built: Built, source: NodeId | None) -> Steps[None]:
            origin = Origin.DIRECT if source is None else Origin.REPLICA
            yield from images.put_register(repository, stored(built, origin), revision(5), 1.0, source)

        def put_all() -> Steps[None]:
            yield from put(REPOSITORY, ONE, PEER)
            yield from put(REPOSITORY, TWO, THIRD)
            yield from put(REPOSITORY, THREE, None)
            yield from put(OTHER, ONE, PEER)
            yield from put(RepositoryName("z"), ONE, None)
            for tag, built in ((V1, ONE), (V2, THREE)):
                yield from tags.set_register(REPOSITORY, tag, TagRegister(built.digest, revision(6)), 1.0)
            yield from tags.set_register(REPOSITORY, V3, TagRegister(None, revision(7)), 1.0)
            yield from tags.set_register(OTHER, V1, TagRegister(TWO.digest, revision(6)), 1.0)

        await database.write(put_all)

        async def names(source: NodeId, after: str = "", limit: int = 10) -> list[RepositoryName]:
            return await database.read(replicas.repositories_after(str(source), after, limit))

        async def digests(source: NodeId, repository: RepositoryName, after: str = "") -> list[Digest]:
            return await database.read(replicas.images_after(str(source), repository, after, 10))

        assert await names(PEER) == [REPOSITORY, OTHER]
        assert await names(PEER, limit=1) == [REPOSITORY]
        assert await names(PEER, after=REPOSITORY) == [OTHER]
        assert await names(NODE) == []
        assert await digests(PEER, REPOSITORY) == [ONE.digest]
        assert await digests(PEER, REPOSITORY, after=ONE.digest) == []
        assert await digests(THIRD, REPOSITORY) == [TWO.digest]
        expected = [
            HeldTag(V1, ONE.digest, revision(6), True, str(PEER)),
            HeldTag(V2, THREE.digest, revision(6), False, None),
            HeldTag(V3, None, revision(7), False, None),
        ]
        assert await database.read(replicas.tags_after(REPOSITORY, "", 10)) == expected
        assert await database.read(replicas.tags_after(REPOSITORY, V1, 1)) == expected[1:2]
        # The image it points to is not in this repository, whatever another one holds.
        assert await database.read(replicas.tags_after(OTHER, "", 10)) == [
            HeldTag(V1, TWO.digest, revision(6), False, None)
        ]
