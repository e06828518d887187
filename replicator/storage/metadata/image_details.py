"""Lists of images with all that is known of them, in the order in which they were pushed, and their tags were set.

A page begins after a key, which an image keeps for as long as it is there: what is pushed or deleted between two pages
makes none of the others come twice or not at all. A tag that is set again between two pages stands at its new place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core import texts
from replicator.core.errors import InvalidInput
from replicator.core.image_status import ImageStatus, TagStatus
from replicator.storage.metadata.images import CHILD
from replicator.storage.metadata.schema import Text, images, manifest_references, manifests, tags
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag

_NO_TAG = -1.0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page begins: after this image, and this tag of it, which was set at a time."""

    pushed_at: float = -1.0
    digest: str = ""
    tag: str = ""
    tag_set_at: float = _NO_TAG

    def __str__(self) -> str:
        return f"{self.pushed_at!r} {self.digest} {self.tag_set_at!r} {self.tag}"


def parse_position(text: str) -> Position:
    """Return what `str` wrote, or the start for an empty text; raises InvalidInput."""
    if not text:
        return Position()
    try:
        pushed_at, digest, tag_set_at, tag = text.split(" ")
        return Position(float(pushed_at), digest, tag, float(tag_set_at))
    except ValueError as error:
        raise InvalidInput(texts.constraint("nextToken", "Invalid token")) from error


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images are listed; `status` is None for all."""

    status: ImageStatus | None = ImageStatus.ACTIVE
    tags: TagStatus = TagStatus.ANY


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image under one of its tags, or without any."""

    digest: Digest
    pushed_at: float
    tag: Tag | None
    tag_set_at: float = _NO_TAG

    @property
    def position(self) -> Position:
        """Where the list goes on after this entry."""
        return Position(self.pushed_at, self.digest, self.tag or "", self.tag_set_at)


@dataclass(frozen=True, slots=True)
class ImageDetail:
    """What is known of an image. `size` is that of its layers in bytes, None while nobody has counted them."""

    digest: Digest
    pushed_at: float
    media_type: str
    artifact_type: str | None
    subject: Digest | None
    size: int | None
    status: ImageStatus
    archived_at: float | None
    activated_at: float | None
    pulled_at: float | None
    tags: tuple[Tag, ...] = ()

    @property
    def position(self) -> Position:
        """Where the list goes on after this image."""
        return Position(self.pushed_at, self.digest)


@dataclass(frozen=True, slots=True)
class ReferrerRow:
    """A manifest whose subject is the one that was asked about."""

    digest: Digest
    media_type: str
    content: bytes
    artifact_type: str | None
    status: ImageStatus
    pushed_at: float

    @property
    def position(self) -> Position:
        """Where the list goes on after this referrer."""
        return Position(self.pushed_at, self.digest)


_i = images.c
_in_repository = _i.repository == sa.bindparam("repository")
_points_here = (tags.c.repository == _i.repository) & (tags.c.digest == _i.digest)
_named = tags.alias("named")
_tagged = sa.exists().where(_named.c.repository == _i.repository, _named.c.digest == _i.digest).correlate(images)
_limit = sa.bindparam("limit", type_=sa.Integer)
_after_push = sa.bindparam("after_push", type_=sa.Double)
_after_digest = sa.bindparam("after_digest", type_=Text)
_child = images.alias("child")
_largest_child = (
    sa.select(sa.func.max(_child.c.size))
    .join(manifest_references, manifest_references.c.child == _child.c.digest)
    .where(
        _child.c.repository == _i.repository,
        manifest_references.c.parent == _i.digest,
        manifest_references.c.kind == CHILD,
    )
    .correlate(images)
    .scalar_subquery()
)
_DETAIL = (
    _i.digest,
    _i.pushed_at,
    manifests.c.media_type,
    _i.artifact_type,
    _i.subject,
    sa.func.coalesce(_i.size, _largest_child).label("size"),
    _i.status,
    _i.archived_at,
    _i.activated_at,
    _i.pulled_at,
)


def _selected(status: bool, tag_status: TagStatus) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [_in_repository]
    if status:
        found.append(_i.status == sa.bindparam("status"))
    if tag_status is TagStatus.TAGGED:
        found.append(_tagged)
    elif tag_status is TagStatus.UNTAGGED:
        found.append(~_tagged)
    return found


def _list_entries(*selected: sa.ColumnElement[bool]) -> Statement:
    tag = sa.func.coalesce(tags.c.tag, "")
    set_at = sa.func.coalesce(tags.c.changed_at, _NO_TAG)
    after_set = sa.bindparam("after_set", type_=sa.Double)
    after = sa.tuple_(_after_push, _after_digest, after_set, sa.bindparam("after_tag", type_=Text))
    return Statement(
        sa.select(_i.digest, _i.pushed_at, tags.c.tag, set_at)
        .select_from(images.outerjoin(tags, _points_here))
        .where(
            *selected,
            _i.pushed_at >= _after_push,  # lets the index be used
            sa.tuple_(_i.pushed_at, _i.digest, set_at, tag) > after,
        )
        .order_by(_i.pushed_at, _i.digest, set_at, tag)
        .limit(_limit)
    )


