"""What every blob store promises, shown on memory, on a directory and on a bucket of a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import (
    Conflict,
    CorruptBlob,
    DigestMismatch,
    InvalidDigest,
    InvalidUpload,
    RangeNotSatisfiable,
    SizeMismatch,
    StorageInUse,
    StorageUnavailable,
    UploadNotFound,
)
from replicator.storage.blobs.port import StoredBlob
from tests.support.blob_stores import FilesystemBench, MemoryBench, ObjectStoreBench
from tests.support.s3_server import running_s3_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicator.storage.blobs.port import BlobStore, Ingest
    from tests.support.blob_stores import BlobStoreBench
    from tests.support.s3_server import S3Server

MIB = 1024 * 1024
_prefixes = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


OBJECT_STORE = pytest.param("object_store", marks=pytest.mark.object_store)


@pytest.fixture(params=["memory", "filesystem", OBJECT_STORE])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStoreBench:
    if request.param == "memory":
        return MemoryBench()
    if request.param == "filesystem":
        return FilesystemBench(tmp_path / "store")
    server = request.getfixturevalue("s3_server")
    return ObjectStoreBench(tmp_path / "ingests", server, f"test-{next(_prefixes)}/{tmp_path.name}")


@pytest.fixture
async def store(bench: BlobStoreBench) -> AsyncIterator[BlobStore]:
    store = bench.new_store()
    await store.open()
    yield store
    await store.close()
    assert bench.ingests() == set()
    await files_closed(bench)


async def files_closed(bench: BlobStoreBench) -> None:
    """Return when no file of the backing is open: a cancelled upload is ended by the S3 client's own threads."""
    async with asyncio.timeout(10):
        while isinstance(bench, ObjectStoreBench) and bench.open_files():  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0.01)
    assert bench.open_files() == []


def made_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - bytes to tell apart, not a secret


async def put(store: BlobStore, content: bytes, name: str = "put", algorithm: str = "sha256") -> StoredBlob:
    ingest = await store.create_ingest(name, algorithm)
    for start in range(0, len(content), 70_000):
        await ingest.write(content[start : start + 70_000])
    return await ingest.commit(digest_of(content, algorithm), len(content))


async def get(store: BlobStore, blob: StoredBlob, start: int = 0, length: int | None = None) -> bytes:
    async with await store.read_blob(blob) as content:
        length = blob.size - start if length is None else length
        return b"".join([bytes(piece) async for piece in content.read(start, length)])


async def locations(store: BlobStore) -> set[str]:
    return {location async for location in store.iter_locations()}


async def cancelled_after(steps: int, task: asyncio.Task[object]) -> bool:
    """Cancel `task` after it and others ran `steps` times; tell whether that was before its end."""
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


