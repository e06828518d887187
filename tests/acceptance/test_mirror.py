"""The examples of `deploy/mirror`, as they are but for addresses: unchanged image names come through the node."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support.containerd import Containerd, CtrFailed, running_containerd
from tests.support.daemon import Daemon, node
from tests.support.docker_registry import DockerRegistry
from tests.support.engines import Engine, podman
from tests.support.http_calls import basic, call, get
from tests.support.images import build_index
from tests.support.layouts import container_image, write_oci_layout
from tests.support.skopeo import Skopeo
from tests.support.tools import require_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.images import BuiltImage, BuiltIndex

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("mirror")]

EXAMPLES = Path(__file__).parents[2] / "deploy" / "mirror"
CONFIGS = Path(__file__).parents[2] / "configs"
NODE_ADDRESS = "127.0.0.1:5001"
"""Where the node is in the examples."""

BASIC = basic("cluster", "a-password")["Authorization"]

REGISTRIES = {"docker.io": "docker-hub", "quay.io": "quay", "registry.k8s.io": "k8s", "ghcr.io": "ghcr"}
"""The registries of the examples, with the prefixes of the node's rules."""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """Run a registry that plays all the public ones."""
    with DockerRegistry(tmp_path_factory.mktemp("upstream")) as registry:
        yield registry


def document(upstream: DockerRegistry) -> dict[str, Any]:
    """Return the example configuration, with one registry in place of all that it names."""
    written: dict[str, Any] = yaml.safe_load((CONFIGS / "mirror.yaml").read_text())
    [only] = written["nodes"]
    rules = only["cache"]["rules"]
    return {
        "upstreams": [{**one, "url": upstream.url, "connect_timeout": "2s"} for one in written["upstreams"]],
        "nodes": [node(cache={"rules": rules}, repositories=only["repositories"])],
    }


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, upstream: DockerRegistry) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), document(upstream)) as running:
        yield running


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    yield from running_containerd(tmp_path_factory.mktemp("cd"))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Make a directory with a short name: podman takes no long one."""
    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as directory:
        yield Path(directory)


def certs_d(directory: Path, daemon: Daemon, upstream: DockerRegistry) -> Path:
    """Return a copy of the example's directory with the addresses of a test."""
    copied = directory / "certs.d"
    shutil.copytree(EXAMPLES / "containerd" / "certs.d", copied)
    for path in copied.glob("*/hosts.toml"):
        text = path.read_text().replace(NODE_ADDRESS, daemon.address())
        text, count = re.subn(r'(?m)^server = "[^"]+"$', f'server = "{upstream.url}"', text)
        assert count == 1, path
        path.write_text(text)
    return copied


def write_registries_conf(path: Path, daemon: Daemon, upstream: DockerRegistry) -> Path:
    """Write the example with the addresses of a test, and return where."""
    text = (EXAMPLES / "registries.conf").read_text().replace(NODE_ADDRESS, daemon.address())
    for registry in REGISTRIES:
        text = text.replace(f'location = "{registry}"', f'location = "{upstream.address}"\ninsecure = true')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Published:
    """An image of two platforms, and one of them, which a registry has under a name that no other test uses."""

    multi: BuiltIndex
    amd64: BuiltImage

    @property
    def digests(self) -> list[str]:
        """The blobs of the one platform."""
        return sorted(self.amd64.blobs)


def publish(directory: Path, skopeo: Skopeo, upstream: DockerRegistry, name: str) -> Published:
    """Give a registry an image that has its layers to itself, so that every download of them is seen."""
    amd64, arm64 = (
        container_image([{"etc/name": f"{name} {machine}".encode()}], platform=("linux", machine))
        for machine in ("amd64", "arm64")
    )
    multi = build_index([amd64, arm64])
    write_oci_layout(directory / "published", {"multi": multi})
    source = f"oci:{directory / 'published'}:multi"
    skopeo.copy(source, f"docker://{upstream.address}/{name}:1.0", "--all", "--preserve-digests")
    return Published(multi, amd64)


def downloads(upstream: DockerRegistry, name: str) -> list[str]:
    """Return which blobs of a repository were downloaded from the upstream, once for each time."""
    paths = [path.partition("?")[0] for path in upstream.blob_downloads()]
    return sorted(path.rpartition("/")[2] for path in paths if f"/{name}/blobs/" in path)


# containerd


