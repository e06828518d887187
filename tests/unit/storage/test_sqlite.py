"""What only SQLite can do to a database: one writer thread, one file, one disk that may be full."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from replicator.core.digest import digest_of
from replicator.core.errors import Conflict, StorageError, StorageFull, StorageUnavailable
from replicator.core.mutability import MutabilityRule
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.revisions import TagRegister
from replicator.storage.metadata import repositories, tags
from replicator.storage.metadata.repositories import Repository
from replicator.storage.metadata.sqlite import SqliteDatabase
from replicator.storage.metadata.statement import Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicator.storage.metadata.statement import Body, Steps

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
REPOSITORY = RepositoryName("team/app")
LATEST = Tag("latest")
DIGEST = digest_of(b"content")
FILLER = Statement(
    sa.text("INSERT INTO manifests (digest, media_type, content) VALUES (:digest, 'm', zeroblob(:size))").bindparams(
        sa.bindparam("digest"), sa.bindparam("size", type_=sa.Integer)
    )
)


def run(statement: str) -> Steps[Any]:
    """Return steps that run any statement."""
    return Statement(sa.text(statement))()


def move_tag() -> Steps[TagRegister]:
    return tags.put(REPOSITORY, LATEST, DIGEST, NODE, 0.0)  # so that revisions count from one


def create_repository() -> Steps[None]:
    return repositories.create(Repository(REPOSITORY, 1.0, "push", MutabilityRule()))


def refuse_if_it_exists() -> Steps[None]:
    if (yield from repositories.find(REPOSITORY)) is not None:
        raise Conflict("it exists")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = SqliteDatabase(tmp_path / "metadata.db")
    await database.open()
    yield database
    await database.close()


async def outcome(database: SqliteDatabase, body: Body[Any]) -> object:
    try:
        return await database.write(body)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error


async def as_one_group(database: SqliteDatabase, *bodies: Body[Any]) -> list[object]:
    """Run writes that have to be committed together, because the writer is held up while they are queued."""
    reached, go_on = threading.Event(), threading.Event()

    def hold_up() -> Steps[None]:
        yield from repositories.count()
        reached.set()
        go_on.wait(10)

    async with asyncio.TaskGroup() as group:
        group.create_task(database.write(hold_up))
        await asyncio.to_thread(reached.wait, 10)
        tasks = [group.create_task(outcome(database, body)) for body in bodies]
        await asyncio.sleep(0)
        go_on.set()
    return [task.result() for task in tasks]


class TestGroupCommit:
    async def test_bodies_of_one_group_see_each_other_in_order(self, database: SqliteDatabase) -> None:
        results = await as_one_group(database, refuse_if_it_exists, create_repository, refuse_if_it_exists)
        assert results[:2] == [None, None]
        assert isinstance(results[2], Conflict)

    async def test_nobody_is_told_of_what_was_not_committed_in_the_end(self, database: SqliteDatabase) -> None:
        """A refusal because of a row that then vanishes with its group would be a lie."""
        await database.write(lambda: run("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        await database.write(
            lambda: run("CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        )
        results = await as_one_group(
            database, create_repository, refuse_if_it_exists, lambda: run("INSERT INTO child VALUES (1)")
        )
        assert [type(result) for result in results] == [StorageUnavailable] * 3
        assert await database.read(repositories.count()) == 0
        await database.write(create_repository)
        assert await database.read(repositories.count()) == 1

    async def test_an_error_of_one_statement_undoes_one_body(self, database: SqliteDatabase) -> None:
        def half() -> Steps[None]:
            yield from create_repository()
            yield from run("INSERT INTO nowhere VALUES (1)")

        results = await as_one_group(database, move_tag, half, move_tag)
        assert [type(result) for result in results] == [TagRegister, StorageUnavailable, TagRegister]
        assert await database.read(repositories.count()) == 0

    async def test_more_writes_than_a_group_holds(self, database: SqliteDatabase) -> None:
        results = await as_one_group(database, *[move_tag] * 600)
        assert [result.revision.counter for result in results if isinstance(result, TagRegister)] == list(range(1, 601))

    async def test_an_interrupt_in_the_steps_reaches_the_caller_and_undoes_them(self, database: SqliteDatabase) -> None:
        def interrupted() -> Steps[None]:
            yield from create_repository()
            raise KeyboardInterrupt

        assert database._writer is not None
        future = database._writer.submit(interrupted)
        assert isinstance(await asyncio.to_thread(future.exception, 10), KeyboardInterrupt)
        assert await database.read(repositories.count()) == 0
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_an_interrupt_in_a_read_leaves_no_transaction_open(self, database: SqliteDatabase) -> None:
        def interrupted() -> Steps[None]:
            yield from repositories.count()
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            database.read(interrupted()).send(None)
        await database.write(create_repository)
        assert await database.read(repositories.count()) == 1


class TestFullDatabase:
    """SQLite's own limit of pages fails like a full disk, without one."""

    async def test_a_write_that_does_not_fit_is_refused_and_the_next_that_does_is_not(
        self, database: SqliteDatabase
    ) -> None:
        ((limit,),) = await database.write(lambda: run("PRAGMA page_count"))
        await database.write(lambda: run(f"PRAGMA max_page_count = {limit + 20}"))
        with pytest.raises(StorageFull):
            await database.write(lambda: FILLER(digest="big", size=10_000_000))
        assert (await database.write(move_tag)).revision.counter == 1
        await database.write(lambda: run("PRAGMA max_page_count = 1000000"))
        await database.write(lambda: FILLER(digest="big", size=10_000_000))

    async def test_neighbours_in_a_group_are_stored_or_told(self, database: SqliteDatabase) -> None:
        ((limit,),) = await database.write(lambda: run("PRAGMA page_count"))
        await database.write(lambda: run(f"PRAGMA max_page_count = {limit + 20}"))
        results = await as_one_group(
            database, move_tag, lambda: FILLER(digest="big", size=10_000_000), move_tag, refuse_if_it_exists
        )
        stored = [result.revision.counter for result in results if isinstance(result, TagRegister)]
        state = await database.read(tags.find(REPOSITORY, LATEST))
        assert isinstance(results[1], StorageFull)
        assert (state.revision.counter if state else 0) == len(stored)


