"""Regions that are processes of their own, joined by connections that go wrong, and a model of what they acknowledged.

    with Regions(tmp_path, rules=both_ways) as regions:
        regions.push("us-east-1", "team/app", "v1", image)
        regions.split(["us-east-1"], ["eu-west-1", "ap-southeast-1"])
        ...
        regions.heal()
        regions.until_equal()

The model is a dictionary of acknowledged operations (`Acknowledged`); `check` asks every region for everything in it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from tests.support.daemon import Daemon, node
from tests.support.fault_proxy import Fault, Proxies, Proxy
from tests.support.http_calls import Answer, call
from tests.support.images import Built, BuiltImage, walk
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

US, EU, AP = "us-east-1", "eu-west-1", "ap-southeast-1"
ACCOUNT = "111122223333"
CONVERGENCE = 60.0
"""Seconds after the last fault within which all regions must agree (reliability, REL-35)."""

Document = dict[str, Any]


def destinations(*regions: str) -> list[Document]:
    """Return destinations of a rule in the account of all regions here."""
    return [{"account": ACCOUNT, "region": region} for region in regions]


def one_way(region: str) -> list[Document]:
    """Return the rules of a star: the first region sends everything to the others."""
    return [{"name": "all", "destinations": destinations(EU, AP)}] if region == US else []


def every_way(region: str) -> list[Document]:
    """Return the rules of a mesh: every region sends everything to the others, deletions, too."""
    others = [other for other in (US, EU, AP) if other != region]
    return [{"name": "mesh", "destinations": destinations(*others), "delete_replication": True}]


@dataclass
class Acknowledged:
    """What clients were told is stored: images with their bytes by repository, and what was deleted."""

    images: dict[str, dict[str, Built]] = field(default_factory=lambda: defaultdict(dict))
    deleted: set[tuple[str, str]] = field(default_factory=set)


class Regions:
    """Three daemons. Ways between them are `proxies`: from one region to another."""

    def __init__(
        self,
        directory: Path,
        rules: Callable[[str], list[Document]] = one_way,
        names: Sequence[str] = (US, EU, AP),
        settings: Mapping[str, Document] | None = None,
        peer: Mapping[str, Any] | None = None,
    ) -> None:
        self.names = tuple(names)
        self.acknowledged = Acknowledged()
        self._proxies = Proxies()
        self._rules = rules
        self._settings = settings or {}
        self._peer = peer or {}
        self._directory = directory
        self.daemons: dict[str, Daemon] = {}
        self.ways: dict[tuple[str, str], Proxy] = {}

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self._proxies)
        self.ways = {(a, b): self._proxies.add() for a in self.names for b in self.names if a != b}
        self.daemons = {name: self._daemon(name) for name in self.names}
        for name in self.names:
            self._stack.push(self.daemons[name].__exit__)
            self.daemons[name].directory.mkdir(parents=True, exist_ok=True)
            self.daemons[name].launch()
        for name in self.names:
            self.daemons[name].wait_until_ready()
            self._lead(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _daemon(self, name: str) -> Daemon:
        peers = [
            {"account": ACCOUNT, "region": other, "url": self.peer_url(name, other), **self._peer}
            for other in self.names
            if other != name
        ]
        replication = {"rules": self._rules(name), **self._settings.get(name, {}).get("replication", {})}
        settings = {**self._settings.get(name, {}), "replication": replication}
        document = {
            "nodes": [node(name, ACCOUNT, **settings)],
            "peers": peers,
            "peer_secret": {"env": "PEER_SECRET"},
            "log": {"format": "json"},
            "shutdown_grace": "2s",
        }
        return self.make_daemon(name, document, {"PEER_SECRET": "a secret of all regions here"})

    def peer_url(self, name: str, other: str) -> str:
        """Return where one region reaches another."""
        return self.ways[name, other].url

    def make_daemon(self, name: str, document: Document, environ: Mapping[str, str]) -> Daemon:
        """Return the daemon of a region, not started."""
        return Daemon(self._directory / name, document, environ)

    def _lead(self, name: str) -> None:
        port = int(self.daemons[name].address().rpartition(":")[2])
        for (_, to), way in self.ways.items():
            if to == name:
                way.lead_to(port)

    # Faults

    def fail(self, source: str, destination: str, fault: Fault) -> None:
        """Have the way from one region to another go wrong."""
        self.ways[source, destination].fail(fault)

    def split(self, *groups: Iterable[str]) -> None:
        """Leave only the ways within each group; regions in no group are alone."""
        of = {name: number for number, group in enumerate(groups) for name in group}
        for (a, b), way in self.ways.items():
            if of.get(a, a) != of.get(b, b):
                way.fail(Fault(refuse=True))
            else:
                way.heal()

    def heal(self) -> None:
        """Make all ways whole."""
        for way in self.ways.values():
            way.heal()

    def kill(self, name: str) -> None:
        """End a region at once."""
        self.daemons[name].kill()

    def start(self, name: str) -> None:
        """Start a region that was killed."""
        self.daemons[name].start()
        self._lead(name)

    # Clients

    def push(self, region: str, repository: str, tag: str | None, image: Built) -> None:
        """Push an image with everything in it; what was acknowledged is in the model, whatever comes after."""
        for one in walk(image):
            for digest, content in one.blobs.items() if isinstance(one, BuiltImage) else ():
                self._put_blob(region, repository, digest, content)
            reference = tag if tag is not None and one is image else one.digest
            self.put_manifest(region, repository, reference, one)

    def _put_blob(self, region: str, repository: str, digest: str, content: bytes) -> None:
        url = self.daemons[region].url(f"/v2/{repository}/blobs/uploads/?digest={quote(digest)}", region)
        answer = call("POST", url, content, {"Content-Type": "application/octet-stream"})
        assert answer.status == 201, answer

    def put_manifest(self, region: str, repository: str, reference: str, image: Built) -> None:
        """Push a manifest whose content is there, under a tag or its digest."""
        url = self.daemons[region].url(f"/v2/{repository}/manifests/{reference}", region)
        answer = call("PUT", url, image.manifest, {"Content-Type": image.media_type})
        assert answer.status == 201, answer
        self.acknowledged.images[repository][image.digest] = image

    def delete(self, region: str, repository: str, reference: str) -> None:
        """Delete a tag or an image."""
        url = self.daemons[region].url(f"/v2/{repository}/manifests/{reference}", region)
        answer = call("DELETE", url)
        assert answer.status == 202, answer
        if ":" in reference:
            self.acknowledged.images[repository].pop(reference, None)
            self.acknowledged.deleted.add((repository, reference))

    def get(self, region: str, path: str) -> Answer:
        """GET a path of a region."""
        return call("GET", self.daemons[region].url(path, region), headers={"Accept": "*/*"})

    def digest(self, region: str, repository: str, tag: str) -> str | None:
        """Return what a tag points to in a region, checked against the bytes that come with it."""
        try:
            answer = self.get(region, f"/v2/{repository}/manifests/{tag}")
        except (OSError, HTTPException):
            return None
        if answer.status != 200:
            return None
        stated = answer.headers["Docker-Content-Digest"]
        assert stated == f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        return stated

    def tag_names(self, region: str, repository: str) -> list[str]:
        """Return the names of the tags of a repository in a region."""
        names: list[str] = []
        while True:
            after = f"&last={names[-1]}" if names else ""
            answer = self.get(region, f"/v2/{repository}/tags/list?n=1000{after}")
            page = answer.json()["tags"] if answer.status == 200 else []
            if not page:
                return names
            names += page

    def tags(self, region: str, repository: str) -> dict[str, str | None]:
        """Return every tag of a repository in a region with its digest."""
        return {name: self.digest(region, repository, name) for name in self.tag_names(region, repository)}

    def metrics(self, region: str, name: str) -> float:
        """Return the sum of a metric of a region over all its labels."""
        lines = self.get(region, "/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0] == name)

    # What must hold

    def holds(self, region: str, repository: str, image: Built) -> bool:
        """Tell whether a region serves an image with every byte of it."""
        for one in walk(image):
            answer = self.get(region, f"/v2/{repository}/manifests/{one.digest}")
            if answer.status != 200 or answer.body != one.manifest:
                return False
        for digest, content in image.blobs.items():
            answer = self.get(region, f"/v2/{repository}/blobs/{digest}")
            if answer.status != 200 or answer.body != content:
                return False
        return True

    def until_has(self, region: str, repository: str, tag: str, image: Built, within: float = CONVERGENCE) -> None:
        """Return once a tag points to an image in a region, and check that the image is whole there."""
        eventually(
            lambda: self.digest(region, repository, tag) == image.digest,
            f"{repository}:{tag} to be {image.digest} in {region}",
            within=within,
        )
        assert self.holds(region, repository, image)

    def until_equal(self, repository: str, within: float = CONVERGENCE) -> dict[str, str | None]:
        """Return the tags of a repository once every region has the same ones and no region has work left."""
        eventually(lambda: self.is_quiet() and self._agree(repository), "all regions to agree", within=within)
        return self.tags(self.names[0], repository)

    def until_quiet(self, within: float = CONVERGENCE) -> None:
        """Return once no region has replication work left."""
        eventually(self.is_quiet, "replication to end", within=within)

    def is_quiet(self) -> bool:
        """Tell whether no region has replication work left."""
        return all(self._pending(name) == 0 for name in self.names)

    def _pending(self, region: str) -> int | None:
        try:
            answer = self.get(region, "/_replicator/v1/status")
        except (OSError, HTTPException):
            return None
        jobs = answer.json()["replication"]["jobs"]
        return int(jobs["queued"]) + int(jobs["leased"])

    def _agree(self, repository: str) -> bool:
        first, *rest = (self.tags(name, repository) for name in self.names)
        return all(other == first for other in rest)

    def check(self, repository: str, regions: Iterable[str] | None = None) -> None:
        """Check that every acknowledged image is whole wherever it must be, and that no deleted one is back.

        What a region has left to do is told from a count that is some seconds old, so an image may be on its way.
        """
        for region in regions or self.names:
            for image in self.acknowledged.images[repository].values():
                holds = partial(self.holds, region, repository, image)
                eventually(holds, f"{image.digest} to be whole in {region}", within=CONVERGENCE)
            for name, digest in self.acknowledged.deleted:
                answer = self.get(region, f"/v2/{name}/manifests/{digest}")
                assert answer.status == 404, f"{digest} came back in {region}"
