"""Deliveries: at least once, in order per image, retried with pauses, given up at last, and in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import Digest
from replicator.core.event_sinks import DeliveryState, EventFormat, EventSink, SinkOrder
from replicator.core.events import ImageAction, image_action
from replicator.core.names import RepositoryName, Tag
from replicator.notifications.operators import EventOperators
from replicator.notifications.sinks import FileSink, WebhookSink
from replicator.notifications.upkeep import EventUpkeep, Retention
from replicator.notifications.worker import DeliveryPolicy, SinkWorker
from replicator.registry.events import record_event
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import event_deliveries
from replicator.upstream.webhooks import WebhookClient, WebhookEndpoint
from tests.support.clock import FakeClock
from tests.support.single_node import NODE, open_node
from tests.support.webhook_receiver import RESET, SILENT, Received, webhook_receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from replicator.registry.node import RegistryNode
    from tests.support.webhook_receiver import WebhookReceiver

REPOSITORY = RepositoryName("team/app")
A, B, C = (Digest("sha256:" + letter * 64) for letter in "abc")
KEYS = (b"new", b"old")


@dataclass
class Counts:
    """What a worker reported."""

    delivered_events: int = 0
    failures: int = 0
    given_up: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    changes: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    def delivered(self, seconds: float, count: int = 1) -> None:
        self.delivered_events += count
        self.changes.put_nowait(None)

    def failed(self) -> None:
        self.failures += 1
        self.changes.put_nowait(None)

    def buried(self) -> None:
        self.given_up += 1
        self.changes.put_nowait(None)

    async def until(self, question: Callable[[Counts], bool]) -> None:
        while not question(self):
            await self.changes.get()


@dataclass
class Telling:
    """A node that tells a receiver, on a clock of the test's own."""

    node: RegistryNode
    clock: FakeClock
    receiver: WebhookReceiver
    worker: SinkWorker
    counts: Counts

    async def happen(self, digest: Digest, *tags: str) -> None:
        """Have images pushed, each in a transaction of its own."""
        for tag in tags:
            event = image_action(ImageAction.PUSH, REPOSITORY, digest, Tag(tag))
            await self.node.commit(REPOSITORY, lambda event=event: record_event(self.node, event, self.clock.now()))  # type: ignore[misc]

    async def state(self) -> dict[DeliveryState, int]:
        return {one.state: one.count for one in await self.node.database.read(event_deliveries.counts())}

    async def settled(self, question: Callable[[dict[DeliveryState, int]], bool]) -> None:
        """Wait until the rows say so."""
        while not question(await self.state()):
            await self.counts.changes.get()

    async def pass_time(self, seconds: float) -> None:
        """Wait until the worker sleeps, and let time pass."""
        await self.clock.sleepers(1)
        self.clock.advance(seconds)


def tags_of(received: list[Received]) -> list[str]:
    return [one.document["detail"]["image-tag"] for one in received]


@contextlib.asynccontextmanager
async def running(worker: SinkWorker) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run())
        try:
            yield
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def telling(
    directory: Path,
    receiver: WebhookReceiver,
    policy: DeliveryPolicy | None = None,
    clock: FakeClock | None = None,
    style: EventFormat = EventFormat.ECR,
    patience: float = 5.0,
) -> AsyncIterator[Telling]:
    used = clock or FakeClock()
    settings = RegistrySettings(NODE, event_sinks=(EventSink("ci"),))
    async with open_node(directory, used, settings=settings) as node:
        await node.database.write(event_deliveries.free_all)
        counts = Counts()
        endpoint = WebhookEndpoint("ci", receiver.url, {"Authorization": "Bearer t"}, KEYS, timeout=patience)
        sink = WebhookSink(WebhookClient(endpoint, used), style)
        worker = SinkWorker(node, "ci", sink, counts, policy, jitter=lambda: 1.0)
        try:
            yield Telling(node, used, receiver, worker, counts)
        finally:
            await worker.close()


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as one:
        yield one