class TestCommit:
    @pytest.mark.parametrize("size", [1, 69_999, 70_000, MIB, 3 * MIB + 17])
    async def test_a_committed_blob_reads_back_byte_for_byte(self, store: BlobStore, size: int) -> None:
        content = made_bytes(size)
        blob = await put(store, content)
        assert (blob.digest, blob.size) == (digest_of(content), size)
        assert await get(store, blob) == content

    async def test_an_empty_blob(self, store: BlobStore) -> None:
        blob = await put(store, b"")
        assert blob.size == 0
        assert await get(store, blob) == b""

    async def test_empty_chunks_and_views_of_wider_items(self, store: BlobStore) -> None:
        ingest = await store.create_ingest("views")
        await ingest.write(b"")
        await ingest.write(memoryview(b"abcdefgh").cast("I"))
        await ingest.write(bytearray(b"ij"))
        assert ingest.offset == 10
        blob = await ingest.commit(digest_of(b"abcdefghij"))
        assert await get(store, blob) == b"abcdefghij"

    async def test_the_digest_so_far_is_told_and_more_may_follow(self, store: BlobStore) -> None:
        content = made_bytes(2 * MIB + 5)
        ingest = await store.create_ingest("asked")
        assert await ingest.digest() == digest_of(b"")
        await ingest.write(content[:MIB])
        assert await ingest.digest() == digest_of(content[:MIB])
        assert await ingest.digest("sha512") == digest_of(content[:MIB], "sha512")
        await ingest.write(content[MIB:])
        await ingest.suspend()
        resumed = await store.resume_ingest("asked", "sha512")
        assert await resumed.digest() == digest_of(content)
        await resumed.write(b"end")
        assert await resumed.digest("sha512") == digest_of(content + b"end", "sha512")
        assert await get(store, await resumed.commit(digest_of(content + b"end"))) == content + b"end"

    async def test_many_tiny_chunks(self, store: BlobStore) -> None:
        content = made_bytes(3000)
        ingest = await store.create_ingest("tiny")
        for byte in content:
            await ingest.write(bytes([byte]))
        assert await get(store, await ingest.commit(digest_of(content))) == content

    async def test_sha512(self, store: BlobStore) -> None:
        content = made_bytes(2 * MIB)
        blob = await put(store, content, algorithm="sha512")
        assert blob.digest == "sha512:" + hashlib.sha512(content).hexdigest()
        assert await get(store, blob) == content

    async def test_the_algorithm_may_turn_out_to_be_another_one_at_commit(self, store: BlobStore) -> None:
        content = made_bytes(2 * MIB)
        ingest = await store.create_ingest("other", "sha256")
        await ingest.write(content)
        blob = await ingest.commit(digest_of(content, "sha512"), len(content))
        assert await get(store, blob) == content

    async def test_a_large_blob(self, store: BlobStore) -> None:
        content = made_bytes(32 * MIB)
        blob = await put(store, content)
        digest = hashlib.sha256()
        async with await store.read_blob(blob) as opened:
            async for piece in opened.read(0, blob.size):
                digest.update(piece)
        assert "sha256:" + digest.hexdigest() == blob.digest

    async def test_two_ingests_at_once_do_not_mix(self, store: BlobStore) -> None:
        contents = [made_bytes(MIB + 5, seed) for seed in range(4)]
        async with asyncio.TaskGroup() as tasks:
            writes = [tasks.create_task(put(store, content, f"n{i}")) for i, content in enumerate(contents)]
        assert [await get(store, write.result()) for write in writes] == contents

    async def test_two_writes_of_a_digest_have_a_location_each(self, store: BlobStore) -> None:
        content = made_bytes(1000)
        first, second = await put(store, content), await put(store, content)
        assert first.location != second.location
        await store.delete_blob(first.location)
        assert await get(store, second) == content
        with pytest.raises(CorruptBlob):
            await store.read_blob(first)


class TestRefusedCommit:
    @pytest.mark.parametrize("size", [999, 1001, 0])
    async def test_a_wrong_size_leaves_nothing(self, store: BlobStore, bench: BlobStoreBench, size: int) -> None:
        content = made_bytes(1000)
        ingest = await store.create_ingest("wrong")
        await ingest.write(content)
        with pytest.raises(SizeMismatch):
            await ingest.commit(digest_of(content), size)
        assert bench.ingests() == set()
        assert await locations(store) == set()

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_a_wrong_digest_leaves_nothing(self, store: BlobStore, bench: BlobStoreBench, algorithm: str) -> None:
        ingest = await store.create_ingest("wrong", algorithm)
        await ingest.write(made_bytes(3 * MIB))
        with pytest.raises(DigestMismatch):
            await ingest.commit(digest_of(b"something else", algorithm))
        assert bench.ingests() == set()
        assert await locations(store) == set()

    async def test_the_size_is_checked_before_the_digest(self, store: BlobStore) -> None:
        ingest = await store.create_ingest("both")
        await ingest.write(b"abc")
        with pytest.raises(SizeMismatch):
            await ingest.commit(digest_of(b"something else"), 4)

    async def test_an_unknown_algorithm_is_refused(self, store: BlobStore) -> None:
        with pytest.raises(InvalidDigest):
            await store.create_ingest("md5", "md5")


