"""Rules that cover none of the repositories there are: most often a prefix that is misspelt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.storage.metadata import repositories
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.registry.node import RegistryNode

_log = get_logger(__name__)

_PAGE = 1000


async def idle_rules(node: RegistryNode) -> list[str]:
    """Return the names of rules that cover no repository of the node; none where it has no repository yet."""
    idle, after, is_empty = list(node.settings.replication_rules), "", True
    while idle:
        names = await node.database.read(repositories.names_after(after, _PAGE))
        is_empty = is_empty and not names
        idle = [rule for rule in idle if not any(rule.matches(name) for name in names)]
        if len(names) < _PAGE:
            break
        after = names[-1]
    return [] if is_empty else [rule.name for rule in idle]


async def report_idle_rules(node: RegistryNode) -> None:
    """Log the rules that cover no repository; raises StorageError."""
    for rule in await idle_rules(node):
        _log.warning("replication rule covers no repository here", node=str(node.settings.node), rule=rule)
