"""Cold blobs: fetched once, followed by everybody, complete only when verified, shown only where they may be."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.cache_rules import CacheRule
from replicator.core.cache_status import CacheResult, PullTrace
from replicator.core.digest import Digest, digest_of
from replicator.core.errors import (
    BlobNotFound,
    ManifestNotFound,
    ShuttingDown,
    StorageFull,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from replicator.core.principal import UNRESTRICTED, node_principal
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from tests.support.blob_stores import ScriptedFiles, open_files_below
from tests.support.clock import FakeClock
from tests.support.distant_database import DistantDatabase
from tests.support.images import build_image
from tests.support.pull_through_node import ALPINE, HUB, LATEST, caching_node, chunks_of, outcome, read_all
from tests.support.single_node import NODE, OTHER_NODE
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.images import BuiltImage
    from tests.support.pull_through_node import CachingNode

BLOBS = "GET /v2/library/alpine/blobs/*"
LAYER = bytes(range(251)) * 4000
DIGEST = digest_of(LAYER)
BUSYBOX = RepositoryName("docker-hub/library/busybox")
PRIVATE = RepositoryName("team/secret")


@pytest.fixture
async def node(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachingNode]:
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        yield node
        await node.cache.idle()
        assert set(node.ingests) == node.cache.fills.kept_ingests()
    assert open_files_below(tmp_path) == []


@pytest.fixture
async def image(node: CachingNode, upstream: FakeRegistry) -> BuiltImage:
    """An image whose manifest is cached, while its blobs are not."""
    image = upstream.add_image("library/alpine", "latest", [LAYER])
    await node.manifest()
    upstream.requests.clear()
    return image


# One download for everybody


async def test_fifty_concurrent_cold_clients_cost_one_upstream_get_and_get_every_byte(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=100_000))
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(node.blob(image.layers[0])) for _ in range(50)]
        await hold.reached()
        pulls += [group.create_task(node.blob(image.layers[0])) for _ in range(10)]
        hold.release()
    assert {pull.result() == LAYER for pull in pulls} == {True}
    assert upstream.count(BLOBS) == 1
    assert node.observer.bytes["fake"] == len(image.manifest) + len(LAYER)
    assert await node.blob(image.layers[0]) == LAYER
    assert upstream.count(BLOBS) == 1


async def test_first_bytes_reach_the_client_while_the_upstream_still_sends(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=1000))
    async with await node.open(image.layers[0]) as content:
        assert content.size == len(LAYER)
        pieces = content.read(0, len(LAYER))
        first = bytes(await anext(pieces))
        assert 0 < len(first) <= 1000
        hold.release()
        assert first + b"".join([bytes(piece) async for piece in pieces]) == LAYER


async def test_every_waiter_gets_the_failure(node: CachingNode, upstream: FakeRegistry, image: BuiltImage) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(status=500, hold=hold))
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(outcome(node.blob(image.layers[0]))) for _ in range(20)]
        await hold.reached()
        hold.release()
    assert [type(pull.result()) for pull in pulls] == [UpstreamUnavailable] * 20
    assert upstream.count(BLOBS) == 1


async def test_client_that_hangs_up_does_not_stop_the_fill_and_the_next_one_is_a_hit(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=1000))
    async with await node.open(image.layers[0]) as content:
        await anext(content.read(0, len(LAYER)))
    hold.release()
    await node.cache.idle()
    await upstream.stop()
    assert await node.blob(image.layers[0]) == LAYER
    assert node.observer.results["docker-hub hit"] == 1


async def test_client_that_hangs_up_before_the_upstream_answers_does_not_stop_the_fill(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(node.open(image.layers[0]))
        await hold.reached()
        leaving.cancel()
    hold.release()
    await node.cache.idle()
    assert await node.blob(image.layers[0]) == LAYER
    assert upstream.count(BLOBS) == 1


@pytest.mark.parametrize(("start", "length"), [(0, 10), (500_000, 1000), (len(LAYER) - 1, 1), (100, 700_000)])
async def test_a_part_of_a_cold_blob(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage, start: int, length: int
) -> None:
    assert await read_all(await node.open(image.layers[0]), start, length) == LAYER[start : start + length]
    assert upstream.count(BLOBS) == 1


async def test_empty_blob(node: CachingNode, upstream: FakeRegistry) -> None:
    empty = upstream.add_image("library/alpine", "empty", [b""])
    await node.manifest(Tag("empty"))
    assert await node.blob(empty.layers[0]) == b""
    assert await node.cache.get_blob_size(UNRESTRICTED, ALPINE, empty.layers[0]) == 0


async def test_blob_without_an_announced_length(node: CachingNode, upstream: FakeRegistry, image: BuiltImage) -> None:
    upstream.faults.on(BLOBS, Fault(chunked=True))
    unknown = upstream.add_blob("library/alpine", b"unknown to every manifest" * 10_000)
    assert await node.blob(image.layers[0]) == LAYER
    assert await node.blob(unknown) == b"unknown to every manifest" * 10_000


async def test_sha512_blob(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", layers=[LAYER], algorithm="sha512")
    assert await node.image(image.digest) == image.blobs


# Upstreams that send something else


DAMAGES = {
    "bit flip at the start": Fault(flip=0),
    "bit flip at the end": Fault(flip=-1),
    "wrong length, short": Fault(body=LAYER[:-1]),
    "wrong length, long": Fault(body=LAYER + b"x"),
    "clean truncation": Fault(body=LAYER[:500_000], chunked=True),
    "another page": Fault(body=b"<html>" * 100, content_type="text/html"),
    "nothing": Fault(body=b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_blob_is_never_complete_never_stored_and_the_next_pull_heals(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage, damage: str
) -> None:
    upstream.faults.on(BLOBS, DAMAGES[damage])
    results = [await outcome(node.blob(image.layers[0])), await outcome(part_of(node, image.layers[0]))]
    assert [isinstance(result, UpstreamContent) for result in results] == [True, True]
    await node.cache.idle()
    assert await node.locations() == []
    # Bytes that merely ended too early may be right, and are kept for the next pull.
    assert len(node.ingests) == (damage == "clean truncation")
    upstream.faults.clear()
    assert await node.blob(image.layers[0]) == LAYER
    assert node.ingests == []


async def test_clean_truncation_is_noticed_and_the_rest_is_fetched(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    upstream.faults.on(BLOBS, Fault(cut_after=500_000, chunked=True), times=1)
    assert await node.blob(image.layers[0]) == LAYER
    assert [request.headers.get("range") for request in upstream.asked(BLOBS)] == [None, "bytes=500000-"]


async def test_clean_truncation_of_a_blob_no_manifest_names_is_refused(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    digest = upstream.add_blob("library/alpine", LAYER)
    upstream.faults.on(BLOBS, Fault(cut_after=500_000, chunked=True), times=1)
    with pytest.raises(UpstreamContent):
        await node.open(digest)
    assert await node.blob(digest) == LAYER


@pytest.mark.parametrize("reset", [False, True])
async def test_connection_that_breaks_is_resumed_with_a_range(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage, *, reset: bool
) -> None:
    hold = Hold()
    # The cut comes once our side has read what was sent before: a reset throws away what is still on its way.
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=300_000, cut_after=300_000, reset=reset), times=1)
    async with asyncio.TaskGroup() as group, await node.open(image.layers[0]) as content:
        pieces = content.read(0, len(LAYER))
        got = bytearray()
        while len(got) < 300_000:
            got += await anext(pieces)
        group.create_task(_release(hold))
        async for piece in pieces:
            got += piece
    assert bytes(got) == LAYER
    assert [request.headers.get("range") for request in upstream.asked(BLOBS)] == [None, "bytes=300000-"]


async def _release(hold: Hold) -> None:
    hold.release()


async def test_stalled_connection_is_given_up_and_resumed(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with caching_node(tmp_path, {"hub": upstream}, FakeClock(auto=True), stall_timeout=0.2) as node:
        image = upstream.add_image("library/alpine", "latest", [LAYER])
        await node.manifest()
        hold = Hold()
        upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=300_000), times=1)
        assert await node.blob(image.layers[0]) == LAYER
        assert [request.headers.get("range") for request in upstream.asked(BLOBS)] == [None, "bytes=300000-"]
        hold.release()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=500), UpstreamUnavailable),
        (Fault(status=429), UpstreamThrottled),
        (Fault(status=401), UpstreamDenied),
        (Fault(drop=True), UpstreamUnavailable),
        (Fault(status=404), BlobNotFound),
    ],
)
async def test_cold_blob_of_a_failing_upstream_is_an_error_and_leaves_nothing(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage, fault: Fault, error: type[Exception]
) -> None:
    upstream.faults.on(BLOBS, fault)
    with pytest.raises(error):
        await node.blob(image.layers[0])
    assert await node.locations() == []
    assert node.ingests == []


# A store that fails


async def test_full_store_is_an_error_and_cached_blobs_are_still_served(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    files = ScriptedFiles()
    store = FilesystemBlobStore(tmp_path / "blobs", files=files)
    async with caching_node(tmp_path, {"hub": upstream}, clock, store=store) as node:
        image = upstream.add_image("library/alpine", "latest", [LAYER, b"small"])
        await node.manifest()
        assert await node.blob(image.layers[1]) == b"small"
        files.failures["write"] = [OSError(28, os.strerror(28))]
        with pytest.raises(StorageFull):
            await node.blob(image.layers[0])
        assert await node.blob(image.layers[1]) == b"small"
        assert node.ingests == []
        assert len(await node.locations()) == 1
        assert await node.blob(image.layers[0]) == LAYER


async def test_damaged_local_blob_is_fetched_again(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage, tmp_path: Path
) -> None:
    await node.blob(image.layers[0])
    (location,) = await node.locations()
    path = tmp_path / "blobs" / "blobs" / location
    path.chmod(0o600)
    path.write_bytes(LAYER[:-1])
    assert await node.blob(image.layers[0]) == LAYER
    assert upstream.count(BLOBS) == 2
    path.unlink()
    (location,) = await node.locations()
    (tmp_path / "blobs" / "blobs" / location).unlink()
    assert await node.blob(image.layers[0]) == LAYER
    assert upstream.count(BLOBS) == 3


# Whose blob it is


async def test_blob_of_two_cached_images_of_one_upstream_is_fetched_once(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    other = upstream.add_image("library/busybox", "latest", [LAYER, b"own"])
    await node.image()
    await node.manifest(repository=BUSYBOX)
    assert await node.image(LATEST, BUSYBOX) == other.blobs
    assert upstream.count(f"GET /v2/*/blobs/{image.layers[0]}") == 1
    assert len(await node.locations()) == len({*image.blobs, *other.blobs})


async def test_blob_of_another_repository_is_not_shown_where_the_upstream_does_not_have_it(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    await node.blob(image.layers[0])
    secret = b"secret of a team"
    await node.uploads.put_blob(UNRESTRICTED, PRIVATE, digest_of(secret), chunks_of(secret))
    upstream.repository("library/busybox")
    for digest in (digest_of(secret), image.layers[0]):
        with pytest.raises(BlobNotFound):
            await node.open(digest, BUSYBOX)
        with pytest.raises(BlobNotFound):
            await node.cache.get_blob_size(UNRESTRICTED, BUSYBOX, digest)
        with pytest.raises(BlobNotFound):
            await node.cache.open_blob_for_engine(BUSYBOX, digest)
        assert await node.pulls.find_blob(BUSYBOX, digest) is None


async def test_manifest_that_names_a_private_blob_does_not_open_it(node: CachingNode, upstream: FakeRegistry) -> None:
    secret = b"secret of a team" * 1000
    await node.uploads.put_blob(UNRESTRICTED, PRIVATE, digest_of(secret), chunks_of(secret))
    # Somebody who knows the digest publishes an image that claims the layer; the upstream does not have it.
    bait = build_image([secret])
    upstream.add_manifest("library/busybox", bait.manifest, OCI_MANIFEST, "latest")
    await node.manifest(repository=BUSYBOX)
    with pytest.raises(BlobNotFound):
        await node.blob(digest_of(secret), BUSYBOX)
    assert await node.pulls.find_blob(BUSYBOX, digest_of(secret)) is None


async def test_pushed_manifest_does_not_vouch_for_a_blob(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest", [LAYER])
    await node.image()
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": image.layers[0],
        "size": len(LAYER),
    }
    own = build_image([b"own"])
    manifest = own.manifest.replace(b'"layers":[', b'"layers":[' + json.dumps(foreign).encode() + b",")
    for digest, content in own.blobs.items():
        await node.uploads.put_blob(UNRESTRICTED, BUSYBOX, digest, chunks_of(content))
    await node.pushes.put_manifest(UNRESTRICTED, BUSYBOX, Tag("mine"), manifest, OCI_MANIFEST)
    with pytest.raises(BlobNotFound):
        await node.open(image.layers[0], BUSYBOX)


async def test_blob_pushed_below_a_cache_prefix_is_not_opened_by_a_manifest_that_names_it(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    secret = build_image([b"secret of a team" * 1000])
    await node.push(secret, Tag("mine"), RepositoryName("docker-hub/team/app"))
    upstream.add_manifest("library/busybox", secret.manifest, OCI_MANIFEST, "latest")
    await node.manifest(repository=BUSYBOX)
    with pytest.raises(BlobNotFound):
        await node.blob(secret.layers[0], BUSYBOX)


async def test_blob_of_another_upstream_is_not_opened_by_a_manifest_that_names_it(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with FakeRegistry() as quay:
        rules = [HUB, CacheRule("quay", "quay")]
        async with caching_node(tmp_path, {"hub": upstream, "quay": quay}, clock, rules=rules) as node:
            image = upstream.add_image("library/alpine", "latest", [LAYER])
            await node.image()
            quay.add_manifest("app", image.manifest, OCI_MANIFEST, "latest")
            elsewhere = RepositoryName("quay/app")
            await node.manifest(repository=elsewhere)
            with pytest.raises(BlobNotFound):
                await node.blob(image.layers[0], elsewhere)
            # While it is being fetched for the other one, neither.
            await node.uploads.delete_blob(UNRESTRICTED, ALPINE, image.layers[0])
            hold = Hold()
            upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=1000))
            async with asyncio.TaskGroup() as group:
                pulling = group.create_task(node.blob(image.layers[0]))
                await hold.reached()
                with pytest.raises(BlobNotFound):
                    await node.blob(image.layers[0], elsewhere)
                hold.release()
            assert pulling.result() == LAYER


@pytest.mark.parametrize(
    "lie",
    [
        {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"},
        {"size": len(LAYER) + 1},
    ],
    ids=["as a layer that is stored elsewhere", "with another size"],
)
async def test_manifest_that_names_a_blob_wrongly_does_not_open_it(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage, lie: dict[str, object]
) -> None:
    await node.image()
    document = json.loads(image.manifest)
    document["layers"][0].update(lie)
    upstream.add_manifest("library/busybox", json.dumps(document).encode(), OCI_MANIFEST, "latest")
    await node.manifest(repository=BUSYBOX)
    with pytest.raises(BlobNotFound):
        await node.blob(image.layers[0], BUSYBOX)


async def test_blob_deleted_from_a_pushed_image_stays_deleted_there(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    await node.image()
    upstream.repository("library/busybox")
    await node.push(build_image([LAYER, b"own"]), Tag("mine"), BUSYBOX)
    await node.uploads.delete_blob(UNRESTRICTED, BUSYBOX, image.layers[0])
    with pytest.raises(BlobNotFound):
        await node.open(image.layers[0], BUSYBOX)


async def test_private_blob_with_the_digest_of_a_cached_one_is_fetched_all_the_same(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    await node.uploads.put_blob(UNRESTRICTED, PRIVATE, DIGEST, chunks_of(LAYER))
    assert await node.blob(image.layers[0]) == LAYER
    assert upstream.count(BLOBS) == 1
    # The copy that was there first stays, and the other one goes.
    assert len(await node.locations()) == 1


async def test_fill_under_way_is_joined_only_by_repositories_that_hold_the_blob_upstream(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    sharing, hold = RepositoryName("docker-hub/with"), Hold()
    upstream.repository("without")
    upstream.add_blob("with", LAYER)
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=1000))
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(node.blob(image.layers[0]))
        await hold.reached()
        joining = group.create_task(node.blob(DIGEST, sharing))
        with pytest.raises(BlobNotFound):
            await node.blob(DIGEST, RepositoryName("docker-hub/without"))
        await upstream.seen("HEAD /v2/with/blobs/*")
        hold.release()
    assert pulling.result() == joining.result() == LAYER
    assert upstream.count("GET /v2/with/*") == 0
    # Whoever joined has the blob from then on.
    await upstream.stop()
    assert await node.blob(DIGEST, sharing) == LAYER


@pytest.mark.parametrize("fault", [{"hold_after": 1000}, {"length": 10**9, "hold_after": 1000}])
async def test_upstream_that_drips_or_lies_spoils_no_pull_from_another_one(
    fault: dict[str, Any], tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with FakeRegistry() as hostile:
        rules = [HUB, CacheRule("hostile", "hostile")]
        async with caching_node(tmp_path, {"hub": upstream, "hostile": hostile}, clock, rules=rules) as node:
            image, hold = upstream.add_image("library/alpine", "latest", [LAYER]), Hold()
            await node.manifest()
            hostile.add_blob("bait", LAYER)
            hostile.faults.on("GET /v2/bait/blobs/*", Fault(hold=hold, **fault))
            async with asyncio.TaskGroup() as group:
                baiting = group.create_task(outcome(node.open(DIGEST, RepositoryName("hostile/bait"))))
                await hold.reached()
                async with asyncio.timeout(10):
                    assert await node.blob(image.layers[0]) == LAYER
                hold.release()
            if not isinstance(baiting.result(), Exception):
                async with baiting.result():
                    pass
            await node.cache.idle()


async def test_upstream_that_only_claims_to_have_a_blob_gets_no_part_in_the_fill_from_another_one(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with FakeRegistry() as hostile:
        rules = [HUB, CacheRule("hostile", "hostile")]
        async with caching_node(tmp_path, {"hub": upstream, "hostile": hostile}, clock, rules=rules) as node:
            image, hold = upstream.add_image("library/alpine", "latest", [LAYER]), Hold()
            await node.manifest()
            hostile.repository("liar")
            hostile.faults.on("HEAD /v2/liar/blobs/*", Fault(status=200))
            upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=1000))
            async with asyncio.TaskGroup() as group:
                pulling = group.create_task(node.blob(image.layers[0]))
                await hold.reached()
                stealing = group.create_task(outcome(node.blob(DIGEST, RepositoryName("hostile/liar"))))
                await hostile.seen("/v2/liar/blobs/*")
                hold.release()
            assert pulling.result() == LAYER
            assert isinstance(stealing.result(), BlobNotFound)


async def test_deleted_blob_is_gone_for_the_others_too_only_where_it_was_deleted(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    upstream.add_image("library/busybox", "latest", [LAYER])
    await node.image()
    await node.image(LATEST, BUSYBOX)
    await node.uploads.delete_blob(UNRESTRICTED, ALPINE, image.layers[0])
    assert await node.pulls.find_blob(ALPINE, image.layers[0]) is None
    await upstream.stop()
    assert await node.blob(image.layers[0], BUSYBOX) == LAYER


# Size without content


async def test_size_of_a_blob_that_is_not_here_comes_from_its_manifest_when_the_upstream_still_has_it(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    assert await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0]) == len(LAYER)
    assert [request.method for request in upstream.requests] == ["HEAD"]
    assert await node.locations() == []
    await node.blob(image.layers[0])
    assert await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0]) == len(LAYER)
    assert upstream.count("HEAD *") == 1


async def test_size_of_a_blob_that_the_upstream_lost_is_not_told(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    del upstream.repository("library/alpine").blobs[image.layers[0]]
    with pytest.raises(BlobNotFound):
        await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0])
    await upstream.stop()
    with pytest.raises(UpstreamUnavailable):
        await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0])


async def test_upstream_that_knows_a_blob_only_once_it_was_asked_for_is_asked_for_it(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    upstream.faults.on("HEAD /v2/library/alpine/blobs/*", Fault(status=404))
    assert await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0]) == len(LAYER)


async def test_size_of_a_blob_on_its_way_costs_no_request(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=100_000))
    async with await node.open(image.layers[0]):
        assert await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0]) == len(LAYER)
        hold.release()
    assert upstream.count("HEAD *") == 0


async def test_size_of_a_blob_no_manifest_names_comes_from_the_upstream(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    digest = upstream.add_blob("library/alpine", LAYER)
    assert await node.cache.get_blob_size(UNRESTRICTED, ALPINE, digest) == len(LAYER)
    assert await node.locations() == []
    with pytest.raises(BlobNotFound):
        await node.cache.get_blob_size(UNRESTRICTED, ALPINE, digest_of(b"absent"))


# For the engines, and at the end


async def test_engine_opens_blobs_that_are_here_or_on_their_way(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    assert await read_all(await node.cache.open_blob_for_engine(ALPINE, image.layers[0])) == LAYER
    await upstream.stop()
    assert await read_all(await node.cache.open_blob_for_engine(ALPINE, image.layers[0])) == LAYER
    own = RepositoryName("team/app")
    await node.uploads.put_blob(UNRESTRICTED, own, digest_of(b"own"), chunks_of(b"own"))
    assert await read_all(await node.cache.open_blob_for_engine(own, digest_of(b"own"))) == b"own"
    with pytest.raises(BlobNotFound):
        await node.cache.open_blob_for_engine(own, digest_of(b"absent"))


async def test_closing_breaks_off_fills_and_leaves_nothing(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    hold = Hold()
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        image = upstream.add_image("library/alpine", "latest", [LAYER])
        await node.manifest()
        upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=1000))
        async with asyncio.TaskGroup() as group:
            pulling = group.create_task(outcome(node.blob(image.layers[0])))
            await hold.reached()
            await node.cache.close()
        assert isinstance(pulling.result(), ShuttingDown)
        assert node.ingests == []
        assert open_files_below(tmp_path / "blobs") == []


async def test_peer_sees_what_is_here_and_not_what_an_upstream_has(
    node: CachingNode, upstream: FakeRegistry, image: BuiltImage
) -> None:
    peer = node_principal(OTHER_NODE)
    with pytest.raises(BlobNotFound):
        await node.cache.get_blob_size(peer, ALPINE, image.layers[0])
    with pytest.raises(BlobNotFound):
        await node.open(image.layers[0], principal=peer)
    with pytest.raises(ManifestNotFound):
        await node.manifest(Tag("absent"), principal=peer)
    assert upstream.requests == []
    await node.blob(image.layers[0])
    assert await node.cache.get_blob_size(peer, ALPINE, image.layers[0]) == len(LAYER)


@pytest.mark.parametrize("what", ["manifest", "blob"])
async def test_database_that_takes_its_time_costs_no_second_download(
    node: CachingNode, upstream: FakeRegistry, what: str
) -> None:
    image = upstream.add_image("library/alpine", "latest", [b"layer"])
    if what == "blob":
        await node.manifest()
        upstream.requests.clear()
    node.node.database = DistantDatabase(node.node.database)

    async def pull() -> bytes:
        return await node.blob(image.layers[0]) if what == "blob" else (await node.manifest(image.digest)).content

    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(pull())]
        # One more client at every turn of the event loop, so that one stands at every point of the first one's way.
        while not pulls[0].done():
            pulls.append(group.create_task(pull()))
            await asyncio.sleep(0)
    assert {pull.result() for pull in pulls} == {b"layer" if what == "blob" else image.manifest}
    assert upstream.count() == 1
    assert len(await node.locations()) == (what == "blob")


async def test_largest_accepted_blob_is_a_limit_for_upstreams_too(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    settings = RegistrySettings(NODE, max_blob_size=len(LAYER) - 1)
    async with caching_node(tmp_path, {"hub": upstream}, clock, settings=settings) as node:
        image = upstream.add_image("library/alpine", "latest", [LAYER])
        await node.manifest()
        with pytest.raises(UpstreamError):
            await node.blob(image.layers[0])


async def part_of(node: CachingNode, digest: Digest) -> bytes:
    """Pull the first bytes of a blob."""
    return await read_all(await node.open(digest), 0, 100)


# What is said of a pull


async def traced(node: CachingNode, digest: Digest) -> PullTrace:
    """Pull a blob and return what the cache says of it."""
    trace = PullTrace()
    content = await outcome(node.cache.open_blob(UNRESTRICTED, ALPINE, digest, trace))
    if not isinstance(content, Exception):
        await read_all(content)
    return trace


async def test_trace_says_where_a_blob_came_from(node: CachingNode, upstream: FakeRegistry, image: BuiltImage) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=100_000))
    async with asyncio.TaskGroup() as group:
        first = group.create_task(traced(node, image.layers[0]))
        await hold.reached()
        second = PullTrace()
        content = await node.cache.open_blob(UNRESTRICTED, ALPINE, image.layers[0], second)
        hold.release()
        assert await read_all(content) == LAYER
    third = await traced(node, image.layers[0])
    absent = await traced(node, digest_of(b"absent"))
    await upstream.stop()
    failed = await traced(node, digest_of(b"absent, too"))
    traces = [first.result(), second, third, absent, failed]
    assert [(trace.result, trace.status, trace.collapsed) for trace in traces] == [
        (CacheResult.MISS, 200, False),
        (CacheResult.MISS, 200, True),
        (CacheResult.HIT, None, False),
        (CacheResult.MISS, 404, False),
        (CacheResult.ERROR, None, False),
    ]
    assert {(trace.rule, trace.upstream) for trace in traces} == {("docker-hub", "hub")}
    assert [trace.error is not None for trace in traces] == [False, False, False, False, True]
