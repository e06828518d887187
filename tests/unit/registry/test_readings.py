"""Who reads a blob is counted from the opening to the closing, once."""

from __future__ import annotations

from replicator.core.digest import digest_of
from replicator.registry.readings import Readings
from replicator.storage.blobs.memory import MemoryBlob

CONTENT = b"content"
DIGEST = digest_of(CONTENT)


async def test_a_blob_is_read_until_the_last_reader_closes_it() -> None:
    readings = Readings()
    assert not readings.is_read(DIGEST)
    first, second = (readings.count(MemoryBlob(DIGEST, CONTENT)) for _ in range(2))
    assert (first.digest, first.size) == (DIGEST, len(CONTENT))
    async with first as blob:
        assert b"".join([bytes(piece) async for piece in blob.read(0, blob.size)]) == CONTENT
    assert readings.is_read(DIGEST)
    async with second:
        assert readings.is_read(DIGEST)
    assert not readings.is_read(DIGEST)


async def test_closing_twice_counts_once() -> None:
    readings = Readings()
    first, second = (readings.count(MemoryBlob(DIGEST, CONTENT)) for _ in range(2))
    for _ in range(2):
        await first.__aexit__(None, None, None)
    assert readings.is_read(DIGEST)
    await second.__aexit__(None, None, None)
    assert not readings.is_read(DIGEST)


async def test_who_is_about_to_read_a_blob_counts_already() -> None:
    readings = Readings()
    with readings.expected(DIGEST):
        assert readings.is_read(DIGEST)
        opened = readings.count(MemoryBlob(DIGEST, CONTENT))
    assert readings.is_read(DIGEST)
    async with opened:
        pass
    assert not readings.is_read(DIGEST)
