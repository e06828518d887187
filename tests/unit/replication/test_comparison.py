"""What a comparison makes of a destination that says too much."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import UpstreamContent
from replicator.core.names import AccountId, NodeId, Region, RepositoryName
from replicator.core.peer_messages import HeldImage, Lacks, Offer, RepositoryHash
from replicator.core.revisions import NEVER
from replicator.replication import comparison
from replicator.replication.comparison import Comparison
from tests.support.single_node import open_node

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.transfer.push_image import ContentSource


class Talker:
    """A peer whose listings never end."""

    async def hashes(self, after: str = "", limit: int = 1000) -> list[RepositoryHash]:
        first = int(after.removeprefix("r") or 10**8) + 1
        return [RepositoryHash(RepositoryName(f"r{first + number}"), "") for number in range(limit)]

    async def listing(self, repository: RepositoryName, after: str = "", limit: int = 1000) -> list[HeldImage]:
        return [HeldImage(digest_of(f"{after}{number}".encode()), NEVER) for number in range(limit)]

    async def offer(self, offer: Offer) -> Lacks:
        raise AssertionError


async def test_nobody_is_listened_to_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "MAX_HELD", 10_000)
    async with open_node(tmp_path) as node:
        destination = NodeId(AccountId("1" * 12), Region("us"))
        compared = Comparison(node, cast("ContentSource", None), destination)
        with pytest.raises(UpstreamContent):
            await compared.hashes(Talker())
        with pytest.raises(UpstreamContent):
            await compared.held(Talker(), RepositoryName("team/app"))
