"""The logos of public repositories. They are apart from the rows of these, which every push and pull reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import public_logos
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName

_l = public_logos.c
_put = insert(public_logos).values(
    repository=sa.bindparam("repository"), digest=sa.bindparam("digest"), content=sa.bindparam("content")
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository"], set_={"digest": _put.excluded.digest, "content": _put.excluded.content}
    )
)
_FIND = Statement(
    sa.select(_l.content).where(_l.repository == sa.bindparam("of"), _l.digest == sa.bindparam("of_digest"))
)
_DELETE = Statement(sa.delete(public_logos).where(_l.repository == sa.bindparam("of")))


def put(repository: RepositoryName, digest: Digest, content: bytes) -> Steps[None]:
    """Store the logo of a repository in place of any other."""
    yield from _PUT(repository=repository, digest=digest, content=content)


def delete(repository: RepositoryName) -> Steps[None]:
    """Forget the logo of a repository."""
    yield from _DELETE(of=repository)


def find(repository: RepositoryName, digest: Digest) -> Steps[bytes | None]:
    """Return a logo, or None when the repository has another one, or none."""
    rows = yield from _FIND(of=repository, of_digest=digest)
    return bytes(rows[0][0]) if rows else None
