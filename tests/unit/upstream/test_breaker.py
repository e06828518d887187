"""An upstream that keeps failing is left alone, and asked again once it may have recovered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.circuit_breaker import BreakerState
from replicator.core.errors import StorageError, UpstreamContent, UpstreamError, UpstreamNotFound, UpstreamUnavailable
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.breaker import SILENCE
from replicator.upstream.endpoint import Credentials
from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Hold, Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.upstream.client import UpstreamClient

ALPINE, TAG = RepositoryName("library/alpine"), Tag("3.20")
THRESHOLD = 5
BLOB = b"x" * 1000


@pytest.fixture
async def client(upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[UpstreamClient]:
    async with client_of(upstream, clock, breaker=True) as opened:
        yield opened


async def fail(client: UpstreamClient, times: int = THRESHOLD) -> UpstreamError:
    """Make calls that fail; return the last one's error."""
    for _ in range(times - 1):
        with pytest.raises(UpstreamError):
            await client.get_manifest(ALPINE, TAG)
    with pytest.raises(UpstreamError) as caught:
        await client.get_manifest(ALPINE, TAG)
    return caught.value


async def read(client: UpstreamClient, digest: Any) -> bytes:
    async with client.open_blob(ALPINE, digest) as stream:
        return b"".join([chunk async for chunk in stream.chunks])


