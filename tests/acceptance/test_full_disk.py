"""A full disk: writes are refused with 507, reads go on, and the node recovers by itself when there is room again."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import call, get, push_blob, push_manifest, sha256
from tests.support.images import build_image
from tests.support.small_disk import mounted_disk
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full-disk")]

MIB = 2**20
SIZE = 24 * MIB


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system of 24 MiB."""
    with mounted_disk(SIZE) as directory:
        yield directory


@pytest.fixture
def daemon(small_disk: Path, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "daemon", {"storage_root": str(small_disk / "data"), "nodes": [node()]}) as running:
        yield running


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte with a file, as another program may; return the file."""
    path = disk / "of-somebody-else"
    with path.open("wb", buffering=0) as file:
        free = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
    return path


def test_rel_05_reads_go_on_and_writes_come_back(daemon: Daemon, small_disk: Path) -> None:
    image = build_image([random.Random(1).randbytes(MIB)])  # noqa: S311 - any bytes
    base = daemon.url("")
    assert {push_blob(base, "app", content).status for content in image.blobs.values()} == {201}
    assert push_manifest(base, "app", "1.0", image.manifest, image.media_type).status == 201

    filler = fill(small_disk)
    eventually(lambda: get(daemon.url("/readyz?mode=write")).status == 503, "the node to say it cannot write")
    assert get(daemon.url("/readyz?mode=read")).status == 200
    assert get(daemon.url("/healthz")).status == 200
    more = random.Random(2).randbytes(4 * MIB)  # noqa: S311 - any bytes
    assert push_blob(base, "app", more).status == 507
    assert get(daemon.url("/v2/app/manifests/1.0")).body == image.manifest
    for digest, content in image.blobs.items():
        assert get(daemon.url(f"/v2/app/blobs/{digest}")).body == content

    filler.unlink()
    eventually(lambda: get(daemon.url("/readyz?mode=write")).status == 200, "the node to say it can write")
    assert push_blob(base, "app", more).status == 201
    assert get(daemon.url(f"/v2/app/blobs/{sha256(more)}")).body == more
    assert daemon.process.exit_code is None


def test_rel_04_an_upload_that_fills_the_disk_is_given_back(daemon: Daemon, small_disk: Path) -> None:
    base = daemon.url("")
    kept = random.Random(3).randbytes(MIB)  # noqa: S311 - any bytes
    assert push_blob(base, "app", kept).status == 201
    too_large = random.Random(4).randbytes(SIZE)  # noqa: S311 - any bytes
    started = call("POST", f"{base}/v2/app/blobs/uploads/").headers["Location"]
    target = started if started.startswith("http") else base + started
    assert call("PATCH", target, too_large, {"Content-Type": "application/octet-stream"}).status == 507
    assert push_blob(base, "app", too_large).status == 507
    ingest = small_disk / "data" / "111122223333" / "us-east-1" / "blobs" / "ingest"
    eventually(lambda: not any(ingest.iterdir()), "the room of the uploads to be given back")
    free = os.statvfs(small_disk)
    assert free.f_bavail * free.f_frsize > SIZE // 2
    assert get(daemon.url(f"/v2/app/blobs/{sha256(kept)}")).body == kept
    assert push_blob(base, "app", b"small").status == 201


def test_a_daemon_starts_on_a_full_disk_and_serves(daemon: Daemon, small_disk: Path) -> None:
    kept = random.Random(5).randbytes(MIB)  # noqa: S311 - any bytes
    assert push_blob(daemon.url(""), "app", kept).status == 201
    filler = fill(small_disk)
    daemon.terminate()
    daemon.launch()
    eventually(lambda: serves(daemon, kept), "the daemon to serve what it has")
    assert get(daemon.url("/readyz?mode=write")).status == 503
    filler.unlink()
    eventually(lambda: push_blob(daemon.url(""), "app", b"more").status == 201, "the node to write again")


def serves(daemon: Daemon, content: bytes) -> bool:
    """Tell whether the daemon is up and serves a blob."""
    assert daemon.process.exit_code is None, daemon.process.tail()
    try:
        return get(daemon.url(f"/v2/app/blobs/{sha256(content)}")).body == content
    except OSError:
        return False