class TestIngest:
    async def test_abort_drops_the_bytes_and_may_be_repeated(self, store: BlobStore, bench: BlobStoreBench) -> None:
        ingest = await store.create_ingest("gone")
        await ingest.write(made_bytes(3 * MIB))
        await ingest.abort()
        await ingest.abort()
        assert bench.ingests() == set()
        with pytest.raises(UploadNotFound):
            await store.resume_ingest("gone")

    async def test_abort_after_commit_keeps_the_blob(self, store: BlobStore) -> None:
        ingest = await store.create_ingest("kept")
        await ingest.write(b"abc")
        blob = await ingest.commit(digest_of(b"abc"))
        await ingest.abort()
        assert await get(store, blob) == b"abc"

    async def test_abort_after_suspend_keeps_the_bytes(self, store: BlobStore) -> None:
        ingest = await store.create_ingest("kept")
        await ingest.write(b"abc")
        await ingest.suspend()
        await ingest.abort()
        resumed = await store.resume_ingest("kept")
        assert resumed.offset == 3
        await resumed.abort()

    @pytest.mark.parametrize("end", ["commit", "refused", "suspend", "abort"])
    async def test_a_spent_ingest_refuses_everything_else(self, store: BlobStore, end: str) -> None:
        ingest = await store.create_ingest("spent")
        await ingest.write(b"abc")
        if end == "commit":
            await ingest.commit(digest_of(b"abc"))
        elif end == "refused":
            with pytest.raises(DigestMismatch):
                await ingest.commit(digest_of(b"abd"))
        elif end == "suspend":
            await ingest.suspend()
        else:
            await ingest.abort()
        for late in (
            lambda: ingest.write(b"d"),
            lambda: ingest.read_at(0, 1),
            ingest.flush,
            ingest.suspend,
            lambda: ingest.commit(digest_of(b"abc")),
        ):
            with pytest.raises(UploadNotFound):
                await late()
        await store.reclaim_ingests(())

    async def test_a_name_is_taken_once(self, store: BlobStore) -> None:
        ingest = await store.create_ingest("taken")
        with pytest.raises(Conflict):
            await store.create_ingest("taken")
        with pytest.raises(Conflict):
            await store.resume_ingest("taken")
        await ingest.write(b"abc")
        await ingest.suspend()
        with pytest.raises(Conflict):
            await store.create_ingest("taken")
        resumed = await store.resume_ingest("taken")
        assert resumed.offset == 3
        await resumed.abort()

    @pytest.mark.parametrize("name", ["", ".", "..", "../lock", "a/b", "a\x00b", "ä", "a" * 129])
    async def test_a_name_is_letters_digits_dashes_and_underscores(self, store: BlobStore, name: str) -> None:
        with pytest.raises(InvalidUpload):
            await store.create_ingest(name)
        with pytest.raises(UploadNotFound):
            await store.resume_ingest(name)

    async def test_readers_follow_a_growing_ingest(self, store: BlobStore) -> None:
        content = made_bytes(5 * MIB + 3)
        ingest = await store.create_ingest("growing")
        seen = b""
        for start in range(0, len(content), 300_000):
            await ingest.write(content[start : start + 300_000])
            while len(seen) < ingest.offset:
                piece = await ingest.read_at(len(seen), 200_000)
                assert 0 < len(piece) <= 200_000
                seen += piece
            assert len(await ingest.read_at(ingest.offset, 10)) == 0
        assert seen == content
        await ingest.flush()
        assert await ingest.read_at(4 * MIB, 10) == content[4 * MIB : 4 * MIB + 10]
        await ingest.abort()

    async def test_readers_and_the_writer_run_at_once(self, store: BlobStore) -> None:
        content = made_bytes(4 * MIB)
        ingest = await store.create_ingest("shared")
        grown = asyncio.Condition()

        async def follow() -> bytes:
            seen = bytearray()
            while len(seen) < len(content):
                async with grown:
                    while ingest.offset == len(seen):
                        await grown.wait()
                seen += await ingest.read_at(len(seen), MIB)
            return bytes(seen)

        async with asyncio.TaskGroup() as tasks:
            followers = [tasks.create_task(follow()) for _ in range(5)]
            for start in range(0, len(content), 65_536):
                await ingest.write(content[start : start + 65_536])
                async with grown:
                    grown.notify_all()
        assert all(follower.result() == content for follower in followers)
        assert await get(store, await ingest.commit(digest_of(content))) == content


