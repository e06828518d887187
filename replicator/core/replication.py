"""Which images go where: ECR's replication rules with our extensions, and the jobs that a change causes.

Rules of one registry are evaluated together: a rule matches a repository when it has no filter or one of its filters
is a prefix of the name, and the destinations of all matching rules are united (ECR, "Private image replication").
A replica does not replicate again (one hop), except by a rule that chains. Exact names, exclusions, tag filters,
renaming, platforms, chaining and priority are extensions of the configuration file.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.destinations import DestinationId, parse_destination
from replicator.core.digest import Digest, parse_digest
from replicator.core.errors import InvalidName
from replicator.core.jobs import JobKind, NewJob, Priority
from replicator.core.mutability import matches_wildcard
from replicator.core.names import NodeId, RepositoryName, Tag, parse_repository, parse_tag
from replicator.core.revisions import Revision, parse_revision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from replicator.core.platforms import Platform

DEFAULT_PRIORITY = 5
DEFAULT_LAG_TARGET = 0.99


class Origin(enum.StrEnum):
    """How an image came into a repository."""

    DIRECT = "direct"
    REPLICA = "replica"
    CACHE = "cache"


class ReplicationState(enum.StrEnum):
    """ECR's replication status of one image at one destination."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Rename:
    """Repositories that start with `prefix` are called `to` and the rest of their name at the destination."""

    prefix: str
    to: str

    def apply(self, repository: RepositoryName) -> RepositoryName | None:
        """Return the new name, or None when the prefix is another one; raises InvalidName when the result is none."""
        if not repository.startswith(self.prefix):
            return None
        return parse_repository(self.to + repository.removeprefix(self.prefix))


@dataclass(frozen=True, slots=True)
class ReplicationRule:
    """Images of the repositories it covers go to `destinations`.

    `filters` are literal prefixes (ECR's PREFIX_MATCH, no implied slash); everything else is an extension.
    `repositories` and `excluded_repositories`, `tags` and `excluded_tags` are names in which `*` stands for any
    characters. `priority` is 1 (first) to 9. `lag_objective` is in seconds,
    `lag_target` the share of images (below 1) that are to keep it.
    """

    name: str
    destinations: tuple[DestinationId, ...]
    filters: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    excluded_repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    excluded_tags: tuple[str, ...] = ()
    rename: tuple[Rename, ...] = ()
    platforms: tuple[Platform, ...] = ()
    chain: bool = False
    delete_replication: bool = False
    priority: int = DEFAULT_PRIORITY
    lag_objective: float | None = None
    lag_target: float = DEFAULT_LAG_TARGET

    def matches(self, repository: RepositoryName) -> bool:
        """Tell whether images of a repository go by the rule: it covers it, and makes a name of its name.

        A push never fails because a rule cannot rename: then the repository stays where it is, as if not covered.
        """
        return self.covers(repository) and (not self.rename or self._makes_name(repository))

    def _makes_name(self, repository: RepositoryName) -> bool:
        try:
            self.renamed(repository)
        except InvalidName:
            return False
        return True

    def covers(self, repository: RepositoryName) -> bool:
        """Tell whether the filters, names and exclusions cover a repository."""
        if _matches_any(self.excluded_repositories, repository):
            return False
        if not self.filters and not self.repositories:
            return True
        return repository.startswith(self.filters) or _matches_any(self.repositories, repository)

    def matches_tag(self, tag: Tag | None, *, is_referrer: bool = False) -> bool:
        """Tell whether the rule covers an image under a tag, or without one (None).

        A referrer without a tag goes wherever its repository goes, because it belongs to an image there. Where tags or
        platforms are chosen, any other image without a tag goes only as a part of an index that goes: clients push the
        images of an index first, when nobody knows yet that they are.
        """
        if tag is None:
            return is_referrer or not (self.tags or self.platforms)
        return (not self.tags or _matches_any(self.tags, tag)) and not _matches_any(self.excluded_tags, tag)

    def renamed(self, repository: RepositoryName) -> RepositoryName:
        """Return the repository's name at the destinations: by the first prefix that fits, else as it is.

        Raises InvalidName for a repository that the rule does not match.
        """
        for rename in self.rename:
            name = rename.apply(repository)
            if name is not None:
                return name
        return repository

    def wants_platform(self, platform: Mapping[str, object] | None) -> bool:
        """Tell whether a manifest of an index for `platform` is to be copied."""
        return not self.platforms or any(one.matches(platform) for one in self.platforms)


