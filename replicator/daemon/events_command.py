"""`replicator events`: what a node tells of its images, and what it could not."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from rich.table import Table

from replicator.daemon.console import open_console
from replicator.daemon.node_client import choose, open_clients

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.daemon.asking import Asking

EVENTS = "/_replicator/v1/events/"


def show_sinks(asking: Asking) -> int:
    """Show the sinks of a node."""
    found: list[Mapping[str, Any]] = asyncio.run(_get(asking, "sinks"))["sinks"]
    if asking.as_json:
        return _print(found)
    table = Table("sink", "kind", "to be delivered", "given up", box=None)
    for one in found:
        counts = one["deliveries"]
        pending = sum(count for state, count in counts.items() if state != "dead")
        table.add_row(one["name"], one["kind"], str(pending), str(counts.get("dead", 0)))
    open_console().print(table if found else "no sinks")
    return 0


def show_latest(asking: Asking, limit: int) -> int:
    """Show the latest events of a node."""
    found: list[Mapping[str, Any]] = asyncio.run(_get(asking, "latest", limit=str(limit)))["events"]
    if asking.as_json:
        return _print(found)
    table = Table("time", "id", "kind", "image", "still to get it", box=None)
    for one in found:
        table.add_row(
            *_event_cells(one["event"]), ", ".join(f"{to['sink']} ({to['state']})" for to in one["deliveries"])
        )
    open_console().print(table if found else "no events")
    return 0


def show_dead(asking: Asking, sink: str | None, limit: int) -> int:
    """Show events of a node that were given up."""
    found: list[Mapping[str, Any]] = asyncio.run(_get(asking, "dead", sink=sink, limit=str(limit)))["dead"]
    if asking.as_json:
        return _print(found)
    table = Table("time", "id", "kind", "image", "sink", "attempts", "why", box=None)
    for one in found:
        table.add_row(*_event_cells(one["event"]), one["sink"], str(one["attempts"]), one["error"] or "")
    open_console().print(table if found else "nothing was given up")
    return 0


def retry(asking: Asking, sink: str | None, event: str | None) -> int:
    """Have given-up events sent again."""
    return _report(asking, asyncio.run(_post(asking, "retry", sink=sink, event=event)), "retried")


def discard(asking: Asking, sink: str | None, event: str | None) -> int:
    """Have given-up events dropped; all of them, where neither a sink nor an event is named."""
    everything = True if sink is None and event is None else None
    found = asyncio.run(_post(asking, "discard", sink=sink, event=event, all=everything))
    return _report(asking, found, "discarded")


def _report(asking: Asking, answer: Mapping[str, Any], name: str) -> int:
    if asking.as_json:
        return _print(answer)
    sys.stdout.write(f"{name}: {answer[name]}\n")
    return 0


async def _get(asking: Asking, path: str, **query: str | None) -> Mapping[str, Any]:
    async with open_clients(asking, EVENTS) as clients:
        return await choose(clients, asking.source).get(path, **query)


async def _post(asking: Asking, path: str, **fields: object) -> Mapping[str, Any]:
    async with open_clients(asking, EVENTS) as clients:
        return await choose(clients, asking.source).post(path, fields)


def _event_cells(event: Mapping[str, Any]) -> Sequence[str]:
    detail = event["detail"]
    tag, digest = detail.get("image-tag"), str(detail.get("image-digest", ""))
    reference = f":{tag}" if tag else f"@{digest[:19]}" if digest else ""
    what = detail.get("action-type") or detail.get("sync-status") or detail.get("scan-status") or ""
    name = detail.get("repository-name", "")
    return event["time"], event["id"], f"{event['detail-type']} {what}".strip(), f"{name}{reference}"


def _print(found: object) -> int:
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0
