"""`replicator cache ls|refresh|purge|pin|unpin|explain|status`: asks a node about its cache, and shows the answer."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table

from replicator.core.errors import InvalidInput
from replicator.core.reference import image_text
from replicator.daemon.amounts import size_text
from replicator.daemon.cache_text import explanation_lines, image_row, space_lines, upstream_line
from replicator.daemon.console import open_console
from replicator.daemon.node_client import CACHE, NodeFailed, choose, open_clients

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from replicator.daemon.asking import Asking
    from replicator.daemon.node_client import NodeClient

    Json = Mapping[str, Any]

_PAGE = "500"
PATIENCE = 900.0
"""Seconds for what asks an upstream about many tags, or removes many images."""


@dataclass(frozen=True, slots=True)
class Purging:
    """What to remove: images, or a whole repository; with `force` what is pinned, too."""

    images: tuple[str, ...]
    repository: str | None
    force: bool

    @property
    def text(self) -> str:
        """What is removed, as people read it."""
        parts = [*self.images, *([f"everything in {self.repository}"] if self.repository else [])]
        return ", ".join(parts) or "nothing"


def list_images(asking: Asking, prefix: str) -> int:
    """Show what is cached."""
    found = asyncio.run(_list(asking, prefix))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    table = Table("image", "digest", "size", "here", "age", "freshness", "last used", "notes", box=None)
    for one in found["images"]:
        table.add_row(*image_row(one, found["now"]))
    total = sum(one["bytes"] for one in found["images"])
    open_console().print(table if found["images"] else "nothing is cached")
    if found["images"]:
        # Layers that images share are counted with each of them; `cache status` counts them once.
        sys.stdout.write(f"{len(found['images'])} images of {size_text(total)}, shared layers counted with each\n")
    return 0


async def _list(asking: Asking, prefix: str) -> dict[str, Any]:
    images: list[Json] = []
    async with open_clients(asking, CACHE) as clients:
        client, after, now = choose(clients, asking.source), None, 0.0
        while True:
            page = await client.get("images", prefix=prefix or None, limit=_PAGE, after=after)
            images += page["images"]
            after, now = page["next_after"], page["now"]
            if after is None:
                return {"node": client.name, "now": now, "images": images}


def refresh(asking: Asking, images: Sequence[str], repository: str | None) -> int:
    """Check tags now; return 1 when a check failed."""
    asked = _wanted(images, repository)

    async def work(client: NodeClient, fields: Json) -> Json:
        return await client.post("refresh", fields, PATIENCE)

    done = asyncio.run(_each(asking, asked, work))
    for one in done.results:
        for tag in one["tags"]:
            error = f": {tag['error']}" if tag["outcome"] == "failed" and tag["error"] else ""
            done.say(f"{one['repository']}:{tag['tag']} {tag['outcome']}{error}")
            done.failed = done.failed or tag["outcome"] == "failed"
    return done.finish(asking)


def purge(asking: Asking, purging: Purging) -> int:
    """Remove cached images; return 1 when some had to stay, such as pinned ones."""
    asked = [{**fields, "force": purging.force} for fields in _wanted(purging.images, purging.repository)]

    async def work(client: NodeClient, fields: Json) -> Json:
        return await client.post("purge", fields, PATIENCE)

    done = asyncio.run(_each(asking, asked, work))
    for one in done.results:
        done.say(f"{one['asked']}: {_purged_text(one)}")
        done.failed = done.failed or one["kept"] > 0
    return done.finish(asking)


def _purged_text(one: Json) -> str:
    """Return what a purge did; a tag whose image has another one goes without it."""
    if not (one["images"] or one["tags"] or one["kept"]):
        return "nothing of it is cached"
    kept = f", {one['kept']} had to stay" if one["kept"] else ""
    return f"{one['images']} images and {one['tags']} tags removed, {size_text(one['bytes'])} freed{kept}"


def set_pins(asking: Asking, images: Sequence[str], *, pinned: bool) -> int:
    """Pin images, or take pins back."""

    async def work(client: NodeClient, fields: Json) -> Json:
        return await client.post("pin" if pinned else "unpin", fields)

    done = asyncio.run(_each(asking, _wanted(images, None), work))
    for one in done.results:
        absent = "" if one["cached"] or not pinned else ", but it is not cached"
        done.say(f"{image_text(one['repository'], one['reference'])} {'pinned' if pinned else 'not pinned'}{absent}")
    return done.finish(asking)


def explain(asking: Asking, image: str) -> int:
    """Show why an image is answered as it is; return 1 when a pull of it would find nothing."""
    found = asyncio.run(_ask(asking, "explain", image=image))
    if asking.as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        for name, text in explanation_lines(found):
            sys.stdout.write(f"{name:<12} {text}\n")
    return 0 if found["cached"] is not None or found["obtainable"] else 1


def status(asking: Asking) -> int:
    """Show upstreams and space."""
    upstreams, space = asyncio.run(_status(asking))
    if asking.as_json:
        document = {"node": upstreams["node"], "upstreams": upstreams["upstreams"], "space": space}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    sys.stdout.write(f"{upstreams['node']}\n")
    lines = [("upstream", upstream_line(one)) for one in upstreams["upstreams"]]
    for name, text in [*lines, *(("space", line) for line in space_lines(space))]:
        sys.stdout.write(f"  {name:<10} {text}\n")
    return 0


async def _status(asking: Asking) -> tuple[dict[str, Any], Json]:
    async with open_clients(asking, CACHE) as clients:
        client = choose(clients, asking.source)
        return {"node": client.name, **await client.get("upstreams")}, await client.get("space")


async def _ask(asking: Asking, path: str, **query: str) -> dict[str, Any]:
    async with open_clients(asking, CACHE) as clients:
        client = choose(clients, asking.source)
        return {"node": client.name, **await client.get(path, **query)}


def _wanted(images: Sequence[str], repository: str | None) -> list[dict[str, object]]:
    """Return the fields that name what is meant; raises InvalidInput when nothing is."""
    wanted: list[dict[str, object]] = [{"image": one} for one in images]
    if repository is not None:
        wanted.append({"repository": repository})
    if not wanted:
        raise InvalidInput("expected an image or --repository")
    return wanted


class _Done:
    """What came of several requests to one node: each result, or why there is none."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.results: list[dict[str, Any]] = []
        self.failures: list[dict[str, str]] = []
        self.failed = False
        self._lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep a line for people."""
        self._lines.append(line)

    def finish(self, asking: Asking) -> int:
        """Show everything and return the status."""
        if asking.as_json:
            document = {"node": self.node, "results": self.results, "failures": self.failures}
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            sys.stdout.writelines(f"{line}\n" for line in self._lines)
            sys.stderr.writelines(f"replicator: {one['asked']}: {one['reason']}\n" for one in self.failures)
        return 1 if self.failed or self.failures else 0


async def _each(asking: Asking, wanted: Sequence[Json], work: Callable[[NodeClient, Json], Awaitable[Json]]) -> _Done:
    """Have `work` done for each, one after the other: what is refused of one does not stop the rest."""
    async with open_clients(asking, CACHE) as clients:
        client = choose(clients, asking.source)
        done = _Done(client.name)
        for fields in wanted:
            asked = str(fields.get("image") or fields.get("repository"))
            try:
                done.results.append({"asked": asked, **await work(client, fields)})
            except NodeFailed as error:
                if error.status in {None, 401}:
                    raise  # it would be the same with all of them
                done.failures.append({"asked": asked, "reason": error.reason})
        return done
