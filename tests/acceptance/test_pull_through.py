"""Images of another registry are pulled through a prefix once, kept, and served when that registry is gone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.daemon import Daemon, node
from tests.support.docker_registry import DockerRegistry, Htpasswd
from tests.support.http_calls import get, sha256
from tests.support.images import build_index
from tests.support.layouts import container_image, write_oci_layout
from tests.support.metrics import total
from tests.support.skopeo import Skopeo, SkopeoFailed
from tests.support.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("pull-through")]

USER, PASSWORD = "puller", "an-upstream-password"

AMD64 = container_image([{"etc/name": b"amd64"}, {"etc/shared": b"shared" * 5000}])
ARM64 = container_image([{"etc/name": b"arm64"}, {"etc/shared": b"shared" * 5000}], platform=("linux", "arm64"))
MULTI = build_index([AMD64, ARM64])
NEWER = container_image([{"etc/name": b"newer"}])


class Upstreams:
    """A registry of each kind, with the same images in all of them."""

    def __init__(self, registries: dict[str, DockerRegistry], tokens: dict[str, TokenServer]) -> None:
        self.registries = registries
        self.tokens = tokens

    def __getitem__(self, kind: str) -> DockerRegistry:
        return self.registries[kind]

    def options(self, kind: str) -> list[str]:
        """Return the options with which skopeo may push to a registry."""
        return [] if kind == "plain" else ["--dest-creds", f"{USER}:{PASSWORD}"]

    def settings(self, kind: str) -> dict[str, Any]:
        """Return the configuration of a registry as an upstream."""
        found: dict[str, Any] = {"name": kind, "url": self[kind].url, "connect_timeout": "2s"}
        if kind != "plain":
            found["credentials"] = {"username": USER, "password": {"env": "UPSTREAM_PASSWORD"}}
        if kind in self.tokens:
            found["realm_hosts"] = [urlsplit(self.tokens[kind].realm).netloc]
        return found


KINDS = ("plain", "htpasswd", "token-es256", "token-rs256")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("layout")
    write_oci_layout(directory, {"multi": MULTI, "one": AMD64, "newer": NEWER})
    return f"oci:{directory}"


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    directory = tmp_path_factory.mktemp("upstreams")
    with contextlib.ExitStack() as stack:
        tokens = {
            "token-es256": stack.enter_context(TokenServer({USER: PASSWORD}, algorithm="ES256")),
            "token-rs256": stack.enter_context(TokenServer({USER: PASSWORD}, algorithm="RS256")),
        }
        auth = {"plain": None, "htpasswd": Htpasswd(USER, PASSWORD), **tokens}
        registries = {kind: stack.enter_context(DockerRegistry(directory / kind, auth[kind])) for kind in KINDS}
        yield Upstreams(registries, tokens)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, upstreams: Upstreams) -> Iterator[Daemon]:
    document = {
        "upstreams": [upstreams.settings(kind) for kind in KINDS],
        "nodes": [node(cache={"rules": [{"prefix": kind, "upstream": kind, "fresh_for": "1h"} for kind in KINDS]})],
    }
    with Daemon(tmp_path_factory.mktemp("daemon"), document, {"UPSTREAM_PASSWORD": PASSWORD}) as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_downloaded_once(
    kind: str, daemon: Daemon, upstreams: Upstreams, layout: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    source = upstreams[kind]
    skopeo.copy(
        f"{layout}:multi",
        f"docker://{source.address}/library/app:1.0",
        *("--all", "--preserve-digests"),
        *upstreams.options(kind),
    )
    image = f"docker://{daemon.address()}/{kind}/library/app:1.0"
    skopeo.copy(image, f"oci:{tmp_path / 'cold'}:app", "--all", "--preserve-digests")
    downloads = source.blob_downloads()
    assert sorted(path.rpartition("/")[2] for path in downloads) == sorted(MULTI.blobs)

    skopeo.copy(image, f"oci:{tmp_path / 'warm'}:app", "--all", "--preserve-digests")
    assert source.blob_downloads() == downloads
    for pulled in ("cold", "warm"):
        assert skopeo.manifest(f"oci:{tmp_path / pulled}:app") == MULTI.manifest
    assert total(daemon, "replicator_cache_requests_total", rule=kind, result="miss") > 0
    assert total(daemon, "replicator_cache_requests_total", rule=kind, result="hit") > 0


@pytest.mark.parametrize("kind", ["token-es256", "token-rs256"])
def test_the_token_service_is_shown_the_credentials_and_asked_to_pull(
    kind: str, daemon: Daemon, upstreams: Upstreams, layout: str, skopeo: Skopeo
) -> None:
    repository = f"docker://{upstreams[kind].address}/library/asked"
    skopeo.copy(f"{layout}:one", f"{repository}:1.0", *upstreams.options(kind))
    seen = len(upstreams.tokens[kind].requests)
    assert get(daemon.url(f"/v2/{kind}/library/asked/manifests/1.0")).body == AMD64.manifest
    asked = upstreams.tokens[kind].requests[seen:]
    assert [(one.username, one.granted) for one in asked] == [(USER, True)]
    assert asked[0].scopes == ("repository:library/asked:pull",)


def test_a_token_service_that_was_not_configured_gets_nothing(upstreams: Upstreams, tmp_path: Path) -> None:
    tokens = upstreams.tokens["token-es256"]
    distrusting = {**upstreams.settings("token-es256"), "realm_hosts": []}
    rules = [{"prefix": "distrusted", "upstream": "token-es256"}]
    document = {"upstreams": [distrusting], "nodes": [node(cache={"rules": rules})]}
    with Daemon(tmp_path / "daemon", document, {"UPSTREAM_PASSWORD": PASSWORD}) as daemon:
        seen = len(tokens.requests)
        assert get(daemon.url("/v2/distrusted/library/app/manifests/1.0")).status == 502
        assert tokens.requests[seen:] == []


def test_what_the_upstream_does_not_have_is_unknown(daemon: Daemon, skopeo: Skopeo) -> None:
    with pytest.raises(SkopeoFailed, match="unknown"):
        skopeo.manifest(f"docker://{daemon.address()}/plain/library/nothing:1.0")


def test_a_cached_image_outlives_its_upstream(
    daemon: Daemon, upstreams: Upstreams, layout: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    source = upstreams["plain"]
    skopeo.copy(f"{layout}:one", f"docker://{source.address}/library/kept:1.0")
    image = f"docker://{daemon.address()}/plain/library/kept:1.0"
    skopeo.copy(image, f"oci:{tmp_path / 'first'}:app")
    source.stop()
    try:
        skopeo.copy(image, f"oci:{tmp_path / 'second'}:app")
        daemon.restart()
        skopeo.copy(image, f"oci:{tmp_path / 'third'}:app")
        with pytest.raises(SkopeoFailed):
            skopeo.manifest(f"docker://{daemon.address()}/plain/library/never-seen:1.0")
    finally:
        source.start()
    for pulled in ("second", "third"):
        assert skopeo.manifest(f"oci:{tmp_path / pulled}:app") == AMD64.manifest


def test_a_due_tag_follows_its_upstream_and_outlives_it(
    upstreams: Upstreams, layout: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    source = upstreams["plain"]
    rules = [{"prefix": "short", "upstream": "plain", "fresh_for": "1ms", "stale_while_revalidate": "off"}]
    document = {"upstreams": [upstreams.settings("plain")], "nodes": [node(cache={"rules": rules})]}
    with Daemon(tmp_path / "daemon", document) as daemon:
        image = f"docker://{daemon.address()}/short/library/moving:latest"
        for name, built in (("one", AMD64), ("newer", NEWER)):
            skopeo.copy(f"{layout}:{name}", f"docker://{source.address}/library/moving:latest")
            assert sha256(skopeo.manifest(image)) == built.digest
        skopeo.copy(image, f"oci:{tmp_path / 'seen'}:app")
        source.stop()
        try:
            assert sha256(skopeo.manifest(image)) == NEWER.digest
            skopeo.copy(image, f"oci:{tmp_path / 'stale'}:app")
            assert total(daemon, "replicator_cache_requests_total", rule="short", result="stale") > 0
        finally:
            source.start()
