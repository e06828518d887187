"""What the upstreams of the campaign hold, and have held: the truth that answers are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.names import RepositoryName, Tag
from tests.support.images import BuiltImage, build_image, build_index, walk
from tests.support.upstreams import FakeRepository

if TYPE_CHECKING:
    from random import Random

    from replicator.core.digest import Digest
    from tests.support.images import Built

HUB, QUAY = "hub", "quay"
NAMESPACES = {HUB: "hub.example", QUAY: "quay.example"}
PREFIXES = {HUB: "docker-hub", QUAY: "quay-io"}

_EACH = 5
"""Repositories of each upstream."""
_LAYER_SIZES = (0, 1, 40, 3_000, 20_000, 70_000, 130_000, 300_000, 700_000)
_LAYERS = 120
_MOVING = ("latest", "edge", "stable")


@dataclass
class Known:
    """One repository of an upstream. `tags` are all digests that a tag ever pointed to there."""

    upstream: str
    name: str
    images: list[Built] = field(default_factory=list)
    tags: dict[Tag, set[Digest]] = field(default_factory=dict)
    manifests: dict[Digest, tuple[bytes, str]] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    referrers: dict[Digest, set[Digest]] = field(default_factory=dict)

    @property
    def local(self) -> RepositoryName:
        """The name under which the node has it."""
        return RepositoryName(f"{PREFIXES[self.upstream]}/{self.name}")


class World:
    """The repositories of all upstreams: `held` is what they have now, `known` what they ever had."""

    def __init__(self, random: Random) -> None:
        layers = [random.randbytes(random.choice(_LAYER_SIZES)) for _ in range(_LAYERS)]
        self.known: list[Known] = []
        self.held: dict[str, dict[str, FakeRepository]] = {HUB: {}, QUAY: {}}
        for upstream, family in ((HUB, "library/app"), (QUAY, "org/tool")):
            for number in range(_EACH):
                self._add(Known(upstream, f"{family}-{number}"), layers, random)

    @property
    def size(self) -> int:
        """Bytes of all blobs, shared ones counted once."""
        blobs = {digest: len(content) for one in self.known for digest, content in one.blobs.items()}
        return sum(blobs.values())

    def current(self, known: Known) -> dict[str, Digest]:
        """Return the tags that a repository has now."""
        return self.held[known.upstream][known.name].tags

    def move_tag(self, random: Random) -> str:
        """Move a tag upstream, take it away or bring it back; return what was done."""
        known = random.choice(self.known)
        tag, tags = Tag(random.choice(_MOVING)), self.current(known)
        if tag in tags and random.random() < 0.2:
            del tags[tag]
            return "tag removed"
        self._point(known, tag, random.choice(known.images))
        return "tag moved"

    def _add(self, known: Known, layers: list[bytes], random: Random) -> None:
        def image(platform: tuple[str, str] = ("linux", "amd64")) -> BuiltImage:
            chosen = random.sample(layers, random.randint(1, 4))
            return build_image(chosen, random.choice(("oci", "docker")), platform, {"number": str(random.random())})

        self.known.append(known)
        self.held[known.upstream][known.name] = FakeRepository()
        plain = [image() for _ in range(2)]
        index = build_index([image(), image(("linux", "arm64"))])
        signature = build_image([b"signed"], subject=plain[0], artifact_type="application/vnd.example.signature")
        tagged: list[Built] = [*plain, index]
        for number, built in enumerate(tagged):
            self._hold(known, built)
            self._point(known, Tag(f"1.0.{number}"), built)
        self._hold(known, signature)
        known.referrers[plain[0].digest] = {signature.digest}
        for tag in _MOVING:
            self._point(known, Tag(tag), random.choice(known.images))

    def _hold(self, known: Known, built: Built) -> None:
        held = self.held[known.upstream][known.name]
        known.images.append(built)
        for node in walk(built):
            known.manifests[node.digest] = held.manifests[node.digest] = (node.manifest, node.media_type)
            known.blobs.update(node.blobs)
            held.blobs.update(node.blobs)

    def _point(self, known: Known, tag: Tag, built: Built) -> None:
        self.held[known.upstream][known.name].tags[tag] = built.digest
        known.tags.setdefault(tag, set()).add(built.digest)
