"""What is measured. A case takes one sample of one server; whoever runs it alternates between the servers."""

from __future__ import annotations

import dataclasses
import enum
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks import loads
from tests.benchmarks.loads import Blob, Sample, make_blob
from tests.benchmarks.servers import OURS, STOCK, TUNED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.servers import DockerRegistry, Field, Server

MB = 1_000_000


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int
    seconds: int
    """Of one sample of small requests."""
    large: int
    """Bytes of a large blob."""
    huge: int
    """Bytes of the blob whose push and pull memory is watched."""
    many: int
    """Clients of the largest crowds."""


FULL = Scale(rounds=5, seconds=2, large=200 * MB, huge=2 * loads.GIB, many=1000)
QUICK = Scale(rounds=1, seconds=1, large=100 * MB, huge=loads.GIB // 2, many=200)


class Place(enum.Enum):
    """What is measured, and where."""

    REGISTRIES = "registries"
    CACHES = "caches"
    DISTANT = "caches whose upstream is far away"


@dataclass
class Scene:
    """The servers of a group of cases, with what was put there before."""

    field: Field
    scale: Scale
    repository: str = "bench/app"
    manifest: str = ""
    blobs: dict[int, Blob] = dataclasses.field(default_factory=dict)

    @property
    def upstream(self) -> DockerRegistry:
        """The registry behind the caches."""
        assert self.field.upstream is not None
        return self.field.upstream

    @property
    def way(self) -> Server:
        """The same as the caches reach it."""
        assert self.field.way is not None
        return self.field.way

    def prepare(self) -> None:
        """Put an image and blobs where they are pulled from, and pull them once through caches."""
        sources: list[Server] = [self.upstream] if self.field.upstream else self.field.servers
        for size in (10 * MB, self.scale.large):
            self.blobs[size] = make_blob(f"prepared-{size}", size)
        for server in sources:
            self.manifest = loads.push_image(server, self.repository, "1.0")
            for blob in self.blobs.values():
                loads.push(server, self.repository, blob)
        if self.field.upstream:
            for server in self.field.servers:
                for blob in self.blobs.values():
                    loads.pull(server, server.cached(self.repository), blob)

    def fresh_blob(self, purpose: str, size: int) -> Blob:
        """Put a blob upstream that nobody has pulled yet."""
        blob = make_blob(purpose, size)
        loads.touch_memory()
        loads.push(self.upstream, self.repository, blob)
        os.sync()  # what others wrote before is not written back during the next sample
        return blob


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    name: str
    title: str
    unit: str
    measure: Callable[[Scene, Server, int], Sample]
    place: Place = Place.REGISTRIES
    more_is_better: bool = True
    servers: tuple[str, ...] = (OURS, STOCK, TUNED)
    most_rounds: int = 5

    @property
    def cpu_unit(self) -> str:
        """What processor time is given in."""
        return "µs/request" if self.unit == "req/s" else "s/GB"


def _manifest_by_tag(scene: Scene, server: Server, _: int) -> Sample:
    return loads.wrk(server, f"/v2/{scene.repository}/manifests/1.0", scene.scale.seconds)


def _manifest_by_digest(scene: Scene, server: Server, _: int) -> Sample:
    return loads.wrk(server, f"/v2/{scene.repository}/manifests/{scene.manifest}", scene.scale.seconds)


def _manifest_head(scene: Scene, server: Server, _: int) -> Sample:
    return loads.hey(server, f"/v2/{scene.repository}/manifests/1.0", scene.scale.seconds)


def _small_blob(scene: Scene, server: Server, _: int) -> Sample:
    config = make_blob(f"{scene.repository}-layer-0", 1024)
    return loads.wrk(server, f"/v2/{scene.repository}/blobs/{config.digest}", scene.scale.seconds)


def _medium_pull(scene: Scene, server: Server, _: int) -> Sample:
    return loads.pull(server, scene.repository, scene.blobs[10 * MB], 60)


def _large_pull(scene: Scene, server: Server, _: int) -> Sample:
    return loads.pull(server, scene.repository, scene.blobs[scene.scale.large], 5)


def _whole_push(scene: Scene, server: Server, number: int) -> Sample:
    blob = make_blob(f"whole-{number}", 100 * MB)
    loads.touch_memory()
    return loads.push(server, "bench/whole", blob)


def _chunked_push(scene: Scene, server: Server, number: int) -> Sample:
    blob = make_blob(f"chunked-{number}", 100 * MB)
    loads.touch_memory()
    return loads.push(server, "bench/chunked", blob, chunk=10 * MB)


def _cold_pull(scene: Scene, server: Server, number: int) -> Sample:
    """Pull a new blob through a cache, and straight from the upstream over the same way, in either order."""
    size = scene.scale.large
    blob = scene.fresh_blob(f"cold-{server.name}-{number}", size)
    found: dict[str, Sample] = {}
    for name in random.sample(("direct", "cold"), k=2):
        if name == "cold":
            found[name] = loads.pull(server, server.cached(scene.repository), blob)
        else:
            found[name] = loads.pull(scene.way, scene.repository, blob)
    more = {f"direct {name}": value for name, value in found["direct"].more.items()}
    return dataclasses.replace(found["cold"], more={**found["cold"].more, **more})


def _warm_pull(scene: Scene, server: Server, _: int) -> Sample:
    return loads.pull(server, server.cached(scene.repository), scene.blobs[scene.scale.large], 5)


def _warm_manifest(scene: Scene, server: Server, _: int) -> Sample:
    return loads.wrk(server, f"/v2/{server.cached(scene.repository)}/manifests/1.0", scene.scale.seconds)


def _crowd(scene: Scene, server: Server, number: int) -> Sample:
    return _crowded(scene, server, number, scene.scale.large, 50)


def _many(scene: Scene, server: Server, number: int) -> Sample:
    return _crowded(scene, server, number, 10 * MB, scene.scale.many)


def _many_large(scene: Scene, server: Server, number: int) -> Sample:
    return _crowded(scene, server, number, 100 * MB, scene.scale.many)


def _crowded(scene: Scene, server: Server, number: int, size: int, clients: int) -> Sample:
    blob = scene.fresh_blob(f"crowd-{clients}-{size}-{server.name}-{number}", size)
    sample = loads.crowd(server, server.cached(scene.repository), blob, clients)
    more = {**sample.more, "downloads": float(scene.upstream.downloads(blob.digest))}
    return dataclasses.replace(sample, more=more)


CASES = (
    Case("manifest-tag", "GET manifest by tag, 1.8 KB", "req/s", _manifest_by_tag),
    Case("manifest-digest", "GET manifest by digest, 1.8 KB", "req/s", _manifest_by_digest),
    Case("manifest-head", "HEAD manifest by tag", "req/s", _manifest_head),
    Case("blob-1kb", "GET blob, 1 KB", "req/s", _small_blob),
    Case("blob-10mb", "GET blob, 10 MB", "MB/s", _medium_pull),
    Case("blob-large", "GET blob, {large} MB", "MB/s", _large_pull),
    Case("push-whole", "push 100 MB, POST and one PUT", "MB/s", _whole_push),
    Case("push-chunked", "push 100 MB, ten PATCHes of 10 MB", "MB/s", _chunked_push),
    Case("cold-pull", "cold pull-through, {large} MB", "MB/s", _cold_pull, Place.CACHES),
    Case(
        "cold-pull-distant",
        "cold pull-through, {large} MB, over 30 ms and 1 Gbit/s",
        "MB/s",
        _cold_pull,
        Place.DISTANT,
        servers=(OURS, STOCK),
        most_rounds=3,
    ),
    Case("warm-pull", "warm pull-through, {large} MB", "MB/s", _warm_pull, Place.CACHES),
    Case("warm-manifest", "warm pull-through, manifest by tag", "req/s", _warm_manifest, Place.CACHES),
    Case(
        "crowd",
        "50 clients pull one cold blob of {large} MB",
        "s",
        _crowd,
        Place.CACHES,
        more_is_better=False,
        most_rounds=2,
    ),
    Case(
        "crowd-many",
        "{many} clients pull one cold blob of 10 MB",
        "s",
        _many,
        Place.CACHES,
        more_is_better=False,
        servers=(OURS, STOCK),
        most_rounds=2,
    ),
    Case(
        "crowd-many-large",
        "{many} clients pull one cold blob of 100 MB",
        "s",
        _many_large,
        Place.CACHES,
        more_is_better=False,
        servers=(OURS,),
        most_rounds=1,
    ),
)