async def test_an_event_arrives_as_it_is_signed_with_both_keys(tmp_path: Path, receiver: WebhookReceiver) -> None:
    async with telling(tmp_path, receiver) as scene, running(scene.worker):
        await scene.happen(A, "v1")
        (arrived,) = await receiver.until_accepted(1)
        await scene.settled(lambda state: not state)
    assert arrived.document["detail"]["image-tag"] == "v1"
    assert arrived.document["id"] == arrived.id
    assert arrived.path == "/hook?token=in-the-query"
    assert arrived.headers["content-type"] == "application/json"
    assert arrived.headers["authorization"] == "Bearer t"
    assert arrived.headers["webhook-timestamp"] == str(int(scene.clock.now()))
    assert all(arrived.is_signed_with(key) for key in KEYS)
    assert not arrived.is_signed_with(b"another")


async def test_cloud_events_come_in_structured_mode(tmp_path: Path, receiver: WebhookReceiver) -> None:
    async with telling(tmp_path, receiver, style=EventFormat.CLOUDEVENTS) as scene, running(scene.worker):
        await scene.happen(A, "v1")
        (arrived,) = await receiver.until_accepted(1)
    assert arrived.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert arrived.document["specversion"] == "1.0"
    assert arrived.document["data"]["image-tag"] == "v1"


@pytest.mark.parametrize("fault", [500, 503, 404, 302, 429, RESET])
async def test_only_success_counts_and_others_of_the_image_wait(
    tmp_path: Path, receiver: WebhookReceiver, fault: int
) -> None:
    receiver.behave = lambda _: fault
    receiver.headers = {"Location": receiver.url} if fault == 302 else {}
    async with telling(tmp_path, receiver) as scene, running(scene.worker):
        await scene.happen(A, "v1", "v2")
        await scene.counts.until(lambda counts: counts.failures == 1)
        await scene.settled(lambda state: state == {DeliveryState.QUEUED: 1, DeliveryState.WAITING: 1})
        receiver.behave = lambda _: 204
        await scene.pass_time(1.0)
        accepted = await receiver.until_accepted(2)
        await scene.settled(lambda state: not state)
    assert tags_of(accepted) == ["v1", "v2"]
    assert tags_of(receiver.received)[0] == "v1"


