"""How one pull of a blob was answered: said once, to the metrics and in its trace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from replicator.core.cache_status import NOT_FOUND, OK, CacheResult
from replicator.core.errors import BlobNotFound, UpstreamError, UpstreamNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.cache.observer import CacheObserver
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.cache_status import PullTrace


class PullNote:
    """Says how one pull was answered, once: to the metrics, and in its trace."""

    def __init__(self, source: UpstreamRepository, trace: PullTrace, observer: CacheObserver) -> None:
        self._rule = source.rule
        self._trace = trace
        self._observer = observer
        trace.rule, trace.upstream = source.rule.prefix, source.rule.upstream

    def result(self, result: CacheResult) -> None:
        """Note the answer."""
        self._trace.note(result, self._rule.prefix, self._rule.upstream)
        self._observer.result(self._rule.prefix, result.value)

    def fetched(self) -> None:
        """Note that the upstream has sent it, or has begun to."""
        self._trace.status = OK
        self.result(CacheResult.MISS)

    def exists(self) -> None:
        """Note that the upstream has it, and that this did not bring it here."""
        self._trace.stored = False
        self.fetched()

    def collapsed(self, joined: bool) -> None:
        """Note whether somebody else's fetch was joined."""
        self._trace.collapsed = joined

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Note a failure of the upstream that leaves this block."""
        try:
            yield
        except UpstreamError as error:
            self._trace.error = str(error)
            self.result(CacheResult.ERROR)
            raise
        except BlobNotFound as error:
            if isinstance(error.__cause__, UpstreamNotFound):
                self._trace.status = NOT_FOUND
                self.result(CacheResult.MISS)
            raise
