"""A fill over several registries: it goes on elsewhere at once, and bytes that do not belong together are noticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import (
    ReplicatorError,
    UpstreamContent,
    UpstreamDenied,
    UpstreamNotFound,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.transfer.fill_content import HELD_BACK
from tests.support.blob_source import ScriptedBlob, lost
from tests.support.fills import CONTENT, SIZE, Bench, Reader, gathered, opened, pull, read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

WRONG = bytes(SIZE)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    volume = MemoryVolume()
    async with opened(MemoryBlobStore(volume)) as bench:
        yield bench
    assert not volume.ingests


@pytest.fixture
def mirror() -> ScriptedBlob:
    return ScriptedBlob(CONTENT)


@pytest.fixture
def authority() -> ScriptedBlob:
    return ScriptedBlob(CONTENT)


async def test_transfer_that_breaks_goes_on_at_the_next_registry_without_a_pause(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.breaks = {100_000: lost()}
    assert await pull(bench.start(mirror, authority)) == CONTENT
    assert (mirror.opened, authority.opened) == ([0], [100_000])
    assert bench.clock.slept == []
    assert bench.received == SIZE


async def test_pause_comes_only_after_every_registry_was_tried(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.breaks = {100_000: lost()}
    authority.breaks = {100_001: UpstreamTimeout("stalled")}
    assert await pull(bench.start(mirror, authority)) == CONTENT
    assert (mirror.opened, authority.opened) == ([0, 100_001], [100_000])
    assert bench.clock.slept == [0.125]


@pytest.mark.parametrize(
    "refusal", [UpstreamNotFound("no"), UpstreamDenied("no"), UpstreamUnavailable("down"), UpstreamContent("odd")]
)
async def test_mirror_that_does_not_send_is_passed_over(
    refusal: ReplicatorError, bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.refusals = [refusal]
    assert await pull(bench.start(mirror, authority)) == CONTENT
    assert (mirror.opened, authority.opened) == ([0], [0])


async def test_mirror_that_said_no_is_not_asked_again(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.refusals = [UpstreamNotFound("no")]
    authority.breaks = {1000: lost(), 2000: lost()}
    assert await pull(bench.start(mirror, authority)) == CONTENT
    assert (mirror.opened, authority.opened) == ([0], [0, 1000, 2000])


async def test_what_the_authority_does_not_have_is_the_end(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.breaks = {100_000: lost()}
    authority.refusals = [UpstreamNotFound("no such blob")]
    with pytest.raises(UpstreamNotFound):
        await pull(bench.start(mirror, authority))
    assert (mirror.opened, authority.opened) == ([0], [100_000])


async def test_authority_that_refuses_does_not_end_what_a_mirror_sends(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.breaks = {100_000: lost()}
    authority.refusals = [UpstreamDenied("no")]
    assert await pull(bench.start(mirror, authority)) == CONTENT
    assert (mirror.opened, authority.opened) == ([0, 100_000], [100_000])


async def test_failure_of_the_authority_is_the_failure_of_all(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.refusals = [UpstreamNotFound("no")]
    authority.refusals = [UpstreamThrottled("slow down", retry_after=9.0)]
    (result,) = await gathered(pull(bench.start(mirror, authority)))
    assert isinstance(result, UpstreamThrottled)
    assert result.retry_after == 9.0


async def test_mirror_that_announces_another_size_than_the_manifest_is_passed_over(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.stated = SIZE + 1
    assert await pull(bench.start(mirror, authority, size=SIZE)) == CONTENT
    assert bench.received == SIZE


@pytest.mark.parametrize("size", [None, SIZE])
async def test_wrong_content_of_a_mirror_is_fetched_anew_from_the_authority_alone(
    size: int | None, bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.content = WRONG
    fill = bench.start(mirror, authority, size=size)
    await bench.fills.idle()
    assert await pull(fill) == CONTENT
    assert (mirror.opened, authority.opened) == ([0], [0])
    assert len(await bench.locations()) == 1


async def test_mixture_of_registries_that_is_wrong_is_fetched_anew(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.content = WRONG
    mirror.breaks = {100_000: lost()}
    fill = bench.start(mirror, authority)
    await bench.fills.idle()
    assert await pull(fill) == CONTENT
    assert authority.opened == [100_000, 0]


async def test_reader_of_wrong_bytes_fails_and_one_that_got_none_gets_the_right_ones(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.content = WRONG
    mirror.hold_at(HELD_BACK)
    fill = bench.start(mirror, authority)
    early, late = Reader(fill), Reader(fill, SIZE - 1000)
    async with asyncio.TaskGroup() as group:
        results = group.create_task(gathered(early.run(), late.run()))
        await early.has(HELD_BACK)
        mirror.allow()
    assert isinstance(results.result()[0], UpstreamContent)
    assert bytes(early.got) == WRONG[: len(early.got)]
    assert len(early.got) < SIZE
    assert results.result()[1] is None
    assert bytes(late.got) == CONTENT[-1000:]


async def test_reader_that_was_told_another_size_never_gets_a_complete_answer(
    bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob
) -> None:
    mirror.content = WRONG[:-10]
    mirror.hold_at(0)
    fill = bench.start(mirror, authority)
    content = await fill.open()
    assert content.size == SIZE - 10
    mirror.allow()
    with pytest.raises(UpstreamContent):
        await read_all(content, SIZE - 1000, 500)
    await bench.fills.idle()
    assert await pull(fill) == CONTENT


async def test_authority_that_is_wrong_itself_is_asked_once(bench: Bench, authority: ScriptedBlob) -> None:
    authority.content = WRONG
    with pytest.raises(UpstreamContent):
        await pull(bench.start(authority))
    assert authority.opened == [0]


async def test_authority_that_changes_its_mind_is_asked_once_more(bench: Bench, authority: ScriptedBlob) -> None:
    authority.content = WRONG
    authority.breaks = {100_000: lost()}
    authority.at_chunk = lambda at: setattr(authority, "content", WRONG if len(authority.opened) == 1 else CONTENT)
    fill = bench.start(authority)
    await bench.fills.idle()
    assert await pull(fill) == CONTENT
    assert authority.opened == [0, 100_000, 0]


async def test_everything_wrong_everywhere_ends(bench: Bench, mirror: ScriptedBlob, authority: ScriptedBlob) -> None:
    mirror.content = authority.content = WRONG
    with pytest.raises(UpstreamContent):
        await pull(bench.start(mirror, authority))
    assert (mirror.opened, authority.opened) == ([0], [0])
    assert await bench.locations() == []