def _list_details(*selected: sa.ColumnElement[bool]) -> Statement:
    page = (
        sa.select(*_DETAIL)
        .select_from(images.join(manifests, manifests.c.digest == _i.digest))
        .where(*selected, sa.tuple_(_i.pushed_at, _i.digest) > sa.tuple_(_after_push, _after_digest))
        .order_by(_i.pushed_at, _i.digest)
        .limit(_limit)
        .subquery("page")
    )
    named = (tags.c.repository == sa.bindparam("repository")) & (tags.c.digest == page.c.digest)
    return Statement(
        sa.select(*page.c, tags.c.tag)
        .select_from(page.outerjoin(tags, named))
        .order_by(page.c.pushed_at, page.c.digest, tags.c.changed_at, tags.c.tag)
    )


_KINDS = [(status, tag_status) for status in (True, False) for tag_status in TagStatus]
_ENTRIES = {kind: _list_entries(*_selected(*kind)) for kind in _KINDS}
_DETAILS = {kind: _list_details(*_selected(*kind)) for kind in _KINDS}
_FIND = Statement(
    sa.select(*_DETAIL, tags.c.tag)
    .select_from(images.join(manifests, manifests.c.digest == _i.digest).outerjoin(tags, _points_here))
    .where(_in_repository, _i.digest == sa.bindparam("digest"))
    .order_by(tags.c.changed_at, tags.c.tag)
)
_MAX_TYPES = 5
_types = [sa.bindparam(f"type_{number}", type_=Text) for number in range(_MAX_TYPES)]
_before = sa.tuple_(_after_push, _after_digest)


def _list_referrers(*, status: bool, types: bool) -> Statement:
    found = _selected(status, TagStatus.ANY)
    if types:
        found.append(_i.artifact_type.in_(_types))
    return Statement(
        sa.select(_i.digest, manifests.c.media_type, manifests.c.content, _i.artifact_type, _i.status, _i.pushed_at)
        .join(manifests, manifests.c.digest == _i.digest)
        .where(*found, _i.subject == sa.bindparam("subject"), sa.tuple_(_i.pushed_at, _i.digest) < _before)
        .order_by(_i.pushed_at.desc(), _i.digest.desc())
        .limit(_limit)
    )


_REFERRERS = {
    (status, types): _list_referrers(status=status, types=types) for status in (True, False) for types in (True, False)
}

NEWEST = Position(1e300)
"""Where a list begins that has the newest first."""


def entries_after(
    repository: RepositoryName, selection: Selection, after: Position, limit: int
) -> Steps[list[ImageEntry]]:
    """Return up to `limit` entries that follow a position, one for each tag of an image, as they were set."""
    status = {} if selection.status is None else {"status": selection.status.value}
    rows = yield from _ENTRIES[bool(status), selection.tags](
        repository=repository,
        after_push=after.pushed_at,
        after_digest=after.digest,
        after_set=after.tag_set_at,
        after_tag=after.tag,
        limit=limit,
        **status,
    )
    return [ImageEntry(*row) for row in rows]


def details_after(
    repository: RepositoryName, selection: Selection, after: Position, limit: int
) -> Steps[list[ImageDetail]]:
    """Return up to `limit` images that follow a position, each with its tags in the order in which they were set."""
    status = {} if selection.status is None else {"status": selection.status.value}
    rows = yield from _DETAILS[bool(status), selection.tags](
        repository=repository, after_push=after.pushed_at, after_digest=after.digest, limit=limit, **status
    )
    found: dict[Digest, list[Row]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return [_detail(rows_of_image) for rows_of_image in found.values()]


def find(repository: RepositoryName, digest: Digest) -> Steps[ImageDetail | None]:
    """Return what is known of one image, or None when it is not there."""
    rows = yield from _FIND(repository=repository, digest=digest)
    return _detail(rows) if rows else None


def referrers_after(
    repository: RepositoryName,
    subject: Digest,
    status: ImageStatus | None,
    types: Sequence[str],
    after: Position,
    limit: int,
) -> Steps[list[ReferrerRow]]:
    """Return up to `limit` referrers, the newest first; of at most five artifact types, where there are any."""
    filters: dict[str, str] = {} if status is None else {"status": status.value}
    if types:
        filters |= {f"type_{number}": types[number % len(types)] for number in range(_MAX_TYPES)}
    rows = yield from _REFERRERS[status is not None, bool(types)](
        repository=repository,
        subject=subject,
        after_push=after.pushed_at,
        after_digest=after.digest,
        limit=limit,
        **filters,
    )
    return [
        ReferrerRow(digest, media_type, content, artifact_type, ImageStatus(text), pushed_at)
        for digest, media_type, content, artifact_type, text, pushed_at in rows
    ]


def _detail(rows: Sequence[Row]) -> ImageDetail:
    *values, _ = rows[0]
    detail = ImageDetail(*values)
    names = tuple(row[-1] for row in rows if row[-1] is not None)
    return replace(detail, status=ImageStatus(detail.status), tags=names)
