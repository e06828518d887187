"""The daemon is killed while it fetches blobs: then nothing wrong is served, nothing is left over, nobody suffers.

The names are those of the fault list. With REPLICATOR_CAMPAIGN=1 every file-system call of a cold pull is a moment to
be killed at, and there are many more random ones.
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import Answer, get, push_blob, push_manifest
from tests.support.images import BuiltImage, build_image
from tests.support.strace import Strace
from tests.support.threaded_upstream import ThreadedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CAMPAIGN = bool(os.environ.get("REPLICATOR_CAMPAIGN"))
ROUNDS = 100 if CAMPAIGN else 4
DEEPEST = 200 if CAMPAIGN else 1
"""How many calls of one kind, in one thread, are moments to be killed at."""
SIZE = 3_000_000
START_SECONDS = 3.0

ALWAYS_CALLED = ("openat", "pwritev,pwritev2", "fsync", "rename", "pwrite64", "close")
CALLS = (*ALWAYS_CALLED, "mkdir", "fdatasync", "unlink", "fchmod", "sync_file_range")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("fill-crashes"),
    pytest.mark.timeout(3600 if CAMPAIGN else 120),
]
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class Scene:
    """A daemon with a cache in front of an upstream that has any number of images, and a repository of its own."""

    def __init__(self, daemon: Daemon, upstream: ThreadedUpstream) -> None:
        self.daemon = daemon
        self.upstream = upstream
        self.own = build_image([b"pushed" * 10_000])
        self.filled: list[BuiltImage] = []
        self._numbers = itertools.count()
        for content in self.own.blobs.values():
            assert push_blob(daemon.url(""), "team/app", content).status == 201
        assert push_manifest(daemon.url(""), "team/app", "1", self.own.manifest, self.own.media_type).status == 201

    def image(self) -> BuiltImage:
        """Have a new image whose manifest is cached and whose blobs are not."""
        number = next(self._numbers)
        layer = random.Random(number).randbytes(SIZE)  # noqa: S311 - any bytes
        image = self.upstream.registry.add_image("library/app", f"v{number}", [layer])
        assert get(self.daemon.url(f"/v2/hub/library/app/manifests/v{number}")).body == image.manifest
        return image

    def layer(self, image: BuiltImage) -> Answer:
        """Pull the layer of an image."""
        return get(self.daemon.url(f"/v2/hub/library/app/blobs/{image.layers[0]}"), timeout=10)

    def pull(self, image: BuiltImage) -> bool:
        """Pull a layer while the daemon may be killed; tell whether it came whole, and then it must be right."""
        try:
            answer = self.layer(image)
        except (OSError, http.client.HTTPException):
            return False
        if answer.status == 200:
            assert answer.body == image.blobs[image.layers[0]]
            self.filled.append(image)
        return answer.status == 200

    def ingests(self) -> list[str]:
        """What lies in the ingest directory."""
        return sorted(path.name for path in (self.daemon.data() / "blobs" / "ingest").iterdir())

    def check_after_a_crash(self, image: BuiltImage) -> None:
        """Start again, and check that all is well."""
        assert self.daemon.timed_start() < START_SECONDS
        assert self.ingests() == []
        self.check_others()
        downloads = [self.upstream.downloads(filled.layers[0]) for filled in self.filled]
        assert all(self.pull(filled) for filled in list(self.filled))
        assert [self.upstream.downloads(filled.layers[0]) for filled in self.filled[: len(downloads)]] == downloads
        assert self.pull(image)
        self.filled = self.filled[-5:]

    def check_others(self) -> None:
        """Check that what does not come from the upstream is served as ever."""
        assert get(self.daemon.url("/v2/team/app/manifests/1")).body == self.own.manifest
        for digest, content in self.own.blobs.items():
            assert get(self.daemon.url(f"/v2/team/app/blobs/{digest}")).body == content


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    upstream = ThreadedUpstream()
    with upstream:
        document = {
            "upstreams": [{"name": "hub", "url": upstream.url}],
            "nodes": [node(cache={"rules": [{"prefix": "hub", "upstream": "hub"}]})],
        }
        with Daemon(tmp_path / "daemon", document) as daemon:
            yield Scene(daemon, upstream)


def test_rel_03_killed_at_random_moments_of_fills(scene: Scene) -> None:
    chance = random.Random("moments")  # noqa: S311 - the same moments in every run
    broken = 0
    for _ in range(ROUNDS):
        images = [scene.image() for _ in range(4)]
        with ThreadPoolExecutor(8) as pool:
            pulls = [pool.submit(scene.pull, image) for image in images * 2]
            threading.Event().wait(chance.uniform(0.001, 0.08))  # the moment is what is varied
            scene.daemon.kill()
            broken += sum(not pull.result() for pull in pulls)
        scene.check_after_a_crash(images[0])
        assert all(map(scene.pull, images))
    assert broken > 0


@needs_strace
@pytest.mark.parametrize("call", CALLS)
def test_rel_02_killed_at_a_file_system_call_of_a_fill(call: str, scene: Scene, tmp_path: Path) -> None:
    for number in range(1, DEEPEST + 1):
        image = scene.image()
        with Strace(scene.daemon.process.pid, tmp_path / "strace", call, f"signal=KILL:when={number}"):
            whole = scene.pull(image)
        if whole and scene.daemon.process.exit_code is None:
            assert number > 1 or call not in ALWAYS_CALLED, f"{call} was not called"
            return
        scene.daemon.process.wait()
        scene.check_after_a_crash(image)


@needs_strace
@pytest.mark.parametrize(
    ("call", "failure"),
    [("fsync", "EIO"), ("rename", "EIO"), ("pwritev,pwritev2", "ENOSPC"), ("pwritev,pwritev2", "EIO")],
)
def test_rel_06_call_that_fails_once_fails_the_pull_and_not_the_next_one(
    call: str, failure: str, scene: Scene, tmp_path: Path
) -> None:
    image = scene.image()
    with Strace(scene.daemon.process.pid, tmp_path / "strace", call, f"error={failure}:when=1"):
        assert not scene.pull(image)
    assert scene.ingests() == []
    scene.check_others()
    assert scene.pull(image)
    assert scene.upstream.downloads(image.layers[0]) == 2


@needs_strace
def test_rel_01_last_bytes_leave_when_the_blob_and_its_row_are_on_the_disk(scene: Scene, tmp_path: Path) -> None:
    image = scene.image()
    with Strace(scene.daemon.process.pid, tmp_path / "strace", "fsync,fdatasync,rename") as strace:
        assert scene.pull(image)
    staircase = [
        ("fsync", "/ingest/fill-"),
        ("rename", "/ingest/fill-"),
        ("fsync", "/blobs/sha256/"),
        ("sync", "/metadata.db"),
    ]
    at = 0
    lines = strace.lines()
    for call, place in staircase:
        at = next(n for n, line in enumerate(lines[at:], at) if f"{call}(" in line and place in line) + 1
