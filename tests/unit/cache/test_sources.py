"""Several registries for one repository: their order, whose word counts, and what is passed over."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.cache.peer_calls import PeerCalls, for_peer
from replicator.cache.sources import Sources
from replicator.core.errors import (
    ManifestNotFound,
    UpstreamDenied,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.names import RepositoryName, Tag
from replicator.upstream.client import open_client
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from replicator.core.digest import Digest
    from replicator.upstream.body import BlobStream
    from replicator.upstream.client import UpstreamClient

NAME = RepositoryName("library/alpine")
LATEST = Tag("latest")
ALL = "*"
IMAGE = build_image([b"a layer of some length"])
LAYER = IMAGE.layers[0]


class Three:
    """A peer, a mirror and an authority with clients, and the sources that they make."""

    def __init__(self, registries: list[FakeRegistry], clients: list[UpstreamClient]) -> None:
        self.peer, self.mirror, self.authority = registries
        self.registries = registries
        self.calls = PeerCalls()
        self.sources = Sources(clients, NAME, peers=1, calls=self.calls, wait=0.3)

    def hold(self, *registries: FakeRegistry) -> None:
        """Let only these have the image."""
        for registry in registries:
            registry.add(NAME, IMAGE, LATEST)

    def asked(self) -> list[int]:
        """How often each was asked."""
        return [registry.count("*/library/alpine/*") for registry in self.registries]


@pytest.fixture
async def three() -> AsyncIterator[Three]:
    async with contextlib.AsyncExitStack() as stack:
        registries = [await stack.enter_async_context(FakeRegistry()) for _ in range(3)]
        clients = []
        for registry, name in zip(registries, ("peer", "mirror", "authority"), strict=True):
            client = open_client(replace(endpoint_of(registry), name=name), FakeClock(auto=True))
            stack.push_async_callback(client.close)
            clients.append(client)
        yield Three(registries, clients)


async def read(stream: BlobStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream.chunks])


def test_a_peer_alone_is_no_source(three: Three) -> None:
    with pytest.raises(ValueError, match="no peer"):
        Sources(three.sources.clients[:1], NAME, peers=1)
    with pytest.raises(ValueError, match="no peer"):
        Sources((), NAME)


async def test_the_first_that_has_it_is_asked_alone(three: Three) -> None:
    three.hold(*three.registries)
    said = await three.sources.get_manifest(LATEST)
    assert (said.value.content, said.source, said.is_authority) == (IMAGE.manifest, "peer", False)
    assert three.asked() == [1, 0, 0]


async def test_registries_are_asked_in_order_until_one_has_it(three: Three) -> None:
    three.hold(three.authority)
    said = await three.sources.head_manifest(LATEST)
    assert (said.value.digest, said.source, said.is_authority) == (IMAGE.digest, "authority", True)
    assert three.asked() == [1, 1, 1]


async def test_only_the_authoritys_404_counts(three: Three) -> None:
    three.authority.faults.on(ALL, Fault(status=503))
    with pytest.raises(UpstreamUnavailable, match="authority"):
        await three.sources.get_manifest(LATEST)
    three.authority.faults.clear()
    three.peer.faults.on(ALL, Fault(status=503))
    three.mirror.faults.on(ALL, Fault(status=403))
    with pytest.raises(UpstreamNotFound, match="authority"):
        await three.sources.get_manifest(LATEST)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=404),
        Fault(status=401),
        Fault(status=429, headers={"Retry-After": "60"}),
        Fault(status=500),
        Fault(drop=True),
        Fault(body=b"garbage"),
        Fault(redirect="http://127.0.0.1:1/"),
    ],
    ids=["404", "401", "429", "500", "drop", "garbage", "redirect"],
)
async def test_what_goes_wrong_before_the_authority_is_passed_over(three: Three, fault: Fault) -> None:
    three.hold(*three.registries)
    three.peer.faults.on(ALL, fault)
    three.mirror.faults.on(ALL, fault)
    assert (await three.sources.get_manifest(LATEST)).source == "authority"


async def test_a_slow_mirror_is_left_for_the_authority(three: Three) -> None:
    three.hold(*three.registries)
    hold = Hold()
    three.peer.faults.on(ALL, Fault(hold=hold))
    three.mirror.faults.on(ALL, Fault(hold=hold))
    assert (await three.sources.get_manifest(LATEST)).source == "authority"
    async with three.sources.open_blob(LAYER) as stream:
        assert await read(stream) == IMAGE.blobs[LAYER]


async def test_the_authority_has_all_the_time_it_needs(three: Three) -> None:
    three.hold(three.authority)
    hold = Hold()
    three.authority.faults.on(ALL, Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(three.sources.get_manifest(LATEST))
        await hold.reached()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):  # longer than any other one has
                await asyncio.shield(asking)
        hold.release()
    assert asking.result().source == "authority"


async def test_a_blob_that_no_registry_sends_fails_as_the_authority_fails(three: Three) -> None:
    three.authority.faults.on(ALL, Fault(status=403))
    with pytest.raises(UpstreamDenied, match="authority"):
        async with three.sources.open_blob(LAYER):
            pass


async def test_leaving_a_blob_closes_its_connection(three: Three) -> None:
    hold = Hold()
    three.hold(three.mirror)
    three.mirror.faults.on("*/blobs/*", Fault(hold=hold, hold_after=3))
    async with three.sources.open_blob(LAYER) as stream:
        assert stream.size == len(IMAGE.blobs[LAYER])
        await hold.reached()
    hold.release()
    await three.mirror.idle()


async def test_cancelling_ends_the_question_and_asks_nobody_else(three: Three) -> None:
    three.hold(*three.registries)
    hold = Hold()
    three.peer.faults.on(ALL, Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(three.sources.get_manifest(LATEST))
        await hold.reached()
        asking.cancel()
    assert three.asked() == [1, 0, 0]
    assert not three.calls.is_asked(NAME, LATEST)


# One transfer over several registries


async def test_openers_lead_to_every_registry_in_order(three: Three) -> None:
    three.hold(*three.registries)
    contents, senders = [], list[str]()
    for opener in three.sources.openers(LAYER, senders.append):
        async with opener(2) as stream:
            contents.append((stream.start, await read(stream)))
    assert senders == [client.endpoint.name for client in three.sources.clients]
    assert contents == [(2, IMAGE.blobs[LAYER][2:])] * 3
    assert three.asked() == [1, 1, 1]


async def test_a_transfer_does_not_come_back_to_a_peer(three: Three) -> None:
    three.hold(*three.registries)
    peer, mirror, _ = three.sources.openers(LAYER)
    async with peer(0):
        pass
    with pytest.raises(UpstreamRefused, match="twice") as refused:
        async with peer(0):
            pass
    assert not refused.value.retryable
    for _ in range(2):
        async with mirror(0) as stream:
            assert await read(stream) == IMAGE.blobs[LAYER]
    again, *_ = three.sources.openers(LAYER)
    async with again(0) as stream:
        assert await read(stream) == IMAGE.blobs[LAYER]


# Nodes that ask each other


async def test_what_a_peer_asked_for_is_not_asked_of_peers(three: Three) -> None:
    three.hold(*three.registries)
    with for_peer():
        assert (await three.sources.get_manifest(LATEST)).source == "mirror"
        assert len(three.sources.openers(LAYER)) == 2
        async with asyncio.TaskGroup() as group:
            inherited = group.create_task(three.sources.get_manifest(LATEST))
    assert inherited.result().source == "mirror"
    assert three.asked()[0] == 0
    assert (await three.sources.get_manifest(LATEST)).source == "peer"


@pytest.mark.parametrize(
    "ask",
    [
        lambda sources: sources.get_manifest(IMAGE.digest),
        lambda sources: sources.head_manifest(IMAGE.digest),
        lambda sources: _opened(sources, IMAGE.digest),
    ],
    ids=["get", "head", "blob"],
)
async def test_it_is_known_what_peers_are_asked_for(
    three: Three, ask: Callable[[Sources], Coroutine[object, object, object]]
) -> None:
    three.hold(three.peer)
    three.peer.add_blob(NAME, IMAGE.manifest)
    hold = Hold()
    three.peer.faults.on(ALL, Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        asking: asyncio.Task[object] = group.create_task(ask(three.sources))
        await hold.reached()
        assert three.calls.is_asked(NAME, IMAGE.digest)
        assert three.calls.is_asked(RepositoryName("another/name"), IMAGE.digest)
        assert not three.calls.is_asked(NAME, LAYER)
        hold.release()
    assert asking.done()
    assert not three.calls.is_asked(NAME, IMAGE.digest)


async def test_a_tag_is_known_by_its_repository(three: Three) -> None:
    with three.calls.asking(NAME, LATEST), three.calls.asking(NAME, LATEST):
        assert three.calls.is_asked(NAME, LATEST)
        assert not three.calls.is_asked(RepositoryName("another/name"), LATEST)


async def test_who_may_not_wait_for_peers_is_sent_away(three: Three) -> None:
    entered, never = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        async with three.calls.unless_asked(NAME, LAYER):
            entered.set()
            await never.wait()

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_failure_of(wait()))
        another = group.create_task(_failure_of(wait()))
        await entered.wait()
        with three.calls.asking(NAME, IMAGE.digest):
            await asyncio.sleep(0)
        assert not waiting.done()
        with three.calls.asking(NAME, LAYER):
            with pytest.raises(ManifestNotFound):
                await wait()
            await asyncio.wait([waiting, another])
    for task in (waiting, another):
        assert isinstance(task.result(), ManifestNotFound)
    async with three.calls.unless_asked(NAME, LAYER):
        pass
    with three.calls.asking(NAME, LAYER):
        pass


async def test_what_fails_by_itself_fails_as_it_does(three: Three) -> None:
    for error in (TimeoutError(), UpstreamNotFound(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            async with three.calls.unless_asked(NAME, LAYER):
                raise error


async def _failure_of(work: Coroutine[object, object, object]) -> Exception | None:
    try:
        await work
    except ManifestNotFound as error:
        return error
    return None


async def _opened(sources: Sources, digest: Digest) -> None:
    async with sources.open_blob(digest):
        pass


# Lists


async def test_lists_come_from_the_authority(three: Three) -> None:
    three.hold(*three.registries)
    three.authority.add_image(NAME, "3.20")
    said = await three.sources.list_tags()
    assert (sorted(said.value.tags), said.is_authority) == (["3.20", "latest"], True)
    assert three.asked() == [0, 0, 1]


async def test_a_mirror_lists_when_the_authority_fails(three: Three) -> None:
    three.hold(*three.registries)
    three.authority.faults.on(ALL, Fault(status=503))
    said = await three.sources.list_tags()
    assert (said.value.tags, said.source) == (("latest",), "mirror")
    assert three.asked()[0] == 0


async def test_the_authority_says_whether_a_blob_exists(three: Three) -> None:
    three.hold(three.authority)
    assert await three.sources.blob_exists(LAYER)
    three.hold(three.mirror)
    three.authority.repository(NAME).blobs.clear()
    assert not await three.sources.blob_exists(LAYER)
    assert three.asked() == [0, 0, 2]


async def test_a_mirror_says_that_a_blob_exists_when_the_authority_fails(three: Three) -> None:
    three.authority.faults.on(ALL, Fault(status=503))
    with pytest.raises(UpstreamUnavailable, match="authority"):
        await three.sources.blob_exists(LAYER)
    three.hold(three.mirror)
    assert await three.sources.blob_exists(LAYER)
    assert three.asked()[0] == 0


async def test_a_repository_that_the_authority_lacks_has_no_list(three: Three) -> None:
    three.hold(three.mirror)
    with pytest.raises(UpstreamNotFound):
        await three.sources.list_tags()


async def test_a_list_fails_as_the_authority_fails(three: Three) -> None:
    three.authority.faults.on(ALL, Fault(status=403))
    with pytest.raises(UpstreamDenied, match="authority"):
        await three.sources.list_referrers(IMAGE.digest)
    assert three.asked() == [0, 1, 1]  # the mirror had none to list, which means nothing


async def test_a_mirror_lists_when_the_authority_is_slow(three: Three) -> None:
    three.hold(*three.registries)
    hold = Hold()
    three.authority.faults.on(ALL, Fault(hold=hold))
    assert (await three.sources.list_tags()).source == "mirror"
    three.mirror.faults.on(ALL, Fault(hold=hold))
    with pytest.raises(UpstreamTimeout, match="authority"):
        await three.sources.list_tags()
