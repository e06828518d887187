"""What follows from each error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core import errors
from replicator.replication.failures import (
    DORMANT,
    QUICK,
    SLOW,
    DestinationUnknown,
    FailureCode,
    SparseIndexRefused,
    judge,
)

if TYPE_CHECKING:
    from replicator.core.errors import ReplicatorError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UpstreamDenied(), FailureCode.ACCESS_DENIED),
        (errors.UpstreamNotFound(), FailureCode.REPOSITORY_NOT_FOUND),
        (errors.UpstreamRefused(), FailureCode.REFUSED),
        (errors.UpstreamClockSkew(), FailureCode.CLOCK_SKEW),
        (SparseIndexRefused(), FailureCode.SPARSE_INDEX_REFUSED),
        (errors.PermissionMissing(permission="ecr:CreateRepository"), "AccessDenied:ecr:CreateRepository"),
        (errors.PermissionMissing(), FailureCode.ACCESS_DENIED),
        (errors.UpstreamError(), FailureCode.UNKNOWN),
        (errors.BlobNotFound(), FailureCode.SOURCE_INCOMPLETE),
        (errors.CorruptBlob(), FailureCode.SOURCE_INCOMPLETE),
        (errors.SizeMismatch(), FailureCode.SOURCE_INCOMPLETE),
        (errors.InvalidManifest(), FailureCode.UNKNOWN),
        (ValueError("a bug"), FailureCode.UNKNOWN),
    ],
)
def test_what_somebody_has_to_mend_is_failed_and_tried_slowly(error: Exception, code: str) -> None:
    failure = judge(error)
    assert (failure.code, failure.backoff) == (code, SLOW)
    assert not failure.destination_down


def test_a_destination_that_nobody_knows_is_failed_and_left_alone() -> None:
    failure = judge(DestinationUnknown())
    assert (failure.code, failure.backoff) == (FailureCode.DESTINATION_NOT_FOUND, DORMANT)
    assert not failure.destination_down


@pytest.mark.parametrize(
    "error", [errors.UpstreamContent(), errors.StorageFull(), errors.StorageUnavailable(), errors.UpstreamUnavailable()]
)
def test_what_passes_is_tried_again_soon(error: Exception) -> None:
    failure = judge(error)
    assert (failure.code, failure.backoff) == (None, QUICK)


@pytest.mark.parametrize("error", [errors.UpstreamUnavailable(), errors.UpstreamTimeout(), errors.UpstreamThrottled()])
def test_a_destination_that_is_down_stops_its_lane(error: Exception) -> None:
    assert judge(error).destination_down


def _leaves(kind: type[ReplicatorError]) -> list[type[ReplicatorError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    below = [leaf for child in children for leaf in _leaves(child)]
    return below or [kind]


@pytest.mark.parametrize("kind", _leaves(errors.UpstreamError))
def test_an_upstream_error_that_may_be_retried_leaves_the_status_open(kind: type[ReplicatorError]) -> None:
    assert (judge(kind()).code is None) == kind.retryable
