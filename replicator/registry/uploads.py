"""Upload sessions: bytes of a blob that arrive in one piece or in many, and are checked before anybody can read them.

Between two requests a session is a row and a suspended ingest, nothing in memory, so it survives a restart and costs
no file descriptor. Its id is random and bound to the repository and the caller that began it.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from replicator.core import texts
from replicator.core.actions import Action
from replicator.core.digest import CANONICAL_ALGORITHM, Digest, algorithm_of
from replicator.core.errors import (
    BlobNotFound,
    BlobTooLarge,
    Denied,
    RepositoryNotFound,
    SizeMismatch,
    StorageError,
    UploadNotFound,
    UploadOutOfOrder,
)
from replicator.core.templates import CreationCause
from replicator.registry.access import authorize, authorize_push, check_pushable
from replicator.registry.repository_creation import ensure_pushable, may_create
from replicator.registry.stored_repositories import no_repository, require_repository
from replicator.storage.metadata import blobs, layers, repositories, uploads
from replicator.storage.metadata.uploads import UploadSession

if TYPE_CHECKING:
    from replicator.core.byte_range import ByteRange
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import Ingest, StoredBlob
    from replicator.storage.metadata.statement import Steps

Chunks = AsyncIterator[bytes]

_ID_BYTES = 24
_MOUNT_CANDIDATES = 1000


class Uploads:
    """Blob uploads into repositories, and the mounts and deletes of blobs."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._fresh: set[str] = set()
        """Sessions begun since the last reclaim: their rows may be younger than what a reclaim reads."""

    async def start(
        self,
        principal: Principal,
        repository: RepositoryName,
        algorithm: str = CANONICAL_ALGORITHM,
        *,
        creates: bool = True,
    ) -> UploadSession:
        """Open a session; `algorithm` is the one the final digest will most likely have (end-4a, end-4c).

        A missing repository is made, where the settings allow and the caller lets it (`creates`).

        Raises an AccessError, RepositoryNotFound or a StorageError.
        """
        authorize_push(self._node.settings, principal, Action.INITIATE_LAYER_UPLOAD, repository)
        now = self._node.clock.now()
        session = UploadSession(
            id=_new_id(),
            repository=repository,
            principal=_owner(principal),
            algorithm=algorithm,
            started_at=now,
            expires_at=now + self._node.settings.upload_expiry,
        )
        self._fresh.add(session.id)
        ingest = await self._node.store.create_ingest(session.id, algorithm)
        try:
            await self._node.database.write(lambda: self._start(principal, session, creates=creates))
        except BaseException:
            await ingest.abort()
            raise
        await ingest.suspend()
        return session

    def _start(self, principal: Principal, session: UploadSession, *, creates: bool) -> Steps[None]:
        if not creates:
            yield from require_repository(self._node, session.repository)
        yield from ensure_pushable(self._node, principal, session.repository, session.started_at)
        yield from uploads.create(session)

    async def get_offset(self, principal: Principal, repository: RepositoryName, session_id: str) -> int:
        """Return how many bytes a session holds (end-13); raises UploadNotFound or an AccessError."""
        async with self.hold(principal, Action.UPLOAD_LAYER_PART, repository, session_id) as session:
            ingest = await self._node.store.resume_ingest(session.id, session.algorithm)
            offset = ingest.offset
            await ingest.suspend()
            return offset

    async def append(
        self,
        principal: Principal,
        repository: RepositoryName,
        session_id: str,
        chunks: Chunks,
        place: ByteRange | None = None,
    ) -> int:
        """Add bytes to a session and return how many it holds now (end-5).

        With a `place` they must start where the session stands (UploadOutOfOrder) and have its length (SizeMismatch).
        What arrived before the caller broke off is kept, so that it can go on from there. Raises also UploadNotFound,
        an AccessError or a StorageError; a full store drops the session.
        """
        async with self.hold(principal, Action.UPLOAD_LAYER_PART, repository, session_id) as session:
            ingest = await self._node.store.resume_ingest(session.id, session.algorithm)
            try:
                await self.receive(ingest, chunks, place)
                await ingest.flush()  # what fails here can still be dropped; a suspended ingest cannot
            except StorageError:
                await self.drop(ingest, session)
                raise
            except BaseException:
                await ingest.suspend()
                raise
            await ingest.suspend()
            await self._node.database.write(lambda: uploads.extend(session.id, self.next_expiry()))
            return ingest.offset

    async def finish(
        self,
        principal: Principal,
        repository: RepositoryName,
        session_id: str,
        digest: Digest,
        chunks: Chunks,
        place: ByteRange | None = None,
    ) -> StoredBlob:
        """Add the last bytes, check the digest, and make the blob readable in the repository (end-6).

        A wrong digest (DigestMismatch) ends the session. Otherwise raises like `append`.
        """
        async with self.hold(principal, Action.COMPLETE_LAYER_UPLOAD, repository, session_id) as session:
            # An empty session has hashed nothing yet, so the digest may still choose the algorithm.
            ingest = await self._node.store.resume_ingest(session.id, session.algorithm)
            try:
                await self.receive(ingest, chunks, place)
            except (UploadOutOfOrder, SizeMismatch, ConnectionError, TimeoutError):
                await ingest.suspend()
                raise
            except BaseException:
                await self.drop(ingest, session)
                raise
            return await self.publish(ingest, principal, repository, digest, session.id)

    async def put_blob(
        self,
        principal: Principal,
        repository: RepositoryName,
        digest: Digest,
        chunks: Chunks,
    ) -> StoredBlob:
        """Store a whole blob in one request (end-4b); nothing is left of one that breaks off. Raises like `finish`."""
        for action in (Action.INITIATE_LAYER_UPLOAD, Action.UPLOAD_LAYER_PART, Action.COMPLETE_LAYER_UPLOAD):
            authorize_push(self._node.settings, principal, action, repository)
        await self._node.database.read(self._may_push(principal, repository))
        ingest = await self._node.store.create_ingest(secrets.token_urlsafe(_ID_BYTES), algorithm_of(digest))
        try:
            await self.receive(ingest, chunks, None)
        except BaseException:
            await ingest.abort()
            raise
        return await self.publish(ingest, principal, repository, digest, None)

    def _may_push(self, principal: Principal, repository: RepositoryName) -> Steps[None]:
        """Say at once what the transaction would say when all the bytes are here."""
        found = yield from repositories.find(repository)
        if found is not None:
            check_pushable(self._node.settings, found)
        elif not (
            may_create(self._node.settings, repository, CreationCause.CREATE_ON_PUSH)
            and principal.may(Action.CREATE_REPOSITORY, repository)
        ):
            raise no_repository(self._node, repository)

    async def cancel(self, principal: Principal, repository: RepositoryName, session_id: str) -> None:
        """End a session and drop its bytes (end-14); raises UploadNotFound or an AccessError."""
        async with self.hold(principal, Action.UPLOAD_LAYER_PART, repository, session_id) as session:
            ingest = await self._node.store.resume_ingest(session.id, session.algorithm)
            await self.drop(ingest, session)

    async def mount(
        self,
        principal: Principal,
        repository: RepositoryName,
        digest: Digest,
        source: RepositoryName | None,
    ) -> bool:
        """Make a blob of another repository readable in this one (end-11); return False when that cannot be.

        Only repositories that the caller may pull from are considered, whether `source` names one or not.
        """
        authorize_push(self._node.settings, principal, Action.INITIATE_LAYER_UPLOAD, repository)
        if not self._node.settings.account_settings.is_mounting:
            return False
        now = self._node.clock.now()
        holder = await self._readable_holder(principal, digest, source)
        if holder is None:
            return False
        blob = await self._node.database.read(blobs.find_linked(holder, digest))
        if blob is None or await self._node.is_damaged(blob):
            return False
        return await self._node.database.write(lambda: self._mount(principal, repository, digest, holder, now))

    async def _readable_holder(
        self, principal: Principal, digest: Digest, source: RepositoryName | None
    ) -> RepositoryName | None:
        if source is not None:
            return source if principal.may(Action.GET_DOWNLOAD_URL_FOR_LAYER, source) else None
        candidates = await self._node.database.read(blobs.holders(digest, "", _MOUNT_CANDIDATES))
        return next((name for name in candidates if principal.may(Action.GET_DOWNLOAD_URL_FOR_LAYER, name)), None)

    def _mount(
        self,
        principal: Principal,
        repository: RepositoryName,
        digest: Digest,
        source: RepositoryName,
        now: float,
    ) -> Steps[bool]:
        found = yield from blobs.find_linked(source, digest)
        if found is None or (yield from layers.is_archived(source, digest)):
            return False
        yield from ensure_pushable(self._node, principal, repository, now)
        yield from blobs.link(repository, digest, now)
        return True

    async def delete_blob(self, principal: Principal, repository: RepositoryName, digest: Digest) -> None:
        """Take a blob out of a repository; gone there on the next request (end-10).

        Raises an AccessError, BlobNotFound, RepositoryNotFound or a StorageError.
        """
        authorize(principal, Action.BATCH_DELETE_IMAGE, repository)
        deleted = await self._node.commit(repository, lambda: self._unlink(repository, digest))
        if not deleted:
            raise BlobNotFound(f"repository {repository} has no blob {digest}")

    def _unlink(self, repository: RepositoryName, digest: Digest) -> Steps[bool]:
        yield from require_repository(self._node, repository)
        return (yield from blobs.unlink(repository, digest))

    async def reclaim(self) -> int:
        """Drop expired sessions and every ingest that no session owns; return how many ingests went.

        At start this removes what a crash left; later, what clients abandoned.
        """
        now = self._node.clock.now()
        for session in await self._node.database.read(uploads.expired(now)):
            lock = self._lock(session.id)
            if lock.locked():
                continue  # in use: one that sends very slowly must not keep us from reclaiming the others
            async with lock:
                await self._node.database.write(partial(uploads.delete, session.id))
        seen = frozenset(self._fresh)
        known = await self._node.database.read(uploads.ids())
        reclaimed = await self._node.store.reclaim_ingests(self._fresh.union(known, self._node.kept_ingests()))
        self._fresh -= seen
        return reclaimed

    async def receive(self, ingest: Ingest, chunks: Chunks, place: ByteRange | None) -> None:
        """Write chunks to an ingest; raises UploadOutOfOrder, SizeMismatch, BlobTooLarge or a StorageError."""
        start = ingest.offset
        if place is not None and place.start != start:
            raise UploadOutOfOrder(
                f"expected a chunk that starts at byte {start}, got one that starts at {place.start}",
                offset=start,
            )
        limit = self._node.settings.max_blob_size
        async for chunk in chunks:
            if limit is not None and ingest.offset + len(chunk) > limit:
                raise BlobTooLarge(f"the blob is larger than the {limit} bytes this registry accepts")
            await ingest.write(chunk)
        received = ingest.offset - start
        if place is not None and received != place.length:
            raise SizeMismatch(f"expected a chunk of {place.length} bytes, got {received}")

    async def publish(
        self,
        ingest: Ingest,
        principal: Principal,
        repository: RepositoryName,
        digest: Digest,
        session_id: str | None,
    ) -> StoredBlob:
        """Commit the bytes, then the row, and end the session. Where there is another copy, a whole one, ours goes.

        Whoever pushes what we hold already may do so because it cannot be pulled any more.
        """
        try:
            blob = await ingest.commit(digest)
        finally:
            if session_id is not None:
                await self._node.database.write(lambda: uploads.delete(session_id))
        now = self._node.clock.now()
        try:
            return await self._node.make_known(
                blob, lambda: self._node.database.write(lambda: self._record(principal, repository, blob, now))
            )
        except (Denied, RepositoryNotFound):
            await self._node.store.delete_blob(blob.location)  # nothing refers to the bytes
            raise

    def _record(
        self, principal: Principal, repository: RepositoryName, blob: StoredBlob, now: float
    ) -> Steps[StoredBlob]:
        yield from ensure_pushable(self._node, principal, repository, now)
        yield from blobs.record(blob, now)
        yield from blobs.link(repository, blob.digest, now)
        return (yield from blobs.find(blob.digest)) or blob

    async def drop(self, ingest: Ingest, session: UploadSession) -> None:
        """End a session, with the bytes that it holds."""
        await ingest.abort()
        await self._node.database.write(lambda: uploads.delete(session.id))

    def next_expiry(self) -> float:
        """Return until when a session is kept that is written to now."""
        return self._node.clock.now() + self._node.settings.upload_expiry

    def _lock(self, session_id: str) -> asyncio.Lock:
        return self._locks.setdefault(session_id, asyncio.Lock())

    @asynccontextmanager
    async def hold(
        self, principal: Principal, action: Action, repository: RepositoryName, session_id: str
    ) -> AsyncIterator[UploadSession]:
        """Find a session of this caller and repository, and have it alone until the block ends.

        Raises an AccessError or UploadNotFound.
        """
        authorize(principal, action, repository)
        lock = self._lock(session_id)
        async with lock:
            session = await self._node.database.read(uploads.find(session_id))
            if session is None or not self._is_of(session, principal, repository):
                raise UploadNotFound(texts.upload_not_found(session_id, repository, self._node.settings.node.account))
            yield session

    def _is_of(self, session: UploadSession, principal: Principal, repository: RepositoryName) -> bool:
        return (
            session.repository == repository
            and session.principal == _owner(principal)
            and session.expires_at > self._node.clock.now()
        )


def _new_id() -> str:
    # Nobody guesses it, and the ECR API wants it to be a UUID.
    return str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))


def _owner(principal: Principal) -> str:
    # With the kind, so that a user called `anonymous` has no part in the uploads of nameless callers.
    return f"{principal.kind}:{principal.name}"
