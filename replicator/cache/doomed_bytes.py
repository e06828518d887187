"""Bytes of blobs that were given up: deleted after their rows, and not from under a reader.

A crash forgets them. Then they are bytes without a row, which nobody can reach and the node's cleaning up finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.digest import Digest
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import StoredBlob


class DoomedBytes:
    """The bytes of one node that are still to be deleted."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node
        self._left: dict[str, Digest] = {}
        """By location."""

    async def delete(self, blobs: Iterable[StoredBlob]) -> None:
        """Delete bytes whose rows are gone; those that somebody reads, when that is over. Raises StorageError."""
        self._left.update((blob.location, blob.digest) for blob in blobs)
        await self.delete_unread()

    async def delete_unread(self) -> None:
        """Delete what nobody reads any more; raises StorageError, and keeps the rest."""
        for location, digest in tuple(self._left.items()):
            if not self._node.readings.is_read(digest):
                await self._node.store.delete_blob(location)
                self._left.pop(location, None)
