"""`replicator status`: asks every node of a configuration how it is, and shows it as a table."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from rich.console import Console
from rich.table import Table

from replicator.config.loader import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.nodes import NodeSettings

TIMEOUT = 5.0
_KIB = 1024


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node said, or why it said nothing."""

    node: str
    url: str
    status: Mapping[str, Any] | None
    error: str = ""


def run(config: Path, environ: Mapping[str, str], *, user: str | None, as_json: bool) -> int:
    """Print the status of every node; return 0 when all answered, 1 otherwise. Raises ConfigurationError."""
    settings = load_settings(config, environ)
    auth = None if user is None else aiohttp.BasicAuth(user, environ.get("REPLICATOR_PASSWORD", ""))
    answers = asyncio.run(_ask_all(settings.nodes, auth))
    if as_json:
        document = [
            answer.status or {"node": answer.node, "url": answer.url, "error": answer.error} for answer in answers
        ]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(answers)
    return 0 if all(answer.status for answer in answers) else 1


async def _ask_all(nodes: tuple[NodeSettings, ...], auth: aiohttp.BasicAuth | None) -> list[NodeAnswer]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout, auth=auth, trust_env=False) as session:
        return [await _ask(session, node) for node in nodes]


async def _ask(session: aiohttp.ClientSession, node: NodeSettings) -> NodeAnswer:
    name, url = str(node.id), _reachable(node)
    try:
        async with session.get(f"{url}/_replicator/v1/status", allow_redirects=False) as response:
            if response.status == 200:
                return NodeAnswer(name, url, await response.json())
            reason = "asks for credentials: use --user" if response.status == 401 else f"answered {response.status}"
            return NodeAnswer(name, url, None, reason)
    except TimeoutError:
        return NodeAnswer(name, url, None, f"no answer within {TIMEOUT:.0f} s")
    except (aiohttp.ClientError, ssl.SSLError) as error:
        return NodeAnswer(name, url, None, f"cannot be reached: {error}")


def _reachable(node: NodeSettings) -> str:
    return node.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:").rstrip("/")


def _show(answers: list[NodeAnswer]) -> None:
    console = Console()
    table = Table("node", "ready", "images", "blobs", "size", "queue", "oldest", "destinations", "cache")
    for answer in answers:
        table.add_row(*(_row(answer.status) if answer.status else _silent(answer)))
    console.print(table)
    for answer in answers:
        for found in (answer.status or {}).get("replication", {}).get("errors", []):
            image = (
                f"{found['repository']}:{found['tag']}" if found["tag"] else f"{found['repository']}@{found['digest']}"
            )
            console.print(f"{image} to {found['destination']}: {found['error']}", markup=False, highlight=False)


def _silent(answer: NodeAnswer) -> tuple[str, ...]:
    return (f"{answer.node}\n{answer.url}", "no", "", "", "", "", "", answer.error, "")


def _row(status: Mapping[str, Any]) -> tuple[str, ...]:
    ready, storage, replication = status["ready"], status["storage"], status["replication"]
    waiting = sum(count for state, count in replication["jobs"].items() if state != "dead")
    return (
        f"{status['node']}\n{status['url']}",
        "yes" if ready["write"] else ("read only" if ready["read"] else "no"),
        str(storage["images"]),
        str(storage["blobs"]),
        size_text(storage["blob_bytes"]),
        str(waiting),
        f"{replication['oldest_pending_seconds']:.0f} s" if waiting else "",
        "\n".join(_destination(found) for found in replication["destinations"]),
        "\n".join(f"{result} {count}" for result, count in sorted(status["cache"].items())),
    )


def _destination(found: Mapping[str, Any]) -> str:
    parts = [f"{found['destination']}: {found['images']} sent"]
    if found["queued"] or found["running"]:
        parts.append(f"{found['queued'] + found['running']} pending")
    if found["last_lag_seconds"] is not None:
        parts.append(f"lag {found['last_lag_seconds']:.2f} s")
    return ", ".join(parts)


def size_text(size: int) -> str:
    """Return a size in bytes as people read it."""
    amount, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB or unit == "TiB":
            break
        amount /= _KIB
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
