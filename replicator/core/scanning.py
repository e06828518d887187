"""Scanning of images: what a registry has scanned when, how a scan stands, and what it finds (ECR §12).

Nothing here looks into an image. There is no scanner yet, and findings are never made up: a scan that is asked for ends
at once as that of an image which no scanner supports (`WITHOUT_SCANNER`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ScanningMismatch
from replicator.core.media_types import DOCKER_MANIFEST
from replicator.core.mutability import matches_wildcard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.manifest import Manifest
    from replicator.core.names import RepositoryName

SCAN_WINDOW = 24 * 60 * 60.0
"""Seconds in which an image is scanned once, on push or by hand."""
"""Scans by hand of one registry in such a time."""


class ScanType(enum.StrEnum):
    """Which scanner a registry uses; the results of the other one are hidden meanwhile."""

    BASIC = "BASIC"
    ENHANCED = "ENHANCED"


class ScanFrequency(enum.StrEnum):
    """When a repository's images are scanned."""

    SCAN_ON_PUSH = "SCAN_ON_PUSH"
    CONTINUOUS_SCAN = "CONTINUOUS_SCAN"
    MANUAL = "MANUAL"


class ScanStatus(enum.StrEnum):
    """How the scan of an image stands."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    UNSUPPORTED_IMAGE = "UNSUPPORTED_IMAGE"
    ACTIVE = "ACTIVE"
    PENDING = "PENDING"
    SCAN_ELIGIBILITY_EXPIRED = "SCAN_ELIGIBILITY_EXPIRED"
    FINDINGS_UNAVAILABLE = "FINDINGS_UNAVAILABLE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    IMAGE_ARCHIVED = "IMAGE_ARCHIVED"
    IMAGE_SIZE_EXCEEDED = "IMAGE_SIZE_EXCEEDED"

    @property
    def has_findings(self) -> bool:
        """Whether there are results to show, if only that nothing was found."""
        return self in {ScanStatus.COMPLETE, ScanStatus.ACTIVE}


class Severity(enum.StrEnum):
    """How bad a finding of a basic scan is; those of enhanced scans may say something else."""

    INFORMATIONAL = "INFORMATIONAL"
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    CRITICAL = "CRITICAL"
    UNDEFINED = "UNDEFINED"


COMPLETE_DESCRIPTION = "The scan was completed successfully."
ACTIVE_DESCRIPTION = "Continuous scan is selected for image."
UNSUPPORTED_DESCRIPTION = "UnsupportedImageError: The operating system and/or package manager are not supported."
WITHOUT_SCANNER: Mapping[ScanType, ScanStatus] = {
    # The waiter ImageScanComplete ends on FAILED, and would wait in vain on the other one.
    ScanType.BASIC: ScanStatus.FAILED,
    ScanType.ENHANCED: ScanStatus.UNSUPPORTED_IMAGE,
}


@dataclass(frozen=True, slots=True)
class ScanningRule:
    """Repositories that match one of the filters are scanned this often."""

    frequency: ScanFrequency
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepositoryScanning:
    """How often a repository is scanned, by the filters that say so."""

    frequency: ScanFrequency
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryScanning:
    """The scanning configuration of a registry."""

    scan_type: ScanType = ScanType.BASIC
    rules: tuple[ScanningRule, ...] = ()

    def of_repository(self, repository: RepositoryName) -> RepositoryScanning:
        """Return how often a repository is scanned: continuous scans win, and without a rule nothing is scanned."""
        for frequency in (ScanFrequency.CONTINUOUS_SCAN, ScanFrequency.SCAN_ON_PUSH):
            found = _matching(self.rules, frequency, repository)
            if found:
                return RepositoryScanning(frequency, found)
        return RepositoryScanning(ScanFrequency.MANUAL, _matching(self.rules, ScanFrequency.MANUAL, repository))

    def scans_on_push(self, repository: RepositoryName, *, flag: bool) -> bool:
        """Tell whether an image is scanned when it arrives; `flag` is the repository's own setting."""
        if self.of_repository(repository).frequency is not ScanFrequency.MANUAL:
            return True
        return flag and self.scan_type is ScanType.BASIC


_ALLOWED: Mapping[ScanType, tuple[ScanFrequency, ...]] = {
    ScanType.BASIC: (ScanFrequency.SCAN_ON_PUSH, ScanFrequency.MANUAL),
    ScanType.ENHANCED: (ScanFrequency.SCAN_ON_PUSH, ScanFrequency.CONTINUOUS_SCAN),
}


def scanning_of(scan_type: ScanType, rules: Sequence[ScanningRule] | None) -> RegistryScanning:
    """Return a configuration; raises ScanningMismatch for a frequency that the scan type does not have.

    Where no rules are given (None), an enhanced registry scans everything continuously, and a basic one nothing.
    """
    if rules is None:
        everything = (ScanningRule(ScanFrequency.CONTINUOUS_SCAN, ("*",)),)
        rules = everything if scan_type is ScanType.ENHANCED else ()
    for rule in rules:
        if rule.frequency not in _ALLOWED[scan_type]:
            raise ScanningMismatch(
                f"The scan frequency {rule.frequency} is not supported with the scan type {scan_type}; use one of"
                f" [{', '.join(_ALLOWED[scan_type])}]"
            )
    return RegistryScanning(scan_type, tuple(rules))


def matches_filter(text: str, repository: str) -> bool:
    """Tell whether a filter matches a repository: a part of its name, or all of it where the filter has a `*`."""
    return matches_wildcard(text, repository) if "*" in text else text in repository


def _matching(rules: Sequence[ScanningRule], frequency: ScanFrequency, repository: str) -> tuple[str, ...]:
    found = [one for rule in rules if rule.frequency is frequency for one in rule.filters]
    return tuple(dict.fromkeys(one for one in found if matches_filter(one, repository)))


_IMAGE_CONFIGS = frozenset(
    {"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"}
)


def is_scannable(manifest: Manifest) -> bool:
    """Tell whether a manifest is that of a container image: no index, and no artifact of another kind."""
    if manifest.is_index or manifest.config is None or manifest.subject is not None:
        return False
    return manifest.media_type == DOCKER_MANIFEST or manifest.config.media_type in _IMAGE_CONFIGS


# What a scan found


@dataclass(frozen=True, slots=True)
class ScanState:
    """How the scan of an image stands; times are Unix seconds."""

    scan_type: ScanType
    status: ScanStatus
    requested_at: float
    description: str | None = None
    completed_at: float | None = None
    source_updated_at: float | None = None
    """When the scanner's knowledge of vulnerabilities was brought up to date."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A vulnerability that a basic scan found, with what else the scanner says, in its order."""

    name: str
    severity: Severity
    description: str | None = None
    uri: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EnhancedFinding:
    """A vulnerability that an enhanced scan found: `members` are those of ECR's EnhancedImageScanFinding."""

    severity: str
    members: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scanner says at its end. Findings are all basic ones or all enhanced ones, as the scan type says."""

    digest: Digest
    scan_type: ScanType
    status: ScanStatus
    description: str | None = None
    source_updated_at: float | None = None
    findings: tuple[Finding | EnhancedFinding, ...] = ()
