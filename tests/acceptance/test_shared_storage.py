"""A node that keeps its rows in PostgreSQL and its bytes in an object store serves clients like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import sha256
from tests.support.images import build_index
from tests.support.layouts import container_image, write_oci_layout
from tests.support.postgres_server import running_postgres_server
from tests.support.s3_server import running_s3_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.skopeo import Skopeo

pytestmark = [
    pytest.mark.clients,
    pytest.mark.postgres,
    pytest.mark.object_store,
    pytest.mark.slow,
    pytest.mark.xdist_group("shared-storage"),
]

AMD64 = container_image([{"etc/name": b"amd64"}, {"etc/shared": b"shared" * 50_000}])
ARM64 = container_image([{"etc/name": b"arm64"}, {"etc/shared": b"shared" * 50_000}], platform=("linux", "arm64"))
MULTI = build_index([AMD64, ARM64])


@dataclass(frozen=True)
class Stores:
    """Where a node keeps its rows and its bytes, for any number of daemons."""

    storage: dict[str, Any]
    environ: dict[str, str]

    def daemon(self, directory: Path) -> Daemon:
        """Return a daemon that serves the node, on a directory of its own."""
        return Daemon(directory, {"nodes": [node(storage=self.storage)]}, self.environ)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with running_postgres_server() as postgres, running_s3_server(tmp_path_factory.mktemp("s3")) as s3:
        blobs = {
            "kind": "s3",
            "bucket": "images",
            "prefix": "us-east-1/",
            "endpoint": s3.endpoint,
            "region": "us-east-1",
            "allow_http": True,
            "access_key_id": {"env": "S3_KEY_ID"},
            "secret_access_key": {"env": "S3_KEY"},
        }
        metadata = {"kind": "postgresql", "dsn": {"env": "DSN"}, "schema": "us_east_1"}
        environ = {"DSN": postgres.dsn, "S3_KEY_ID": s3.access_key_id, "S3_KEY": s3.secret_access_key}
        yield Stores({"metadata": metadata, "blobs": blobs}, environ)


@pytest.fixture(scope="module")
def daemon(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with stores.daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("layout")
    write_oci_layout(directory, {"one": AMD64, "multi": MULTI})
    return f"oci:{directory}"


def test_an_image_is_pulled_as_it_was_pushed(daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path) -> None:
    image = f"docker://{daemon.address()}/shared/multi:1.0"
    skopeo.copy(f"{layout}:multi", image, "--all", "--preserve-digests")
    skopeo.copy(image, f"oci:{tmp_path / 'back'}:multi", "--all", "--preserve-digests")
    assert skopeo.manifest(f"oci:{tmp_path / 'back'}:multi") == MULTI.manifest
    for digest, content in MULTI.blobs.items():
        assert (tmp_path / "back" / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes() == content


def test_nothing_is_kept_on_the_machine_of_the_daemon(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    skopeo.copy(f"{layout}:one", f"docker://{daemon.address()}/shared/one:1.0")
    files = [path for path in daemon.data().rglob("*") if path.is_file() and path.name != "lock"]
    assert files == []


def test_images_outlive_a_crash_of_the_daemon(daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path) -> None:
    image = f"docker://{daemon.address()}/shared/kept:1.0"
    skopeo.copy(f"{layout}:one", image)
    daemon.kill()
    daemon.start()
    assert sha256(skopeo.manifest(image)) == AMD64.digest
    skopeo.copy(image, f"oci:{tmp_path / 'back'}:kept")
    assert skopeo.manifest(f"oci:{tmp_path / 'back'}:kept") == AMD64.manifest


def test_two_daemons_serve_one_node(
    daemon: Daemon, stores: Stores, layout: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    with stores.daemon(tmp_path / "second") as second:
        skopeo.copy(f"{layout}:one", f"docker://{daemon.address()}/shared/both:1.0")
        skopeo.copy(f"docker://{second.address()}/shared/both:1.0", f"oci:{tmp_path / 'back'}:both")
        skopeo.copy(f"{layout}:multi", f"docker://{second.address()}/shared/both:1.0", "--all", "--preserve-digests")
        assert sha256(skopeo.manifest(f"docker://{daemon.address()}/shared/both:1.0")) == MULTI.digest
        second.kill()
        assert sha256(skopeo.manifest(f"docker://{daemon.address()}/shared/both:1.0")) == MULTI.digest
    assert skopeo.manifest(f"oci:{tmp_path / 'back'}:both") == AMD64.manifest
