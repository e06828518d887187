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

    from replicator.daemon.node_client import Connection

_MAX_PAGES = 20


def start(
    connection: Connection, source: str | None, destination: str, repository: str | None, *, wait: bool, as_json: bool
) -> int:
    """Start a backfill, and follow it to its end with `wait`; return 0 unless it failed then."""
    return asyncio.run(_start(connection, source, destination, repository, wait=wait, as_json=as_json))


def show_all(connection: Connection, source: str | None, *, as_json: bool) -> int:
    """Show the backfills that are not over, or ended lately."""
    return asyncio.run(_show_all(connection, source, as_json=as_json))


def show(connection: Connection, source: str | None, backfill_id: str, *, as_json: bool) -> int:
    """Show one backfill, with the images that failed."""
    return asyncio.run(_show(connection, source, backfill_id, as_json=as_json))


def stop(connection: Connection, source: str | None, backfill_id: str, *, as_json: bool) -> int:
    """Stop a backfill."""
    return asyncio.run(_stop(connection, source, backfill_id, as_json=as_json))


async def _start(
    connection: Connection, source: str | None, destination: str, repository: str | None, *, wait: bool, as_json: bool
) -> int:
    async with open_clients(connection) as clients:
        client = choose(clients, source)
        found = await client.post("backfills", {"destination": destination, "repository": repository})
        if wait:
            if not as_json:
                sys.stdout.write(f"{found['id']}\n")
            found = await follow(client, found["id"], quiet=as_json)
            return await _report(client.name, found, await failed_images(client, found["id"]), as_json=as_json)
    _write(found, as_json=as_json)
    return 0


async def _report(
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


async def _show_all(connection: Connection, source: str | None, *, as_json: bool) -> int:
    found: list[Mapping[str, Any]] = []
    async with open_clients(connection) as clients:
        client, after = choose(clients, source), None
        for _ in range(_MAX_PAGES):
            page = await client.get("backfills", after=after)
            found += page["backfills"]
            after = page["next_after"]
            if after is None:
                break
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    table = Table("id", "cause", "destination", "repository", "how far", box=None)
    for one in found:
        table.add_row(
            one["id"], one["cause"], one["destination"] or "several", one["repository"] or "all", summary(one)
        )
    open_console().print(table if found else "no backfills")
    return 0


async def _show(connection: Connection, source: str | None, backfill_id: str, *, as_json: bool) -> int:
    async with open_clients(connection) as clients:
        client = choose(clients, source)
        found = await client.get(backfill_path(backfill_id))
        failed = await failed_images(client, backfill_id)
    await _report(client.name, found, failed, as_json=as_json, with_state=True)
    return 0


async def _stop(connection: Connection, source: str | None, backfill_id: str, *, as_json: bool) -> int:
    async with open_clients(connection) as clients:
        found = await choose(clients, source).delete(backfill_path(backfill_id))
    _write(found, as_json=as_json)
    return 0


def _write(backfill: Mapping[str, Any], *, as_json: bool) -> None:
    text = json.dumps(backfill, indent=2) if as_json else f"{backfill['id']} {summary(backfill)}"
    sys.stdout.write(text + "\n")


def image_text(one: Mapping[str, Any]) -> str:
    """Return one image of a backfill with what became of it."""
    reference = f":{one['tag']}" if one["tag"] else f"@{one['digest']}"
    code = f" {one['failure_code']}" if one["failure_code"] else ""
    return f"{one['repository']}{reference} to {one['destination']}: {one['status']}{code}"
