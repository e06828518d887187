"""Scans of images: asked for by hand or by a push, and read with what they found.

There is no scanner yet, so a scan ends in the transaction that starts it, as that of an image which none supports. A
scanner reports what it finds through `record`; the other way round nothing of it is known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import (
    ImageArchived,
    ManifestNotFound,
    ScanLimit,
    ScanningMismatch,
    ScanNotFound,
    UnsupportedImageType,
)
from replicator.core.image_status import ImageStatus
from replicator.core.manifest import parse_manifest
from replicator.core.scanning import (
    ACTIVE_DESCRIPTION,
    COMPLETE_DESCRIPTION,
    SCAN_WINDOW,
    UNSUPPORTED_DESCRIPTION,
    WITHOUT_SCANNER,
    EnhancedFinding,
    Finding,
    ScanReport,
    ScanState,
    ScanStatus,
    ScanType,
    Severity,
    is_scannable,
)
from replicator.registry.events import record_scan
from replicator.registry.scanning_configuration import in_force
from replicator.registry.stored_images import get_image
from replicator.storage.metadata import images, repositories, scans
from replicator.storage.metadata.scans import StoredFinding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps

_DESCRIPTIONS = {ScanStatus.COMPLETE: COMPLETE_DESCRIPTION, ScanStatus.ACTIVE: ACTIVE_DESCRIPTION}


@dataclass(frozen=True, slots=True)
class ScanPage:
    """The scan of an image, how many findings it has of each severity, and a page of them."""

    digest: Digest
    state: ScanState
    severities: Mapping[str, int]
    findings: tuple[StoredFinding, ...] = ()
    next_after: int | None = None


class Scans:
    """The scans of one node's images; of one image there is at most one by hand or push in `SCAN_WINDOW` seconds."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def start(self, repository: RepositoryName, digest: Digest | None, tag: Tag | None) -> Digest:
        """Start the scan of an image by hand; return the image's digest.

        Raises RepositoryNotFound, ManifestNotFound, ScanningMismatch (enhanced scanning has no scans by hand),
        ImageArchived, UnsupportedImageType, ScanLimit, InvalidInput or a StorageError.
        """
        return await self._node.database.write(partial(self._start, repository, digest, tag, self._node.clock.now()))

    def _start(self, repository: RepositoryName, digest: Digest | None, tag: Tag | None, now: float) -> Steps[Digest]:
        found = yield from get_image(self._node.settings.node.account, repository, digest, tag)
        manifest = yield from images.find(repository, found)
        assert manifest is not None  # noqa: S101 - it was found a moment ago, in this transaction
        if (yield from in_force()).scan_type is ScanType.ENHANCED:
            raise ScanningMismatch(texts.MANUAL_SCAN_DISABLED)
        if manifest.status != ImageStatus.ACTIVE:
            raise ImageArchived(texts.image_archived(found, repository))
        if not _can_be_scanned(manifest):
            raise UnsupportedImageType(texts.image_type_unsupported(manifest.media_type))
        if not (yield from _has_quota(self._node, repository, found, ScanType.BASIC, now)):
            raise ScanLimit(texts.SCAN_QUOTA_EXCEEDED)
        yield from _begin(self._node, repository, found, ScanType.BASIC, now)
        return found

    async def read(
        self, repository: RepositoryName, digest: Digest | None, tag: Tag | None, after: int, size: int
    ) -> ScanPage:
        """Return the scan of an image by the registry's scan type, with a page of findings.

        Raises RepositoryNotFound, ManifestNotFound, ScanNotFound, InvalidInput or a StorageError.
        """
        return await self._node.database.read(self._read(repository, digest, tag, after, size))

    def _read(
        self, repository: RepositoryName, digest: Digest | None, tag: Tag | None, after: int, size: int
    ) -> Steps[ScanPage]:
        account = self._node.settings.node.account
        found = yield from get_image(account, repository, digest, tag)
        summary = yield from summary_of(repository, found)
        if summary is None:
            raise ScanNotFound(texts.no_scan(digest, tag, repository, account))
        state = summary.state
        if not state.status.has_findings:
            return ScanPage(found, state, {})
        findings = yield from scans.findings_after(repository, found, state.scan_type, after, size + 1)
        page = tuple(findings[:size])
        return ScanPage(found, state, summary.severities, page, page[-1].position if len(findings) > size else None)

    async def summaries(
        self, repository: RepositoryName, digests: Sequence[Digest]
    ) -> Mapping[Digest, scans.ScanSummary]:
        """Return how the scans of images by the registry's scan type stand, of those that have one."""
        return await self._node.database.read(_summaries(repository, digests))

    async def record(self, repository: RepositoryName, report: ScanReport) -> None:
        """Store what a scanner says of an image, in place of what one of its type said before.

        Raises ManifestNotFound when the image is gone, ScanningMismatch for findings of another scan type, or a
        StorageError; nothing is changed then.
        """
        stored = [_stored(position, one, report.scan_type) for position, one in enumerate(report.findings)]
        await self._node.database.write(partial(self._record, repository, report, stored, self._node.clock.now()))

    def _record(
        self, repository: RepositoryName, report: ScanReport, findings: list[StoredFinding], now: float
    ) -> Steps[None]:
        if (yield from images.find_origin(repository, report.digest)) is None:
            account = self._node.settings.node.account
            raise ManifestNotFound(texts.image_not_found(report.digest, None, repository, account))
        former = yield from scans.find(repository, report.digest, report.scan_type)
        state = ScanState(
            report.scan_type,
            report.status,
            now if former is None else former.requested_at,
            report.description or _DESCRIPTIONS.get(report.status),
            None if report.status in {ScanStatus.IN_PROGRESS, ScanStatus.PENDING} else now,
            report.source_updated_at,
        )
        yield from scans.put(repository, report.digest, state)
        yield from scans.add_findings(repository, report.digest, report.scan_type, findings)
        if state.completed_at is not None:
            counts = yield from scans.severities(repository, report.digest, report.scan_type)
            yield from record_scan(self._node, repository, report.digest, state.status, counts, now)


