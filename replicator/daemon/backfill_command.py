"""`replicator backfill`: start, list, show and stop the backfills of a node."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from rich.table import Table

from replicator.daemon.console import open_console
from replicator.daemon.follow import backfill_path, failed_images, follow, summary
from replicator.daemon.node_client import choose, open_clients

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.daemon.asking import Asking

_MAX_PAGES = 20


def start(asking: Asking, destination: str, repository: str | None, *, wait: bool) -> int:
    """Start a backfill, and follow it to its end with `wait`; return 0 unless it failed then."""
    return asyncio.run(_start(asking, destination, repository, wait=wait))


def show_all(asking: Asking) -> int:
    """Show the backfills that are not over, or ended lately."""
    return asyncio.run(_show_all(asking))


def show(asking: Asking, backfill_id: str) -> int:
    """Show one backfill, with the images that failed."""
    return asyncio.run(_show(asking, backfill_id))


def stop(asking: Asking, backfill_id: str) -> int:
    """Stop a backfill."""
    return asyncio.run(_stop(asking, backfill_id))


async def _start(asking: Asking, destination: str, repository: str | None, *, wait: bool) -> int:
    async with open_clients(asking) as clients:
        client = choose(clients, asking.source)
        found = await client.post("backfills", {"destination": destination, "repository": repository})
        if wait:
            if not asking.as_json:
                sys.stdout.write(f"{found['id']}\n")
            found = await follow(client, found["id"], quiet=asking.as_json)
            return _report(client.name, found, await failed_images(client, found["id"]), as_json=asking.as_json)
    _write(found, as_json=asking.as_json)
    return 0


def _report(
    node: str, backfill: Mapping[str, Any], failed: list[Mapping[str, Any]], *, as_json: bool, with_state: bool = False
) -> int:
    if as_json:
        document = {"node": node, **backfill, "failed_images": failed}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        if with_state:
            _write(backfill, as_json=False)
        for one in failed:
            sys.stdout.write(f"  {image_text(one)}\n")
    return 1 if failed or backfill["state"] == "FAILED" else 0


async def _show_all(asking: Asking) -> int:
    found: list[Mapping[str, Any]] = []
    async with open_clients(asking) as clients:
        client, after = choose(clients, asking.source), None
        for _ in range(_MAX_PAGES):
            page = await client.get("backfills", after=after)
            found += page["backfills"]
            after = page["next_after"]
            if after is None:
                break
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    table = Table("id", "cause", "destination", "repository", "how far", box=None)
    for one in found:
        table.add_row(
            one["id"], one["cause"], one["destination"] or "several", one["repository"] or "all", summary(one)
        )
    open_console().print(table if found else "no backfills")
    return 0


async def _show(asking: Asking, backfill_id: str) -> int:
    async with open_clients(asking) as clients:
        client = choose(clients, asking.source)
        found = await client.get(backfill_path(backfill_id))
        failed = await failed_images(client, backfill_id)
    _report(client.name, found, failed, as_json=asking.as_json, with_state=True)
    return 0


async def _stop(asking: Asking, backfill_id: str) -> int:
    async with open_clients(asking) as clients:
        found = await choose(clients, asking.source).delete(backfill_path(backfill_id))
    _write(found, as_json=asking.as_json)
    return 0


def _write(backfill: Mapping[str, Any], *, as_json: bool) -> None:
    text = json.dumps(backfill, indent=2) if as_json else f"{backfill['id']} {summary(backfill)}"
    sys.stdout.write(text + "\n")


def image_text(one: Mapping[str, Any]) -> str:
    """Return one image of a backfill with what became of it."""
    reference = f":{one['tag']}" if one["tag"] else f"@{one['digest']}"
    code = f" {one['failure_code']}" if one["failure_code"] else ""
    return f"{one['repository']}{reference} to {one['destination']}: {one['status']}{code}"
