"""What a registry scans when: the table of filters, and which frequency wins."""

from __future__ import annotations

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import ScanningMismatch
from replicator.core.manifest import Descriptor, Manifest
from replicator.core.media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from replicator.core.names import RepositoryName
from replicator.core.scanning import (
    RegistryScanning,
    RepositoryScanning,
    ScanFrequency,
    ScanningRule,
    ScanType,
    is_scannable,
    matches_filter,
    scanning_of,
)

PUSH, CONTINUOUS, MANUAL = ScanFrequency.SCAN_ON_PUSH, ScanFrequency.CONTINUOUS_SCAN, ScanFrequency.MANUAL
REPOSITORIES = ("prod", "repo-prod", "prod-repo", "repo-prod-repo", "prodrepo")
TABLE = {"prod": "YYYYY", "*prod": "YYNNN", "prod*": "YNYNY", "*prod*": "YYYYY", "prod*repo": "NNYNY"}
TEAM = RepositoryName("team/app")


@pytest.mark.parametrize("text", TABLE)
def test_filters_match_as_the_table_says(text: str) -> None:
    assert "".join("Y" if matches_filter(text, name) else "N" for name in REPOSITORIES) == TABLE[text]


def test_a_continuous_scan_beats_one_on_push() -> None:
    rules = (ScanningRule(PUSH, ("team", "*")), ScanningRule(CONTINUOUS, ("x", "team/*", "app")))
    found = RegistryScanning(ScanType.ENHANCED, rules)
    assert found.of_repository(TEAM) == RepositoryScanning(CONTINUOUS, ("team/*", "app"))
    assert found.of_repository(RepositoryName("other")) == RepositoryScanning(PUSH, ("*",))


@pytest.mark.parametrize("scan_type", ScanType)
def test_without_a_rule_nothing_is_scanned_by_itself(scan_type: ScanType) -> None:
    assert RegistryScanning(scan_type).of_repository(TEAM) == RepositoryScanning(MANUAL)
    assert not RegistryScanning(scan_type).scans_on_push(TEAM, flag=False)


def test_the_setting_of_a_repository_counts_in_basic_scanning_only() -> None:
    assert RegistryScanning(ScanType.BASIC).scans_on_push(TEAM, flag=True)
    assert not RegistryScanning(ScanType.ENHANCED).scans_on_push(TEAM, flag=True)
    rule = ScanningRule(PUSH, ("team",))
    assert RegistryScanning(ScanType.ENHANCED, (rule,)).scans_on_push(TEAM, flag=False)


def test_rules_that_were_left_out() -> None:
    assert scanning_of(ScanType.BASIC, None) == RegistryScanning()
    assert scanning_of(ScanType.ENHANCED, None).rules == (ScanningRule(CONTINUOUS, ("*",)),)
    assert scanning_of(ScanType.ENHANCED, ()).rules == ()


@pytest.mark.parametrize(("scan_type", "frequency"), [(ScanType.BASIC, CONTINUOUS), (ScanType.ENHANCED, MANUAL)])
def test_a_frequency_that_the_scan_type_does_not_have(scan_type: ScanType, frequency: ScanFrequency) -> None:
    with pytest.raises(ScanningMismatch, match=frequency):
        scanning_of(scan_type, [ScanningRule(frequency, ("*",))])


def described(media_type: str) -> Descriptor:
    return Descriptor(media_type, digest_of(b"x"), 1)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (Manifest(OCI_MANIFEST, described("application/vnd.oci.image.config.v1+json")), True),
        (Manifest(DOCKER_MANIFEST, described("application/vnd.docker.container.image.v1+json")), True),
        (Manifest(OCI_MANIFEST, described("application/vnd.cncf.helm.config.v1+json")), False),
        (Manifest(OCI_MANIFEST, described(OCI_EMPTY), artifact_type="text/plain"), False),
        (
            Manifest(
                OCI_MANIFEST,
                described("application/vnd.oci.image.config.v1+json"),
                subject=described(OCI_MANIFEST),
            ),
            False,
        ),
        (Manifest(OCI_INDEX), False),
        (Manifest(DOCKER_MANIFEST_LIST), False),
    ],
)
def test_only_a_container_image_can_be_scanned(manifest: Manifest, expected: bool) -> None:
    assert is_scannable(manifest) is expected
