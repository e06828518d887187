"""One node with real stores as the destination of replication, and the messages that its peers send."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from replicator.core.digest import Digest, digest_of
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.peer_messages import (
    Delivery,
    Offer,
    OfferedBlob,
    OfferedTag,
    Receipt,
    SentManifest,
)
from replicator.core.principal import UNRESTRICTED
from replicator.core.revisions import Revision, TagRegister, write
from replicator.registry.pushes import Pushes
from replicator.registry.replicas import Replicas
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.storage.metadata import images, tags
from replicator.storage.metadata.schema import jobs as jobs_table
from replicator.storage.metadata.schema import metadata
from replicator.storage.metadata.statement import Statement
from tests.support.clock import FakeClock
from tests.support.images import build_image, walk
from tests.support.single_node import NODE, open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.jobs import JobKind
    from replicator.core.replication import Origin
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.tag_conflicts import TagConflict
    from tests.support.images import Built

SOURCE, THIRD, FOREIGN = (parse_node(text) for text in ("1" * 12 + "/us", "1" * 12 + "/ap", "2" * 12 + "/us"))
REPOSITORY, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
V1 = Tag("v1")
A, B = build_image([b"shared", b"a"]), build_image([b"shared", b"b"])
START = 1_750_000_000.0


class OpenScene(Protocol):
    """Opens a destination with settings of the test's own."""

    async def __call__(self, **settings: object) -> Scene: ...


class Scene:
    """One destination with its use cases, and what a test looks at."""

    def __init__(self, node: RegistryNode) -> None:
        self.node = node
        self.offsets: dict[Digest, int] = {}
        self.conflicts: list[TagConflict] = []
        self.announced: list[JobKind] = []
        self.replicas = Replicas(node, self, self)
        node.on_jobs(self.announced.append)

    async def offset_of(self, peer: NodeId, repository: RepositoryName, digest: Digest) -> int:
        return self.offsets.get(digest, 0)

    def conflict_found(self, conflict: TagConflict) -> None:
        self.conflicts.append(conflict)

    async def upload(self, content: bytes, repository: RepositoryName = REPOSITORY) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            yield content

        await Uploads(self.node).put_blob(UNRESTRICTED, repository, digest_of(content), chunks())

    async def push(self, built: Built, tag: Tag | None = None, repository: RepositoryName = REPOSITORY) -> None:
        await self.link(built, repository)
        for each in walk(built):
            reference = tag if tag is not None and each is built else each.digest
            await Pushes(self.node).put_manifest(UNRESTRICTED, repository, reference, each.manifest, each.media_type)

    async def link(self, built: Built, repository: RepositoryName = REPOSITORY) -> None:
        """Bring the blobs of an image, as a client does before its manifest, and a source before a delivery."""
        for content in built.blobs.values():
            await self.upload(content, repository)

    async def deliver(self, delivery: Delivery, peer: NodeId = SOURCE) -> Receipt:
        return await self.replicas.deliver(peer, delivery)

    async def receive(self, built: Built, at: float = 1.0, tag: TagRegister | None = None) -> Receipt:
        await self.link(built)
        return await self.deliver(delivery_of(built, at, tag))

    async def tag(self, tag: Tag = V1, repository: RepositoryName = REPOSITORY) -> Digest | None:
        found = await self.node.database.read(tags.find(repository, tag))
        return found.digest if found else None

    async def origin(self, built: Built, repository: RepositoryName = REPOSITORY) -> Origin | None:
        return await self.node.database.read(images.find_origin(repository, built.digest))

    async def jobs(self) -> list[tuple[str, str]]:
        found = await self.node.database.read(Statement(jobs_table.select().order_by(jobs_table.c.key))())
        return [(row[1], row[2]) for row in found]

    async def rows(self) -> dict[str, list[str]]:
        return {
            name: sorted(map(repr, await self.node.database.read(Statement(table.select())())))
            for name, table in metadata.tables.items()
        }


@asynccontextmanager
async def scene_of(
    path: Path, settings: RegistrySettings | None = None, clock: FakeClock | None = None
) -> AsyncIterator[Scene]:
    async with open_node(path, clock or FakeClock(START), settings=settings or RegistrySettings(NODE)) as node:
        yield Scene(node)


def revision(at: float, node: NodeId = SOURCE) -> Revision:
    return Revision(1, int((START + at) * 1000), str(node))


def pointing(built: Built | None, at: float, before: TagRegister | None = None, by: NodeId = SOURCE) -> TagRegister:
    return write(before, built.digest if built else None, by, START + at)


def sent(built: Built) -> SentManifest:
    return SentManifest(built.digest, built.media_type, built.manifest)


def delivery_of(
    built: Built, at: float = 1.0, tag: TagRegister | None = None, repository: RepositoryName = REPOSITORY
) -> Delivery:
    return Delivery(
        repository,
        tuple(sent(each) for each in walk(built)),
        revision(at),
        built.digest,
        None if tag is None else OfferedTag(V1, tag),
        tuple(each.digest for each in walk(built)),
        tuple(built.blobs),
    )


def offer_of(built: Built, at: float = 1.0, repository: RepositoryName = REPOSITORY) -> Offer:
    return Offer(
        repository,
        built.digest,
        revision(at),
        tuple(each.digest for each in walk(built)),
        tuple(OfferedBlob(digest, len(content)) for digest, content in built.blobs.items()),
        OfferedTag(V1, pointing(built, at)),
    )


def lacked(*built: Built) -> set[Digest]:
    return {digest for each in built for digest in each.blobs}


def tagged(built: Built, *, is_final: bool = False) -> Offer:
    return replace(offer_of(built, 2.0), tag=OfferedTag(V1, pointing(built, 2.0)), is_final=is_final)
