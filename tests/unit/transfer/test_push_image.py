"""Copying one image into another registry: everything first, the image last, nothing twice."""

from __future__ import annotations

import asyncio
import json

import pytest

from replicator.core.digest import Digest, digest_of
from replicator.core.errors import (
    BlobNotFound,
    CorruptBlob,
    ManifestNotFound,
    StorageUnavailable,
    UpstreamContent,
    UpstreamDenied,
    UpstreamRefused,
    UpstreamUnavailable,
)
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from replicator.storage.metadata.images import StoredManifest
from replicator.transfer.push_image import BlobTurns, CopyOptions, ImagePush, IncompleteIndexRefused
from tests.support.images import Built, build_image, build_index
from tests.support.push_destination import MemoryDestination, MemorySource

REPOSITORY, TAG = RepositoryName("team/app"), Tag("v1")
IMAGE = build_image([b"first layer", b"second layer"])
INDEX = build_index([build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))])


async def push(
    source: MemorySource,
    destination: MemoryDestination,
    image: Built | Digest,
    tag: Tag | None = TAG,
    repository: RepositoryName = REPOSITORY,
) -> ImagePush:
    one = ImagePush(source, destination)
    digest = image if isinstance(image, str) else image.digest
    copied = await one.copy(repository, digest)
    await one.publish(copied)
    if tag is not None:
        await one.set_tag(copied, tag)
    return one


@pytest.mark.parametrize("image", [IMAGE, INDEX, build_index([INDEX, IMAGE]), build_image([])])
async def test_everything_arrives_and_the_image_comes_last(image: Built) -> None:
    destination = MemoryDestination()
    one = await push(MemorySource(image), destination, image)
    held = destination.repository(REPOSITORY)
    assert held.tags == {TAG: image.digest}
    assert held.blobs == dict(image.blobs)
    assert list(held.manifests)[-1] == image.digest
    assert one.sent == sum(map(len, image.blobs.values()))


async def test_an_image_is_not_published_by_copying_it() -> None:
    destination = MemoryDestination()
    await ImagePush(MemorySource(INDEX), destination).copy(REPOSITORY, INDEX.digest)
    assert INDEX.digest not in destination.repository(REPOSITORY).manifests


async def test_what_is_there_is_not_sent_again() -> None:
    source, destination = MemorySource(INDEX), MemoryDestination()
    await push(source, destination, INDEX)
    destination.calls.clear()
    one = await push(source, destination, INDEX)
    assert one.sent == 0
    assert destination.count("PUT blob") == 0
    assert destination.count("PUT manifest") == 0


async def test_a_layer_that_images_of_an_index_share_is_asked_for_once() -> None:
    index = build_index([build_image([b"base", b"a"]), build_image([b"base", b"b"])])
    destination = MemoryDestination()
    await push(MemorySource(index), destination, index)
    assert destination.count(f"GET blob {digest_of(b'base')}") == 2  # before, and after


async def test_a_manifest_that_two_indexes_list_is_copied_once() -> None:
    index = build_index([build_index([IMAGE]), build_index([IMAGE], annotations={"other": "index"}), IMAGE])
    destination = MemoryDestination()
    await push(MemorySource(index), destination, index)
    assert destination.count(f"PUT manifest {IMAGE.digest}") == 1


async def test_deep_indexes_need_no_deep_stack() -> None:
    source, destination, image = MemorySource(IMAGE), MemoryDestination(), build_index([IMAGE])
    for _ in range(1500):
        source.add(image)
        image = build_index([image])
    source.add(image)
    await push(source, destination, image)
    assert len(destination.repository(REPOSITORY).manifests) == 1502


async def test_a_blob_of_another_repository_is_mounted() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    await push(source, destination, IMAGE)
    one = await push(source, destination, IMAGE, repository=RepositoryName("other/app"))
    assert one.sent == 0
    assert destination.repository(RepositoryName("other/app")).blobs == dict(IMAGE.blobs)


async def test_copies_at_the_same_time_send_a_shared_blob_once() -> None:
    images = [build_image([b"base" * 1000, b"%d" % number]) for number in range(5)]
    source, destination, turns = MemorySource(*images), MemoryDestination(), BlobTurns()
    pushes = [ImagePush(source, destination, turns) for _ in images]
    async with asyncio.TaskGroup() as group:
        for number, (one, image) in enumerate(zip(pushes, images, strict=True)):
            group.create_task(one.copy(RepositoryName(f"team/app-{number}"), image.digest))
    distinct = {digest: blob for image in images for digest, blob in image.blobs.items()}
    assert sum(one.sent for one in pushes) == sum(map(len, distinct.values()))


