"""What the rules say a destination should hold of this node, and what it should hold no longer.

Expected are images under the tags that a rule covers, referrers of expected images, and images without a tag that were
sent before: rules bring what is pushed, so an image that never was is not expected for being here. An image that only
an index lists travels with that index. Replicas are expected only by rules that chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap
from replicator.core.errors import InvalidName
from replicator.core.peer_messages import HeldImage
from replicator.core.replication import Destination, Origin, ReplicateImage, destinations_of
from replicator.storage.metadata import expected_images, images, tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.digest import Digest
    from replicator.core.names import NodeId, RepositoryName, Tag
    from replicator.core.replication import ReplicationRule
    from replicator.core.revisions import Revision
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.expected_images import ImageWithTags
    from replicator.storage.metadata.statement import Steps

_MAX_DEPTH = 4
"""Subjects and indexes above an image that are looked at; deeper ones do not occur."""

_MAX_PARENTS = 8
_MAX_KEPT = 2048


@dataclass(frozen=True, slots=True)
class ExpectedImage:
    """An image, under one tag or without one, that `destination` should hold in repository `target`.

    `carrier` is the expected image that an image without a life of its own travels with: an index, and its tag.
    """

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: DestinationId
    rule: ReplicationRule
    target: RepositoryName
    revision: Revision
    tag_revision: Revision | None = None
    carrier: tuple[Digest, Tag | None] | None = None

    @property
    def replication(self) -> ReplicateImage:
        """What brings it: it alone, or what it travels with."""
        digest, tag = self.carrier or (self.digest, self.tag)
        target = None if self.target == self.repository else self.target
        return ReplicateImage(self.repository, digest, tag, self.destination, self.rule.name, target)

    def lines(self) -> tuple[HeldImage, ...]:
        """Return it as lines of a listing."""
        image = HeldImage(self.digest, self.revision)
        if self.tag is None or self.tag_revision is None:
            return (image,)
        return image, HeldImage(self.digest, self.tag_revision, self.tag)


@dataclass(frozen=True, slots=True)
class ExpectedDeletion:
    """An image, or a tag (`digest` is None), that was deleted here and that a rule deletes at the destination."""

    repository: RepositoryName
    digest: Digest | None
    tag: Tag | None
    destination: DestinationId
    rule: ReplicationRule
    target: RepositoryName
    revision: Revision

    def line(self) -> HeldImage:
        """Return it as a line of a listing."""
        return HeldImage(self.digest, self.revision, self.tag, is_present=False)


@dataclass(frozen=True, slots=True)
class ExpectedPage:
    """What is expected of `seen` images; `after` goes on, None at the end."""

    images: tuple[ExpectedImage, ...]
    seen: int
    after: str | None


class Expectation:
    """What one destination should hold. Make one for each walk: it remembers what it found about indexes."""

    def __init__(self, settings: RegistrySettings, destination: DestinationId) -> None:
        self.destination = destination
        self.rules = tuple(rule for rule in settings.replication_rules if destination in rule.destinations)
        self._source: NodeId = settings.node
        self._known: BoundedMap[tuple[RepositoryName, Digest], tuple[ExpectedImage, ...]] = BoundedMap(_MAX_KEPT)

    def targets(self, repository: RepositoryName) -> tuple[RepositoryName, ...]:
        """Return the repositories at the destination that images of `repository` go to; empty when no rule covers."""
        found = (rule.renamed(repository) for rule in self.rules if rule.matches(repository))
        try:
            return tuple(dict.fromkeys(found))
        except InvalidName:
            return ()  # a renaming makes no name of it, so nothing can go there

    def page(self, repository: RepositoryName, after: str, limit: int) -> Steps[ExpectedPage]:
        """Return what is expected of up to `limit` images whose digests sort after `after`."""
        if not self.targets(repository):
            return ExpectedPage((), 0, None)
        found: list[ExpectedImage] = []
        page = yield from expected_images.page_after(repository, str(self.destination), after, limit)
        for image in page:
            found += yield from self._of(image, _MAX_DEPTH)
        return ExpectedPage(tuple(found), len(page), page[-1].digest if len(page) == limit else None)

    def of_image(
        self, repository: RepositoryName, digest: Digest, *, asked_for: bool = False
    ) -> Steps[tuple[ExpectedImage, ...]]:
        """Return what is expected of one image; one that is `asked_for` need not have been sent before."""
        image = yield from expected_images.find(repository, str(self.destination), digest)
        if image is None or not self.targets(repository):
            return ()
        found = yield from self._of(image, _MAX_DEPTH)
        place = self._place(image, None) if asked_for and not found else None
        return (self._image(image, place),) if place is not None else found

    def deletions(
        self, repository: RepositoryName, after: str, limit: int
    ) -> Steps[tuple[list[ExpectedDeletion], str | None]]:
        """Return up to `limit` images that were deleted here and should be there, and where to go on."""
        rules = self._deleting(repository)
        if not rules:
            return [], None
        rows = yield from images.deletions_after(repository, after, limit)
        found = [
            ExpectedDeletion(repository, digest, None, self.destination, rule, rule.renamed(repository), revision)
            for digest, revision in rows
            for rule in _one_per_target(rules, repository)
        ]
        return found, rows[-1][0] if len(rows) == limit else None

    def tag_deletions(
        self, repository: RepositoryName, after: str, limit: int
    ) -> Steps[tuple[list[ExpectedDeletion], str | None]]:
        """Return those of up to `limit` tags that were deleted here and should be there, and where to go on."""
        rules = self._deleting(repository)
        if not rules:
            return [], None
        rows = yield from tags.registers_after(repository, after, limit)
        found = []
        for tag, register in rows:
            rule = next((one for one in rules if one.matches_tag(tag)), None)
            if register.digest is None and rule is not None:
                target = rule.renamed(repository)
                found.append(ExpectedDeletion(repository, None, tag, self.destination, rule, target, register.revision))
        return found, rows[-1][0] if len(rows) == limit else None

    def _deleting(self, repository: RepositoryName) -> Sequence[ReplicationRule]:
        if not self.targets(repository):
            return ()
        return [rule for rule in self.rules if rule.delete_replication and rule.matches(repository)]

    # One image

    def _of(self, image: ImageWithTags, depth: int) -> Steps[tuple[ExpectedImage, ...]]:
        tagged = tuple(
            self._image(image, place, tag, revision)
            for tag, revision in image.tags
            if (place := self._place(image, tag, is_own=revision.node == str(self._source))) is not None
        )
        return tagged or (yield from self._untagged(image, depth))

    def _untagged(self, image: ImageWithTags, depth: int) -> Steps[tuple[ExpectedImage, ...]]:
        if image.is_child:
            carried = yield from self._carried(image, depth)
            if carried is not None:
                return carried
        place = self._place(image, None, is_referrer=True)
        if place is None:
            return ()
        wanted = image.was_sent
        if not wanted and image.subject is not None:
            wanted = bool((yield from self._known_of(image.repository, image.subject, depth - 1)))
        return (self._image(image, place),) if wanted else ()

    def _carried(self, image: ImageWithTags, depth: int) -> Steps[tuple[ExpectedImage, ...] | None]:
        """Return an image of an index as what travels with the index; None when no index of it is expected."""
        parents = yield from images.parents(image.repository, image.digest, _MAX_PARENTS)
        for parent in parents:
            above = yield from self._known_of(image.repository, parent, depth - 1)
            if above:
                return self._with(image, above[0])
        return None

    def _with(self, image: ImageWithTags, index: ExpectedImage) -> tuple[ExpectedImage, ...]:
        if index.rule.platforms:
            return ()  # which of them go is for the copy to find out
        carrier = index.carrier or (index.digest, index.tag)
        place = Destination(self.destination, index.rule, index.target)
        return (self._image(image, place, carrier=carrier),)

    def _known_of(self, repository: RepositoryName, digest: Digest, depth: int) -> Steps[tuple[ExpectedImage, ...]]:
        key = repository, digest
        known = self._known.find(key)
        if known is not None:
            return known
        image = None
        if depth > 0:
            image = yield from expected_images.find(repository, str(self.destination), digest)
        found = (yield from self._of(image, depth)) if image is not None else ()
        self._known.put(key, found)
        return found

    def _place(
        self, image: ImageWithTags, tag: Tag | None, *, is_referrer: bool = False, is_own: bool = True
    ) -> Destination | None:
        """Return where an image goes under a tag. Replicas go on by rules that chain, and not back.

        So does a tag that another node has set (`is_own` is false), also where the image was pushed here as well.
        """
        rules = self.rules
        if image.origin is Origin.REPLICA or not is_own:
            rules = tuple(rule for rule in rules if rule.chain)
        if image.origin is Origin.REPLICA and image.source == str(self.destination):
            return None
        referrer = is_referrer or image.subject is not None
        places = destinations_of(rules, self._source, image.repository, tag, is_referrer=referrer)
        return next((place for place in places if place.id == self.destination), None)

    def _image(
        self,
        image: ImageWithTags,
        place: Destination,
        tag: Tag | None = None,
        tag_revision: Revision | None = None,
        carrier: tuple[Digest, Tag | None] | None = None,
    ) -> ExpectedImage:
        return ExpectedImage(
            image.repository,
            image.digest,
            tag,
            self.destination,
            place.rule,
            place.repository,
            image.revision,
            tag_revision,
            carrier,
        )


def _one_per_target(rules: Sequence[ReplicationRule], repository: RepositoryName) -> Iterable[ReplicationRule]:
    found: dict[RepositoryName, ReplicationRule] = {}
    for rule in rules:
        found.setdefault(rule.renamed(repository), rule)
    return found.values()
