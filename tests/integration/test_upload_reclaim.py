"""Reclaiming abandoned uploads never takes one that is just beginning."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.core.names import AccountId, NodeId, Region, RepositoryName
from replicator.core.principal import UNRESTRICTED
from replicator.registry.node import RegistryNode
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.storage.metadata import uploads
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.storage.metadata.statement import Body, Steps

T = TypeVar("T")
REPOSITORY = RepositoryName("team-a/app")


class HeldDatabase:
    """Passes everything on, but holds what the listing of sessions has read until it is released."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self.has_read = asyncio.Event()
        self.may_return = asyncio.Event()
        self.may_return.set()

    async def open(self) -> None:
        await self._database.open()

    async def close(self) -> None:
        await self._database.close()

    async def read(self, steps: Steps[Any]) -> Any:
        is_listing = steps.gi_code is uploads.ids.__code__  # type: ignore[attr-defined]
        found = await self._database.read(steps)
        if is_listing:
            self.has_read.set()
            await self.may_return.wait()
        return found

    async def write(self, body: Body[T]) -> T:
        return await self._database.write(body)


async def test_a_session_begun_while_sessions_are_listed_is_kept(tmp_path: Path) -> None:
    database, store, clock = (
        HeldDatabase(SqliteDatabase(tmp_path / "metadata.db")),
        MemoryBlobStore(MemoryVolume()),
        FakeClock(),
    )
    settings = RegistrySettings(NodeId(AccountId("111122223333"), Region("us-east-1")))
    await database.open()
    await store.open()
    sessions = Uploads(RegistryNode(settings, database, store, clock))
    database.may_return.clear()
    async with asyncio.TaskGroup() as group:
        reclaiming = group.create_task(sessions.reclaim())
        await database.has_read.wait()
        session = await sessions.start(UNRESTRICTED, REPOSITORY)
        database.may_return.set()
    assert reclaiming.result() == 0
    assert await sessions.get_offset(UNRESTRICTED, REPOSITORY, session.id) == 0
    await sessions.cancel(UNRESTRICTED, REPOSITORY, session.id)
    await database.close()
    await store.close()


async def test_what_no_session_owns_goes_in_the_first_round_after_it_was_left(tmp_path: Path) -> None:
    database, store, clock = SqliteDatabase(tmp_path / "metadata.db"), MemoryBlobStore(MemoryVolume()), FakeClock()
    settings = RegistrySettings(NodeId(AccountId("111122223333"), Region("us-east-1")), upload_expiry=60.0)
    await database.open()
    await store.open()
    sessions = Uploads(RegistryNode(settings, database, store, clock))
    session = await sessions.start(UNRESTRICTED, REPOSITORY)
    assert await sessions.reclaim() == 0
    clock.advance(61)
    assert await sessions.reclaim() == 1
    assert await database.read(uploads.find(session.id)) is None
    await database.close()
    await store.close()


async def test_an_expired_session_in_use_keeps_no_other_from_being_reclaimed(tmp_path: Path) -> None:
    database, store, clock = SqliteDatabase(tmp_path / "metadata.db"), MemoryBlobStore(MemoryVolume()), FakeClock()
    settings = RegistrySettings(NodeId(AccountId("111122223333"), Region("us-east-1")), upload_expiry=60.0)
    await database.open()
    await store.open()
    sessions = Uploads(RegistryNode(settings, database, store, clock))
    used, abandoned = [await sessions.start(UNRESTRICTED, REPOSITORY) for _ in range(2)]
    assert await sessions.reclaim() == 0
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def dripping() -> AsyncIterator[bytes]:
        yield b"a drop"
        begun.set()
        await may_end.wait()

    async with asyncio.TaskGroup() as group:
        appending = group.create_task(sessions.append(UNRESTRICTED, REPOSITORY, used.id, dripping()))
        await begun.wait()
        clock.advance(61)
        async with asyncio.timeout(5):
            assert await sessions.reclaim() == 1
        may_end.set()
    assert appending.result() == len(b"a drop")
    assert await database.read(uploads.find(abandoned.id)) is None
    assert await sessions.get_offset(UNRESTRICTED, REPOSITORY, used.id) == len(b"a drop")
    await database.close()
    await store.close()
