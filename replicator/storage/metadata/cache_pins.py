"""What operators keep in the cache whatever happens: pins of tags and of digests.

A pin of a tag holds for the image that the tag points to at the moment, so that it follows the tag when the upstream
moves it. A pin may be there before its image is, and stays when the image goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import cache_pins, tags
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference

_PUT = Statement(
    insert(cache_pins)
    .values(
        repository=sa.bindparam("repository"),
        reference=sa.bindparam("reference"),
        pinned_at=sa.bindparam("pinned_at"),
    )
    .on_conflict_do_nothing(index_elements=["repository", "reference"])
)
_DELETE = Statement(
    sa.delete(cache_pins)
    .where(cache_pins.c.repository == sa.bindparam("repository"), cache_pins.c.reference == sa.bindparam("reference"))
    .returning(cache_pins.c.reference)
)
_HAS = Statement(
    sa.select(cache_pins.c.reference).where(
        cache_pins.c.repository == sa.bindparam("repository"), cache_pins.c.reference == sa.bindparam("reference")
    )
)
_HOLDS = Statement(
    sa.select(cache_pins.c.reference)
    .where(cache_pins.c.repository == sa.bindparam("repository"), cache_pins.c.reference == sa.bindparam("digest"))
    .union_all(
        sa.select(cache_pins.c.reference)
        .join(tags, sa.and_(tags.c.repository == cache_pins.c.repository, tags.c.tag == cache_pins.c.reference))
        .where(cache_pins.c.repository == sa.bindparam("repository"), tags.c.digest == sa.bindparam("digest"))
    )
    .limit(1)
)


def put(repository: RepositoryName, reference: Reference, now: float) -> Steps[None]:
    """Pin a tag or a digest; one that is pinned stays so since when it was."""
    yield from _PUT(repository=repository, reference=reference, pinned_at=now)


def delete(repository: RepositoryName, reference: Reference) -> Steps[bool]:
    """Take a pin back; return whether there was one."""
    return bool((yield from _DELETE(repository=repository, reference=reference)))


def has(repository: RepositoryName, reference: Reference) -> Steps[bool]:
    """Tell whether a tag or a digest was pinned as such."""
    return bool((yield from _HAS(repository=repository, reference=reference)))


def holds(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether an image is pinned, by its digest or by a tag that points to it now."""
    return bool((yield from _HOLDS(repository=repository, digest=digest)))