def _matches_any(patterns: Iterable[str], text: str) -> bool:
    return any(matches_wildcard(pattern, text) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an image goes, under which repository name, and the first rule that says so."""

    id: DestinationId
    rule: ReplicationRule
    repository: RepositoryName


@dataclass(frozen=True, slots=True)
class ReplicateImage:
    """The payload of a replication job: one image, with one tag or none, to one destination.

    `target` is the repository's name there; None stands for the same name.
    """

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: DestinationId
    rule: str
    target: RepositoryName | None = None

    @property
    def target_repository(self) -> RepositoryName:
        """The repository at the destination."""
        return self.target or self.repository

    def to_payload(self) -> Mapping[str, object]:
        """Return the JSON form that is stored with the job."""
        return _payload(self)

    @classmethod
    def from_payload(cls, payload: Mapping[str, object]) -> ReplicateImage:
        """Read the stored form back; raises InvalidInput when it was not written by `to_payload`."""
        tag, target = payload.get("tag"), payload.get("target")
        return cls(
            repository=parse_repository(str(payload.get("repository"))),
            digest=parse_digest(str(payload.get("digest"))),
            tag=None if tag is None else parse_tag(str(tag)),
            destination=parse_destination(str(payload.get("destination"))),
            rule=str(payload.get("rule")),
            target=None if target is None else parse_repository(str(target)),
        )

    @property
    def key(self) -> str:
        """What the job is about: a tag at a destination, or an image without one. A newer push replaces an older."""
        return _key(self)

    def to_job(self, priority: int = Priority.PUSH + DEFAULT_PRIORITY) -> NewJob:
        """Return the job that carries this out."""
        return NewJob(JobKind.REPLICATE, self.key, self.to_payload(), priority, lane=str(self.destination))


@dataclass(frozen=True, slots=True)
class DeleteReplica:
    """The payload of a job that deletes a tag, or an image (`tag` is None), at a destination (ECR §9.4).

    `revision` is the deletion's. `digest` is the image; for a tag, the one it pointed to.
    """

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: DestinationId
    rule: str
    revision: Revision
    target: RepositoryName | None = None

    @property
    def target_repository(self) -> RepositoryName:
        """The repository at the destination."""
        return self.target or self.repository

    def to_payload(self) -> Mapping[str, object]:
        """Return the JSON form that is stored with the job."""
        return {**_payload(self), "revision": str(self.revision)}

    @classmethod
    def from_payload(cls, payload: Mapping[str, object]) -> DeleteReplica:
        """Read the stored form back; raises InvalidInput when it was not written by `to_payload`."""
        image = ReplicateImage.from_payload(payload)
        revision = parse_revision(str(payload.get("revision")))
        return cls(image.repository, image.digest, image.tag, image.destination, image.rule, revision, image.target)

    def to_job(self, priority: int = Priority.PUSH + DEFAULT_PRIORITY) -> NewJob:
        """Return the job that carries this out."""
        return NewJob(JobKind.DELETE_REPLICA, _key(self), self.to_payload(), priority, lane=str(self.destination))


def _payload(work: ReplicateImage | DeleteReplica) -> Mapping[str, object]:
    return {
        "repository": work.repository,
        "digest": work.digest,
        "tag": work.tag,
        "destination": str(work.destination),
        "rule": work.rule,
        "target": work.target,
    }


def _key(work: ReplicateImage | DeleteReplica) -> str:
    what = f":{work.tag}" if work.tag is not None else f"@{work.digest}"
    return f"{work.destination}|{work.repository}{what}"


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to an image in a repository: it came (`tags` are those that now point to it), or it went.

    `came_from` is the node that a replica was received from, to which it is never sent back.
    """

    repository: RepositoryName
    digest: Digest
    tags: tuple[Tag, ...]
    origin: Origin
    is_referrer: bool = False
    came_from: NodeId | None = None


def destinations_of(
    rules: Sequence[ReplicationRule],
    source: NodeId,
    repository: RepositoryName,
    tag: Tag | None = None,
    *,
    is_referrer: bool = False,
) -> tuple[Destination, ...]:
    """Return the united destinations of the rules that match, never the source; of several rules the first counts."""
    found: dict[DestinationId, Destination] = {}
    for rule in rules:
        if rule.matches(repository) and rule.matches_tag(tag, is_referrer=is_referrer):
            name = rule.renamed(repository)
            for destination in rule.destinations:
                if destination != source:
                    found.setdefault(destination, Destination(destination, rule, name))
    return tuple(found.values())


def plan_replication(
    rules: Sequence[ReplicationRule], source: NodeId, change: Change
) -> tuple[tuple[ReplicateImage, NewJob], ...]:
    """Return what a pushed image causes: one replication per tag (or one untagged) and destination, with its job.

    Replicas go on only by rules that chain, and not back to where they came from; images that the cache imported
    replicate like pushed ones (ECR §9.2).
    """
    rules = _applicable(rules, change)
    wanted: Sequence[Tag | None] = change.tags or (None,)
    planned = []
    for tag in wanted:
        for one in destinations_of(rules, source, change.repository, tag, is_referrer=change.is_referrer):
            if one.id != change.came_from:
                image = ReplicateImage(
                    change.repository, change.digest, tag, one.id, one.rule.name, _target(one, change.repository)
                )
                planned.append((image, image.to_job(Priority.PUSH + one.rule.priority)))
    return tuple(planned)


def plan_deletion(
    rules: Sequence[ReplicationRule],
    source: NodeId,
    change: Change,
    tag: Tag | None,
    revision: Revision,
    sent: Iterable[ReplicateImage] = (),
) -> tuple[DeleteReplica, ...]:
    """Return what the deletion of a tag, or of an image (`tag` is None), causes at the destinations (ECR §9.4).

    An image goes wherever one of its tags, or the image without one, may have been sent, and wherever it was `sent`:
    by now it may have lost the tag by which it went.
    """
    rules = [rule for rule in _applicable(rules, change) if rule.delete_replication]
    found: dict[DestinationId, Destination] = {}
    for name in (tag,) if tag is not None else (None, *change.tags):
        for one in destinations_of(rules, source, change.repository, name, is_referrer=change.is_referrer):
            if one.id != change.came_from:
                found.setdefault(one.id, one)
    for image in sent:
        by = next((rule for rule in rules if rule.name == image.rule and rule.matches(change.repository)), None)
        if by is not None and image.destination in by.destinations and image.destination != change.came_from:
            found.setdefault(image.destination, Destination(image.destination, by, image.target_repository))
    return tuple(
        DeleteReplica(
            change.repository, change.digest, tag, one.id, one.rule.name, revision, _target(one, change.repository)
        )
        for one in found.values()
    )


def _applicable(rules: Sequence[ReplicationRule], change: Change) -> Sequence[ReplicationRule]:
    return [rule for rule in rules if rule.chain] if change.origin is Origin.REPLICA else rules


def _target(destination: Destination, repository: RepositoryName) -> RepositoryName | None:
    return None if destination.repository == repository else destination.repository
