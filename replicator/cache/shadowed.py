"""Repositories that were pushed here before a cache rule came to cover them.

Such a repository is shadowed: its pushed images stay and are served, but what it lacks is looked for at the upstream,
and nobody may push to it any more. That is seldom meant, so it is said when the node starts. `ROOT` shadows nothing:
what was not made by the cache stays the node's own there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from replicator.core.cache_rules import refusing_rule
from replicator.storage.metadata import repositories
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode

_log = get_logger(__name__)

_PUSHED: Final = "push"
_PAGE: Final = 1000


async def shadowed_repositories(node: RegistryNode) -> Mapping[RepositoryName, str]:
    """Return pushed repositories with the prefix of the rule that covers each; raises StorageError.

    A rule that accepts pushes means it.
    """
    rules, after = node.settings.cache_rules, ""
    found: dict[RepositoryName, str] = {}
    while rules:
        names = await node.database.read(repositories.created_by(_PUSHED, after, _PAGE))
        covered = ((name, refusing_rule(rules, name)) for name in names)
        found.update((name, rule.prefix) for name, rule in covered if rule is not None)
        if len(names) < _PAGE:
            break
        after = names[-1]
    return found


async def report_shadowed(node: RegistryNode) -> None:
    """Log each rule that shadows pushed repositories, with how many and one of them; raises StorageError."""
    found = await shadowed_repositories(node)
    examples = {prefix: name for name, prefix in sorted(found.items(), reverse=True)}
    for prefix, count in Counter(found.values()).items():
        _log.warning(
            "cache rule covers repositories that were pushed here",
            node=str(node.settings.node),
            rule=prefix,
            repositories=count,
            example=examples[prefix],
        )
