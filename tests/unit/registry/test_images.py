"""What a batch of images says of pulls that fail, and of images that were stored before their sizes were."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from replicator.core import errors
from replicator.core.image_requests import FailureCode, RequestedImage
from replicator.core.manifest import parse_manifest
from replicator.core.names import Tag
from replicator.core.principal import UNRESTRICTED
from replicator.registry.images import Images
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.storage.metadata.image_details import Position, Selection
from replicator.storage.metadata.schema import images
from replicator.storage.metadata.statement import Statement
from tests.support.images import build_image, build_index
from tests.support.replica_scene import REPOSITORY

if TYPE_CHECKING:
    from replicator.core.cache_status import PullTrace
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import StoredManifest
    from tests.support.replica_scene import Scene

ONE, TWO = build_image([b"1"]), build_image([b"22"])
V1 = RequestedImage(tag="v1")


class FailingPulls(Pulls):
    """A source whose pulls fail as those of a cache do."""

    def __init__(self, node: RegistryNode, error: errors.ReplicatorError) -> None:
        super().__init__(node)
        self._error = error

    async def get_manifest(
        self,
        principal: Principal,
        repository: RepositoryName,
        reference: Reference,
        trace: PullTrace | None = None,
    ) -> StoredManifest:
        raise self._error


def images_of(scene: Scene, error: errors.ReplicatorError | None = None) -> Images:
    node = scene.node
    return Images(node, Pushes(node), Pulls(node) if error is None else FailingPulls(node, error))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ManifestNotFound(), FailureCode.NOT_FOUND),
        (errors.UpstreamNotFound(), FailureCode.NOT_FOUND),
        (errors.ImageInaccessible(), FailureCode.INACCESSIBLE),
        (errors.UpstreamDenied(), FailureCode.UPSTREAM_DENIED),
        (errors.Denied(), FailureCode.UPSTREAM_DENIED),
        (errors.UpstreamThrottled(), FailureCode.UPSTREAM_THROTTLED),
        (errors.UpstreamTimeout(), FailureCode.UPSTREAM_UNAVAILABLE),
        (errors.UpstreamContent(), FailureCode.UPSTREAM_UNAVAILABLE),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else str(one),
)
async def test_a_pull_that_fails_is_a_failure_of_one_image(
    scene: Scene, error: errors.ReplicatorError, code: FailureCode
) -> None:
    await scene.push(ONE, Tag("v1"))
    found, failures = await images_of(scene, error).get(UNRESTRICTED, REPOSITORY, [V1])
    assert found == []
    assert [(one.image, one.code) for one in failures] == [(V1, code)]


async def test_credentials_that_cannot_be_had_fail_the_whole_call(scene: Scene) -> None:
    batch = images_of(scene, errors.CredentialsUnavailable("hub: no password"))
    with pytest.raises(errors.CredentialsUnavailable, match="issue getting the upstream image"):
        await batch.get(UNRESTRICTED, REPOSITORY, [V1])


async def test_images_that_were_stored_before_their_sizes_were_are_measured(scene: Scene) -> None:
    inner = build_index([ONE, TWO])
    outer = build_index([inner])
    for built in (ONE, TWO, inner, outer):
        await scene.push(built)
    await scene.node.database.write(Statement(sa.update(images).values(size=None)))
    found = await images_of(scene).list_details(REPOSITORY, Selection(), Position(), 9)
    sizes = {one.digest: one.size for one in found}
    layers = {built.digest: sum(one.size for one in parse_manifest(built.manifest).layers) for built in (ONE, TWO)}
    assert sizes == {**layers, inner.digest: layers[TWO.digest], outer.digest: layers[TWO.digest]}