async def test_blobs_are_copied_in_parallel_but_not_all_at_once() -> None:
    image = build_image([b"%d" % number for number in range(30)])
    destination = MemoryDestination()
    await ImagePush(MemorySource(image), destination, options=CopyOptions(parallel=3)).copy(REPOSITORY, image.digest)
    assert destination.most_at_once == 3


# What the source does not have


async def test_an_image_that_is_not_there_is_not_found() -> None:
    with pytest.raises(ManifestNotFound):
        await push(MemorySource(), MemoryDestination(), IMAGE)


async def test_a_sparse_index_goes_where_it_is_accepted() -> None:
    source, destination = MemorySource(INDEX), MemoryDestination(accepts_sparse=True)
    present, absent = INDEX.children
    del source.manifests[absent.digest]
    await push(source, destination, INDEX)
    assert list(destination.repository(REPOSITORY).manifests) == [present.digest, INDEX.digest]


@pytest.mark.parametrize("nested", [False, True])
async def test_a_sparse_index_is_refused_elsewhere_and_the_reason_is_told(nested: bool) -> None:
    image = build_index([INDEX]) if nested else INDEX
    source, destination = MemorySource(image), MemoryDestination()
    del source.manifests[INDEX.children[0].digest]
    with pytest.raises(IncompleteIndexRefused, match="without all of its manifests"):
        await push(source, destination, image)
    assert destination.repository(REPOSITORY).tags == {}


async def test_a_missing_blob_is_told_and_nothing_is_published() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    del source.blobs[IMAGE.layers[1]]
    with pytest.raises(BlobNotFound):
        await push(source, destination, IMAGE)
    assert destination.repository(REPOSITORY).manifests == {}


@pytest.mark.parametrize("is_here", [True, False])
async def test_a_nondistributable_layer_is_copied_only_where_it_is(is_here: bool) -> None:
    foreign = b"a windows base layer"
    document = json.loads(IMAGE.manifest)
    document["layers"].append(
        {
            "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "digest": digest_of(foreign),
            "size": len(foreign),
        }
    )
    content = json.dumps(document).encode()
    source, destination = MemorySource(IMAGE), MemoryDestination()
    source.manifests[digest_of(content)] = StoredManifest(digest_of(content), OCI_MANIFEST, content)
    if is_here:
        source.blobs[digest_of(foreign)] = foreign
    await push(source, destination, digest_of(content))
    assert (digest_of(foreign) in destination.repository(REPOSITORY).blobs) == is_here


@pytest.mark.parametrize("failure", [UpstreamDenied("the hub said no"), UpstreamUnavailable("the hub is down")])
async def test_an_upstream_that_the_source_reads_through_is_not_taken_for_the_destination(failure: Exception) -> None:
    source = MemorySource(IMAGE)
    source.failure = failure
    with pytest.raises(StorageUnavailable, match="the hub"):
        await push(source, MemoryDestination(), IMAGE)


async def test_damage_at_the_source_is_told_as_it_is() -> None:
    source = MemorySource(IMAGE)
    source.failure = CorruptBlob("a hole in the disk")
    with pytest.raises(CorruptBlob):
        await push(source, MemoryDestination(), IMAGE)


# What the destination does


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_digests_of_every_algorithm_are_copied(algorithm: str) -> None:
    image, destination = build_image([b"layer"], algorithm=algorithm), MemoryDestination()
    await push(MemorySource(image), destination, image)
    assert destination.repository(REPOSITORY).tags == {TAG: image.digest}


async def test_a_tag_that_may_not_move_is_refused_and_the_image_is_there() -> None:
    source, destination = MemorySource(IMAGE, INDEX), MemoryDestination()
    await push(source, destination, INDEX)
    destination.immutable_tags.add(TAG)
    with pytest.raises(UpstreamRefused):
        await push(source, destination, IMAGE)
    assert destination.repository(REPOSITORY).tags == {TAG: INDEX.digest}
    assert IMAGE.digest in destination.repository(REPOSITORY).manifests


async def test_an_immutable_tag_that_points_to_the_image_already_is_left_alone() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    await push(source, destination, IMAGE)
    destination.immutable_tags.add(TAG)
    await push(source, destination, IMAGE)


async def test_a_tag_that_does_not_move_though_the_destination_says_so_is_found_out() -> None:
    source, destination = MemorySource(IMAGE, INDEX), MemoryDestination()
    await push(source, destination, INDEX)
    destination.stuck_tags.add(TAG)
    with pytest.raises(UpstreamContent, match="accepted tag v1"):
        await push(source, destination, IMAGE)


async def test_a_blob_that_the_destination_throws_away_is_found_out_before_a_manifest_names_it() -> None:
    destination = MemoryDestination()
    destination.forgets_blobs = True
    with pytest.raises(UpstreamContent, match="accepted blob"):
        await push(MemorySource(IMAGE), destination, IMAGE)
    assert destination.count("PUT manifest") == 0


