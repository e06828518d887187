"""What a node shows its peers: hashes and listings of what it holds, and images that a rule sends them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.delivery import ImageOutcome
from replicator.core.digest import digest_of
from replicator.core.drift import fingerprint
from replicator.core.errors import (
    InvalidInput,
)
from replicator.core.names import NodeId, RepositoryName, Tag
from replicator.core.peer_messages import (
    Deletion,
    HeldImage,
    OfferedTag,
)
from replicator.core.principal import UNRESTRICTED
from replicator.core.replication import Rename, ReplicationRule
from replicator.core.revisions import NEVER
from replicator.registry import replicas as replicas_module
from replicator.registry.peer_reads import PeerReads
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import images, tags
from tests.support.images import build_image, build_index
from tests.support.replica_scene import (
    FOREIGN,
    OTHER,
    REPOSITORY,
    SOURCE,
    THIRD,
    V1,
    A,
    B,
    OpenScene,
    Scene,
    delivery_of,
    lacked,
    pointing,
    revision,
    scene_of,
    sent,
)
from tests.support.single_node import NODE

if TYPE_CHECKING:
    from pathlib import Path


class TestListings:
    async def test_hashes_are_those_of_what_the_source_sent(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replicas_module, "_LINES", 1)
        await scene.receive(A, 1.0, pointing(A, 1.0))
        await scene.receive(B, 1.0)
        await scene.push(build_image([b"own"]), Tag("own"))
        await scene.link(A, OTHER)
        await scene.deliver(delivery_of(A, repository=OTHER))
        lines = [
            HeldImage(B.digest, NEVER),
            HeldImage(A.digest, NEVER),
            HeldImage(A.digest, NEVER, V1),
            HeldImage(None, NEVER, Tag("gone"), is_present=False),
        ]
        found = await scene.replicas.hashes(SOURCE, "", 10)
        assert [(each.repository, each.fingerprint) for each in found] == [
            (REPOSITORY, fingerprint(lines)),
            (OTHER, fingerprint(lines[1:2])),
        ]
        assert await scene.replicas.hashes(SOURCE, "", 1) == found[:1]
        assert await scene.replicas.hashes(SOURCE, REPOSITORY, 10) == found[1:]
        assert await scene.replicas.hashes(THIRD, "", 10) == []

    async def test_a_tag_or_image_more_or_less_changes_the_hash(self, scene: Scene) -> None:
        seen = []

        async def look() -> None:
            (only,) = await scene.replicas.hashes(SOURCE, "", 10)
            seen.append(only.fingerprint)

        register = pointing(A, 1.0)
        await scene.receive(A, 1.0)
        await look()
        await scene.receive(A, 1.0, register)
        await look()
        await scene.receive(B, 2.0, pointing(B, 2.0, register))
        await look()
        assert len(set(seen)) == 3
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, B.digest, revision(5.0)))
        await look()
        assert seen[3] == seen[0]

    @pytest.mark.parametrize("limit", [1, 2, 3, 100])
    @pytest.mark.parametrize("step", [1, 2, 1000])
    async def test_a_listing_in_pages_is_the_listing(
        self, scene: Scene, limit: int, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replicas_module, "_LINES", step)
        own, gone = build_image([b"own"]), build_image([b"gone"])
        register = pointing(A, 1.0)
        await scene.receive(A, 1.0, register)
        await scene.receive(B, 2.0)
        await scene.push(own, Tag("own"))
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, gone.digest, revision(3.0)))
        lost = OfferedTag(Tag("lost"), pointing(None, 4.0))
        await scene.replicas.delete(SOURCE, Deletion(REPOSITORY, A.digest, NEVER, lost))
        mine = await scene.node.database.read(tags.find(REPOSITORY, Tag("own")))
        pushed = await scene.node.database.read(images.find_register(REPOSITORY, own.digest))
        assert mine is not None
        assert pushed is not None
        by_digest = [
            HeldImage(A.digest, revision(1.0), None, True, True),
            HeldImage(B.digest, revision(2.0), None, True, True),
            HeldImage(own.digest, pushed.revision, None, True, False),
            HeldImage(gone.digest, revision(3.0), None, False, False),
        ]
        expected = [
            *sorted(by_digest, key=lambda line: line.digest or ""),
            HeldImage(None, lost.register.revision, Tag("lost"), False, False),
            HeldImage(own.digest, mine.revision, Tag("own"), True, False),
            HeldImage(A.digest, register.revision, V1, True, True),
        ]
        found: list[HeldImage] = []
        after = ""
        while True:
            page = await scene.replicas.listing(SOURCE, REPOSITORY, after, limit)
            found += page
            if len(page) < limit:
                break
            after = page[-1].cursor
        assert found == expected

    async def test_of_a_repository_that_is_not_there_nothing_is_listed(self, scene: Scene) -> None:
        assert await scene.replicas.listing(SOURCE, REPOSITORY, "", 10) == []
        with pytest.raises(InvalidInput, match="cursor"):
            await scene.replicas.listing(SOURCE, REPOSITORY, "latest", 10)


class TestFindImage:
    async def test_what_a_rule_sends_is_found_by_tag_and_digest(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=(ReplicationRule("all", (SOURCE,), ("team/",)),))
        index = build_index([A, B])
        await scene.push(index, V1)
        found = await scene.replicas.find_image(SOURCE, REPOSITORY, V1)
        assert found is not None
        register = await scene.node.database.read(tags.find(REPOSITORY, V1))
        assert register is not None
        assert [each.digest for each in found.manifests] == [A.digest, B.digest, index.digest]
        assert found.manifests[-1] == sent(index)
        assert (found.digest, found.tag) == (index.digest, OfferedTag(V1, register))
        assert found.expected_manifests == (A.digest, B.digest, index.digest)
        assert set(found.expected_blobs) == lacked(A, B)
        by_digest = await scene.replicas.find_image(SOURCE, REPOSITORY, index.digest)
        assert by_digest == replace(found, tag=None)
        known = await scene.node.database.read(images.find_register(REPOSITORY, index.digest))
        assert known is not None
        assert found.revision == known.revision

    async def test_a_destination_can_deliver_to_itself_what_it_found(
        self, open_scene: OpenScene, tmp_path: Path
    ) -> None:
        source = await open_scene(replication_rules=(ReplicationRule("all", (THIRD,)),))
        await source.push(A, V1)
        found = await source.replicas.find_image(THIRD, REPOSITORY, V1)
        assert found is not None
        async with scene_of(tmp_path / "there", RegistrySettings(THIRD)) as there:
            await there.link(A)
            assert (await there.deliver(found, NODE)).image is ImageOutcome.STORED
            assert await there.tag() == A.digest

    @pytest.mark.parametrize(
        ("rule", "peer", "repository", "by_tag", "by_digest"),
        [
            (ReplicationRule("all", (SOURCE,)), SOURCE, REPOSITORY, True, True),
            (ReplicationRule("all", (SOURCE,)), THIRD, REPOSITORY, False, False),
            (ReplicationRule("other", (SOURCE,), ("prod",)), SOURCE, REPOSITORY, False, False),
            (ReplicationRule("tags", (SOURCE,), tags=("v*",)), SOURCE, REPOSITORY, True, True),
            (ReplicationRule("tags", (SOURCE,), tags=("x*",)), SOURCE, REPOSITORY, False, False),
            (ReplicationRule("tags", (SOURCE,), excluded_tags=("v*",)), SOURCE, REPOSITORY, False, False),
            (
                ReplicationRule("named", (SOURCE,), rename=(Rename("team/", "eu/"),)),
                SOURCE,
                RepositoryName("eu/app"),
                True,
                True,
            ),
            (
                ReplicationRule("named", (SOURCE,), rename=(Rename("team/", "eu/"),)),
                SOURCE,
                REPOSITORY,
                False,
                False,
            ),
        ],
    )
    async def test_only_a_rule_authorises(
        self,
        open_scene: OpenScene,
        rule: ReplicationRule,
        peer: NodeId,
        repository: RepositoryName,
        by_tag: bool,
        by_digest: bool,
    ) -> None:
        scene = await open_scene(replication_rules=(rule,))
        await scene.push(A, V1)
        found = await scene.replicas.find_image(peer, repository, V1)
        assert (found is not None) is by_tag
        assert found is None or found.repository == REPOSITORY, "its name here, where the blobs are"
        assert (await scene.replicas.find_image(peer, repository, A.digest) is not None) is by_digest

    async def test_a_child_goes_where_an_index_that_lists_it_goes(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=(ReplicationRule("tags", (SOURCE,), tags=("v*",)),))
        await scene.push(build_index([build_index([A])]), V1)
        await scene.push(B)
        assert await scene.replicas.find_image(SOURCE, REPOSITORY, A.digest) is not None
        assert await scene.replicas.find_image(SOURCE, REPOSITORY, B.digest) is None

    async def test_an_image_that_was_sent_without_a_tag_is_shown_whatever_tag_it_got_since(
        self, open_scene: OpenScene
    ) -> None:
        scene = await open_scene(replication_rules=(ReplicationRule("tags", (SOURCE,), excluded_tags=("v*",)),))
        await scene.push(A)
        await scene.push(A, V1)
        assert await scene.replicas.find_image(SOURCE, REPOSITORY, A.digest) is not None
        assert await scene.replicas.find_image(SOURCE, REPOSITORY, V1) is None

    async def test_a_blob_goes_where_any_of_many_images_that_share_it_goes(
        self, open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("replicator.registry.peer_reads._PAGE", 2)
        scene = await open_scene(replication_rules=(ReplicationRule("tags", (SOURCE,), tags=("v*",)),))
        reads = PeerReads(scene.node)
        shared = digest_of(b"shared")
        for number in range(7):
            built = build_image([b"shared"], annotations={"n": str(number)})
            await scene.push(built, Tag(f"dev-{number}"))
            assert not await reads.may_read_blob(SOURCE, REPOSITORY, shared)
        await scene.push(build_index([build_image([b"shared"], annotations={"n": "0"})]), V1)
        assert await reads.may_read_blob(SOURCE, REPOSITORY, shared)
        assert not await reads.may_read_blob(THIRD, REPOSITORY, shared)
        assert not await reads.may_read_blob(SOURCE, OTHER, shared)

    async def test_an_image_that_lost_a_tag_which_is_left_out_is_not_shown(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=(ReplicationRule("tags", (SOURCE,), excluded_tags=("v*",)),))
        await scene.push(A, V1)
        await scene.push(B, V1)
        assert await scene.replicas.find_image(SOURCE, REPOSITORY, A.digest) is None

    async def test_a_replica_is_shown_only_where_a_chain_sends_it(self, open_scene: OpenScene) -> None:
        rules = (ReplicationRule("hop", (FOREIGN,)), ReplicationRule("chain", (SOURCE, THIRD), chain=True))
        scene = await open_scene(replication_rules=rules)
        await scene.receive(A, 1.0, pointing(A, 1.0))
        shown = {peer: await scene.replicas.find_image(peer, REPOSITORY, V1) for peer in (FOREIGN, SOURCE, THIRD)}
        assert {peer: found is not None for peer, found in shown.items()} == {
            FOREIGN: False,
            SOURCE: False,
            THIRD: True,
        }

    async def test_what_is_gone_or_never_was_is_not_found(self, open_scene: OpenScene) -> None:
        scene = await open_scene(replication_rules=(ReplicationRule("all", (SOURCE,)),))
        await scene.push(A, V1)
        await Pushes(scene.node).delete_manifest(UNRESTRICTED, REPOSITORY, V1)
        for reference in (V1, Tag("never"), B.digest):
            assert await scene.replicas.find_image(SOURCE, REPOSITORY, reference) is None
        assert await scene.replicas.find_image(SOURCE, OTHER, A.digest) is None

    async def test_a_very_large_graph_comes_one_manifest_at_a_time(
        self, open_scene: OpenScene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("replicator.registry.peer_reads.MAX_SENT_BYTES", 10)
        scene = await open_scene(replication_rules=(ReplicationRule("all", (SOURCE,)),))
        index = build_index([A, B])
        await scene.push(index, V1)
        found = await scene.replicas.find_image(SOURCE, REPOSITORY, V1)
        assert found is not None
        assert found.manifests == (sent(index),)
        assert found.expected_manifests == (A.digest, B.digest, index.digest)
