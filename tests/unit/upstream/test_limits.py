"""What an upstream is asked at most."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from replicator.core.names import RepositoryName
from replicator.upstream.limits import ByteRate, RequestRate
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
