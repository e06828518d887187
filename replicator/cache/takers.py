"""Who takes part in one fetch of a blob, and on whose account an upstream was asked.

What an upstream answers to one party is not the answer to another: each repository is the upstream's to refuse, and
each request can have come in a circle of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.upstream.via import incoming_via

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replicator.cache.upstreams import UpstreamRepository


def party_of(source: UpstreamRepository) -> Hashable:
    """Return what an upstream's answer depends on: the repository that is asked, and whom the request has passed."""
    return source.repository, incoming_via()


class Takers:
    """Who gets a blob that is being fetched, and which registry is sending it."""

    def __init__(self, source: UpstreamRepository) -> None:
        self.first = source.repository
        self.party = party_of(source)
        self.repositories = {source.repository}
        self.sender = source.rule.upstream

    def sent_by(self, registry: str) -> None:
        """Note that a registry has begun to send."""
        self.sender = registry
