"""What `serve` prints when it is up: what runs where, and what to try next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.config.rule_samples import covered_names, sample_tags
from replicator.core.cache_rules import ROOT
from replicator.core.names import NodeId, RepositoryName, Tag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.replication import ReplicationRule

_EXAMPLE_NAME = RepositoryName("demo/app")
_EXAMPLE_TAG = Tag("1.0")


def banner(settings: Settings, config: str, urls: Mapping[NodeId, str]) -> str:
    """Return the text; `urls` are the addresses the nodes really listen on."""
    lines = ["", "replicator is running", ""]
    for node in settings.nodes:
        lines += _node_lines(node, urls[node.id])
    lines += ["", "Try next:", *(f"  {command}" for command in suggestions(settings, config, urls)), ""]
    return "\n".join(lines)


def _node_lines(node: NodeSettings, url: str) -> list[str]:
    lines = [f"  {node.id!s:<30} {node.public_url or url}"]
    for rule in node.replication_rules():
        what = ", ".join((*(f"{prefix}*" for prefix in rule.filters), *rule.repositories)) or "every repository"
        where = ", ".join(str(destination) for destination in rule.destinations)
        lines.append(f"      replicates {what} to {where}")
    prefixes = ", ".join("every other name" if one.prefix == ROOT else f"{one.prefix}/" for one in node.cache.rules)
    if prefixes:
        lines.append(f"      pulls through {prefixes}")
    return lines


def suggestions(settings: Settings, config: str, urls: Mapping[NodeId, str]) -> list[str]:
    """Return commands that show what this configuration can do."""
    first = settings.nodes[0]
    host = urls[first.id].partition("://")[2]
    user = first.auth.users[0].name if first.auth and first.auth.users else None
    log_in = f" --user {user}" if user else ""
    at_source, at_destination = (f"--{side}creds {user}:PASSWORD " if user else "" for side in ("", "dest-"))
    commands = [f"{_program()} status --config {config}{log_in}"]
    rules = first.replication_rules()
    if rules:
        name, tag = _example(rules[0])
        commands.append(
            f"skopeo copy {at_destination}--dest-tls-verify=false docker-archive:image.tar docker://{host}/{name}:{tag}"
        )
        nearest = rules[0].destinations[0]
        other = urls.get(nearest) if isinstance(nearest, NodeId) else None
        if other is not None:
            there = f"{other.partition('://')[2]}/{rules[0].renamed(name)}"
            commands.append(f"skopeo inspect {at_source}--tls-verify=false docker://{there}:{tag}   # it has arrived")
    caches = first.cache.rules
    if caches:
        place = host if caches[0].prefix == ROOT else f"{host}/{caches[0].prefix}"
        commands.append(f"skopeo inspect {at_source}--tls-verify=false docker://{place}/library/alpine:latest")
    commands.append(f"curl {urls[first.id]}/metrics")
    return commands


def _example(rule: ReplicationRule) -> tuple[RepositoryName, Tag]:
    """Return an image that a rule replicates."""
    names = [name for name in (_EXAMPLE_NAME, *covered_names(rule)) if rule.matches(name)]
    tags = [tag for tag in (_EXAMPLE_TAG, *sample_tags([rule])) if rule.matches_tag(tag)]
    return (names or [_EXAMPLE_NAME])[0], (tags or [_EXAMPLE_TAG])[0]


def _program() -> str:
    """Return how this program is called from where we are."""
    if shutil.which("replicator") is not None:
        return "replicator"
    called = Path(sys.argv[0])
    here = Path.cwd()
    return str(called.relative_to(here)) if called.is_relative_to(here) else str(called)
