"""Images pushed to a node arrive, by rule, in registries of another make: whole, and with the same digests."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName
from replicator.telemetry.system_clock import SystemClock
from replicator.upstream.client import open_client
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.daemon import Daemon, node
from tests.support.docker_registry import DockerRegistry, Htpasswd
from tests.support.http_calls import call, push_blob, push_manifest
from tests.support.images import build_image, build_index
from tests.support.layouts import container_image, write_oci_layout
from tests.support.skopeo import Skopeo, SkopeoFailed
from tests.support.token_server import TokenServer
from tests.support.waiting import eventually
from tests.support.wires import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("foreign-destination")]

USER, PASSWORD = "pusher", "a-destination-password"
KINDS = ("plain", "basic", "token")

AMD64 = container_image([{"etc/name": b"amd64"}, {"etc/shared": b"shared" * 5000}])
ARM64 = container_image([{"etc/name": b"arm64"}, {"etc/shared": b"shared" * 5000}], platform=("linux", "arm64"))
MULTI = build_index([AMD64, ARM64])
LARGE = container_image([{"blob": bytes(range(256)) * 40_000}])
NEWER = container_image([{"etc/name": b"newer"}])


class Scene:
    """A node, and a registry of each kind that its rules send everything to."""

    def __init__(self, daemon: Daemon, registries: dict[str, DockerRegistry], skopeo: Skopeo, layout: str) -> None:
        self.daemon = daemon
        self.registries = registries
        self.skopeo = skopeo
        self._layout = layout

    def push(self, name: str, image: str) -> None:
        """Push an image of the layout to the node."""
        self.skopeo.copy(f"{self._layout}:{name}", f"docker://{self.daemon.address()}/{image}", "--all")

    def options(self, kind: str, verb: str = "--creds") -> list[str]:
        """Return the options with which skopeo may use a registry."""
        return [] if kind == "plain" else [verb, f"{USER}:{PASSWORD}"]

    def image(self, kind: str, image: str) -> str:
        """Return what skopeo calls an image of a registry."""
        return f"docker://{self.registries[kind].address}/mirror/{image}"

    def digest(self, kind: str, image: str) -> str | None:
        """Return the digest that a registry gives under a tag, by the bytes of the manifest."""
        try:
            content = self.skopeo.manifest(self.image(kind, image), *self.options(kind))
        except SkopeoFailed:
            return None
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def wait_for(self, image: str, digest: str) -> None:
        """Wait until a tag gives a digest in every registry."""
        for kind in KINDS:
            eventually(
                lambda kind=kind: self.digest(kind, image) == digest,  # type: ignore[misc]
                f"{image} to be {digest} in the {kind} registry",
            )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, skopeo: Skopeo) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("foreign")
    layout = directory / "layout"
    write_oci_layout(layout, {"multi": MULTI, "large": LARGE, "newer": NEWER})
    with (
        TokenServer({USER: PASSWORD}) as tokens,
        DockerRegistry(directory / "plain") as plain,
        DockerRegistry(directory / "basic", Htpasswd(USER, PASSWORD)) as basic,
        DockerRegistry(directory / "token", tokens) as token,
    ):
        registries = {"plain": plain, "basic": basic, "token": token}
        realm = urlsplit(tokens.realm).netloc
        document = _document(registries, realm)
        with Daemon(directory / "daemon", document, {"DESTINATION_PASSWORD": PASSWORD}) as daemon:
            yield Scene(daemon, registries, skopeo, f"oci:{layout}")


def _document(registries: dict[str, DockerRegistry], realm: str) -> dict[str, Any]:
    settings = node("us-east-1")
    targets = [{"registry": kind} for kind in registries]
    rename = [{"prefix": "team/", "to": "mirror/team/"}]
    settings["replication"] = {
        "rules": [
            {"name": "to-others", "destinations": targets, "rename": rename, "delete_replication": True},
        ]
    }
    return {"nodes": [settings], "registries": [_registry(kind, one, realm) for kind, one in registries.items()]}


def _registry(kind: str, registry: DockerRegistry, realm: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": kind, "url": registry.url}
    if kind != "plain":
        found["credentials"] = {"username": USER, "password": {"env": "DESTINATION_PASSWORD"}}
    return found | ({"realm_hosts": [realm]} if kind == "token" else {})


def test_an_index_arrives_everywhere_with_its_digest(scene: Scene) -> None:
    scene.push("multi", "team/app:v1")
    scene.wait_for("team/app:v1", MULTI.digest)


@pytest.mark.parametrize("kind", KINDS)
def test_what_arrived_is_whole_for_another_client(scene: Scene, tmp_path: Path, kind: str) -> None:
    scene.push("large", "team/large:v1")
    scene.wait_for("team/large:v1", LARGE.digest)
    copy = f"oci:{tmp_path}/copy"
    scene.skopeo.copy(scene.image(kind, "team/large:v1"), f"{copy}:v1", *scene.options(kind, "--src-creds"))
    assert scene.skopeo.manifest(f"{copy}:v1") == LARGE.manifest
    found = scene.skopeo.inspect(scene.image(kind, "team/large:v1"), *scene.options(kind))
    assert found["Digest"] == LARGE.digest
    assert tuple(found["Layers"]) == LARGE.layers


def test_a_tag_follows_and_is_back_after_the_registry_was_down(scene: Scene) -> None:
    scene.push("large", "team/moving:latest")
    scene.wait_for("team/moving:latest", LARGE.digest)
    scene.registries["basic"].stop()
    scene.push("newer", "team/moving:latest")
    eventually(lambda: scene.digest("plain", "team/moving:latest") == NEWER.digest, "the tag to move elsewhere")
    scene.registries["basic"].start()
    scene.wait_for("team/moving:latest", NEWER.digest)


def test_a_deleted_image_goes(scene: Scene) -> None:
    scene.push("newer", "team/short-lived:v1")
    scene.wait_for("team/short-lived:v1", NEWER.digest)
    url = scene.daemon.url(f"/v2/team/short-lived/manifests/{NEWER.digest}")
    assert call("DELETE", url).status == 202
    for kind in KINDS:
        eventually(
            lambda kind=kind: scene.digest(kind, "team/short-lived:v1") is None,  # type: ignore[misc]
            f"the image to be gone from the {kind} registry",
        )


def test_no_password_is_in_what_the_daemon_says(scene: Scene) -> None:
    assert PASSWORD not in scene.daemon.output()


async def test_a_blob_whose_connection_breaks_arrives_in_the_same_attempt(scene: Scene) -> None:
    content = bytes(range(256)) * 80_000
    digest, repository = digest_of(content), RepositoryName("cut/app")
    starts: list[int] = []

    async def pieces(start: int) -> AsyncIterator[bytes]:
        starts.append(start)
        for offset in range(start, len(content), 100_000):
            yield content[offset : offset + 100_000]

    async with Wire(urlsplit(scene.registries["plain"].url).port or 0) as wire:
        client = open_client(UpstreamEndpoint("plain", wire.url), SystemClock())
        try:
            wire.cut_after(9_000_000)
            assert await client.put_blob(repository, digest, len(content), pieces)
            assert len(starts) > 1
            assert await client.holds_blob(repository, digest, len(content))
        finally:
            await client.close()


def test_a_referrer_is_found_where_clients_look_for_it(scene: Scene) -> None:
    """The registry does not list referrers by itself, so they are listed under the tag that the specification names."""
    scene.push("newer", "team/signed:v1")
    signature = build_image([b"signature"], artifact_type="application/vnd.test.signature", subject=NEWER)
    for content in signature.blobs.values():
        assert push_blob(scene.daemon.url(""), "team/signed", content).status == 201
    put = push_manifest(scene.daemon.url(""), "team/signed", signature.digest, signature.manifest, signature.media_type)
    assert put.status == 201
    image = scene.image("basic", f"team/signed:{NEWER.digest.replace(':', '-')}")
    eventually(
        lambda: signature.digest in _listed(scene, image),
        "the signature to be listed",
    )


def _listed(scene: Scene, image: str) -> list[str]:
    try:
        index = json.loads(scene.skopeo.manifest(image, *scene.options("basic")))
    except SkopeoFailed:
        return []
    return [one["digest"] for one in index["manifests"]]