def _summaries(repository: RepositoryName, digests: Sequence[Digest]) -> Steps[Mapping[Digest, scans.ScanSummary]]:
    if not (yield from scans.has_any(repository)):
        return {}
    scanning = yield from in_force()
    return (yield from scans.summaries(repository, digests, scanning.scan_type))


def summary_of(repository: RepositoryName, digest: Digest) -> Steps[scans.ScanSummary | None]:
    """Return how an image's scan by the registry's scan type stands, or None when there was none."""
    scanning = yield from in_force()
    return (yield from scans.find_summary(repository, digest, scanning.scan_type))


def scan_on_arrival(node: RegistryNode, repository: RepositoryName, digest: Digest, now: float) -> Steps[None]:
    """Scan an image that was pushed, copied here or restored, and what it lists, if the settings say so.

    Call it in the transaction that stores the image.
    """
    scanning, found = (yield from in_force()), (yield from repositories.find(repository))
    if found is None or found.is_public or not scanning.scans_on_push(repository, flag=found.scan_on_push):
        return
    manifest = yield from images.find(repository, digest)
    if manifest is None:
        return
    for one in (digest, *parse_manifest(manifest.content, manifest.media_type).children):
        yield from _scan_once(node, repository, one, scanning.scan_type, now)


def _scan_once(
    node: RegistryNode, repository: RepositoryName, digest: Digest, scan_type: ScanType, now: float
) -> Steps[None]:
    if not (yield from _has_quota(node, repository, digest, scan_type, now)):
        return
    manifest = yield from images.find(repository, digest)
    if manifest is not None and manifest.is_active and _can_be_scanned(manifest):
        yield from _begin(node, repository, digest, scan_type, now)


def _has_quota(
    node: RegistryNode, repository: RepositoryName, digest: Digest, scan_type: ScanType, now: float
) -> Steps[bool]:
    """Tell whether an image may be scanned now: enhanced scans have no quotas but that of one in `SCAN_WINDOW`."""
    former = yield from scans.find(repository, digest, scan_type)
    if former is not None and now - former.requested_at < SCAN_WINDOW:
        return False
    if scan_type is ScanType.ENHANCED:
        return True
    quotas = node.settings.quotas
    if not quotas.image_scans_per_day:
        return False
    return not (yield from scans.has_at_least(quotas.scans_per_day, scan_type, now - SCAN_WINDOW))


def _begin(
    node: RegistryNode, repository: RepositoryName, digest: Digest, scan_type: ScanType, now: float
) -> Steps[None]:
    status = WITHOUT_SCANNER[scan_type]
    yield from scans.put(
        repository, digest, ScanState(scan_type, status, now, UNSUPPORTED_DESCRIPTION, completed_at=now)
    )
    yield from record_scan(node, repository, digest, status, {}, now)


def _can_be_scanned(manifest: StoredManifest) -> bool:
    return is_scannable(parse_manifest(manifest.content, manifest.media_type))


def _stored(position: int, finding: Finding | EnhancedFinding, scan_type: ScanType) -> StoredFinding:
    """Return a finding as the API shows it; raises ScanningMismatch for one of another scan type."""
    if isinstance(finding, EnhancedFinding) is not (scan_type is ScanType.ENHANCED):
        raise ScanningMismatch(f"expected findings of a scan of type {scan_type}")
    if isinstance(finding, EnhancedFinding):
        # Counts know ECR's own severities only.
        counted = finding.severity if finding.severity in set(Severity) else Severity.UNDEFINED.value
        return StoredFinding(position, counted, {**finding.members, "severity": finding.severity})
    document: dict[str, object] = {"name": finding.name, "severity": finding.severity.value}
    if finding.description is not None:
        document["description"] = finding.description
    if finding.uri is not None:
        document["uri"] = finding.uri
    if finding.attributes:
        document["attributes"] = [{"key": key, "value": value} for key, value in finding.attributes]
    return StoredFinding(position, finding.severity.value, document)
