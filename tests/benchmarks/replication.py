"""Replication between two daemons: how late, how many, how fast, and what a long link leaves of it.

Beside it, in the same run: skopeo doing the same work between the same source and docker-registry, and for large layers
a plain curl of the same bytes from the source.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from replicator.core.media_types import OCI_MANIFEST
from tests.benchmarks import loads
from tests.benchmarks.client import Connection
from tests.benchmarks.loads import Blob, make_blob
from tests.benchmarks.servers import STOCK, DockerRegistry, Link
from tests.support.daemon import Daemon, node
from tests.support.http_calls import call
from tests.support.tools import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

US, EU, ACCOUNT = "us-east-1", "eu-west-1", "111122223333"
MB = 1_000_000
RTT, LINK = 0.1, 125e6
"""Seconds, and bytes a second: a gigabit between continents."""
HEADING = ("case", "unit", "replicator", "beside it", "what", "ratio")
Row = tuple[str, ...]


@dataclass(frozen=True)
class ReplicationScale:
    """How much is measured."""

    lags: int
    images: int
    layer: int
    """Bytes of each of four large layers."""
    rounds: int
    link_layer: int
    """Bytes of each of ten layers that go over the long link."""


FULL = ReplicationScale(lags=60, images=300, layer=100 * MB, rounds=3, link_layer=25 * MB)
QUICK = ReplicationScale(lags=15, images=60, layer=50 * MB, rounds=1, link_layer=12 * MB)


class _Region:
    """A node as the benchmark's clients see it."""

    name = "replicator"

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.headers: list[str] = []

    @property
    def port(self) -> int:
        """Its loopback port."""
        return int(self.daemon.address().rpartition(":")[2])

    @property
    def pid(self) -> int:
        """Its process."""
        return self.daemon.process.pid

    def cached(self, repository: str) -> str:
        """Return the repository's name: nothing is cached here."""
        return repository

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the daemon running: the pair ends it."""


class Pair:
    """Two daemons, the first of which replicates everything to the second; over a long link, if asked for."""

    def __init__(self, directory: Path, *, link: bool = False) -> None:
        self._directory = directory
        self._link = link
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            environ = {"PEER_SECRET": "of this benchmark"}
            shared: dict[str, Any] = {"peer_secret": {"env": "PEER_SECRET"}, "log": {"format": "json"}}
            there = Daemon(self._directory / EU, {**shared, "nodes": [node(EU, ACCOUNT)]}, environ)
            stack.enter_context(there)
            self.destination = _Region(there)
            port = self.destination.port
            if self._link:
                port = stack.enter_context(Link(self._directory / "link", port, RTT, LINK)).port
            rules = [{"name": "all", "destinations": [{"account": ACCOUNT, "region": EU}]}]
            document = {
                **shared,
                "peers": [{"account": ACCOUNT, "region": EU, "url": f"http://127.0.0.1:{port}"}],
                "nodes": [node(US, ACCOUNT, replication={"rules": rules})],
            }
            here = Daemon(self._directory / US, document, environ)
            stack.enter_context(here)
            self.source = _Region(here)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def put(self, repository: str, tag: str, blobs: Sequence[Blob], *, again: bool = False) -> tuple[str, float]:
        """Push an image; return its digest and when it was acknowledged. `again`: its blobs are there."""
        for blob in () if again else blobs:
            loads.push(self.source, repository, blob)
        manifest = _manifest(blobs)
        url = f"http://127.0.0.1:{self.source.port}/v2/{repository}/manifests/{tag}"
        answer = call("PUT", url, manifest, {"Content-Type": OCI_MANIFEST})
        if answer.status != 201:
            raise RuntimeError(f"the manifest was refused: {answer!r}")
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}", time.perf_counter()

    def until_there(self, repository: str, tag: str, digest: str) -> float:
        """Ask the destination over and over; return when it first had the image under the tag."""
        connection = Connection(self.destination.port, [f"Accept: {OCI_MANIFEST}"])
        while True:
            connection.send_head("HEAD", f"/v2/{repository}/manifests/{tag}")
            status, headers, _ = connection.read_head()
            if status == 200 and headers.get("docker-content-digest") == digest:
                return time.perf_counter()
            time.sleep(0.0005)  # leaves the processor to those who are measured


def _manifest(blobs: Sequence[Blob]) -> bytes:
    described = [{"digest": blob.digest, "size": blob.size} for blob in blobs]
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described[0]},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **one} for one in described[1:]],
        }
    ).encode()


def _image(name: str, layers: int, size: int) -> list[Blob]:
    return [make_blob(f"{name}-config", 500), *(make_blob(f"{name}-{number}", size) for number in range(layers))]


def _skopeo(*arguments: str) -> float:
    command = [require("skopeo"), *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"skopeo failed: {done.stderr[-400:]}")
    return time.perf_counter() - began


def _copy(pair: Pair, registry: DockerRegistry, repository: str, tag: str) -> float:
    source, destination = f"127.0.0.1:{pair.source.port}", f"127.0.0.1:{registry.port}"
    return _skopeo(
        *("copy", "--src-tls-verify=false", "--dest-tls-verify=false"),
        *(f"docker://{source}/{repository}:{tag}", f"docker://{destination}/{repository}:{tag}"),
    )


def _sync(pair: Pair, registry: DockerRegistry, repository: str) -> float:
    source, destination = f"127.0.0.1:{pair.source.port}", f"127.0.0.1:{registry.port}"
    return _skopeo(
        *("sync", "--src-tls-verify=false", "--dest-tls-verify=false", "--src", "docker", "--dest", "docker"),
        *(f"{source}/{repository}", f"{destination}/{repository.rpartition('/')[0]}"),
    )


def _lag(pair: Pair, registry: DockerRegistry, scale: ReplicationScale) -> Iterable[Row]:
    ours, theirs = [], []
    for number in range(scale.lags):
        digest, pushed = pair.put("bench/lag", f"v{number}", _image(f"lag-{number}", 2, 2000))
        ours.append(pair.until_there("bench/lag", f"v{number}", digest) - pushed)
        if number < max(5, scale.lags // 6):
            theirs.append(_copy(pair, registry, "bench/lag", f"v{number}"))
    for title, share in (("p50", 0.5), ("p99", 0.99)):
        mine, other = _quantile(ours, share), _quantile(theirs, share)
        yield (
            f"push to pullable, 5 KB image, idle nodes, {title}",
            "ms",
            f"{mine * 1000:.1f}",
            f"{other * 1000:.0f}",
            "skopeo copy to docker-registry",
            f"{other / mine:.1f}",
        )


def _sustained(pair: Pair, registry: DockerRegistry, scale: ReplicationScale) -> Iterable[Row]:
    pair.destination.daemon.terminate()
    digests = {}
    for number in range(scale.images):
        tag = f"v{number}"
        digests[tag] = pair.put("bench/many", tag, _image(f"many-{number}", 3, 20_000))[0]
    pair.destination.daemon.start()
    last: dict[str, float] = {}
    connection = Connection(pair.destination.port, [f"Accept: {OCI_MANIFEST}"])
    began = 0.0
    while len(last) < len(digests):
        for tag in [tag for tag in digests if tag not in last]:
            connection.send_head("HEAD", f"/v2/bench/many/manifests/{tag}")
            if connection.read_head()[0] != 200:
                continue
            last[tag] = time.perf_counter()
            began = began or last[tag]
        time.sleep(0.01)  # leaves the processor to those who are measured
    mine = (len(digests) - 1) / (max(last.values()) - began)
    theirs = scale.images / _sync(pair, registry, "bench/many")
    title = f"{scale.images} images of 3 layers of 20 KB, after an outage"
    yield (title, "images/s", f"{mine:.1f}", f"{theirs:.1f}", "skopeo sync to docker-registry", f"{mine / theirs:.1f}")


def _large(pair: Pair, registry: DockerRegistry, scale: ReplicationScale, directory: Path) -> Iterable[Row]:
    ours, curls, skopeos = [], [], []
    for number in range(scale.rounds):
        tag, blobs = f"v{number}", _image(f"large-{number}", 4, scale.layer)
        size = sum(blob.size for blob in blobs)
        digest, pushed = pair.put("bench/large", tag, blobs)
        ours.append(size / (pair.until_there("bench/large", tag, digest) - pushed) / 1e6)
        curls.append(size / _curl(pair, blobs, directory) / 1e6)
        skopeos.append(size / _copy(pair, registry, "bench/large", tag) / 1e6)
    mine = statistics.median(ours)
    title = f"4 layers of {scale.layer // MB} MB"
    for what, found in (("curl of the same bytes to files", curls), ("skopeo copy to docker-registry", skopeos)):
        other = statistics.median(found)
        yield (title, "MB/s", f"{mine:.0f}", f"{other:.0f}", what, f"{mine / other:.2f}")


def _curl(pair: Pair, blobs: Sequence[Blob], directory: Path) -> float:
    command = [require("curl"), "--silent", "--fail"]
    for blob in blobs:
        target = directory / "curled"
        command += ["-o", str(target), f"http://127.0.0.1:{pair.source.port}/v2/bench/large/blobs/{blob.digest}"]
    began = time.perf_counter()
    subprocess.run(command, check=True, timeout=600)  # noqa: S603 - curl on loopback
    return time.perf_counter() - began


def _long_link(pair: Pair, scale: ReplicationScale) -> Iterable[Row]:
    seconds = []
    bound = 10 * scale.link_layer / LINK + 3 * RTT
    for number in range(max(2, scale.rounds)):
        blobs = _image(f"link-{number}", 10, scale.link_layer)
        digest, pushed = pair.put("bench/link", f"v{number}", blobs)
        seconds.append(pair.until_there("bench/link", f"v{number}", digest) - pushed)
    mine = statistics.median(seconds)
    title = f"10 layers of {scale.link_layer // MB} MB over 100 ms and 1 Gbit/s"
    yield (
        title,
        "s",
        f"{mine:.2f}",
        f"{bound:.2f}",
        "the bound: bytes / bandwidth + 3 round trips",
        f"{mine / bound:.2f}",
    )
    one = _image("link-one", 1, 10 * scale.link_layer)
    digest, pushed = pair.put("bench/link", "one", one)
    took = pair.until_there("bench/link", "one", digest) - pushed
    title = f"1 layer of {10 * scale.link_layer // MB} MB over the same link"
    yield (title, "s", f"{took:.2f}", f"{bound:.2f}", "the same bound", f"{took / bound:.2f}")
    trips = []
    for _ in range(5):
        _, pushed = pair.put("bench/link", "one", one, again=True)
        _wait(pair, "bench/link", "one")
        trips.append((time.perf_counter() - pushed) / RTT)
    yield (
        "an unchanged push again, over the same link",
        "round trips",
        f"{statistics.median(trips):.2f}",
        "2",
        "promised",
        "",
    )


def _wait(pair: Pair, repository: str, tag: str) -> None:
    url = f"http://127.0.0.1:{pair.source.port}/_replicator/v1/replication/wait"
    body = {"repository": repository, "reference": tag, "regions": [EU], "timeout": 30}
    answer = call("POST", url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if answer.status != 200:
        raise RuntimeError(f"waiting failed: {answer!r}")


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(directory: Path, scale: ReplicationScale) -> list[Row]:
    """Measure everything about replication, and return the rows of its table."""
    rows: list[Row] = []
    with DockerRegistry(directory / "registry", STOCK) as registry, Pair(directory / "pair") as pair:
        rows += _lag(pair, registry, scale)
        rows += _sustained(pair, registry, scale)
        rows += _large(pair, registry, scale, directory)
    with Pair(directory / "long", link=True) as pair:
        rows += _long_link(pair, scale)
    return rows
