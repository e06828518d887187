"""The rows of events and their deliveries, shown on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from replicator.core.event_sinks import DeliveryState
from replicator.storage.metadata import event_deliveries as deliveries
from replicator.storage.metadata import events
from replicator.storage.metadata.events import NewEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.event_deliveries import LeasedDelivery

SINK, OTHER = "ci", "audit"
A, B = "team/app@sha256:a", "team/app@sha256:b"


def event(name: str, subject: str = A) -> NewEvent:
    return NewEvent(name, "ECR Image Action", subject, {"id": name})


async def put(database: Database, name: str, *sinks: tuple[str, str], now: float = 1.0) -> None:
    await database.write(lambda: events.put(event(name, sinks[0][1]), sinks, now))


async def lease(database: Database, now: float = 10.0, limit: int = 10, sink: str = SINK) -> list[LeasedDelivery]:
    return await database.write(lambda: deliveries.lease(sink, "me", now, now + 30, limit))


async def names(database: Database, leased: Sequence[LeasedDelivery]) -> list[str]:
    return [(await database.read(events.get(one.event))).event_id for one in leased]


class TestEvents:
    async def test_an_event_is_stored_once_and_found_by_its_id(self, database: Database) -> None:
        await put(database, "e1", (SINK, A), (OTHER, ""))
        found = await database.read(events.find("e1"))
        assert found is not None
        assert (found.event_id, found.subject, found.document, found.created_at) == ("e1", A, {"id": "e1"}, 1.0)
        assert await database.read(events.find("e2")) is None
        waiting = await database.read(deliveries.of_event(found.id))
        assert [(one.sink, one.state) for one in waiting] == [
            (OTHER, DeliveryState.QUEUED),
            (SINK, DeliveryState.QUEUED),
        ]

    async def test_a_change_that_is_rolled_back_leaves_no_event(self, database: Database) -> None:
        def changed() -> object:
            yield from events.put(event("e1"), [(SINK, A)], 1.0)
            raise LookupError("made up")

        with pytest.raises(LookupError):
            await database.write(changed)  # type: ignore[arg-type]
        assert await database.read(events.latest(10)) == []
        assert await database.read(deliveries.counts()) == []

    async def test_the_latest_come_first_page_by_page(self, database: Database) -> None:
        for name in ("e1", "e2", "e3"):
            await put(database, name, (SINK, A))
        first = await database.read(events.latest(2))
        assert [one.event_id for one in first] == ["e3", "e2"]
        rest = await database.read(events.latest(2, first[-1].id))
        assert [one.event_id for one in rest] == ["e1"]

    async def test_settled_events_are_forgotten_by_age_and_by_number(self, database: Database) -> None:
        for number in range(5):
            await put(database, f"e{number}", (SINK, f"image-{number}"), now=float(number))
        for one in await lease(database, limit=4):
            await database.write(lambda one=one: deliveries.complete(one, 10.0))  # type: ignore[misc]
        assert await database.write(lambda: events.forget(2.0, 100, 100)) == 2
        assert [one.event_id for one in await database.read(events.latest(10))] == ["e4", "e3", "e2"]
        assert await database.write(lambda: events.forget(0.0, 2, 100)) == 1
        assert await database.write(lambda: events.forget(100.0, 0, 100)) == 1
        assert [one.event_id for one in await database.read(events.latest(10))] == ["e4"], (
            "one is still to be delivered"
        )


class TestOrder:
    async def test_only_the_head_of_a_row_is_leased_and_others_overtake(self, database: Database) -> None:
        for name, row in (("a1", A), ("a2", A), ("b1", B), ("a3", A)):
            await put(database, name, (SINK, row))
        leased = await lease(database)
        assert await names(database, leased) == ["a1", "b1"]
        assert await lease(database) == []
        await database.write(lambda: deliveries.complete(leased[0], 10.0))
        following = await lease(database)
        assert await names(database, following) == ["a2"]

    async def test_what_waits_for_a_retry_holds_up_its_row_and_no_other(self, database: Database) -> None:
        for name, row in (("a1", A), ("a2", A), ("b1", B)):
            await put(database, name, (SINK, row))
        leased = await lease(database)
        assert await database.write(lambda: deliveries.release(leased[0], 50.0, "no"))
        assert await database.write(lambda: deliveries.complete(leased[1], 10.0))
        assert await lease(database, 49.0) == []
        again = await lease(database, 50.0)
        assert await names(database, again) == ["a1"]
        assert again[0].attempts == 2

    async def test_what_is_given_up_lets_the_next_go_on(self, database: Database) -> None:
        for name in ("a1", "a2"):
            await put(database, name, (SINK, A))
        (first,) = await lease(database)
        assert await database.write(lambda: deliveries.bury(first, 11.0, "too often"))
        assert await names(database, await lease(database, 11.0)) == ["a2"]
        (dead,) = await database.read(deliveries.dead(None, 0, 10))
        assert (dead.sink, dead.state, dead.attempts, dead.error) == (SINK, DeliveryState.DEAD, 1, "too often")

    async def test_sinks_do_not_wait_for_each_other(self, database: Database) -> None:
        await put(database, "a1", (SINK, A), (OTHER, A))
        await put(database, "a2", (SINK, A), (OTHER, A))
        (first,) = await lease(database)
        await database.write(lambda: deliveries.complete(first, 10.0))
        assert await names(database, await lease(database)) == ["a2"]
        assert await names(database, await lease(database, sink=OTHER)) == ["a1"]

    async def test_events_of_one_transaction_stand_in_order(self, database: Database) -> None:
        def several() -> object:
            for name in ("a1", "a2", "a3"):
                yield from events.put(event(name), [(SINK, A)], 1.0)

        await database.write(several)  # type: ignore[arg-type]
        got = []
        for _ in range(3):
            (leased,) = await lease(database)
            got += await names(database, [leased])
            await database.write(lambda leased=leased: deliveries.complete(leased, 10.0))  # type: ignore[misc]
        assert got == ["a1", "a2", "a3"]

    async def test_a_stream_takes_what_follows_along(self, database: Database) -> None:
        for name in ("e1", "e2", "e3", "e4"):
            await put(database, name, (SINK, ""))
        (head,) = await lease(database)
        behind = await database.read(deliveries.following(head, 2))
        assert len(behind) == 2
        assert await database.write(lambda: deliveries.complete(head, 10.0, behind))
        assert await names(database, await lease(database)) == ["e4"]

    async def test_concurrent_changes_of_one_image_stand_in_one_row(self, databases: tuple[Database, Database]) -> None:
        one, two = databases
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(put((one, two)[number % 2], f"e{number}", (SINK, A)))
        got: list[int] = []
        for _ in range(8):
            (leased,) = await lease((one, two)[len(got) % 2])
            got.append(leased.event)
            await one.write(lambda leased=leased: deliveries.complete(leased, 10.0))  # type: ignore[misc]
        assert got == sorted(got)
        assert await one.read(deliveries.counts()) == []


class TestLeases:
    async def test_a_lease_that_ran_out_is_free_and_its_holder_can_settle_nothing(self, database: Database) -> None:
        await put(database, "a1", (SINK, A))
        (lost,) = await lease(database, 10.0)
        assert await lease(database, 39.0) == []
        (again,) = await database.write(lambda: deliveries.lease(SINK, "you", 40.0, 70.0, 10))
        assert again.attempts == 2
        assert not await database.write(lambda: deliveries.complete(lost, 41.0))
        assert not await database.write(lambda: deliveries.release(lost, 99.0, "late"))
        assert not await database.write(lambda: deliveries.bury(lost, 41.0, "late"))
        assert await database.write(lambda: deliveries.complete(again, 41.0))

    async def test_what_is_given_back_counts_as_never_tried(self, database: Database) -> None:
        await put(database, "a1", (SINK, A))
        await lease(database)
        await database.write(lambda: deliveries.give_up(SINK, "me"))
        (again,) = await lease(database)
        assert again.attempts == 1
        await database.write(deliveries.free_all)
        assert len(await lease(database)) == 1

    async def test_no_more_than_asked_for_and_the_first_due_first(self, database: Database) -> None:
        for number in range(5):
            await put(database, f"e{number}", (SINK, f"image-{number}"), now=float(number))
        assert await names(database, await lease(database, 3.0, 2)) == ["e0", "e1"]
        assert await names(database, await lease(database, 3.0)) == ["e2", "e3"]
        assert await database.read(deliveries.next_due(SINK)) == 4.0
        assert await database.read(deliveries.next_due(OTHER)) is None

    async def test_a_clock_that_ran_ahead_puts_nothing_off_for_long(self, database: Database) -> None:
        await put(database, "a1", (SINK, A), now=10_000.0)
        await put(database, "b1", (SINK, B), now=1.0)
        await database.write(lambda: deliveries.lease(SINK, "me", 5.0, 20_000.0, 1))
        await database.write(lambda: deliveries.pull_in(10.0, 100.0))
        assert sorted(await names(database, await lease(database, 10.0))) == ["a1", "b1"]


class TestDeadLetters:
    async def bury(self, database: Database, *rows: str) -> None:
        for number, row in enumerate(rows):
            await put(database, f"e{number}", (SINK, row))
        for one in await lease(database):
            await database.write(lambda one=one: deliveries.bury(one, 20.0, "no"))  # type: ignore[misc]

    async def test_they_are_listed_revived_and_discarded(self, database: Database) -> None:
        await self.bury(database, A, B)
        found = await database.read(deliveries.dead(SINK, 0, 10))
        assert [one.event for one in found] == [one.event for one in await database.read(deliveries.dead(None, 0, 10))]
        assert await database.read(deliveries.dead(OTHER, 0, 10)) == []
        first, second = found
        assert [one.event for one in await database.read(deliveries.dead(None, first.event, 10))] == [second.event]
        assert await database.write(lambda: deliveries.revive(first.event, SINK, 30.0))
        assert not await database.write(lambda: deliveries.revive(first.event, SINK, 30.0))
        (leased,) = await lease(database, 30.0)
        assert (leased.event, leased.attempts, leased.enqueued_at) == (first.event, 1, 30.0)
        assert await database.write(lambda: deliveries.discard(second.event, SINK))
        assert not await database.write(lambda: deliveries.discard(second.event, SINK))
        assert not await database.write(lambda: deliveries.discard(first.event, SINK)), "it is not dead"

    async def test_a_revived_one_stands_behind_what_its_row_holds(self, database: Database) -> None:
        await self.bury(database, A)
        (dead,) = await database.read(deliveries.dead(SINK, 0, 10))
        await put(database, "later", (SINK, A))
        assert await database.write(lambda: deliveries.revive(dead.event, SINK, 30.0))
        (head,) = await lease(database, 30.0)
        assert await names(database, [head]) == ["later"]
        await database.write(lambda: deliveries.complete(head, 31.0))
        assert [one.event for one in await lease(database, 31.0)] == [dead.event]

    async def test_old_ones_and_those_of_nobody_are_forgotten(self, database: Database) -> None:
        await self.bury(database, A, B)
        assert await database.write(lambda: deliveries.forget_dead(20.0, 100)) == 0
        assert await database.write(lambda: deliveries.forget_dead(20.1, 1)) == 1
        await put(database, "x", (OTHER, A), now=50.0)
        assert await database.read(deliveries.sinks()) == [OTHER, SINK]
        assert await database.write(lambda: deliveries.drop_sink(OTHER, 50.0)) == 0
        assert await database.write(lambda: deliveries.drop_sink(OTHER, 51.0)) == 1
        assert await database.read(deliveries.sinks()) == [SINK]


async def test_whatever_happens_each_row_has_one_head_and_is_delivered_in_order(database: Database) -> None:
    chance = random.Random(7)  # noqa: S311 - any numbers
    rows, now, made = [f"image-{number}" for number in range(4)], 0.0, 0
    delivered: dict[str, list[int]] = {row: [] for row in rows}
    for _ in range(80):
        now += 1.0
        if made < 40 and chance.random() < 0.6:
            row = chance.choice(rows)
            await put(database, f"e{made}", (SINK, row), now=now)
            made += 1
        for one in await lease(database, now, chance.randint(0, 3)):
            outcome = chance.random()
            if outcome < 0.5:
                assert await database.write(lambda one=one, now=now: deliveries.complete(one, now))  # type: ignore[misc]
                delivered[one.row].append(one.event)
            elif outcome < 0.8:
                retry_at = now + chance.randint(0, 5)
                await database.write(lambda one=one, at=retry_at: deliveries.release(one, at, "no"))  # type: ignore[misc]
            else:
                await database.write(lambda: deliveries.give_up(SINK, "me"))
                break
    for _ in range(200):
        now += 10.0
        leased = await lease(database, now)
        assert len({one.row for one in leased}) == len(leased)
        if not leased:
            break
        for one in leased:
            await database.write(lambda one=one, now=now: deliveries.complete(one, now))  # type: ignore[misc]
            delivered[one.row].append(one.event)
    assert sum(map(len, delivered.values())) == made
    assert all(found == sorted(found) for found in delivered.values())