@pytest.mark.parametrize("registry", REGISTRIES)
def test_containerd_keeps_its_image_names(
    registry: str, daemon: Daemon, containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    name = f"library/{REGISTRIES[registry]}-app"
    image = publish(tmp_path, skopeo, upstream, name)
    hosts = certs_d(tmp_path, daemon, upstream)
    for _ in range(2):
        containerd.pull_by_hosts(hosts, f"{registry}/{name}:1.0")
        assert containerd.digest_of(f"{registry}/{name}:1.0") == image.multi.digest
        assert containerd.content() >= {image.amd64.digest, *image.amd64.blobs}
        containerd.forget_everything()
    assert downloads(upstream, name) == image.digests
    stored = get(daemon.url(f"/v2/{REGISTRIES[registry]}/{name}/manifests/1.0"))
    assert stored.headers["Docker-Content-Digest"] == image.multi.digest


def test_containerd_pulls_every_platform_and_by_digest(
    daemon: Daemon, containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = publish(tmp_path, skopeo, upstream, "library/multi").multi
    hosts = certs_d(tmp_path, daemon, upstream)
    for reference in (":1.0", f"@{image.digest}"):
        containerd.pull_by_hosts(hosts, f"docker.io/library/multi{reference}", "--all-platforms")
        assert containerd.content() >= {image.digest, *image.blobs}
        containerd.forget_everything()
    assert downloads(upstream, "library/multi") == sorted(image.blobs)


def test_containerd_pulls_by_prefix(
    daemon: Daemon, containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    published = publish(tmp_path, skopeo, upstream, "library/prefixed")
    image = f"{daemon.address()}/docker-hub/library/prefixed:1.0"
    containerd.pull(image)
    assert containerd.digest_of(image) == published.multi.digest
    containerd.forget_everything()


def test_containerd_gets_nothing_of_a_registry_that_no_rule_stands_for(
    daemon: Daemon, containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    publish(tmp_path, skopeo, upstream, "library/elsewhere")
    hosts = certs_d(tmp_path, daemon, upstream)
    shutil.copytree(hosts / "docker.io", hosts / "registry.example.org")
    written = hosts / "registry.example.org" / "hosts.toml"
    written.write_text(written.read_text().replace(upstream.url, "http://127.0.0.1:1"))
    with pytest.raises(CtrFailed):
        containerd.pull_by_hosts(hosts, "registry.example.org/library/elsewhere:1.0")
    assert downloads(upstream, "library/elsewhere") == []


def test_containerd_goes_to_the_registry_itself_when_the_node_is_down(
    containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = publish(tmp_path, skopeo, upstream, "library/direct")
    with Daemon(tmp_path / "daemon", document(upstream)) as stopped:
        hosts = certs_d(tmp_path, stopped, upstream)
    containerd.pull_by_hosts(hosts, "docker.io/library/direct:1.0")
    assert containerd.digest_of("docker.io/library/direct:1.0") == image.multi.digest
    containerd.forget_everything()
    assert downloads(upstream, "library/direct") == image.digests


def test_containerd_pulls_from_the_node_when_the_registry_is_down(
    containerd: Containerd, skopeo: Skopeo, tmp_path: Path
) -> None:
    with DockerRegistry(tmp_path / "upstream") as gone, Daemon(tmp_path / "daemon", document(gone)) as daemon:
        image = publish(tmp_path, skopeo, gone, "library/kept")
        hosts = certs_d(tmp_path, daemon, gone)
        containerd.pull_by_hosts(hosts, "docker.io/library/kept:1.0")
        containerd.forget_everything()
        gone.stop()
        containerd.pull_by_hosts(hosts, "docker.io/library/kept:1.0")
        assert containerd.content() >= {image.amd64.digest, *image.amd64.blobs}
        containerd.forget_everything()


AUTH = {
    "users": [
        {
            "name": "cluster",
            "password": {"env": "CLUSTER_PASSWORD"},
            "grants": [{"actions": ["pull"], "repositories": ["quay/*"]}],
        }
    ],
    "anonymous": [{"actions": ["pull"], "repositories": ["docker-hub/*"]}],
}


@pytest.fixture(scope="module")
def closed_daemon(tmp_path_factory: pytest.TempPathFactory, upstream: DockerRegistry) -> Iterator[Daemon]:
    """Run a node where nameless callers may pull what is Docker Hub's, and one user what is Quay's."""
    closed = document(upstream)
    closed["nodes"][0]["auth"] = AUTH
    with Daemon(tmp_path_factory.mktemp("closed"), closed, {"CLUSTER_PASSWORD": "a-password"}) as running:
        yield running


def without_fallback(hosts: Path) -> None:
    for path in hosts.glob("*/hosts.toml"):
        path.write_text(re.sub(r'(?m)^server = "[^"]+"$', 'server = "http://127.0.0.1:1"', path.read_text()))


def test_containerd_needs_no_password_for_what_everybody_may_pull(
    closed_daemon: Daemon, containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = publish(tmp_path, skopeo, upstream, "library/for-all").multi
    hosts = certs_d(tmp_path, closed_daemon, upstream)
    without_fallback(hosts)
    containerd.pull_by_hosts(hosts, "docker.io/library/for-all:1.0")
    assert containerd.digest_of("docker.io/library/for-all:1.0") == image.digest
    containerd.forget_everything()
    with pytest.raises(CtrFailed):
        containerd.pull_by_hosts(hosts, "quay.io/library/for-all:1.0")


def test_containerd_sends_the_password_of_its_file(
    closed_daemon: Daemon, containerd: Containerd, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = publish(tmp_path, skopeo, upstream, "library/for-one").multi
    hosts = certs_d(tmp_path, closed_daemon, upstream)
    without_fallback(hosts)
    path = hosts / "quay.io" / "hosts.toml"
    header = f'[host."http://{closed_daemon.address()}".header]\n  authorization = "{BASIC}"\n'
    path.write_text(f"{path.read_text()}\n{header}")
    containerd.pull_by_hosts(hosts, "quay.io/library/for-one:1.0")
    assert containerd.digest_of("quay.io/library/for-one:1.0") == image.digest
    containerd.forget_everything()


# podman and skopeo (CRI-O and buildah read the same file)


@pytest.mark.parametrize("registry", REGISTRIES)
def test_skopeo_keeps_its_image_names(
    registry: str, daemon: Daemon, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    name = f"library/{REGISTRIES[registry]}-skopeo"
    image = publish(tmp_path, skopeo, upstream, name).multi
    home = tmp_path / "home"
    write_registries_conf(home / ".config" / "containers" / "registries.conf", daemon, upstream)
    configured = Skopeo(home)
    # No option allows plain HTTP here: what the file says of each place is enough.
    for pulled in ("cold", "warm"):
        into = f"oci:{tmp_path / pulled}:app"
        configured.run("copy", "--all", "--preserve-digests", f"docker://{registry}/{name}:1.0", into)
        assert configured.manifest(into) == image.manifest
    assert downloads(upstream, name) == sorted(image.blobs)
    assert get(daemon.url(f"/v2/{REGISTRIES[registry]}/{name}/tags/list")).json()["tags"] == ["1.0"]


def test_skopeo_pulls_by_prefix(daemon: Daemon, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path) -> None:
    image = publish(tmp_path, skopeo, upstream, "library/skopeo-prefixed").multi
    into = f"oci:{tmp_path / 'pulled'}:app"
    skopeo.copy(f"docker://{daemon.address()}/docker-hub/library/skopeo-prefixed:1.0", into, "--all")
    assert skopeo.manifest(into) == image.manifest


def engine(directory: Path, daemon: Daemon, upstream: DockerRegistry) -> Engine:
    require_root()
    path = write_registries_conf(directory / "registries.conf", daemon, upstream)
    return podman(directory / "podman", {"CONTAINERS_REGISTRIES_CONF": str(path)})


def test_podman_keeps_its_image_names(
    daemon: Daemon, upstream: DockerRegistry, skopeo: Skopeo, short_path: Path, tmp_path: Path
) -> None:
    published = publish(tmp_path, skopeo, upstream, "library/podman-app")
    run, name = engine(short_path, daemon, upstream), "docker.io/library/podman-app"
    run("pull", "--quiet", f"{name}:1.0")
    [image] = json.loads(run("image", "inspect", f"{name}:1.0"))
    assert image["RepoTags"] == [f"{name}:1.0"]
    run("pull", "--quiet", f"{name}@{published.multi.digest}")
    assert downloads(upstream, "library/podman-app") == published.digests
    stored = get(daemon.url("/v2/docker-hub/library/podman-app/manifests/1.0"))
    assert stored.body == published.multi.manifest


def test_podman_pulls_by_prefix(
    daemon: Daemon, upstream: DockerRegistry, skopeo: Skopeo, short_path: Path, tmp_path: Path
) -> None:
    published = publish(tmp_path, skopeo, upstream, "library/podman-prefixed")
    run, name = engine(short_path, daemon, upstream), f"{daemon.address()}/docker-hub/library/podman-prefixed"
    run("pull", "--quiet", "--tls-verify=false", f"{name}:1.0")
    [image] = json.loads(run("image", "inspect", f"{name}:1.0"))
    assert image["RepoTags"] == [f"{name}:1.0"]
    assert downloads(upstream, "library/podman-prefixed") == published.digests


def test_podman_goes_to_the_registry_itself_when_the_node_is_down(
    upstream: DockerRegistry, skopeo: Skopeo, short_path: Path, tmp_path: Path
) -> None:
    image = publish(tmp_path, skopeo, upstream, "library/podman-direct")
    with Daemon(tmp_path / "daemon", document(upstream)) as stopped:
        run = engine(short_path, stopped, upstream)
    run("pull", "--quiet", "docker.io/library/podman-direct:1.0")
    assert downloads(upstream, "library/podman-direct") == image.digests


# Docker

DOCKER_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
"""What dockerd says it accepts."""


def test_docker_s_file_is_what_docker_takes() -> None:
    """A mirror with a path, a query or a password, or what is no list, keeps dockerd from starting."""
    written = json.loads((EXAMPLES / "daemon.json").read_text())
    assert set(written) == {"registry-mirrors"}
    for mirror in written["registry-mirrors"]:
        parts = urlsplit(mirror)
        assert parts.scheme in {"http", "https"}
        assert parts.netloc == NODE_ADDRESS
        assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)


@pytest.mark.parametrize("query", ["", "?ns=docker.io"], ids=["classic", "containerd-image-store"])
def test_the_requests_of_docker_s_mirror_mode(
    query: str, daemon: Daemon, upstream: DockerRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    """In this order dockerd asks a mirror: whether it is a registry, the manifest, the platform's manifest, blobs.

    It names no registry; with containerd's image store it does.
    """
    name = f"library/docker-{'ns' if query else 'plain'}"
    image = publish(tmp_path, skopeo, upstream, name)
    [mirror] = json.loads((EXAMPLES / "daemon.json").read_text())["registry-mirrors"]
    base = mirror.replace(NODE_ADDRESS, daemon.address())
    accept = {"Accept": ", ".join(DOCKER_TYPES), "User-Agent": "docker/27.0.3 go/go1.21.11"}
    entrance = get(f"{base}/v2/", accept)
    assert (entrance.status, entrance.headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")
    head = call("HEAD", f"{base}/v2/{name}/manifests/1.0{query}", headers=accept)
    assert head.status == 200
    assert head.headers["Docker-Content-Digest"] == image.multi.digest
    assert head.headers["Content-Length"] == str(len(image.multi.manifest))
    assert get(f"{base}/v2/{name}/manifests/1.0{query}", accept).body == image.multi.manifest
    assert get(f"{base}/v2/{name}/manifests/{image.amd64.digest}{query}", accept).body == image.amd64.manifest
    for digest, content in image.amd64.blobs.items():
        assert get(f"{base}/v2/{name}/blobs/{digest}{query}", accept).body == content
    assert downloads(upstream, name) == image.digests


# What the examples agree upon


def test_the_examples_name_the_same_registries() -> None:
    assert {path.parent.name for path in EXAMPLES.glob("containerd/certs.d/*/hosts.toml")} == set(REGISTRIES)
    text = (EXAMPLES / "registries.conf").read_text()
    assert set(re.findall(r'(?m)^prefix = "(.+)"$', text)) == set(REGISTRIES)
    [only] = yaml.safe_load((CONFIGS / "mirror.yaml").read_text())["nodes"]
    assert only["listen"] == NODE_ADDRESS
    assert {rule["prefix"] for rule in only["cache"]["rules"]} >= {*REGISTRIES.values(), "ROOT"}
    mirrors = re.findall(rf'(?m)^location = "{re.escape(NODE_ADDRESS)}/(.+)"$', text)
    assert mirrors == list(REGISTRIES.values())
