"""Which images go where: ECR's replication rules, and the jobs a push causes.

Rules of one registry are evaluated together: a rule matches when it has no filter or one of its filters is a prefix
of the repository name, and the destinations of all matching rules are united (ECR, "Private image replication"). A
replica never replicates again: one hop.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, parse_digest
from replicator.core.jobs import JobKind, NewJob, Priority
from replicator.core.names import (
    NodeId,
    RepositoryName,
    Tag,
    parse_node,
    parse_repository,
    parse_tag,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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
class ReplicationRule:
    """Images of repositories that start with one of `filters` (any, if there is none) go to `destinations`."""

    name: str
    destinations: tuple[NodeId, ...]
    filters: tuple[str, ...] = ()

    def matches(self, repository: RepositoryName) -> bool:
        """Tell whether the rule covers a repository (PREFIX_MATCH: a literal prefix, no implied slash)."""
        return not self.filters or repository.startswith(self.filters)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an image goes, and the first rule that says so."""

    node: NodeId
    rule: str


@dataclass(frozen=True, slots=True)
class ReplicateImage:
    """The payload of a replication job: one image, with one tag or none, to one destination."""

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: NodeId
    rule: str

    def to_payload(self) -> Mapping[str, object]:
        """Return the JSON form that is stored with the job."""
        return {
            "repository": self.repository,
            "digest": self.digest,
            "tag": self.tag,
            "destination": str(self.destination),
            "rule": self.rule,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, object]) -> ReplicateImage:
        """Read the stored form back; raises InvalidInput when it was not written by `to_payload`."""
        tag = payload.get("tag")
        return cls(
            repository=parse_repository(str(payload.get("repository"))),
            digest=parse_digest(str(payload.get("digest"))),
            tag=None if tag is None else parse_tag(str(tag)),
            destination=parse_node(str(payload.get("destination"))),
            rule=str(payload.get("rule")),
        )

    def to_job(self) -> NewJob:
        """Return the job that carries this out; its key is unique per image, tag and destination."""
        key = f"{self.destination}|{self.repository}|{self.digest}|{self.tag or ''}"
        return NewJob(JobKind.REPLICATE, key, self.to_payload(), Priority.PUSH, lane=str(self.destination))


def destinations_of(
    rules: Sequence[ReplicationRule], repository: RepositoryName, source: NodeId
) -> tuple[Destination, ...]:
    """Return the united destinations of all rules that match, each node once, never the source itself."""
    found: dict[NodeId, Destination] = {}
    for rule in rules:
        if rule.matches(repository):
            for node in rule.destinations:
                if node != source:
                    found.setdefault(node, Destination(node, rule.name))
    return tuple(found.values())


def plan_replication(
    rules: Sequence[ReplicationRule],
    source: NodeId,
    repository: RepositoryName,
    digest: Digest,
    tags: Sequence[Tag],
    origin: Origin,
) -> tuple[ReplicateImage, ...]:
    """Return what a push of `digest` under `tags` causes: one replication per tag (or one untagged) and destination.

    Replicas cause nothing (one hop); images that the cache imported replicate like pushed ones (ECR §9.2).
    """
    if origin is Origin.REPLICA:
        return ()
    wanted: Sequence[Tag | None] = tags or (None,)
    return tuple(
        ReplicateImage(repository, digest, tag, destination.node, destination.rule)
        for destination in destinations_of(rules, repository, source)
        for tag in wanted
    )
