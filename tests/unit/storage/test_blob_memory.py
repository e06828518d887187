"""The memory store's own promises: a volume that can be full, and damage that shows."""

from __future__ import annotations

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import CorruptBlob, StorageFull
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.storage.blobs.port import StorageUsage


async def test_a_volume_is_full_at_its_capacity_and_has_room_after_a_deletion() -> None:
    store = MemoryBlobStore(MemoryVolume(capacity=10))
    await store.open()
    ingest = await store.create_ingest("first")
    await ingest.write(b"123456")
    blob = await ingest.commit(digest_of(b"123456"))
    assert await store.usage() == StorageUsage(10, 4)
    ingest = await store.create_ingest("second")
    with pytest.raises(StorageFull):
        await ingest.write(b"12345")
    assert ingest.offset == 0
    await store.delete_blob(blob.location)
    await ingest.write(b"12345")
    assert await store.usage() == StorageUsage(10, 5)
    await ingest.abort()
    await store.close()


async def test_damage_to_the_volume_shows() -> None:
    volume = MemoryVolume()
    store = MemoryBlobStore(volume)
    await store.open()
    ingest = await store.create_ingest("blob")
    await ingest.write(b"abc")
    blob = await ingest.commit(digest_of(b"abc"))
    volume.blobs[blob.location] = b"ab"
    with pytest.raises(CorruptBlob):
        await store.read_blob(blob)
    await store.close()
