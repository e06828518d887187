"""How the check of a cached tag ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamThrottled, UpstreamUnavailable

if TYPE_CHECKING:
    from replicator.core.errors import ReplicatorError


class CheckOutcome(enum.Enum):
    """What a check found: the same digest, another one, none any more, or nothing."""

    CONFIRMED = "confirmed"
    CHANGED = "changed"
    WAITING = "waiting"
    """The upstream has another image, which is too new to be served."""
    IMMUTABLE = "immutable"
    """The upstream has another image, and the tag does not move here."""
    GONE = "gone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TagCheck:
    """How a check ended, which registry had the last word, and what went wrong, if something did."""

    outcome: CheckOutcome
    source: str
    error: ReplicatorError | None = None


def concerns_all(error: ReplicatorError | None) -> bool:
    """Tell whether a failure is one of the whole upstream, and not of one repository or tag there."""
    return isinstance(error, UpstreamUnavailable | UpstreamThrottled)
