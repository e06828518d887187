"""What an upstream is asked at most."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName
from replicator.upstream.limits import ByteRate, RequestRate, Slots
from replicator.upstream.urgency import background, is_background
from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ALPINE = RepositoryName("library/alpine")


class TestByteRate:
    async def test_is_kept_on_average(self) -> None:
        clock = FakeClock(auto=True)
        rate, began = ByteRate(1000, clock), clock.monotonic()
        for _ in range(40):
            await rate.take(100)
        assert clock.monotonic() - began == pytest.approx((4000 - 250) / 1000)

    async def test_piece_larger_than_the_burst_passes(self) -> None:
        clock = FakeClock(auto=True)
        rate, began = ByteRate(1000, clock), clock.monotonic()
        await rate.take(10_000)
        assert clock.monotonic() - began == pytest.approx(9.75)

    async def test_idle_time_is_not_saved_up(self) -> None:
        clock = FakeClock(auto=True)
        rate = ByteRate(1000, clock)
        clock.advance(3600)
        began = clock.monotonic()
        await rate.take(1250)
        assert clock.monotonic() - began == pytest.approx(1.0)

    async def test_is_shared_by_all_who_move_bytes(self) -> None:
        clock = FakeClock()
        rate = ByteRate(1000, clock)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(rate.take(1000)) for _ in range(3)]
            await clock.sleepers(3)
            for expected in (1, 2, 3):
                clock.advance(1.0)
                for _ in range(3):
                    await asyncio.sleep(0)
                assert sum(reader.done() for reader in readers) == expected

    async def test_binds_blobs_in_both_directions(self, upstream: FakeRegistry) -> None:
        clock = FakeClock(auto=True)
        digest = upstream.add_blob(ALPINE, b"x" * 100_000)
        async with client_of(upstream, clock, bytes_per_second=10_000) as client:
            began = clock.monotonic()
            async with client.open_blob(ALPINE, digest) as stream:
                content = b"".join([chunk async for chunk in stream.chunks])
            assert clock.monotonic() - began == pytest.approx(9.75)

            async def source() -> AsyncIterator[bytes]:
                yield content

            await client.put_blob(RepositoryName("copy"), digest, len(content), lambda _: source())
            assert clock.monotonic() - began == pytest.approx(19.75)


class TestRequestRate:
    async def test_is_kept(self) -> None:
        rate, began = RequestRate(50), time.monotonic()  # the package behind it knows no clock but the system's
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(rate.take())
        assert time.monotonic() - began >= 0.2

    async def test_below_one_a_second_works(self) -> None:
        rate = RequestRate(0.5)
        await rate.take()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await rate.take()

    async def test_binds_requests(self, upstream: FakeRegistry) -> None:
        async with client_of(upstream, requests_per_second=20) as client:
            began = time.monotonic()
            for _ in range(3):
                await client.ping()
            assert time.monotonic() - began >= 0.09


class TestConnections:
    async def test_are_limited_across_calls(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, max_connections=3) as client:
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(client.ping())
                await upstream.seen("*", 3)
                for _ in range(20):
                    await asyncio.sleep(0)
                assert upstream.open_answers == 3
                hold.release()
            assert upstream.count() == 8

    async def test_of_one_upstream_are_not_taken_by_another(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        async with FakeRegistry() as stuck:
            stuck.faults.on("*", Fault(hold=hold))
            async with (
                client_of(stuck, max_connections=1) as slow,
                client_of(upstream, max_connections=1) as quick,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(slow.ping())
                await hold.reached()
                await quick.ping()
                hold.release()


class TestUrgency:
    """Whoever somebody waits for goes first; what can wait leaves room."""

    @pytest.mark.parametrize(("connections", "at_most"), [(1, 1), (2, 1), (3, 1), (8, 4)])
    async def test_background_work_takes_half_of_the_connections_at_most(
        self, upstream: FakeRegistry, connections: int, at_most: int
    ) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, max_connections=connections) as client, asyncio.TaskGroup() as group:
            with background():
                for _ in range(2 * connections):
                    group.create_task(client.ping())
            await upstream.seen("*", at_most)
            await settle()
            assert upstream.open_answers == at_most
            for _ in range(connections):
                group.create_task(client.blob_exists(ALPINE, digest_of(b"none")))
            await upstream.seen("*", connections)
            await settle()
            assert upstream.open_answers == connections
            assert upstream.count("HEAD *") == connections - at_most
            hold.release()

    async def test_interactive_work_overtakes_what_waits_in_the_background(self) -> None:
        slots, order = Slots(1), []

        async def take(name: str) -> None:
            async with slots.hold():
                order.append(name)

        async with asyncio.TaskGroup() as group, slots.hold():
            with background():
                for number in range(3):
                    group.create_task(take(f"background {number}"))
            await settle()
            for number in range(3):
                group.create_task(take(f"interactive {number}"))
            await settle()
        assert order == [*(f"interactive {n}" for n in range(3)), *(f"background {n}" for n in range(3))]

    async def test_of_the_caller_is_inherited_by_what_it_sets_off(self) -> None:
        found: list[bool] = []

        async def look() -> None:
            found.append(is_background())

        async with asyncio.TaskGroup() as group:
            with background():
                group.create_task(look())
            group.create_task(look())
        assert found == [True, False]

    async def test_request_rate_serves_the_interactive_first(self) -> None:
        rate, order = RequestRate(10), []

        async def take(name: str) -> None:
            await rate.take()
            order.append(name)

        async with asyncio.TaskGroup() as group:
            await rate.take()
            with background():
                group.create_task(take("waits"))  # it is this one's turn already
                group.create_task(take("background"))
            await settle()
            group.create_task(take("interactive"))
        assert order.index("interactive") < order.index("background")


class TestSlots:
    @pytest.mark.parametrize("in_background", [True, False])
    async def test_one_that_leaves_the_queue_takes_nothing_with_it(self, *, in_background: bool) -> None:
        slots = Slots(1)
        async with asyncio.TaskGroup() as group:
            async with slots.hold():
                with background() if in_background else nullcontext():
                    waiting = group.create_task(hold(slots))
                await settle()
                waiting.cancel()
                await settle()
            await hold(slots)
        assert waiting.cancelled()

    async def test_one_that_leaves_the_queue_is_forgotten(self) -> None:
        slots, waiting = Slots(1), list[asyncio.Task[None]]()
        async with slots.hold(), asyncio.TaskGroup() as group:
            for kind in (background, nullcontext):
                with kind():
                    waiting.append(group.create_task(hold(slots)))
            await settle()
            assert (len(slots._interactive), len(slots._background)) == (1, 1)
            for task in waiting:
                task.cancel()
            await settle()
            assert (len(slots._interactive), len(slots._background)) == (0, 0)

    async def test_share_of_background_work_stays_as_it_is(self) -> None:
        slots = Slots(4)
        for kind in (nullcontext, nullcontext, nullcontext, background):
            with kind():
                await hold(slots)
        assert (slots._free, slots._background_free) == (4, 2)

    @pytest.mark.parametrize("in_background", [True, False])
    async def test_one_that_leaves_as_its_turn_comes_passes_it_on(self, *, in_background: bool) -> None:
        slots = Slots(1)
        async with asyncio.TaskGroup() as group:
            async with slots.hold():
                with background() if in_background else nullcontext():
                    leaving = group.create_task(hold(slots))
                    next_one = group.create_task(hold(slots))
                await settle()
            leaving.cancel()  # its turn has come, and it does not know yet
            await next_one
            await hold(slots)
        assert leaving.cancelled()

    async def test_one_that_was_cancelled_but_is_still_queued_is_passed_over(self) -> None:
        slots = Slots(1)
        async with asyncio.TaskGroup() as group:
            async with slots.hold():
                leaving = group.create_task(hold(slots))
                next_one = group.create_task(hold(slots))
                await settle()
                leaving.cancel()
            await next_one
        assert leaving.cancelled()

    async def test_never_hold_more_than_there_are(self) -> None:
        slots, inside, most = Slots(4), 0, 0

        async def work(number: int) -> None:
            nonlocal inside, most
            with background() if number % 3 else nullcontext():
                async with slots.hold():
                    inside += 1
                    most = max(most, inside)
                    for _ in range(number % 5):
                        await asyncio.sleep(0)
                    inside -= 1

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work(number)) for number in range(200)]
            for number in range(0, 200, 7):
                await asyncio.sleep(0)
                tasks[number].cancel()
        assert most == 4
        async with slots.hold(), slots.hold(), slots.hold(), slots.hold():
            pass


async def hold(slots: Slots) -> None:
    async with slots.hold():
        await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)
