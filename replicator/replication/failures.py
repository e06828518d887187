"""What a failed attempt means: whose fault it is, what the status says, and how soon to try again.

A job is never given up. A fault that passes (a destination that is down) is tried again within a minute and leaves the
status IN_PROGRESS. A fault that somebody has to mend (a permission, a missing repository) turns the status to FAILED
with its reason, and is tried again at a slow pace, so that mending it is all there is to do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import errors
from replicator.core.retry import Backoff

if TYPE_CHECKING:
    from collections.abc import Mapping

QUICK = Backoff(initial=1.0, maximum=60.0)
SLOW = Backoff(initial=60.0, maximum=900.0)
DORMANT = Backoff(initial=3000.0, maximum=3000.0)
"""For what only another configuration can mend, which is looked at when the process starts."""
LONGEST_PAUSE = 900.0
"""Seconds; no Retry-After makes us wait longer, so that a senseless one does not end replication."""


class FailureCode(enum.StrEnum):
    """ECR's `failureCode`, for which it documents no values; these are ours.

    ACCESS_DENIED is followed by `:` and the permission that is missing, where the destination names it.
    """

    ACCESS_DENIED = "AccessDenied"
    REPOSITORY_NOT_FOUND = "RepositoryNotFound"
    REFUSED = "RefusedByDestination"
    DESTINATION_NOT_FOUND = "DestinationNotFound"
    SOURCE_INCOMPLETE = "SourceIncomplete"
    SPARSE_INDEX_REFUSED = "SparseIndexRefused"
    CLOCK_SKEW = "ClockSkew"
    SUPERSEDED = "Superseded"
    DELETED_THERE = "DeletedAtDestination"
    UNKNOWN = "UnknownFailure"


class DestinationUnknown(errors.ReplicatorError):
    """The configuration does not say where the destination is."""

    TEXT = "the configuration does not say where the destination is"

    def __init__(self) -> None:
        super().__init__(self.TEXT)


class SparseIndexRefused(errors.UpstreamRefused):
    """The rule, or the source, leaves out manifests of an index, and the destination wants them all."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What follows from an error.

    `code` is the failure code of the status, None where it stays IN_PROGRESS. `destination_down` says that any other
    image would fail now as this one did, so that the lane pauses instead of trying them all.
    """

    code: str | None
    backoff: Backoff
    destination_down: bool = False


_PASSING = Failure(None, QUICK)
_DOWN = Failure(None, QUICK, destination_down=True)

_FAILURES: Mapping[type[Exception], Failure] = {
    errors.UpstreamUnavailable: _DOWN,
    errors.UpstreamThrottled: _DOWN,
    errors.UpstreamContent: _PASSING,
    errors.UpstreamDenied: Failure(FailureCode.ACCESS_DENIED, SLOW),
    errors.UpstreamNotFound: Failure(FailureCode.REPOSITORY_NOT_FOUND, SLOW),
    SparseIndexRefused: Failure(FailureCode.SPARSE_INDEX_REFUSED, SLOW),
    errors.UpstreamClockSkew: Failure(FailureCode.CLOCK_SKEW, SLOW),
    errors.UpstreamRefused: Failure(FailureCode.REFUSED, SLOW),
    errors.UpstreamError: Failure(FailureCode.UNKNOWN, SLOW),
    DestinationUnknown: Failure(FailureCode.DESTINATION_NOT_FOUND, DORMANT),
    errors.StorageError: _PASSING,
    errors.NotFound: Failure(FailureCode.SOURCE_INCOMPLETE, SLOW),
    errors.CorruptBlob: Failure(FailureCode.SOURCE_INCOMPLETE, SLOW),
    errors.SizeMismatch: Failure(FailureCode.SOURCE_INCOMPLETE, SLOW),
}
_UNEXPECTED = Failure(FailureCode.UNKNOWN, SLOW)


def judge(error: Exception) -> Failure:
    """Return what follows from an error; one that is not listed counts as its nearest listed ancestor."""
    if isinstance(error, errors.PermissionMissing) and error.permission:
        return Failure(f"{FailureCode.ACCESS_DENIED}:{error.permission}", SLOW)
    return next((_FAILURES[kind] for kind in type(error).__mro__ if kind in _FAILURES), _UNEXPECTED)
