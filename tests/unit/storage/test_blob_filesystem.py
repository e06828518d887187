"""What only a store in files promises: durability in order, and no way around it through the file system."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import CorruptBlob, StorageFull, StorageInUse, StorageUnavailable
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.blobs.port import StoredBlob
from tests.support.blob_stores import ScriptedFiles, names_in, open_files_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicator.core.content import BlobContent
    from replicator.storage.blobs.port import Ingest

CONTENT = b"the bytes of a blob"
DIGEST = digest_of(CONTENT)
MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return (tmp_path / "store").resolve()


@pytest.fixture
def files() -> ScriptedFiles:
    return ScriptedFiles()


@pytest.fixture
async def store(root: Path, files: ScriptedFiles) -> AsyncIterator[FilesystemBlobStore]:
    store = FilesystemBlobStore(root, files=files)
    await store.open()
    yield store
    await store.close()
    assert open_files_below(root) == []


async def put(store: FilesystemBlobStore, content: bytes = CONTENT, name: str = "put") -> StoredBlob:
    ingest = await store.create_ingest(name)
    await ingest.write(content)
    return await ingest.commit(digest_of(content))


async def get(store: FilesystemBlobStore, blob: StoredBlob) -> bytes:
    async with await store.read_blob(blob) as content:
        return b"".join([piece async for piece in content.read(0, blob.size)])


async def write_all(ingest: Ingest, content: bytes) -> None:
    for start in range(0, len(content), 65_536):
        await ingest.write(content[start : start + 65_536])
    await ingest.flush()


async def read_into(buffer: bytearray, blob: BlobContent) -> None:
    async for piece in blob.read(0, blob.size):
        buffer += piece


def make(directory: Path) -> None:
    directory.mkdir()


def size_of(path: Path) -> int:
    return path.stat().st_size


def read(path: Path) -> bytes:
    return path.read_bytes()


def blob_files(root: Path) -> list[Path]:
    return [path for path in (root / "blobs").rglob("*") if not path.is_dir()]


class TestStaircase:
    async def test_a_first_commit_makes_every_directory_durable_before_the_blob_is_in_it(
        self, store: FilesystemBlobStore, files: ScriptedFiles, root: Path
    ) -> None:
        files.record.clear()
        blob = await put(store)
        target = root / "blobs" / blob.location
        assert files.record == [
            f"write {root}/ingest/put",
            f"sync {root}/ingest/put",
            f"sync_directory {root}",
            f"sync_directory {root}/blobs",
            f"sync_directory {root}/blobs/sha256",
            f"rename {root}/ingest/put {target}",
            f"sync_directory {target.parent}",
        ]

    async def test_a_later_commit_syncs_the_file_renames_and_syncs_the_directory(
        self, store: FilesystemBlobStore, files: ScriptedFiles
    ) -> None:
        await put(store)
        files.record.clear()
        await put(store)
        assert [entry.split()[0] for entry in files.record] == ["write", "sync", "rename", "sync_directory"]

    async def test_a_refused_commit_gets_no_further_than_its_check(
        self, store: FilesystemBlobStore, files: ScriptedFiles
    ) -> None:
        ingest = await store.create_ingest("refused")
        await ingest.write(CONTENT)
        files.record.clear()
        with pytest.raises(Exception, match="expected sha256:"):
            await ingest.commit(digest_of(b"other"))
        assert [entry.split()[0] for entry in files.record] == ["write", "unlink"]

    @pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
    def test_rel_01_the_kernel_sees_the_staircase(self, root: Path) -> None:
        script = """
            import asyncio, sys
            from pathlib import Path
            from replicator.core.digest import digest_of
            from replicator.storage.blobs.filesystem import FilesystemBlobStore

            async def main():
                store = FilesystemBlobStore(Path(sys.argv[1]))
                await store.open()
                for name in ("warm", "traced"):
                    ingest = await store.create_ingest(name)
                    await ingest.write(b"abc")
                    await ingest.commit(digest_of(b"abc"))
                await store.close()

            asyncio.run(main())
        """
        strace = ["strace", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2"]
        run = [*strace, sys.executable, "-c", textwrap.dedent(script), str(root)]
        traced = subprocess.run(run, check=True, capture_output=True, text=True, timeout=50).stderr  # noqa: S603
        calls = [
            line[line.index(name) :] for line in traced.splitlines() for name in ("fsync(", "rename(") if name in line
        ]
        assert len(calls) >= 3
        sync, rename, sync_directory = calls[-3:]
        assert f"{root}/ingest/traced>" in sync
        assert f'"{root}/ingest/traced"' in rename
        assert f"<{root}/blobs/sha256/" in sync_directory
        assert all(call.endswith("= 0") for call in (sync, rename, sync_directory))

    async def test_blobs_are_read_only(self, store: FilesystemBlobStore, root: Path) -> None:
        blob = await put(store)
        assert stat.S_IMODE((root / "blobs" / blob.location).stat().st_mode) == 0o440

    async def test_a_large_ingest_is_written_back_as_it_grows(
        self, store: FilesystemBlobStore, files: ScriptedFiles
    ) -> None:
        ingest = await store.create_ingest("large")
        for _ in range(20):
            await ingest.write(bytes(MIB))
        await ingest.flush()
        assert [entry.split()[0] for entry in files.record].count("start_writeback") == 2
        await ingest.abort()


class TestFaults:
    """A fault of the disk is told, acknowledges nothing, and the next write does not suffer from it."""

    @pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync_directory"])
    @pytest.mark.parametrize(("code", "error"), [(errno.EIO, StorageUnavailable), (errno.ENOSPC, StorageFull)])
    async def test_during_commit(
        self,
        store: FilesystemBlobStore,
        files: ScriptedFiles,
        root: Path,
        operation: str,
        code: int,
        error: type[Exception],
    ) -> None:
        await put(store, b"before")
        before = blob_files(root)
        ingest = await store.create_ingest("faulty")
        await ingest.write(CONTENT)
        files.record.clear()
        files.failures[operation] = [OSError(code, os.strerror(code))]
        with pytest.raises(error):
            await ingest.commit(DIGEST)
        assert [entry.split()[0] for entry in files.record].count("sync") <= 1
        assert names_in(root / "ingest") == set()
        assert blob_files(root) == before
        assert await get(store, await put(store)) == CONTENT

    async def test_rel_06_a_second_fsync_of_the_same_file_is_never_asked_for(
        self, store: FilesystemBlobStore, files: ScriptedFiles, root: Path
    ) -> None:
        ingest = await store.create_ingest("lost")
        await ingest.write(CONTENT)
        files.failures["sync"] = [OSError(errno.EIO, "lost")]
        with pytest.raises(StorageUnavailable, match="EIO"):
            await ingest.commit(DIGEST)
        assert [entry for entry in files.record if entry.startswith("sync ")] == [f"sync {root}/ingest/lost"]
        assert blob_files(root) == []

    async def test_an_ingest_that_cannot_be_deleted_is_left_to_reclaim(
        self, store: FilesystemBlobStore, files: ScriptedFiles, root: Path
    ) -> None:
        ingest = await store.create_ingest("stuck")
        files.failures["unlink"] = [OSError(errno.EIO, "stuck")]
        await ingest.abort()
        assert names_in(root / "ingest") == {"stuck"}
        assert await store.reclaim_ingests(()) == 1
        assert names_in(root / "ingest") == set()

    async def test_a_directory_that_somebody_removed_comes_back(self, store: FilesystemBlobStore, root: Path) -> None:
        await put(store)
        shutil.rmtree(root / "blobs")
        assert await get(store, await put(store)) == CONTENT

    async def test_a_store_without_a_place_cannot_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        store = FilesystemBlobStore(tmp_path / "file" / "store")
        with pytest.raises(StorageUnavailable):
            await store.open()
        await store.close()

    async def test_a_failed_start_leaves_the_lock_free(self, root: Path, files: ScriptedFiles) -> None:
        make(root)
        files.failures["sync_directory"] = [OSError(errno.EIO, "bad")]
        store = FilesystemBlobStore(root, files=files)
        with pytest.raises(StorageUnavailable):
            await store.open()
        await store.open()
        await store.close()


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "small"
    directory.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None or os.geteuid() != 0:
        pytest.skip("mounting takes root")
    command = [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:  # noqa: S603
        pytest.skip("mounting is not allowed here")
    yield directory
    subprocess.run([unmount, str(directory)], check=True)  # noqa: S603


class TestFullVolume:
    async def test_a_full_volume_is_told_and_recovers_when_there_is_space_again(self, small_volume: Path) -> None:
        store = FilesystemBlobStore(small_volume / "store")
        await store.open()
        kept = await put(store, bytes(MIB))
        ingest = await store.create_ingest("large")
        with pytest.raises(StorageFull):
            await write_all(ingest, bytes(5 * MIB))
        with pytest.raises(StorageFull):
            await ingest.commit(DIGEST)
        assert names_in(small_volume / "store" / "ingest") == set()
        assert await get(store, kept) == bytes(MIB)
        assert await get(store, await put(store)) == CONTENT
        usage = await store.usage()
        assert usage.total_bytes == 4 * MIB
        assert MIB < usage.free_bytes < 3 * MIB
        await store.close()

    async def test_an_upload_that_filled_the_volume_goes_on_later(self, small_volume: Path) -> None:
        content = os.urandom(MIB) * 3
        store = FilesystemBlobStore(small_volume / "store")
        await store.open()
        other = await put(store, os.urandom(2 * MIB), "other")
        ingest = await store.create_ingest("large")
        with pytest.raises(StorageFull):
            await write_all(ingest, content)
        await ingest.suspend()
        await store.delete_blob(other.location)
        ingest = await store.resume_ingest("large")
        assert 0 < ingest.offset < len(content)
        await ingest.write(content[ingest.offset :])
        assert await get(store, await ingest.commit(digest_of(content))) == content
        await store.close()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    return victim


class TestDamage:
    async def test_a_symbolic_link_in_the_place_of_a_blob_is_not_followed(
        self, store: FilesystemBlobStore, root: Path
    ) -> None:
        blob = await put(store)
        path = root / "blobs" / blob.location
        path.rename(root / "elsewhere")
        path.symlink_to(root / "elsewhere")
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)

    async def test_a_pipe_in_the_place_of_a_blob_is_not_waited_for(
        self, store: FilesystemBlobStore, root: Path
    ) -> None:
        blob = await put(store)
        path = root / "blobs" / blob.location
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)

    async def test_a_directory_in_the_place_of_a_blob(self, store: FilesystemBlobStore, root: Path) -> None:
        blob = await put(store, bytes(size_of(root)))  # not told apart by its size, where every directory has one size
        path = root / "blobs" / blob.location
        path.unlink()
        path.mkdir()
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)

    async def test_a_blob_truncated_under_its_reader(self, store: FilesystemBlobStore, root: Path) -> None:
        content = os.urandom(3 * MIB)
        blob = await put(store, content)
        seen = bytearray()
        async with await store.read_blob(blob) as opened:
            os.truncate(root / "blobs" / blob.location, MIB + 5)
            with pytest.raises(CorruptBlob):
                await read_into(seen, opened)
        assert seen == content[: MIB + 5]

    async def test_a_symbolic_link_in_the_ingest_area_is_not_followed(
        self, store: FilesystemBlobStore, root: Path, victim: Path
    ) -> None:
        (root / "ingest" / "linked").symlink_to(victim)
        with pytest.raises(StorageUnavailable):
            await store.resume_ingest("linked")
        assert await store.reclaim_ingests(()) == 1
        assert read(victim) == b"precious"

    async def test_strange_files_are_passed_over(self, store: FilesystemBlobStore, root: Path) -> None:
        blob = await put(store)
        shard = (root / "blobs" / blob.location).parent
        (shard / "lost+found").mkdir()
        (shard / f"{'0' * 64}.0123456789abcdef").write_bytes(b"in the wrong shard")
        (root / "blobs" / "sha256" / "README").write_bytes(b"")
        (root / "blobs" / "md5").mkdir()
        assert [location async for location in store.iter_locations()] == [blob.location]


class TestOwner:
    async def test_the_refusal_names_the_directory_and_the_process(
        self, store: FilesystemBlobStore, root: Path
    ) -> None:
        assert (root / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(StorageInUse, match=f"{root} is in use by process {os.getpid()}"):
            await FilesystemBlobStore(root).open()

    async def test_the_lock_of_a_dead_process_is_free(self, root: Path) -> None:
        process = writing_process(root)
        with pytest.raises(StorageInUse, match=f"process {process.pid}"):
            await FilesystemBlobStore(root).open()
        kill(process)
        store = FilesystemBlobStore(root)
        await store.open()
        await store.close()


class TestCrash:
    async def test_rel_02_what_a_killed_process_leaves_is_whole_or_reclaimed(self, root: Path) -> None:
        process = writing_process(root)
        kill(process)
        store = FilesystemBlobStore(root)
        await store.open()
        assert names_in(root / "ingest") == {"endless"}
        assert await store.reclaim_ingests(()) == 1
        assert names_in(root / "ingest") == set()
        [location] = [location async for location in store.iter_locations()]
        assert await get(store, StoredBlob(DIGEST, len(CONTENT), location)) == CONTENT
        await store.close()


def writing_process(root: Path) -> subprocess.Popen[bytes]:
    """Return a process that committed CONTENT and writes to the ingest `endless` until it is killed."""
    script = """
        import asyncio, sys
        from pathlib import Path
        from replicator.core.digest import digest_of
        from replicator.storage.blobs.filesystem import FilesystemBlobStore

        async def main():
            store = FilesystemBlobStore(Path(sys.argv[1]))
            await store.open()
            ingest = await store.create_ingest("whole")
            await ingest.write(sys.argv[2].encode())
            await ingest.commit(digest_of(sys.argv[2].encode()))
            ingest = await store.create_ingest("endless")
            for number in range(2000):
                await ingest.write(bytes(1024 * 1024))
                if number == 3:
                    print("writing", flush=True)
                await asyncio.sleep(0.01 if number > 3 else 0)

        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(root), CONTENT.decode()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own command line
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
