"""The ingest area: writing behind, following, failing and going on, within bounded memory."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import Conflict, StorageFull, StorageUnavailable, UploadNotFound
from replicator.storage.blobs import ingest as ingest_module
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from tests.support.blob_stores import ScriptedFiles, names_in, open_files_below

if TYPE_CHECKING:
    import hashlib
    from collections.abc import AsyncIterator
    from pathlib import Path

MIB = 1024 * 1024
FULL = OSError(errno.ENOSPC, "full")


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


def writes(files: ScriptedFiles) -> int:
    return sum(entry.startswith("write ") for entry in files.record)


async def test_small_chunks_share_a_hop(store: FilesystemBlobStore, files: ScriptedFiles) -> None:
    ingest = await store.create_ingest("small")
    for _ in range(64):
        await ingest.write(bytes(65_536))
    await ingest.flush()
    assert writes(files) == 4
    await ingest.abort()


async def test_tiny_chunks_are_not_gathered_without_end(store: FilesystemBlobStore, files: ScriptedFiles) -> None:
    ingest = await store.create_ingest("tiny")
    for _ in range(2048):
        await ingest.write(b"x")
    await ingest.flush()
    assert writes(files) == 4
    await ingest.abort()


async def test_nothing_is_written_for_an_aborted_small_ingest(store: FilesystemBlobStore, files: ScriptedFiles) -> None:
    ingest = await store.create_ingest("aborted")
    await ingest.write(b"abc")
    await ingest.abort()
    assert writes(files) == 0


class TestFailure:
    async def test_an_error_behind_is_raised_by_the_next_writes(
        self, store: FilesystemBlobStore, files: ScriptedFiles
    ) -> None:
        ingest = await store.create_ingest("full")
        files.failures["write"] = [None, FULL]
        await ingest.write(bytes(MIB))
        await ingest.write(bytes(MIB))
        with pytest.raises(StorageFull):
            await ingest.write(bytes(MIB))
        assert ingest.offset == MIB
        with pytest.raises(StorageFull):
            await ingest.write(b"x")
        with pytest.raises(StorageFull):
            await ingest.flush()
        await ingest.abort()

    async def test_readers_get_what_is_stored(self, store: FilesystemBlobStore, files: ScriptedFiles) -> None:
        ingest = await store.create_ingest("full")
        files.failures["write"] = [None, FULL]
        await ingest.write(b"a" * MIB)
        await ingest.write(b"b" * MIB)
        with pytest.raises(StorageFull):
            await ingest.flush()
        assert await ingest.read_at(MIB - 2, 10) == b"aa"
        assert len(await ingest.read_at(MIB, 10)) == 0
        await ingest.abort()

    async def test_suspend_raises_what_is_new_and_keeps_what_is_stored(
        self, store: FilesystemBlobStore, files: ScriptedFiles
    ) -> None:
        content = os.urandom(2 * MIB)
        ingest = await store.create_ingest("full")
        files.failures["write"] = [None, FULL]
        await ingest.write(content[:MIB])
        await ingest.write(content[MIB:])
        with pytest.raises(StorageFull):
            await ingest.suspend()
        resumed = await store.resume_ingest("full")
        assert resumed.offset == MIB
        await resumed.write(content[MIB:])
        blob = await resumed.commit(digest_of(content))
        assert blob.size == 2 * MIB

    async def test_suspend_does_not_raise_what_was_told_already(
        self, store: FilesystemBlobStore, files: ScriptedFiles
    ) -> None:
        ingest = await store.create_ingest("full")
        files.failures["write"] = [FULL]
        await ingest.write(bytes(MIB))
        with pytest.raises(StorageFull):
            await ingest.flush()
        await ingest.suspend()
        resumed = await store.resume_ingest("full")
        assert resumed.offset == 0
        await resumed.abort()

    async def test_commit_drops_the_ingest(
        self, store: FilesystemBlobStore, files: ScriptedFiles, tmp_path: Path
    ) -> None:
        ingest = await store.create_ingest("bad")
        files.failures["write"] = [OSError(errno.EIO, "bad")]
        await ingest.write(bytes(MIB))
        with pytest.raises(StorageUnavailable):
            await ingest.commit(digest_of(bytes(MIB)))
        assert names_in(tmp_path / "ingest") == set()


class TestHash:
    @pytest.fixture
    def few_hashes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let stores that are made from now on remember two hashes."""
        monkeypatch.setattr(ingest_module, "_MAX_SUSPENDED_HASHES", 2)

    @pytest.fixture
    def hashed_files(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Return a list that gets the algorithm of every file read through again."""
        hashed: list[str] = []
        read_through = ingest_module.hash_file

        def counted(fd: int, algorithm: str) -> hashlib._Hash:
            hashed.append(algorithm)
            return read_through(fd, algorithm)

        monkeypatch.setattr(ingest_module, "hash_file", counted)
        return hashed

    async def test_an_upload_in_one_process_is_hashed_once(
        self, store: FilesystemBlobStore, hashed_files: list[str]
    ) -> None:
        ingest = await store.create_ingest("session")
        await ingest.write(b"abc")
        await ingest.suspend()
        ingest = await store.resume_ingest("session")
        await ingest.write(b"def")
        await ingest.commit(digest_of(b"abcdef"))
        assert hashed_files == []

    async def test_bytes_that_came_in_behind_our_back_are_hashed(
        self, store: FilesystemBlobStore, hashed_files: list[str], tmp_path: Path
    ) -> None:
        ingest = await store.create_ingest("session")
        await ingest.write(b"abc")
        await ingest.suspend()
        with (tmp_path / "ingest" / "session").open("ab") as file:
            file.write(b"def")
        ingest = await store.resume_ingest("session")
        await ingest.commit(digest_of(b"abcdef"))
        assert hashed_files == ["sha256"]

    async def test_hashes_of_abandoned_sessions_do_not_pile_up(
        self, few_hashes: None, store: FilesystemBlobStore, hashed_files: list[str]
    ) -> None:
        for name in ("one", "two", "three"):
            ingest = await store.create_ingest(name)
            await ingest.write(name.encode())
            await ingest.suspend()
        for name in ("one", "two", "three"):
            ingest = await store.resume_ingest(name)
            await ingest.commit(digest_of(name.encode()))
        assert hashed_files == ["sha256"]


class TestRaces:
    async def test_resume_during_reclaim_is_refused_or_wins(self, store: FilesystemBlobStore, tmp_path: Path) -> None:
        for steps in range(6):
            name = f"race{steps}"
            ingest = await store.create_ingest(name)
            await ingest.write(b"abc")
            await ingest.suspend()
            async with asyncio.TaskGroup() as tasks:
                reclaim = tasks.create_task(store.reclaim_ingests(()))
                for _ in range(steps):
                    await asyncio.sleep(0)
                resume = tasks.create_task(resumed_or_refused(store, name))
            assert (reclaim.result() == 1) == (resume.result() is None)
            assert names_in(tmp_path / "ingest") == (set() if resume.result() is None else {name})
            await store.reclaim_ingests(())

    async def test_a_read_under_way_keeps_the_file_open_until_it_is_over(self, tmp_path: Path) -> None:
        store = FilesystemBlobStore(tmp_path, threads=1)
        await store.open()
        ingest = await store.create_ingest("read")
        await ingest.write(b"a" * MIB)
        await ingest.flush()
        ingest._file._reads._nowait = None  # every read takes a thread, as from a cold disk
        async with asyncio.TaskGroup() as tasks:
            read = tasks.create_task(ingest.read_at(0, 10))
            await asyncio.sleep(0)
            tasks.create_task(ingest.abort())
        assert read.result() == b"a" * 10
        assert open_files_below(tmp_path) == []
        await store.close()


async def resumed_or_refused(store: FilesystemBlobStore, name: str) -> bytes | None:
    try:
        ingest = await store.resume_ingest(name)
    except (Conflict, UploadNotFound):
        return None
    content = bytes(await ingest.read_at(0, 10))
    assert content == b"abc"
    await ingest.suspend()
    return content
