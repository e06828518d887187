"""What a failed fill leaves behind: the next one goes on there, verified over the whole, within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import (
    StorageFull,
    UpstreamContent,
    UpstreamDenied,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.transfer.fill_source import FillLimits
from tests.support.blob_source import ScriptedBlob, lost
from tests.support.fills import CONTENT, SIZE, Bench, gathered, opened, pull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.errors import ReplicatorError

BROKE_AT = 200_000
LONG_PAUSE = UpstreamThrottled("come back tomorrow", retry_after=86_400.0)


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
async def bench(volume: MemoryVolume) -> AsyncIterator[Bench]:
    async with opened(MemoryBlobStore(volume)) as bench:
        yield bench
    assert not volume.ingests


async def fail(bench: Bench, content: bytes = CONTENT, at: int = BROKE_AT, *, upstream: str = "hub") -> None:
    """Let a fill fail after some bytes."""
    blob = ScriptedBlob(content)
    blob.breaks = {at: LONG_PAUSE}
    (result,) = await gathered(pull(bench.start(blob, digest=digest_of(content), upstream=upstream)))
    assert isinstance(result, UpstreamThrottled)


async def test_next_fill_goes_on_where_the_failed_one_stopped(bench: Bench) -> None:
    await fail(bench)
    blob = ScriptedBlob(CONTENT)
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [BROKE_AT]
    assert bench.received == SIZE
    assert bench.fills.kept_ingests() == set()


async def test_files_are_gone_on_with_too(tmp_path: Path) -> None:
    async with opened(FilesystemBlobStore(tmp_path / "blobs")) as bench:
        await fail(bench)
        blob = ScriptedBlob(CONTENT)
        assert await pull(bench.start(blob)) == CONTENT
        assert blob.opened == [BROKE_AT]
    assert list((tmp_path / "blobs" / "ingest").iterdir()) == []


async def test_wrong_bytes_of_before_are_dropped_and_the_blob_is_fetched_anew(bench: Bench) -> None:
    blob = ScriptedBlob(bytes(SIZE))
    blob.breaks = {BROKE_AT: LONG_PAUSE}
    await gathered(pull(bench.start(blob)))
    right = ScriptedBlob(CONTENT)
    fill = bench.start(right)
    await bench.fills.idle()
    assert await pull(fill) == CONTENT
    assert right.opened == [BROKE_AT, 0]


async def test_fetched_anew_once_only(bench: Bench) -> None:
    await fail(bench)
    wrong = ScriptedBlob(bytes(SIZE))
    with pytest.raises(UpstreamContent):
        await pull(bench.start(wrong))
    assert wrong.opened == [BROKE_AT, 0]
    assert bench.fills.kept_ingests() == set()


async def test_nothing_is_kept_for_another_upstream(bench: Bench) -> None:
    await fail(bench)
    blob = ScriptedBlob(CONTENT)
    assert await pull(bench.start(blob, upstream="elsewhere")) == CONTENT
    assert blob.opened == [0]


@pytest.mark.parametrize("failure", [UpstreamDenied("no"), StorageFull("full")])
async def test_failure_that_does_not_pass_leaves_nothing(
    failure: ReplicatorError, bench: Bench, volume: MemoryVolume
) -> None:
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {BROKE_AT: failure}
    (result,) = await gathered(pull(bench.start(blob)))
    assert type(result) is type(failure)
    assert not volume.ingests


async def test_a_few_bytes_are_not_kept(bench: Bench, volume: MemoryVolume) -> None:
    await fail(bench, at=1000)
    assert not volume.ingests


async def test_what_is_kept_grows_with_every_fill(bench: Bench, volume: MemoryVolume) -> None:
    await fail(bench, at=100_000)
    await fail(bench, at=BROKE_AT)
    assert [len(content) for content in volume.ingests.values()] == [BROKE_AT]
    blob = ScriptedBlob(CONTENT)
    blob.refusals = [UpstreamUnavailable("down")]
    await gathered(pull(bench.start(blob)))
    assert [len(content) for content in volume.ingests.values()] == [BROKE_AT]


def contents() -> list[bytes]:
    return [bytes([number]) * SIZE for number in range(4)]


@pytest.mark.parametrize("limits", [FillLimits(kept_count=2), FillLimits(kept_bytes=2 * BROKE_AT + 10)])
async def test_the_latest_are_kept(limits: FillLimits, volume: MemoryVolume) -> None:
    async with opened(MemoryBlobStore(volume), limits=limits) as bench:
        for content in contents():
            await fail(bench, content)
        assert sorted(bytes(kept[:1]) for kept in volume.ingests.values()) == [b"\2", b"\3"]
        assert bench.fills.kept_ingests() == set(volume.ingests)


async def test_what_is_old_is_not_gone_on_with(bench: Bench, volume: MemoryVolume) -> None:
    await fail(bench)
    assert len(bench.fills.kept_ingests()) == 1
    bench.clock.advance(FillLimits().kept_age)
    assert bench.fills.kept_ingests() == set()
    blob = ScriptedBlob(CONTENT)
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [0]
    assert not volume.ingests


async def test_what_is_old_goes_when_something_else_is_kept(bench: Bench, volume: MemoryVolume) -> None:
    await fail(bench, contents()[0])
    bench.clock.advance(FillLimits().kept_age)
    await fail(bench, contents()[1])
    assert [bytes(kept[:1]) for kept in volume.ingests.values()] == [b"\1"]


async def test_what_was_cleared_away_is_fetched_from_its_beginning(bench: Bench) -> None:
    await fail(bench)
    assert await bench.store.reclaim_ingests(()) == 1
    blob = ScriptedBlob(CONTENT)
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [0]


async def test_what_is_kept_is_spared_when_its_name_is(bench: Bench) -> None:
    await fail(bench)
    assert await bench.store.reclaim_ingests(bench.fills.kept_ingests()) == 0
    blob = ScriptedBlob(CONTENT)
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [BROKE_AT]


async def test_closing_drops_what_is_kept(volume: MemoryVolume) -> None:
    async with opened(MemoryBlobStore(volume)) as bench:
        await fail(bench)
        assert volume.ingests
    assert not volume.ingests


async def test_break_before_the_first_byte_of_a_second_fill_loses_nothing(bench: Bench) -> None:
    await fail(bench)
    blob = ScriptedBlob(CONTENT)
    blob.breaks = {BROKE_AT: lost()}
    assert await pull(bench.start(blob)) == CONTENT
    assert blob.opened == [BROKE_AT, BROKE_AT]