class TestOpens:
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault(status=500), "answered 500"),
            (Fault(status=503), "answered 503"),
            (Fault(status=504), "answered 504"),
            (Fault(drop=True), "the connection was lost"),
        ],
    )
    async def test_after_failures_in_a_row(
        self, upstream: FakeRegistry, client: UpstreamClient, fault: Fault, reason: str
    ) -> None:
        upstream.faults.on("*", fault)
        await fail(client)
        asked = upstream.count()
        error = await fail(client, 100)
        assert str(error) == f"fake: not asked, it failed 5 times in a row, last with: {reason}"
        assert isinstance(error, UpstreamUnavailable)
        assert 0 < (error.retry_after or 0) <= 2
        assert upstream.count() == asked, "a broken upstream gets no storm"
        assert client.health.breaker is BreakerState.OPEN

    async def test_for_an_upstream_that_cannot_be_reached(self) -> None:
        server = FakeServer()
        async with server:
            pass
        async with client_of(server, breaker=True) as client:
            await fail(client)
            assert "not asked" in str(await fail(client, 1))

    async def test_for_an_upstream_that_never_answers(self, upstream: FakeRegistry, clock: FakeClock) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, clock, breaker=True, total_timeout=0.05) as client:
            await fail(client)
            assert "not asked" in str(await fail(client, 1))
        hold.release()

    async def test_for_an_upstream_whose_callers_gave_up_waiting(self, upstream: FakeRegistry) -> None:
        """A caller that asks another registry when this one is silent says the same of it as a timeout."""
        clock, hold = FakeClock(), Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, clock, breaker=True) as client:
            for _ in range(THRESHOLD):
                await leave_after(SILENCE, client, upstream, clock)
            assert "not asked" in str(await fail(client, 1))
        hold.release()

    async def test_not_for_callers_that_left_at_once(self, upstream: FakeRegistry) -> None:
        clock, hold = FakeClock(), Hold()
        upstream.faults.on("*", Fault(hold=hold))
        async with client_of(upstream, clock, breaker=True) as client:
            for _ in range(2 * THRESHOLD):
                await leave_after(SILENCE - 1, client, upstream, clock)
            assert client.health.breaker is BreakerState.CLOSED
        hold.release()

    async def test_for_blobs_that_break_off_though_every_one_begins(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        digest = upstream.add_blob(ALPINE, BLOB)
        upstream.faults.on("*", Fault(cut_after=10))
        for _ in range(THRESHOLD):
            with pytest.raises(UpstreamContent):
                await read(client, digest)
        assert client.health.breaker is BreakerState.OPEN

    async def test_for_credentials_that_the_token_service_refuses(self) -> None:
        """A wrong password is not tried until the account is locked."""
        tokens = Tokens("ann", "correct-horse")
        async with (
            FakeRegistry(tokens=tokens) as upstream,
            client_of(upstream, credentials=Credentials("ann", "wrong"), breaker=True) as client,
        ):
            await fail(client, 50)
            assert upstream.count("/token") == THRESHOLD

    @pytest.mark.parametrize("status", [401, 403, 404, 400, 429, 204])
    async def test_not_for_answers_about_what_was_asked(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient, status: int
    ) -> None:
        upstream.faults.on("*", Fault(status=status))
        for _ in range(3 * THRESHOLD):
            await fail(client, 1)
            clock.advance(3600)
        assert upstream.count() == 3 * THRESHOLD
        assert client.health.breaker is BreakerState.CLOSED

    @pytest.mark.parametrize("status", [403, 404])
    async def test_not_for_repositories_that_the_token_service_denies(self, status: int) -> None:
        """Some token services refuse a token for what does not exist: typing errors must not cut a registry off."""
        async with FakeRegistry(tokens=Tokens()) as upstream, client_of(upstream, breaker=True) as client:
            upstream.faults.on("/token", Fault(status=status))
            await fail(client, 3 * THRESHOLD)
            assert client.health.breaker is BreakerState.CLOSED

    async def test_not_for_content_that_is_wrong(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*", Fault(body=b"<html>", content_type="text/html"))
        await fail(client, 3 * THRESHOLD)
        assert client.health.breaker is BreakerState.CLOSED

    async def test_not_when_a_success_lies_between(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.add_image(ALPINE, TAG)
        for _ in range(3):
            upstream.faults.on("*", Fault(status=500), times=THRESHOLD - 1)
            await fail(client, THRESHOLD - 1)
            await client.get_manifest(ALPINE, TAG)
        assert client.health.breaker is BreakerState.CLOSED

    async def test_not_while_our_own_connections_are_all_taken(self, upstream: FakeRegistry, clock: FakeClock) -> None:
        """Who waited in our own queue for too long says nothing about the upstream."""
        hold = Hold()
        digest = upstream.add_blob(ALPINE, BLOB)
        upstream.faults.on("*/blobs/*", Fault(hold=hold, hold_after=10))
        async with client_of(upstream, clock, breaker=True, max_connections=1, total_timeout=0.3) as client:
            async with client.open_blob(ALPINE, digest) as stream:
                await fail(client, THRESHOLD + 1)
                hold.release()
                assert b"".join([chunk async for chunk in stream.chunks]) == BLOB
            assert client.health.breaker is BreakerState.CLOSED

    async def test_not_for_failures_of_the_reader(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        digest = upstream.add_blob(ALPINE, BLOB)
        for _ in range(2 * THRESHOLD):
            with pytest.raises(StorageError):
                async with client.open_blob(ALPINE, digest):
                    raise StorageError
        assert client.health.breaker is BreakerState.CLOSED

    async def test_not_where_none_is_wanted(self, upstream: FakeRegistry) -> None:
        upstream.faults.on("*", Fault(status=500))
        async with client_of(upstream) as client:
            await fail(client, 3 * THRESHOLD)
            assert upstream.count() == 3 * THRESHOLD


class TestCloses:
    async def test_with_the_first_answer_after_the_pause(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient
    ) -> None:
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*", Fault(status=500), times=THRESHOLD)
        await fail(client)
        clock.advance(2)
        states = [client.health.breaker]
        assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
        states.append(client.health.breaker)
        assert states == [BreakerState.HALF_OPEN, BreakerState.CLOSED]

    async def test_also_with_an_answer_that_there_is_nothing(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient
    ) -> None:
        upstream.faults.on("*", Fault(status=500), times=THRESHOLD)
        await fail(client)
        clock.advance(2)
        with pytest.raises(UpstreamNotFound):
            await client.get_manifest(ALPINE, TAG)
        assert client.health.breaker is BreakerState.CLOSED

    async def test_one_call_tries_while_the_others_fail_at_once(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient
    ) -> None:
        hold = Hold()
        upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*", Fault(status=500), times=THRESHOLD)
        await fail(client)
        clock.advance(2)
        upstream.faults.on("*", Fault(hold=hold), times=1)
        async with asyncio.TaskGroup() as group:
            trying = group.create_task(client.get_manifest(ALPINE, TAG))
            await hold.reached()
            assert "not asked" in str(await fail(client, 20))
            hold.release()
        assert trying.result().media_type
        assert upstream.count() == THRESHOLD + 1

    async def test_a_large_blob_does_not_keep_the_others_waiting_for_its_end(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient
    ) -> None:
        hold = Hold()
        upstream.add_image(ALPINE, TAG)
        digest = upstream.add_blob(ALPINE, BLOB)
        upstream.faults.on("*", Fault(status=500), times=THRESHOLD)
        await fail(client)
        clock.advance(2)
        upstream.faults.on("*/blobs/*", Fault(hold=hold, hold_after=10))
        async with client.open_blob(ALPINE, digest) as stream:
            await client.get_manifest(ALPINE, TAG)
            hold.release()
            assert b"".join([chunk async for chunk in stream.chunks]) == BLOB

    async def test_a_failed_try_doubles_the_pause(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient
    ) -> None:
        upstream.faults.on("*", Fault(status=500))
        await fail(client)
        clock.advance(2)
        await fail(client, 1)
        assert upstream.count() == THRESHOLD + 1
        assert 2 <= ((await fail(client, 1)).retry_after or 0) <= 4

    async def test_a_try_that_is_given_up_lets_the_next_one_try(self, upstream: FakeRegistry) -> None:
        clock, hold = FakeClock(), Hold()
        image = upstream.add_image(ALPINE, TAG)
        async with client_of(upstream, clock, breaker=True) as client:
            upstream.faults.on("*", Fault(status=500), times=THRESHOLD)
            await fail(client)
            clock.advance(2)
            upstream.faults.on("*", Fault(hold=hold), times=1)
            await leave_after(0, client, upstream, clock)
            assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
        hold.release()

    async def test_a_range_beyond_the_end_is_asked_for_again_in_the_same_try(
        self, upstream: FakeRegistry, clock: FakeClock, client: UpstreamClient
    ) -> None:
        digest = upstream.add_blob(ALPINE, BLOB)
        upstream.faults.on("*", Fault(status=500), times=THRESHOLD)
        await fail(client)
        clock.advance(2)
        async with client.open_blob(ALPINE, digest, 5000) as stream:
            assert stream.start == 0
            assert b"".join([chunk async for chunk in stream.chunks]) == BLOB


class TestHealth:
    async def test_of_an_upstream_that_works(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.headers["RateLimit-Remaining"] = "7;w=60"
        await client.ping()
        health = client.health
        assert (health.breaker, health.paused_for, health.last_error) == (BreakerState.CLOSED, {}, None)
        assert health.rate_limit is not None
        assert health.rate_limit.remaining == 7

    async def test_says_why_the_last_call_failed_until_one_succeeds(
        self, upstream: FakeRegistry, client: UpstreamClient
    ) -> None:
        upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*", Fault(status=500), times=1)
        await fail(client, 1)
        assert client.health.last_error == "fake: manifest 3.20 of library/alpine: answered 500"
        await client.get_manifest(ALPINE, TAG)
        assert client.health.last_error is None

    async def test_keeps_the_reason_while_nothing_is_sent(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*", Fault(status=502))
        await fail(client, THRESHOLD + 1)
        assert "answered 502" in (client.health.last_error or "")


async def leave_after(seconds: float, client: UpstreamClient, upstream: FakeRegistry, clock: FakeClock) -> None:
    """Make a call that gets no answer, and give it up after so many seconds."""
    asked = upstream.count()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(client.get_manifest(ALPINE, TAG))
        await upstream.seen("*", asked + 1)
        clock.advance(seconds)
        call.cancel()
