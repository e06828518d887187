"""Images pushed to one node arrive at others: whole, once, and no further."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from replicator.core.delivery import ImageOutcome
from replicator.core.digest import digest_of
from replicator.core.jobs import JobKind
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.core.peer_messages import Delivery, SentManifest
from replicator.core.principal import UNRESTRICTED
from replicator.core.reference import as_tag
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.core.revisions import MergeOutcome
from replicator.registry.follow_ups import replicate_again
from replicator.replication.attempt import find_state
from replicator.replication.status import ReplicationStatusReader, summarise
from replicator.storage.metadata import jobs
from tests.support.images import Built, build_image, build_index
from tests.support.nodes import Node, NodePlan, cluster

if TYPE_CHECKING:
    from pathlib import Path

EU, US, AP = "eu-west-1", "us-east-1", "ap-south-1"
REPOSITORY = "team/app"

_IMAGES: dict[str, Built] = {
    "image": build_image([b"base layer" * 1000, b"second layer"]),
    "docker image": build_image([b"layer"], "docker"),
    "image without layers": build_image([]),
    "image of a large layer": build_image([bytes(range(256)) * 12_000]),
    "index": build_index([build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))]),
    "manifest list": build_index([build_image([b"a"], "docker"), build_image([b"b"], "docker")], "docker"),
    "index in an index": build_index([build_index([build_image([b"deep"])]), build_image([b"flat"])]),
    "empty index": build_index([]),
    "sha512 image": build_image([b"a long digest"], algorithm="sha512"),
    "artifact": build_image([b"sbom"], artifact_type="application/spdx+json"),
}


@pytest.mark.parametrize("kind", _IMAGES)
async def test_a_pushed_image_arrives_at_every_destination(tmp_path: Path, kind: str) -> None:
    built = _IMAGES[kind]
    async with cluster(tmp_path, US, EU, AP) as nodes:
        await nodes[US].push(built, REPOSITORY, "v1")
        await nodes.until_quiet()
        for region in (EU, AP):
            await nodes[region].check(built, REPOSITORY, "v1")
        statuses = await nodes[US].statuses(REPOSITORY, "v1")
        assert {one.destination: one.status for one in statuses} == {
            f"111111111111/{EU}": ReplicationState.COMPLETE,
            f"111111111111/{AP}": ReplicationState.COMPLETE,
        }
        blob_bytes = sum(map(len, built.blobs.values()))
        assert sum(one.sent for one in nodes[US].recorder.replications) == 2 * blob_bytes


async def test_an_image_without_a_tag_and_one_with_several_arrive_alike(tmp_path: Path) -> None:
    untagged, tagged = build_image([b"untagged"]), build_image([b"tagged"])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(untagged, REPOSITORY)
        await nodes[US].push(tagged, REPOSITORY, "v1", "v1.2", "latest")
        await nodes.until_quiet()
        await nodes[EU].check(untagged, REPOSITORY)
        await nodes[EU].check(tagged, REPOSITORY, "v1", "v1.2", "latest")


async def test_an_image_has_one_status_for_each_destination_whatever_its_tags(tmp_path: Path) -> None:
    image, newer = build_image([b"image"]), build_image([b"newer"])
    async with cluster(tmp_path, US, EU, AP) as nodes:
        await nodes.wire(US, AP).refuse()
        await nodes[US].push(image, REPOSITORY, "v1", "latest")
        await nodes.until_attempts(US, 2, "complete")
        await nodes[US].push(newer, REPOSITORY, "latest")
        status = ReplicationStatusReader(nodes[US].database, nodes.clock)
        for reference in (image.digest, Tag("v1")):
            found = summarise(await status.of_image(RepositoryName(REPOSITORY), reference), as_tag(reference))
            assert [(one.destination.partition("/")[2], one.status, one.failure_code) for one in found] == [
                (AP, ReplicationState.IN_PROGRESS, None),
                (EU, ReplicationState.COMPLETE, None),
            ]
        await nodes.wire(US, AP).heal()
        await nodes.heal_with_time()


async def test_a_restored_image_is_replicated_like_a_pushed_one(tmp_path: Path) -> None:
    image = build_image([b"image"])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1", "latest")
        await nodes.until_quiet()
        us, name = nodes[US].registry, RepositoryName(REPOSITORY)
        now = nodes.clock.now()
        assert await us.commit(name, lambda: replicate_again(us, name, image.digest, now))
        us.announce_jobs(JobKind.REPLICATE)
        await nodes.until_attempts(US, 4, "complete")
        assert not await us.commit(name, lambda: replicate_again(us, name, digest_of(b"never"), now))
        eu = nodes[EU].registry
        assert not await eu.commit(name, lambda: replicate_again(eu, name, image.digest, now)), "one hop"


async def test_a_referrer_is_listed_at_the_destination(tmp_path: Path) -> None:
    image = build_image([b"image"])
    signature = build_image([b"signature"], subject=image, artifact_type="application/vnd.example.signature")
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes[US].push(signature, REPOSITORY)
        await nodes.until_quiet()
        async with nodes[EU].client() as client:
            answer = await client.get(f"/v2/{REPOSITORY}/referrers/{image.digest}")
        assert [entry["digest"] for entry in answer.json()["manifests"]] == [signature.digest]


async def test_filters_choose_the_repositories(tmp_path: Path) -> None:
    image = build_image()
    async with cluster(tmp_path, NodePlan(US, filters=("team/", "base"))) as nodes:
        assert nodes[US].rules == ()
    async with cluster(tmp_path / "pair", NodePlan(US, filters=("team/", "base")), EU) as nodes:
        for repository in ("team/app", "baseline", "other/app"):
            await nodes[US].push(image, repository, "v1")
        await nodes.until_quiet()
        assert await nodes[EU].holds("team/app", image.digest)
        assert await nodes[EU].holds("baseline", image.digest)
        assert not await nodes[EU].holds("other/app", image.digest)


async def test_a_replica_goes_no_further_in_a_ring(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    ring = (NodePlan(US, destinations=[EU]), NodePlan(EU, destinations=[AP]), NodePlan(AP, destinations=[US]))
    async with cluster(tmp_path, *ring) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        pushed = len(nodes[US].recorder.requests)
        await nodes.until_quiet()
        await nodes[EU].check(image, REPOSITORY, "v1")
        assert nodes[AP].recorder.requests == []
        assert len(nodes[US].recorder.requests) == pushed
        assert nodes[EU].recorder.attempts == []


async def test_pushing_the_same_again_sends_no_blob(tmp_path: Path) -> None:
    image = build_image([b"a" * 10_000, b"b" * 10_000])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        forwarded = nodes.wire(US, EU).forwarded
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes[US].push(image, REPOSITORY, "v2")
        await nodes.until_quiet()
        await nodes[EU].check(image, REPOSITORY, "v1", "v2")
        assert [one.sent for one in nodes[US].recorder.replications[1:]] == [0, 0]
        assert nodes.wire(US, EU).forwarded - forwarded < 10_000


async def test_a_blob_that_images_of_several_repositories_share_is_sent_once(tmp_path: Path) -> None:
    base = b"base layer" * 5000
    images = {f"team/app-{number}": build_image([base, b"%d" % number]) for number in range(6)}
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes.wire(US, EU).refuse()
        for repository, image in images.items():
            await nodes[US].push(image, repository, "v1")
        await nodes.until_attempts(US, 1)
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        for repository, image in images.items():
            await nodes[EU].check(image, repository, "v1")
        distinct = {digest: content for image in images.values() for digest, content in image.blobs.items()}
        assert sum(one.sent for one in nodes[US].recorder.replications) == sum(map(len, distinct.values()))


async def test_the_lag_runs_from_the_push_until_the_image_can_be_pulled(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(0)
        await nodes[US].push(build_image([b"layer"]), REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        nodes.clock.advance(7)
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()
        (replicated,) = nodes[US].recorder.replications
        assert (replicated.rule, replicated.destination) == (f"from-{US}", f"111111111111/{EU}")
        assert replicated.lag_seconds == pytest.approx(7)


@pytest.mark.parametrize("count", [0, 700, 5_000, 90_000, 160_000])
async def test_nothing_is_visible_at_the_destination_before_its_content(tmp_path: Path, count: int) -> None:
    index = build_index([build_image([b"x" * 80_000]), build_image([b"y" * 80_000], platform=("linux", "arm64"))])
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(count)
        await nodes[US].push(index, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        assert await nodes[EU].tag(REPOSITORY, "v1") is None
        assert not await nodes[EU].holds(REPOSITORY, index.digest)
        assert nodes[EU].dangling() == []
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()
        await nodes[EU].check(index, REPOSITORY, "v1")


# Tags


async def test_a_tag_that_moves_quickly_ends_at_the_last_image(tmp_path: Path) -> None:
    versions = [build_image([b"version %d" % number]) for number in range(6)]
    async with cluster(tmp_path, US, EU, AP) as nodes:
        for version in versions:
            await nodes[US].push(version, REPOSITORY, "latest")
        await nodes.until_quiet()
        for region in (EU, AP):
            await nodes[region].check(versions[-1], REPOSITORY, "latest")
        for version in versions[:-1]:
            for status in await nodes[US].statuses(REPOSITORY, version.digest):
                arrived = await nodes[status.destination.partition("/")[2]].holds(REPOSITORY, version.digest)
                said = (status.status, status.failure_code)
                superseded = (ReplicationState.FAILED, "Superseded")
                assert said == ((ReplicationState.COMPLETE, None) if arrived else superseded)


async def test_a_thousand_pushes_of_a_tag_while_the_destination_is_down_are_one_copy(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await nodes.wire(US, EU).refuse()
        first, last = build_image([b"first"]), build_image([b"last"])
        await us.push(first, REPOSITORY, "latest")
        await nodes.until_attempts(US, 1)
        for number in range(1000):
            await _push_again(us, first, number)
        await us.push(last, REPOSITORY, "latest")
        assert await us.pending() == 1
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        await eu.check(last, REPOSITORY, "latest")
        assert not await eu.holds(REPOSITORY, first.digest)
        (status,) = await us.statuses(REPOSITORY, first.digest)
        assert (status.status, status.failure_code) == (ReplicationState.FAILED, "Superseded")


async def test_an_image_that_was_superseded_under_way_never_gets_the_tag(tmp_path: Path) -> None:
    first, second = build_image([b"first"]), build_image([b"second"])
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(0)
        await nodes[US].push(first, REPOSITORY, "latest")
        await nodes.wire(US, EU).struck()
        await nodes[US].push(second, REPOSITORY, "latest")
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()
        await nodes[EU].check(first, REPOSITORY)
        await nodes[EU].check(second, REPOSITORY, "latest")
        tagged = [one.path for one in nodes[EU].recorder.written() if "latest" in one.path]
        assert [path for path in tagged if first.digest in path] == []


async def test_a_late_or_repeated_delivery_does_not_move_a_tag_back(tmp_path: Path) -> None:
    first, second = build_image([b"first"]), build_image([b"second"])
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.push(first, REPOSITORY, "latest")
        await nodes.until_quiet()
        late = await _delivery_of(us, first, "latest")
        await us.push(second, REPOSITORY, "latest")
        await nodes.until_quiet()
        for _ in range(2):
            receipt = await eu.replicas.deliver(us.plan.id, late)
            assert (receipt.image, receipt.tag_outcome) == (ImageOutcome.PRESENT, MergeOutcome.KEPT_NEWER)
            assert await eu.tag(REPOSITORY, "latest") == second.digest


async def test_jobs_delivered_again_in_any_order_change_nothing(tmp_path: Path) -> None:
    versions = [build_image([b"version %d" % number]) for number in range(3)]
    async with cluster(tmp_path, US, EU) as nodes:
        for version in versions:
            await nodes[US].push(version, REPOSITORY, "latest")
            await nodes.until_quiet()
        sent = sum(one.sent for one in nodes[US].recorder.replications)
        for version in (*versions, *reversed(versions)):
            await _deliver_again(nodes[US], version, "latest", nodes[EU])
            await nodes.until_quiet()
        assert await nodes[EU].tag(REPOSITORY, "latest") == versions[-1].digest
        assert sum(one.sent for one in nodes[US].recorder.replications) == sent


async def test_a_tag_deleted_before_its_image_was_sent_does_not_arrive(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(0)
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes[US].delete(REPOSITORY, "v1")
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()
        await nodes[EU].check(image, REPOSITORY)
        assert await nodes[EU].tag(REPOSITORY, "v1") is None


async def test_an_image_deleted_before_it_was_sent_is_not_missed(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes.wire(US, EU).refuse()
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.pass_time(60)
        await nodes.until_quiet()
        assert nodes[US].recorder.outcomes()[-1] == "dropped"
        assert not await nodes[EU].holds(REPOSITORY, image.digest)


async def test_an_immutable_tag_stays_with_its_owner_and_the_image_is_complete(tmp_path: Path) -> None:
    theirs, ours = build_image([b"theirs"]), build_image([b"ours"])
    immutable = MutabilityRule(TagMutability.IMMUTABLE)
    async with cluster(tmp_path, US, NodePlan(EU, mutability=immutable)) as nodes:
        await nodes[EU].push(theirs, REPOSITORY, "v1")
        await nodes[US].push(ours, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].check(theirs, REPOSITORY, "v1")
        await nodes[EU].check(ours, REPOSITORY)
        (status,) = await nodes[US].statuses(REPOSITORY, "v1")
        assert (status.status, status.failure_code) == (ReplicationState.COMPLETE, None)


async def _deliver_again(source: Node, image: Built, tag: str, destination: Node) -> None:
    """Queue a job that was done long ago, as a replayed log would."""
    (status,) = [one for one in await source.statuses(REPOSITORY, image.digest) if one.tag == tag]
    job = ReplicateImage(status.repository, image.digest, status.tag, destination.plan.id, status.rule).to_job()
    await source.database.write(lambda: jobs.enqueue(job, source.registry.clock.now()))
    source.registry.announce_jobs(job.kind)


async def _push_again(node: Node, image: Built, number: int) -> None:
    """Push an image that differs from another one by an annotation, under the same tag."""
    changed = json.loads(image.manifest) | {"annotations": {"number": str(number)}}
    await node.pushes.put_manifest(
        UNRESTRICTED, RepositoryName(REPOSITORY), Tag("latest"), json.dumps(changed).encode(), image.media_type
    )


async def _delivery_of(source: Node, image: Built, tag: str) -> Delivery:
    """Return what the source would send now."""
    repository, name = RepositoryName(REPOSITORY), Tag(tag)
    state = await source.database.read(find_state(repository, image.digest, name))
    sent = SentManifest(image.digest, image.media_type, image.manifest)
    return Delivery(repository, (sent,), state.revision, image.digest, state.tag)
