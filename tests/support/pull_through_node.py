"""A node with a pull-through cache in front of a fake upstream."""

from __future__ import annotations

import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicator.cache.pull_through import PullThrough
from replicator.core.cache_rules import CacheRule
from replicator.core.errors import ReplicatorError
from replicator.core.manifest import parse_manifest
from replicator.core.names import RepositoryName, Tag
from replicator.core.principal import UNRESTRICTED, Principal
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.storage.metadata import cache_entries, images, tags
from replicator.upstream.client import open_client
from tests.support.single_node import NODE, open_node
from tests.support.upstream_clients import endpoint_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from replicator.cache.limits import CacheLimits
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.reference import Reference
    from replicator.core.replication import Origin
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import BlobStore
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.storage.metadata.images import StoredManifest
    from tests.support.clock import FakeClock
    from tests.support.images import BuiltImage
    from tests.support.upstreams import FakeRegistry

HUB = CacheRule("docker-hub", "hub", fresh_for=3600.0, accept_pushes=True)
"""Users may push below it, so that a test can see what they pushed beside what the cache fetched."""
ALPINE = RepositoryName("docker-hub/library/alpine")
LATEST = Tag("latest")


class CountingObserver:
    """Counts what the cache reports."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.findings: Counter[str] = Counter()

    def result(self, rule: str, result: str) -> None:
        self.results[f"{rule} {result}"] += 1

    def upstream_bytes(self, upstream: str, size: int) -> None:
        self.bytes[upstream] += size

    def found(self, rule: str, finding: str) -> None:
        self.findings[f"{rule} {finding}"] += 1


class CachingNode:
    """An open node with its cache, and what a client or a test does with it."""

    def __init__(self, directory: Path, node: RegistryNode, cache: PullThrough, observer: CountingObserver) -> None:
        self.directory = directory
        self.node = node
        self.cache = cache
        self.observer = observer
        self.pulls = Pulls(node)
        self.pushes = Pushes(node)
        self.uploads = Uploads(node)

    # What clients do

    async def manifest(
        self, reference: Reference = LATEST, repository: RepositoryName = ALPINE, principal: Principal = UNRESTRICTED
    ) -> StoredManifest:
        """Pull a manifest."""
        return await self.cache.get_manifest(principal, repository, reference)

    async def open(
        self, digest: Digest, repository: RepositoryName = ALPINE, principal: Principal = UNRESTRICTED
    ) -> BlobContent:
        """Begin to pull a blob."""
        return await self.cache.open_blob(principal, repository, digest)

    async def blob(
        self, digest: Digest, repository: RepositoryName = ALPINE, principal: Principal = UNRESTRICTED
    ) -> bytes:
        """Pull a whole blob."""
        return await read_all(await self.open(digest, repository, principal))

    async def image(self, reference: Reference = LATEST, repository: RepositoryName = ALPINE) -> Mapping[Digest, bytes]:
        """Pull an image with all its blobs and return these."""
        manifest = await self.manifest(reference, repository)
        parsed = parse_manifest(manifest.content, manifest.media_type)
        return {blob.digest: await self.blob(blob.digest, repository) for blob in parsed.blobs}

    async def push(self, image: BuiltImage, reference: Reference, repository: RepositoryName = ALPINE) -> None:
        """Push an image as a user does."""
        for digest, content in image.blobs.items():
            await self.uploads.put_blob(UNRESTRICTED, repository, digest, chunks_of(content))
        await self.pushes.put_manifest(UNRESTRICTED, repository, reference, image.manifest, image.media_type)

    # What lies here

    async def tag(self, tag: Tag = LATEST, repository: RepositoryName = ALPINE) -> Digest | None:
        """Return what a tag points to here."""
        state = await self.node.database.read(tags.find(repository, tag))
        return None if state is None else state.digest

    async def entry(self, tag: Tag = LATEST, repository: RepositoryName = ALPINE) -> CacheEntry | None:
        """Return what is written of a tag's upstream."""
        return await self.node.database.read(cache_entries.find(repository, tag))

    async def origin(self, digest: Digest, repository: RepositoryName = ALPINE) -> Origin | None:
        """Return how an image came here."""
        return await self.node.database.read(images.find_origin(repository, digest))

    async def locations(self) -> list[str]:
        """Return the committed blobs."""
        return [location async for location in self.node.store.iter_locations()]

    @property
    def ingests(self) -> list[str]:
        """The ingests on disk."""
        return sorted(path.name for path in (self.directory / "blobs" / "ingest").iterdir())


@asynccontextmanager
async def caching_node(
    directory: Path,
    upstreams: Mapping[str, FakeRegistry],
    clock: FakeClock,
    *,
    rules: Sequence[CacheRule] = (HUB,),
    store: BlobStore | None = None,
    settings: RegistrySettings | None = None,
    limits: CacheLimits | None = None,
    **options: Any,
) -> AsyncIterator[CachingNode]:
    """Open a node whose cache rules lead to fake upstreams; options are the endpoints'."""
    async with contextlib.AsyncExitStack() as stack:
        settings = replace(settings or RegistrySettings(NODE), cache_rules=tuple(rules))
        node = await stack.enter_async_context(open_node(directory, clock, store=store, settings=settings))
        clients = {name: open_client(endpoint_of(fake, **options), clock) for name, fake in upstreams.items()}
        for client in clients.values():
            stack.push_async_callback(client.close)
        observer = CountingObserver()
        cache = PullThrough(node, Pulls(node), rules, clients, observer, limits)
        stack.push_async_callback(cache.close)
        yield CachingNode(directory, node, cache, observer)


async def read_all(content: BlobContent, start: int = 0, length: int | None = None) -> bytes:
    """Read a blob, or a part of it, to its end."""
    async with content:
        wanted = content.size - start if length is None else length
        return b"".join([bytes(piece) async for piece in content.read(start, wanted)])


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    """Yield content as an upload does."""
    yield content


async def outcome(work: Any) -> Any:
    """Return what `work` returns, or the error of ours that it raises."""
    try:
        return await work
    except ReplicatorError as error:
        return error
