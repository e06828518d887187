"""What the cache takes up: for the node and for each rule, every blob and every manifest counted once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from replicator.cache.cached_names import CachedNames
from replicator.storage.metadata import cache_space

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.core.names import RepositoryName
    from replicator.storage.metadata.cache_space import HeldBlob
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps

_PAGE = 1000
"""Blobs or manifests that one transaction looks at."""

_Held = tuple[str, int, frozenset["str | None"]]


@dataclass(frozen=True, slots=True)
class CacheUsage:
    """Bytes of blobs and manifests: `size` of those only the cache needs, and for each rule of those that it holds.

    What several rules hold counts for each of them. Limits are bytes as well.
    """

    size: int
    rules: Mapping[str, int]
    max_size: int | None = None
    keep_free: int | None = None
    rule_limits: Mapping[str, int] = field(default_factory=dict)


async def count_usage(database: Database, names: CachedNames) -> tuple[int, dict[str, int]]:
    """Add up all blobs and manifests, a page in memory at a time.

    Returns the bytes that only the cache needs, and those of each rule. Raises StorageError.
    """
    names = CachedNames(names.rules)  # they may be replaced while this counts
    total, by_rule = 0, {rule.prefix: 0 for rule in names.rules}
    known: dict[RepositoryName, str | None] = {}
    for read in (cache_space.held_blobs, cache_space.held_manifests):
        after = ""
        while page := await database.write(partial(_page, names, partial(read, after, _PAGE), known)):
            for _, size, prefixes in page:
                if prefixes and None not in prefixes:
                    total += size
                for prefix in prefixes:
                    if prefix is not None:
                        by_rule[prefix] += size
            after = page[-1][0]
    return total, by_rule


def _page(
    names: CachedNames, read: Callable[[], Steps[list[HeldBlob]]], known: dict[RepositoryName, str | None]
) -> Steps[list[_Held]]:
    found = yield from read()
    page: list[_Held] = []
    for held in found:
        for repository in held.repositories:
            if repository not in known:
                rule = yield from names.find_rule(repository)
                known[repository] = None if rule is None else rule.prefix
        page.append((held.digest, held.size, frozenset(known[one] for one in held.repositories)))
    return page
