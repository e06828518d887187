"""Destinations that are registries of somebody else: complete only when read back, and never trusted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from replicator.cache.content import PullThroughContent
from replicator.cache.pull_through import PullThrough
from replicator.core.destinations import RegistryRef
from replicator.core.jobs import JobKind
from replicator.core.names import RepositoryName, Tag
from replicator.core.platforms import Platform
from replicator.core.principal import UNRESTRICTED
from replicator.core.reference import parse_reference
from replicator.core.replication import Rename, ReplicationRule, ReplicationState
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.replication.status import ReplicationStatusReader
from replicator.replication.worker import ReplicationWorker
from replicator.storage.metadata import jobs
from replicator.upstream.endpoint import Credentials
from tests.support.clock import FakeClock
from tests.support.images import Built, build_image, build_index, walk
from tests.support.nodes import Changes, Recorder
from tests.support.single_node import NODE, open_node
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Tokens, basic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.names import NodeId
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.replication_status import ReplicationStatus
    from replicator.upstream.client import UpstreamClient

HARBOR = RegistryRef("harbor")
REPOSITORY, TAG = RepositoryName("team/app"), "v1"
RULE = ReplicationRule("to-harbor", (HARBOR,))
IMAGE = build_image([b"first layer" * 1000, b"second layer"])
INDEX = build_index([build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))])
SECRET = Credentials("ann", "correct-horse")


@dataclass
class Scene:
    """A node, the registry that it replicates to, and a worker that is started by the first wait."""

    node: RegistryNode
    registry: FakeRegistry
    client: UpstreamClient
    clock: FakeClock
    recorder: Recorder
    changes: Changes

    def find(self, destination: NodeId | RegistryRef) -> Any:
        """Return the client of the registry; the scene is what a worker asks for it."""
        return self.client if destination == HARBOR else None

    async def push(self, image: Built, *tags: str, repository: str = REPOSITORY) -> None:
        """Push an image to the node."""
        uploads, pushes, name = Uploads(self.node), Pushes(self.node), RepositoryName(repository)
        for digest, content in image.blobs.items():
            await uploads.put_blob(UNRESTRICTED, name, digest, _once(content))
        for part in walk(image):
            references = (part.digest, *(tags if part is image else ()))
            last = references[-1] if part is image else part.digest
            await pushes.put_manifest(UNRESTRICTED, name, parse_reference(last), part.manifest, part.media_type)
            for tag in tags[:-1] if part is image else ():
                await pushes.put_manifest(UNRESTRICTED, name, Tag(tag), part.manifest, part.media_type)

    async def delete(self, reference: str) -> None:
        """Delete a tag or an image at the node."""
        await Pushes(self.node).delete_manifest(UNRESTRICTED, REPOSITORY, parse_reference(reference))

    async def outcomes(self, count: int) -> list[str]:
        """Wait for so many attempts, and return how each ended."""

        async def made() -> bool:
            return len(self.recorder.attempts) >= count

        await self.changes.until(made)
        return self.recorder.outcomes()

    async def quiet(self) -> list[str]:
        """Wait until no job is left, and return how each attempt ended."""

        async def is_quiet() -> bool:
            return not await self.node.database.read(jobs.lane_counts(JobKind.REPLICATE))

        await self.changes.until(is_quiet)
        return self.recorder.outcomes()

    async def status(self, reference: str, repository: str = REPOSITORY) -> ReplicationStatus:
        """Return the status of an image that was pushed under one reference."""
        reader = ReplicationStatusReader(self.node.database, self.clock)
        (found,) = await reader.of_image(RepositoryName(repository), parse_reference(reference))
        return found


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@contextlib.asynccontextmanager
async def scene_of(
    directory: Path, registry: FakeRegistry, rule: ReplicationRule = RULE, **options: Any
) -> AsyncIterator[Scene]:
    """Run a node that replicates to a registry until the block ends; options are the client's."""
    clock, changes = FakeClock(), Changes()
    settings = RegistrySettings(NODE, replication_rules=(rule,))
    async with open_node(directory, clock, settings=settings) as node, client_of(registry, **options) as client:
        recorder = Recorder(changes)
        content = PullThroughContent(PullThrough(node, Pulls(node), (), {}, recorder))
        scene = Scene(node, registry, client, clock, recorder, changes)
        worker = ReplicationWorker(node, content, scene, recorder, jitter=lambda: 0.0)
        running = asyncio.create_task(worker.run())  # noqa: TID251 - ended below
        try:
            yield scene
            assert not running.done(), "the worker ended by itself"
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as one:
        yield one


@pytest.fixture
async def scene(tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Scene]:
    async with scene_of(tmp_path, registry) as one:
        yield one


