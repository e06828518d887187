"""What the use cases of one node share: its store, its clock, its settings, and the way it commits a change."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.core.errors import CorruptBlob
from replicator.registry.pull_index import PullIndex
from replicator.registry.pull_times import PullTimes
from replicator.registry.readings import Readings
from replicator.registry.resource_policies import NodePolicies
from replicator.storage.metadata import blobs
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from replicator.core.clock import Clock
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.jobs import JobKind
    from replicator.core.names import RepositoryName
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.blobs.port import BlobStore, StoredBlob
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Body

_log = get_logger(__name__)

T = TypeVar("T")

_MANIFEST_INDEX_BYTES = 32 * 1024 * 1024
_BLOB_INDEX_ENTRIES = 20_000


@dataclass(slots=True)
class RegistryNode:
    """One registry: the rows and bytes of one account in one region.

    `settings` may be replaced at any time: read it at the moment of use, and keep no part of it.
    """

    settings: RegistrySettings
    database: Database
    store: BlobStore
    clock: Clock
    manifest_index: PullIndex[StoredManifest] = field(default_factory=lambda: PullIndex(_MANIFEST_INDEX_BYTES))
    blob_index: PullIndex[StoredBlob] = field(default_factory=lambda: PullIndex(_BLOB_INDEX_ENTRIES))
    readings: Readings = field(default_factory=Readings)
    pull_times: PullTimes = field(init=False)
    policies: NodePolicies = field(init=False)
    _changes: set[asyncio.Task[Any]] = field(default_factory=set)
    _listeners: list[Callable[[JobKind], None]] = field(default_factory=list)
    _status_listeners: list[Callable[[RepositoryName, Digest], None]] = field(default_factory=list)
    _settings_listeners: list[Callable[[], None]] = field(default_factory=list)
    _ingest_keepers: list[Callable[[], Collection[str]]] = field(default_factory=list)
    _blob_listeners: list[Callable[[int], None]] = field(default_factory=list)
    _event_listeners: list[Callable[[], None]] = field(default_factory=list)
    _removal_listeners: list[Callable[[RepositoryName], None]] = field(default_factory=list)
    _policy_listeners: list[Callable[[RepositoryName, str | None], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pull_times = PullTimes(self.database, self.clock, lambda: self.settings)
        self.policies = NodePolicies(self)

    async def commit(self, repository: RepositoryName, body: Body[T]) -> T:
        """Run a transaction that may change what pulls from `repository` resolve to.

        Pulls answered after this returns see the change. A cancelled caller does not undo it, and the memory of pulls
        is right then too: the transaction runs in a task of its own, which this object owns until it ends.
        """
        self.manifest_index.hold(repository)
        self.blob_index.hold(repository)
        change = asyncio.ensure_future(self.database.write(body))  # noqa: TID251 - owned by this object until done
        self._changes.add(change)
        change.add_done_callback(lambda done: self._committed(repository, done))
        return await asyncio.shield(change)

    def _committed(self, repository: RepositoryName, change: asyncio.Task[Any]) -> None:
        self.manifest_index.release(repository)
        self.blob_index.release(repository)
        self._changes.discard(change)
        if not change.cancelled() and change.exception() is None:  # the caller has it; a cancelled one wants none of it
            self.announce_events()

    async def read_blob(self, blob: StoredBlob) -> BlobContent:
        """Open stored bytes. Damaged ones are quarantined: not served again, and replaced by the next push or fill."""
        try:
            return self.readings.count(await self.store.read_blob(blob))
        except CorruptBlob as error:
            _log.error("blob is damaged", digest=blob.digest, location=blob.location, error=str(error))
            await self.database.write(lambda: blobs.mark_corrupt(blob))
            self.blob_index.clear()
            raise

    async def is_damaged(self, blob: StoredBlob) -> bool:
        """Tell whether stored bytes cannot be read; they are quarantined then."""
        try:
            async with await self.read_blob(blob):
                return False
        except CorruptBlob:
            return True

    async def make_known(self, blob: StoredBlob, record: Callable[[], Awaitable[StoredBlob]]) -> StoredBlob:
        """Make committed bytes known, and return the copy that is known then.

        `record` stores what refers to them and returns the copy that the node has. Where that is another one, a whole
        one, ours goes; a damaged one is quarantined, so that ours takes its place.
        """
        known = await record()
        while known.location != blob.location and await self.is_damaged(known):
            known = await record()
        if known.location != blob.location:
            await self.store.delete_blob(blob.location)
            return known
        self.announce_stored(blob.size)
        return known

    def announce_stored(self, size: int) -> None:
        """Tell the listeners that so many bytes of content came in."""
        for listener in self._blob_listeners:
            listener(size)

    def on_blob(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the size of every blob whose bytes are new here, and of what is announced besides."""
        self._blob_listeners.append(listener)

    def on_settled(self, listener: Callable[[RepositoryName, Digest], None]) -> None:
        """Call `listener` whenever the replication status of an image of this node has changed."""
        self._status_listeners.append(listener)

    def announce_settled(self, repository: RepositoryName, digest: Digest) -> None:
        """Tell the listeners that the replication status of an image has changed."""
        for listener in self._status_listeners:
            listener(repository, digest)

    def on_removed(self, listener: Callable[[RepositoryName], None]) -> None:
        """Call `listener` with the name of every repository that was deleted, for what it remembers of it."""
        self._removal_listeners.append(listener)

    def on_policy(self, listener: Callable[[RepositoryName, str | None], None]) -> None:
        """Call `listener` with the policy that a repository was given, None where it was taken away."""
        self._policy_listeners.append(listener)

    def announce_policy(self, repository: RepositoryName, policy: str | None) -> None:
        """Tell the listeners that a repository has another policy, or none."""
        for listener in self._policy_listeners:
            listener(repository, policy)

    def announce_removed(self, repository: RepositoryName) -> None:
        """Tell the listeners that a repository was deleted."""
        for listener in self._removal_listeners:
            listener(repository)

    def keep_ingests(self, names: Callable[[], Collection[str]]) -> None:
        """Spare the suspended ingests that `names` returns whenever abandoned ones are cleared away."""
        self._ingest_keepers.append(names)

    def kept_ingests(self) -> frozenset[str]:
        """Return the suspended ingests that somebody wants to go on with, other than upload sessions."""
        return frozenset().union(*(names() for names in self._ingest_keepers))

    def on_settings(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever the settings were replaced."""
        self._settings_listeners.append(listener)

    def change_settings(self, settings: RegistrySettings) -> None:
        """Replace the settings, and tell the listeners."""
        self.settings = settings
        for listener in self._settings_listeners:
            listener()

    def on_events(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever events may have been committed here."""
        self._event_listeners.append(listener)

    def announce_events(self) -> None:
        """Tell the listeners that there may be events: for those that were not stored by `commit`."""
        for listener in self._event_listeners:
            listener()

    def on_jobs(self, listener: Callable[[JobKind], None]) -> None:
        """Call `listener` whenever jobs of a kind were committed here."""
        self._listeners.append(listener)

    def announce_jobs(self, kind: JobKind) -> None:
        """Tell the listeners that there is work."""
        for listener in self._listeners:
            listener(kind)
