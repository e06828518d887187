"""What a node makes of offers and deliveries of its peers, with real stores."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.delivery import ImageOutcome, ImageRegister
from replicator.core.digest import digest_of
from replicator.core.errors import (
    ClockSkew,
    DigestMismatch,
    InvalidInput,
    InvalidManifest,
    ManifestTooLarge,
    ReplicationDenied,
    RepositoryNotFound,
)
from replicator.core.jobs import JobKind
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName
from replicator.core.peer_messages import (
    Deletion,
    Delivery,
    LackedBlob,
    Lacks,
    OfferedTag,
    Receipt,
    SentManifest,
)
from replicator.core.principal import UNRESTRICTED
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy
from replicator.core.replication import Origin, ReplicationRule
from replicator.core.revisions import MAX_AHEAD, NEVER, MergeOutcome
from replicator.core.templates import CreationCause, CreationTemplate
from replicator.registry.pulls import Pulls
from replicator.registry.uploads import Uploads
from replicator.storage.metadata import blobs, images, repositories, tag_conflicts, tags
from replicator.storage.metadata.schema import jobs as jobs_table
from replicator.storage.metadata.statement import Statement
from tests.support.images import build_image, build_index, walk
from tests.support.replica_scene import (
    FOREIGN,
    OTHER,
    REPOSITORY,
    SOURCE,
    START,
    THIRD,
    V1,
    A,
    B,
    OpenScene,
    Scene,
    delivery_of,
    lacked,
    offer_of,
    pointing,
    revision,
    sent,
    tagged,
)
from tests.support.single_node import NODE

if TYPE_CHECKING:
    from collections.abc import Sequence


class TestOffer:
    async def test_everything_of_an_image_that_is_new_is_lacking(self, scene: Scene) -> None:
        index = build_index([A, B])
        found = await scene.replicas.offer(SOURCE, offer_of(index))
        assert found.manifests == (A.digest, B.digest, index.digest)
        assert {blob.digest for blob in found.blobs} == lacked(A, B)
        assert len(found.blobs) == len(lacked(A, B))
        assert (found.image, found.tag) == (None, None)
        assert await scene.node.database.read(repositories.find(REPOSITORY)) is None

    async def test_of_an_image_that_is_here_nothing_is_lacking(self, scene: Scene) -> None:
        register = pointing(A, 1.0)
        await scene.receive(A, 1.0, register)
        assert await scene.replicas.offer(SOURCE, offer_of(A)) == Lacks((), (), ImageOutcome.PRESENT, register)

    async def test_what_broke_off_goes_on_where_it_stands(self, scene: Scene) -> None:
        scene.offsets[A.layers[0]] = 3
        found = await scene.replicas.offer(SOURCE, offer_of(A))
        assert LackedBlob(A.layers[0], 3) in found.blobs
        assert LackedBlob(A.layers[1], 0) in found.blobs

    async def test_blobs_of_repositories_that_the_peer_may_replicate_into_are_mounted(self, scene: Scene) -> None:
        await scene.push(A, repository=OTHER)
        found = await scene.replicas.offer(SOURCE, offer_of(B))
        assert {blob.digest for blob in found.blobs} == lacked(B) - lacked(A)
        assert await scene.node.database.read(blobs.find_linked(REPOSITORY, A.layers[0])) is not None
        created = await scene.node.database.read(repositories.find(REPOSITORY))
        assert created is not None
        assert created.created_by == "replication"

    async def test_blobs_of_other_repositories_stay_hidden(self, open_scene: OpenScene) -> None:
        policy = RegistryPolicy(NODE.account, (PolicyStatement(FOREIGN.account, repositories=(REPOSITORY,)),))
        scene = await open_scene(registry_policy=policy)
        await scene.push(A, repository=OTHER)
        before = await scene.rows()
        found = await scene.replicas.offer(FOREIGN, offer_of(B))
        assert {blob.digest for blob in found.blobs} == lacked(B)
        assert await scene.rows() == before

    async def test_damaged_blobs_are_lacking_wherever_they_are(self, scene: Scene) -> None:
        await scene.push(A, repository=OTHER)
        await scene.receive(B)
        shared, own = B.layers
        for digest in (shared, own, A.layers[1]):
            blob = await scene.node.database.read(blobs.find(digest))
            assert blob is not None
            await scene.node.store.delete_blob(blob.location)
        found = await scene.replicas.offer(SOURCE, offer_of(B))
        assert {blob.digest for blob in found.blobs} == {shared, own}
        found = await scene.replicas.offer(SOURCE, offer_of(A))
        assert {blob.digest for blob in found.blobs} == {shared, A.layers[1]}
        holders = await scene.node.database.read(blobs.holders(A.layers[1], "", 10))
        assert holders == [OTHER], "what is damaged is not mounted"

    async def test_an_image_that_was_deleted_since_needs_nothing(self, scene: Scene) -> None:
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        assert await scene.replicas.offer(SOURCE, offer_of(A, 1.0)) == Lacks((), (), ImageOutcome.DELETED)
        assert (await scene.replicas.offer(SOURCE, offer_of(A, 6.0))).image is None

    async def test_it_says_whether_sparse_copies_are_accepted(self, open_scene: OpenScene) -> None:
        scene = await open_scene(sparse_indexes=True, sparse_images=False)
        found = await scene.replicas.offer(SOURCE, offer_of(A))
        assert (found.accepts_sparse_index, found.accepts_sparse_image) == (True, False)


class TestAccess:
    STATEMENTS: Sequence[tuple[frozenset[Permission], bool, str]] = (
        (frozenset(), True, "ecr:ReplicateImage"),
        (frozenset(), False, "ecr:ReplicateImage"),
        (frozenset({Permission.CREATE_REPOSITORY}), False, "ecr:ReplicateImage"),
        (frozenset({Permission.REPLICATE_IMAGE}), False, "ecr:CreateRepository"),
    )

    @pytest.mark.parametrize(("permissions", "exists", "missing"), STATEMENTS)
    async def test_another_account_without_permission_writes_nothing(
        self, open_scene: OpenScene, permissions: frozenset[Permission], exists: bool, missing: str
    ) -> None:
        statements = (PolicyStatement(FOREIGN.account, permissions),)
        scene = await open_scene(registry_policy=RegistryPolicy(NODE.account, statements))
        await scene.push(A, V1, REPOSITORY if exists else OTHER)
        before = await scene.rows()
        with pytest.raises(ReplicationDenied) as caught:
            await scene.replicas.offer(FOREIGN, offer_of(A))
        assert caught.value.permission == missing
        with pytest.raises(ReplicationDenied) as caught:
            await scene.deliver(delivery_of(A), FOREIGN)
        assert caught.value.permission == missing
        assert await scene.rows() == before

    async def test_another_account_without_permission_learns_and_deletes_nothing(self, scene: Scene) -> None:
        await scene.receive(A, 1.0, pointing(A, 1.0))
        before = await scene.rows()
        gone = OfferedTag(V1, pointing(None, 5.0))
        for deletion in (Deletion(REPOSITORY, A.digest, revision(5.0)), Deletion(REPOSITORY, A.digest, NEVER, gone)):
            with pytest.raises(ReplicationDenied, match="ecr:ReplicateImage"):
                await scene.replicas.delete(FOREIGN, deletion)
        with pytest.raises(ReplicationDenied):
            await scene.replicas.listing(FOREIGN, REPOSITORY, "", 10)
        assert await scene.replicas.hashes(FOREIGN, "", 10) == []
        assert await scene.replicas.find_image(FOREIGN, REPOSITORY, V1) is None
        assert await scene.rows() == before

    async def test_another_account_with_permission_replicates(self, open_scene: OpenScene) -> None:
        statements = (PolicyStatement(FOREIGN.account, repositories=("team/*",)),)
        scene = await open_scene(registry_policy=RegistryPolicy(NODE.account, statements))
        await scene.link(A, OTHER)
        assert (await scene.replicas.offer(FOREIGN, offer_of(A))).blobs == ()
        assert (await scene.deliver(delivery_of(A), FOREIGN)).image is ImageOutcome.STORED


class TestDelivery:
    async def test_an_image_with_its_tag_arrives_whole(self, scene: Scene) -> None:
        register = pointing(A, 1.0)
        receipt = await scene.receive(A, 1.0, register)
        assert receipt == Receipt(ImageOutcome.STORED, MergeOutcome.SET, register)
        assert (await scene.tag(), await scene.origin(A)) == (A.digest, Origin.REPLICA)
        stored = await scene.node.database.read(tags.find(REPOSITORY, V1))
        assert stored == register, "a replica keeps the revision of its source"
        listed = await scene.node.database.read(images.find_listed(REPOSITORY, A.digest))
        assert listed is not None
        assert (listed.revision, listed.source) == (revision(1.0), str(SOURCE))

    async def test_an_index_arrives_with_its_manifests(self, scene: Scene) -> None:
        index = build_index([build_index([A]), B])
        receipt = await scene.receive(index, 1.0, pointing(index, 1.0))
        assert (receipt.image, receipt.lacking_manifests, receipt.lacking_blobs) == (ImageOutcome.STORED, (), ())
        for each in walk(index):
            assert await scene.origin(each) is Origin.REPLICA

    async def test_what_is_lacking_is_said_and_nothing_is_stored(self, scene: Scene) -> None:
        index = build_index([A, B])
        for content in A.blobs.values():
            await scene.upload(content)
        before = await scene.rows()
        whole = delivery_of(index, 1.0, pointing(index, 1.0))
        receipt = await scene.deliver(whole)
        assert (receipt.image, receipt.lacking_manifests) == (ImageOutcome.INCOMPLETE, ())
        assert set(receipt.lacking_blobs) == lacked(B) - lacked(A)
        without_child = replace(whole, manifests=(sent(A), sent(index)), expected_manifests=(), expected_blobs=())
        assert (await scene.deliver(without_child)).lacking_manifests == (B.digest,)
        without_index = replace(whole, manifests=(sent(A),), expected_manifests=(), expected_blobs=())
        assert (await scene.deliver(without_index)).lacking_manifests == (index.digest,)
        only_expected = replace(delivery_of(A), expected_manifests=(B.digest,), expected_blobs=(digest_of(b"none"),))
        receipt = await scene.deliver(only_expected)
        assert (receipt.lacking_manifests, receipt.lacking_blobs) == ((B.digest,), (digest_of(b"none"),))
        assert receipt.image is ImageOutcome.INCOMPLETE
        assert await scene.rows() == before

    async def test_a_damaged_blob_is_lacking(self, scene: Scene) -> None:
        await scene.link(A)
        blob = await scene.node.database.read(blobs.find(A.layers[0]))
        assert blob is not None
        await scene.node.database.write(lambda: blobs.mark_corrupt(blob))
        assert (await scene.deliver(delivery_of(A))).lacking_blobs == (A.layers[0],)

    async def test_sparse_copies_only_where_they_are_permitted(self, open_scene: OpenScene) -> None:
        index = build_index([A, B])
        scene = await open_scene(sparse_indexes=True)
        await scene.link(A)
        sparse = replace(
            delivery_of(index),
            manifests=(sent(A), sent(index)),
            expected_manifests=(A.digest, index.digest),
            expected_blobs=tuple(A.blobs),
        )
        assert (await scene.deliver(sparse)).image is ImageOutcome.STORED
        assert await scene.origin(B) is None
        found = await scene.node.database.read(images.find(REPOSITORY, index.digest))
        assert found is not None
        assert found.content == index.manifest
        without_blobs = replace(delivery_of(B), expected_blobs=())
        assert (await scene.deliver(without_blobs)).image is ImageOutcome.INCOMPLETE

    async def test_a_sparse_image_where_it_is_permitted(self, open_scene: OpenScene) -> None:
        scene = await open_scene(sparse_images=True)
        assert (await scene.deliver(replace(delivery_of(B), expected_blobs=()))).image is ImageOutcome.STORED
        assert (await scene.deliver(delivery_of(B))).image is ImageOutcome.INCOMPLETE

    async def test_parts_of_a_large_graph_come_first(self, scene: Scene) -> None:
        index = build_index([A, B])
        await scene.link(index)
        parts = replace(delivery_of(index), manifests=(sent(A), sent(B)), digest=None, expected_manifests=(A.digest,))
        assert (await scene.deliver(parts)).image is ImageOutcome.STORED
        assert (await scene.deliver(parts)).image is ImageOutcome.PRESENT
        last = replace(delivery_of(index, 1.0, pointing(index, 1.0)), manifests=(sent(index),))
        assert (await scene.deliver(last)).image is ImageOutcome.STORED
        assert await scene.tag() == index.digest

    async def test_late_parts_bring_no_deleted_manifest_back_but_a_later_index_does(self, scene: Scene) -> None:
        index = build_index([A])
        await scene.receive(A, 1.0)
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        parts = replace(delivery_of(index, 2.0), manifests=(sent(A),), digest=None, expected_manifests=(A.digest,))
        receipt = await scene.deliver(parts)
        assert (receipt.image, receipt.lacking_manifests) == (ImageOutcome.PRESENT, (A.digest,))
        assert await scene.origin(A) is None
        assert (await scene.deliver(delivery_of(index, 2.0))).image is ImageOutcome.STORED
        register = await scene.node.database.read(images.find_register(REPOSITORY, A.digest))
        assert register == ImageRegister(Origin.REPLICA, revision(5.0)), "a register never goes back"
        again = await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        assert again.image is ImageOutcome.KEPT

    async def test_an_image_that_is_here_need_not_be_sent_again(self, scene: Scene) -> None:
        await scene.push(A)
        delivery = replace(delivery_of(A, 1.0, pointing(A, 1.0)), manifests=())
        receipt = await scene.deliver(delivery)
        assert (receipt.image, receipt.tag_outcome) == (ImageOutcome.PRESENT, MergeOutcome.SET)
        assert (await scene.tag(), await scene.origin(A)) == (A.digest, Origin.DIRECT)
        listed = await scene.node.database.read(images.find_listed(REPOSITORY, A.digest))
        assert listed is not None
        assert (listed.revision, listed.source) == (revision(1.0), str(SOURCE))

    @pytest.mark.parametrize("tagged", [True, False])
    async def test_late_and_repeated_deliveries_change_nothing(self, scene: Scene, tagged: bool) -> None:
        first = pointing(A, 1.0)
        second = pointing(B, 2.0, first)
        old = delivery_of(A, 1.0, first if tagged else None)
        await scene.link(A)
        await scene.deliver(old)
        await scene.receive(B, 2.0, second)
        before = await scene.rows()
        for delivery in (old, delivery_of(B, 2.0, second), old):
            receipt = await scene.deliver(delivery)
            assert receipt.image is ImageOutcome.PRESENT
        assert await scene.tag() == B.digest
        assert await scene.rows() == before
        assert scene.conflicts == []

    async def test_deliveries_in_the_wrong_order_end_at_the_last_push(self, scene: Scene) -> None:
        first = pointing(A, 1.0)
        second = pointing(B, 2.0, first)
        await scene.receive(B, 2.0, second)
        receipt = await scene.receive(A, 1.0, first)
        assert (receipt.image, receipt.tag_outcome) == (ImageOutcome.STORED, MergeOutcome.KEPT_NEWER)
        assert await scene.tag() == B.digest
        assert scene.conflicts == []

    async def test_an_immutable_tag_keeps_its_image_and_the_new_one_comes_without(self, open_scene: OpenScene) -> None:
        scene = await open_scene(mutability=MutabilityRule(TagMutability.IMMUTABLE))
        await scene.push(A, V1)
        receipt = await scene.receive(B, 5.0, pointing(B, 5.0))
        assert (receipt.image, receipt.tag_outcome) == (ImageOutcome.STORED, MergeOutcome.KEPT_IMMUTABLE)
        assert receipt.tag is not None
        assert receipt.tag.digest == A.digest
        assert (await scene.tag(), await scene.origin(B)) == (A.digest, Origin.REPLICA)
        assert scene.conflicts == []

    async def test_two_writers_conflict_the_later_wins_and_the_loser_is_told(
        self, scene: Scene, caplog: pytest.LogCaptureFixture
    ) -> None:
        mine = pointing(A, 1.0, by=NODE)
        await scene.push(A)
        await scene.node.database.write(lambda: tags.set_register(REPOSITORY, V1, mine, START))
        theirs = pointing(B, 2.0)
        receipt = await scene.receive(B, 2.0, theirs)
        assert receipt.tag_outcome is MergeOutcome.SET
        (conflict,) = await scene.node.database.read(tag_conflicts.recent(10))
        assert (conflict.tag, conflict.loser, conflict.winner) == (V1, A.digest, B.digest)
        assert conflict.winner_revision == str(theirs.revision)
        assert scene.conflicts == [conflict]
        assert "two nodes set a tag without knowing of each other" in caplog.text
        assert await scene.node.database.read(images.find(REPOSITORY, A.digest)) is not None
        await scene.deliver(delivery_of(B, 2.0, theirs))
        assert len(scene.conflicts) == 1

    async def test_the_loser_is_told_where_it_arrives_too(self, scene: Scene) -> None:
        await scene.receive(B, 2.0, pointing(B, 2.0, by=THIRD))
        await scene.receive(A, 1.0, pointing(A, 1.0))
        assert await scene.tag() == B.digest
        assert [(each.loser, each.winner) for each in scene.conflicts] == [(A.digest, B.digest)]
        assert await scene.origin(A) is Origin.REPLICA

    async def test_pulls_see_the_new_image_at_once(self, scene: Scene) -> None:
        pulls = Pulls(scene.node)
        await scene.receive(A, 1.0, pointing(A, 1.0))
        assert (await pulls.get_manifest(UNRESTRICTED, REPOSITORY, V1)).digest == A.digest
        await scene.receive(B, 2.0, pointing(B, 2.0))
        assert (await pulls.get_manifest(UNRESTRICTED, REPOSITORY, V1)).digest == B.digest
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, B.digest, revision(5.0)))
        assert await pulls.find_manifest(REPOSITORY, B.digest) is None
        assert await pulls.find_manifest(REPOSITORY, V1) is None


class TestRefusals:
    async def test_what_is_wrong_changes_nothing(self, open_scene: OpenScene) -> None:
        scene = await open_scene(max_manifest_size=1000)
        await scene.link(A)
        before = await scene.rows()
        good = delivery_of(A, 1.0, pointing(A, 1.0))
        large = build_image([b"shared"], annotations={"text": "x" * 1000})
        wrong: Sequence[tuple[Delivery, type[Exception]]] = [
            (replace(good, manifests=(replace(sent(A), digest=B.digest),)), DigestMismatch),
            (replace(good, manifests=(SentManifest(digest_of(b"{}"), A.media_type, b"{}"),)), InvalidManifest),
            (replace(good, manifests=(sent(large),)), ManifestTooLarge),
            (replace(good, tag=OfferedTag(V1, pointing(B, 1.0))), InvalidInput),
            (replace(good, tag=OfferedTag(V1, pointing(None, 1.0))), InvalidInput),
            (replace(good, digest=None), InvalidInput),
            (replace(good, revision=revision(MAX_AHEAD + 1)), ClockSkew),
            (replace(good, tag=OfferedTag(V1, pointing(A, MAX_AHEAD + 1))), ClockSkew),
        ]
        for delivery, error in wrong:
            with pytest.raises(error):
                await scene.deliver(delivery)
        offer = offer_of(A)
        with pytest.raises(ClockSkew):
            await scene.replicas.offer(SOURCE, replace(offer, revision=revision(MAX_AHEAD + 1)))
        with pytest.raises(InvalidInput):
            await scene.replicas.offer(SOURCE, replace(offer, digest=B.digest))
        deletions = [
            (Deletion(REPOSITORY, A.digest, revision(MAX_AHEAD + 1)), ClockSkew),
            (Deletion(REPOSITORY, A.digest, NEVER, OfferedTag(V1, pointing(None, MAX_AHEAD + 1))), ClockSkew),
            (Deletion(REPOSITORY, A.digest, NEVER, OfferedTag(V1, pointing(A, 1.0))), InvalidInput),
        ]
        for deletion, error in deletions:
            with pytest.raises(error):
                await scene.replicas.delete(SOURCE, deletion)
        assert await scene.rows() == before

    async def test_a_clock_that_runs_ahead_by_less_than_a_day_is_followed(self, scene: Scene) -> None:
        register = pointing(A, MAX_AHEAD - 1)
        assert (await scene.receive(A, MAX_AHEAD - 1, register)).tag == register
        await scene.push(B, V1)
        assert await scene.tag() == B.digest, "a local push comes after what is known, whatever the clocks say"
        later = await scene.node.database.read(tags.find(REPOSITORY, V1))
        assert later is not None
        assert later.revision.counter == register.revision.counter + 1


class TestRepositories:
    TEMPLATES = (
        CreationTemplate("team", frozenset({CreationCause.REPLICATION}), MutabilityRule(TagMutability.IMMUTABLE)),
        CreationTemplate(
            "pushed",
            frozenset({CreationCause.CREATE_ON_PUSH}),
            MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev-*",)),
        ),
    )

    @pytest.mark.parametrize("create_on_push", [True, False])
    async def test_replication_creates_always_and_from_its_template(
        self, open_scene: OpenScene, create_on_push: bool
    ) -> None:
        scene = await open_scene(templates=self.TEMPLATES, create_on_push=create_on_push, sparse_images=True)
        for name, setting in ((REPOSITORY, TagMutability.IMMUTABLE), (RepositoryName("x"), TagMutability.MUTABLE)):
            await scene.deliver(replace(delivery_of(A, repository=name), expected_blobs=()))
            found = await scene.node.database.read(repositories.find(name))
            assert found is not None
            assert (found.created_by, found.mutability.setting) == ("replication", setting)

    @pytest.mark.parametrize(
        ("create_on_push", "name", "setting"),
        [
            (True, "pushed/app", TagMutability.IMMUTABLE_WITH_EXCLUSION),
            (True, "team/app", TagMutability.MUTABLE),
            (False, "pushed/app", TagMutability.IMMUTABLE_WITH_EXCLUSION),
            (False, "team/app", None),
        ],
    )
    async def test_a_push_creates_by_the_setting_or_from_its_template(
        self, open_scene: OpenScene, create_on_push: bool, name: str, setting: TagMutability | None
    ) -> None:
        scene = await open_scene(templates=self.TEMPLATES, create_on_push=create_on_push)
        repository = RepositoryName(name)
        if setting is None:
            with pytest.raises(RepositoryNotFound):
                await scene.upload(b"blob", repository)
            with pytest.raises(RepositoryNotFound):
                await Uploads(scene.node).start(UNRESTRICTED, repository)
        else:
            await scene.push(A, V1, repository)
        found = await scene.node.database.read(repositories.find(repository))
        assert (found.mutability.setting if found else None) == setting
        assert found is None or found.created_by == "push"


class TestChains:
    RULES = (
        ReplicationRule("chained", (SOURCE, THIRD), chain=True, delete_replication=True),
        ReplicationRule("one hop", (FOREIGN,)),
    )

    async def test_a_change_goes_on_but_not_back_and_a_repetition_does_not(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=self.RULES)
        await scene.receive(A, 1.0, pointing(A, 1.0))
        assert await scene.jobs() == [("replicate", f"{THIRD}|{REPOSITORY}:v1")]
        assert JobKind.REPLICATE in scene.announced
        await scene.node.database.write(Statement(jobs_table.delete()))
        await scene.deliver(delivery_of(A, 1.0, pointing(A, 1.0)))
        await scene.deliver(delivery_of(A, 2.0, pointing(A, 1.0)))
        assert await scene.jobs() == []

    async def test_an_image_whose_tag_is_kept_elsewhere_goes_on_without_it(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=self.RULES[:1], mutability=MutabilityRule(TagMutability.IMMUTABLE))
        await scene.push(A, V1)
        await scene.node.database.write(Statement(jobs_table.delete()))
        await scene.receive(B, 5.0, pointing(B, 5.0))
        assert await scene.jobs() == [("replicate", f"{THIRD}|{REPOSITORY}@{B.digest}")]

    async def test_deletions_go_on_by_a_chain_that_replicates_them(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=self.RULES)
        register = pointing(A, 1.0)
        await scene.receive(A, 1.0, register)
        await scene.receive(B, 1.0)
        await scene.node.database.write(Statement(jobs_table.delete()))
        scene.announced.clear()
        deleted = OfferedTag(V1, pointing(None, 5.0, register))
        for _ in range(2):
            await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, NEVER, deleted))
            await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, B.digest, revision(5.0)))
        assert await scene.jobs() == [
            ("delete-replica", f"{THIRD}|{REPOSITORY}:v1"),
            ("delete-replica", f"{THIRD}|{REPOSITORY}@{B.digest}"),
        ]
        assert scene.announced.count(JobKind.DELETE_REPLICA) == 2

    async def test_without_a_chain_nothing_goes_on(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=self.RULES[1:])
        await scene.receive(A, 1.0, pointing(A, 1.0))
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, revision(5.0)))
        assert await scene.jobs() == []
        assert scene.announced == []


async def test_a_caller_that_leaves_does_not_undo_a_delivery(scene: Scene) -> None:
    await scene.link(A)
    task = asyncio.ensure_future(scene.deliver(delivery_of(A, 1.0, pointing(A, 1.0))))  # noqa: TID251 - ended below
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await scene.push(build_image([b"next"]))  # the writer takes one after the other
    assert await scene.origin(A) in {None, Origin.REPLICA}
    assert (await scene.origin(A) is None) == (await scene.tag() is None)


class TestFinalOffer:
    async def test_takes_in_an_image_that_lacks_nothing(self, scene: Scene) -> None:
        await scene.receive(A)
        found = await scene.replicas.offer(SOURCE, tagged(A, is_final=True))
        assert found.receipt is not None
        assert (found.receipt.image, found.receipt.tag_outcome) == (ImageOutcome.PRESENT, MergeOutcome.SET)
        assert await scene.tag() == A.digest

    async def test_changes_nothing_where_something_is_lacking(self, scene: Scene) -> None:
        await scene.receive(A)
        found = await scene.replicas.offer(SOURCE, tagged(B, is_final=True))
        assert found.receipt is None
        assert await scene.tag() is None

    async def test_an_offer_that_is_not_final_only_asks(self, scene: Scene) -> None:
        await scene.receive(A)
        assert (await scene.replicas.offer(SOURCE, tagged(A))).receipt is None
        assert await scene.tag() is None