class TestResume:
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    async def test_in_the_same_process(self, store: BlobStore, algorithm: str) -> None:
        content = made_bytes(3 * MIB)
        for start in range(0, len(content), MIB):
            make = store.resume_ingest if start else store.create_ingest
            ingest = await make("session", algorithm)
            assert ingest.offset == start
            await ingest.write(content[start : start + MIB])
            await ingest.suspend()
        ingest = await store.resume_ingest("session", algorithm)
        assert await get(store, await ingest.commit(digest_of(content, algorithm), len(content))) == content

    async def test_with_another_algorithm(self, store: BlobStore) -> None:
        await suspended(store, "session", b"abc")
        ingest = await store.resume_ingest("session", "sha512")
        await ingest.write(b"def")
        assert await get(store, await ingest.commit(digest_of(b"abcdef", "sha512"))) == b"abcdef"

    async def test_after_a_restart(self, bench: BlobStoreBench) -> None:
        content = made_bytes(2 * MIB + 1)
        before = bench.new_store()
        await before.open()
        await suspended(before, "session", content[:MIB])
        await before.close()
        after = bench.new_store()
        await after.open()
        ingest = await after.resume_ingest("session")
        assert ingest.offset == MIB
        assert await ingest.read_at(0, 100) == content[:100]
        await ingest.write(content[MIB:])
        assert await get(after, await ingest.commit(digest_of(content))) == content
        await after.close()

    async def test_closing_the_store_leaves_open_ingests_to_reclaim(self, bench: BlobStoreBench) -> None:
        before = bench.new_store()
        await before.open()
        ingest = await before.create_ingest("left")
        await ingest.write(made_bytes(3 * MIB))
        await before.close()
        assert bench.open_files() == []
        await ingest.abort()
        with pytest.raises(UploadNotFound):
            await ingest.write(b"late")
        assert bench.ingests() == {"left"}
        after = bench.new_store()
        await after.open()
        assert await after.reclaim_ingests(()) == 1
        assert bench.ingests() == set()
        await after.close()

    async def test_reclaim_spares_open_and_named_ingests(self, store: BlobStore, bench: BlobStoreBench) -> None:
        for name in ("one", "two", "three"):
            await suspended(store, name, b"abc")
        opened = await store.create_ingest("open")
        assert await store.reclaim_ingests({"two", "unknown"}) == 2
        assert bench.ingests() == {"two", "open"}
        with pytest.raises(UploadNotFound):
            await store.resume_ingest("one")
        await opened.abort()
        assert await store.reclaim_ingests(()) == 1


class TestRead:
    @pytest.mark.parametrize(
        ("start", "length"),
        [(0, 0), (0, 1), (1, MIB), (MIB - 1, 2), (3 * MIB, 5), (3 * MIB + 4, 1), (3 * MIB + 5, 0), (7, 2 * MIB + 11)],
    )
    async def test_a_range(self, store: BlobStore, start: int, length: int) -> None:
        content = made_bytes(3 * MIB + 5)
        blob = await put(store, content)
        assert await get(store, blob, start, length) == content[start : start + length]

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (10, 1), (11, 0), (-1, 2), (2, -1)])
    async def test_a_range_outside_the_blob_is_refused(self, store: BlobStore, start: int, length: int) -> None:
        blob = await put(store, b"0123456789")
        with pytest.raises(RangeNotSatisfiable) as refusal:
            await get(store, blob, start, length)
        assert refusal.value.size == 10

    async def test_pieces_stay_as_they_are_while_the_next_ones_are_read(self, store: BlobStore) -> None:
        content = made_bytes(3 * MIB)
        blob = await put(store, content)
        async with await store.read_blob(blob) as opened:
            pieces = [piece async for piece in opened.read(0, blob.size)]
        assert len(pieces) > 3
        assert b"".join(pieces) == content

    async def test_readers_share_an_open_blob(self, store: BlobStore) -> None:
        content = made_bytes(2 * MIB)
        blob = await put(store, content)
        async with await store.read_blob(blob) as opened:
            pairs = [(opened.read(0, MIB), opened.read(MIB, MIB))]
            for left, right in pairs:
                assert (await anext(left))[:10] == content[:10]
                assert (await anext(right))[:10] == content[MIB : MIB + 10]
                await left.aclose()  # type: ignore[attr-defined]
                await right.aclose()  # type: ignore[attr-defined]

    async def test_leaving_early_closes_the_blob(self, store: BlobStore, bench: BlobStoreBench) -> None:
        blob = await put(store, made_bytes(2 * MIB))
        async with await store.read_blob(blob) as opened:
            pieces = opened.read(0, blob.size)
            await anext(pieces)
            await pieces.aclose()  # type: ignore[attr-defined]
        assert bench.open_files() == []

    async def test_a_missing_blob_is_corrupt(self, store: BlobStore, bench: BlobStoreBench) -> None:
        blob = await put(store, b"abc")
        bench.remove(blob.location)
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)

    @pytest.mark.parametrize("content", [b"", b"ab", b"abcd"])
    async def test_a_blob_of_another_size_is_corrupt(
        self, store: BlobStore, bench: BlobStoreBench, content: bytes
    ) -> None:
        blob = await put(store, b"abc")
        bench.put(blob.location, content)
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)

    @pytest.mark.parametrize(
        "location",
        ["", "../lock", "sha256/../../lock", "/etc/passwd", "sha256/ab/abc.0000000000000000", "md5/ab/" + "ab" * 16],
    )
    async def test_a_location_of_another_form_is_never_looked_for(self, store: BlobStore, location: str) -> None:
        blob = StoredBlob(digest_of(b"abc"), 3, location)
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)
        with pytest.raises(CorruptBlob):
            await store.delete_blob(location)


