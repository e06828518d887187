"""Blobs that peers send: stripes in any order, bounded memory, and going on after everything that can break."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.blob_parts import MIN_STRIPE, BlobPart, interleaved, whole_part
from replicator.core.digest import Digest, digest_of
from replicator.core.errors import (
    BlobTooLarge,
    DigestMismatch,
    InvalidUpload,
    ReplicationDenied,
    SizeMismatch,
    StorageFull,
    UploadOutOfOrder,
)
from replicator.core.names import AccountId, NodeId, RepositoryName, parse_node
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy
from replicator.registry.node import RegistryNode
from replicator.registry.peer_uploads import PeerUploads, upload_id
from replicator.registry.pulls import Pulls
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.storage.metadata import repositories
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from replicator.core.peer_messages import BlobProgress
    from replicator.storage.blobs.port import BlobStore

HERE = parse_node("111111111111/eu")
PEER = parse_node("111111111111/us")
STRANGER = parse_node("222222222222/us")
APP = RepositoryName("team/app")
STRIPE = MIN_STRIPE
EXPIRY = 3600.0
STEP = 50_000
"""Bytes that a connection brings at a time."""


def some_bytes(seed: int, size: int) -> bytes:
    """Return the same bytes for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - for a test


CONTENT = some_bytes(7, 10 * STRIPE + 321)
DIGEST = digest_of(CONTENT)
SIZE = len(CONTENT)


class Place:
    """A node with a store of its own that can be stopped, killed and started again."""

    def __init__(self, directory: Path, store: BlobStore, **options: object) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.store = store
        self.options = options
        self.settings = RegistrySettings(HERE, upload_expiry=EXPIRY)

    async def start(self, store: BlobStore | None = None) -> None:
        self.store = store or self.store
        self.database = SqliteDatabase(self.directory / "metadata.db")
        await self.database.open()
        await self.store.open()
        node = RegistryNode(self.settings, self.database, self.store, self.clock)
        self.uploads = PeerUploads(node, **self.options)  # type: ignore[arg-type]
        self.pulls, self.sessions = Pulls(node), Uploads(node)
        await self.sessions.reclaim()

    async def stop(self) -> None:
        await self.store.close()
        await self.database.close()

    async def receive(
        self, part: BlobPart, sent: bytes | AsyncIterator[bytes], *, digest: Digest = DIGEST, size: int = SIZE
    ) -> BlobProgress:
        chunks = stream(sent) if isinstance(sent, bytes) else sent
        return await self.uploads.receive(PEER, APP, digest, size, part, chunks)

    async def offset(self, digest: Digest = DIGEST) -> int:
        return await self.uploads.offset_of(PEER, APP, digest)

    async def held(self, digest: Digest = DIGEST) -> bytes | None:
        blob = await self.pulls.find_blob(APP, digest)
        if blob is None:
            return None
        async with await self.pulls.read(blob) as content:
            return b"".join([bytes(piece) async for piece in content.read(0, content.size)])


@contextlib.asynccontextmanager
async def started(directory: Path, store: BlobStore | None = None, **options: object) -> AsyncIterator[Place]:
    place = Place(directory, store or FilesystemBlobStore(directory / "blobs"), **options)
    await place.start()
    try:
        yield place
    finally:
        await place.stop()


def cut(part: BlobPart, content: bytes = CONTENT) -> bytes:
    """Return the bytes of a part as a connection carries them."""
    return b"".join(content[place.start : place.stop] for place in part.ranges())


async def stream(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), STEP):
        yield content[start : start + STEP]


async def broken(content: bytes) -> AsyncIterator[bytes]:
    async for chunk in stream(content):
        yield chunk
    raise ConnectionResetError


class Held:
    """A connection that sends `first` bytes, and the rest once it may."""

    def __init__(self, content: bytes, first: int = 0) -> None:
        self.read = 0
        self.is_waiting = False
        self.may_go_on = asyncio.Event()
        self._content = content
        self._first = first

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._counted(self._content[: self._first]):
            yield chunk
        self.is_waiting = True
        await self.may_go_on.wait()
        async for chunk in self._counted(self._content[self._first :]):
            yield chunk

    async def _counted(self, content: bytes) -> AsyncIterator[bytes]:
        async for chunk in stream(content):
            self.read += len(chunk)
            yield chunk


