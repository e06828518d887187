"""Waiting until an image can be pulled at its destinations.

What counts is the digest that a tag points to when the wait begins: a later push of the tag is another image. Whoever
waits is woken when the status of the image changes here; where several processes share one database, those of the
others are noticed by looking again.
"""

from __future__ import annotations

import asyncio
import enum
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ManifestNotFound, ShuttingDown, Throttled
from replicator.core.names import RepositoryName
from replicator.core.reference import as_digest, as_tag
from replicator.core.replication import Origin, ReplicationState, destinations_of
from replicator.registry.waiting import wait_for_event
from replicator.storage.metadata import images, replication_status
from replicator.storage.metadata.replication_status import SUPERSEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import Tag
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.replication_status import ReplicationStatus
    from replicator.storage.metadata.statement import Steps

LOOK_AGAIN = 15.0
"""Seconds after which somebody who waits looks again, for changes that another process made."""

MAX_WAITS = 1000
"""Waits of one node at a time."""


class WaitState(enum.StrEnum):
    """How a wait for one destination stands."""

    COMPLETE = "COMPLETE"
    IN_PROGRESS = "IN_PROGRESS"
    FAILED = "FAILED"
    """The last attempt failed for a reason that somebody has to mend; it is tried again all the same."""
    SUPERSEDED = "SUPERSEDED"
    """A newer push took the tag before the image was sent."""
    NOT_REPLICATED = "NOT_REPLICATED"
    """Nothing is on its way there, so that waiting does not help."""


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """How the image stands at one destination, or in a region that no destination lies in.

    `repository` is its name there. `reason` says why it is not complete.
    """

    destination: str
    state: WaitState
    repository: RepositoryName
    rule: str | None = None
    failure_code: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WaitResult:
    """What came of a wait."""

    digest: Digest
    outcomes: tuple[WaitOutcome, ...]

    @property
    def is_complete(self) -> bool:
        """Whether the image can be pulled at every destination that was asked for."""
        return all(one.state is WaitState.COMPLETE for one in self.outcomes)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where an image is waited for: destinations, and all destinations in regions; nowhere: wherever it goes."""

    destinations: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    def among(self, known: Sequence[str]) -> tuple[str, ...]:
        """Return the destinations that are meant, and the regions in which there is none; `known` are all there are."""
        if not self.destinations and not self.regions:
            return tuple(known)
        found = list(self.destinations)
        for region in self.regions:
            found += [one for one in known if one.partition("/")[2] == region] or [region]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _Image:
    """What is known of an image here."""

    digest: Digest
    origin: Origin
    rows: Mapping[str, Sequence[ReplicationStatus]]


class ReplicationWaiter:
    """Lets callers wait for the replication out of one node. `stopping` ends every wait with ShuttingDown."""

    def __init__(self, node: RegistryNode, stopping: asyncio.Event | None = None) -> None:
        self._node = node
        self._stopping = stopping or asyncio.Event()
        self._waits: dict[tuple[RepositoryName, Digest], set[asyncio.Event]] = {}
        self._count = 0
        node.on_settled(self._settled)

    async def wait(
        self,
        repository: RepositoryName,
        reference: Reference,
        wanted: Wanted,
        timeout: float,  # noqa: ASYNC109 - by the node's clock, and its end is a result
        *,
        pinned: Digest | None = None,
        until_failed: bool = False,
    ) -> WaitResult:
        """Return once the image is complete wherever it is wanted, or waiting longer makes no sense, or time is over.

        A destination that failed is waited for, because it is tried again, unless `until_failed`. `pinned` is what the
        reference stood for in an earlier wait that this one goes on with. Raises ManifestNotFound when the image is
        not here, or is deleted meanwhile; Throttled, ShuttingDown or StorageError.
        """
        clock = self._node.clock
        deadline = clock.monotonic() + timeout
        tag = as_tag(reference)
        digest = pinned or (await self._node.database.read(_resolve(repository, reference))).digest
        over = _OVER | {WaitState.FAILED} if until_failed else _OVER
        with self._listening(repository, digest) as changed:
            while True:
                changed.clear()
                image = await self._node.database.read(_resolve(repository, digest))
                outcomes = self._outcomes(repository, tag, image, wanted)
                left = deadline - clock.monotonic()
                if left <= 0 or all(one.state in over for one in outcomes):
                    return WaitResult(digest, outcomes)
                await self._pause(changed, min(left, LOOK_AGAIN))

    async def _pause(self, changed: asyncio.Event, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            relay = group.create_task(_relay(self._stopping, changed))
            await wait_for_event(changed, seconds, self._node.clock)
            relay.cancel()
        if self._stopping.is_set():
            raise ShuttingDown

    @contextmanager
    def _listening(self, repository: RepositoryName, digest: Digest) -> Iterator[asyncio.Event]:
        if self._count >= MAX_WAITS:
            raise Throttled(f"{MAX_WAITS} callers wait for replications already")
        event, place = asyncio.Event(), (repository, digest)
        self._waits.setdefault(place, set()).add(event)
        self._count += 1
        try:
            yield event
        finally:
            self._count -= 1
            self._waits[place].discard(event)
            if not self._waits[place]:
                del self._waits[place]

    def _settled(self, repository: RepositoryName, digest: Digest) -> None:
        for event in self._waits.get((repository, digest), ()):
            event.set()

    def _outcomes(
        self, repository: RepositoryName, tag: Tag | None, image: _Image, wanted: Wanted
    ) -> tuple[WaitOutcome, ...]:
        rules = self._node.settings.replication_rules
        planned = [str(one) for rule in rules for one in rule.destinations] if wanted.regions else []
        planned += [str(one.id) for one in destinations_of(rules, self._node.settings.node, repository, tag)]
        # The node itself is no destination, but the image can be pulled from it: a region means that, too.
        own = [str(self._node.settings.node)] if wanted.regions else []
        known = tuple(dict.fromkeys([*own, *planned, *image.rows]))
        return tuple(self._outcome(repository, tag, image, one) for one in wanted.among(known))

    def _outcome(self, repository: RepositoryName, tag: Tag | None, image: _Image, destination: str) -> WaitOutcome:
        if destination == str(self._node.settings.node):
            return WaitOutcome(destination, WaitState.COMPLETE, repository)
        rows = image.rows.get(destination)
        if not rows:
            reason = self._why_not(repository, tag, image, destination)
            return WaitOutcome(destination, WaitState.NOT_REPLICATED, repository, reason=reason)
        return judge(rows, tag)

    def _why_not(self, repository: RepositoryName, tag: Tag | None, image: _Image, destination: str) -> str:
        rules = self._node.settings.replication_rules
        if image.origin is Origin.REPLICA and not any(rule.chain for rule in rules):
            return "it came here by replication and is not sent on; ask the node that it was pushed to"
        found = destinations_of(rules, self._node.settings.node, repository, tag)
        rule = next((one.rule.name for one in found if str(one.id) == destination), None)
        if rule is None:
            return "no replication rule sends it there"
        return f"rule {rule} would send it there, but was added after the push; sync or backfill it"


_OVER = frozenset({WaitState.COMPLETE, WaitState.SUPERSEDED, WaitState.NOT_REPLICATED})


def judge(rows: Sequence[ReplicationStatus], tag: Tag | None) -> WaitOutcome:
    """Return how an image stands at a destination, by its statuses there (one at least), asked for by tag or digest.

    The status of the tag counts where it has one, else any of the image: then what is asked for is the digest.
    """
    counting = [row for row in rows if tag is not None and row.tag == tag] or list(rows)
    row = min(counting, key=_rank)
    state = WaitState.SUPERSEDED if _is_superseded(row) else WaitState(row.status.value)
    return WaitOutcome(
        row.destination,
        state,
        RepositoryName(row.target or row.repository),
        row.rule,
        row.failure_code,
        _REASONS.get(state, ""),
    )


_REASONS = {
    WaitState.IN_PROGRESS: "it is on its way, or waits for its next attempt; the status has the failures",
    WaitState.FAILED: "the last attempt failed; it is tried again",
    WaitState.SUPERSEDED: "a newer push took the tag before this image was sent",
}
_ORDER = (ReplicationState.COMPLETE, ReplicationState.IN_PROGRESS, ReplicationState.FAILED)


def _rank(row: ReplicationStatus) -> tuple[int, bool]:
    return _ORDER.index(row.status), _is_superseded(row)


def _is_superseded(row: ReplicationStatus) -> bool:
    return row.status is ReplicationState.FAILED and row.failure_code == SUPERSEDED


def _resolve(repository: RepositoryName, reference: Reference) -> Steps[_Image]:
    digest, tag = as_digest(reference), as_tag(reference)
    if digest is None and tag is not None:
        found = yield from images.find_by_tag(repository, tag)
        digest = found.digest if found is not None else None
    origin = (yield from images.find_origin(repository, digest)) if digest is not None else None
    if digest is None or origin is None:
        raise ManifestNotFound(f"repository {repository} has no manifest {reference}")
    statuses = yield from replication_status.of_image(repository, digest)
    rows: dict[str, list[ReplicationStatus]] = {}
    for status in statuses:
        rows.setdefault(status.destination, []).append(status)
    return _Image(digest, origin, rows)


async def _relay(event: asyncio.Event, other: asyncio.Event) -> None:
    await event.wait()
    other.set()
