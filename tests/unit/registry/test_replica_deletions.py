"""What a node makes of deletions of its peers, with real stores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.delivery import ImageOutcome
from replicator.core.jobs import JobKind
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import Tag
from replicator.core.peer_messages import (
    Deletion,
    OfferedTag,
    Receipt,
)
from replicator.core.principal import UNRESTRICTED
from replicator.core.registry_policy import PolicyStatement, RegistryPolicy
from replicator.core.replication import Origin, ReplicationRule
from replicator.core.revisions import NEVER, MergeOutcome
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import images, tags
from tests.support.images import build_image, build_index
from tests.support.replica_scene import (
    FOREIGN,
    REPOSITORY,
    SOURCE,
    THIRD,
    V1,
    A,
    B,
    OpenScene,
    Scene,
    delivery_of,
    pointing,
    revision,
    scene_of,
)
from tests.support.single_node import NODE

if TYPE_CHECKING:
    from pathlib import Path


class TestDeletion:
    async def test_an_image_goes_with_its_tags(self, scene: Scene) -> None:
        register = pointing(A, 1.0)
        await scene.receive(A, 1.0, register)
        receipt = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        assert receipt == Receipt(ImageOutcome.DELETED)
        assert (await scene.origin(A), await scene.tag()) == (None, None)
        before = await scene.rows()
        assert (await scene.deliver(delivery_of(A, 1.0, register))).image is ImageOutcome.DELETED
        assert await scene.rows() == before, "a late copy brings nothing back"
        again = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        assert again.image is ImageOutcome.DELETED
        assert await scene.rows() == before
        receipt = await scene.receive(A, 6.0, pointing(A, 6.0, register))
        assert (receipt.image, await scene.tag()) == (ImageOutcome.STORED, A.digest)

    async def test_an_account_deletes_nothing_that_another_one_sent(self, open_scene: OpenScene) -> None:
        policy = RegistryPolicy(NODE.account, (PolicyStatement(FOREIGN.account),))
        scene = await open_scene(registry_policy=policy)
        register = pointing(A, 1.0)
        await scene.receive(A, 1.0, register)
        await scene.deliver(delivery_of(A, 2.0), FOREIGN)
        deletion = Deletion(REPOSITORY, A.digest, revision(5.0, FOREIGN))
        assert (await scene.replicas.delete(FOREIGN, deletion)).image is ImageOutcome.KEPT
        untag = Deletion(
            REPOSITORY, A.digest, revision(5.0, FOREIGN), OfferedTag(V1, pointing(None, 5.0, register, FOREIGN))
        )
        assert (await scene.replicas.delete(FOREIGN, untag)).image is ImageOutcome.KEPT
        assert (await scene.origin(A), await scene.tag()) == (Origin.REPLICA, A.digest)
        assert (await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(6.0)))).image is (
            ImageOutcome.DELETED
        )

    async def test_a_deletion_that_comes_before_the_image_keeps_it_out(self, scene: Scene) -> None:
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        receipt = await scene.receive(A, 1.0, pointing(A, 1.0))
        assert receipt.image is ImageOutcome.DELETED
        assert (await scene.origin(A), await scene.tag()) == (None, None)

    async def test_the_tag_leaves_what_it_pointed_to_also_for_an_image_that_is_deleted(self, scene: Scene) -> None:
        first = pointing(B, 1.0)
        await scene.receive(B, 1.0, first)
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        await scene.receive(A, 2.0, pointing(A, 2.0, first))
        assert (await scene.origin(A), await scene.origin(B), await scene.tag()) == (None, Origin.REPLICA, None)

    async def test_the_tag_of_a_deleted_image_makes_room_for_what_it_was_moved_to(self, scene: Scene) -> None:
        first = pointing(A, 1.0)
        moved = pointing(B, 2.0, first)
        await scene.receive(A, 1.0, first)
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        await scene.receive(B, 2.0, moved)
        assert await scene.tag() == B.digest

    async def test_an_image_of_our_own_or_a_newer_one_stays(self, scene: Scene) -> None:
        await scene.push(A, V1)
        await scene.receive(B, 9.0)
        before = await scene.rows()
        for built in (A, B):
            receipt = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, built.digest, revision(8.0)))
            assert receipt.image is ImageOutcome.KEPT
        assert await scene.rows() == before

    async def test_a_manifest_that_an_index_lists_stays_until_the_index_goes(self, scene: Scene) -> None:
        index = build_index([A])
        await scene.receive(index, 1.0)
        kept = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        assert kept.image is ImageOutcome.KEPT
        for built in (index, A):
            gone = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, built.digest, revision(6.0)))
            assert gone.image is ImageOutcome.DELETED
        assert (await scene.origin(index), await scene.origin(A)) == (None, None)

    async def test_a_tag_goes_and_its_image_stays(self, scene: Scene) -> None:
        register = pointing(A, 1.0)
        deleted = pointing(None, 5.0, register)
        await scene.receive(A, 1.0, register)
        receipt = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, NEVER, OfferedTag(V1, deleted)))
        assert receipt == Receipt(ImageOutcome.DELETED, MergeOutcome.SET, deleted)
        assert (await scene.tag(), await scene.origin(A)) == (None, Origin.REPLICA)
        await scene.deliver(delivery_of(A, 1.0, register))
        assert await scene.tag() is None
        await scene.deliver(delivery_of(A, 6.0, pointing(A, 6.0, deleted)))
        assert await scene.tag() == A.digest
        late = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, NEVER, OfferedTag(V1, deleted)))
        assert (late.image, late.tag_outcome) == (ImageOutcome.KEPT, MergeOutcome.KEPT_NEWER)
        assert await scene.tag() == A.digest

    async def test_a_tag_of_our_own_stays_and_no_late_copy_takes_it(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=(ReplicationRule("back", (SOURCE,)),))
        await scene.push(B, V1)
        scene.announced.clear()
        deleted = pointing(None, 500.0)
        receipt = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, NEVER, OfferedTag(V1, deleted)))
        assert (receipt.image, receipt.tag_outcome) == (ImageOutcome.KEPT, MergeOutcome.KEPT_NEWER)
        held = await scene.node.database.read(tags.find(REPOSITORY, V1))
        assert held is not None
        assert (held.digest, held.revision.node) == (B.digest, str(NODE))
        assert held.revision > deleted.revision
        assert JobKind.REPLICATE in scene.announced, "the source is to learn that the tag is kept"
        await scene.receive(A, 1.0, pointing(A, 1.0))
        assert await scene.tag() == B.digest

    async def test_a_deletion_that_knew_of_our_tag_removes_it(self, scene: Scene) -> None:
        await scene.push(B, V1)
        mine = await scene.node.database.read(tags.find(REPOSITORY, V1))
        deleted = pointing(None, 500.0, mine)
        receipt = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, B.digest, NEVER, OfferedTag(V1, deleted)))
        assert receipt.image is ImageOutcome.DELETED
        assert (await scene.tag(), await scene.origin(B)) == (None, Origin.DIRECT)

    async def test_a_deletion_of_what_two_nodes_wrote_tells_the_loser(self, scene: Scene) -> None:
        await scene.receive(A, 1.0, pointing(A, 1.0, by=THIRD))
        deleted = pointing(None, 5.0)
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, B.digest, NEVER, OfferedTag(V1, deleted)))
        assert await scene.tag() is None
        assert [(each.loser, each.winner) for each in scene.conflicts] == [(A.digest, None)]


async def test_an_image_is_never_older_than_its_tags_nor_its_deletion_than_either(scene: Scene, tmp_path: Path) -> None:
    """The tag was last set by a node whose clock ran ahead; what came of it must still be deleted everywhere."""
    ahead = pointing(B, 3600.0, by=THIRD)
    await scene.receive(B, 1.0, ahead)
    await scene.push(A, V1)
    register = await scene.node.database.read(tags.find(REPOSITORY, V1))
    pushed = await scene.node.database.read(images.find_register(REPOSITORY, A.digest))
    assert register is not None
    assert pushed is not None
    assert pushed.revision >= register.revision > ahead.revision
    await Pushes(scene.node).delete_manifest(UNRESTRICTED, REPOSITORY, A.digest)
    deleted = await scene.node.database.read(images.find_register(REPOSITORY, A.digest))
    tombstone = await scene.node.database.read(tags.find(REPOSITORY, V1))
    assert deleted is not None
    assert tombstone is not None
    assert deleted.revision > tombstone.revision > register.revision
    async with scene_of(tmp_path / "there", RegistrySettings(THIRD)) as there:
        await there.link(A)
        delivery = replace(delivery_of(A, tag=register), revision=pushed.revision)
        await there.deliver(delivery, NODE)
        receipt = await there.replicas.delete(NODE, Deletion(REPOSITORY, A.digest, deleted.revision))
        assert (receipt.image, await there.tag()) == (ImageOutcome.DELETED, None)


class TestProtectedTags:
    """`protect_immutable_tags` holds against other nodes, and for what goes with an image."""

    @pytest.mark.parametrize("protects", [True, False])
    async def test_a_peer_takes_no_protected_tag_away_nor_its_image(
        self, open_scene: OpenScene, protects: bool
    ) -> None:
        scene = await open_scene(protect_immutable_tags=protects, mutability=MutabilityRule(TagMutability.IMMUTABLE))
        register = pointing(A, 1.0)
        await scene.receive(A, 1.0, register)
        gone = pointing(None, 5.0, register)
        untagged = await scene.replicas.delete(
            SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0), OfferedTag(V1, gone))
        )
        deleted = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(6.0)))
        kept = ImageOutcome.KEPT if protects else ImageOutcome.DELETED
        assert (untagged.image, deleted.image) == (kept, kept)
        assert await scene.tag() == (A.digest if protects else None)
        assert await scene.origin(A) is (Origin.REPLICA if protects else None)

    async def test_a_referrer_with_a_protected_tag_stays_when_its_subject_goes(self, open_scene: OpenScene) -> None:
        scene = await open_scene(
            protect_immutable_tags=True,
            mutability=MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("free*",)),
        )
        kept, gone = (build_image([text], subject=A, artifact_type="text/sbom") for text in (b"kept", b"gone"))
        await scene.push(A, Tag("free"))
        await scene.push(kept, Tag("sbom"))
        await scene.push(gone, Tag("free-sbom"))
        await Pushes(scene.node).delete_manifest(UNRESTRICTED, REPOSITORY, A.digest)
        assert await scene.origin(A) is None
        assert await scene.origin(gone) is None
        assert await scene.tag(Tag("sbom")) == kept.digest
