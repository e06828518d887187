"""Blobs that peers send, in one stream or in stripes over several connections, and that go on where they broke off.

    connections    ahead of the frontier      the frontier
    ---2--->  [ 2 ] |                                        ingest (a file, hashed in order)
    ---1--->  [ 1 ] |-- held back, bounded --> [ 0 ] ------> =========>|
    ---0--->        |

Bytes are stored in order. What arrives ahead of the frontier is held in memory as far as the window and the node's
budget allow; beyond that a connection is not read, and TCP holds its sender back. The connection at the frontier needs
neither, so that it always gets on. Nothing of what broke connections, a restart or a kill leave is believed: the
digest of the whole is verified at the end, and a wrong one drops everything, so that the next attempt begins anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from replicator.core.digest import algorithm_of
from replicator.core.errors import (
    BlobTooLarge,
    Conflict,
    DigestMismatch,
    InvalidUpload,
    ReplicatorError,
    SizeMismatch,
    StorageError,
    StorageUnavailable,
    Throttled,
    UploadNotFound,
    UploadOutOfOrder,
)
from replicator.core.peer_messages import BlobProgress
from replicator.core.templates import CreationCause
from replicator.registry.access import authorize_replication
from replicator.registry.repository_creation import ensure_repository
from replicator.storage.metadata import blobs, repositories, uploads
from replicator.storage.metadata.uploads import UploadSession
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.core.blob_parts import BlobPart
    from replicator.core.digest import Digest
    from replicator.core.names import NodeId, RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import Ingest, StoredBlob
    from replicator.storage.metadata.statement import Steps

WINDOW = 16 * 1024 * 1024
"""Bytes beyond the frontier of one blob that may be held back."""

BUDGET = 32 * 1024 * 1024
"""Bytes that are held back for all blobs of a node."""

PATIENCE = 60.0
"""Seconds that a connection ahead waits for the frontier to move before it is given up."""

MAX_OPEN = 200
"""Blobs of one peer at once, many more than it sends: each holds a file."""

_OVERHEAD = 256
_log = get_logger(__name__)

Chunks = AsyncIterator[bytes]
Commit = Callable[["Ingest"], Awaitable[None]]


class PeerUploads:
    """The blobs that peers are sending to one node."""

    def __init__(
        self, node: RegistryNode, *, window: int = WINDOW, budget: int = BUDGET, patience: float = PATIENCE
    ) -> None:
        self._node = node
        self._window = window
        self._budget = _Budget(budget)
        self._patience = patience
        self._open: dict[str, _Upload] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def held_back(self) -> int:
        """Bytes in memory that wait for those before them."""
        return self._budget.used

    async def offset_of(self, peer: NodeId, repository: RepositoryName, digest: Digest) -> int:
        """Return how many bytes of a blob have come from a peer; raises StorageError."""
        session = upload_id(peer, repository, digest)
        async with self._lock(session):
            upload = self._open.get(session)
            if upload is not None:
                return upload.frontier
            if await self._node.database.read(uploads.find(session)) is None:
                return 0
            ingest = await self._resumed(session, digest)
            if ingest is None:
                return 0
            offset = ingest.offset
            await ingest.suspend()
            return offset

    async def receive(
        self, peer: NodeId, repository: RepositoryName, digest: Digest, size: int, part: BlobPart, chunks: Chunks
    ) -> BlobProgress:
        """Take in a part of a blob of `size` bytes and return how much of it is here now.

        A part without bytes asks how much that is. The blob is readable in the repository, verified, when this says
        that it is complete. Raises ReplicationDenied before a byte is taken, UploadOutOfOrder when the transfer begins
        beyond what is here, SizeMismatch, DigestMismatch (everything is dropped then), TimeoutError when the bytes in
        between do not come, a StorageError, and whatever `chunks` raises; what came before that is kept.
        """
        limit = self._node.settings.max_blob_size
        if limit is not None and size > limit:
            raise BlobTooLarge(f"the blob is larger than the {limit} bytes this registry accepts")
        if part.stop > size:
            raise InvalidUpload(f"expected a part within the {size} bytes of the blob, got one up to {part.stop}")
        if await self._node.database.read(self._is_here(peer, repository, digest)):
            return BlobProgress(size, is_complete=True)
        if not part.length and part.offset < size:
            return BlobProgress(await self.offset_of(peer, repository, digest))
        async with self._joined(peer, repository, digest, size) as upload:
            await upload.receive(part, chunks)
            return BlobProgress(upload.frontier, is_complete=upload.is_complete)

    def _is_here(self, peer: NodeId, repository: RepositoryName, digest: Digest) -> Steps[bool]:
        """Tell whether the repository holds the blob already; raise ReplicationDenied for a peer that may not ask."""
        exists = (yield from repositories.find(repository)) is not None
        authorize_replication(self._node.settings, peer, repository, exists=exists)
        return (yield from blobs.find_linked(repository, digest)) is not None

    @asynccontextmanager
    async def _joined(
        self, peer: NodeId, repository: RepositoryName, digest: Digest, size: int
    ) -> AsyncIterator[_Upload]:
        """Take part in a blob's upload, which is opened for the first and suspended after the last."""
        now = self._node.clock.now()
        expires = now + self._node.settings.upload_expiry
        session = UploadSession(
            upload_id(peer, repository, digest), repository, f"node:{peer}", algorithm_of(digest), now, expires
        )
        async with self._lock(session.id):
            upload = self._open.get(session.id)
            if upload is None or upload.is_over:
                if sum(one.peer == peer for one in self._open.values()) >= MAX_OPEN:
                    raise Throttled(f"{MAX_OPEN} blobs of {peer} are on their way already")
                upload = self._open[session.id] = await self._opened(peer, session, digest, size)
            if upload.size != size:
                raise SizeMismatch(f"blob {digest} is being sent as {upload.size} bytes, not as {size}")
            upload.users += 1
        try:
            yield upload
        finally:
            upload.users -= 1
            if not upload.users:
                await self._leave(session, upload)

    async def _opened(self, peer: NodeId, session: UploadSession, digest: Digest, size: int) -> _Upload:
        ingest = await self._resumed(session.id, digest)
        if ingest is not None and ingest.offset > size:
            await ingest.abort()
            ingest = None
        if ingest is None:
            ingest = await self._node.store.create_ingest(session.id, session.algorithm)
        try:
            await self._node.database.write(lambda: _keep(session))
        except BaseException:
            await ingest.suspend()
            raise

        async def commit(received: Ingest) -> None:
            await self._publish(session, received, digest, size)

        return _Upload(peer, ingest, size, self._window, self._budget, self._patience, commit)

    async def _resumed(self, session: str, digest: Digest) -> Ingest | None:
        try:
            return await self._node.store.resume_ingest(session, algorithm_of(digest))
        except UploadNotFound:
            return None
        except Conflict as error:  # the janitor has it in hand
            raise StorageUnavailable("the upload is being tidied up") from error

    async def _leave(self, session: UploadSession, upload: _Upload) -> None:
        async with self._lock(session.id):
            if upload.users or self._open.get(session.id) is not upload:
                return
            del self._open[session.id]
            if upload.is_over:
                return
            try:
                await self._node.database.write(lambda: _keep(session))
            finally:
                await upload.suspend()

    async def _publish(self, session: UploadSession, ingest: Ingest, digest: Digest, size: int) -> None:
        """Commit the bytes, then the rows."""
        node = self._node
        try:
            blob = await ingest.commit(digest, size)
        except (DigestMismatch, SizeMismatch, StorageError):
            await node.database.write(lambda: uploads.delete(session.id))
            raise
        now = node.clock.now()
        await node.make_known(blob, lambda: node.database.write(lambda: self._record(session, blob, now)))

    def _record(self, session: UploadSession, blob: StoredBlob, now: float) -> Steps[StoredBlob]:
        yield from uploads.delete(session.id)
        yield from ensure_repository(self._node, session.repository, now, CreationCause.REPLICATION)
        yield from blobs.record(blob, now)
        yield from blobs.link(session.repository, blob.digest, now)
        return (yield from blobs.find(blob.digest)) or blob

    def _lock(self, session: str) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())


