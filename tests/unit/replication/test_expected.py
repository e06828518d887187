"""What the rules say a destination should hold: tags, referrers, what was sent before; and what only travels along."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.manifest import parse_manifest
from replicator.core.names import RepositoryName, Tag
from replicator.core.platforms import Platform
from replicator.core.principal import UNRESTRICTED
from replicator.core.replication import Origin, Rename, ReplicateImage, ReplicationRule, ReplicationState
from replicator.core.revisions import write
from replicator.registry.pushes import Pushes
from replicator.replication.expected import Expectation
from replicator.storage.metadata import images, replication_status, tags
from tests.support.images import build_image, build_index
from tests.unit.replication.conftest import AP, EU, REPOSITORY, SOURCE

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import NodeId
    from replicator.core.reference import Reference
    from replicator.replication.expected import ExpectedImage
    from replicator.storage.metadata.statement import Steps
    from tests.unit.replication.conftest import Scene

IMAGE, OTHER = build_image([b"image"]), build_image([b"other"])
AMD64 = build_image([b"amd64"])
ARM64 = build_image([b"arm64"], platform=("linux", "arm64"))
INDEX = build_index([AMD64, ARM64])
EVERYTHING = ReplicationRule("everything", (EU, AP))


def _rules(scene: Scene, *rules: ReplicationRule) -> None:
    scene.registry.settings = replace(scene.registry.settings, replication_rules=rules)


async def _expected(scene: Scene, destination: NodeId = EU, page_size: int = 2) -> list[ExpectedImage]:
    expectation = Expectation(scene.registry.settings, destination)
    found: list[ExpectedImage] = []
    after: str | None = ""
    while after is not None:
        page = await scene.database.read(expectation.page(REPOSITORY, after, page_size))
        found += page.images
        after = page.after
    return found


async def _places(scene: Scene, destination: NodeId = EU) -> set[tuple[Digest, Tag | None]]:
    found = await _expected(scene, destination)
    places = {(one.digest, one.tag) for one in found}
    assert len(places) == len(found)
    return places


async def _delete(scene: Scene, reference: Reference) -> None:
    await Pushes(scene.registry).delete_manifest(UNRESTRICTED, REPOSITORY, reference)


@pytest.fixture
def scene(scene: Scene) -> Scene:
    _rules(scene)
    return scene


async def test_tags_are_whether_or_not_they_were_ever_sent(scene: Scene) -> None:
    await scene.push(IMAGE, "v1", "v2")
    await scene.push(OTHER, "dev")
    assert await _places(scene) == set()
    _rules(scene, EVERYTHING)
    assert await _places(scene) == {(IMAGE.digest, "v1"), (IMAGE.digest, "v2"), (OTHER.digest, "dev")}
    _rules(scene, ReplicationRule("some", (EU,), tags=("v*",), excluded_tags=("v2",)))
    assert await _places(scene) == {(IMAGE.digest, "v1")}
    assert await _places(scene, AP) == set()
    _rules(scene, ReplicationRule("other", (EU,), filters=("elsewhere/",)))
    assert await _places(scene) == set()


async def test_the_first_rule_counts_and_says_under_which_name(scene: Scene) -> None:
    await scene.push(IMAGE, "v1")
    await scene.push(OTHER, "dev")
    releases = ReplicationRule("releases", (EU,), tags=("v*",), rename=(Rename("team/", "released/"),))
    _rules(scene, releases, EVERYTHING)
    found = {(one.tag, one.rule.name, one.target) for one in await _expected(scene)}
    assert found == {("v1", "releases", "released/app"), ("dev", "everything", "team/app")}
    assert Expectation(scene.registry.settings, EU).targets(REPOSITORY) == ("released/app", "team/app")


async def test_an_image_without_a_tag_only_if_it_was_sent(scene: Scene) -> None:
    await scene.push(OTHER)
    _rules(scene, EVERYTHING)
    await scene.push(IMAGE)
    assert await _places(scene) == {(IMAGE.digest, None)}
    expectation = Expectation(scene.registry.settings, EU)
    assert await scene.database.read(expectation.of_image(REPOSITORY, OTHER.digest)) == ()
    (asked,) = await scene.database.read(expectation.of_image(REPOSITORY, OTHER.digest, asked_for=True))
    assert (asked.digest, asked.tag) == (OTHER.digest, None)


@pytest.mark.parametrize(
    ("status", "code", "is_expected"),
    [
        (ReplicationState.COMPLETE, None, True),
        (ReplicationState.FAILED, "Superseded", False),
        (ReplicationState.FAILED, "AccessDenied", False),
    ],
)
async def test_an_image_that_lost_its_tag_stays_where_it_had_arrived(
    scene: Scene, status: ReplicationState, code: str | None, *, is_expected: bool
) -> None:
    await scene.push(IMAGE, "v1")
    name, digest = ReplicateImage(REPOSITORY, IMAGE.digest, Tag("v1"), EU, "everything"), IMAGE.digest
    await scene.database.write(lambda: replication_status.start(name, 0.0))
    await scene.database.write(lambda: replication_status.settle(name, status, 0.0, 0, code))
    await scene.push(OTHER, "v1")
    _rules(scene, EVERYTHING)
    assert await _places(scene) == {(OTHER.digest, "v1"), *([(digest, None)] if is_expected else [])}


async def test_images_of_an_index_travel_with_it(scene: Scene) -> None:
    await scene.push(INDEX, "v1")
    _rules(scene, EVERYTHING)
    found = {one.digest: one for one in await _expected(scene)}
    assert set(found) == {INDEX.digest, AMD64.digest, ARM64.digest}
    assert found[INDEX.digest].carrier is None
    for child in (AMD64, ARM64):
        assert found[child.digest].carrier == (INDEX.digest, "v1")
        assert found[child.digest].replication == found[INDEX.digest].replication
    _rules(scene, ReplicationRule("tagged", (EU,), tags=("release-*",)))
    assert await _places(scene) == set()
    _rules(scene, ReplicationRule("sparse", (EU,), platforms=(Platform("linux", "amd64"),)))
    assert await _places(scene) == {(INDEX.digest, "v1")}


async def test_referrers_go_where_their_subject_goes(scene: Scene) -> None:
    wanted, unwanted, of_child = (
        build_image([b"signature"], subject=subject, artifact_type="application/vnd.example.signature")
        for subject in (IMAGE, OTHER, AMD64)
    )
    attestation = build_image([b"more"], subject=wanted, artifact_type="application/vnd.example.attestation")
    await scene.push(IMAGE, "v1")
    await scene.push(OTHER, "dev")
    await scene.push(INDEX, "v2")
    for referrer in (wanted, unwanted, of_child, attestation):
        await scene.push(referrer)
    _rules(scene, ReplicationRule("releases", (EU,), tags=("v*",)))
    found = {one.digest for one in await _expected(scene)}
    assert {wanted.digest, of_child.digest, attestation.digest} <= found
    assert unwanted.digest not in found


async def test_replicas_go_on_only_by_a_rule_that_chains_and_not_back(scene: Scene) -> None:
    await scene.push(IMAGE, "v1")

    def came_from_eu() -> Steps[None]:
        stored = yield from images.find(REPOSITORY, IMAGE.digest)
        assert stored is not None
        register = yield from images.find_register(REPOSITORY, IMAGE.digest)
        assert register is not None
        yield from images.delete(REPOSITORY, IMAGE.digest)
        parsed = images.StoredImage(stored, parse_manifest(stored.content, stored.media_type), Origin.REPLICA)
        yield from images.put_register(REPOSITORY, parsed, register.revision, 0.0, EU)

    await scene.database.write(came_from_eu)
    _rules(scene, EVERYTHING)
    assert await _places(scene, AP) == set()
    _rules(scene, replace(EVERYTHING, chain=True))
    assert await _places(scene, AP) == {(IMAGE.digest, "v1")}
    assert await _places(scene, EU) == set()


async def test_a_tag_that_another_node_set_goes_on_only_by_a_rule_that_chains(scene: Scene) -> None:
    """Also where its image was pushed here as well: one hop."""
    await scene.push(IMAGE, "v1", "v2")
    _rules(scene, EVERYTHING)
    found = await scene.database.read(tags.find(REPOSITORY, Tag("v2")))
    assert found is not None
    theirs = write(found, IMAGE.digest, AP, 1_800_000_000.0)
    await scene.database.write(lambda: tags.set_register(REPOSITORY, Tag("v2"), theirs, 1.0))
    assert await _places(scene) == {(IMAGE.digest, "v1")}
    _rules(scene, replace(EVERYTHING, chain=True))
    assert await _places(scene) == {(IMAGE.digest, "v1"), (IMAGE.digest, "v2")}


async def test_deletions_only_where_a_rule_replicates_them(scene: Scene) -> None:
    await scene.push(IMAGE, "v1")
    await scene.push(OTHER, "dev")
    await _delete(scene, IMAGE.digest)
    await _delete(scene, Tag("dev"))
    rule = ReplicationRule("deleting", (EU,), tags=("v*",), delete_replication=True)
    for rules, deleted_images, deleted_tags in (
        ((EVERYTHING,), [], []),
        ((rule,), [IMAGE.digest], ["v1"]),
        ((replace(rule, tags=()),), [IMAGE.digest], ["dev", "v1"]),
    ):
        _rules(scene, *rules)
        expectation = Expectation(scene.registry.settings, EU)
        found, _ = await scene.database.read(expectation.deletions(REPOSITORY, "", 10))
        gone, _ = await scene.database.read(expectation.tag_deletions(REPOSITORY, "", 10))
        assert [one.digest for one in found] == deleted_images
        assert [one.tag for one in gone] == deleted_tags


async def test_a_renaming_that_makes_no_name_sends_nothing(scene: Scene) -> None:
    await scene.push(IMAGE, "v1")
    _rules(scene, ReplicationRule("bad", (EU,), rename=(Rename("team/app", ""),)))
    assert Expectation(scene.registry.settings, EU).targets(RepositoryName(REPOSITORY)) == ()
    assert await _places(scene) == set()


def test_this_node_is_no_destination_of_its_own(scene: Scene) -> None:
    _rules(scene, EVERYTHING)
    assert Expectation(scene.registry.settings, SOURCE).rules == ()
