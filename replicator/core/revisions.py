"""Which write came later: revisions of tags and images that nodes make without asking each other.

A revision is (epoch, counter, node). The counter is a hybrid logical clock: the time in milliseconds, but always more
than that of the revision it replaces (Kulkarni et al., "Logical Physical Clocks", 2014). Revisions are ordered
totally, so that any two nodes that know the same writes agree on the last one, in whatever order they hear of them. A
tag also carries the newest counter of each node whose write it takes into account (a version vector): it tells a
write that replaces another one from two that did not know of each other, which is a conflict and is reported.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput
from replicator.core.names import NodeId, parse_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.digest import Digest

MAX_SEEN = 32
"""Nodes in a version vector; beyond, those that wrote longest ago are forgotten."""

MAX_AHEAD = 24 * 3600.0
"""Seconds that a revision from elsewhere may lie in our future, so that a wrong clock cannot pin a tag for ever."""

LAST_EPOCH = 1
"""The epoch in which nodes write. None has begun a later one, which would outdo whatever is written in this."""

_LAST = "~"
"""Sorts after every digest."""


@dataclass(frozen=True, slots=True, order=True)
class Revision:
    """One write: written `epoch.counter.account/region`. `counter` is about Unix milliseconds."""

    epoch: int
    counter: int
    node: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}.{self.node}"


NEVER = Revision(0, 0, "")
"""Before every write."""


def parse_revision(text: str) -> Revision:
    """Read the text form back; raise InvalidInput for anything that `str` of a revision does not write."""
    if text == str(NEVER):
        return NEVER
    epoch, _, rest = text.partition(".")
    counter, _, node = rest.partition(".")
    if not (_is_number(epoch) and _is_number(counter)):
        raise InvalidInput(f"expected a revision such as 1.1700000000000.123456789012/eu-west-1, got {text[:80]!r}")
    return Revision(int(epoch), int(counter), str(parse_node(node)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


@dataclass(frozen=True, slots=True)
class TagRegister:
    """What a tag points to (None: deleted), since which write, and what that write knew of: node to counter."""

    digest: Digest | None
    revision: Revision
    seen: Mapping[str, int] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[Revision, str]:
        """The total order of registers; the digest only matters in one revision.

        There the tag without an image comes last: a node that lost the image to a deletion has taken it off the tag,
        which stays in its revision, and a late copy of that revision must not put it back.
        """
        return self.revision, self.digest or _LAST

    def knows(self, other: TagRegister) -> bool:
        """Tell whether this write was made in knowledge of `other`, or is the same."""
        mine = max(self.seen.get(other.revision.node, 0), self._own(other.revision.node))
        return mine >= other.revision.counter

    def _own(self, node: str) -> int:
        return self.revision.counter if self.revision.node == node else 0


def next_revision(previous: Revision | None, node: NodeId, now: float, epoch: int = 1) -> Revision:
    """Return the revision of a write by `node` at `now` (Unix seconds) that replaces `previous`."""
    before = previous or NEVER
    return Revision(max(before.epoch, epoch), max(before.counter + 1, int(now * 1000)), str(node))


def write(previous: TagRegister | None, digest: Digest | None, node: NodeId, now: float) -> TagRegister:
    """Return the register after `node` pointed the tag to `digest`, or deleted it (None)."""
    revision = next_revision(previous.revision if previous else None, node, now)
    seen = _joined(_vector(previous), {revision.node: revision.counter})
    return TagRegister(digest, revision, seen)


class MergeOutcome(enum.StrEnum):
    """What a register from elsewhere did to ours."""

    SET = "set"
    SAME = "same"
    KEPT_NEWER = "kept_newer"
    KEPT_IMMUTABLE = "kept_immutable"


@dataclass(frozen=True, slots=True)
class Merge:
    """The register after a merge. `loser` is what a conflict took the tag from, where it was an image."""

    outcome: MergeOutcome
    register: TagRegister
    loser: Digest | None = None


def merge(current: TagRegister | None, incoming: TagRegister, *, is_mutable: bool = True) -> Merge:
    """Return what `incoming` makes of `current`; the same whatever the order in which registers arrive.

    An immutable tag keeps the image it has (ECR §9.3); so do both sides, when each set it during a partition.
    """
    if current is None:
        return Merge(MergeOutcome.SET, incoming)
    seen = _taken_into_account(current, incoming)
    if incoming.rank == current.rank:
        return Merge(MergeOutcome.SAME, TagRegister(current.digest, current.revision, seen))
    loser = _loser(current, incoming)
    if incoming.rank < current.rank:
        return Merge(MergeOutcome.KEPT_NEWER, TagRegister(current.digest, current.revision, seen), loser)
    if not is_mutable and current.digest is not None and incoming.digest not in {None, current.digest}:
        return Merge(MergeOutcome.KEPT_IMMUTABLE, current)
    return Merge(MergeOutcome.SET, TagRegister(incoming.digest, incoming.revision, seen), loser)


def _taken_into_account(current: TagRegister, incoming: TagRegister) -> Mapping[str, int]:
    """Return the version vector after a merge.

    A write that lost without an image to report is left out: where its image still is, the conflict is to be found.
    """
    last, first = sorted((current, incoming), key=lambda register: register.rank, reverse=True)
    if first.digest is None and not last.knows(first):
        return _vector(last)
    return _joined(_vector(current), _vector(incoming))


def _loser(current: TagRegister, incoming: TagRegister) -> Digest | None:
    """Return the digest that loses the tag to a write which did not know of it."""
    if incoming.knows(current) or current.knows(incoming) or incoming.digest == current.digest:
        return None
    return min(current, incoming, key=lambda register: register.rank).digest


def is_too_far_ahead(revision: Revision, now: float) -> bool:
    """Tell whether a revision from elsewhere must be refused: its clock runs ahead of ours by more than a day.

    So does its epoch, whatever the clock: an epoch that nobody begins would pin a tag for ever.
    """
    return revision.counter > int((now + MAX_AHEAD) * 1000) or revision.epoch > LAST_EPOCH


def _vector(register: TagRegister | None) -> Mapping[str, int]:
    if register is None:
        return {}
    return _joined(register.seen, {register.revision.node: register.revision.counter})


def _joined(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    both = {node: max(one.get(node, 0), other.get(node, 0)) for node in {*one, *other}}
    if len(both) <= MAX_SEEN:
        return both
    newest = sorted(both, key=lambda node: (both[node], node), reverse=True)[:MAX_SEEN]
    return {node: both[node] for node in newest}