class TestDelivery:
    @pytest.mark.parametrize("image", [IMAGE, INDEX, build_index([INDEX, IMAGE])])
    async def test_of_an_image_is_complete_when_all_of_it_is_there(
        self, scene: Scene, registry: FakeRegistry, image: Built
    ) -> None:
        await scene.push(image, TAG)
        assert set(await scene.quiet()) == {"complete"}
        held = registry.repository(REPOSITORY)
        assert {digest: held.blobs[digest] for digest in image.blobs} == dict(image.blobs)
        assert {part.digest for part in walk(image)} <= set(held.manifests)
        assert (await scene.status(image.digest)).status is ReplicationState.COMPLETE

    async def test_by_basic_credentials(self, tmp_path: Path) -> None:
        async with (
            FakeRegistry(basic=("ann", "correct-horse")) as registry,
            scene_of(tmp_path, registry, credentials=SECRET) as scene,
        ):
            await scene.push(IMAGE, TAG)
            assert await scene.outcomes(1) == ["complete"]
            assert registry.repository(REPOSITORY).tags == {TAG: IMAGE.digest}

    async def test_by_tokens_asks_for_no_more_than_it_does(self, tmp_path: Path) -> None:
        tokens = Tokens("ann", "correct-horse")
        async with FakeRegistry(tokens=tokens) as registry, scene_of(tmp_path, registry, credentials=SECRET) as scene:
            await scene.push(IMAGE, TAG)
            assert await scene.outcomes(1) == ["complete"]
            assert {scope for scopes in tokens.scopes for scope in scopes} == {
                "repository:team/app:pull",
                "repository:team/app:pull,push",
            }

    async def test_with_wrong_credentials_is_a_failure_with_its_reason(self, tmp_path: Path) -> None:
        async with (
            FakeRegistry(basic=("ann", "other")) as registry,
            scene_of(tmp_path, registry, credentials=SECRET) as scene,
        ):
            await scene.push(IMAGE, TAG)
            assert await scene.outcomes(1) == ["failed"]
            assert (await scene.status(TAG)).failure_code == "AccessDenied"

    async def test_of_a_tag_that_moves_takes_the_tag_from_whatever_the_registry_has(
        self, scene: Scene, registry: FakeRegistry
    ) -> None:
        registry.add_image(REPOSITORY, TAG, [b"somebody else's"])
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        assert registry.repository(REPOSITORY).tags == {TAG: IMAGE.digest}

    async def test_of_what_is_there_sends_nothing(self, scene: Scene, registry: FakeRegistry) -> None:
        registry.add(REPOSITORY, INDEX, TAG)
        await scene.push(INDEX, TAG)
        assert set(await scene.quiet()) == {"complete"}
        assert [request.method for request in registry.requests if request.method != "GET"] == []

    async def test_mounts_what_another_repository_has(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        await scene.push(IMAGE, TAG, repository="team/other")
        assert await scene.outcomes(2) == ["complete"] * 2
        assert registry.repository("team/other").blobs == dict(IMAGE.blobs)
        assert [one.sent for one in scene.recorder.replications][1] == 0

    async def test_to_a_repository_of_another_name(self, tmp_path: Path, registry: FakeRegistry) -> None:
        rule = replace(RULE, rename=(Rename("team/", "mirror/of/"),))
        async with scene_of(tmp_path, registry, rule) as scene:
            await scene.push(IMAGE, TAG)
            await scene.outcomes(1)
        assert list(registry.repositories) == ["mirror/of/app"]
        assert registry.repository("mirror/of/app").tags == {TAG: IMAGE.digest}

    async def test_of_some_platforms_where_the_registry_accepts_that(
        self, tmp_path: Path, registry: FakeRegistry
    ) -> None:
        rule = replace(RULE, platforms=(Platform("linux", "arm64"),), tags=("*",))
        async with scene_of(tmp_path, registry, rule) as scene:
            await scene.push(INDEX, TAG)
            assert await scene.outcomes(1) == ["complete"]
        held = registry.repository(REPOSITORY)
        assert set(held.manifests) == {INDEX.digest, INDEX.children[1].digest}
        assert held.manifests[INDEX.digest][0] == INDEX.manifest

    async def test_of_some_platforms_is_refused_with_its_own_reason(
        self, tmp_path: Path, registry: FakeRegistry
    ) -> None:
        rule = replace(RULE, platforms=(Platform("linux", "arm64"),), tags=("*",))
        body = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}'
        registry.faults.on(f"PUT */manifests/{INDEX.digest}", Fault(status=400, body=body))
        async with scene_of(tmp_path, registry, rule) as scene:
            await scene.push(INDEX, TAG)
            assert await scene.outcomes(1) == ["failed"]
            assert (await scene.status(TAG)).failure_code == "SparseIndexRefused"
        assert registry.repository(REPOSITORY).tags == {}