def upload_id(peer: NodeId, repository: RepositoryName, digest: Digest) -> str:
    """Return the name of a peer's upload of a blob: always the same, so that it is found again."""
    return "peer-" + hashlib.sha256(f"{peer}|{repository}|{digest}".encode()).hexdigest()


def _keep(session: UploadSession) -> Steps[None]:
    """Have the upload's bytes kept until it expires, also where it had expired."""
    if (yield from uploads.find(session.id)) is None:
        yield from uploads.create(session)
    else:
        yield from uploads.extend(session.id, session.expires_at)


class _Budget:
    """Memory that all uploads of a node share."""

    def __init__(self, total: int) -> None:
        self.used = 0
        self._total = total

    def take(self, count: int) -> bool:
        if self.used + count > self._total:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        self.used -= count


class _Upload:
    """One blob on its way in, over any number of connections (`users`)."""

    def __init__(
        self, peer: NodeId, ingest: Ingest, size: int, window: int, budget: _Budget, patience: float, commit: Commit
    ) -> None:
        self.peer = peer
        self.size = size
        self.users = 0
        self.is_complete = False
        self.is_over = False
        self._ingest = ingest
        self._window = window
        self._budget = budget
        self._patience = patience
        self._commit = commit
        self._ahead: list[tuple[int, int, bytes | memoryview]] = []
        self._order = itertools.count()
        self._writing = asyncio.Lock()
        self._moved = asyncio.Event()

    @property
    def frontier(self) -> int:
        """How many bytes are here without a gap."""
        return self._ingest.offset

    async def receive(self, part: BlobPart, chunks: Chunks) -> None:
        """Take in a part; see `PeerUploads.receive`."""
        if part.start > self.frontier:
            raise UploadOutOfOrder(
                f"expected a transfer from byte {self.frontier} or before, got one from {part.start}",
                offset=self.frontier,
            )
        ranges = part.ranges()
        place, received = next(ranges, None), 0
        async for chunk in chunks:
            received += len(chunk)
            if received > part.length:
                break
            rest = memoryview(chunk)
            while rest and place is not None and not self.is_over:
                taken = rest[: place.length]
                await self._put(place.start, taken)
                rest = rest[len(taken) :]
                place = place.after(len(taken)) or next(ranges, None)
            if self.is_over:
                break
        self._check(part, received)
        if self.frontier == self.size:
            await self._put(self.size, b"")

    def _check(self, part: BlobPart, received: int) -> None:
        if self.is_complete:
            return
        if self.is_over:
            raise UploadOutOfOrder("the blob begins anew: its bytes were not what they should be", offset=0)
        if received != part.length:
            raise SizeMismatch(f"expected {part.length} bytes, got {'more' if received > part.length else received}")

    async def _put(self, position: int, chunk: bytes | memoryview) -> None:
        """Store bytes, or hold them back; waits while there is no room for them."""
        if await self._is_held_back(position, chunk):
            return
        async with self._writing:
            if self.is_over:
                return
            try:
                await self._store(position, chunk)
                while self._ahead and self._ahead[0][0] <= self.frontier:
                    await self._store(*self._taken_back())
                if self.frontier == self.size:
                    await self._finish()
            except (StorageError, DigestMismatch, SizeMismatch):
                await self._drop()
                raise
            finally:
                self._notify()

    async def _is_held_back(self, position: int, chunk: bytes | memoryview) -> bool:
        """Return False once the bytes are next, True once they are held back or nobody wants them any more."""
        cost = len(chunk) + _OVERHEAD
        while position > self.frontier and not self.is_over:
            if position + len(chunk) <= self.frontier + self._window and self._budget.take(cost):
                heapq.heappush(self._ahead, (position, next(self._order), chunk))
                return True
            moved = self._moved
            async with asyncio.timeout(self._patience):
                await moved.wait()
        return self.is_over

    def _taken_back(self) -> tuple[int, bytes | memoryview]:
        position, _, chunk = heapq.heappop(self._ahead)
        self._budget.give_back(len(chunk) + _OVERHEAD)
        return position, chunk

    async def _store(self, position: int, chunk: bytes | memoryview) -> None:
        """Append what is new of a chunk that begins at the frontier or before."""
        known = self.frontier - position
        if known < len(chunk):
            await self._ingest.write(chunk[known:])

    async def _finish(self) -> None:
        await self._commit(self._ingest)
        self.is_complete = self.is_over = True
        self._forget()

    async def _drop(self) -> None:
        self.is_over = True
        self._forget()
        await self._ingest.abort()

    def _forget(self) -> None:
        while self._ahead:
            self._taken_back()

    def _notify(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def suspend(self) -> None:
        """Keep what is here without a gap, for the next attempt."""
        self.is_over = True
        self._forget()
        with suppress(UploadNotFound):
            try:
                await self._ingest.suspend()
            except ReplicatorError as error:
                _log.warning("upload of a peer could not be kept", error=str(error))
