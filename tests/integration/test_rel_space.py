"""Named faults of a cache's space: shared blobs, full disks, damaged bytes, crashes between rows and bytes."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from replicator.cache.space import CacheSpace, SpaceLimits
from replicator.core.digest import digest_of
from replicator.core.errors import ManifestNotFound, StorageError, StorageFull, UpstreamUnavailable
from replicator.core.eviction import JUST_USED
from replicator.core.names import RepositoryName, Tag
from replicator.core.principal import UNRESTRICTED
from replicator.maintenance.strays import GRACE, StrayBytes
from replicator.storage.metadata.ballast import BallastFile
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.pull_through_node import ALPINE, HUB, caching_node, chunks_of
from tests.support.small_disk import mounted_disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from tests.support.images import BuiltImage
    from tests.support.pull_through_node import CachingNode
    from tests.support.upstreams import FakeRegistry

MIB = 2**20
OWN = RepositoryName("team/app")
BUSYBOX = RepositoryName("docker-hub/library/busybox")


def content_of(number: int, size: int = 2 * MIB) -> bytes:
    return random.Random(number).randbytes(size)  # noqa: S311 - any bytes


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def space_of(node: CachingNode, limits: SpaceLimits | None = None) -> CacheSpace:
    return CacheSpace(node.node, (HUB,), node.cache.uses, limits=limits)


async def pull(node: CachingNode, upstream: FakeRegistry, tag: str, *layers: bytes) -> BuiltImage:
    image = upstream.add_image("library/alpine", tag, layers)
    await node.image(Tag(tag))
    return image


def file_of(node: CachingNode, digest: Digest) -> Path:
    """Return the file of the only copy of a blob."""
    [found] = (node.directory / "blobs" / "blobs").rglob(f"{digest.removeprefix('sha256:')}.*")
    return found


# Eviction while somebody reads


async def test_rel_10_eviction_of_a_shared_blob_that_is_being_pulled_takes_nothing_from_anybody(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    shared, own = content_of(1), content_of(2)
    first = await pull(node, upstream, "1", shared, own)
    second = await pull(node, upstream, "2", shared)
    clock.advance(JUST_USED + 1)
    space = space_of(node, SpaceLimits(max_size=1))
    async with await node.open(digest_of(shared)) as content:
        pieces = content.read(0, len(shared))
        got = bytes(await anext(pieces))
        await space.round()
        # Both images need what is being read, so both stay, and with them everything that they need.
        for image in (first, second):
            assert await node.origin(image.digest) is not None
            for digest, wanted in image.blobs.items():
                assert await node.blob(digest) == wanted
        got += b"".join([bytes(piece) async for piece in pieces])
    assert got == shared
    await node.manifest(Tag("2"))
    await space.round()
    # Nobody reads any more, and only one image was used: the shared blob stays for it, and the rest goes with its rows.
    assert await node.origin(first.digest) is None
    assert await node.pulls.find_blob(ALPINE, digest_of(own)) is None
    assert len(await node.locations()) == len(second.blobs)
    await upstream.stop()
    assert dict(await node.image(Tag("2"))) == dict(second.blobs)


async def test_rel_10_a_reader_of_purged_bytes_gets_them_to_the_end(node: CachingNode, upstream: FakeRegistry) -> None:
    layer = content_of(1)
    await pull(node, upstream, "1", layer)
    space = space_of(node)
    async with await node.open(digest_of(layer)) as content:
        pieces = content.read(0, len(layer))
        got = bytes(await anext(pieces))
        assert (await space.purge(ALPINE)).images == 1
        assert len(await node.locations()) == 1  # what is being read waits
        got += b"".join([bytes(piece) async for piece in pieces])
    assert got == layer
    await space.round()
    assert await node.locations() == []


async def test_rel_10_a_small_blob_is_not_taken_away_between_its_arrival_and_its_first_reader(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    """Room may be made as soon as the blob's row is there; whoever waited for the blob has not opened it yet."""
    image = upstream.add_image("library/alpine", "1", [b"small"])
    await node.manifest(Tag("1"))
    seen: list[bool] = []
    node.node.on_blob(lambda _: seen.append(node.node.readings.is_read(image.layers[0])))
    assert await node.blob(image.layers[0]) == b"small"
    assert seen == [True]
    assert not node.node.readings.is_read(image.layers[0])


# Damage


def flip(path: Path) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(MIB)
        byte = file.read(1)
        file.seek(MIB)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, MIB)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, delete])
