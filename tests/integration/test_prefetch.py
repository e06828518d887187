"""Whole images: completed for named platforms by jobs that survive a kill, and by whoever asks for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from replicator.cache.completion import Lack, Progress
from replicator.cache.prefetch import Prefetch, PrefetchImage, PrefetchLimits, PrefetchOutcome
from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput, InvalidManifest, ManifestNotFound, UpstreamUnavailable
from replicator.core.jobs import JobKind, JobState, NewJob
from replicator.core.media_types import OCI_INDEX, OCI_MANIFEST
from replicator.core.names import RepositoryName
from replicator.core.platforms import parse_platform
from replicator.storage.metadata import jobs
from tests.support.clock import FakeClock
from tests.support.images import build_image, build_index
from tests.support.pull_through_node import ALPINE, HUB, LATEST, caching_node
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from replicator.core.platforms import Platform
    from tests.support.pull_through_node import CachingNode

AMD64, ARM64 = parse_platform("linux/amd64"), parse_platform("linux/arm64")
UPSTREAM = "library/alpine"
BASE = b"a base layer of both"
FOR_AMD64 = build_image([BASE, b"amd64"], platform=("linux", "amd64"))
FOR_ARM64 = build_image([BASE, b"arm64"], platform=("linux", "arm64"))
ATTESTATION = build_image([b"provenance"], platform=("unknown", "unknown"))
INDEX = build_index([FOR_AMD64, FOR_ARM64, ATTESTATION])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def upstream() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as upstream:
        upstream.add(UPSTREAM, INDEX, "latest")
        yield upstream


class Worker:
    """Carries out jobs, and tells a test what became of them."""

    def __init__(self, node: CachingNode, **limits: Any) -> None:
        self._node = node.node
        self._ended: asyncio.Queue[tuple[PrefetchImage | None, PrefetchOutcome]] = asyncio.Queue()
        self.prefetch = Prefetch(node.node, node.cache.completion, PrefetchLimits(**limits), lambda: 0.0, self._note)

    def _note(self, image: PrefetchImage | None, outcome: PrefetchOutcome) -> None:
        self._ended.put_nowait((image, outcome))

    async def queue(self, digest: Digest, *platforms: Platform) -> None:
        """Have an image completed."""
        job = PrefetchImage(ALPINE, digest, platforms).to_job()
        await self._node.database.write(lambda: jobs.enqueue(job, self._node.clock.now()))
        self._node.announce_jobs(JobKind.PREFETCH)

    async def ended(self) -> PrefetchOutcome:
        """Return what became of the next attempt that ends."""
        async with asyncio.timeout(20):
            return (await self._ended.get())[1]


@contextlib.asynccontextmanager
async def working(node: CachingNode, **limits: Any) -> AsyncIterator[Worker]:
    """Have jobs carried out, one at a time, until the block ends."""
    worker = Worker(node, images_at_once=1, **limits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.prefetch.run())
        yield worker
        task.cancel()


async def states(node: CachingNode) -> dict[JobState, int]:
    """How many jobs there are by state."""
    counts = await node.node.database.read(jobs.counts())
    return {one.state: one.count for one in counts if one.kind is JobKind.PREFETCH}


async def lack(node: CachingNode, *platforms: Any) -> Lack:
    return await node.cache.completion.find_lack(ALPINE, INDEX.digest, platforms)


# Completing


async def test_an_image_is_completed_for_its_platforms(node: CachingNode, upstream: FakeRegistry) -> None:
    index = await node.manifest()
    assert (await lack(node, AMD64)).manifests == tuple(sorted((FOR_AMD64.digest, ATTESTATION.digest)))
    steps: list[Progress] = []
    done = await node.cache.completion.complete(ALPINE, index, (AMD64,), steps.append)
    blobs = {**FOR_AMD64.blobs, **ATTESTATION.blobs}
    size, count = sum(map(len, blobs.values())), len(blobs)
    assert done == Progress(manifests=3, blobs_done=count, blobs=count, bytes_done=size, bytes=size)
    assert steps[-1] == done
    assert [step.bytes_done for step in steps] == sorted(step.bytes_done for step in steps)
    assert (await lack(node, AMD64)).is_nothing
    assert (await lack(node, ARM64)).manifests == (FOR_ARM64.digest,)
    assert upstream.count(f"*{FOR_ARM64.digest}") == 0
    await upstream.stop()
    assert await node.image(FOR_AMD64.digest) == FOR_AMD64.blobs
    # Done once more, it needs nobody.
    assert await node.cache.completion.complete(ALPINE, index, (AMD64,)) == done


async def test_without_platforms_an_image_is_completed_whole(node: CachingNode, upstream: FakeRegistry) -> None:
    done = await node.cache.completion.complete(ALPINE, await node.manifest())
    assert (done.manifests, done.blobs_done) == (4, done.blobs)
    assert (await lack(node)) == Lack()
    for image in (FOR_AMD64, FOR_ARM64, ATTESTATION):
        for digest in image.blobs:
            assert upstream.count(f"GET */blobs/{digest}") == 1


async def test_completing_joins_what_somebody_pulls(node: CachingNode, upstream: FakeRegistry) -> None:
    index = await node.manifest()
    await node.manifest(FOR_AMD64.digest)
    hold, layer = Hold(), FOR_AMD64.layers[1]
    upstream.faults.on(f"GET */blobs/{layer}", Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(node.blob(layer))
        await hold.reached()
        completing = group.create_task(node.cache.completion.complete(ALPINE, index, (AMD64,)))
        await upstream.seen(f"GET */blobs/{FOR_AMD64.layers[0]}")
        hold.release()
    assert pulling.result() == FOR_AMD64.blobs[layer]
    assert completing.result().blobs_done == completing.result().blobs
    assert upstream.count(f"GET */blobs/{layer}") == 1


async def test_a_part_that_the_upstream_lacks_is_named(node: CachingNode, upstream: FakeRegistry) -> None:
    index = await node.manifest()
    del upstream.repository(UPSTREAM).manifests[FOR_ARM64.digest]
    with pytest.raises(ManifestNotFound, match=FOR_ARM64.digest):
        await node.cache.completion.complete(ALPINE, index)
    assert (await node.cache.completion.complete(ALPINE, index, (AMD64,))).blobs_done > 0


async def test_an_upstream_that_fails_is_the_failure(node: CachingNode, upstream: FakeRegistry) -> None:
    index = await node.manifest()
    upstream.faults.on(f"*/blobs/{FOR_AMD64.layers[1]}", Fault(status=500))
    with pytest.raises(UpstreamUnavailable):
        await node.cache.completion.complete(ALPINE, index, (AMD64,))
    left = await lack(node, AMD64)
    assert FOR_AMD64.layers[1] in left.blobs
    upstream.faults.clear()
    await node.cache.completion.complete(ALPINE, index, (AMD64,))
    assert (await lack(node, AMD64)).is_nothing


async def test_indexes_within_indexes_come_to_an_end(node: CachingNode, upstream: FakeRegistry) -> None:
    nested = build_index([FOR_AMD64])
    for _ in range(3):
        nested = build_index([nested])
    upstream.add(UPSTREAM, nested, "deep")
    deep = await node.manifest(nested.digest)
    assert (await node.cache.completion.complete(ALPINE, deep)).manifests == 5
    deeper = build_index([nested])
    upstream.add(UPSTREAM, deeper, "deeper")
    with pytest.raises(InvalidManifest, match="nested"):
        await node.cache.completion.complete(ALPINE, await node.manifest(deeper.digest))


# Jobs


async def test_an_image_of_blobs_without_end_is_refused_before_they_are_held(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    """An index of a thousand manifests, each of the largest size, would name millions of blobs."""
    named = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 1, "digest": digest_of(str(at).encode())}
        for at in range(20_001)
    ]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": digest_of(b"{}")}
    children = []
    for start in range(0, len(named), 5000):
        image = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": named[start : start + 5000]}
        content = json.dumps(image).encode()
        digest = upstream.add_manifest(UPSTREAM, content, OCI_MANIFEST)
        children.append({"mediaType": OCI_MANIFEST, "size": len(content), "digest": digest})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    upstream.add_manifest(UPSTREAM, json.dumps(index).encode(), OCI_INDEX, "latest")
    with pytest.raises(InvalidManifest, match="more than 20000 blobs"):
        await node.cache.completion.complete(ALPINE, await node.manifest())
    assert upstream.count("*/blobs/*") == 0


async def test_a_job_completes_its_image_and_is_gone(node: CachingNode) -> None:
    await node.manifest()
    async with working(node) as worker:
        await worker.queue(INDEX.digest, AMD64)
        assert await worker.ended() is PrefetchOutcome.DONE
    assert await states(node) == {}
    assert (await lack(node, AMD64)).is_nothing
    assert not (await lack(node)).is_nothing


async def test_jobs_that_were_queued_before_a_start_are_carried_out(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        await node.manifest()
        await Worker(node).queue(INDEX.digest)
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node, working(node) as worker:
        assert await worker.ended() is PrefetchOutcome.DONE
        assert (await lack(node)).is_nothing


async def test_a_job_that_is_broken_off_is_free_at_once(node: CachingNode, upstream: FakeRegistry) -> None:
    await node.manifest()
    hold = Hold()
    upstream.faults.on(f"GET */blobs/{FOR_AMD64.layers[1]}", Fault(hold=hold))
    async with working(node) as worker:
        await worker.queue(INDEX.digest, AMD64)
        await hold.reached()
    assert await states(node) == {JobState.QUEUED: 1}
    hold.release()
    async with working(node) as worker:
        assert await worker.ended() is PrefetchOutcome.DONE
    assert (await lack(node, AMD64)).is_nothing


async def test_a_long_job_keeps_its_lease(node: CachingNode, upstream: FakeRegistry, clock: FakeClock) -> None:
    await node.manifest()
    hold = Hold()
    upstream.faults.on(f"GET */blobs/{FOR_AMD64.layers[1]}", Fault(hold=hold))
    async with working(node) as worker:
        await worker.queue(INDEX.digest, AMD64)
        await hold.reached()
        for _ in range(10):
            await clock.sleepers(1)  # it waits for the time to renew its lease
            clock.advance(15.0)
        await clock.sleepers(1)
        until = clock.now() + 60.0
        stolen = await node.node.database.write(partial(jobs.lease, JobKind.PREFETCH, "another", clock.now(), until, 1))
        assert stolen == []
        hold.release()
        assert await worker.ended() is PrefetchOutcome.DONE


async def test_a_job_whose_lease_was_taken_is_left_to_the_other(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    await node.manifest()
    hold = Hold()
    upstream.faults.on(f"GET */blobs/{FOR_AMD64.layers[1]}", Fault(hold=hold))
    async with working(node, lease=10.0) as worker:
        await worker.queue(INDEX.digest, AMD64)
        await hold.reached()
        await clock.sleepers(1)
        later = clock.now() + 11.0
        taken = await node.node.database.write(partial(jobs.lease, JobKind.PREFETCH, "another", later, later + 1e6, 1))
        assert len(taken) == 1
        clock.advance(15.0)
        await clock.sleepers(1)  # it gave up, and waits for other work
        assert await states(node) == {JobState.LEASED: 1}
        hold.release()


async def test_a_job_is_tried_again_later_when_the_upstream_fails(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    await node.manifest()
    upstream.faults.on(f"*/blobs/{FOR_AMD64.layers[1]}", Fault(status=500))
    async with working(node) as worker:
        await worker.queue(INDEX.digest, AMD64)
        assert await worker.ended() is PrefetchOutcome.LATER
        [found] = await node.node.database.read(jobs.troubled(JobKind.PREFETCH, 10))
        assert found.state is JobState.QUEUED
        assert "500" in found.error
        upstream.faults.clear()
        await clock.sleepers(1)
        clock.advance(found.retry_at - clock.now() + 30.0)
        assert await worker.ended() is PrefetchOutcome.DONE
    assert (await lack(node, AMD64)).is_nothing


async def test_what_can_never_be_completed_is_kept_as_dead(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    await node.manifest()
    del upstream.repository(UPSTREAM).manifests[FOR_ARM64.digest]
    outcomes = []
    async with working(node) as worker:
        await worker.queue(INDEX.digest, ARM64)
        while (outcome := await worker.ended()) is PrefetchOutcome.LATER:
            outcomes.append(outcome)
            await clock.sleepers(1)
            clock.advance(300.0)
    assert (outcome, len(outcomes)) == (PrefetchOutcome.DEAD, 2)
    assert await states(node) == {JobState.DEAD: 1}


async def test_a_job_of_another_make_is_kept_as_dead(node: CachingNode, clock: FakeClock) -> None:
    odd = NewJob(JobKind.PREFETCH, "odd", {"repository": "hub/x"})
    await node.node.database.write(lambda: jobs.enqueue(odd, clock.now()))
    async with working(node) as worker:
        assert await worker.ended() is PrefetchOutcome.DEAD
    [found] = await node.node.database.read(jobs.troubled(JobKind.PREFETCH, 10))
    assert "expected a repository" in found.error


async def test_a_bug_with_one_image_does_not_end_the_others(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    class Broken:
        """A completion that fails as nothing should."""

        async def complete(self, *_: object) -> Progress:
            raise ZeroDivisionError

    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        await node.manifest()
        node.cache.completion = Broken()  # type: ignore[assignment]
        async with working(node) as worker:
            for digest in (INDEX.digest, INDEX.digest):
                await worker.queue(digest)
                assert await worker.ended() is PrefetchOutcome.DEAD


async def test_an_image_that_is_gone_needs_nothing(node: CachingNode, upstream: FakeRegistry) -> None:
    async with working(node) as worker:
        await worker.queue(INDEX.digest)
        assert await worker.ended() is PrefetchOutcome.DONE
    assert upstream.count() == 0


async def test_a_tag_whose_rule_names_platforms_is_completed_behind_the_puller_s_back(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, platforms=(AMD64,))
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node, working(node) as worker:
        assert (await node.manifest(LATEST)).digest == INDEX.digest
        assert await worker.ended() is PrefetchOutcome.DONE
        assert (await lack(node, AMD64)).is_nothing
        assert (await lack(node, ARM64)).manifests == (FOR_ARM64.digest,)


@pytest.mark.parametrize("platforms", [(), (AMD64, parse_platform("linux/arm64/v8"))])
def test_a_job_says_what_it_is_for(platforms: tuple[Any, ...]) -> None:
    image = PrefetchImage(RepositoryName("hub/app"), INDEX.digest, platforms)
    job = image.to_job()
    assert job.key == f"hub/app@{INDEX.digest}"
    assert PrefetchImage.from_payload(job.payload) == image


@pytest.mark.parametrize(
    "change",
    [{"repository": 7}, {"digest": None}, {"platforms": "linux/amd64"}, {"platforms": [1]}, {"digest": "sha256:x"}],
)
def test_a_job_that_cannot_be_read_is_refused(change: dict[str, object]) -> None:
    payload = PrefetchImage(ALPINE, INDEX.digest, (AMD64,)).to_job().payload
    with pytest.raises(InvalidInput):
        PrefetchImage.from_payload({**payload, **change})