class TestReferrers:
    async def test_are_there_before_the_tag(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE)
        signature = build_image([b"signature"], artifact_type="application/vnd.test", subject=IMAGE)
        attestation = build_image([b"about it"], artifact_type="application/vnd.test", subject=signature)
        await scene.push(signature)
        await scene.push(attestation)
        await scene.outcomes(3)
        registry.repositories.clear()
        registry.requests.clear()
        await scene.push(IMAGE, TAG)
        await scene.outcomes(4)
        puts = [request.path.rpartition("/")[2] for request in registry.asked("PUT */manifests/*")]
        assert puts == [IMAGE.digest, signature.digest, attestation.digest, TAG]

    @pytest.mark.parametrize("lists_referrers", [True, False])
    async def test_are_listed_under_a_tag_where_the_registry_does_not_list_them(
        self, scene: Scene, registry: FakeRegistry, lists_referrers: bool
    ) -> None:
        registry.lists_referrers = lists_referrers
        referrers = [
            build_image([b"%d" % number], artifact_type=f"application/vnd.test{number}", subject=IMAGE)
            for number in range(3)
        ]
        await scene.push(IMAGE, TAG)
        for referrer in referrers:
            await scene.push(referrer)
        assert set(await scene.quiet()) == {"complete"}
        held = registry.repository(REPOSITORY)
        tag = IMAGE.digest.replace(":", "-")
        if lists_referrers:
            assert set(held.tags) == {TAG}
        else:
            index = json.loads(held.manifests[held.tags[tag]][0])
            listed = {(one["digest"], one["artifactType"], one["size"]) for one in index["manifests"]}
            assert listed == {
                (referrer.digest, f"application/vnd.test{number}", len(referrer.manifest))
                for number, referrer in enumerate(referrers)
            }

    async def test_are_not_listed_in_place_of_somebody_elses_image(self, scene: Scene, registry: FakeRegistry) -> None:
        registry.lists_referrers = False
        tag = IMAGE.digest.replace(":", "-")
        other = registry.add_image(REPOSITORY, tag, [b"somebody else's"])
        await scene.push(build_image([b"x"], artifact_type="application/vnd.test", subject=IMAGE))
        assert await scene.outcomes(1) == ["failed"]
        assert registry.repository(REPOSITORY).tags[tag] == other.digest


FAULTS = {
    "answers HTML": ("*", Fault(status=200, body=b"<html>welcome</html>", content_type="text/html")),
    "answers HTML to reads": ("GET *", Fault(status=200, body=b"<html>welcome</html>", content_type="text/html")),
    "gives blobs of another length": ("GET */blobs/*", Fault(status=200, body=b"short")),
    "gives no blobs": ("GET */blobs/*", Fault(status=404)),
    "gives another manifest": (
        f"GET */manifests/{IMAGE.digest}",
        Fault(body=INDEX.manifest, content_type=INDEX.media_type),
    ),
    "gives another image under the tag": (
        f"GET */manifests/{TAG}",
        Fault(body=INDEX.manifest, content_type=INDEX.media_type),
    ),
    "accepts what it does not take": ("PUT *", Fault(status=201)),
    "says that it mounted": ("POST *", Fault(status=201)),
}


