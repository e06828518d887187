"""How failures are named: by what the caller can do, with the upstream and the reason, and without a secret."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import (
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.errors import failure
from tests.support.clock import FakeClock
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from replicator.upstream.client import UpstreamClient

ALPINE, TAG = RepositoryName("library/alpine"), Tag("3.20")


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, UpstreamContent),
        (304, UpstreamContent),
        (400, UpstreamRefused),
        (401, UpstreamDenied),
        (403, UpstreamDenied),
        (404, UpstreamNotFound),
        (405, UpstreamRefused),
        (407, UpstreamDenied),
        (408, UpstreamTimeout),
        (410, UpstreamNotFound),
        (413, UpstreamRefused),
        (425, UpstreamUnavailable),
        (429, UpstreamThrottled),
        (451, UpstreamRefused),
        (500, UpstreamUnavailable),
        (502, UpstreamUnavailable),
        (503, UpstreamUnavailable),
        (504, UpstreamTimeout),
        (507, UpstreamUnavailable),
    ],
)
async def test_status_is_named(
    upstream: FakeRegistry, client: UpstreamClient, clock: FakeClock, status: int, kind: type[UpstreamError]
) -> None:
    upstream.faults.on("/v2/*", Fault(status=status))
    for call in (client.get_manifest, client.head_manifest):
        clock.advance(3600)
        with pytest.raises(kind, match=f"fake: manifest 3.20 of library/alpine: answered {status}") as caught:
            await call(ALPINE, TAG)
        assert type(caught.value) is kind


class TestMessage:
    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            ({"errors": [{"code": "DENIED", "message": "no"}]}, "fake: answered 403 DENIED"),
            ({"errors": [{"code": "denied"}]}, "fake: answered 403 DENIED"),
            ({"errors": [{"code": "<script>"}]}, "fake: answered 403"),
            ({"errors": [{"code": 5}]}, "fake: answered 403"),
            ({"errors": []}, "fake: answered 403"),
            ({"errors": {}}, "fake: answered 403"),
            ([], "fake: answered 403"),
            (5, "fake: answered 403"),
        ],
    )
    def test_holds_the_code_and_nothing_else_of_the_upstream(self, document: object, expected: str) -> None:
        error = failure("fake", 403, {}, json.dumps(document).encode(), FakeClock().now)
        assert str(error) == expected

    @pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"<html>"])
    def test_survives_any_body(self, content: bytes) -> None:
        assert str(failure("fake", 500, {}, content, FakeClock().now)) == "fake: answered 500"

    async def test_does_not_wait_for_an_endless_error(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        """An error's body is read as far as its code may stand, then dropped."""
        hold = Hold()
        fault = Fault(status=500, body=b" " * 200_000, chunked=True, hold=hold, hold_after=100_000)
        upstream.faults.on("/v2/*", fault)
        with pytest.raises(UpstreamUnavailable):
            await client.get_manifest(ALPINE, TAG)
        hold.release()


