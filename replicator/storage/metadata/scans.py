"""Scans of images and what they found, by scan type: the results of one type stay while the other one is in use."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.scanning import ScanState, ScanStatus, ScanType
from replicator.storage.metadata.schema import image_findings, image_scans
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """A finding as the API shows it, and the severity that it counts under.

    `position` is its place among those of its scan, from 0.
    """

    position: int
    severity: str
    document: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ScanSummary:
    """How the scan of an image stands, and how many findings it has of each severity."""

    state: ScanState
    severities: Mapping[str, int]


_s, _f = image_scans.c, image_findings.c
_of_image: dict[str, sa.BindParameter[str]] = {
    "repository": sa.bindparam("of_repository"),
    "digest": sa.bindparam("of_digest"),
}
_scan_of_image = [_s[name] == value for name, value in _of_image.items()]
_finding_of_image = [_f[name] == value for name, value in _of_image.items()]
_of_type: sa.BindParameter[str] = sa.bindparam("of_type")
_FIND = Statement(
    sa.select(_s.scan_type, _s.status, _s.requested_at, _s.description, _s.completed_at, _s.source_updated_at).where(
        *_scan_of_image, _s.scan_type == _of_type
    )
)
_scan = insert(image_scans).values({column.name: sa.bindparam(column.name) for column in image_scans.c})
_PUT = Statement(
    _scan.on_conflict_do_update(
        index_elements=["repository", "digest", "scan_type"],
        set_={
            name: _scan.excluded[name]
            for name in ("status", "description", "requested_at", "completed_at", "source_updated_at")
        },
    )
)
_ADD = Statement(insert(image_findings).values({column.name: sa.bindparam(column.name) for column in image_findings.c}))
_CLEAR = Statement(sa.delete(image_findings).where(*_finding_of_image, _f.scan_type == _of_type))
_FINDINGS = Statement(
    sa.select(_f.position, _f.severity, _f.content)
    .where(*_finding_of_image, _f.scan_type == _of_type, _f.position > sa.bindparam("after", type_=sa.Integer))
    .order_by(_f.position)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_SEVERITIES = Statement(
    sa.select(_f.severity, sa.func.count())
    .where(*_finding_of_image, _f.scan_type == _of_type)
    .group_by(_f.severity)
    .order_by(_f.severity)
)
_NTH_SINCE = Statement(
    sa.select(_s.requested_at)
    .where(_s.scan_type == _of_type, _s.requested_at > sa.bindparam("since", type_=sa.Double))
    .limit(1)
    .offset(sa.bindparam("number", type_=sa.Integer))
)
_AT_ONCE = 100
"""Images that one statement is asked about: a page of the default size."""
_of_several = _s.digest.in_([sa.bindparam(f"digest_{number}") for number in range(_AT_ONCE)])
_STATE = (_s.scan_type, _s.status, _s.requested_at, _s.description, _s.completed_at, _s.source_updated_at)
_SUMMARIES = Statement(
    sa.select(_s.digest, *_STATE, _f.severity, sa.func.count(_f.position))
    .select_from(
        image_scans.outerjoin(
            image_findings,
            sa.and_(_f.repository == _s.repository, _f.digest == _s.digest, _f.scan_type == _s.scan_type),
        )
    )
    .where(_s.repository == _of_image["repository"], _s.scan_type == _of_type, _of_several)
    .group_by(_s.digest, *_STATE, _f.severity)
    .order_by(_s.digest, _f.severity)
)
_ANY = Statement(sa.select(_s.digest).where(_s.repository == _of_image["repository"]).limit(1))
_FORGET_SCANS = Statement(sa.delete(image_scans).where(*_scan_of_image))
_FORGET_FINDINGS = Statement(sa.delete(image_findings).where(*_finding_of_image))


def find(repository: RepositoryName, digest: Digest, scan_type: ScanType) -> Steps[ScanState | None]:
    """Return how the scan of an image stands, or None when it was never scanned in this way."""
    rows = yield from _FIND(of_repository=repository, of_digest=digest, of_type=scan_type.value)
    if not rows:
        return None
    found_type, status, *rest = rows[0]
    return ScanState(ScanType(found_type), ScanStatus(status), *rest)


def find_summary(repository: RepositoryName, digest: Digest, scan_type: ScanType) -> Steps[ScanSummary | None]:
    """Return how the scan of an image stands, with what it counted; None when it was never scanned in this way."""
    state = yield from find(repository, digest, scan_type)
    if state is None:
        return None
    if not state.status.has_findings:
        return ScanSummary(state, {})
    return ScanSummary(state, (yield from severities(repository, digest, scan_type)))


def summaries(
    repository: RepositoryName, digests: Sequence[Digest], scan_type: ScanType
) -> Steps[dict[Digest, ScanSummary]]:
    """Return how the scans of images stand, with what they counted, of those that were scanned in this way."""
    found: dict[Digest, ScanSummary] = {}
    for start in range(0, len(digests), _AT_ONCE):
        asked = digests[start : start + _AT_ONCE]
        names = {f"digest_{number}": asked[number % len(asked)] for number in range(_AT_ONCE)}
        rows = yield from _SUMMARIES(of_repository=repository, of_type=scan_type.value, **names)
        for digest, found_type, status, *rest, severity, count in rows:
            state = ScanState(ScanType(found_type), ScanStatus(status), *rest)
            counts = dict(found[digest].severities) if digest in found else {}
            if severity is not None and state.status.has_findings:
                counts[severity] = int(count)
            found[digest] = ScanSummary(state, counts)
    return found


def has_any(repository: RepositoryName) -> Steps[bool]:
    """Tell whether an image of a repository was ever scanned."""
    return bool((yield from _ANY(of_repository=repository)))


def put(repository: RepositoryName, digest: Digest, state: ScanState) -> Steps[None]:
    """Store how a scan stands in place of the former one of its type, whose findings go."""
    yield from _CLEAR(of_repository=repository, of_digest=digest, of_type=state.scan_type.value)
    yield from _PUT(
        repository=repository,
        digest=digest,
        scan_type=state.scan_type.value,
        status=state.status.value,
        description=state.description,
        requested_at=state.requested_at,
        completed_at=state.completed_at,
        source_updated_at=state.source_updated_at,
    )


def add_findings(
    repository: RepositoryName, digest: Digest, scan_type: ScanType, findings: Sequence[StoredFinding]
) -> Steps[None]:
    """Store findings of a scan that was `put`."""
    for one in findings:
        yield from _ADD(
            repository=repository,
            digest=digest,
            scan_type=scan_type.value,
            position=one.position,
            severity=one.severity,
            content=json.dumps(one.document, separators=(",", ":")),
        )


def findings_after(
    repository: RepositoryName, digest: Digest, scan_type: ScanType, after: int, limit: int
) -> Steps[list[StoredFinding]]:
    """Return up to `limit` findings behind a position, in order."""
    rows = yield from _FINDINGS(
        of_repository=repository, of_digest=digest, of_type=scan_type.value, after=after, limit=limit
    )
    return [StoredFinding(position, severity, json.loads(content)) for position, severity, content in rows]


def severities(repository: RepositoryName, digest: Digest, scan_type: ScanType) -> Steps[dict[str, int]]:
    """Return how many findings a scan has of each severity that it has."""
    rows = yield from _SEVERITIES(of_repository=repository, of_digest=digest, of_type=scan_type.value)
    return {severity: int(count) for severity, count in rows}


def has_at_least(number: int, scan_type: ScanType, since: float) -> Steps[bool]:
    """Tell whether so many scans were asked for since a time; no more of them are looked at."""
    if not number:
        return True
    rows = yield from _NTH_SINCE(of_type=scan_type.value, since=since, number=number - 1)
    return bool(rows)


def forget(repository: RepositoryName, digest: Digest) -> Steps[None]:
    """Forget every scan of an image, and what they found."""
    yield from _FORGET_FINDINGS(of_repository=repository, of_digest=digest)
    yield from _FORGET_SCANS(of_repository=repository, of_digest=digest)
