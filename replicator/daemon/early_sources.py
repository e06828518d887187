"""Which nodes are asked for images that are still on their way here, and about which repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.names import NodeId
    from replicator.core.replication import ReplicationRule


def early_sources(
    settings: Settings, node: NodeSettings, rules_of: Callable[[NodeId], tuple[ReplicationRule, ...]]
) -> dict[NodeId, tuple[str, ...]]:
    """Return the nodes with patterns of the repositories that their rules may send images into.

    The rules of the nodes of this file are known to `rules_of`; what peers send is for the file to say. A pattern too
    wide costs a question: the source shows only what its rules send here.
    """
    chosen = node.replication.read_through
    if not chosen.enabled:
        return {}
    found = {
        other.id: tuple(dict.fromkeys(pattern for rule in rules for pattern in _patterns(rule)))
        for other in settings.nodes
        if (rules := [rule for rule in rules_of(other.id) if node.id in rule.destinations])
    }
    found.pop(node.id, None)
    return {**found, **{source.id: source.repositories for source in chosen.sources}}


def _patterns(rule: ReplicationRule) -> Iterator[str]:
    """Yield what the rule's repositories may be called at its destinations."""
    yield from (f"{prefix}*" for prefix in rule.filters)
    yield from rule.repositories
    if not rule.filters and not rule.repositories:
        yield "*"
    yield from (f"{rename.to}*" for rename in rule.rename)
