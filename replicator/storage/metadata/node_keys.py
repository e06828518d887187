"""Keys that a node made for itself, each under a name. They never change, and no other node has them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import node_keys
from replicator.storage.metadata.statement import Statement, Steps

_FIND = Statement(sa.select(node_keys.c.key).where(node_keys.c.name == sa.bindparam("name")))
_KEEP = Statement(
    insert(node_keys)
    .values(name=sa.bindparam("name"), key=sa.bindparam("key"))
    .on_conflict_do_nothing(index_elements=["name"])
)


def keep(name: str, key: bytes) -> Steps[bytes]:
    """Store a key unless there is one of this name, and return the one that there is."""
    yield from _KEEP(name=name, key=key)
    rows = yield from _FIND(name=name)
    return bytes(rows[0][0])