async def test_a_blob_that_is_damaged_at_the_destination_is_sent_again() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    destination.repository(REPOSITORY).blobs[IMAGE.layers[0]] = b"short"
    await push(source, destination, IMAGE)
    assert destination.repository(REPOSITORY).blobs == dict(IMAGE.blobs)


async def test_a_repository_has_another_name_at_the_destination() -> None:
    destination, target = MemoryDestination(), RepositoryName("mirror/app")
    one = ImagePush(MemorySource(INDEX), destination, options=CopyOptions(target=target))
    copied = await one.copy(REPOSITORY, INDEX.digest)
    await one.publish(copied)
    await one.set_tag(copied, TAG)
    assert list(destination.repositories) == [target]
    assert destination.repository(target).tags == {TAG: INDEX.digest}


@pytest.mark.parametrize("accepts_sparse", [True, False])
async def test_manifests_that_are_not_wanted_are_left_out_where_that_is_accepted(accepts_sparse: bool) -> None:
    destination = MemoryDestination(accepts_sparse=accepts_sparse)
    options = CopyOptions(wants=lambda child: (child.platform or {}).get("architecture") == "arm64")
    one = ImagePush(MemorySource(INDEX), destination, options=options)
    copied = await one.copy(REPOSITORY, INDEX.digest)
    if accepts_sparse:
        await one.publish(copied)
        held = destination.repository(REPOSITORY).manifests
        assert held == {INDEX.digest: INDEX.manifest, INDEX.children[1].digest: INDEX.children[1].manifest}
    else:
        with pytest.raises(IncompleteIndexRefused):
            await one.publish(copied)
    assert INDEX.children[0].images[0].layers[0] not in destination.repository(REPOSITORY).blobs


async def test_a_blob_is_mounted_from_where_it_may_be() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    other = RepositoryName("other/app")
    await push(source, destination, IMAGE, repository=other)

    async def find_mount(_: Digest) -> RepositoryName:
        return other

    one = ImagePush(source, destination, options=CopyOptions(find_mount=find_mount))
    await one.copy(REPOSITORY, IMAGE.digest)
    assert one.sent == 0
    assert destination.repository(REPOSITORY).blobs == dict(IMAGE.blobs)


@pytest.mark.parametrize("tag", [None, TAG])
async def test_a_destination_that_does_not_have_what_it_accepted_is_found_out(tag: Tag | None) -> None:
    destination = MemoryDestination()
    destination.forgets_manifests = True
    with pytest.raises(UpstreamContent, match="but does not have it"):
        await push(MemorySource(IMAGE), destination, IMAGE, tag)


async def test_a_blob_that_the_destination_loses_during_the_copy_is_worth_another_try() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    one = ImagePush(source, destination)
    copied = await one.copy(REPOSITORY, IMAGE.digest)
    del destination.repository(REPOSITORY).blobs[IMAGE.layers[0]]
    with pytest.raises(UpstreamContent, match="lost content"):
        await one.publish(copied)


async def test_after_a_failure_no_other_blob_is_begun_and_those_under_way_end() -> None:
    image = build_image([b"%d" % number * 100 for number in range(20)])
    destination = MemoryDestination()

    def fail_first(call: str) -> None:
        if call == f"PUT blob {image.config}":
            raise UpstreamUnavailable("cut")

    destination.before_call = fail_first
    one = ImagePush(MemorySource(image), destination, options=CopyOptions(parallel=3))
    with pytest.raises(UpstreamUnavailable, match="cut"):
        await one.copy(REPOSITORY, image.digest)
    kept = destination.repository(REPOSITORY).blobs
    assert 1 <= len(kept) <= 4
    assert one.sent == sum(map(len, kept.values()))


async def test_a_copy_that_failed_is_begun_anew_and_sends_only_what_lacks() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()

    def fail_manifest(call: str) -> None:
        if call.startswith("PUT manifest"):
            raise UpstreamUnavailable("cut")

    destination.before_call = fail_manifest
    with pytest.raises(UpstreamUnavailable):
        await push(source, destination, IMAGE)
    destination.before_call = lambda _: None
    one = await push(source, destination, IMAGE)
    assert one.sent == 0
    assert destination.repository(REPOSITORY).tags == {TAG: IMAGE.digest}


async def test_a_cancelled_copy_leaves_no_task_and_publishes_nothing() -> None:
    source, destination = MemorySource(IMAGE), MemoryDestination()
    one = ImagePush(source, destination)
    copying = asyncio.create_task(one.copy(REPOSITORY, IMAGE.digest))  # noqa: TID251 - cancelled below

    def cancel(_: str) -> None:
        copying.cancel()

    destination.before_call = cancel
    await asyncio.wait([copying])
    assert copying.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert destination.repository(REPOSITORY).manifests == {}
