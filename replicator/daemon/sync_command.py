"""`replicator sync`: shows what destinations lack by the rules, and brings it there."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from replicator.core.errors import InvalidInput
from replicator.daemon.amounts import size_text
from replicator.daemon.backfill_command import image_text
from replicator.daemon.console import open_console
from replicator.daemon.follow import failed_images, follow
from replicator.daemon.image_reference import parse_image
from replicator.daemon.node_client import choose, find_source, open_clients

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.daemon.asking import Asking
    from replicator.daemon.node_client import NodeClient

PATIENCE = 3600.0
"""Seconds for the comparison with the destinations, of which there may be many images."""


@dataclass(frozen=True, slots=True)
class Syncing:
    """What to compare: an image, a repository, or everything; at one destination, or at all."""

    image: str | None = None
    repository: str | None = None
    destination: str | None = None
    dry_run: bool = False


def run(asking: Asking, syncing: Syncing) -> int:
    """Show what would be sent, or send it and show how that goes; return 1 when something failed or is not allowed."""
    if syncing.image is not None and syncing.repository is not None:
        raise InvalidInput("expected an image or --repository, not both")
    return asyncio.run(_run(asking, syncing))


async def _run(asking: Asking, syncing: Syncing) -> int:
    async with open_clients(asking) as clients:
        fields: dict[str, object] = {"repository": syncing.repository, "destination": syncing.destination}
        if syncing.image is not None:
            image = parse_image(syncing.image)
            fields |= {"repository": image.repository, "reference": image.reference}
            client = await find_source(clients, asking.source, image.repository, image.reference)
        else:
            client = choose(clients, asking.source)
        if syncing.dry_run:
            plan = await client.post("sync", {**fields, "dry_run": True}, PATIENCE)
            return _show_plan(client, plan, as_json=asking.as_json)
        return await _sync(client, fields, as_json=asking.as_json)


def _show_plan(client: NodeClient, plan: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"node": client.name, **plan}, indent=2) + "\n")
    else:
        _print_plan(plan)
    return 1 if plan["unreachable"] or plan["not_allowed"] else 0


def _print_plan(plan: Mapping[str, Any]) -> None:
    console = open_console()
    if plan["items"]:
        table = Table("image", "destination", "what", "why", "bytes", "hindrance", box=None)
        for one in plan["items"]:
            table.add_row(*_row(one))
        console.print(table)
    more = plan["count"] - len(plan["items"])
    if more:
        console.print(f"and {more} more")
    for one in plan["unreachable"]:
        console.print(f"{one['destination']} could not be asked: {one['reason']}")
    console.print(f"{plan['count']} differences, {size_text(plan['bytes'])} to be sent")


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    reference = f":{one['tag']}" if one["tag"] else f"@{one['digest']}"
    hindrance = "" if one["repairable"] else "stays: changed there since"
    if one["missing_permission"]:
        hindrance = f"{one['missing_permission']} is not allowed"
    size = "?" if one["bytes"] is None else size_text(one["bytes"])
    return f"{one['repository']}{reference}", one["destination"], one["kind"], f"rule {one['rule']}", size, hindrance


async def _sync(client: NodeClient, fields: Mapping[str, object], *, as_json: bool) -> int:
    started = await client.post("sync", fields, PATIENCE)
    backfill, failed = await follow(client, started["id"], quiet=as_json), await failed_images(client, started["id"])
    if as_json:
        document = {"node": client.name, **backfill, "failed_images": failed, "unreachable": started["unreachable"]}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for one in failed:
            sys.stdout.write(f"  {image_text(one)}\n")
        for one in started["unreachable"]:
            sys.stdout.write(f"  {one['destination']} could not be asked: {one['reason']}\n")
    return 0 if backfill["state"] == "COMPLETE" and not failed and not started["unreachable"] else 1