class TestThrottling:
    def test_code_counts_as_much_as_the_status(self) -> None:
        content = json.dumps({"errors": [{"code": "TOOMANYREQUESTS"}]}).encode()
        assert isinstance(failure("fake", 403, {}, content, FakeClock().now), UpstreamThrottled)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [("120", 120.0), ("0", 0.0), ("-5", None), ("soon", None), ("", None), ("9" * 30, None)],
    )
    def test_retry_after_in_seconds_is_kept_whole(self, header: str, seconds: float | None) -> None:
        error = failure("fake", 429, {"Retry-After": header}, b"", FakeClock().now)
        assert error.retry_after == seconds

    def test_retry_after_as_a_date_is_counted_from_now(self) -> None:
        clock = FakeClock()
        header = formatdate(clock.now() + 3600, usegmt=True)
        error = failure("fake", 503, {"Retry-After": header}, b"", clock.now)
        assert error.retry_after == pytest.approx(3600, abs=1)

    async def test_is_respected_until_the_time_stated(self, upstream: FakeRegistry) -> None:
        """While the upstream wants no such requests it gets none; others go on."""
        clock = FakeClock(auto=True)
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("GET */manifests/*", Fault(status=429, headers={"Retry-After": "60"}), times=1)
        async with client_of(upstream, clock) as client:
            for left in (60, 59, 31):
                with pytest.raises(UpstreamThrottled) as caught:
                    await client.get_manifest(ALPINE, TAG)
                assert caught.value.retry_after == pytest.approx(left)
                clock.advance(1 if left == 60 else 28)
            assert upstream.count() == 1
            assert await client.blob_exists(ALPINE, image.config)
            clock.advance(4)
            assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest

    async def test_for_very_long_is_respected_to_the_full(self, upstream: FakeRegistry) -> None:
        clock = FakeClock(auto=True)
        upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*", Fault(status=429, headers={"Retry-After": "86400"}), times=1)
        async with client_of(upstream, clock) as client:
            for passed in (0, 86_000):
                clock.advance(passed)
                with pytest.raises(UpstreamThrottled) as caught:
                    await client.get_manifest(ALPINE, TAG)
                assert caught.value.retry_after == pytest.approx(86_400 - passed)
            clock.advance(401)
            await client.get_manifest(ALPINE, TAG)
        assert upstream.count() == 2

    async def test_binds_all_that_is_small_and_no_blob(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("HEAD */manifests/*", Fault(status=429, headers={"Retry-After": "60"}))
        with pytest.raises(UpstreamThrottled):
            await client.head_manifest(ALPINE, TAG)
        for call in (
            client.get_manifest(ALPINE, TAG),
            client.ping(),
            client.list_tags(ALPINE),
            client.list_referrers(ALPINE, image.digest),
        ):
            with pytest.raises(UpstreamThrottled, match="fake: asked us to slow down"):
                await call
        assert upstream.count() == 1
        assert await client.blob_exists(ALPINE, image.config)
        assert client.health.paused_for == {"manifests": pytest.approx(60)}

    async def test_of_blobs_leaves_manifests_alone(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*/blobs/*", Fault(status=429, headers={"Retry-After": "60"}))
        for _ in range(2):
            with pytest.raises(UpstreamThrottled):
                await client.blob_exists(ALPINE, image.config)
        await client.get_manifest(ALPINE, TAG)
        assert upstream.count("*/blobs/*") == 1

    async def test_by_a_service_that_is_down_is_respected_too(self, upstream: FakeRegistry, clock: FakeClock) -> None:
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*", Fault(status=503, headers={"Retry-After": "30"}), times=1)
        async with client_of(upstream, clock) as client:
            with pytest.raises(UpstreamUnavailable, match="answered 503"):
                await client.get_manifest(ALPINE, TAG)
            with pytest.raises(UpstreamUnavailable, match="fake: asked us to come back later") as caught:
                await client.get_manifest(ALPINE, TAG)
            assert caught.value.retry_after == pytest.approx(30)
            clock.advance(31)
            assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
        assert upstream.count() == 2

    async def test_binds_those_too_who_wait_for_a_connection(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(status=429, headers={"Retry-After": "60"}, hold=hold))
        async with client_of(upstream, max_connections=1) as client, asyncio.TaskGroup() as group:
            calls = [group.create_task(_failure(client.ping())) for _ in range(10)]
            await hold.reached()
            hold.release()
            failures = [await call for call in calls]
        assert all(isinstance(failure, UpstreamThrottled) for failure in failures)
        assert upstream.count() == 1

    async def test_is_not_shortened_by_an_answer_that_was_overtaken(self, upstream: FakeRegistry) -> None:
        clock, hold = FakeClock(auto=True), Hold()
        upstream.faults.on("HEAD *", Fault(status=429, headers={"Retry-After": "5"}, hold=hold))
        upstream.faults.on("GET *", Fault(status=429, headers={"Retry-After": "500"}))
        async with client_of(upstream, clock) as client, asyncio.TaskGroup() as group:
            late = group.create_task(_failure(client.head_manifest(ALPINE, TAG)))
            await hold.reached()
            await _failure(client.get_manifest(ALPINE, TAG))
            hold.release()
            assert (await late).retry_after == 5
            assert client.health.paused_for == {"manifests": pytest.approx(500)}

    async def test_without_a_time_makes_us_wait_longer_each_time(self, upstream: FakeRegistry) -> None:
        """Docker Hub's 429 states no time: no storm follows, and the wait begins short again after a success."""
        clock = FakeClock(auto=True)
        upstream.add_image(ALPINE, TAG)
        throttled = Fault(status=429, body=b'{"errors": [{"code": "TOOMANYREQUESTS"}]}')
        async with client_of(upstream, clock) as client:
            for longest in (30, 60, 120, 240, 480, 900, 900, 30):
                upstream.faults.on("*", throttled, times=1)
                asked = upstream.count()
                waits = [(await _failure(client.get_manifest(ALPINE, TAG))).retry_after or 0 for _ in range(50)]
                assert upstream.count() == asked + 1
                assert waits == pytest.approx([waits[0]] * 50)
                assert longest / 2 <= waits[0] <= longest
                clock.advance(waits[0] + 1)
                if upstream.count() == 7:
                    await client.get_manifest(ALPINE, TAG)

    async def test_without_a_time_counts_once_however_many_calls_were_under_way(self, upstream: FakeRegistry) -> None:
        hold = Hold()
        upstream.faults.on("*", Fault(status=429, hold=hold))
        async with client_of(upstream) as client, asyncio.TaskGroup() as group:
            calls = [group.create_task(_failure(client.ping())) for _ in range(10)]
            await upstream.seen("*", 10)
            hold.release()
            waits = [(await call).retry_after or 0 for call in calls]
            assert all(0 < wait <= 30 for wait in waits)


async def _failure(call: Awaitable[object]) -> UpstreamError:
    try:
        await call
    except UpstreamError as error:
        return error
    raise AssertionError("it did not fail")


class TestConnection:
    async def test_refused_is_unavailable_at_once(self) -> None:
        server = FakeServer()
        async with server:
            pass
        clock = FakeClock(auto=True)
        async with client_of(server, clock) as client:
            # Where a name leads to is not for whoever pulls.
            with pytest.raises(UpstreamUnavailable, match=r"^fake: ping: cannot connect \(Connection refused\)$"):
                await client.ping()
        assert clock.slept == []

    async def test_unknown_host_is_unavailable(self) -> None:
        server = FakeServer()
        async with client_of(server, url="http://registry.invalid") as client:
            with pytest.raises(UpstreamUnavailable, match="cannot be resolved"):
                await client.ping()

    @pytest.mark.parametrize("reset", [True, False])
    async def test_broken_before_the_answer_is_tried_once_more(
        self, upstream: FakeRegistry, client: UpstreamClient, *, reset: bool
    ) -> None:
        image = upstream.add_image(ALPINE, TAG)
        upstream.faults.on("*", Fault(drop=True, reset=reset), times=1)
        assert (await client.get_manifest(ALPINE, TAG)).digest == image.digest
        assert upstream.count() == 2
        upstream.faults.on("*", Fault(drop=True, reset=reset), times=1)
        await client.put_manifest(ALPINE, TAG, image.manifest, image.media_type)
        assert upstream.count("PUT *") == 2

    async def test_broken_start_of_an_upload_is_tried_once_more_after_a_pause(self, upstream: FakeRegistry) -> None:
        clock = FakeClock(auto=True)
        upstream.faults.on("POST *", Fault(drop=True), times=1)
        async with client_of(upstream, clock) as client:
            assert await client.put_blob(ALPINE, digest_of(b"layer"), 5, lambda _: _pieces(b"layer"))
        assert upstream.count("POST *") == 2
        (pause,) = clock.slept
        assert 0 < pause <= 1

    async def test_broken_twice_is_unavailable(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.faults.on("*", Fault(drop=True))
        with pytest.raises(UpstreamUnavailable, match="the connection was lost"):
            await client.get_manifest(ALPINE, TAG)
        assert upstream.count() == 2
        with pytest.raises(UpstreamUnavailable, match="the connection was lost"):
            await client.put_blob(ALPINE, digest_of(b"layer"), 5, lambda _: _pieces(b"layer"))
        assert upstream.count("POST *") == 2

    async def test_that_speaks_no_http_is_refused(self) -> None:
        async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(chatter, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, client_of(FakeServer(), url=f"http://127.0.0.1:{port}") as client:
            with pytest.raises(UpstreamContent, match="not HTTP"):
                await client.ping()


class TestOutcomes:
    async def test_are_observed_once_per_call(self, upstream: FakeRegistry) -> None:
        outcomes: list[tuple[str, str]] = []
        image = upstream.add_image(ALPINE, TAG)
        async with client_of(upstream, outcomes=outcomes) as client:
            await client.get_manifest(ALPINE, TAG)
            await client.blob_exists(ALPINE, image.config)
            async with client.open_blob(ALPINE, image.config) as stream:
                assert [chunk async for chunk in stream.chunks]
            for status in (401, 404, 500, 504, 400, 204, 429, 200):
                upstream.faults.on("*", Fault(status=status), times=1)
                with pytest.raises(UpstreamError):
                    await client.head_manifest(ALPINE, TAG)
        assert outcomes == [
            ("GET", "ok"),
            ("HEAD", "ok"),
            ("GET", "ok"),
            *[
                ("HEAD", outcome)
                for outcome in ("denied", "not_found", "unavailable", "timeout", "refused", "content", "throttled")
            ],
            ("HEAD", "not_asked"),
        ]

    async def test_of_a_blob_is_that_of_its_end(self, upstream: FakeRegistry) -> None:
        outcomes: list[tuple[str, str]] = []
        digest = upstream.add_blob(ALPINE, b"x" * 1000)
        upstream.faults.on("*", Fault(cut_after=10))
        async with client_of(upstream, outcomes=outcomes) as client:
            with pytest.raises(UpstreamContent):
                async with client.open_blob(ALPINE, digest) as stream:
                    assert not [chunk async for chunk in stream.chunks]
        assert outcomes == [("GET", "content")]


class TestRateLimit:
    async def test_is_read_from_the_answers(self, upstream: FakeRegistry, client: UpstreamClient) -> None:
        upstream.add_image(ALPINE, TAG)
        upstream.headers |= {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
        await client.head_manifest(ALPINE, TAG)
        seen = client.health.rate_limit
        assert seen is not None
        assert (seen.remaining, seen.limit, seen.window) == (76, 100, 21600)
        upstream.headers.clear()
        await client.ping()
        assert client.health.rate_limit == seen, "an answer that says nothing changes nothing"

    @pytest.mark.parametrize("value", ["", "many", "-1", "1" * 40])
    async def test_that_is_none_is_ignored(self, upstream: FakeRegistry, client: UpstreamClient, value: str) -> None:
        upstream.headers |= {"RateLimit-Remaining": value}
        await client.ping()
        assert client.health.rate_limit is None
