"""A fill: one download, many readers, nothing unverified complete."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import (
    RangeNotSatisfiable,
    ReplicatorError,
    ShuttingDown,
    StorageFull,
    StorageUnavailable,
    UpstreamContent,
    UpstreamNotFound,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.storage.blobs.port import StorageUsage
from replicator.transfer.fill_content import HELD_BACK
from replicator.transfer.fill_source import FillLimits, FillSource
from tests.support.blob_source import ScriptedBlob, lost
from tests.support.blob_stores import open_files_below
from tests.support.clock import FakeClock
from tests.support.fills import CONTENT, DIGEST, HUB, SIZE, Bench, Reader, gathered, opened, pull, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from replicator.storage.blobs.port import StoredBlob


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
async def bench(volume: MemoryVolume) -> AsyncIterator[Bench]:
    async with opened(MemoryBlobStore(volume)) as bench:
        yield bench
    assert not volume.ingests


async def test_a_blob_arrives_in_the_store_and_at_its_reader(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    assert await pull(bench.start(blob)) == CONTENT
    await bench.fills.idle()
    (stored,) = bench.published
    assert await read_all(await bench.store.read_blob(stored)) == CONTENT
    assert blob.opened == [0]
    assert bench.received == SIZE


async def test_first_bytes_go_out_as_soon_as_they_arrive(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.hold_at(1)
    reader = Reader(bench.start(blob))
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.run())
        await reader.has(1)
        assert bytes(reader.got) == CONTENT[:1]
        blob.allow(2)
        await reader.has(2)
        blob.allow()
    assert bytes(reader.got) == CONTENT


async def test_last_bytes_are_held_back_until_the_blob_is_published(volume: MemoryVolume) -> None:
    published = asyncio.Event()
    store = MemoryBlobStore(volume)
    async with opened(store) as bench:

        async def publish(blob: StoredBlob) -> StoredBlob:
            await published.wait()
            return blob

        blob = ScriptedBlob(CONTENT)
        blob.hold_at(SIZE - 1)
        reader = Reader(bench.fills.start(HUB, DIGEST, FillSource((blob.open_from,), None, lambda _: None), publish))
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.run())
            await reader.has(SIZE - HELD_BACK)
            blob.allow()
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(reader.got) == SIZE - HELD_BACK
            published.set()
        assert bytes(reader.got) == CONTENT


async def test_wrong_content_never_reaches_a_reader_whole(bench: Bench) -> None:
    damaged = bytearray(CONTENT)
    damaged[10] ^= 1
    reader = Reader(bench.start(ScriptedBlob(bytes(damaged))))
    with pytest.raises(UpstreamContent):
        await reader.run()
    assert len(reader.got) < SIZE
    await bench.fills.idle()
    assert await bench.locations() == []
    assert bench.published == []


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 1000), (100, HELD_BACK), (1000, 2 * HELD_BACK), (SIZE - 1, 1)]
)
async def test_a_part_of_wrong_content_is_not_complete_either(bench: Bench, start: int, length: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[-1] ^= 1
    reader = Reader(bench.start(ScriptedBlob(bytes(damaged))), start, length)
    with pytest.raises(UpstreamContent):
        await reader.run()
    assert len(reader.got) < length


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 1), (1, 2), (HELD_BACK - 1, 2), (1000, 3 * HELD_BACK), (SIZE - HELD_BACK, HELD_BACK), (SIZE - 1, 1), (7, 0)],
)
async def test_any_part_can_be_read_from_a_blob_that_arrives(bench: Bench, start: int, length: int) -> None:
    fill = bench.start(ScriptedBlob(CONTENT))
    assert await pull(fill, start, length) == CONTENT[start : start + length]


async def test_a_part_outside_the_blob_is_refused(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.hold_at(1)
    content = await bench.start(blob).open()
    with pytest.raises(RangeNotSatisfiable):
        await read_all(content, SIZE, 1)


async def test_a_small_blob_that_is_wrong_is_refused_before_any_byte(bench: Bench) -> None:
    with pytest.raises(UpstreamContent):
        await bench.start(ScriptedBlob(b"other"), digest=digest_of(b"right")).open()


async def test_empty_blob(bench: Bench) -> None:
    fill = bench.start(ScriptedBlob(b""), digest=digest_of(b""))
    content = await fill.open()
    assert content.size == 0
    assert await read_all(content) == b""
    assert len(bench.published) == 1


async def test_blob_of_unknown_size_is_answered_when_it_is_whole(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT, states_size=False)
    blob.hold_at(SIZE - 1)
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(bench.start(blob).open())
        await blob.held()
        assert not opening.done()
        blob.allow()
    content = opening.result()
    assert content.size == SIZE
    assert await read_all(content) == CONTENT


async def test_size_of_the_manifest_serves_where_the_upstream_states_none(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT, states_size=False)
    blob.hold_at(1)
    reader = Reader(bench.start(blob, size=SIZE))
    async with asyncio.TaskGroup() as group:
        group.create_task(reader.run())
        await reader.has(1)
        blob.allow()
    assert bytes(reader.got) == CONTENT


async def test_fifty_readers_cost_one_download(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.hold_at(1)
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(pull(bench.start(blob), at, SIZE - at)) for at in range(0, 50_000, 1000)]
        await blob.held()
        blob.allow()
    for at, reader in zip(range(0, 50_000, 1000), readers, strict=True):
        assert reader.result() == CONTENT[at:]
    assert blob.opened == [0]
    assert bench.received == SIZE


async def test_every_waiter_gets_the_failure(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.refusals = [UpstreamNotFound("no such blob")]
    fill = bench.start(blob)
    results = await gathered(*(pull(fill) for _ in range(20)))
    assert [type(result) for result in results] == [UpstreamNotFound] * 20
    assert len({id(result) for result in results}) == 20


async def test_readers_under_way_get_the_failure_too(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {at: lost() for at in range(2000, 2010)}
    readers = [Reader(bench.start(blob)) for _ in range(10)]
    results = await gathered(*(reader.run() for reader in readers))
    assert [type(result) for result in results] == [UpstreamUnavailable] * 10
    assert all(0 < len(reader.got) <= 2003 for reader in readers)
    assert await bench.locations() == []


async def test_after_a_failure_the_next_reader_starts_a_new_fill(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.refusals = [UpstreamUnavailable("down")]
    failed = bench.start(blob)
    with pytest.raises(UpstreamUnavailable):
        await failed.open()
    # At once: not a turn of the loop later.
    again = bench.start(blob)
    assert again is not failed
    assert await pull(again) == CONTENT


async def test_a_reader_that_leaves_changes_nothing(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.hold_at(HELD_BACK)
    fill = bench.start(blob)
    leaving, staying = Reader(fill), Reader(fill)
    async with asyncio.TaskGroup() as group:
        left = group.create_task(leaving.run())
        group.create_task(staying.run())
        await leaving.has(HELD_BACK)
        left.cancel()
        blob.allow()
    assert bytes(staying.got) == CONTENT
    assert blob.opened == [0]


async def test_fill_is_completed_when_every_reader_has_left(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.hold_at(1)
    reader = Reader(bench.start(blob))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reader.run())
        await reader.has(1)
        task.cancel()
    blob.allow()
    await bench.fills.idle()
    assert await read_all(await bench.store.read_blob(bench.published[0])) == CONTENT


async def test_a_slow_reader_slows_nobody(bench: Bench) -> None:
    fill = bench.start(ScriptedBlob(CONTENT))
    slow = await fill.open()
    pieces = slow.read(0, SIZE)
    first = bytes(await anext(pieces))
    assert await pull(fill) == CONTENT
    await bench.fills.idle()
    rest = b"".join([bytes(piece) async for piece in pieces])
    assert first + rest == CONTENT
    await slow.__aexit__(None, None, None)


async def test_broken_connection_is_resumed_where_it_broke(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {2500: lost(), 7000: UpstreamTimeout("stalled"), 7001: UpstreamContent("short")}
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [0, 2500, 7000, 7001]
    assert bench.received == SIZE


async def test_connection_that_breaks_after_the_last_byte_costs_nothing(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {SIZE: lost()}
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [0]


async def test_upstream_without_ranges_is_read_again_from_its_beginning(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.serves_ranges = False
    blob.breaks = {2500: lost()}
    assert await pull(bench.start(blob)) == CONTENT
    assert bench.received == SIZE + 2500


async def test_what_is_resumed_is_verified_over_the_whole(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {2500: lost()}
    # Between two connections the upstream's blob becomes another one.
    blob.at_chunk = lambda at: setattr(blob, "content", CONTENT if at < 2500 else bytes(SIZE))
    with pytest.raises(UpstreamContent):
        await pull(bench.start(blob))
    assert await bench.locations() == []


async def test_number_of_tries_is_limited_while_there_is_no_progress(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {1000 + at: lost() for at in range(10)}
    with pytest.raises(UpstreamUnavailable):
        await pull(bench.start(blob))
    assert len(blob.opened) == 4
    assert bench.clock.slept == [0.125, 0.25, 0.5]


async def test_progress_makes_tries_count_anew(volume: MemoryVolume) -> None:
    size = 8 * 1024 * 1024
    content = bytes(size)
    blob = ScriptedBlob(content, chunk=65536)
    blob.breaks = {at: lost() for at in range(1024 * 1024, size, 1024 * 1024)}
    async with opened(MemoryBlobStore(volume)) as bench:
        assert await pull(bench.start(blob, digest=digest_of(content))) == content
    assert len(blob.opened) == 8


async def test_refused_upstream_fails_at_once(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.refusals = [UpstreamUnavailable("refused"), UpstreamUnavailable("refused")]
    with pytest.raises(UpstreamUnavailable):
        await bench.start(blob).open()
    assert blob.opened == [0]
    assert bench.clock.slept == []


@pytest.mark.parametrize(("asked", "slept"), [(7.0, [7.0]), (600.0, [])])
async def test_a_pause_the_upstream_asks_for_is_kept_or_the_fill_given_up(
    bench: Bench, asked: float, slept: list[float]
) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {1000: UpstreamThrottled("slow down", retry_after=asked)}
    result = (await gathered(pull(bench.start(blob))))[0]
    assert bench.clock.slept == slept
    assert result == CONTENT if slept else isinstance(result, UpstreamThrottled)
    if not slept:
        assert isinstance(result, UpstreamThrottled)
        assert result.retry_after == asked


@pytest.mark.parametrize("stated", [SIZE + 1, SIZE - 1])
async def test_wrong_length_is_refused(bench: Bench, stated: int) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.stated = stated
    with pytest.raises(UpstreamContent):
        await pull(bench.start(blob))
    assert await bench.locations() == []


async def test_other_size_than_the_manifests_is_refused_before_any_byte_is_received(bench: Bench) -> None:
    with pytest.raises(UpstreamContent):
        await pull(bench.start(ScriptedBlob(CONTENT), size=SIZE + 1))
    assert bench.received == 0


async def test_unannounced_length_is_bounded(volume: MemoryVolume) -> None:
    async with opened(MemoryBlobStore(volume), limits=FillLimits(max_blob_size=5000)) as bench:
        with pytest.raises(UpstreamContent):
            await pull(bench.start(ScriptedBlob(CONTENT, states_size=False)))
        assert bench.received < 7000
        with pytest.raises(UpstreamContent):
            await pull(bench.start(ScriptedBlob(CONTENT)))
        assert bench.received < 7000


@pytest.mark.parametrize("max_blob_size", [None, 10_000])
async def test_unannounced_length_is_bounded_without_any_other_limit(
    volume: MemoryVolume, max_blob_size: int | None
) -> None:
    limits = FillLimits(max_blob_size=max_blob_size, max_unstated=5000)
    async with opened(MemoryBlobStore(volume), limits=limits) as bench:
        with pytest.raises(UpstreamContent, match="longer than 5000 bytes"):
            await pull(bench.start(ScriptedBlob(CONTENT, states_size=False)))
        assert bench.received < 7000
    async with opened(MemoryBlobStore(volume), limits=FillLimits(max_unstated=5000)) as bench:
        assert await pull(bench.start(ScriptedBlob(CONTENT))) == CONTENT
        assert await pull(bench.start(ScriptedBlob(CONTENT, states_size=False), size=SIZE, upstream="other")) == CONTENT


@pytest.mark.parametrize("spare", [None, 0, 2**30])
async def test_a_blob_for_which_no_room_can_be_made_is_refused_before_any_byte_is_received(
    volume: MemoryVolume, spare: int | None
) -> None:
    volume.capacity = 2**31
    async with opened(MemoryBlobStore(volume), limits=FillLimits(kept_bytes=0)) as bench:
        bench.fills.spare = lambda: spare
        blob = ScriptedBlob(CONTENT)
        blob.stated = 2**31 + 1
        with pytest.raises(UpstreamContent, match=f"no more than {2**31} can be made free"):
            await pull(bench.start(blob))
        assert bench.received == 0


@pytest.mark.parametrize(("spare", "refused"), [(0, True), (2**30, True), (2**30 + 2**29, False)])
async def test_what_the_cache_can_give_up_counts_as_room(volume: MemoryVolume, spare: int, refused: bool) -> None:
    volume.capacity = 2**31
    async with opened(MemoryBlobStore(volume), limits=FillLimits(kept_bytes=0)) as bench:
        bench.fills.spare = lambda: spare
        bench.store.usage = _mostly_full  # type: ignore[method-assign]
        blob = ScriptedBlob(CONTENT)
        blob.stated = 3 * 2**29
        with pytest.raises(UpstreamContent) as failed:
            await pull(bench.start(blob))
        assert ("can be made free" in str(failed.value)) is refused


async def _mostly_full() -> StorageUsage:
    return StorageUsage(2**31, 2**20)


async def test_a_fill_that_takes_too_long_altogether_ends(volume: MemoryVolume) -> None:
    clock = FakeClock()
    async with opened(MemoryBlobStore(volume), limits=FillLimits(total=100.0), clock=clock) as bench:
        blob = ScriptedBlob(CONTENT)
        blob.at_chunk = lambda _: clock.advance(30.0)
        with pytest.raises(UpstreamTimeout):
            await pull(bench.start(blob))
        assert blob.opened == [0]


async def test_broken_store_costs_no_upstream_traffic(volume: MemoryVolume) -> None:
    store = MemoryBlobStore(volume)
    await store.open()
    bench = Bench(store)
    await store.close()
    blob = ScriptedBlob(CONTENT)
    with pytest.raises(StorageUnavailable):
        await bench.start(blob).open()
    assert blob.opened == []
    await bench.fills.close()


async def test_full_store_is_every_readers_failure(volume: MemoryVolume) -> None:
    volume.capacity = 3000
    async with opened(MemoryBlobStore(volume)) as bench:
        fill = bench.start(ScriptedBlob(CONTENT))
        assert [type(result) for result in await gathered(pull(fill), pull(fill))] == [StorageFull, StorageFull]
    assert volume.free == 3000


async def test_failure_to_publish_is_every_readers_failure(bench: Bench) -> None:
    async def publish(_: StoredBlob) -> StoredBlob:
        raise StorageUnavailable("no database")

    source = FillSource((ScriptedBlob(CONTENT).open_from,), None, lambda _: None)
    reader = Reader(bench.fills.start(HUB, DIGEST, source, publish))
    with pytest.raises(StorageUnavailable):
        await reader.run()
    assert len(reader.got) < SIZE


async def test_copy_that_was_published_first_is_the_one_that_is_read(bench: Bench) -> None:
    ingest = await bench.store.create_ingest("other")
    await ingest.write(CONTENT)
    first = await ingest.commit(DIGEST)

    async def publish(blob: StoredBlob) -> StoredBlob:
        await bench.store.delete_blob(blob.location)
        return first

    source = FillSource((ScriptedBlob(CONTENT).open_from,), None, lambda _: None)
    assert await pull(bench.fills.start(HUB, DIGEST, source, publish)) == CONTENT


async def test_closing_ends_the_fills_and_tells_the_readers(bench: Bench) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.hold_at(HELD_BACK)
    reader, opening = Reader(bench.start(blob)), bench.start(blob)
    async with asyncio.TaskGroup() as group:
        results = group.create_task(gathered(reader.run(), pull(opening)))
        await reader.has(HELD_BACK)
        await bench.fills.close()
    assert [type(result) for result in results.result()] == [ShuttingDown, ShuttingDown]
    assert blob.open == 0
    with pytest.raises(ShuttingDown):
        bench.start(blob)


async def test_a_fault_of_ours_still_settles_every_reader(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    blob = ScriptedBlob(CONTENT)

    def fault(_: int) -> None:
        raise ZeroDivisionError

    blob.at_chunk = fault
    with pytest.raises(ReplicatorError):
        await pull(bench.start(blob))
    await bench.fills.idle()
    assert "fill ended by a fault of ours" in caplog.text
    assert await bench.locations() == []


def points() -> list[str]:
    return ["opening", "first chunk", "later chunk", "pause", "publishing"]


@pytest.mark.parametrize("point", points())
async def test_cancelled_anywhere_a_fill_leaves_no_ingest_no_task_and_no_open_file(point: str, tmp_path: Path) -> None:
    clock, reached = FakeClock(), asyncio.Event()
    store = FilesystemBlobStore(tmp_path / "blobs")
    async with opened(store, clock=clock) as bench:
        blob, publish = stuck_at(point, bench, reached)
        fill = bench.fills.start(HUB, DIGEST, FillSource((blob.open_from,), None, lambda _: None), publish)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(gathered(pull(fill)))
            if point == "pause":
                await clock.sleepers(1)
            else:
                await reached.wait()
            await bench.fills.close()
        assert isinstance(reading.result()[0], ShuttingDown)
        assert len(bench.fills) == 0
        assert blob.open == 0
        assert list((tmp_path / "blobs" / "ingest").iterdir()) == []
        assert open_files_below(tmp_path / "blobs") == []


def stuck_at(
    point: str, bench: Bench, reached: asyncio.Event
) -> tuple[ScriptedBlob, Callable[[StoredBlob], Awaitable[StoredBlob]]]:
    """Return a blob and a publication of which one never goes on from the point."""
    blob = ScriptedBlob(CONTENT)

    async def publish(stored: StoredBlob) -> StoredBlob:
        reached.set()
        await asyncio.Event().wait()
        return stored

    def hold(at: int) -> None:
        if at >= (0 if point == "first chunk" else 5000):
            reached.set()
            blob.hold_at(at)

    if point == "opening":
        real = blob.open_from

        @contextlib.asynccontextmanager
        async def never(_: int) -> AsyncIterator[object]:
            reached.set()
            await asyncio.Event().wait()
            yield real

        blob.open_from = never  # type: ignore[assignment,method-assign]
    elif point == "pause":
        blob.breaks = {1000: lost()}
    elif point != "publishing":
        blob.at_chunk = hold
    return blob, publish


async def test_bytes_survive_the_store_in_files(tmp_path: Path) -> None:
    content = CONTENT * 20
    async with opened(FilesystemBlobStore(tmp_path / "blobs")) as bench:
        blob = ScriptedBlob(content, chunk=100_000)
        blob.breaks = {1_000_001: lost()}
        fill = bench.start(blob, digest=digest_of(content))
        results = await gathered(*(pull(fill, at) for at in range(0, len(content), 500_000)))
        for at, result in zip(range(0, len(content), 500_000), results, strict=True):
            assert result == content[at:]