async def test_a_refused_event_holds_up_its_image_and_no_other(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.behave = lambda one: 500 if one.document["detail"]["image-digest"] == A else 200
    async with telling(tmp_path, receiver) as scene, running(scene.worker):
        await scene.happen(A, "a1", "a2")
        await scene.happen(B, "b1", "b2")
        await scene.happen(C, "c1")
        accepted = await receiver.until_accepted(3)
        assert sorted(tags_of(accepted)) == ["b1", "b2", "c1"]
        assert "a2" not in tags_of(receiver.received)


async def test_a_sink_that_is_slow_gets_no_more_than_its_share(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.gate.clear()
    async with telling(tmp_path, receiver, DeliveryPolicy(concurrency=3)) as scene, running(scene.worker):
        for number in range(10):
            await scene.happen(Digest("sha256:" + f"{number}" * 64), f"v{number}")
        await receiver.until(lambda one: one.most_at_once == 3)
        receiver.gate.set()
        await receiver.until_accepted(10)
    assert receiver.most_at_once == 3


async def test_silence_ends_with_the_timeout(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.behave = lambda _: SILENT
    async with telling(tmp_path, receiver, patience=0.2) as scene, running(scene.worker):
        await scene.happen(A, "v1")
        await scene.counts.until(lambda counts: counts.failures == 1)
        ((waiting,),) = [await scene.node.database.read(event_deliveries.of_event(1))]
        assert waiting.error == "sink ci: no answer in time"


async def test_a_sink_that_is_down_is_asked_by_one_event_at_a_time(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.behave = lambda _: 503
    async with telling(tmp_path, receiver, DeliveryPolicy(concurrency=2)) as scene, running(scene.worker):
        for number in range(8):
            await scene.happen(Digest("sha256:" + f"{number}" * 64), f"v{number}")
        await scene.counts.until(lambda counts: counts.failures == 2)
        await scene.pass_time(1.0)
        await scene.counts.until(lambda counts: counts.failures == 3)
        receiver.behave = lambda _: 200
        await scene.pass_time(2.0)
        await receiver.until_accepted(8)


async def test_retry_after_is_a_floor(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.behave, receiver.headers = (lambda _: 429), {"Retry-After": "120"}
    async with telling(tmp_path, receiver) as scene, running(scene.worker):
        await scene.happen(A, "v1")
        await scene.counts.until(lambda counts: counts.failures == 1)
        (waiting,) = await scene.node.database.read(event_deliveries.of_event(1))
        assert waiting.retry_at == scene.clock.now() + 120


async def test_what_is_tried_too_often_is_given_up_and_the_next_goes_on(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.behave = lambda one: 400 if one.document["detail"]["image-tag"] == "v1" else 200
    async with telling(tmp_path, receiver, DeliveryPolicy(max_attempts=2)) as scene, running(scene.worker):
        await scene.happen(A, "v1", "v2")
        await scene.counts.until(lambda counts: counts.failures == 1)
        await scene.pass_time(1.0)
        assert tags_of(await receiver.until_accepted(1)) == ["v2"]
        operators = EventOperators(scene.node, [scene.worker], {"ci": "webhook"})
        (letter,) = await operators.dead("ci", 0, 10)
        assert letter.event.document["detail"]["image-tag"] == "v1"
        assert (letter.delivery.attempts, letter.delivery.error) == (2, "sink ci: answered 400")
        receiver.behave = lambda _: 200
        assert await operators.retry("ci", None) == 1
        assert tags_of(await receiver.until_accepted(2)) == ["v2", "v1"]
    assert scene.counts.given_up == 1


async def test_what_is_too_old_is_given_up_after_one_more_try(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.behave = lambda _: 500
    async with telling(tmp_path, receiver, DeliveryPolicy(max_age=100.0)) as scene:
        await scene.happen(A, "v1", "v2")
        scene.clock.advance(101.0)
        async with running(scene.worker):
            await scene.counts.until(lambda counts: counts.given_up == 2)
        assert await scene.state() == {DeliveryState.DEAD: 2}


async def test_410_gives_up_at_once(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.behave = lambda one: 410 if one.document["detail"]["image-tag"] == "v1" else 200
    async with telling(tmp_path, receiver) as scene, running(scene.worker):
        await scene.happen(A, "v1", "v2")
        assert tags_of(await receiver.until_accepted(1)) == ["v2"]
    assert tags_of(receiver.received) == ["v1", "v2"]


async def test_without_a_sink_nothing_is_stored(tmp_path: Path) -> None:
    async with open_node(tmp_path, FakeClock()) as node:
        event = image_action(ImageAction.PUSH, REPOSITORY, A, Tag("v1"))
        await node.commit(REPOSITORY, lambda: record_event(node, event, 1.0))
        assert await EventOperators(node, [], {}).latest(10, None) == []


async def test_over_any_restarts_each_event_arrives_and_each_image_is_in_order(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    chance, clock = random.Random(3), FakeClock()  # noqa: S311 - any numbers
    receiver.behave = lambda _: chance.choice([200, 200, 500, 503, RESET])
    sent: dict[Digest, list[str]] = {A: [], B: [], C: []}
    for life in range(6):
        before = len(receiver.received)
        async with telling(tmp_path, receiver, clock=clock) as scene, running(scene.worker):
            for number in range(6):
                digest = chance.choice([A, B, C])
                tag = f"v{life}-{number}"
                sent[digest].append(tag)
                await scene.happen(digest, tag)
            await receiver.until_received(before + 1)
        clock.advance(600.0)
    receiver.behave = lambda _: 200
    async with telling(tmp_path, receiver, clock=clock) as scene, running(scene.worker):
        await receiver.until(lambda one: len({each.id for each in one.accepted}) == 36)
        await scene.settled(lambda state: not state)
    arrived: dict[str, list[str]] = {}
    for one in {each.id: each for each in reversed(receiver.accepted)}.values():
        detail = one.document["detail"]
        arrived.setdefault(detail["image-digest"], []).insert(0, detail["image-tag"])
    assert arrived == {digest: tags for digest, tags in sent.items() if tags}


class TestFiles:
    @contextlib.asynccontextmanager
    async def streaming(self, directory: Path, path: Path) -> AsyncIterator[tuple[RegistryNode, Counts]]:
        settings = RegistrySettings(NODE, event_sinks=(EventSink("audit", order=SinkOrder.ALL),))
        async with open_node(directory, FakeClock(), settings=settings) as node:
            counts = Counts()
            worker = SinkWorker(node, "audit", FileSink(path, EventFormat.ECR), counts, DeliveryPolicy(concurrency=1))
            async with running(worker):
                yield node, counts

    async def happen(self, node: RegistryNode, *tags: str) -> None:
        for number, tag in enumerate(tags):
            event = image_action(ImageAction.PUSH, REPOSITORY, (A, B)[number % 2], Tag(tag))
            await node.commit(REPOSITORY, lambda event=event: record_event(node, event, 1.0))  # type: ignore[misc]

    def tags(self, path: Path) -> list[str]:
        return [json.loads(line)["detail"]["image-tag"] for line in path.read_text().splitlines()]

    async def test_all_events_stand_in_order(self, tmp_path: Path) -> None:
        path = tmp_path / "logs" / "events.jsonl"
        async with self.streaming(tmp_path, path) as (node, counts):
            await self.happen(node, *map(str, range(20)))
            await counts.until(lambda one: one.delivered_events == 20)
        assert self.tags(path) == [str(number) for number in range(20)]

    async def test_a_file_that_is_renamed_away_is_begun_anew(self, tmp_path: Path) -> None:
        path, old = tmp_path / "events.jsonl", tmp_path / "events.1"
        async with self.streaming(tmp_path, path) as (node, counts):
            await self.happen(node, "v1")
            await counts.until(lambda one: one.delivered_events == 1)
            path.rename(old)
            await self.happen(node, "v2")
            await counts.until(lambda one: one.delivered_events == 2)
        assert (self.tags(old), self.tags(path)) == (["v1"], ["v2"])

    async def test_half_a_line_of_a_crash_is_ended_first(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        path.write_text('{"version":"0","id')
        async with self.streaming(tmp_path, path) as (node, counts):
            await self.happen(node, "v1")
            await counts.until(lambda one: one.delivered_events == 1)
        torn, whole = path.read_text().splitlines()
        assert torn == '{"version":"0","id'
        assert '"image-tag":"v1"' in whole


class TestUpkeep:
    async def test_delivered_events_go_and_undelivered_ones_stay(
        self, tmp_path: Path, receiver: WebhookReceiver
    ) -> None:
        receiver.behave = lambda one: 200 if one.document["detail"]["image-tag"] == "v1" else 500
        async with telling(tmp_path, receiver) as scene:
            operators = EventOperators(scene.node, [], {"ci": "webhook"})
            async with running(scene.worker):
                await scene.happen(A, "v1", "v2")
                await scene.counts.until(lambda counts: counts.failures == 1)
            upkeep = EventUpkeep(scene.node, Retention(delivered=60.0))
            await upkeep.tidy()
            assert len(await operators.latest(10, None)) == 2
            scene.clock.advance(61.0)
            await upkeep.tidy()
            (left,) = await operators.latest(10, None)
            assert left.event.document["detail"]["image-tag"] == "v2"

    async def test_what_nobody_retries_goes_at_last_and_so_do_deliveries_to_nobody(
        self, tmp_path: Path, receiver: WebhookReceiver
    ) -> None:
        receiver.behave = lambda _: 410
        async with telling(tmp_path, receiver) as scene:
            async with running(scene.worker):
                await scene.happen(A, "v1")
                await scene.counts.until(lambda counts: counts.given_up == 1)
            upkeep = EventUpkeep(scene.node, Retention(delivered=60.0, dead=1000.0))
            await upkeep.tidy()
            assert await scene.state() == {DeliveryState.DEAD: 1}
            scene.clock.advance(1001.0)
            await upkeep.tidy()
            assert await scene.state() == {}
            await scene.happen(A, "v2")
            scene.node.change_settings(RegistrySettings(NODE))
            await upkeep.tidy()
            assert await scene.state() == {DeliveryState.QUEUED: 1}
            scene.clock.advance(24 * 3600 + 1)
            await upkeep.tidy()
            assert await scene.state() == {}
