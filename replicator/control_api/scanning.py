"""Operations on what is scanned, and what scans found (ECR §12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.pages import number_of, page_of, token_of
from replicator.control_api.single_image import single_image
from replicator.core.names import RepositoryName
from replicator.core.scanning import (
    RegistryScanning,
    ScanFrequency,
    ScanningRule,
    ScanState,
    ScanStatus,
    ScanType,
    scanning_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input
    from replicator.registry.scanning_configuration import ScannedRepository
    from replicator.registry.scans import ScanPage
    from replicator.storage.metadata.scans import ScanSummary


async def get_registry_scanning_configuration(call: Call) -> Document:
    """Return what the registry has scanned."""
    scanning = await call.registry.scanning_configuration.get()
    return {"registryId": call.registry.names.id.account, "scanningConfiguration": _configuration(scanning)}


async def put_registry_scanning_configuration(call: Call) -> Document:
    """Replace what the registry has scanned."""
    scan_type = ScanType(call.input.find_text("scanType") or ScanType.BASIC)
    rules = [_rule(one) for one in call.input.structures("rules")] if "rules" in call.input else None
    scanning = scanning_of(scan_type, rules)
    await call.registry.scanning_configuration.put(scanning)
    return {"registryScanningConfiguration": _configuration(scanning)}


async def batch_get_repository_scanning_configuration(call: Call) -> Document:
    """Return how often repositories are scanned."""
    names = [RepositoryName(name) for name in call.input.texts("repositoryNames")]
    found, missing = await call.registry.scanning_configuration.of_repositories(names)
    return {
        "scanningConfigurations": [_repository(call, one) for one in found],
        "failures": [
            {
                "repositoryName": name,
                "failureCode": "REPOSITORY_NOT_FOUND",
                "failureReason": "REPOSITORY_NOT_FOUND",
            }
            for name in missing
        ],
    }


async def start_image_scan(call: Call) -> Document:
    """Start the scan of an image."""
    image = single_image(call)
    digest = await call.registry.scans.start(call.repository, image.digest, image.tag)
    return {
        **call.place,
        "imageId": image.document(digest),
        "imageScanStatus": {"status": ScanStatus.IN_PROGRESS.value},
    }


async def describe_image_scan_findings(call: Call) -> Document:
    """Return how the scan of an image stands, and what it found."""
    image, page = single_image(call), page_of(call)
    found = await call.registry.scans.read(call.repository, image.digest, image.tag, number_of(page.after), page.size)
    return {
        **call.place,
        "imageId": image.document(found.digest),
        "imageScanStatus": scan_status(found.state),
        **present(
            imageScanFindings=_findings(found) if found.state.status.has_findings else None,
            nextToken=None if found.next_after is None else token_of(str(found.next_after)),
        ),
    }


HANDLERS: Mapping[str, Handler] = {
    "GetRegistryScanningConfiguration": get_registry_scanning_configuration,
    "PutRegistryScanningConfiguration": put_registry_scanning_configuration,
    "BatchGetRepositoryScanningConfiguration": batch_get_repository_scanning_configuration,
    "StartImageScan": start_image_scan,
    "DescribeImageScanFindings": describe_image_scan_findings,
}


def scan_members(summary: ScanSummary | None) -> Document:
    """Return the members of an ImageDetail that tell of its scan."""
    if summary is None:
        return {}
    counted = present(
        imageScanCompletedAt=summary.state.completed_at,
        vulnerabilitySourceUpdatedAt=summary.state.source_updated_at,
        findingSeverityCounts=dict(summary.severities),
    )
    shown = counted if summary.state.status.has_findings else None
    return present(imageScanStatus=scan_status(summary.state), imageScanFindingsSummary=shown)


def scan_status(state: ScanState) -> Document:
    """Return how a scan stands, as the API says it."""
    return present(status=state.status.value, description=state.description)


def _configuration(scanning: RegistryScanning) -> Document:
    rules = [
        {"scanFrequency": rule.frequency.value, "repositoryFilters": _filters(rule.filters)} for rule in scanning.rules
    ]
    return {"scanType": scanning.scan_type.value, "rules": rules}


def _filters(filters: tuple[str, ...]) -> list[Document]:
    return [{"filter": text, "filterType": "WILDCARD"} for text in filters]


def _rule(rule: Input) -> ScanningRule:
    filters = tuple(one.text("filter") for one in rule.structures("repositoryFilters"))
    return ScanningRule(ScanFrequency(rule.text("scanFrequency")), filters)


def _repository(call: Call, found: ScannedRepository) -> Document:
    return {
        "repositoryArn": call.registry.names.repository_arn(found.name),
        "repositoryName": found.name,
        "scanOnPush": found.scan_on_push,
        "scanFrequency": found.scanning.frequency.value,
        "appliedScanFilters": _filters(found.scanning.filters),
    }


def _findings(page: ScanPage) -> Document:
    documents = [dict(one.document) for one in page.findings]
    is_enhanced = page.state.scan_type is ScanType.ENHANCED
    return present(
        imageScanCompletedAt=page.state.completed_at,
        vulnerabilitySourceUpdatedAt=page.state.source_updated_at,
        findingSeverityCounts=dict(page.severities),
        findings=None if is_enhanced else documents,
        enhancedFindings=documents if is_enhanced else None,
    )