async def test_rel_07_a_damaged_blob_of_a_cached_image_is_fetched_again(
    node: CachingNode, upstream: FakeRegistry, damage: Callable[[Path], None]
) -> None:
    layer = content_of(1)
    image = await pull(node, upstream, "1", layer)
    damage(file_of(node, image.layers[0]))
    assert await node.blob(image.layers[0]) == layer
    assert upstream.count("GET /v2/library/alpine/blobs/*") == len(image.blobs) + 1
    assert await node.blob(image.layers[0]) == layer
    assert upstream.count("GET /v2/library/alpine/blobs/*") == len(image.blobs) + 1


@pytest.mark.parametrize("damage", [flip, truncate, delete])
async def test_rel_07_a_damaged_blob_is_an_error_and_never_wrong_bytes_while_the_upstream_is_down(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock, damage: Callable[[Path], None]
) -> None:
    layer = content_of(1)
    image = await pull(node, upstream, "1", layer)
    await upstream.stop()
    damage(file_of(node, image.layers[0]))
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable):
            await node.blob(image.layers[0])


def damage_manifest(node: CachingNode, digest: Digest) -> None:
    """Flip a bit of a manifest in the database behind the node's back, and have the node forget what it remembers."""
    with contextlib.closing(sqlite3.connect(node.directory / "metadata.db")) as database:
        [[content]] = database.execute("SELECT content FROM manifests WHERE digest = ?", [digest])
        damaged = bytearray(content)
        damaged[content.index(b"sha256:") + 10] ^= 1
        database.execute("UPDATE manifests SET content = ? WHERE digest = ?", [bytes(damaged), digest])
        database.commit()
    node.node.manifest_index.clear()


