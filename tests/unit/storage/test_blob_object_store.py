"""A bucket that is out of reach, slow or lying, as a made-up server on loopback plays it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from replicator.core.digest import digest_of
from replicator.core.errors import CorruptBlob, StorageUnavailable
from replicator.storage.blobs.location import new_location
from replicator.storage.blobs.object_store import ObjectStoreBlobStore
from replicator.storage.blobs.port import StorageUsage, StoredBlob
from tests.support.blob_stores import names_in, open_files_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

CONTENT = b"0123456789"
SECRET = "very-secret-key"  # noqa: S105 - a canary
BLOB = StoredBlob(digest_of(CONTENT), len(CONTENT), new_location(digest_of(CONTENT)))


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve every request with `handler`; yields the endpoint."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def opened(directory: Path, endpoint: str, patience: float = 2.0) -> AsyncIterator[ObjectStoreBlobStore]:
    store = ObjectStoreBlobStore(
        directory,
        bucket="blobs",
        endpoint=endpoint,
        access_key_id="key-id",
        secret_access_key=SECRET,
        allow_http=True,
        timeout=patience,
    )
    await store.open()
    try:
        yield store
    finally:
        await store.close()
        assert names_in(directory / "ingest") == set()
        assert open_files_below(directory) == []


async def commit(store: ObjectStoreBlobStore) -> StoredBlob:
    ingest = await store.create_ingest("put")
    await ingest.write(CONTENT)
    return await ingest.commit(BLOB.digest)


async def read(store: ObjectStoreBlobStore, into: bytearray) -> None:
    async with await store.read_blob(BLOB) as content:
        async for piece in content.read(0, BLOB.size):
            into += piece


async def locations(store: ObjectStoreBlobStore) -> list[str]:
    return [location async for location in store.iter_locations()]


def test_a_node_that_does_not_use_it_never_loads_the_library() -> None:
    script = "import sys, replicator.storage.blobs.object_store; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603


class TestUnavailable:
    async def test_every_operation_says_so(self, tmp_path: Path) -> None:
        async def broken(_: web.Request) -> web.StreamResponse:
            return web.Response(status=503, text=f"<Error>{SECRET}</Error>")

        async with served(broken) as endpoint, opened(tmp_path, endpoint) as store:
            for operation in (commit, locations):
                with pytest.raises(StorageUnavailable) as failure:
                    await operation(store)
                assert SECRET not in str(failure.value)
            with pytest.raises(StorageUnavailable):
                await store.read_blob(BLOB)
            with pytest.raises(StorageUnavailable):
                await store.delete_blob(BLOB.location)

    async def test_a_server_that_is_not_there(self, tmp_path: Path) -> None:
        async with served(reject) as endpoint:
            pass
        async with opened(tmp_path, endpoint) as store:
            with pytest.raises(StorageUnavailable):
                await store.read_blob(BLOB)

    async def test_a_server_that_refuses_us(self, tmp_path: Path) -> None:
        async with served(reject) as endpoint, opened(tmp_path, endpoint) as store:
            with pytest.raises(StorageUnavailable):
                await commit(store)
            with pytest.raises(StorageUnavailable):
                await store.read_blob(BLOB)

    async def test_a_server_that_never_answers(self, tmp_path: Path) -> None:
        async def hang(_: web.Request) -> web.StreamResponse:
            await asyncio.Event().wait()
            raise AssertionError

        async with served(hang) as endpoint, opened(tmp_path, endpoint, patience=0.2) as store:
            with pytest.raises(StorageUnavailable):
                await commit(store)

    async def test_a_cancelled_upload_leaves_no_ingest(self, tmp_path: Path) -> None:
        asked = asyncio.Event()

        async def hang(_: web.Request) -> web.StreamResponse:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        async with served(hang) as endpoint, opened(tmp_path, endpoint) as store, asyncio.TaskGroup() as tasks:
            task = tasks.create_task(commit(store))
            await asked.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert names_in(tmp_path / "ingest") == set()


class TestLies:
    async def test_an_upload_that_arrived_short_is_not_acknowledged(self, tmp_path: Path) -> None:
        async def short(request: web.Request) -> web.StreamResponse:
            if request.method == "PUT":
                await request.read()
                return web.Response(headers={"ETag": '"1"'})
            return web.Response(headers={"ETag": '"1"', "Content-Length": "9", **MODIFIED})

        async with served(short) as endpoint, opened(tmp_path, endpoint) as store:
            with pytest.raises(StorageUnavailable, match="kept 9 of 10 bytes"):
                await commit(store)

    async def test_an_upload_that_vanished_is_not_acknowledged(self, tmp_path: Path) -> None:
        async def forgetful(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=200 if request.method == "PUT" else 404, headers={"ETag": '"1"'})

        async with served(forgetful) as endpoint, opened(tmp_path, endpoint) as store:
            with pytest.raises(CorruptBlob):
                await commit(store)

    async def test_an_answer_that_ends_early_is_never_a_whole_blob(self, tmp_path: Path) -> None:
        async def cut(request: web.Request) -> web.StreamResponse:
            if request.method == "HEAD":
                return web.Response(headers={"ETag": '"1"', "Content-Length": "10", **MODIFIED})
            headers = {"ETag": '"1"', "Content-Range": "bytes 0-9/10", **MODIFIED}
            return web.Response(status=206, body=CONTENT[:9], headers=headers)

        seen = bytearray()
        async with served(cut) as endpoint, opened(tmp_path, endpoint) as store:
            with pytest.raises(CorruptBlob, match="ends 1 bytes early"):
                await read(store, seen)
        assert seen == CONTENT[:9]

    async def test_an_object_that_is_gone_between_look_up_and_read_is_corrupt(self, tmp_path: Path) -> None:
        async def gone(request: web.Request) -> web.StreamResponse:
            if request.method == "HEAD":
                return web.Response(headers={"ETag": '"1"', "Content-Length": "10", **MODIFIED})
            return web.Response(status=404)

        async with served(gone) as endpoint, opened(tmp_path, endpoint) as store:
            with pytest.raises(CorruptBlob):
                await read(store, bytearray())


async def test_a_bucket_has_no_size(tmp_path: Path) -> None:
    async with served(reject) as endpoint, opened(tmp_path, endpoint) as store:
        assert await store.usage() == StorageUsage(0, 0)


MODIFIED = {"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}


async def reject(_: web.Request) -> web.StreamResponse:
    return web.Response(status=403)
