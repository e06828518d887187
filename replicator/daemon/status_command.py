"""`replicator status`: asks every node of a configuration how it is, and shows it."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from rich.console import Console
from rich.markup import escape

from replicator.config.loader import load_settings
from replicator.core.errors import ConfigurationError, UpstreamDenied
from replicator.daemon.amounts import size_text
from replicator.daemon.node_client import reachable, trust, unreachable
from replicator.daemon.node_logins import NodeLogins
from replicator.daemon.upstream_text import health_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.nodes import NodeSettings

TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What a node said, or why it said nothing."""

    node: str
    url: str
    status: Mapping[str, Any] | None
    error: str = ""


def run(
    config: Path, environ: Mapping[str, str], *, user: str | None, as_json: bool, ca_file: Path | None = None
) -> int:
    """Print the status of every node; return 0 when all answered, 1 otherwise. Raises ConfigurationError."""
    settings = load_settings(config, environ)
    answers = asyncio.run(_ask_all(settings.nodes, NodeLogins(settings, user, environ, ca_file), ca_file))
    if as_json:
        document = [
            answer.status or {"node": answer.node, "url": answer.url, "error": answer.error} for answer in answers
        ]
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(answers)
    return 0 if all(answer.status for answer in answers) else 1


async def _ask_all(nodes: tuple[NodeSettings, ...], logins: NodeLogins, ca_file: Path | None) -> list[NodeAnswer]:
    timeout, connector = aiohttp.ClientTimeout(total=TIMEOUT), aiohttp.TCPConnector(ssl=trust(ca_file))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        return [await _ask(session, node, logins) for node in nodes]


async def _ask(session: aiohttp.ClientSession, node: NodeSettings, logins: NodeLogins) -> NodeAnswer:
    name, url = str(node.id), reachable(node)
    try:
        headers = await logins.headers(node.region, url)
        async with session.get(f"{url}/_replicator/v1/status", allow_redirects=False, headers=headers) as response:
            if response.status == 200:
                return NodeAnswer(name, url, await response.json())
            refusal = logins.refused(headers) if response.status == 401 else f"answered {response.status}"
            return NodeAnswer(name, url, None, refusal)
    except (UpstreamDenied, ConfigurationError) as error:
        return NodeAnswer(name, url, None, str(error))
    except TimeoutError:
        return NodeAnswer(name, url, None, f"no answer within {TIMEOUT:.0f} s")
    except (aiohttp.ClientError, ssl.SSLError) as error:
        return NodeAnswer(name, url, None, f"cannot be reached: {unreachable(error)}")


def _show(answers: list[NodeAnswer]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for answer in answers:
        console.print(f"[bold]{answer.node}[/bold]  {answer.url}")
        for name, text in _lines(answer):
            console.print(f"  {name:<12} {escape(text)}")


def _lines(answer: NodeAnswer) -> list[tuple[str, str]]:
    """Return what is shown of a node, as names and texts."""
    if answer.status is None:
        return [("unreachable", answer.error)]
    status = answer.status
    storage, replication = status["storage"], status["replication"]
    lines = [
        ("ready", _ready(status["ready"])),
        (
            "storage",
            f"{storage['repositories']} repositories, {storage['images']} images,"
            f" {storage['blobs']} blobs of {size_text(storage['blob_bytes'])}, {storage['uploads_open']} open uploads",
        ),
        ("queue", _queue(replication)),
    ]
    lines += [("replicated", _destination(found)) for found in replication["destinations"]]
    if replication["backfills"]:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(replication["backfills"].items()))
        lines.append(("backfills", counts))
    lines += [("objective", _objective(found)) for found in replication["objectives"]]
    lines += [("drift", _drift(found)) for found in replication["destinations"] if found["drift"]]
    lines += [("failures", _failures(found)) for found in replication["destinations"] if found["failures"]]
    lines += [("failing", _failure(found)) for found in replication["errors"]]
    lines += [("conflict", conflict_text(found)) for found in replication["conflicts"]]
    results = ", ".join(f"{count} {result}" for result, count in sorted(status["cache"].items()))
    lines.append(("cache", results or "no pulls yet"))
    return lines + [("upstream", f"{one['name']}: {text}") for one in status["upstreams"] if (text := health_text(one))]


def _ready(ready: Mapping[str, Any]) -> str:
    if ready["read"] and ready["write"]:
        return "read and write"
    return f"{'read only' if ready['read'] else 'no'}: {ready['reason']}"


def _queue(replication: Mapping[str, Any]) -> str:
    jobs = replication["jobs"]
    waiting = f"{jobs['queued']} queued, {jobs['leased']} running"
    if jobs["dead"]:
        waiting += f", {jobs['dead']} dead"
    oldest = replication["oldest_pending_seconds"]
    return f"{waiting}, oldest {oldest:.0f} s" if oldest else waiting


def _destination(found: Mapping[str, Any]) -> str:
    parts = [f"to {found['destination']}: {found['images']} images, {size_text(found['bytes'])}"]
    if found["queued"] or found["running"]:
        parts.append(f"{found['queued'] + found['running']} pending")
    if found["superseded"]:
        parts.append(f"{found['superseded']} superseded")
    if found["last_lag_seconds"] is not None:
        parts.append(f"last lag {found['last_lag_seconds']:.2f} s")
    return ", ".join(parts)


def _objective(found: Mapping[str, Any]) -> str:
    windows = ", ".join(f"burn {one['burn_rate']:.1f} in {name}" for name, one in found["windows"].items())
    overdue = f", {found['overdue']} overdue" if found["overdue"] else ""
    return (
        f"{found['rule']} to {found['destination']}: {found['target'] * 100:.6g} % of images within"
        f" {found['objective_seconds']:.6g} s, {windows}{overdue}"
    )


def _drift(found: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{one['found']} {one['kind']} ({one['repaired']} repaired)" for one in found["drift"])
    return f"at {found['destination']}: {kinds}"


def _failures(found: Mapping[str, Any]) -> str:
    codes = ", ".join(f"{count} {code}" for code, count in sorted(found["failures"].items()))
    return f"to {found['destination']}: {codes}"


def conflict_text(found: Mapping[str, Any]) -> str:
    """Return a conflict as people read it."""
    winner = f"is {found['winner']}" if found["winner"] else "was deleted"
    return f"{found['repository']}:{found['tag']} {winner}; also written elsewhere: {found['loser']}"


def _failure(found: Mapping[str, Any]) -> str:
    reference = f":{found['tag']}" if found["tag"] else f"@{found['digest']}"
    return (
        f"{found['repository']}{reference} to {found['destination']} by rule {found['rule']}"
        f" after {found['attempts']} attempts,"
        f" again in {found['retry_in_seconds']:.0f} s: {found['error']}"
    )
