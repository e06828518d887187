"""What the engine asks of another node; `upstream.peer_client.PeerClient` is one. Everything raises UpstreamErrors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.peer_messages import Deletion, Delivery, Lacks, Offer, Receipt


class PeerDestination(Protocol):
    """Another node, as the destination of replication."""

    async def offer(self, offer: Offer) -> Lacks:
        """Ask what of an image is missing there."""
        ...

    async def put_blob(
        self, repository: RepositoryName, digest: Digest, size: int, content: BlobContent, offset: int
    ) -> int:
        """Send a blob from `offset` on; return the bytes sent. When this returns, the blob is there and verified."""
        ...

    async def deliver(self, delivery: Delivery) -> Receipt:
        """Have manifests, the image and its tag stored in one transaction; return what is there then."""
        ...

    async def delete(self, deletion: Deletion) -> Receipt:
        """Have a tag or an image deleted; return what is there then."""
        ...
