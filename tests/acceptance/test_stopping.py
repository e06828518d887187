"""A stop that was asked for lets requests end: what was acknowledged is there after the next start."""

from __future__ import annotations

import hashlib
import http.client
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import Answer, call, get, push_blob, sha256
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("stopping")]

PUSHES = 8
FIRST_PART, SECOND_PART = 3 * 2**20, 2**20
PULLED = 32 * 2**20
"""More than the two sockets of a connection hold, so that a pull is under way until it is read."""


class SlowPush:
    """A push that sends its first bytes and then waits until it may send the rest."""

    def __init__(self, daemon: Daemon, number: int, go_on: threading.Event) -> None:
        self.content = random.Random(number).randbytes(FIRST_PART + SECOND_PART)  # noqa: S311 - any bytes
        self._base = daemon.url("")
        self._go_on = go_on
        started = call("POST", f"{self._base}/v2/slow/pushes/blobs/uploads/")
        self.location = started.headers["Location"]
        self.session = self.location.partition("?")[0].rpartition("/")[2]

    def finish(self) -> Answer:
        """Send everything and end the upload; the second part is sent when told to."""
        return call("PUT", self._target(f"digest={sha256(self.content)}"), self._parts(), self._headers())

    def append(self) -> Answer:
        """Send everything as a chunk; the second part is sent when told to."""
        return call("PATCH", self._target(""), self._parts(), self._headers())

    def resume(self) -> Answer:
        """Ask what has arrived, send what is missing, and end the upload."""
        state = call("GET", self._target(""))
        assert state.status == 204, state
        offset = int(state.headers["Range"].partition("-")[2]) + 1
        assert offset >= 2**20
        headers = {"Content-Type": "application/octet-stream"}
        return call("PUT", self._target(f"digest={sha256(self.content)}"), self.content[offset:], headers)

    def _target(self, query: str) -> str:
        target = self.location if self.location.startswith("http") else self._base + self.location
        return target + ("&" if "?" in target else "?") + query if query else target

    def _headers(self) -> dict[str, str]:
        return {"Content-Length": str(len(self.content)), "Content-Type": "application/octet-stream"}

    def _parts(self) -> Iterator[bytes]:
        yield self.content[:FIRST_PART]
        assert self._go_on.wait(30)
        yield self.content[FIRST_PART:]


class SlowPull:
    """A pull whose reader stops after the first bytes."""

    def __init__(self, daemon: Daemon, digest: str) -> None:
        self._connection = http.client.HTTPConnection(daemon.address(), timeout=30)
        self._connection.request("GET", f"/v2/slow/pulls/blobs/{digest}")
        self._response = self._connection.getresponse()
        self._hash = hashlib.sha256(self._response.read(1024))

    def finish(self) -> str:
        """Read the rest and return the digest of everything."""
        self._hash.update(self._response.read())
        self._connection.close()
        return f"sha256:{self._hash.hexdigest()}"


def received(daemon: Daemon, push: SlowPush) -> int:
    """Return how much of a push has reached the disk."""
    path = daemon.data() / "blobs" / "ingest" / push.session
    return path.stat().st_size if path.exists() else 0


def accepts_connections(daemon: Daemon) -> bool:
    """Tell whether the daemon still takes requests."""
    try:
        return get(daemon.url("/readyz"), timeout=5).status == 200
    except OSError:
        return False


def test_requests_under_way_are_answered_before_the_end(tmp_path: Path) -> None:
    with Daemon(tmp_path / "daemon", {"nodes": [node()]}) as daemon, ThreadPoolExecutor(PUSHES + 2) as pool:
        layer = random.Random("pulled").randbytes(PULLED)  # noqa: S311 - any bytes
        assert push_blob(daemon.url(""), "slow/pulls", layer).status == 201
        go_on = threading.Event()
        pushes = [SlowPush(daemon, number, go_on) for number in range(PUSHES)]
        answers = [pool.submit(push.finish) for push in pushes]
        pulls = [SlowPull(daemon, sha256(layer)) for _ in range(2)]
        for push in pushes:
            eventually(lambda push=push: received(daemon, push) >= 2**20, "a push to be under way")  # type: ignore[misc]

        daemon.process.signal(signal.SIGTERM)
        eventually(lambda: not accepts_connections(daemon), "the daemon to take no more requests")
        go_on.set()
        assert [pull.finish() for pull in pulls] == [sha256(layer)] * 2
        assert [answer.result().status for answer in answers] == [201] * PUSHES
        assert daemon.process.wait() == 0
        assert daemon.events()[-1]["event"] == "stopped"

        daemon.start()
        for push in pushes:
            assert get(daemon.url(f"/v2/slow/pushes/blobs/{sha256(push.content)}")).body == push.content


@pytest.mark.parametrize("grace", ["500ms", "1ms"])
def test_a_request_that_outlasts_the_grace_is_cut_and_can_be_resumed(grace: str, tmp_path: Path) -> None:
    document = {"shutdown_grace": grace, "nodes": [node()]}
    with Daemon(tmp_path / "daemon", document) as daemon, ThreadPoolExecutor(1) as pool:
        go_on = threading.Event()
        push = SlowPush(daemon, 1, go_on)
        answer = pool.submit(push.append)
        eventually(lambda: received(daemon, push) >= 2**20, "a push to be under way")
        assert daemon.terminate() == 0
        go_on.set()
        with pytest.raises((OSError, http.client.HTTPException)):
            answer.result()

        daemon.start()
        assert get(daemon.url(f"/v2/slow/pushes/blobs/{sha256(push.content)}")).status == 404
        assert push.resume().status == 201
        assert get(daemon.url(f"/v2/slow/pushes/blobs/{sha256(push.content)}")).body == push.content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_stops_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with Daemon(tmp_path / "daemon", {"nodes": [node(), node("eu-west-1")]}) as daemon:
        idle = http.client.HTTPConnection(daemon.address(), timeout=10)
        idle.request("GET", "/v2/")
        idle.getresponse().read()
        daemon.process.signal(number)
        assert daemon.process.wait(timeout=5) == 0
        idle.close()


def test_what_was_written_about_requests_is_complete_after_a_stop(tmp_path: Path) -> None:
    with Daemon(tmp_path / "daemon", {"nodes": [node()]}) as daemon:
        for number in range(20):
            get(daemon.url(f"/v2/a/b/manifests/{number}"))
        daemon.terminate()
        log = daemon.process.output_path.read_text()
    assert all(f'"path":"/v2/a/b/manifests/{number}"' in log for number in range(20))
