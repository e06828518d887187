"""The daemon tells webhooks and a file what happens, whatever happens to it and to them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import call, push_blob, push_manifest
from tests.support.images import build_image
from tests.support.metrics import total
from tests.support.waiting import eventually
from tests.support.webhook_receiver import RESET, webhook_receiver

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.webhook_receiver import Received

pytestmark = pytest.mark.slow

SHARED = "a secret that only the receiver knows"
REPOSITORY = "team/app"


def configuration(url: str, directory: Path) -> dict[str, Any]:
    hook = {"url": url, "secrets": [{"env": "HOOK_SECRET"}], "concurrency": 4}
    sinks = [
        {"name": "hook", "webhook": hook, "max_attempts": 50},
        {"name": "audit", "log": {"path": str(directory / "events.jsonl")}, "format": "cloudevents"},
    ]
    return {"nodes": [node(events={"sinks": sinks})]}


def push(base: str, tag: str, content: bytes = b"a layer") -> str:
    image = build_image([content])
    for blob in image.blobs.values():
        assert push_blob(base, REPOSITORY, blob).status == 201
    assert push_manifest(base, REPOSITORY, tag, image.manifest, image.media_type).status == 201
    return image.digest


def told(received: list[Received]) -> list[tuple[str, str, str]]:
    """Return action, tag and digest of events, in order, without those that came again."""
    found = {one.id: one.document["detail"] for one in received}
    return [(one["action-type"], one.get("image-tag", ""), one["image-digest"]) for one in found.values()]


async def test_every_event_arrives_signed_and_in_order_although_everybody_dies(tmp_path: Path) -> None:
    async with webhook_receiver() as receiver:
        daemon = Daemon(tmp_path, configuration(receiver.url, tmp_path), {"HOOK_SECRET": SHARED})
        await asyncio.to_thread(daemon.start)
        try:
            base = daemon.url("")
            digest = await asyncio.to_thread(push, base, "v0")
            (first,) = await receiver.until_accepted(1)
            assert first.is_signed_with(SHARED.encode())
            assert first.document["detail-type"] == "ECR Image Action"

            receiver.behave = lambda _: RESET
            for number in range(1, 6):
                await asyncio.to_thread(push, base, f"v{number}")
            await asyncio.to_thread(call, "DELETE", f"{base}/v2/{REPOSITORY}/manifests/v0")
            await receiver.until_received(2)
            await asyncio.to_thread(daemon.kill)
            receiver.behave = lambda _: 200
            await asyncio.to_thread(daemon.start)
            await receiver.until(lambda one: len({each.id for each in one.accepted}) >= 7)
            expected = [*[("PUSH", f"v{number}", digest) for number in range(6)], ("DELETE", "v0", digest)]
            assert told(receiver.accepted) == expected
            await asyncio.to_thread(eventually, lambda: total(daemon, "replicator_event_deliveries") == 0, "the queue")
            assert await asyncio.to_thread(total, daemon, "replicator_events_delivered_total", sink="hook") >= 6
        finally:
            await asyncio.to_thread(daemon.terminate)
        lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
        streamed = {one["id"]: one["data"] for one in lines}.values()
        assert [(one["action-type"], one["image-tag"], one["image-digest"]) for one in streamed] == expected
        assert SHARED not in daemon.output()
        assert "in-the-query" not in daemon.output()


async def test_what_was_given_up_is_seen_sent_again_and_dropped_by_commands(tmp_path: Path) -> None:
    async with webhook_receiver() as receiver:
        receiver.behave = lambda _: 410
        daemon = Daemon(tmp_path, configuration(receiver.url, tmp_path), {"HOOK_SECRET": SHARED})
        await asyncio.to_thread(daemon.start)

        def events(*arguments: str) -> Any:
            done = daemon.command("events", *arguments, "--config", str(daemon.config), "--json")
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        try:
            for tag in ("v1", "v2"):
                await asyncio.to_thread(push, daemon.url(""), tag)
            await receiver.until_received(2)
            await asyncio.to_thread(eventually, lambda: len(events("dead")) == 2, "dead letters")
            first, second = await asyncio.to_thread(events, "dead", "--sink", "hook")
            assert [one["event"]["detail"]["image-tag"] for one in (first, second)] == ["v1", "v2"]
            assert "answered 410" in first["error"]

            receiver.behave = lambda _: 200
            retried = await asyncio.to_thread(events, "retry", "--event", first["event"]["id"])
            assert retried == {"retried": 1}
            (arrived,) = await receiver.until_accepted(1)
            assert arrived.id == first["event"]["id"]
            assert await asyncio.to_thread(events, "discard", "--yes") == {"discarded": 1}
            assert await asyncio.to_thread(events, "dead") == []
            latest = await asyncio.to_thread(events, "list")
            assert [one["event"]["detail"]["image-tag"] for one in latest] == ["v2", "v1"]
            states = {one["name"]: one["kind"] for one in await asyncio.to_thread(events, "sinks")}
            assert states == {"hook": "webhook", "audit": "file"}
        finally:
            await asyncio.to_thread(daemon.terminate)
