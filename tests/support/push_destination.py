"""A registry in memory, as the destination of a copy: it checks what the specification lets it, and can lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, algorithm_of, digest_of
from replicator.core.errors import BlobNotFound, UpstreamContent, UpstreamNotFound, UpstreamRefused
from replicator.core.manifest import parse_manifest
from replicator.core.names import Tag
from replicator.core.reference import as_digest
from replicator.storage.blobs.memory import MemoryBlob
from replicator.storage.metadata.images import StoredManifest
from tests.support.images import Built, BuiltImage, walk
from tests.support.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from replicator.core.content import BlobContent
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference


class MemorySource:
    """A ContentSource that holds images; tests may take parts away, or have reading fail."""

    def __init__(self, *images: Built) -> None:
        self.manifests: dict[str, StoredManifest] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.failure: Exception | None = None
        for image in images:
            for part in walk(image):
                self.add(part)

    def add(self, part: Built) -> None:
        """Hold one manifest and its blobs, without what is below it."""
        self.manifests[part.digest] = StoredManifest(part.digest, part.media_type, part.manifest)
        if isinstance(part, BuiltImage):
            self.blobs.update(part.blobs)

    async def find_manifest(self, _: RepositoryName, reference: Reference) -> StoredManifest | None:
        return self.manifests.get(reference)

    async def open_blob(self, _: RepositoryName, digest: Digest) -> BlobContent:
        if digest not in self.blobs:
            raise BlobNotFound
        if self.failure is not None:
            return _FailingBlob(digest, self.blobs[digest], self.failure)
        return MemoryBlob(digest, self.blobs[digest])


class _FailingBlob(MemoryBlob):
    def __init__(self, digest: Digest, content: bytes, failure: Exception) -> None:
        super().__init__(digest, content)
        self._failure = failure

    async def read(self, start: int, length: int) -> AsyncIterator[memoryview]:
        async for piece in super().read(start, min(1, length)):
            yield piece
        raise self._failure


@dataclass
class _Repository:
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, bytes] = field(default_factory=dict)
    tags: dict[Tag, Digest] = field(default_factory=dict)


class MemoryDestination(RecordedCalls):
    """A Destination that publishes what it is sent."""

    def __init__(self, *, accepts_sparse: bool = False) -> None:
        super().__init__()
        self.repositories: dict[RepositoryName, _Repository] = {}
        self.accepts_sparse = accepts_sparse
        self.immutable_tags: set[Tag] = set()
        self.stuck_tags: set[Tag] = set()
        """Tags that stay where they are, whatever the answer says."""
        self.forgets_manifests = False
        self.forgets_blobs = False

    def repository(self, name: RepositoryName) -> _Repository:
        return self.repositories.setdefault(name, _Repository())

    async def holds_blob(self, repository: RepositoryName, digest: Digest, size: int) -> bool:
        await self.called(f"GET blob {digest}")
        held = self.repository(repository).blobs.get(digest)
        if held is not None and len(held) != size:
            raise UpstreamContent
        return held is not None

    async def holds_manifest(self, repository: RepositoryName, digest: Digest) -> bool:
        await self.called(f"GET manifest {digest}")
        return digest in self.repository(repository).manifests

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        await self.called(f"GET manifest {tag}")
        return self.repository(repository).tags.get(tag)

    async def put_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        read_from: Callable[[int], AsyncIterator[bytes | memoryview]],
        mount_from: RepositoryName | None = None,
        *,
        discover: bool = False,
    ) -> bool:
        await self.called(f"PUT blob {digest}")
        for name, other in self.repositories.items():
            if name != repository and (discover or name == mount_from) and digest in other.blobs:
                self.repository(repository).blobs[digest] = other.blobs[digest]
                return False
        content = b"".join([bytes(chunk) async for chunk in read_from(0)])
        if digest_of(content, algorithm_of(digest)) != digest or len(content) != size:
            raise UpstreamRefused
        if not self.forgets_blobs:
            self.repository(repository).blobs[digest] = content
        return True

    async def put_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        media_type: str,
        *,
        tags: Sequence[Tag] = (),
    ) -> None:
        await self.called(f"PUT manifest {reference}")
        held, parsed = self.repository(repository), parse_manifest(content, media_type)
        absent = [blob for blob in parsed.required_blobs if blob not in held.blobs]
        absent += [] if self.accepts_sparse else [child for child in parsed.children if child not in held.manifests]
        if absent:
            raise UpstreamNotFound
        wanted = as_digest(reference)
        given = (*tags, *(() if wanted else (Tag(reference),)))
        if self.immutable_tags & set(given):
            raise UpstreamRefused
        digest = digest_of(content, algorithm_of(wanted)) if wanted else digest_of(content)
        if not self.forgets_manifests:
            held.manifests[digest] = content
        held.tags.update({tag: digest for tag in given if tag not in self.stuck_tags})
