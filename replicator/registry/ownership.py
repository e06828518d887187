"""Whose a repository is: this registry's own, or one that the cache made.

What follows from it is decided in several places (who may push, which upstream is asked, what may be evicted); they
must not disagree, or what was pushed here could be taken from a public upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.storage.metadata.repositories import Repository

CREATED_BY_CACHE = "cache"


def is_own(found: Repository | None) -> bool:
    """Tell whether a repository exists that something else than the cache made. One that does not exist is nobody's."""
    return found is not None and found.created_by != CREATED_BY_CACHE
