"""What a conformance case finds: registries, and a repository with known content."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicator.core.digest import Digest, digest_of
from tests.support.images import BuiltImage, build_image
from tests.support.single_node import SingleNode
from tests.support.wire_client import BLOB_TYPE, WireClient


@dataclass
class Registries:
    """The same registry under four configurations."""

    open: SingleNode
    """Everybody may do everything, and manifests may be sparse."""
    strict: SingleNode
    """As a node is by default: what a manifest refers to must be there."""
    guarded: SingleNode
    """Nobody may do anything without a password; `reader` may only pull."""
    throttled: SingleNode
    """Answers one request an hour."""

    def __getitem__(self, name: str) -> SingleNode:
        registry = getattr(self, name)
        assert isinstance(registry, SingleNode)
        return registry


@dataclass
class Scene:
    """A repository with known content, named in a case's target and headers as `{s.…}`."""

    client: WireClient
    repository: str
    other: str
    """Another repository; holds `elsewhere`."""
    content: bytes = bytes(range(256)) * 8
    image: BuiltImage = field(default_factory=lambda: build_image([b"first layer", b"second layer"]))
    artifact: BuiltImage = field(init=False)
    session: str = ""
    """Location of an open upload session that holds `received`."""
    received: bytes = b"0123456789"

    def __post_init__(self) -> None:
        self.artifact = build_image(
            [b"signature"], artifact_type="application/vnd.example.signature", subject=self.image
        )

    @property
    def blob(self) -> Digest:
        """A blob of the repository, of 2048 bytes."""
        return digest_of(self.content)

    @property
    def absent(self) -> Digest:
        """A digest that nobody holds."""
        return digest_of(b"nobody has this")

    @property
    def elsewhere(self) -> Digest:
        """A blob that only the other repository holds."""
        return digest_of(b"only in " + self.other.encode())

    @property
    def fresh(self) -> bytes:
        """Bytes that were never pushed."""
        return b"fresh in " + self.repository.encode()

    @property
    def fresh_digest(self) -> Digest:
        """The digest of the fresh bytes."""
        return digest_of(self.fresh)

    @property
    def received_digest(self) -> Digest:
        """The digest of what the session holds."""
        return digest_of(self.received)

    @property
    def extended_digest(self) -> Digest:
        """The digest of what the session holds and `abcde`."""
        return digest_of(self.received + b"abcde")

    @property
    def escaped_blob(self) -> str:
        """The blob's digest as some clients write it in a path."""
        return self.blob.replace(":", "%3A")

    @property
    def stranger(self) -> bytes:
        """A manifest with a layer that nobody holds."""
        return self.image.manifest.replace(self.image.layers[0].encode(), self.absent.encode())

    async def set_up(self) -> None:
        """Push what the scene shows."""
        for content in (self.content, *self.image.blobs.values(), *self.artifact.blobs.values()):
            await self.client.push_blob(self.repository, content)
        for reference, built in (("v1", self.image), ("v2", self.image), (self.artifact.digest, self.artifact)):
            answer = await self.client.push_manifest(self.repository, reference, built.manifest)
            assert answer.status == 201, answer
        await self.client.push_blob(self.other, b"only in " + self.other.encode())
        self.session = await self.client.start_upload(self.repository)
        answer = await self.client.send(
            "PATCH", self.session, body=self.received, headers={"Content-Type": BLOB_TYPE, "Content-Range": "0-9"}
        )
        assert answer.status == 202, answer
