"""One round of anti-entropy with one destination: what differs is counted, and queued to be mended.

A round remembers for the next one: which repositories differ in a way that a repair does not change, and where it
ended, so that every repository and every image has its turn however much there is to do.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamError, UpstreamThrottled, UpstreamUnavailable
from replicator.core.replication import ReplicateImage
from replicator.replication.background import queue
from replicator.replication.comparison import NOTHING, as_list
from replicator.storage.metadata import jobs, replication_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.drift import DriftKind
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.replication.background import BackgroundWork
    from replicator.replication.comparison import ComparedPeer, ComparedRegistry, Comparison, Finding, Side
    from replicator.replication.expected import ExpectedImage
    from replicator.storage.metadata.statement import Steps

_BATCH = 100
_SMALL_PAGE = 50


@dataclass(frozen=True, slots=True)
class AntiEntropySettings:
    """How often destinations are compared, and how much at most is done in one round with one of them.

    `repairs` are jobs in all and `repairs_per_repository` those of one repository. `offers` are images of nodes that
    are looked at more closely though everything seems right, in turn; `heads` are images that a registry of somebody
    else is asked for. `interval` and `remember` are seconds: the latter is how long a difference counts as known.
    """

    interval: float = 900.0
    repairs: int = 2000
    repairs_per_repository: int = 200
    offers: int = 20
    heads: int = 500
    remember: float = 24 * 3600.0


@dataclass(slots=True)
class KnownDifference:
    """Pairs of fingerprints of one repository: one that needs no repair, and one that was repaired last."""

    clean: tuple[str, str] | None = None
    tried: tuple[str, str] | None = None
    since: float = 0.0


@dataclass(slots=True)
class RoundMemory:
    """What rounds with one destination leave to the next: differences, and where to begin."""

    known: dict[RepositoryName, KnownDifference] = field(default_factory=dict)
    next_target: str = ""
    next_image: tuple[str, str] = ("", "")
    """Repository, and the image in it after which images are looked at."""


class DriftRound:
    """Call one of the two `compare` methods, once. They raise UpstreamErrors and StorageErrors."""

    def __init__(
        self, node: RegistryNode, comparison: Comparison, memory: RoundMemory, settings: AntiEntropySettings
    ) -> None:
        self.found: Counter[DriftKind] = Counter()
        self.repaired: Counter[DriftKind] = Counter()
        self.refused: dict[RepositoryName, str] = {}
        """Repositories that the destination said no about, and what it said first."""
        self._looked_at: set[tuple[RepositoryName, Digest]] = set()
        self._node = node
        self._comparison = comparison
        self._memory = memory
        self._settings = settings
        self._left = settings.repairs
        self._began = node.clock.now()

    async def compare_peer(self, peer: ComparedPeer) -> None:
        """Compare every repository with another node's, and a few images in depth."""
        held = await self._comparison.hashes(peer)
        sources = await self._comparison.sources()
        memory = self._memory
        memory.known = {target: known for target, known in memory.known.items() if target in sources}
        begin, memory.next_target = memory.next_target, ""
        for target in (*(one for one in sources if one >= begin), *(one for one in sources if one < begin)):
            if self._left <= 0:
                memory.next_target = target
                return
            side = await self._comparison.side(target, sources[target])
            with self._isolated(target):
                await self._compare(peer, side, sources[target], held.get(target, NOTHING))
        await self._look_at_content(peer, sources)

    async def compare_registry(self, registry: ComparedRegistry) -> None:
        """Ask a registry of somebody else for some images, in turn."""
        findings: list[Finding] = []
        async for image in self._in_turn(await self._comparison.sources(), self._settings.heads):
            with self._isolated(image.target):
                findings += as_list(await self._comparison.registry_finding(registry, image))
        fresh = await self._fresh(findings)
        self._count(fresh)
        await self._repair(fresh)

    @contextmanager
    def _isolated(self, target: RepositoryName) -> Iterator[None]:
        """Go on after what the destination refuses about one repository; end the round when it fails altogether."""
        try:
            yield
        except (UpstreamUnavailable, UpstreamThrottled):
            raise
        except UpstreamError as error:
            self.refused.setdefault(target, str(error))

    # Repositories

    async def _compare(self, peer: ComparedPeer, side: Side, sources: Sequence[RepositoryName], held: str) -> None:
        pair, memory, now = (side.fingerprint, held), self._memory, self._node.clock.now()
        if pair[0] == pair[1]:
            memory.known.pop(side.target, None)
            return
        known = memory.known.setdefault(side.target, KnownDifference())
        if known.clean == pair and now - known.since < self._settings.remember:
            return
        await self._comparison.add_deletions(side, sources)
        findings = self._comparison.findings(side, await self._comparison.held(peer, side.target))
        fresh = await self._fresh(findings)
        is_settled = len(fresh) == len(findings)
        if is_settled and known.tried == pair:
            known.clean, known.since = pair, now  # the repair changed nothing: the destination keeps its own
            return
        self._count(fresh)
        if not is_settled or await self._repair(fresh):
            known.tried = pair if is_settled else None
        else:
            known.clean, known.since = pair, now

    async def _fresh(self, findings: Sequence[Finding]) -> list[Finding]:
        """Return findings except those that are on their way already."""
        found = []
        for start in range(0, len(findings), _BATCH):
            batch = findings[start : start + _BATCH]
            found += await self._comparison.read(_not_under_way(batch, self._began))
        return found

    def _count(self, findings: Sequence[Finding]) -> None:
        self.found.update(finding.kind for finding in findings)
        self._looked_at.update((finding.repository, finding.digest) for finding in findings)

    async def _repair(self, findings: Sequence[Finding]) -> int:
        """Queue what mends differences, as many as there is room for; return how many there were to mend."""
        repairable = [(one.kind, one.work) for one in findings if one.work is not None]
        wanted = repairable[: max(0, min(self._left, self._settings.repairs_per_repository))]
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            now = self._node.clock.now()
            queued = await self._node.database.write(partial(_queue_all, [work for _, work in batch], now))
            self.repaired.update(kind for (kind, _), is_queued in zip(batch, queued, strict=True) if is_queued)
            for kind in {work.kind for _, work in batch}:
                self._node.announce_jobs(kind)
        self._left -= len(wanted)
        return len(repairable)

    # Images in turn

    async def _look_at_content(
        self, peer: ComparedPeer, sources: Mapping[RepositoryName, Sequence[RepositoryName]]
    ) -> None:
        findings: list[Finding] = []
        async for image in self._in_turn(sources, self._settings.offers):
            if (image.repository, image.digest) in self._looked_at:
                continue
            self._looked_at.add((image.repository, image.digest))
            with self._isolated(image.target):
                findings += as_list(await self._comparison.content_finding(peer, image))
        fresh = await self._fresh(findings)
        self._count(fresh)
        await self._repair(fresh)

    async def _in_turn(
        self, sources: Mapping[RepositoryName, Sequence[RepositoryName]], count: int
    ) -> AsyncIterator[ExpectedImage]:
        """Give the next `count` images or some more, beginning where the last round ended, none of them twice."""
        names = sorted({name for sent in sources.values() for name in sent})
        first, after = self._memory.next_image
        left = count
        for name in (*(one for one in names if one >= first), *(one for one in names if one < first)):
            position: str | None = after if name == first else ""
            while position is not None:
                if left <= 0:
                    self._memory.next_image = (name, position)
                    return
                page = await self._comparison.read(
                    self._comparison.expectation.page(name, position, min(left, _SMALL_PAGE))
                )
                left -= max(1, page.seen)
                position = page.after
                for image in page.images:
                    if image.carrier is None:
                        yield image
        self._memory.next_image = ("", "")


def _not_under_way(findings: Sequence[Finding], since: float) -> Steps[list[Finding]]:
    found = []
    for finding in findings:
        if finding.work is None or not (yield from _is_under_way(finding.work, since)):
            found.append(finding)  # noqa: PERF401 - a comprehension cannot yield
    return found


def _is_under_way(work: BackgroundWork, since: float) -> Steps[bool]:
    """Tell whether a job waits or runs, or has ended since the destination was asked."""
    job = work.image.to_job()
    if (yield from jobs.is_pending(job.kind, job.key)):
        return True
    if not isinstance(work.image, ReplicateImage):
        return False
    known = yield from replication_status.of_image(work.image.repository, work.image.digest)
    return any(
        one.completed_at is not None and one.completed_at > since
        for one in known
        if one.tag == work.image.tag and one.destination == str(work.image.destination)
    )


def _queue_all(work: Sequence[BackgroundWork], now: float) -> Steps[list[bool]]:
    queued: list[bool] = []
    for one in work:
        queued += [(yield from queue(one, now))]
    return queued