class TestMisbehaviour:
    """What a registry says is not what it has."""

    @pytest.mark.parametrize("name", FAULTS)
    async def test_is_never_taken_for_success(self, scene: Scene, registry: FakeRegistry, name: str) -> None:
        pattern, fault = FAULTS[name]
        registry.faults.on("HEAD *", Fault(status=200, headers={"Docker-Content-Digest": IMAGE.digest}))
        registry.faults.on(pattern, fault)
        await scene.push(IMAGE, TAG)
        assert "complete" not in await scene.outcomes(1)
        assert (await scene.status(TAG)).status is ReplicationState.IN_PROGRESS

    async def test_by_losing_what_it_acknowledged_is_never_taken_for_success(
        self, scene: Scene, registry: FakeRegistry
    ) -> None:
        registry.acknowledges_and_loses = True
        await scene.push(IMAGE, TAG)
        assert await scene.outcomes(1) == ["retry"]

    async def test_that_ends_is_made_good(self, scene: Scene, registry: FakeRegistry) -> None:
        registry.acknowledges_and_loses = True
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        registry.acknowledges_and_loses = False
        await scene.clock.sleepers(2)
        scene.clock.advance(60)
        assert await scene.outcomes(2) == ["retry", "complete"]
        assert registry.repository(REPOSITORY).blobs == dict(IMAGE.blobs)

    async def test_of_sending_uploads_elsewhere_shows_nobody_our_credentials(self, tmp_path: Path) -> None:
        async with (
            FakeServer() as elsewhere,
            FakeRegistry(basic=("ann", "correct-horse")) as registry,
            scene_of(tmp_path, registry, credentials=SECRET) as scene,
        ):
            registry.upload_location = lambda path: elsewhere.url + path
            await scene.push(IMAGE, TAG)
            assert await scene.outcomes(1) == ["retry"]
            assert elsewhere.requests == []

    async def test_of_redirecting_what_we_send_is_not_followed(self, tmp_path: Path) -> None:
        async with (
            FakeServer() as elsewhere,
            FakeRegistry(basic=("ann", "correct-horse")) as registry,
            scene_of(tmp_path, registry, credentials=SECRET) as scene,
        ):
            registry.faults.on("PUT *", Fault(redirect=f"{elsewhere.url}/v2/"))
            await scene.push(IMAGE, TAG)
            assert "complete" not in await scene.outcomes(1)
            assert elsewhere.requests == []

    async def test_blobs_at_a_storage_host_are_read_back_without_credentials(self, tmp_path: Path) -> None:
        async with (
            FakeRegistry() as storage,
            FakeRegistry(basic=("ann", "correct-horse")) as registry,
            scene_of(tmp_path, registry, credentials=SECRET) as scene,
        ):
            storage.repositories = registry.repositories
            for digest in IMAGE.blobs:
                path = f"/v2/{REPOSITORY}/blobs/{digest}"
                registry.faults.on(f"GET {path}", Fault(redirect=storage.url + path))
            await scene.push(IMAGE, TAG)
            assert await scene.outcomes(1) == ["complete"]
            assert storage.count("GET */blobs/*") >= len(IMAGE.blobs)
            assert storage.authorizations() == []
            assert set(registry.authorizations()) == {basic("ann", "correct-horse")}

    async def test_a_tag_that_it_does_not_let_move_is_a_failure_with_its_reason(
        self, scene: Scene, registry: FakeRegistry
    ) -> None:
        body = b'{"errors":[{"code":"DENIED"}]}'
        registry.faults.on(f"PUT */manifests/{TAG}", Fault(status=412, body=body))
        await scene.push(IMAGE, TAG)
        assert await scene.outcomes(1) == ["failed"]
        assert (await scene.status(TAG)).failure_code == "RefusedByDestination"
        assert IMAGE.digest in registry.repository(REPOSITORY).manifests

    async def test_a_connection_that_breaks_within_a_blob_costs_what_was_not_taken(
        self, scene: Scene, registry: FakeRegistry
    ) -> None:
        large = build_image([bytes(range(256)) * 20_000])
        registry.upload_cuts = [2_000_000]
        await scene.push(large, TAG)
        assert await scene.outcomes(1) == ["complete"]
        assert registry.repository(REPOSITORY).blobs == dict(large.blobs)
        ranges = [request.headers["content-range"] for request in registry.asked("PATCH *")]
        assert ranges == ["0-5119999", "2000000-5119999"]


class TestDeletion:
    @pytest.fixture
    async def scene(self, tmp_path: Path, registry: FakeRegistry) -> AsyncIterator[Scene]:
        async with scene_of(tmp_path, registry, replace(RULE, delete_replication=True)) as one:
            yield one

    async def test_of_a_tag_leaves_the_image(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        await scene.delete(TAG)
        assert await scene.outcomes(2) == ["complete", "deleted"]
        assert registry.repository(REPOSITORY).tags == {}
        assert IMAGE.digest in registry.repository(REPOSITORY).manifests

    async def test_of_an_image_takes_it_away(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        await scene.delete(IMAGE.digest)
        await scene.outcomes(3)
        assert registry.repository(REPOSITORY).tags == {}
        assert IMAGE.digest not in registry.repository(REPOSITORY).manifests

    async def test_of_a_tag_that_somebody_else_set_leaves_it(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        other = registry.add_image(REPOSITORY, TAG, [b"somebody else's"])
        await scene.delete(TAG)
        await scene.outcomes(2)
        assert registry.repository(REPOSITORY).tags == {TAG: other.digest}

    async def test_that_the_registry_does_not_support_is_told(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        registry.deletes_tags = False
        await scene.delete(TAG)
        assert await scene.outcomes(2) == ["complete", "failed"]

    @pytest.mark.parametrize("status", [202, 200])
    async def test_that_the_registry_only_claims_is_not_believed(
        self, scene: Scene, registry: FakeRegistry, status: int
    ) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        registry.faults.on("DELETE *", Fault(status=status))
        await scene.delete(TAG)
        assert await scene.outcomes(2) == ["complete", "retry"]

    async def test_of_what_is_gone_already_is_done(self, scene: Scene, registry: FakeRegistry) -> None:
        await scene.push(IMAGE, TAG)
        await scene.outcomes(1)
        registry.repositories.clear()
        await scene.delete(IMAGE.digest)
        assert "failed" not in await scene.outcomes(3)
