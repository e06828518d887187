"""Settings of the registry that were made at run time: one document each, with a revision that only grows.

A document is never deleted, only emptied, so that whoever remembers a revision knows whether it missed a change.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import registry_documents
from replicator.storage.metadata.statement import Statement, Steps

_rd = registry_documents.c


@dataclass(frozen=True, slots=True)
class RegistryDocument:
    """A document of JSON text as it was written last; `updated_at` is Unix seconds."""

    name: str
    content: str
    revision: int
    updated_at: float


_columns = sa.select(_rd.name, _rd.content, _rd.revision, _rd.updated_at)
_ALL = Statement(_columns.order_by(_rd.name))
_FIND = Statement(_columns.where(_rd.name == sa.bindparam("of")))
_put = insert(registry_documents).values(
    name=sa.bindparam("name"), content=sa.bindparam("content"), revision=1, updated_at=sa.bindparam("updated_at")
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "content": _put.excluded.content,
            "revision": _rd.revision + 1,
            "updated_at": _put.excluded.updated_at,
        },
    ).returning(_rd.name, _rd.content, _rd.revision, _rd.updated_at)
)


def find(name: str) -> Steps[RegistryDocument | None]:
    """Return a document, or None when it was never written."""
    rows = yield from _FIND(of=name)
    return RegistryDocument(*rows[0]) if rows else None


def all_documents() -> Steps[list[RegistryDocument]]:
    """Return every document, by name."""
    rows = yield from _ALL()
    return [RegistryDocument(*row) for row in rows]


def put(name: str, content: str, now: float) -> Steps[RegistryDocument]:
    """Write a document in place of what it was; return it with its new revision."""
    rows = yield from _PUT(name=name, content=content, updated_at=now)
    return RegistryDocument(*rows[0])
