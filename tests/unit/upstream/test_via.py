"""Who a request went through goes along with it, and one that comes back to us is told from other failures."""

from __future__ import annotations

import asyncio

import pytest

from replicator.core.errors import UpstreamError, UpstreamUnavailable
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.errors import UpstreamLoop
from replicator.upstream.via import incoming_via, is_loop_of_requester, on_behalf_of
from tests.support.upstream_clients import client_of
from tests.support.upstreams import FakeRegistry, FakeServer, Fault, Tokens

ALPINE, TAG = RepositoryName("library/alpine"), Tag("3.20")
OWN = "1.1 replicator-abc"


def via(server: FakeServer, pattern: str = "*") -> list[str | None]:
    return [request.headers.get("via") for request in server.asked(pattern)]


async def test_carries_our_entry_with_every_request() -> None:
    async with (
        FakeServer() as storage,
        FakeRegistry(tokens=Tokens()) as upstream,
        client_of(upstream, via=OWN) as client,
    ):
        digest = upstream.add_blob(ALPINE, b"layer")
        storage.faults.on("*", Fault(body=b"layer"))
        await client.blob_exists(ALPINE, digest)
        upstream.faults.on("*/blobs/*", Fault(redirect=f"{storage.url}/x"))
        async with client.open_blob(ALPINE, digest) as stream:
            assert [chunk async for chunk in stream.chunks]
        assert set(via(upstream) + via(storage)) == {OWN}
        assert upstream.count("/token") == 1


async def test_carries_the_entries_of_the_request_it_is_done_for(upstream: FakeRegistry) -> None:
    async with client_of(upstream, via=OWN) as client:
        with on_behalf_of(("1.1 one", "2 two")):
            await client.ping()
        await client.ping()
    assert via(upstream) == [f"1.1 one, 2 two, {OWN}", OWN]
    assert incoming_via() == ()


async def test_is_inherited_by_what_a_request_sets_off(upstream: FakeRegistry) -> None:
    async with client_of(upstream, via=OWN) as client, asyncio.TaskGroup() as group:
        with on_behalf_of(("1.1 one",)):
            detached = group.create_task(client.ping())
        await detached
    assert via(upstream) == [f"1.1 one, {OWN}"]


async def test_is_not_sent_where_the_endpoint_has_no_entry(upstream: FakeRegistry) -> None:
    async with client_of(upstream) as client:
        with on_behalf_of(("1.1 one",)):
            await client.ping()
    assert via(upstream) == [None]


async def test_loop_is_named_and_no_reason_to_try_again(upstream: FakeRegistry) -> None:
    upstream.faults.on("*", Fault(status=508))
    async with client_of(upstream, via=OWN, breaker=True) as client:
        for _ in range(20):
            with pytest.raises(
                UpstreamUnavailable, match=r"fake: .* answered 508, it leads back to this node"
            ) as caught:
                await client.get_manifest(ALPINE, TAG)
            assert not caught.value.retryable
    assert upstream.count() == 20, "what goes round in a circle for one repository is fine for another"


def test_a_circle_is_the_requesters_alone_when_its_client_said_whom_it_has_passed() -> None:
    assert not is_loop_of_requester(UpstreamLoop("it leads back"))
    with on_behalf_of(("1.1 other",)):
        assert is_loop_of_requester(UpstreamLoop("it leads back"))
        assert not is_loop_of_requester(UpstreamUnavailable("it is down"))


@pytest.mark.parametrize(
    ("stated", "age"),
    [("0", 0.0), ("17", 17.0), ("", 0.0), ("-5", 0.0), ("1.5", 0.0), ("soon", 0.0), ("9" * 40, 0.0)],
)
async def test_age_is_what_the_answer_states(upstream: FakeRegistry, stated: str, age: float) -> None:
    upstream.add_image(ALPINE, TAG)
    upstream.headers["Age"] = stated
    async with client_of(upstream) as client:
        assert (await client.head_manifest(ALPINE, TAG)).age == age
        assert (await client.get_manifest(ALPINE, TAG)).age == age


async def test_age_of_an_answer_that_states_none_is_none(upstream: FakeRegistry) -> None:
    upstream.add_image(ALPINE, TAG)
    async with client_of(upstream) as client:
        assert (await client.get_manifest(ALPINE, TAG)).age == 0
        with pytest.raises(UpstreamError):
            await client.get_manifest(ALPINE, Tag("none"))
