"""`replicator policy explain`: asks a node who may do what, and shows which statement decides."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from replicator.daemon.node_client import choose, open_clients

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.daemon.asking import Asking

POLICY = "/_replicator/v1/policy/"


def explain(asking: Asking, principal: str, action: str, repository: str) -> int:
    """Show whether somebody may do something; return 1 when not."""
    found = asyncio.run(_ask(asking, principal, action, None if repository == "*" else repository))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(found))
    return 0 if found["allowed"] else 1


async def _ask(asking: Asking, principal: str, action: str, repository: str | None) -> Mapping[str, Any]:
    async with open_clients(asking, POLICY) as clients:
        client = choose(clients, asking.source)
        found = await client.get("explain", principal=principal, action=action, repository=repository)
        return {"node": client.name, **found}


def _lines(found: Mapping[str, Any]) -> list[str]:
    verdict = "allowed" if found["allowed"] else "denied"
    lines = [f"{verdict}: {found['principal']} {found['action']} on {found['resource']} at {found['node']}"]
    by = found["decided_by"]
    if by is None:
        lines.append("no statement allows it")
    else:
        named = "" if by["name"] is None else f", {by['name']}"
        lines.append(f"decided by {by['statement']} ({by['effect']}) of the {by['policy']}{named}")
    if found["message"]:
        lines.append(found["message"])
    if found["depends_on_request"]:
        lines.append("conditions took part: a request from another place or time may be decided differently")
    if not found["is_known"]:
        lines.append("this node does not know the principal; policies of its own were not looked at")
    return lines
