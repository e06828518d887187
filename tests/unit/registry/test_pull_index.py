from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.digest import Digest, digest_of
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.registry.node import RegistryNode
from replicator.registry.pull_index import PullIndex
from replicator.registry.pulls import Pulls
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata.images import StoredManifest
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from replicator.storage.metadata.statement import Body, Steps

T = TypeVar("T")
A, B = RepositoryName("a"), RepositoryName("b")
V1 = Tag("v1")


def index(capacity: int = 10) -> PullIndex[str]:
    return PullIndex(capacity)


def test_what_is_kept_is_found() -> None:
    kept = index()
    kept.keep(A, "x", "1", 1, kept.mark)
    assert (kept.find(A, "x"), kept.find(A, "y"), kept.find(B, "x"), len(kept)) == ("1", None, None, 1)
    kept.keep(A, "x", "2", 1, kept.mark)
    assert (kept.find(A, "x"), len(kept)) == ("2", 1)


def test_the_least_recently_used_make_room() -> None:
    kept = index(capacity=3)
    for key in "xyz":
        kept.keep(A, key, key, 1, kept.mark)
    kept.find(A, "x")
    kept.keep(B, "w", "w", 2, kept.mark)
    assert [key for key in "xyz" if kept.find(A, key)] == ["x"]
    assert kept.find(B, "w") == "w"


def test_what_is_too_heavy_is_not_kept() -> None:
    kept = index(capacity=3)
    kept.keep(A, "light", "1", 1, kept.mark)
    kept.keep(A, "heavy", "2", 4, kept.mark)
    assert (kept.find(A, "light"), kept.find(A, "heavy")) == ("1", None)


def test_a_hold_drops_one_repository_and_keeps_it_out() -> None:
    kept = index()
    kept.keep(A, "x", "1", 1, kept.mark)
    kept.keep(B, "x", "1", 1, kept.mark)
    kept.hold(A)
    kept.keep(A, "x", "1", 1, kept.mark)
    assert (kept.find(A, "x"), kept.find(B, "x")) == (None, "1")
    kept.release(A)
    kept.keep(A, "x", "2", 1, kept.mark)
    assert kept.find(A, "x") == "2"


def test_holds_nest() -> None:
    kept = index()
    kept.hold(A)
    kept.hold(A)
    kept.release(A)
    kept.keep(A, "x", "1", 1, kept.mark)
    assert kept.find(A, "x") is None
    kept.release(A)
    kept.keep(A, "x", "1", 1, kept.mark)
    assert kept.find(A, "x") == "1"


@pytest.mark.parametrize("change", ["hold and release", "release", "clear"])
def test_what_was_read_before_a_change_is_not_kept(change: str) -> None:
    kept = index()
    if change == "release":
        kept.hold(A)
    mark = kept.mark
    if change == "hold and release":
        kept.hold(A)
    if change == "clear":
        kept.clear()
    else:
        kept.release(A)
    kept.keep(A, "x", "old", 1, mark)
    assert kept.find(A, "x") is None


def test_clear_drops_everything() -> None:
    kept = index(capacity=2)
    kept.keep(A, "x", "1", 2, kept.mark)
    kept.clear()
    assert (len(kept), kept.find(A, "x")) == (0, None)
    kept.keep(A, "x", "1", 2, kept.mark)
    assert kept.find(A, "x") == "1"


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from("uvwxyz"), st.integers(1, 5))))
def test_it_never_weighs_more_than_it_may(entries: list[tuple[RepositoryName, str, int]]) -> None:
    kept: PullIndex[int] = PullIndex(8)
    for repository, key, weight in entries:
        kept.keep(repository, key, weight, weight, kept.mark)
        assert sum(value for value, _ in kept._entries.values()) == kept._weight <= 8
    assert {(name, key) for name, keys in kept._keys.items() for key in keys} == set(kept._entries)


def manifest(version: int) -> StoredManifest:
    content = str(version).encode()
    return StoredManifest(digest_of(content), "type", content)


@dataclass
class SlowDatabase:
    """One row, the version that `v1` points to. Everything suspends before and after it looks or writes.

    `waiting` holds what is suspended; the test wakes it in the order it likes.
    """

    version: int = 1
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, steps: Steps[T]) -> Any:
        steps.close()
        await self._pause()
        found = manifest(self.version)
        await self._pause()
        return found

    async def write(self, body: Body[T]) -> Any:
        del body
        await self._pause()
        self.version += 1
        written = self.version
        await self._pause()
        return written

    async def _pause(self) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(woken)
        await woken


def _nothing() -> Steps[int]:
    """Stand for a transaction's steps; the slow database has its own."""
    yield from ()
    return 0


class History:
    """Pulls and writes under way on one tag, and what had been acknowledged when each pull began."""

    def __init__(self) -> None:
        self.database = SlowDatabase()
        self.node = RegistryNode(
            RegistrySettings(NodeId(AccountId("1" * 12), Region("eu"))), self.database, MemoryBlobStore(), FakeClock()
        )
        self.pulls = Pulls(self.node)
        self.acknowledged = self.database.version
        self.tasks: list[asyncio.Task[None]] = []
        self.writes: list[asyncio.Task[None]] = []
        self.finished = 0

    async def pull(self) -> None:
        expected = self.acknowledged
        found = await self.pulls.find_manifest(A, V1)
        assert found is not None
        assert int(found.content) >= expected
        self.finished += 1

    async def write(self) -> None:
        written: int = await self.node.commit(A, _nothing)
        self.acknowledged = max(self.acknowledged, written)

    async def play(self, events: list[tuple[str, int]]) -> None:
        async with asyncio.TaskGroup() as group:
            for event, number in events:
                if event == "pull":
                    self.tasks.append(group.create_task(self.pull()))
                elif event == "write":
                    self.writes.append(group.create_task(self.write()))
                elif event == "cancel" and self.writes:
                    self.writes[number % len(self.writes)].cancel()
                elif self.database.waiting:
                    self.database.waiting.rotate(number)
                    self._wake()
                await self._settle()
            while self.database.waiting:
                self._wake()
                await self._settle()
        assert self.finished == len(self.tasks)

    def _wake(self) -> None:
        woken = self.database.waiting.popleft()
        if not woken.done():
            woken.set_result(None)

    async def _settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)


events = st.tuples(
    st.sampled_from(["pull", "pull", "write", "wake", "wake", "wake", "wake", "cancel"]), st.integers(0, 5)
)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(events, max_size=40))
def test_a_pull_never_returns_less_than_was_acknowledged_before_it(schedule: list[tuple[str, int]]) -> None:
    """Whatever suspends where: no pull is older than a write that was acknowledged when the pull began."""

    async def play() -> None:
        history = History()
        await history.play(schedule)
        # and afterwards the memory and the database agree
        for _ in range(2):
            last = asyncio.ensure_future(history.pulls.find_manifest(A, V1))  # noqa: TID251 - awaited below
            while not last.done():
                await history._settle()
                if history.database.waiting:
                    history._wake()
            found = last.result()
            assert found == manifest(history.database.version)

    asyncio.run(play())


def test_a_pull_is_answered_from_memory_the_second_time() -> None:
    async def play() -> None:
        history = History()
        for _ in range(3):
            await history.play([("pull", 0)])
        assert history.node.manifest_index.find(A, V1) == manifest(1)

    asyncio.run(play())


def test_a_digest_is_its_own_key() -> None:
    kept: PullIndex[StoredManifest] = PullIndex(10)
    one, two = manifest(1), manifest(2)
    kept.keep(A, one.digest, one, 1, kept.mark)
    assert kept.find(A, Digest(two.digest)) is None
