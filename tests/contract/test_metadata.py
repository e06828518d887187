"""What every metadata database promises of a transaction, shown on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput, RepositoryNotFound, StorageError, StorageUnavailable
from replicator.core.mutability import MutabilityRule
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.revisions import TagRegister
from replicator.storage.metadata import cache_entries, images, node, repositories, tags, uploads
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.repositories import Repository
from replicator.storage.metadata.schema import metadata
from replicator.storage.metadata.statement import Statement
from replicator.storage.metadata.uploads import UploadSession

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Body, Steps, Value
    from tests.support.databases import DatabaseBench

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
OTHER_NODE = NodeId(AccountId("1" * 12), Region("us-east-1"))
REPOSITORY = RepositoryName("team/app")
LATEST = Tag("latest")
DIGEST = digest_of(b"content")


def a_repository(name: str = REPOSITORY) -> Repository:
    return Repository(RepositoryName(name), 1.0, "push", MutabilityRule())


def move_tag() -> Steps[TagRegister]:
    return tags.put(REPOSITORY, LATEST, DIGEST, NODE, 0.0)  # so that revisions count from one


def create_then_fail() -> Steps[None]:
    yield from repositories.create(a_repository())
    raise RepositoryNotFound("made up")


class TestAtomicity:
    async def test_the_result_of_the_steps_is_returned(self, database: Database) -> None:
        state = await database.write(move_tag)
        assert (state.digest, state.revision.counter) == (DIGEST, 1)

    async def test_an_exception_of_the_steps_undoes_them_and_reaches_the_caller(self, database: Database) -> None:
        with pytest.raises(RepositoryNotFound, match="made up"):
            await database.write(create_then_fail)
        assert await database.read(repositories.count()) == 0

    async def test_an_exception_undoes_only_its_own_steps(self, database: Database) -> None:
        async with asyncio.TaskGroup() as group:
            kept = [group.create_task(database.write(move_tag)) for _ in range(3)]
            failed = group.create_task(outcome(database, create_then_fail))
            kept += [group.create_task(database.write(move_tag)) for _ in range(3)]
        assert isinstance(failed.result(), RepositoryNotFound)
        assert sorted(task.result().revision.counter for task in kept) == [1, 2, 3, 4, 5, 6]
        assert await database.read(repositories.count()) == 0

    @pytest.mark.parametrize("error", [OverflowError("own"), ValueError("own"), OSError("own"), StopAsyncIteration()])
    async def test_exceptions_of_the_steps_are_not_taken_for_the_databases(
        self, database: Database, error: Exception
    ) -> None:
        def steps() -> Steps[None]:
            yield from repositories.count()
            raise error

        with pytest.raises(type(error)) as caught:
            await database.write(steps)
        assert caught.value is error
        with pytest.raises(type(error)) as caught:
            await database.read(steps())
        assert caught.value is error
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_a_body_that_fails_before_its_first_step(self, database: Database) -> None:
        def body() -> Steps[None]:
            raise RepositoryNotFound("at once")

        with pytest.raises(RepositoryNotFound, match="at once"):
            await database.write(body)

    async def test_a_body_that_raises_what_no_future_can_hold(self, database: Database) -> None:
        async with asyncio.timeout(5):
            with pytest.raises(RuntimeError):
                await database.write(lambda: next(iter(())))
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_steps_without_a_statement(self, database: Database) -> None:
        def steps() -> Steps[int]:
            yield from ()
            return 7

        assert await database.read(steps()) == 7
        assert await database.write(steps) == 7

    async def test_steps_cannot_catch_an_error_of_the_database(self, database: Database) -> None:
        caught = []

        def steps() -> Steps[None]:
            try:
                yield from uploads.create(an_upload())
                yield from uploads.create(an_upload())
            except Exception as error:  # noqa: BLE001 - shows that none comes
                caught.append(error)

        with pytest.raises(StorageError):
            await database.write(steps)
        assert caught == []
        assert await database.read(uploads.ids()) == []


class TestIsolation:
    async def test_a_write_sees_what_it_has_written(self, database: Database) -> None:
        def steps() -> Steps[int]:
            yield from repositories.create(a_repository())
            return (yield from repositories.count())

        assert await database.write(steps) == 1

    async def test_another_database_sees_what_was_answered(self, databases: tuple[Database, Database]) -> None:
        one, other = databases
        for counter in range(1, 20):
            await one.write(move_tag)
            seen = await other.read(tags.find(REPOSITORY, LATEST))
            assert seen is not None
            assert seen.revision.counter == counter

    async def test_reads_see_a_transaction_whole_or_not_at_all(self, databases: tuple[Database, Database]) -> None:
        one, other = databases
        both = Tag("a"), Tag("b")

        def move_both() -> Steps[None]:
            for tag in both:
                yield from tags.put(REPOSITORY, tag, DIGEST, NODE, 0.0)

        def look() -> Steps[list[int]]:
            first = yield from tags.find(REPOSITORY, both[0])
            second = yield from tags.find(REPOSITORY, both[1])
            return [state.revision.counter for state in (first, second) if state]

        await one.write(move_both)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(repeat(one, move_both, 30))
            while not writing.done():
                first, second = await other.read(look())
                assert first == second
                await asyncio.sleep(0)
        assert await other.read(look()) == [31, 31]

    async def test_a_read_refuses_to_write(self, database: Database) -> None:
        with pytest.raises(StorageUnavailable):
            await database.read(repositories.create(a_repository()))
        assert await database.read(repositories.count()) == 0
        await database.write(lambda: repositories.create(a_repository()))

    async def test_a_hundred_writers_lose_no_increment(self, databases: tuple[Database, Database]) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(databases[number % 2].write(move_tag)) for number in range(100)]
        assert sorted(task.result().revision.counter for task in tasks) == list(range(1, 101))

    async def test_writers_that_read_before_they_write_are_serialised(
        self, databases: tuple[Database, Database]
    ) -> None:
        """Each adds a repository named after the number it saw: two that saw the same number would lose one."""

        def add_next() -> Steps[None]:
            known = yield from repositories.count()
            yield from repositories.create(a_repository(f"r{known}"))

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(databases[number % 2].write(add_next))
        assert await databases[0].read(repositories.count()) == 40

    async def test_no_write_skew(self, databases: tuple[Database, Database]) -> None:
        """Two transactions that each check what the other changes cannot both have found it unchanged."""
        one, other = databases

        def put_unless(taken: Tag, mine: Tag) -> Steps[bool]:
            if (yield from tags.find(REPOSITORY, taken)) is not None:
                return False
            yield from tags.put(REPOSITORY, mine, DIGEST, NODE, 1.0)
            return True

        for round_number in range(10):
            a, b = Tag(f"a{round_number}"), Tag(f"b{round_number}")
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(one.write(partial(put_unless, a, b))),
                    group.create_task(other.write(partial(put_unless, b, a))),
                ]
            assert sorted(task.result() for task in tasks) == [False, True]

    async def test_concurrent_creation_of_one_thing_settles(self, databases: tuple[Database, Database]) -> None:
        def create(by: str) -> Steps[str]:
            yield from repositories.create(Repository(REPOSITORY, 1.0, by, MutabilityRule()))
            found = yield from repositories.find(REPOSITORY)
            assert found is not None
            return found.created_by

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(databases[number % 2].write(partial(create, f"writer {number}")))
                for number in range(16)
            ]
        assert len({task.result() for task in tasks}) == 1
        assert await databases[0].read(repositories.count()) == 1


class TestCancellation:
    @pytest.mark.parametrize("turns", range(1, 8))
    async def test_a_write_whose_caller_leaves_happens(self, database: Database, turns: int) -> None:
        writing = asyncio.create_task(database.write(move_tag))  # noqa: TID251 - cancelled below
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        assert writing.cancelled()
        await database.close()  # finishes what is under way
        await database.open()
        assert await counter(database) == 1
        assert (await database.write(move_tag)).revision.counter == 2

    async def test_callers_that_leave_do_not_harm_others(self, database: Database) -> None:
        leaving: list[asyncio.Task[Any]] = [asyncio.create_task(database.write(move_tag)) for _ in range(20)]  # noqa: TID251 - cancelled below
        leaving += [asyncio.create_task(database.read(repositories.count())) for _ in range(20)]  # noqa: TID251 - too
        staying = [asyncio.create_task(database.write(move_tag)) for _ in range(20)]  # noqa: TID251 - awaited below
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving + staying)
        results = [task.result().revision.counter for task in staying]
        assert len(set(results)) == 20
        await database.close()  # finishes what is under way
        await database.open()
        assert await counter(database) == 40

    async def test_an_error_after_the_caller_left_is_not_reported_as_lost(self, database: Database) -> None:
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        task = asyncio.create_task(database.write(create_then_fail))  # noqa: TID251 - cancelled below
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await database.close()  # finishes what is under way
        await database.open()
        await asyncio.sleep(0)
        del task
        gc.collect()
        assert complaints == []


class TestOpening:
    async def test_what_was_written_is_there_after_a_restart(self, database_bench: DatabaseBench) -> None:
        for counter_now in range(1, 4):
            database = database_bench.new_database()
            await database.open()
            assert (await database.write(move_tag)).revision.counter == counter_now
            await database.close()

    async def test_a_closed_database_refuses(self, database_bench: DatabaseBench) -> None:
        database = database_bench.new_database()
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await database.read(repositories.count())
            with pytest.raises(StorageUnavailable):
                await database.write(move_tag)
            await database.open()
            await database.close()
            await database.close()

    async def test_closing_finishes_what_is_under_way_and_refuses_what_comes(
        self, database_bench: DatabaseBench
    ) -> None:
        database = database_bench.new_database()
        await database.open()
        writes = [asyncio.create_task(outcome(database, move_tag)) for _ in range(50)]  # noqa: TID251 - awaited below
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.close())  # noqa: TID251 - awaited below
        late = []
        while not closing.done():
            late.append(asyncio.create_task(outcome(database, move_tag)))  # noqa: TID251 - awaited below
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            results = [await write for write in writes]
            too_late = [await write for write in late]
        assert all(isinstance(result, TagRegister) for result in results)
        assert too_late
        acknowledged = 50 + sum(isinstance(result, TagRegister) for result in too_late)
        assert all(isinstance(result, TagRegister | StorageUnavailable) for result in too_late)
        database = database_bench.new_database()
        await database.open()
        assert await counter(database) == acknowledged
        await database.close()

    async def test_a_store_is_claimed_once_and_for_all(self, database: Database) -> None:
        await database.write(lambda: node.claim(NODE))
        await database.write(lambda: node.claim(NODE))
        with pytest.raises(StorageError, match=f"belongs to node {NODE}, not to {OTHER_NODE}"):
            await database.write(lambda: node.claim(OTHER_NODE))


class TestValues:
    async def test_every_value_comes_back_as_it_was_stored(self, database: Database) -> None:
        entry = CacheEntry(REPOSITORY, LATEST, "hub é 🐳 '\"\\ %s $1 :x", DIGEST, 1.5, 2.0, 1e-9, None, "")
        session = UploadSession("id", REPOSITORY, "", "sha256", 1_750_000_000.123456, 2.0**53)

        def steps() -> Steps[None]:
            yield from cache_entries.put(entry)
            yield from uploads.create(session)

        await database.write(steps)
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) == entry
        assert await database.read(uploads.find("id")) == session

    async def test_types_are_the_plain_ones(self, database: Database) -> None:
        values: dict[str, Value] = {
            "text": "t",
            "bytes": b"\0\xff",
            "integer": 2**62,
            "small": 1,
            "number": 1.0,
            "none": None,
        }
        columns = {
            "text": ("images", "origin"),
            "bytes": ("manifests", "content"),
            "integer": ("blobs", "size"),
            "small": ("jobs", "attempts"),
            "number": ("blobs", "verified_at"),
            "none": ("images", "subject"),
        }
        echo = Statement(
            sa.select(
                *(
                    sa.cast(sa.bindparam(name), metadata.tables[table].c[column].type).label(f"column_{name}")
                    for name, (table, column) in columns.items()
                )
            )
        )
        (row,) = await database.read(echo(**values))
        assert tuple(row) == tuple(values.values())
        assert [type(value) for value in row] == [type(value) for value in values.values()]

    async def test_a_whole_number_in_a_column_of_times_comes_back_as_a_float(self, database: Database) -> None:
        await database.write(lambda: uploads.create(UploadSession("id", REPOSITORY, "", "sha256", 1, 2)))
        session = await database.read(uploads.find("id"))
        assert session is not None
        assert type(session.started_at) is float

    async def test_bytes_of_any_kind_and_megabytes_of_them(self, database: Database) -> None:
        content = bytes(range(256)) * 4096 * 4
        put = Statement(
            sa.insert(metadata.tables["manifests"]).values(
                digest=sa.bindparam("digest"), media_type="m", content=sa.bindparam("content")
            )
        )
        get = Statement(sa.select(metadata.tables["manifests"].c.content))
        await database.write(lambda: put(digest=DIGEST, content=content))
        ((stored,),) = await database.read(get())
        assert stored == content
        assert type(stored) is bytes

    @pytest.mark.parametrize("text", ["a\0b", "\ud800", "ok\udfff"])
    async def test_text_that_cannot_be_stored_is_refused_as_input(self, database: Database, text: str) -> None:
        with pytest.raises(InvalidInput):
            await database.write(lambda: repositories.create(a_repository(text)))
        assert await database.read(repositories.count()) == 0
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_a_number_that_cannot_be_stored_is_refused_as_input(self, database: Database) -> None:
        with pytest.raises(InvalidInput):
            await database.write(lambda: repositories.names_after("", 2**70))
        with pytest.raises(InvalidInput):
            await database.read(repositories.names_after("", 2**70))
        assert await database.read(repositories.names_after("", 10)) == []

    async def test_reading_by_half_a_surrogate_pair_is_refused_as_input(self, database: Database) -> None:
        with pytest.raises(InvalidInput):
            await database.read(images.referrers(REPOSITORY, DIGEST, "\ud800", "", 10))


async def counter(database: Database) -> int:
    state = await database.read(tags.find(REPOSITORY, LATEST))
    return state.revision.counter if state else 0


async def repeat(database: Database, body: Body[Any], times: int) -> None:
    for _ in range(times):
        await database.write(body)


async def outcome(database: Database, body: Body[Any]) -> object:
    try:
        return await database.write(body)
    except (StorageError, RepositoryNotFound) as error:
        return error


def an_upload() -> UploadSession:
    return UploadSession("id", REPOSITORY, "", "sha256", 1.0, 2.0)