class TestDelete:
    async def test_deleting_twice_is_deleting_once(self, store: BlobStore) -> None:
        blob = await put(store, b"abc")
        await store.delete_blob(blob.location)
        await store.delete_blob(blob.location)
        with pytest.raises(CorruptBlob):
            await store.read_blob(blob)

    async def test_iter_locations_names_every_blob_and_nothing_else(self, store: BlobStore) -> None:
        blobs = [await put(store, made_bytes(100, seed), algorithm="sha256") for seed in range(5)]
        blobs.append(await put(store, made_bytes(100), algorithm="sha512"))
        await suspended(store, "underway", b"abc")
        await store.delete_blob(blobs[0].location)
        assert await locations(store) == {blob.location for blob in blobs[1:]}
        await store.reclaim_ingests(())

    @pytest.mark.parametrize("bench", ["memory", "filesystem"], indirect=True)
    async def test_an_open_reader_survives_the_deletion(self, store: BlobStore) -> None:
        content = made_bytes(3 * MIB)
        blob = await put(store, content)
        async with await store.read_blob(blob) as opened:
            pieces = opened.read(0, blob.size)
            seen = [await anext(pieces)]
            await store.delete_blob(blob.location)
            seen += [piece async for piece in pieces]
        assert b"".join(seen) == content

    @pytest.mark.parametrize("bench", [OBJECT_STORE], indirect=True)
    async def test_an_open_reader_of_an_object_store_is_told_of_the_deletion(self, store: BlobStore) -> None:
        blob = await put(store, b"abc")
        async with await store.read_blob(blob) as opened:
            await store.delete_blob(blob.location)
            with pytest.raises(CorruptBlob):
                await anext(opened.read(0, 3))


class TestStore:
    async def test_a_second_owner_is_refused_until_the_first_closes(self, bench: BlobStoreBench) -> None:
        first, second = bench.new_store(), bench.new_store()
        await first.open()
        with pytest.raises(StorageInUse):
            await second.open()
        with pytest.raises(StorageInUse):
            await first.open()
        blob = await put(first, b"abc")
        await first.close()
        await second.open()
        assert await get(second, blob) == b"abc"
        await second.close()

    async def test_a_refused_owner_that_closes_takes_nothing_from_the_first(self, bench: BlobStoreBench) -> None:
        first, second = bench.new_store(), bench.new_store()
        await first.open()
        with pytest.raises(StorageInUse):
            await second.open()
        await second.close()
        with pytest.raises(StorageInUse):
            await bench.new_store().open()
        await first.close()

    async def test_a_closed_store_says_so(self, bench: BlobStoreBench) -> None:
        store = bench.new_store()
        await store.open()
        blob = await put(store, b"abc")
        await store.close()
        await store.close()
        with pytest.raises(StorageUnavailable):
            await store.create_ingest("late")
        with pytest.raises(StorageUnavailable):
            await store.read_blob(blob)
        await store.open()
        assert await get(store, blob) == b"abc"
        await store.close()

    async def test_usage_is_a_share_of_the_volume_or_unknown(self, store: BlobStore) -> None:
        usage = await store.usage()
        assert 0 <= usage.free_bytes <= usage.total_bytes
        assert (usage.total_bytes == 0) == (usage.free_bytes == 0)


