"""What became of the signings that were asked for images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import image_signings
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName


@dataclass(frozen=True, slots=True)
class ImageSigning:
    """A signing of one image by one profile."""

    profile: str
    status: str
    failure_code: str | None
    failure_reason: str | None
    requested_at: float


_is = image_signings.c
_put = insert(image_signings).values(
    repository=sa.bindparam("repository"),
    digest=sa.bindparam("digest"),
    profile=sa.bindparam("profile"),
    status=sa.bindparam("status"),
    failure_code=sa.bindparam("failure_code"),
    failure_reason=sa.bindparam("failure_reason"),
    requested_at=sa.bindparam("requested_at"),
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository", "digest", "profile"],
        set_={
            "status": _put.excluded.status,
            "failure_code": _put.excluded.failure_code,
            "failure_reason": _put.excluded.failure_reason,
            "requested_at": _put.excluded.requested_at,
        },
    )
)
_ONE_IMAGE = sa.and_(_is.repository == sa.bindparam("of_repository"), _is.digest == sa.bindparam("of_digest"))
_OF_IMAGE = Statement(
    sa.select(_is.profile, _is.status, _is.failure_code, _is.failure_reason, _is.requested_at)
    .where(_ONE_IMAGE)
    .order_by(_is.profile)
)
_FORGET = Statement(sa.delete(image_signings).where(_ONE_IMAGE))


def put(repository: RepositoryName, digest: Digest, signing: ImageSigning) -> Steps[None]:
    """Note how the signing of an image by a profile stands."""
    yield from _PUT(
        repository=repository,
        digest=digest,
        profile=signing.profile,
        status=signing.status,
        failure_code=signing.failure_code,
        failure_reason=signing.failure_reason,
        requested_at=signing.requested_at,
    )


def of_image(repository: RepositoryName, digest: Digest) -> Steps[list[ImageSigning]]:
    """Return the signings of an image, by profile."""
    rows = yield from _OF_IMAGE(of_repository=repository, of_digest=digest)
    return [ImageSigning(*row) for row in rows]


def forget(repository: RepositoryName, digest: Digest) -> Steps[None]:
    """Drop the signings of a deleted image."""
    yield from _FORGET(of_repository=repository, of_digest=digest)
