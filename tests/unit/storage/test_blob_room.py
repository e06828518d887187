"""On a full disk room is asked for: the same bytes are written again at the same place, or the ingest fails."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import CorruptBlob, DigestMismatch, StorageFull
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from tests.support.blob_stores import ScriptedFiles, names_in, open_files_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.storage.blobs.port import StoredBlob

MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB + 100)
FULL = OSError(errno.ENOSPC, "full")
QUOTA = OSError(errno.EDQUOT, "quota")


class Room:
    """Makes room as often as it is told to; `asked` counts."""

    def __init__(self, times: int) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self._left = times

    async def make(self) -> bool:
        self.asked += 1
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        self._left -= 1
        return self._left >= 0


@pytest.fixture
def files() -> ScriptedFiles:
    return ScriptedFiles()


@pytest.fixture
async def store(tmp_path: Path, files: ScriptedFiles) -> AsyncIterator[FilesystemBlobStore]:
    store = FilesystemBlobStore(tmp_path, files=files)
    await store.open()
    yield store
    await store.close()
    assert open_files_below(tmp_path) == []


async def put(store: FilesystemBlobStore, content: bytes = CONTENT, piece: int = 300_000) -> StoredBlob:
    ingest = await store.create_ingest("blob")
    try:
        for start in range(0, len(content), piece):
            await ingest.write(content[start : start + piece])
    except BaseException:
        await ingest.abort()
        raise
    return await ingest.commit(digest_of(content), len(content))


async def read(store: FilesystemBlobStore, blob: StoredBlob) -> bytes:
    async with await store.read_blob(blob) as content:
        return b"".join([bytes(piece) async for piece in content.read(0, blob.size)])


@pytest.mark.parametrize("error", [FULL, QUOTA], ids=["disk", "quota"])
@pytest.mark.parametrize("call", range(3), ids=["first batch", "second batch", "rest"])
async def test_bytes_that_did_not_fit_are_written_once_there_is_room(
    store: FilesystemBlobStore, files: ScriptedFiles, call: int, error: OSError
) -> None:
    room = Room(1)
    store.on_full(room.make)
    files.failures["write"] = [*[None] * call, error]
    assert await read(store, await put(store)) == CONTENT
    assert room.asked == 1


async def test_room_is_asked_for_until_the_bytes_fit(store: FilesystemBlobStore, files: ScriptedFiles) -> None:
    room = Room(3)
    store.on_full(room.make)
    files.failures["write"] = [None, FULL, FULL, FULL]
    assert await read(store, await put(store)) == CONTENT
    assert room.asked == 3


async def test_every_shortage_is_asked_for(store: FilesystemBlobStore, files: ScriptedFiles) -> None:
    room = Room(3)
    store.on_full(room.make)
    files.failures["write"] = [FULL, None, FULL, None, FULL, None]
    assert await read(store, await put(store)) == CONTENT
    assert room.asked == 3


async def test_without_room_the_ingest_fails_and_leaves_nothing(
    store: FilesystemBlobStore, files: ScriptedFiles, tmp_path: Path
) -> None:
    room = Room(0)
    store.on_full(room.make)
    files.failures["write"] = [None, FULL]
    with pytest.raises(StorageFull):
        await put(store)
    assert room.asked == 1
    assert names_in(tmp_path / "ingest") == set()
    assert await read(store, await put(store)) == CONTENT


async def test_the_rest_that_does_not_fit_at_the_commit_is_hashed_once(
    store: FilesystemBlobStore, files: ScriptedFiles
) -> None:
    store.on_full(Room(2).make)
    files.failures["write"] = [FULL, FULL]
    files.failures["rename"] = []
    content = b"smaller than a batch"
    assert await read(store, await put(store, content)) == content


@pytest.mark.parametrize("step", ["rename"])
async def test_a_publication_that_finds_no_room_is_tried_again(
    store: FilesystemBlobStore, files: ScriptedFiles, step: str
) -> None:
    room = Room(1)
    store.on_full(room.make)
    files.failures[step] = [FULL]
    assert await read(store, await put(store)) == CONTENT
    assert room.asked == 1


@pytest.mark.parametrize("step", ["sync", "sync_directory"])
async def test_an_fsync_that_finds_no_room_is_not_tried_again(
    store: FilesystemBlobStore, files: ScriptedFiles, tmp_path: Path, step: str
) -> None:
    """Its pages count as clean: a second fsync would succeed for nothing."""
    blob = await put(store, b"first")
    room = Room(1)
    store.on_full(room.make)
    files.failures[step] = [FULL]
    shards = digest_of(b"first").removeprefix("sha256:")[:2]
    assert names_in(tmp_path / "blobs" / "sha256") == {shards}
    with pytest.raises(StorageFull):
        await put(store, b"first")
    assert room.asked == 0
    assert [location async for location in store.iter_locations()] == [blob.location]


async def test_readers_follow_while_room_is_being_made(store: FilesystemBlobStore, files: ScriptedFiles) -> None:
    room = Room(1)
    room.hold = asyncio.Event()
    store.on_full(room.make)
    files.failures["write"] = [FULL]
    ingest = await store.create_ingest("followed")
    await ingest.write(CONTENT[:MIB])
    await room.begun.wait()
    assert bytes(await ingest.read_at(10, 100)) == CONTENT[10:110]
    room.hold.set()
    await ingest.flush()
    assert bytes(await ingest.read_at(10, 100)) == CONTENT[10:110]
    await ingest.abort()


async def test_a_writer_that_leaves_while_room_is_being_made_leaves_nothing(
    store: FilesystemBlobStore, files: ScriptedFiles, tmp_path: Path
) -> None:
    room = Room(1)
    room.hold = asyncio.Event()
    store.on_full(room.make)
    files.failures["write"] = [FULL]
    ingest = await store.create_ingest("left")
    await ingest.write(CONTENT[:MIB])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ingest.flush()
    aborting = asyncio.ensure_future(ingest.abort())  # noqa: TID251 - awaited below
    room.hold.set()
    await aborting
    assert names_in(tmp_path / "ingest") == set()


async def test_wrong_content_is_no_shortage(store: FilesystemBlobStore) -> None:
    room = Room(1)
    store.on_full(room.make)
    ingest = await store.create_ingest("wrong")
    await ingest.write(b"abc")
    with pytest.raises(DigestMismatch):
        await ingest.commit(digest_of(b"abd"))
    assert room.asked == 0


async def test_what_was_touched_is_looked_at_before_it_is_sent(store: FilesystemBlobStore, tmp_path: Path) -> None:
    blob = await put(store)
    path = tmp_path / "blobs" / blob.location
    changed = path.stat().st_ctime
    before = type(blob)(blob.digest, blob.size, blob.location, changed - 10)
    assert await read(store, before) == CONTENT
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(bytes([CONTENT[2 * MIB] ^ 1]))
    with pytest.raises(CorruptBlob):
        await store.read_blob(before)
