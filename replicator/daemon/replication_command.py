"""`replicator replication`: try again what waits, see conflicts, see where an image is."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from replicator.daemon.amounts import size_text
from replicator.daemon.image_reference import parse_image
from replicator.daemon.node_client import choose, find_source, open_clients
from replicator.daemon.status_command import conflict_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.daemon.asking import Asking


def retry(asking: Asking, repository: str | None, destination: str | None) -> int:
    """Have what waits for its next attempt tried at once: by one node, or by all of the configuration."""
    found = asyncio.run(_retry(asking, {"repository": repository, "destination": destination}))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for one in found:
            sys.stdout.write(f"{one['node']}: {one['jobs']} jobs are tried again\n")
    return 0


async def _retry(asking: Asking, fields: Mapping[str, object]) -> list[Mapping[str, Any]]:
    async with open_clients(asking) as clients:
        chosen = clients if asking.source is None else [choose(clients, asking.source)]
        return [{"node": client.name, **await client.post("retry", fields)} for client in chosen]


def conflicts(asking: Asking, limit: int) -> int:
    """Show the tags that two nodes had set without knowing of each other, by the node that found it."""
    found = asyncio.run(_conflicts(asking, limit))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    for one in found:
        sys.stdout.write(f"{one['node']}: {conflict_text(one)}\n")
    if not found:
        sys.stdout.write("no conflicts\n")
    return 0


async def _conflicts(asking: Asking, limit: int) -> list[Mapping[str, Any]]:
    async with open_clients(asking) as clients:
        chosen = clients if asking.source is None else [choose(clients, asking.source)]
        return [
            {"node": client.name, **one}
            for client in chosen
            for one in (await client.get("conflicts", limit=str(limit)))["conflicts"]
        ]


def show_image(asking: Asking, image: str) -> int:
    """Show how far the replication of an image is; return 1 when it failed somewhere."""
    wanted = parse_image(image)
    found = asyncio.run(_image(asking, wanted.repository, wanted.reference))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.write(f"{found['node']}: {wanted}\n")
        for one in found["statuses"]:
            sys.stdout.write(f"  {_status(one)}\n")
        if not found["statuses"]:
            sys.stdout.write("  is not replicated\n")
    return 1 if any(one["status"] == "FAILED" for one in found["destinations"]) else 0


async def _image(asking: Asking, repository: str, reference: str) -> Mapping[str, Any]:
    async with open_clients(asking) as clients:
        client = await find_source(clients, asking.source, repository, reference)
        found = await client.get("images", repository=repository, reference=reference)
        return {"node": client.name, **found}


def _status(one: Mapping[str, Any]) -> str:
    reference = f":{one['tag']}" if one["tag"] else ""
    text = f"{one['destination']}: {one['status']} {one['repository']}{reference} by rule {one['rule']}"
    if one["failure_code"]:
        return f"{text}: {one['failure_code']}"
    if one["seconds"] is None:
        return text
    return f"{text} after {one['seconds']:.2f} s, {size_text(one['bytes'])} sent"