def _can_mount() -> bool:
    return os.geteuid() == 0 and sys.platform == "linux"


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    mount = subprocess.run(  # noqa: S603 - our own command line
        ["/bin/mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mount.returncode != 0:
        pytest.skip(f"this machine may not mount: {mount.stderr.decode()}")
    try:
        yield directory
    finally:
        subprocess.run(["/bin/umount", "-l", str(directory)], check=True)  # noqa: S603 - our own command line


def fill(directory: Path) -> Path:
    """Leave no byte of a disk."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler


@pytest.mark.skipif(not _can_mount(), reason="only root can mount a small disk")
class TestFullDisk:
    async def test_writes_are_refused_reads_go_on_and_all_is_well_afterwards(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "8m") as disk:
            database = SqliteDatabase(disk / "metadata.db")
            await database.open()
            await database.write(move_tag)
            filler = fill(disk)
            acknowledged = 1
            refused = 0
            for _ in range(2000):  # the log has some room left inside
                try:
                    await database.write(move_tag)
                except StorageFull:
                    refused += 1
                    if refused == 20:
                        break
                else:
                    acknowledged += 1
                state = await database.read(tags.find(REPOSITORY, LATEST))
                assert state is not None
                assert state.revision.counter == acknowledged
            with pytest.raises(StorageFull):
                await database.write(lambda: FILLER(digest="big", size=1_000_000))
            together = await as_one_group(database, move_tag, lambda: FILLER(digest="big", size=1_000_000), move_tag)
            acknowledged += sum(isinstance(result, TagRegister) for result in together)
            filler.unlink()
            assert (await database.write(move_tag)).revision.counter == acknowledged + 1
            await database.write(lambda: FILLER(digest="big", size=1_000_000))
            await database.close()
            await database.open()
            assert (await database.write(move_tag)).revision.counter == acknowledged + 2
            await database.close()

    async def test_a_restart_on_a_disk_that_filled_up_serves_reads(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "8m") as disk:
            database = SqliteDatabase(disk / "metadata.db")
            await database.open()
            await database.write(move_tag)
            filler = fill(disk)
            for _ in range(3):
                await database.close()
                await database.open()
                state = await database.read(tags.find(REPOSITORY, LATEST))
                assert state is not None
                assert state.revision.counter == 1
            with pytest.raises(StorageFull):
                await database.write(lambda: FILLER(digest="big", size=1_000_000))
            await database.close()
            await database.open()
            filler.unlink()
            assert (await database.write(move_tag)).revision.counter == 2
            await database.close()

    async def test_a_first_start_on_a_full_disk_is_refused_and_a_later_one_is_not(self, tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "1m") as disk:
            filler = fill(disk)
            database = SqliteDatabase(disk / "node" / "metadata.db")
            with pytest.raises(StorageFull):
                await database.open()
            filler.unlink()
            await database.open()
            assert (await database.write(move_tag)).revision.counter == 1
            await database.close()

    @pytest.mark.parametrize("spare", [0, 4096, 16384, 65536, 131072])
    async def test_a_disk_that_fills_up_during_the_first_start(self, tmp_path: Path, spare: int) -> None:
        with small_disk(tmp_path / "disk", "1m") as disk:
            filler = fill(disk)
            os.truncate(filler, filler.stat().st_size - spare)
            database = SqliteDatabase(disk / "metadata.db")
            with pytest.raises(StorageError):
                await database.open()
            filler.unlink()
            await database.open()
            assert (await database.write(move_tag)).revision.counter == 1
            await database.close()


class TestOtherPrograms:
    async def test_a_write_waits_for_another_program_and_reads_do_not(
        self, database: SqliteDatabase, tmp_path: Path
    ) -> None:
        with closing(sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(database.write(move_tag))
                for _ in range(100):
                    assert await database.read(tags.find(REPOSITORY, LATEST)) is None
                    await asyncio.sleep(0)
                assert not writing.done()
                other.execute("ROLLBACK")
        assert writing.result().revision.counter == 1

    async def test_a_write_that_has_waited_long_enough_is_refused(self, tmp_path: Path) -> None:
        database = SqliteDatabase(tmp_path / "metadata.db", lock_wait=0.05)
        await database.open()
        with closing(sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageUnavailable, match="locked"):
                await database.write(move_tag)
            assert await database.read(tags.find(REPOSITORY, LATEST)) is None
            other.execute("ROLLBACK")
        assert (await database.write(move_tag)).revision.counter == 1
        await database.close()

    async def test_a_slow_reader_sees_its_snapshot_and_holds_nobody_up(
        self, database: SqliteDatabase, tmp_path: Path
    ) -> None:
        with closing(sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)) as other:
            other.execute("BEGIN")
            assert other.execute("SELECT count(*) FROM tags").fetchone() == (0,)
            await database.write(move_tag)
            assert other.execute("SELECT count(*) FROM tags").fetchone() == (0,)
            other.execute("COMMIT")
            assert other.execute("SELECT count(*) FROM tags").fetchone() == (1,)


class TestWriterThread:
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    async def test_a_thread_that_dies_leaves_nobody_waiting(self, database: SqliteDatabase) -> None:
        await database.write(move_tag)
        reached, go_on = threading.Event(), threading.Event()

        def hold_up() -> Steps[None]:
            yield from repositories.count()
            reached.set()
            go_on.wait(10)

        writer = database._writer
        assert writer is not None
        async with asyncio.timeout(10):
            async with asyncio.TaskGroup() as group:
                group.create_task(database.write(hold_up))
                await asyncio.to_thread(reached.wait, 10)
                before = [group.create_task(outcome(database, move_tag)) for _ in range(3)]
                await asyncio.sleep(0)
                writer._queue.put("poison")  # type: ignore[arg-type]
                after = [group.create_task(outcome(database, move_tag)) for _ in range(3)]
                await asyncio.sleep(0)
                go_on.set()
            await asyncio.to_thread(writer._thread.join, 10)
            assert not writer._thread.is_alive()
            late = await outcome(database, move_tag)
            assert [type(task.result()) for task in before + after] == [StorageUnavailable] * 6
            assert isinstance(late, StorageUnavailable)
            state = await database.read(tags.find(REPOSITORY, LATEST))
            assert state is not None
            assert state.revision.counter == 1
            await database.close()

    async def test_a_write_that_comes_while_the_database_closes_is_refused(self, database: SqliteDatabase) -> None:
        reached, go_on = threading.Event(), threading.Event()

        def hold_up() -> Steps[int]:
            number = yield from repositories.count()
            reached.set()
            go_on.wait(10)
            return number

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            held_up = group.create_task(database.write(hold_up))
            await asyncio.to_thread(reached.wait, 10)
            queued = group.create_task(database.write(move_tag))
            await asyncio.sleep(0)
            closing_ = group.create_task(database.close())
            await asyncio.sleep(0)
            late = group.create_task(outcome(database, move_tag))
            await asyncio.sleep(0)
            go_on.set()
        assert closing_.done()
        assert held_up.result() == 0
        assert queued.result().revision.counter == 1
        assert isinstance(late.result(), StorageUnavailable)


WRITE_FOREVER = """
import asyncio, sys
from pathlib import Path
from replicator.core.names import AccountId, NodeId, Region
from replicator.storage.metadata import tags
from replicator.storage.metadata.sqlite import SqliteDatabase

async def write(database):
    while True:
        node = NodeId(AccountId("1" * 12), Region("eu-west-1"))
        state = await database.write(lambda: tags.put("team/app", "latest", None, node, 0.0))
        print(state.revision.counter, flush=True)

async def main(path, writers):
    database = SqliteDatabase(Path(path))
    await database.open()
    async with asyncio.TaskGroup() as group:
        for _ in range(int(writers)):
            group.create_task(write(database))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
class TestCrash:
    @pytest.mark.parametrize("writers", [1, 8])
    async def test_a_process_that_is_killed_loses_nothing_it_answered(self, tmp_path: Path, writers: int) -> None:
        path = tmp_path / "metadata.db"
        for killed_after in (1, 30):
            answered = await asyncio.to_thread(self.kill_after, killed_after, str(path), str(writers))
            database = SqliteDatabase(path)
            await database.open()
            state = await database.read(tags.find(REPOSITORY, LATEST))
            assert state is not None
            assert max(answered) <= state.revision.counter <= max(answered) + writers
            await database.close()

    def kill_after(self, answers: int, *arguments: str) -> list[int]:
        """Kill a process that writes after some answers; return all that it gave."""
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", WRITE_FOREVER, *arguments], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            answered = [int(process.stdout.readline()) for _ in range(answers)]
            process.kill()
            rest = process.stdout.read().split("\n")[:-1]  # a last line that was cut is no answer
        return answered + [int(line) for line in rest]


class TestFile:
    async def test_what_is_no_database_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "metadata.db"
        path.write_bytes(b"something else entirely\n" * 400)
        with pytest.raises(StorageUnavailable, match="not a database"):
            await SqliteDatabase(path).open()
        assert path.read_bytes() == b"something else entirely\n" * 400

    async def test_a_directory_in_the_way_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StorageUnavailable):
            await SqliteDatabase(tmp_path).open()

    async def test_a_file_in_place_of_a_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageUnavailable):
            await SqliteDatabase(tmp_path / "file" / "metadata.db").open()

    async def test_a_file_without_a_write_ahead_log_is_refused(self) -> None:
        with pytest.raises(StorageUnavailable, match="write-ahead log"):
            SqliteDatabase(":memory:")._connect()  # type: ignore[arg-type]

    async def test_damaged_pages_are_an_error_of_the_store_and_the_rest_is_readable(self, tmp_path: Path) -> None:
        path = tmp_path / "metadata.db"
        database = SqliteDatabase(path)
        await database.open()
        await database.write(move_tag)
        ((root,),) = await database.read(run("SELECT rootpage FROM sqlite_master WHERE name = 'blobs'"))
        ((page,),) = await database.read(run("PRAGMA page_size"))
        await database.close()
        with path.open("r+b") as file:
            file.seek((root - 1) * page)
            file.write(b"\xff" * page)
        await database.open()
        with pytest.raises(StorageUnavailable):
            await database.read(run("SELECT * FROM blobs"))
        state = await database.read(tags.find(REPOSITORY, LATEST))
        assert state is not None
        assert (await database.write(move_tag)).revision.counter == 2
        await database.close()

    async def test_rel_01_every_commit_waits_for_the_disk(self, database: SqliteDatabase) -> None:
        assert await database.write(lambda: run("PRAGMA synchronous")) == [(2,)]
        assert await database.write(lambda: run("PRAGMA journal_mode")) == [("wal",)]

    async def test_the_log_does_not_grow_without_bound(self, database: SqliteDatabase, tmp_path: Path) -> None:
        log = tmp_path / "metadata.db-wal"
        largest = 0
        for number in range(60):
            await database.write(lambda number=number: FILLER(digest=str(number), size=500_000))  # type: ignore[misc]
            await database.read(repositories.count())
            largest = max(largest, log.stat().st_size)
        assert largest < 8_000_000  # 30 MB were written

    async def test_a_log_that_a_slow_reader_made_grow_is_cut_afterwards(
        self, database: SqliteDatabase, tmp_path: Path
    ) -> None:
        log = tmp_path / "metadata.db-wal"
        with closing(sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM tags").fetchone()
            for number in range(10):
                await database.write(
                    lambda number=number: FILLER(digest=str(number), size=8_000_000)  # type: ignore[misc]
                )
            assert log.stat().st_size > 80_000_000
        for _ in range(3):
            await database.write(move_tag)
        assert log.stat().st_size <= 64 * 2**20
