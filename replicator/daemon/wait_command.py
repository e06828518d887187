"""`replicator wait`: returns when an image can be pulled in the regions that matter.

The node that replicates the image says when it is complete; then each destination of the configuration is asked for
the digest itself, as a client that pulls would.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from replicator.daemon.image_reference import parse_image
from replicator.daemon.node_client import NodeFailed, find_source, open_clients
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.daemon.asking import Asking
    from replicator.daemon.image_reference import ImageReference
    from replicator.daemon.node_client import NodeClient

ROUND = 30.0
"""Seconds for which a node is asked at a time, so that nothing between us and it takes the connection for dead."""

_MARGIN = 10.0
_PAUSE = 1.0
_PASSING = {None, 503}
"""What a node answers that is being stopped, or does not."""
_OVER = {"COMPLETE", "SUPERSEDED", "NOT_REPLICATED"}
_NOT_OURS = {401, 403}


@dataclass(frozen=True, slots=True)
class Waiting:
    """What to wait for; no regions stand for every destination."""

    image: str
    regions: tuple[str, ...] = ()
    timeout: float = 60.0


def run(asking: Asking, waiting: Waiting) -> int:
    """Wait and show how it ended; return 0 when the image can be pulled everywhere, 1 otherwise."""
    image = parse_image(waiting.image)
    found = asyncio.run(_wait(asking, waiting, image))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for one in found["destinations"]:
            sys.stdout.write(_line(found["digest"], one) + "\n")
    return 0 if found["complete"] else 1


async def _wait(asking: Asking, waiting: Waiting, image: ImageReference) -> Mapping[str, Any]:
    async with open_clients(asking) as clients:
        source = await find_source(clients, asking.source, image.repository, image.reference)
        found = await _until_over(source, waiting, image)
        destinations = [await _checked(clients, found["digest"], one) for one in found["destinations"]]
        complete = all(one["state"] == "COMPLETE" for one in destinations)
        return {
            "image": str(image),
            "digest": found["digest"],
            "source": source.name,
            "complete": complete,
            "destinations": destinations,
        }


async def _until_over(source: NodeClient, waiting: Waiting, image: ImageReference) -> Mapping[str, Any]:
    clock = SystemClock()
    deadline = clock.monotonic() + waiting.timeout
    digest: str | None = None
    while True:
        left = max(0.0, deadline - clock.monotonic())
        seconds = min(left, ROUND)
        try:
            found = await _ask(source, waiting, image, digest, seconds)
        except NodeFailed as error:
            if digest is None or error.status not in _PASSING or left <= _PAUSE:
                raise
            await clock.sleep(_PAUSE)  # a node that is started anew goes on with what it was doing
            continue
        digest = found["digest"]
        if left <= seconds or all(one["state"] in _OVER for one in found["destinations"]):
            return found


async def _ask(
    source: NodeClient, waiting: Waiting, image: ImageReference, digest: str | None, seconds: float
) -> Mapping[str, Any]:
    fields = {
        "repository": image.repository,
        "reference": image.reference,
        "digest": digest,
        "regions": list(waiting.regions),
        "timeout": seconds,
    }
    found = await source.post("wait", fields, seconds + _MARGIN)
    if not found["destinations"]:
        raise NodeFailed(source.name, f"no replication rule sends {image} anywhere")
    return found


async def _checked(clients: Sequence[NodeClient], digest: str, outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an outcome after asking the destination for the digest, where the configuration says where it is."""
    client = next((one for one in clients if one.name == outcome["destination"]), None)
    if client is None or outcome["state"] != "COMPLETE":
        return {**outcome, "checked": False}
    try:
        status = await client.head_manifest(outcome["repository"], digest)
    except NodeFailed as error:
        return {**outcome, "checked": True, "state": "UNREACHABLE", "reason": error.reason}
    if status in _NOT_OURS:
        return {**outcome, "checked": False, "reason": f"not asked for it there: answered {status}"}
    if status != 200:
        return {**outcome, "checked": True, "state": "MISSING", "reason": f"asked for it there: answered {status}"}
    return {**outcome, "checked": True}


def _line(digest: str, one: Mapping[str, Any]) -> str:
    where = f"{one['destination']}: {one['state']} {one['repository']}@{digest}"
    code = f" {one['failure_code']}" if one["failure_code"] else ""
    return f"{where}{code}{': ' + one['reason'] if one['reason'] else ''}"
