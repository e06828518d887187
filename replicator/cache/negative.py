"""What upstreams did not have a moment ago, or did not have right, so that they are not asked for it again and again.

Only answers that an upstream gave are remembered, never that there was none: an outage must end when it ends. The
memory is bounded, lost with the process, and short: what is pushed or published in the meantime is found soon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap
from replicator.core.errors import ManifestNotFound, UpstreamContent, UpstreamDenied

if TYPE_CHECKING:
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference

_CAPACITY = 10_000
_MAX_TEXT = 500

_Key = tuple["RepositoryName", "Reference"]

Refusal = ManifestNotFound | UpstreamContent | UpstreamDenied
"""What an upstream answered about one manifest; some say of a repository that does not exist that it is not for us."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    kind: type[Refusal]
    text: str
    until: float


class NegativeMemory:
    """Failures of cold pulls by repository and reference, the oldest dropped."""

    def __init__(self, clock: Clock, capacity: int = _CAPACITY) -> None:
        self._clock = clock
        self._refusals: BoundedMap[_Key, _Refusal] = BoundedMap(capacity)

    def find(self, repository: RepositoryName, reference: Reference) -> Refusal | None:
        """Return the error to raise for a manifest that need not be asked for now, or None when it must be."""
        key = (repository, reference)
        refusal = self._refusals.peek(key)
        if refusal is None:
            return None
        left = refusal.until - self._clock.monotonic()
        if left <= 0:
            self._refusals.pop(key)
            return None
        return refusal.kind(refusal.text, retry_after=None if refusal.kind is ManifestNotFound else left)

    def keep(self, source: UpstreamRepository, reference: Reference, error: Refusal) -> None:
        """Remember a failure for as long as the rule says."""
        seconds = source.rule.negative_for
        if seconds <= 0:
            return
        key = (source.repository, reference)
        kind = next(kind for kind in (ManifestNotFound, UpstreamDenied, UpstreamContent) if isinstance(error, kind))
        self._refusals.put(key, _Refusal(kind, str(error)[:_MAX_TEXT], self._clock.monotonic() + seconds))

    def clear(self) -> None:
        """Forget everything."""
        self._refusals.clear()

    def forget(self, repository: RepositoryName, reference: Reference | None = None) -> None:
        """Forget one failure, or all of a repository."""
        if reference is not None:
            self._refusals.pop((repository, reference))
            return
        for key in [key for key in self._refusals if key[0] == repository]:
            self._refusals.pop(key)
