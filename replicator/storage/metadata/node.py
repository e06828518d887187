"""Whose store this is: written once, checked at every start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.errors import StorageError
from replicator.storage.metadata.schema import node
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.names import NodeId

FIRST_EPOCH = 1

_CLAIM = Statement(
    insert(node)
    .values(id=1, name=sa.bindparam("name"), epoch=FIRST_EPOCH)
    .on_conflict_do_nothing(index_elements=["id"])
)
_OWNER = Statement(sa.select(node.c.name).where(node.c.id == 1))


def claim(owner: NodeId) -> Steps[None]:
    """Write the node's name into a new store; raise StorageError when the store is another node's."""
    yield from _CLAIM(name=str(owner))
    rows = yield from _OWNER()
    if rows[0][0] != str(owner):
        raise StorageError(f"the store belongs to node {rows[0][0]}, not to {owner}; give each node its own storage")