async def until(question: Callable[[], bool]) -> None:
    """Let everything go on until the answer is yes."""
    async with asyncio.timeout(10):
        while not question():  # noqa: ASYNC110 - everything that can go on is given its turn
            await asyncio.sleep(0)


@given(st.data())
@settings(max_examples=40, deadline=None)
async def test_parts_make_the_blob_in_whatever_order_their_bytes_come(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Also when some come twice, and when the window holds hardly anything."""
    count, begun = data.draw(st.integers(1, 5)), data.draw(st.integers(0, SIZE))
    window = data.draw(st.sampled_from([0, STRIPE, 3 * STRIPE, 10**9]))
    dice = random.Random(data.draw(st.integers(0, 2**32)))  # noqa: S311 - for a test
    parts = list(interleaved(begun, SIZE, count, STRIPE)) or [whole_part(begun, SIZE)]
    parts += dice.sample(parts, data.draw(st.integers(0, len(parts))))
    dice.shuffle(parts)

    async def dripping(content: bytes) -> AsyncIterator[bytes]:
        rest = memoryview(content)
        while rest:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            size = dice.randrange(1, 2 * STRIPE)
            yield bytes(rest[:size])
            rest = rest[size:]

    directory = tmp_path_factory.mktemp("node")
    async with started(directory, MemoryBlobStore(MemoryVolume()), window=window) as place:
        if begun:
            await place.receive(whole_part(0, begun), CONTENT[:begun])
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            answers = [group.create_task(place.receive(part, dripping(cut(part)))) for part in parts]
        assert any(answer.result().is_complete for answer in answers)
        assert await place.held() == CONTENT
        assert place.uploads.held_back == 0
        assert place.store.volume.ingests == {}  # type: ignore[attr-defined]


def test_interleaved_parts_are_the_rest_and_nothing_twice() -> None:
    for start, size, count in ((0, SIZE, 4), (0, 1, 4), (5, STRIPE + 5, 2), (7, 9 * STRIPE, 3), (SIZE, SIZE, 4)):
        parts = interleaved(start, size, count, STRIPE)
        places = sorted((place.start, place.stop) for part in parts for place in part.ranges())
        assert [one for one, _ in places] == [start, *(stop for _, stop in places)][: len(places)]
        assert sum(part.length for part in parts) == size - start
        assert max((part.stop for part in parts), default=size) == size


@given(
    st.integers(0, 9 * STRIPE), st.integers(1, 5), st.sampled_from([STRIPE, STRIPE + 7]), st.integers(0, 10 * STRIPE)
)
def test_what_is_left_of_a_part_is_all_that_is_missing(start: int, count: int, stripe: int, frontier: int) -> None:
    """And no more than a stripe of it goes twice."""
    size = 9 * STRIPE + 5
    for part in (*interleaved(start, size, count, stripe), whole_part(start, size)):
        missing = {(max(place.start, frontier), place.stop) for place in part.ranges() if place.stop > frontier}
        rest = part.rest_from(frontier)
        if rest is None:
            assert not missing
            continue
        assert rest.start <= frontier
        assert {(max(place.start, frontier), place.stop) for place in rest.ranges()} == missing
        twice = rest.length - sum(stop - begin for begin, stop in missing)
        assert 0 <= twice < (stripe if part.step else 1)


@pytest.mark.parametrize(
    "numbers",
    [(-1, 0, 1), (0, -1, 1), (0, 0, -1), (5, 0, 1), (0, 0, 9, 1, 1), (0, 0, 9, STRIPE, STRIPE - 1), (0, 0, 9, -1, -1)],
)
def test_parts_that_contradict_themselves_are_refused(numbers: Sequence[int]) -> None:
    with pytest.raises(InvalidUpload):
        BlobPart(*numbers)


async def test_a_connection_ahead_is_read_as_far_as_the_window_and_no_further(tmp_path: Path) -> None:
    async with started(tmp_path, window=3 * STRIPE) as place:
        first, ahead = BlobPart(0, 0, STRIPE), BlobPart(0, STRIPE, SIZE - STRIPE)
        slow, fast = Held(cut(first)), Held(cut(ahead))
        fast.may_go_on.set()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(place.receive(ahead, fast.chunks()))
            await until(lambda: fast.read >= 2 * STRIPE)
            group.create_task(place.receive(first, slow.chunks()))
            await until(lambda: slow.is_waiting)
            # Its window, and the one chunk that it holds in its hand.
            assert fast.read <= 2 * STRIPE + STEP
            assert place.uploads.held_back <= 3 * STRIPE
            slow.may_go_on.set()
        assert await place.held() == CONTENT


async def test_memory_is_bounded_over_all_blobs(tmp_path: Path) -> None:
    """What no blob may hold back waits in its connections; the frontiers get on all the same."""
    contents = [some_bytes(number, 8 * STRIPE) for number in range(6)]
    budget = 3 * STRIPE
    async with started(tmp_path, budget=budget) as place, asyncio.timeout(10):
        starts = [Held(content[:STRIPE]) for content in contents]
        rests = [Held(content[STRIPE:]) for content in contents]
        async with asyncio.TaskGroup() as group:
            for content, start, rest in zip(contents, starts, rests, strict=True):
                digest, size = digest_of(content), len(content)
                first, ahead = BlobPart(0, 0, STRIPE), BlobPart(0, STRIPE, size - STRIPE)
                rest.may_go_on.set()
                group.create_task(place.receive(ahead, rest.chunks(), digest=digest, size=size))
                group.create_task(place.receive(first, start.chunks(), digest=digest, size=size))
            await until(lambda: all(held.is_waiting for held in starts) and all(held.read for held in rests))
            await until(lambda: place.uploads.held_back > budget - 2 * STEP)
            assert place.uploads.held_back <= budget
            assert sum(held.read for held in rests) <= budget + len(rests) * STEP
            for held in starts:
                held.may_go_on.set()
        assert place.uploads.held_back == 0
        assert [await place.held(digest_of(content)) for content in contents] == contents


async def test_when_the_lowest_connection_breaks_the_others_are_given_up(tmp_path: Path) -> None:
    async with started(tmp_path, window=STRIPE, patience=0.05) as place:
        lowest, *others = interleaved(0, SIZE, 3, STRIPE)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = [group.create_task(_outcome(place.receive(part, cut(part)))) for part in others]
            assert isinstance(await _outcome(place.receive(lowest, broken(cut(lowest)[:1000]))), ConnectionResetError)
        assert [type(one.result()) for one in waiting] == [TimeoutError, TimeoutError]
        assert await place.offset() == 1000
        assert place.uploads.held_back == 0
        progress = await place.receive(whole_part(1000, SIZE), CONTENT[1000:])
        assert progress.is_complete
        assert await place.held() == CONTENT


async def test_when_the_lowest_connection_breaks_and_comes_again_the_others_go_on(tmp_path: Path) -> None:
    async with started(tmp_path, window=STRIPE) as place:
        lowest, *others = interleaved(0, SIZE, 3, STRIPE)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = [group.create_task(place.receive(part, cut(part))) for part in others]
            await _outcome(place.receive(lowest, broken(cut(lowest)[:1000])))
            await place.receive(lowest, cut(lowest))
        assert all(one.done() for one in waiting)
        assert await place.held() == CONTENT


async def _outcome(receiving: object) -> object:
    try:
        return await receiving  # type: ignore[misc]
    except (TimeoutError, ConnectionError, UploadOutOfOrder) as error:
        return error


async def test_what_came_before_a_restart_is_still_there(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await _outcome(place.receive(whole_part(0, SIZE), broken(CONTENT[:400_000])))
        await place.stop()
        await place.start(FilesystemBlobStore(tmp_path / "blobs"))
        await _goes_on_from(place, 400_000)


async def test_what_was_written_before_a_kill_is_still_there(tmp_path: Path) -> None:
    """Nobody suspended it; the digest at the end says whether it is right."""
    content = some_bytes(3, 5_000_000)
    digest, size = digest_of(content), len(content)
    async with started(tmp_path) as place:
        held = Held(content, first=4_000_000)
        receiving = asyncio.ensure_future(  # noqa: TID251 - what a kill ends
            place.receive(whole_part(0, size), held.chunks(), digest=digest, size=size)
        )
        file = tmp_path / "blobs" / "ingest" / upload_id(PEER, APP, digest)
        await until(lambda: held.is_waiting and file.stat().st_size > 1_000_000)
        copy = tmp_path / "after the kill"
        shutil.copytree(tmp_path, copy, ignore=lambda _, names: [name for name in names if name == copy.name])
        receiving.cancel()
        await asyncio.wait([receiving])
        async with started(copy) as again:
            offset = await again.offset(digest)
            assert 1_000_000 < offset <= 4_000_000
            part = whole_part(offset, size)
            assert (await again.receive(part, content[offset:], digest=digest, size=size)).is_complete
            assert await again.held(digest) == content


async def _goes_on_from(place: Place, offset: int) -> None:
    assert await place.offset() == (await place.receive(BlobPart(0, 0, 0), b"")).offset == offset
    assert (await place.receive(whole_part(offset, SIZE), CONTENT[offset:])).is_complete
    assert await place.held() == CONTENT
    assert await place.offset() == 0


async def test_a_damaged_beginning_is_found_and_the_next_attempt_begins_anew(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await _outcome(place.receive(whole_part(0, SIZE), broken(CONTENT[:200_000])))
        await place.stop()
        file = tmp_path / "blobs" / "ingest" / upload_id(PEER, APP, DIGEST)
        damaged = bytearray(file.read_bytes())
        damaged[100] ^= 1
        file.write_bytes(damaged)
        await place.start(FilesystemBlobStore(tmp_path / "blobs"))
        assert await place.offset() == 200_000
        with pytest.raises(DigestMismatch):
            await place.receive(whole_part(200_000, SIZE), CONTENT[200_000:])
        assert await place.offset() == 0
        assert await place.held() is None
        assert list((tmp_path / "blobs" / "ingest").iterdir()) == []
        assert (await place.receive(whole_part(0, SIZE), CONTENT)).is_complete
        assert await place.held() == CONTENT


async def test_wrong_bytes_fail_every_connection_that_sends_them(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        parts = interleaved(0, SIZE, 3, STRIPE)
        wrong = CONTENT[:5] + b"!" + CONTENT[6:]
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            tasks = [group.create_task(_any_outcome(place, part, cut(part, wrong))) for part in parts]
        failures = [task.result() for task in tasks]
        assert DigestMismatch in failures
        assert await place.offset() == 0
        assert await place.held() is None
        assert place.uploads.held_back == 0


async def _any_outcome(place: Place, part: BlobPart, content: bytes) -> type:
    try:
        return type(await place.receive(part, content))
    except (DigestMismatch, UploadOutOfOrder) as error:
        return type(error)


async def test_the_same_blob_sent_twice_at_once_arrives_once(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            both = [group.create_task(place.receive(whole_part(0, SIZE), CONTENT)) for _ in range(2)]
        assert [one.result().is_complete for one in both] == [True, True]
        assert await place.held() == CONTENT
        assert len([path for path in (tmp_path / "blobs" / "blobs").rglob("*") if path.is_file()]) == 1


async def test_two_peers_that_send_the_same_blob_do_not_meet(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        other = NodeId(PEER.account, HERE.region)
        await _outcome(place.receive(whole_part(0, SIZE), broken(b"!" * 1000)))
        await place.uploads.receive(other, APP, DIGEST, SIZE, whole_part(0, SIZE), stream(CONTENT))
        assert await place.held() == CONTENT


async def test_a_blob_that_is_here_already_is_not_read(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await place.receive(whole_part(0, SIZE), CONTENT)
        again = Held(CONTENT)
        assert (await place.receive(whole_part(0, SIZE), again.chunks())).is_complete
        assert again.read == 0


async def test_a_transfer_that_begins_beyond_what_is_here_is_told_where_to_begin(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await _outcome(place.receive(whole_part(0, SIZE), broken(CONTENT[:1000])))
        for part in (whole_part(1001, SIZE), *interleaved(5000, SIZE, 2, STRIPE)):
            with pytest.raises(UploadOutOfOrder) as refused:
                await place.receive(part, cut(part))
            assert refused.value.offset == 1000


@pytest.mark.parametrize(
    ("part", "sent", "error"),
    [
        (whole_part(0, SIZE), CONTENT + b"!", SizeMismatch),
        (whole_part(0, SIZE), CONTENT[:-1], SizeMismatch),
        (whole_part(0, SIZE + 1), CONTENT + b"!", InvalidUpload),
        (BlobPart(0, 0, 10**15, STRIPE, STRIPE), CONTENT, InvalidUpload),
    ],
    ids=["longer", "shorter", "beyond", "far beyond"],
)
async def test_a_part_is_as_long_as_it_says(
    part: BlobPart, sent: bytes, error: type[Exception], tmp_path: Path
) -> None:
    async with started(tmp_path) as place:
        with pytest.raises(error):
            await place.receive(part, sent)
        assert await place.held() in {None, CONTENT}
        assert (await place.receive(whole_part(0, SIZE), CONTENT)).is_complete


async def test_nothing_is_taken_of_what_the_policy_does_not_allow(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        held = Held(CONTENT)
        with pytest.raises(ReplicationDenied) as refused:
            await place.uploads.receive(STRANGER, APP, DIGEST, SIZE, whole_part(0, SIZE), held.chunks())
        assert refused.value.permission == "ecr:ReplicateImage"
        assert held.read == 0
        assert list((tmp_path / "blobs" / "ingest").iterdir()) == []


async def test_a_repository_is_only_made_for_who_may(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await place.stop()
        only_images = PolicyStatement(AccountId(STRANGER.account), frozenset({Permission.REPLICATE_IMAGE}))
        place.settings = RegistrySettings(HERE, registry_policy=RegistryPolicy(HERE.account, (only_images,)))
        await place.start()
        with pytest.raises(ReplicationDenied) as refused:
            await place.uploads.receive(STRANGER, APP, DIGEST, SIZE, whole_part(0, SIZE), stream(CONTENT))
        assert refused.value.permission == "ecr:CreateRepository"
        await place.receive(whole_part(0, 1), b"x", digest=digest_of(b"x"), size=1)
        progress = await place.uploads.receive(STRANGER, APP, DIGEST, SIZE, whole_part(0, SIZE), stream(CONTENT))
        assert progress.is_complete
        created = await place.database.read(repositories.find(APP))
        assert created is not None
        assert created.created_by == "replication"


async def test_a_blob_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await place.stop()
        place.settings = RegistrySettings(HERE, max_blob_size=SIZE - 1)
        await place.start()
        with pytest.raises(BlobTooLarge):
            await place.receive(whole_part(0, SIZE), CONTENT)


async def test_what_nobody_comes_back_for_is_reclaimed_and_nothing_else(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        await _outcome(place.receive(whole_part(0, SIZE), broken(CONTENT[:1000])))
        place.clock.advance(EXPIRY - 1)
        assert await place.sessions.reclaim() == 0
        await _outcome(place.receive(whole_part(1000, SIZE), broken(CONTENT[1000:2000])))
        place.clock.advance(EXPIRY - 1)
        assert await place.sessions.reclaim() == 0
        assert await place.offset() == 2000
        place.clock.advance(2)
        assert await place.sessions.reclaim() == 1
        assert await place.offset() == 0


async def test_an_upload_in_use_is_not_reclaimed(tmp_path: Path) -> None:
    async with started(tmp_path) as place, asyncio.timeout(10):
        held = Held(CONTENT, first=1000)
        async with asyncio.TaskGroup() as group:
            receiving = group.create_task(_outcome(place.receive(whole_part(0, SIZE), held.chunks())))
            await until(lambda: held.is_waiting)
            place.clock.advance(2 * EXPIRY)
            assert await place.sessions.reclaim() == 0
            held.may_go_on.set()
        assert receiving.done()
        assert await place.held() == CONTENT


async def test_a_full_store_drops_what_it_cannot_finish(tmp_path: Path) -> None:
    volume = MemoryVolume(capacity=SIZE - 1)
    async with started(tmp_path, MemoryBlobStore(volume)) as place:
        with pytest.raises(StorageFull):
            await place.receive(whole_part(0, SIZE), CONTENT)
        assert volume.ingests == {}
        volume.capacity = 10 * SIZE
        assert await place.offset() == 0
        assert (await place.receive(whole_part(0, SIZE), CONTENT)).is_complete


async def test_an_empty_blob(tmp_path: Path) -> None:
    async with started(tmp_path) as place:
        empty = digest_of(b"")
        assert (await place.receive(whole_part(0, 0), b"", digest=empty, size=0)).is_complete
        assert await place.held(empty) == b""


async def test_every_byte_is_here_and_only_the_end_is_missing(tmp_path: Path) -> None:
    """The destination was stopped between the last byte and the check of the whole."""
    async with started(tmp_path) as place:
        await _outcome(place.receive(whole_part(0, SIZE + 1), broken(CONTENT), size=SIZE + 1))
        assert await place.offset() == SIZE
        assert (await place.receive(whole_part(SIZE, SIZE), b"")).is_complete
        assert await place.held() == CONTENT
