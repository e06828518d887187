"""Three regions of two accounts: what is pushed to one arrives in the others, whole and with the same digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon
from tests.support.http_calls import call, get, push_blob, sha256
from tests.support.images import Built, build_index, walk
from tests.support.layouts import container_image, write_oci_layout
from tests.support.metrics import samples, total
from tests.support.regions import AP, EU, US, three_regions
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.skopeo import Skopeo

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("regions")]

ONE = container_image([{"etc/name": b"one"}, {"etc/shared": b"shared" * 5000}])
TWO = container_image([{"etc/name": b"two"}, {"etc/shared": b"shared" * 5000}])
ARM = container_image([{"etc/name": b"arm"}], platform=("linux", "arm64"))
MULTI = build_index([ONE, ARM])
EU_NODE, AP_NODE = f"111122223333/{EU}", f"444455556666/{AP}"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), three_regions()) as running:
        yield running


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("layout")
    write_oci_layout(directory, {"one": ONE, "two": TWO, "multi": MULTI})
    return f"oci:{directory}"


def digest_of(daemon: Daemon, region: str, repository: str, reference: str) -> str | None:
    """Return what a reference stands for in a region; None when it is not there."""
    answer = call("HEAD", daemon.url(f"/v2/{repository}/manifests/{reference}", region))
    return answer.headers["Docker-Content-Digest"] if answer.status == 200 else None


def wait_for(daemon: Daemon, regions: tuple[str, ...], repository: str, tag: str, digest: str) -> None:
    """Wait until a tag stands for a digest in all these regions."""
    for region in regions:
        eventually(
            lambda region=region: digest_of(daemon, region, repository, tag) == digest,  # type: ignore[misc]
            f"{repository}:{tag} to be {digest} in {region}",
        )


def assert_complete(daemon: Daemon, region: str, repository: str, built: Built) -> None:
    """Check that a region serves every manifest and every blob, byte by byte."""
    for manifest in walk(built):
        found = get(daemon.url(f"/v2/{repository}/manifests/{manifest.digest}", region))
        assert (found.status, found.body) == (200, manifest.manifest)
        assert found.headers["Content-Type"] == manifest.media_type
    for digest, content in built.blobs.items():
        assert get(daemon.url(f"/v2/{repository}/blobs/{digest}", region)).body == content


def test_an_image_arrives_in_the_other_regions(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    skopeo.copy(f"{layout}:one", f"docker://{daemon.address(US)}/team-a/app:1.0")
    wait_for(daemon, (EU, AP), "team-a/app", "1.0", ONE.digest)
    for region in (EU, AP):
        assert_complete(daemon, region, "team-a/app", ONE)
        assert skopeo.inspect(f"docker://{daemon.address(region)}/team-a/app:1.0")["Digest"] == ONE.digest


def test_an_index_arrives_with_all_platforms(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    image = f"docker://{daemon.address(US)}/team-a/multi:1.0"
    skopeo.copy(f"{layout}:multi", image, "--all", "--preserve-digests")
    wait_for(daemon, (EU, AP), "team-a/multi", "1.0", MULTI.digest)
    for region in (EU, AP):
        assert_complete(daemon, region, "team-a/multi", MULTI)


def test_a_moved_tag_moves_everywhere(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    for name, image in (("one", ONE), ("two", TWO)):
        skopeo.copy(f"{layout}:{name}", f"docker://{daemon.address(US)}/team-a/moving:latest")
        wait_for(daemon, (EU, AP), "team-a/moving", "latest", image.digest)
    assert_complete(daemon, AP, "team-a/moving", TWO)


def test_a_rule_of_another_region_goes_the_other_way(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    skopeo.copy(f"{layout}:two", f"docker://{daemon.address(EU)}/eu-services/app:1.0")
    wait_for(daemon, (US,), "eu-services/app", "1.0", TWO.digest)
    assert digest_of(daemon, AP, "eu-services/app", "1.0") is None


def test_what_no_rule_covers_stays_where_it_is(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    skopeo.copy(f"{layout}:one", f"docker://{daemon.address(US)}/private/app:1.0")
    # What is pushed later has arrived, so the earlier push would have.
    skopeo.copy(f"{layout}:two", f"docker://{daemon.address(US)}/demo/later:1.0")
    wait_for(daemon, (EU, AP), "demo/later", "1.0", TWO.digest)
    assert digest_of(daemon, EU, "private/app", "1.0") is None
    assert digest_of(daemon, AP, "private/app", "1.0") is None


def test_many_images_that_share_a_layer_arrive_with_few_bytes(daemon: Daemon, skopeo: Skopeo, layout: str) -> None:
    before = total(daemon, "replicator_replication_bytes_total", destination=EU_NODE)
    skopeo.copy(f"{layout}:one", f"docker://{daemon.address(US)}/team-a/again:1.0")
    wait_for(daemon, (EU,), "team-a/again", "1.0", ONE.digest)
    assert_complete(daemon, EU, "team-a/again", ONE)
    # Every blob is there already, in another repository.
    assert total(daemon, "replicator_replication_bytes_total", destination=EU_NODE) - before <= len(ONE.manifest)


def test_the_lag_is_measured(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    skopeo.copy(f"{layout}:one", f"docker://{daemon.address(US)}/team-a/measured:1.0")
    wait_for(daemon, (EU, AP), "team-a/measured", "1.0", ONE.digest)

    def measured(destination: str) -> float:
        labels = {"rule": "team-a", "destination": destination}
        return total(daemon, "replicator_replication_lag_seconds_count", **labels)

    for destination in (EU_NODE, AP_NODE):
        eventually(lambda destination=destination: measured(destination) > 0, f"the lag of {destination}")  # type: ignore[misc]
    sums = samples(daemon, "replicator_replication_lag_seconds_sum", rule="team-a")
    assert all(0 <= value < 20 for value in sums.values())


def test_a_blob_that_no_manifest_names_is_not_sent(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    assert push_blob(daemon.url("", US), "team-a/loose", b"nobody names this").status == 201
    skopeo.copy(f"{layout}:two", f"docker://{daemon.address(US)}/team-a/loose:1.0")
    wait_for(daemon, (EU,), "team-a/loose", "1.0", TWO.digest)
    digest = sha256(b"nobody names this")
    assert get(daemon.url(f"/v2/team-a/loose/blobs/{digest}", EU)).status == 404