async def test_rel_07_a_damaged_manifest_of_a_cached_image_is_fetched_again(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    image = await pull(node, upstream, "1", b"layer")
    for reference in (Tag("1"), image.digest):
        damage_manifest(node, image.digest)
        asked = upstream.count("GET */manifests/*")
        for _ in range(2):
            assert (await node.manifest(reference)).content == image.manifest
        assert upstream.count("GET */manifests/*") == asked + 1
    await upstream.stop()
    node.node.manifest_index.clear()
    assert (await node.manifest(image.digest)).content == image.manifest
    damage_manifest(node, image.digest)
    with pytest.raises(UpstreamUnavailable):
        await node.manifest(image.digest)


async def test_rel_07_a_damaged_manifest_that_was_pushed_is_missing_until_it_is_pushed_again(
    node: CachingNode,
) -> None:
    image = build_image([b"pushed"])
    await node.push(image, Tag("1"), OWN)
    damage_manifest(node, image.digest)
    for reference in (Tag("1"), image.digest):
        with pytest.raises(ManifestNotFound):
            await node.manifest(reference, OWN)
    await node.push(image, Tag("1"), OWN)
    for reference in (Tag("1"), image.digest):
        assert (await node.manifest(reference, OWN)).content == image.manifest


async def test_rel_07_what_a_crash_left_without_a_row_is_reclaimed(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = await pull(node, upstream, "1", content_of(1))
    ingest = await node.node.store.create_ingest("crashed")
    await ingest.write(b"bytes that never got their row")
    stray = await ingest.commit(digest_of(b"bytes that never got their row"))
    strays = StrayBytes(node.node, "node")
    suspects = await strays.find()
    assert suspects == [stray.location]
    # One that gets its row before the second look was only young.
    young = await node.node.store.create_ingest("young")
    await young.write(b"young")
    blob = await young.commit(digest_of(b"young"))
    suspects = await strays.find()
    assert set(suspects) == {stray.location, blob.location}
    await node.uploads.put_blob(UNRESTRICTED, OWN, blob.digest, chunks_of(b"young"))
    assert GRACE >= 600
    assert await strays.remove(suspects) == 2
    assert await strays.find() == []
    for digest, wanted in image.blobs.items():
        assert await node.blob(digest) == wanted
    assert await node.blob(blob.digest, OWN) == b"young"


# A full disk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system of 24 MiB."""
    with mounted_disk(24 * MIB) as directory:
        yield directory


@asynccontextmanager
async def node_on(
    disk: Path, upstream: FakeRegistry, clock: FakeClock
) -> AsyncIterator[tuple[CachingNode, CacheSpace]]:
    """Open a node on a disk, with its cache asked for room as in the daemon."""
    async with caching_node(disk, {"hub": upstream}, clock) as node:
        ballast = BallastFile(disk / "ballast", MIB)
        space = CacheSpace(node.node, (HUB,), node.cache.uses, ballast=ballast)
        node.node.store.on_full(space.make_room)
        assert isinstance(node.node.database, SqliteDatabase)
        node.node.database.on_full(space.make_room)
        assert await ballast.make()
        yield node, space
        await space.close()


async def fill_with_images(node: CachingNode, upstream: FakeRegistry, clock: FakeClock) -> list[BuiltImage]:
    """Cache images of 2 MiB until hardly anything is free; each is used a minute after the one before."""
    found: list[BuiltImage] = []
    while (await node.node.store.usage()).free_bytes > 3 * MIB:
        found.append(await pull(node, upstream, str(len(found)), content_of(len(found))))
        clock.advance(60)
    assert len(found) >= 5
    return found


async def test_rel_04_a_push_larger_than_what_is_free_succeeds_because_cached_content_goes(
    small_disk: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with node_on(small_disk, upstream, clock) as (node, space):
        images = await fill_with_images(node, upstream, clock)
        await space.pin(ALPINE, images[0].digest)
        clock.advance(JUST_USED)
        await node.manifest(Tag("1"))
        pushed = content_of(99, 8 * MIB)
        await node.uploads.put_blob(UNRESTRICTED, OWN, digest_of(pushed), chunks_of_mib(pushed))
        assert await node.blob(digest_of(pushed), OWN) == pushed
        left = [await node.origin(image.digest) is not None for image in images]
        assert left[:3] == [True, True, False], "the longest unused goes, what is pinned or was just used stays"
        assert node.ingests == []
        for image, is_left in zip(images, left, strict=True):
            for digest, wanted in image.blobs.items():
                if is_left:
                    assert await node.blob(digest) == wanted
        assert (small_disk / "ballast").exists()


async def test_rel_04_a_fill_finds_room_too(small_disk: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    async with node_on(small_disk, upstream, clock) as (node, _):
        await fill_with_images(node, upstream, clock)
        clock.advance(JUST_USED)
        large = content_of(99, 8 * MIB)
        image = await pull(node, upstream, "large", large)
        await upstream.stop()
        assert await node.blob(image.layers[0]) == large


async def test_rel_05_with_everything_pinned_a_push_is_refused_and_the_rest_goes_on(
    small_disk: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with node_on(small_disk, upstream, clock) as (node, space):
        images = await fill_with_images(node, upstream, clock)
        for image in images:
            await space.pin(ALPINE, image.digest)
        clock.advance(JUST_USED)
        pushed = content_of(99, 8 * MIB)
        with pytest.raises(StorageFull):
            await node.uploads.put_blob(UNRESTRICTED, OWN, digest_of(pushed), chunks_of_mib(pushed))
        assert node.ingests == []
        for image in images:
            for digest, wanted in image.blobs.items():
                assert await node.blob(digest) == wanted
        # One pin less, and there is room again.
        for image in images[:4]:
            await space.unpin(ALPINE, image.digest)
        await space.round()  # as every minute: what the last try needed of the disk is kept free again
        await node.uploads.put_blob(UNRESTRICTED, OWN, digest_of(pushed), chunks_of_mib(pushed))
        assert await node.blob(digest_of(pushed), OWN) == pushed


async def test_rel_04_rows_find_room_on_a_disk_that_is_full_to_the_last_byte(
    small_disk: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with node_on(small_disk, upstream, clock) as (node, _):
        images = await fill_with_images(node, upstream, clock)
        clock.advance(JUST_USED)
        with (small_disk / "of-somebody-else").open("wb", buffering=0) as file:
            free = os.statvfs(small_disk)
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        content = content_of(50, 300_000)
        for number in range(40):
            one = content + bytes([number])
            await node.uploads.put_blob(UNRESTRICTED, OWN, digest_of(one), chunks_of(one))
        assert await node.origin(images[0].digest) is None


async def test_a_database_that_fails_makes_no_room(node: CachingNode, upstream: FakeRegistry, clock: FakeClock) -> None:
    await pull(node, upstream, "1", content_of(1))
    clock.advance(JUST_USED + 1)
    space = space_of(node)

    async def broken(_: object) -> object:
        raise StorageError("the database is broken")

    write = node.node.database.write
    node.node.database.write = broken  # type: ignore[method-assign, assignment]
    assert not await space.make_room()
    node.node.database.write = write  # type: ignore[method-assign]
    assert await space.make_room()
    assert await node.locations() == []
    assert not await space.make_room()


async def test_what_a_failed_download_left_goes_before_anything_that_is_whole(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = await pull(node, upstream, "1", content_of(1))
    clock.advance(JUST_USED + 1)
    parts = [100, 0]

    async def drop_parts() -> int:
        return parts.pop(0)

    space = CacheSpace(node.node, (HUB,), node.cache.uses, drop_parts=drop_parts)
    assert await space.make_room()
    assert await node.origin(image.digest) is not None
    assert await space.make_room()
    assert await node.origin(image.digest) is None


async def chunks_of_mib(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), MIB):
        yield content[start : start + MIB]