class TestCancellation:
    """Whoever is cancelled leaves an ingest whole or gone, and no file open."""

    async def test_create(self, store: BlobStore, bench: BlobStoreBench) -> None:
        for steps in range(12):
            task = asyncio.create_task(store.create_ingest(f"c{steps}"))  # noqa: TID251 - awaited in the next line
            if not await cancelled_after(steps, task) and task.exception() is None:
                await task.result().abort()
            assert bench.ingests() == set()
            assert bench.open_files() == []

    async def test_write_then_abort(self, store: BlobStore, bench: BlobStoreBench) -> None:
        for steps in range(12):
            ingest = await store.create_ingest(f"w{steps}")
            await cancelled_after(steps, write_all(ingest))
            await ingest.abort()
            assert bench.ingests() == set()
            assert bench.open_files() == []

    async def test_write_then_go_on_where_offset_says(self, store: BlobStore) -> None:
        content = made_bytes(6 * MIB)
        for steps in range(8):
            ingest = await store.create_ingest(f"g{steps}")
            await cancelled_after(steps, write_all(ingest))
            await ingest.write(content[ingest.offset :])
            blob = await ingest.commit(digest_of(content), len(content))
            assert await get(store, blob) == content
            await store.delete_blob(blob.location)

    async def test_suspend(self, store: BlobStore) -> None:
        content = made_bytes(2 * MIB)
        for steps in range(8):
            ingest = await store.create_ingest(f"s{steps}")
            await ingest.write(content)
            task = asyncio.create_task(ingest.suspend())  # noqa: TID251 - awaited in the next line
            if not await cancelled_after(steps, task):
                assert task.exception() is None
            if steps == 0:  # never started: the ingest is still open
                await ingest.suspend()
            resumed = await store.resume_ingest(f"s{steps}")
            assert resumed.offset == len(content)
            blob = await resumed.commit(digest_of(content))
            await store.delete_blob(blob.location)

    async def test_commit(self, store: BlobStore, bench: BlobStoreBench) -> None:
        content = made_bytes(2 * MIB)
        for steps in range(16):
            ingest = await store.create_ingest(f"m{steps}")
            await ingest.write(content)
            task = asyncio.create_task(ingest.commit(digest_of(content)))  # noqa: TID251 - awaited in the next line
            if await cancelled_after(steps, task):
                await ingest.abort()  # as the writer's clean-up does; needed when commit had not begun
            assert bench.ingests() == set()
            await files_closed(bench)
            for location in await locations(store):
                blob = StoredBlob(digest_of(content), len(content), location)
                assert await get(store, blob) == content
                await store.delete_blob(location)

    async def test_read(self, store: BlobStore, bench: BlobStoreBench) -> None:
        blob = await put(store, made_bytes(3 * MIB))
        for steps in range(12):
            task = asyncio.create_task(get(store, blob))  # noqa: TID251 - awaited in the next line
            await cancelled_after(steps, task)
            assert bench.open_files() == []


def write_all(ingest: Ingest) -> asyncio.Task[object]:
    async def write() -> None:
        content = made_bytes(6 * MIB)
        for start in range(0, len(content), 256 * 1024):
            await ingest.write(content[start : start + 256 * 1024])

    return asyncio.create_task(write())  # noqa: TID251 - the caller awaits it


async def suspended(store: BlobStore, name: str, content: bytes) -> None:
    ingest = await store.create_ingest(name)
    await ingest.write(content)
    await ingest.suspend()
