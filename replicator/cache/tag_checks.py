"""Checking a cached tag against its upstream, whatever the upstream does.

A check asks for the manifest's head first, which costs no pull where pulls are counted, and fetches only what
changed. It ends in an outcome, never in an error: a failure is noted with the tag and the cached image is what there
is. The digest a head states is a reason to fetch; what is stored was verified. That a tag is gone is believed only of
a GET, as caches of the simpler kind know nothing of HEAD.

    upstream has            cached digest -> confirmed
                            another one   -> fetched, completed as far as the one before was; then the tag moves
                                             (too new: waits; immutable here: stays, and the drift is reported)
                            no such tag   -> kept, or removed here, as the rule says
                            no answer     -> kept
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cache.check_outcome import CheckOutcome, TagCheck
from replicator.core.errors import ReplicatorError, ShuttingDown, UpstreamNotFound
from replicator.upstream.via import is_loop_of_requester

if TYPE_CHECKING:
    from replicator.cache.tag_news import FetchedTag, TagQuestions
    from replicator.cache.tag_settlement import TagSettlement
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.reference import Reference
    from replicator.storage.metadata.cache_entries import CacheEntry


class TagChecks:
    """Asks upstreams about tags, and has what they say settled."""

    def __init__(self, questions: TagQuestions, settlement: TagSettlement) -> None:
        self._questions = questions
        self._settlement = settlement

    async def check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool = False) -> TagCheck:
        """Bring a tag up to date: confirm it, or have what it is now. Raises nothing but a cancellation.

        With `heads_only` an upstream whose heads say nothing is left alone; what changed is fetched all the same.
        """
        try:
            return await self._check(source, entry, heads_only=heads_only)
        except ShuttingDown as error:
            return TagCheck(CheckOutcome.FAILED, source.rule.upstream, error)
        except ReplicatorError as error:
            if not is_loop_of_requester(error):
                await self._settlement.note_failure(source, entry, error)
            return TagCheck(CheckOutcome.FAILED, source.rule.upstream, error)

    async def fetch(self, source: UpstreamRepository, reference: Reference) -> FetchedTag:
        """Fetch and verify a manifest; raises UpstreamError, UpstreamTimeout when it takes too long altogether."""
        return await self._questions.fetch(source, reference)

    async def _check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool) -> TagCheck:
        try:
            news = await self._questions.ask(source, entry, heads_only=heads_only)
        except UpstreamNotFound as error:
            return await self._settlement.note_gone(source, entry, error)
        if news is None:
            return await self._settlement.postpone(source, entry)
        return await self._settlement.settle(source, entry, news)
