"""The oras library pushes artifacts, attaches others to them, and pulls them back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import oras.client
import oras.oci
import pytest

from replicator.core.media_types import OCI_INDEX, OCI_MANIFEST
from tests.support.daemon import Daemon, node
from tests.support.http_calls import get, sha256

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("oras")]

CHART = b"a chart\n" * 1000
SIGNATURE = b"signed by somebody\n"
SIGNATURE_TYPE = "application/vnd.test.signature"
PASSWORD = "a-password-of-oras"  # noqa: S105 - made up


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    user = {"name": "ci", "password": {"env": "CI_PASSWORD"}, "grants": [{"actions": ["pull", "push"]}]}
    nodes = [node("us-east-1"), node("eu-west-1", auth={"users": [user]})]
    with Daemon(tmp_path_factory.mktemp("daemon"), {"nodes": nodes}, {"CI_PASSWORD": PASSWORD}) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[oras.client.OrasClient]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    found = oras.client.OrasClient(insecure=True)
    with contextlib.closing(found.session):
        yield found


def file(directory: Path, name: str, content: bytes) -> str:
    """Write a file and return its path."""
    path = directory / name
    path.write_bytes(content)
    return str(path)


def push(client: oras.client.OrasClient, target: str, *files: str, **options: object) -> str:
    """Push files as an artifact and return the digest of its manifest."""
    response = client.push(target, files=list(files), disable_path_validation=True, quiet=True, **options)
    assert response.status_code == 201
    digest: str = response.headers["Docker-Content-Digest"]
    assert sha256(response.request.body) == digest
    return digest


def test_an_artifact_is_pulled_as_it_was_pushed(daemon: Daemon, client: oras.client.OrasClient, tmp_path: Path) -> None:
    target = f"{daemon.address()}/charts/app:1.0"
    push(client, target, file(tmp_path, "chart.tgz", CHART), manifest_annotations={"kind": "chart"})
    (pulled,) = client.pull(target, outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "chart.tgz").read_bytes() == CHART
    assert pulled.endswith("chart.tgz")
    assert client.get_manifest(target)["annotations"] == {"kind": "chart"}
    assert client.get_tags(target) == ["1.0"]


def test_an_artifact_is_pushed_in_chunks(daemon: Daemon, client: oras.client.OrasClient, tmp_path: Path) -> None:
    target = f"{daemon.address()}/charts/chunked:1.0"
    push(client, target, file(tmp_path, "chart.tgz", CHART), do_chunked=True, chunk_size=3000)
    client.pull(target, outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "chart.tgz").read_bytes() == CHART


def test_an_attached_artifact_is_listed_as_a_referrer(
    daemon: Daemon, client: oras.client.OrasClient, tmp_path: Path
) -> None:
    repository = f"{daemon.address()}/signed/app"
    chart = push(client, f"{repository}:1.0", file(tmp_path, "chart.tgz", CHART))
    size = len(get(daemon.url(f"/v2/signed/app/manifests/{chart}"), {"Accept": OCI_MANIFEST}).body)
    signature = file(tmp_path, "signature", SIGNATURE)
    attached = push(
        client,
        f"{repository}:signature",
        signature,
        subject=oras.oci.Subject(OCI_MANIFEST, chart, size),
        manifest_config=f"{file(tmp_path, 'config', b'{}')}:{SIGNATURE_TYPE}",
    )

    referrers = get(daemon.url(f"/v2/signed/app/referrers/{chart}"))
    assert referrers.headers["Content-Type"] == OCI_INDEX
    (found,) = referrers.json()["manifests"]
    assert (found["digest"], found["artifactType"]) == (attached, SIGNATURE_TYPE)

    filtered = get(daemon.url(f"/v2/signed/app/referrers/{chart}?artifactType=application/vnd.test.other"))
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert filtered.json()["manifests"] == []

    client.pull(f"{repository}@{attached}", outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "signature").read_bytes() == SIGNATURE


def test_an_artifact_is_pushed_with_a_password(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    address = daemon.address("eu-west-1")
    client = oras.client.OrasClient(insecure=True, auth_backend="basic")
    with contextlib.closing(client.session):
        client.auth.set_basic_auth("ci", PASSWORD)
        push(client, f"{address}/private/chart:1.0", file(tmp_path, "chart.tgz", CHART))
        client.pull(f"{address}/private/chart:1.0", outdir=str(tmp_path / "out"))
    assert (tmp_path / "out" / "chart.tgz").read_bytes() == CHART
    assert get(f"http://{address}/v2/private/chart/manifests/1.0").status == 401
