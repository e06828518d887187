"""Nobody waits without end, and who leaves leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from replicator.core.errors import UpstreamTimeout
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.body import SLOWEST_RATE, Patience
from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.upstream.client import UpstreamClient

ALPINE, TAG = RepositoryName("library/alpine"), Tag("3.20")
LAYER = b"x" * 1_000_000
SHORT = 0.1
LONG = 1.0
"""Seconds, where something else has to succeed within it, however busy the machine is."""


async def read(client: UpstreamClient, digest: Digest, received: list[int]) -> None:
    """Read a blob to its end, noting the length of each chunk."""
    async with client.open_blob(ALPINE, digest) as stream:
        async for chunk in stream.chunks:
            received.append(len(chunk))  # noqa: PERF401 -- what came before a failure is kept


class TestLimits:
    async def test_answer_that_never_begins(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, stall_timeout=SHORT) as client:
            for call in (client.get_manifest(ALPINE, TAG), client.head_manifest(ALPINE, TAG), client.ping()):
                with pytest.raises(UpstreamTimeout, match="no answer in time"):
                    await call
        hold.release()

    async def test_small_answer_that_takes_too_long_altogether(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, total_timeout=SHORT) as client:
            with pytest.raises(UpstreamTimeout):
                await client.get_manifest(ALPINE, TAG)
        hold.release()

    async def test_blob_that_never_begins(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, total_timeout=SHORT) as client:
            with pytest.raises(UpstreamTimeout):
                async with client.open_blob(ALPINE, digest):
                    pass
        hold.release()

    async def test_blob_that_stalls_midway(self, upstream: FakeRegistry) -> None:
        """A body that stops moving is given up after the stall timeout, however long the whole may take."""
        hold, received = Hold(), list[int]()
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*", Fault(hold=hold, hold_after=300_000))
        async with client_of(upstream, stall_timeout=SHORT) as client:
            with pytest.raises(UpstreamTimeout):
                await read(client, digest, received)
        assert sum(received) == 300_000
        hold.release()

    async def test_blob_longer_than_the_total_timeout_goes_on_while_it_moves(self, upstream: FakeRegistry) -> None:
        hold, received = Hold(), 0
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*", Fault(hold=hold, hold_after=1000))
        async with client_of(upstream, total_timeout=LONG) as client, client.open_blob(ALPINE, digest) as stream:
            async for chunk in stream.chunks:
                if not received:
                    await asyncio.sleep(1.2 * LONG)  # longer than a small request may take
                    hold.release()
                received += len(chunk)
        assert received == len(LAYER)

    async def test_blob_that_drips_is_given_up(self, upstream: FakeRegistry) -> None:
        """One byte now and then is a stall in disguise."""
        clock = FakeClock(auto=True)

        async def drip(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            response.content_length = 10_000
            await response.prepare(request)
            for _ in range(10_000):
                clock.advance(1.0)
                await response.write(b"x")
                await asyncio.sleep(0)
            return response

        upstream.faults.on("*", Fault(answer=drip))
        async with client_of(upstream, clock, stall_timeout=30) as client:
            with pytest.raises(UpstreamTimeout, match="bytes a second"):
                await read(client, upstream.add_blob(ALPINE, LAYER), [])

    async def test_waiting_for_a_connection_counts(self, upstream: FakeRegistry) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        async with (
            client_of(upstream, max_connections=1, total_timeout=LONG) as client,
            client.open_blob(ALPINE, digest),
        ):
            with pytest.raises(UpstreamTimeout):
                await client.ping()


class TestPatience:
    def test_restores_with_progress(self) -> None:
        patience = Patience(30, "fake")
        for _ in range(100):
            patience.received(int(20 * SLOWEST_RATE), after=20)

    def test_ends_with_dripping(self) -> None:
        patience = Patience(30, "fake")
        for _ in range(30):
            patience.received(1, after=1)
        with pytest.raises(UpstreamTimeout, match="fake"):
            patience.received(1, after=1)

    def test_does_not_save_up_credit(self) -> None:
        patience = Patience(30, "fake")
        patience.received(10**9, after=0)
        with pytest.raises(UpstreamTimeout):
            patience.received(1, after=31)


class TestCancellation:
    async def test_of_a_call_closes_its_connection(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream) as client:
            async with asyncio.TaskGroup() as group:
                call = group.create_task(client.get_manifest(ALPINE, TAG))
                await hold.reached()
                call.cancel()
            upstream.faults.clear()
            await client.ping()
        hold.release()

    async def test_of_a_blob_frees_its_connection(self, upstream: FakeRegistry) -> None:
        """With one connection allowed, the next call works only if the abandoned one was let go."""
        hold = Hold()
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(hold=hold, hold_after=10))
        async with client_of(upstream, max_connections=1) as client:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(read(client, digest, []))
                await hold.reached()
                reader.cancel()
            await client.ping()
        hold.release()

    async def test_leaving_a_blob_early_closes_its_connection(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        digest = upstream.add_blob(ALPINE, LAYER)
        upstream.faults.on("*/blobs/*", Fault(hold=hold, hold_after=10))
        async with client_of(upstream, max_connections=1) as client:
            async with client.open_blob(ALPINE, digest) as stream:
                assert await anext(stream.chunks)
            await client.ping()
            # Now it breaks on the upstream's side as well, which `idle` of the fixture would otherwise wait for.
            hold.release()

    async def test_failure_of_the_reader_passes_through_unchanged(self, upstream: FakeRegistry) -> None:
        """A full disk of ours is not the upstream's failure."""
        digest = upstream.add_blob(ALPINE, LAYER)
        async with client_of(upstream) as client:
            for error in (OSError(28, "no space left"), TimeoutError("mine"), ValueError("mine")):
                with pytest.raises(type(error)) as caught:
                    async with client.open_blob(ALPINE, digest):
                        raise error
                assert caught.value is error

    async def test_connection_is_used_again_after_a_whole_answer(self, upstream: FakeRegistry) -> None:
        digest = upstream.add_blob(ALPINE, LAYER)
        ports: set[object] = set()

        async def note(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            ports.add(request.transport.get_extra_info("peername"))
            return web.Response(body=LAYER)

        upstream.faults.on("*/blobs/*", Fault(answer=note))
        async with client_of(upstream) as client:
            for _ in range(3):
                async with client.open_blob(ALPINE, digest) as stream:
                    assert sum([len(chunk) async for chunk in stream.chunks]) == len(LAYER)
        assert len(ports) == 1
