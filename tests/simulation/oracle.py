"""What must hold when all is quiet, told from the acknowledged writes and the rules, not from the nodes' decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.drift import Drift, DriftKind
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER
from tests.simulation.contents import NAMES
from tests.simulation.store import Violation

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.peer_messages import Delivery
    from replicator.core.replication import ReplicateImage
    from replicator.core.revisions import Revision, TagRegister
    from tests.simulation.node import Node
    from tests.simulation.world import World


class Oracle:
    """Remembers every write of a tag, and judges."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._writes: dict[tuple[RepositoryName, Tag], list[TagRegister]] = {}
        self._local: set[Revision] = set()
        self.must_agree = False

    def wrote(self, node: Node, repository: RepositoryName, tag: Tag, register: TagRegister) -> None:
        """Note an acknowledged write."""
        self._world.note(node.store.name, "writes", tag, "->", register.digest, register.revision)
        self._writes.setdefault((repository, tag), []).append(register)

    def untagged_replica(self, register: TagRegister) -> None:
        """Note that a client deleted the tag of a replica, which is no concern of other nodes (one hop)."""
        self._local.add(register.revision)

    def untagged(self, node: Node, tag: Tag, before: TagRegister | None, after: TagRegister) -> None:
        """Judge the deletion of a tag by another node: one of a replica takes nothing that others have sent."""
        if before is None or before.digest is None or after.digest is not None:
            return
        if after.revision in self._local and before.revision.node != after.revision.node:
            raise Violation(f"{node.store.name}: tag {tag} was deleted by {after.revision.node}, of a replica")

    def holds(self, node: Node, sent: Delivery) -> bool:
        """Tell whether a node holds what was delivered, whole and under its tag, or a tag that took its place."""
        assert sent.digest is not None
        if not node.store.is_whole(sent.repository, sent.digest):
            return False
        if sent.tag is None:
            return True
        register = node.store.tags.get((sent.repository, sent.tag.name))
        if register is None:
            return False
        return register.rank >= sent.tag.register.rank or not node.mutability.is_mutable(sent.tag.name)

    def completed(self, node: Node, work: ReplicateImage, sent: Delivery) -> None:
        """Judge a status that is about to become COMPLETE."""
        if not self._world.was_held:
            raise Violation(
                f"{node.store.name}: COMPLETE for {NAMES[work.digest]}, but {work.destination} did not hold it"
            )

    def judge(self) -> None:
        """Judge the nodes when all is quiet."""
        for node in self._world.nodes.values():
            if node.store.jobs:
                raise Violation(f"{node.store.name}: jobs are left: {next(iter(node.store.jobs))}")
            for to in {one for rule in node.rules for one in rule.destinations}:
                self._judge_pair(node, self._world.nodes[to])  # type: ignore[index]
        if self.must_agree:
            self._judge_agreement()
            self._judge_reports()

    def _judge_pair(self, source: Node, destination: Node) -> None:
        where = f"{source.store.name}->{destination.store.name}"
        for repository, target in self._world.repositories_for(source, destination.name):
            listing = destination.listing(source.name, target)
            for one in source.find_drift(destination.name, repository, listing):
                if not self._is_kept(source, destination, (repository, target), one):
                    raise Violation(f"{where} is left to be repaired: {one}")
            self._judge_images(source, destination, repository, target)
            self._judge_tags(source, destination, repository, target)

    @staticmethod
    def _is_kept(source: Node, destination: Node, names: tuple[RepositoryName, RepositoryName], one: Drift) -> bool:
        """Tell whether the destination has a reason to stay as it is: an index of its own, or one deleted there."""
        if one.tag is not None:
            return False
        if one.kind is DriftKind.NOT_DELETED:
            return destination.store.is_child(names[1], one.digest)
        found = source.carrier(destination.name, names[0], one.digest)
        return found is not None and found[0] != one.digest and (names[1], found[0]) in destination.store.deletions

    def _judge_images(
        self, source: Node, destination: Node, repository: RepositoryName, target: RepositoryName
    ) -> None:
        for (name, digest), image in source.store.images.items():
            if name != repository or source.carrier(destination.name, repository, digest) is None:
                continue
            brought = source.carrier(destination.name, repository, digest)
            if brought is not None and brought[0] != digest and (target, brought[0]) in destination.store.deletions:
                continue  # it would come with an index that was deleted there
            deleted = destination.store.deletions.get((target, digest), NEVER)
            if not destination.store.is_whole(target, digest) and deleted < image.revision:
                raise Violation(f"{destination.store.name}: {NAMES[digest]} of {source.store.name} is not there")

    def _judge_tags(self, source: Node, destination: Node, repository: RepositoryName, target: RepositoryName) -> None:
        rules = [one for one in source.rules if destination.name in one.destinations]
        is_chained, deletes = any(one.chain for one in rules), any(one.delete_replication for one in rules)
        for (name, tag), register in source.store.tags.items():
            if name != repository or not source.covers_tag(destination.name, repository, tag, register):
                continue
            there = destination.store.tags.get((target, tag))
            if register.digest is None:
                is_ours = there is not None and (is_chained or there.revision.node == str(source.name))
                if deletes and is_ours and self._is_older_replica(destination, target, there, register):
                    raise Violation(f"{destination.store.name}: tag {tag} was deleted at {source.store.name}")
            elif is_chained or register.revision.node == str(source.name):
                self._judge_tag(source, destination, (repository, target), tag)

    @staticmethod
    def _is_older_replica(
        node: Node, repository: RepositoryName, there: TagRegister | None, deletion: TagRegister
    ) -> bool:
        if there is None or there.digest is None or there.revision >= deletion.revision:
            return False
        return node.store.images[repository, there.digest].origin is Origin.REPLICA

    @staticmethod
    def _judge_tag(source: Node, destination: Node, names: tuple[RepositoryName, RepositoryName], tag: Tag) -> None:
        """Judge a tag of the source: it is there, or gave way to a newer write, a deletion or an immutable tag."""
        register = source.store.tags[names[0], tag]
        there = destination.store.tags.get((names[1], tag))
        assert register.digest is not None
        if there is not None:
            is_kept = there.digest is not None and not destination.mutability.is_mutable(tag)
            if is_kept or there.digest == register.digest or there.rank >= register.rank:
                return
        deleted = destination.store.deletions.get((names[1], register.digest), NEVER)
        is_stale = there is not None and there.digest is not None
        if is_stale or deleted < source.store.images[names[0], register.digest].revision:
            raise Violation(f"{destination.store.name}: tag {tag} is {there}, not as at {source.store.name}")

    def _judge_agreement(self) -> None:
        """Where rules join all nodes both ways, the newest write of a tag is what all of them have."""
        nodes = tuple(self._world.nodes.values())
        for place in {place for node in nodes for place in node.store.tags}:
            found = [node.store.tags.get(place) for node in nodes]
            top = max((one for one in found if one is not None), key=lambda one: one.rank)
            for node, one in zip(nodes, found, strict=True):
                if top.digest is None or one == top:
                    continue
                if one is not None and one.rank == top.rank:
                    continue
                deleted = node.store.deletions.get((place[0], top.digest), NEVER)
                if one is not None and one.digest is None and deleted != NEVER:
                    continue  # its image was deleted here since, and the tag with it
                raise Violation(f"{node.store.name}: tag {place[1]} is {one}, elsewhere {top}")

    def _judge_reports(self) -> None:
        """A write that lost its tag to one that still stands and did not know of it is reported."""
        nodes = self._world.nodes.values()
        for place, writes in self._writes.items():
            standing = {one.rank for node in nodes if (one := node.store.tags.get(place)) is not None}
            for lost in writes:
                newer = [one for one in writes if one.rank > lost.rank]
                if lost.digest is None or any(one.knows(lost) or one.digest == lost.digest for one in newer):
                    continue
                has_winner = any(one.digest is not None and one.rank in standing for one in newer)
                if has_winner and not any((*place, lost.digest) in node.store.conflicts for node in nodes):
                    raise Violation(
                        f"the write of tag {place[1]} -> {NAMES[lost.digest]} in {lost.revision} unreported"
                    )
