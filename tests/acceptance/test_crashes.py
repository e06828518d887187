"""The daemon is killed at any moment: what it had acknowledged is there, byte by byte, after the next start."""

from __future__ import annotations

import contextlib
import http.client
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import call, get, push_blob, push_manifest, sha256
from tests.support.images import BuiltImage, build_image
from tests.support.regions import AP, EU, US, three_regions
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.http_calls import Answer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("crashes")]

ROUNDS = 10
PUSHERS = 3
START_SECONDS = 3.0
LEASE_SECONDS = 30.0
"""How long a job stays with a process that was killed."""


@dataclass
class Acknowledged:
    """What the daemon said it had: what it must have from then on."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, BuiltImage] = field(default_factory=dict)
    sessions: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """The location of an open upload by its id, with the bytes that were taken."""
    count: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def note(self, answer: Answer, expected: int) -> None:
        """Count an acknowledgement."""
        assert answer.status == expected, answer
        self.count.release()


class Pusher:
    """Pushes images of its own until the daemon is gone, and notes what was acknowledged."""

    def __init__(self, base: str, seed: str, acknowledged: Acknowledged) -> None:
        self._base = base
        self._seed = seed
        self._random = random.Random(seed)  # noqa: S311 - any bytes
        self._acknowledged = acknowledged

    def run(self) -> None:
        """Push until the connection breaks."""
        for number in range(10_000):
            try:
                self._push_image(number)
                self._leave_an_upload_open()
            except (OSError, http.client.HTTPException):
                return
        pytest.fail("the daemon was never killed")

    def _push_image(self, number: int) -> None:
        layers = [self._random.randbytes(self._random.randint(1, 400_000)) for _ in range(2)]
        image = build_image(layers)
        for digest, content in image.blobs.items():
            self._acknowledged.note(push_blob(self._base, "crash/app", content), 201)
            self._acknowledged.blobs[digest] = content
        tag = f"{self._seed}-{number}"
        self._acknowledged.note(push_manifest(self._base, "crash/app", tag, image.manifest, image.media_type), 201)
        self._acknowledged.tags[tag] = image

    def _leave_an_upload_open(self) -> None:
        started = call("POST", f"{self._base}/v2/crash/app/blobs/uploads/")
        location = started.headers["Location"]
        session = location.partition("?")[0].rpartition("/")[2]
        self._acknowledged.sessions[session] = (location, b"")
        chunk = self._random.randbytes(self._random.randint(1, 100_000))
        target = location if location.startswith("http") else self._base + location
        taken = call("PATCH", target, chunk, {"Content-Type": "application/octet-stream"})
        self._acknowledged.note(taken, 202)
        self._acknowledged.sessions[session] = (taken.headers["Location"], chunk)


def verify(daemon: Daemon, acknowledged: Acknowledged) -> None:
    """Check that everything acknowledged is there, byte by byte."""
    for digest, content in acknowledged.blobs.items():
        assert get(daemon.url(f"/v2/crash/app/blobs/{digest}")).body == content
    for tag, image in acknowledged.tags.items():
        found = get(daemon.url(f"/v2/crash/app/manifests/{tag}"))
        assert (found.body, found.headers["Content-Type"]) == (image.manifest, image.media_type)


def open_sessions(daemon: Daemon) -> set[str]:
    """Return the upload sessions that the daemon knows, also those whose client was never told of them."""
    with contextlib.closing(sqlite3.connect(f"file:{daemon.data() / 'metadata.db'}?mode=ro", uri=True)) as database:
        return {row[0] for row in database.execute("SELECT id FROM uploads")}


def verify_uploads(daemon: Daemon, acknowledged: Acknowledged) -> None:
    """Check that what is left of uploads can be resumed, and holds what was acknowledged."""
    left = {path.name for path in (daemon.data() / "blobs" / "ingest").iterdir()}
    assert left <= open_sessions(daemon)
    for session, (location, taken) in acknowledged.sessions.items():
        state = get(location if location.startswith("http") else daemon.url(location))
        if not taken and state.status == 404:
            continue  # nobody was told that anything was kept
        assert state.status == 204, (session, state)
        assert session in left
        offset = int(state.headers["Range"].partition("-")[2]) + 1 if state.headers["Range"] != "0-0" else len(taken)
        assert offset >= len(taken)


def finish_an_upload(daemon: Daemon, acknowledged: Acknowledged) -> bool:
    """Check that an upload begun before the crash ends in a blob with the right bytes; tell whether there was one."""
    location, taken = next((found for found in acknowledged.sessions.values() if found[1]), ("", b""))
    if not location:
        return False
    target = location if location.startswith("http") else daemon.url(location)
    content = taken + b"the end"
    separator = "&" if "?" in target else "?"
    done = call("PUT", f"{target}{separator}digest={sha256(content)}", b"the end")
    assert done.status == 201
    assert get(daemon.url(f"/v2/crash/app/blobs/{sha256(content)}")).body == content
    return True


@pytest.mark.timeout(180)
def test_rel_03_nothing_acknowledged_is_lost_when_the_daemon_is_killed(tmp_path: Path) -> None:
    chance = random.Random("moments")  # noqa: S311 - the same moments in every run
    everything, finished, starts = Acknowledged(), 0, []
    with Daemon(tmp_path / "daemon", {"nodes": [node()]}) as daemon:
        for round_number in range(ROUNDS):
            found = Acknowledged()
            with ThreadPoolExecutor(PUSHERS) as pool:
                pushers = [Pusher(daemon.url(""), f"{round_number}-{number}", found) for number in range(PUSHERS)]
                runs = [pool.submit(pusher.run) for pusher in pushers]
                for _ in range(chance.randint(8, 30)):
                    assert found.count.acquire(timeout=20)
                threading.Event().wait(chance.uniform(0, 0.03))  # the moment is what is varied
                daemon.kill()
                for run in runs:
                    run.result()
            starts.append(daemon.timed_start())
            verify(daemon, found)
            verify_uploads(daemon, found)
            finished += finish_an_upload(daemon, found)
            everything.blobs |= found.blobs
            everything.tags |= found.tags
        verify(daemon, everything)
        assert len(everything.tags) >= ROUNDS
        assert finished > 0
        assert min(starts) < START_SECONDS


def push(daemon: Daemon, region: str, repository: str, image: BuiltImage) -> None:
    """Push an image under the tag 1.0."""
    base = daemon.url("", region)
    assert {push_blob(base, repository, content).status for content in image.blobs.values()} == {201}
    assert push_manifest(base, repository, "1.0", image.manifest, image.media_type).status == 201


def holds(daemon: Daemon, region: str, repository: str, image: BuiltImage) -> bool:
    """Tell whether a region serves an image as its tag 1.0, whole."""
    found = get(daemon.url(f"/v2/{repository}/manifests/1.0", region))
    if found.status == 404:
        return False
    assert found.body == image.manifest
    blobs = {digest: get(daemon.url(f"/v2/{repository}/blobs/{digest}", region)).body for digest in image.blobs}
    assert blobs == image.blobs
    return True


@pytest.mark.timeout(180)
def test_what_was_to_be_replicated_arrives_after_a_crash(tmp_path: Path) -> None:
    images = {f"team-a/app-{number}": build_image([bytes([number]) * 200_000]) for number in range(5)}
    with Daemon(tmp_path / "daemon", three_regions()) as daemon:
        for repository, image in images.items():
            push(daemon, US, repository, image)
        daemon.kill()
        daemon.start()
        for repository, image in images.items():
            for region in (EU, AP):
                eventually(
                    lambda region=region, repository=repository, image=image: holds(daemon, region, repository, image),  # type: ignore[misc]
                    f"{repository} in {region}",
                    within=LEASE_SECONDS + 30,
                )


def replicating(region: str, peer: str, peer_url: str) -> dict[str, Any]:
    """Return the configuration of a node that sends everything to a peer in another process."""
    destination = {"account": "111122223333", "region": peer}
    rules = [{"name": "all", "destinations": [destination]}]
    return {
        "peer_secret": {"env": "PEER_SECRET"},
        "peers": [{**destination, "url": peer_url}],
        "nodes": [node(region, replication={"rules": rules})],
    }


@pytest.mark.timeout(180)
def test_an_image_pushed_while_its_destination_was_down_arrives_after_a_crash_of_the_source(tmp_path: Path) -> None:
    environ = {"PEER_SECRET": "shared by both processes"}
    image = build_image([b"kept through a crash" * 10_000])
    receiving = {"peer_secret": {"env": "PEER_SECRET"}, "nodes": [node(EU)]}
    with Daemon(tmp_path / "destination", receiving, environ) as destination:
        destination.terminate()
        document = replicating(US, EU, f"http://{destination.address()}")
        with Daemon(tmp_path / "source", document, environ) as source:
            push(source, US, "app", image)
            source.kill()
            destination.start()
            source.start()
            eventually(
                lambda: holds(destination, EU, "app", image), "the image at the destination", within=LEASE_SECONDS + 30
            )
