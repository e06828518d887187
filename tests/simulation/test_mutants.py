"""The simulation can fail: each planted fault in a decision, or in how it is carried out, is found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core import delivery, drift, replication, revisions
from replicator.core.delivery import (
    DeletionDecision,
    DeliveryDecision,
    ImageDelivery,
    ImageOutcome,
    ImageRegister,
)
from replicator.core.replication import Origin
from replicator.core.revisions import Merge, MergeOutcome, Revision, TagRegister
from tests.simulation.node import Node
from tests.simulation.scenario import run_schedule
from tests.simulation.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.digest import Digest
    from replicator.core.jobs import NewJob
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.peer_messages import Receipt
    from replicator.core.replication import DeleteReplica, ReplicateImage

_SCHEDULES = 800

Patch = pytest.MonkeyPatch


def _merge_always_sets(patch: Patch) -> None:
    def merge(current: TagRegister | None, incoming: TagRegister, *, is_mutable: bool = True) -> Merge:
        return Merge(MergeOutcome.SET, incoming)

    patch.setattr(delivery, "merge", merge)


def _conflicts_go_unreported(patch: Patch) -> None:
    real = revisions.merge

    def merge(current: TagRegister | None, incoming: TagRegister, *, is_mutable: bool = True) -> Merge:
        return replace(real(current, incoming, is_mutable=is_mutable), loser=None)

    patch.setattr(delivery, "merge", merge)


def _tombstones_are_ignored(patch: Patch) -> None:
    real = delivery.decide_delivery

    def decide(
        known: ImageRegister | None, tag: TagRegister | None, sent: ImageDelivery, *, is_mutable: bool
    ) -> DeliveryDecision:
        present = known if known is not None and known.is_present else None
        return real(present, tag, sent, is_mutable=is_mutable)

    patch.setattr(delivery, "decide_delivery", decide)


def _deletions_ignore_revisions(patch: Patch) -> None:
    def decide(known: ImageRegister | None, revision: Revision, *, is_child: bool = False) -> DeletionDecision:
        return DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, revision))

    patch.setattr(delivery, "decide_image_deletion", decide)


def _deletions_ignore_indexes(patch: Patch) -> None:
    real = delivery.decide_image_deletion

    def decide(known: ImageRegister | None, revision: Revision, *, is_child: bool = False) -> DeletionDecision:
        return real(known, revision)

    patch.setattr(delivery, "decide_image_deletion", decide)


def _what_is_pushed_here_is_deleted_by_others(patch: Patch) -> None:
    real = delivery.decide_image_deletion

    def decide(known: ImageRegister | None, revision: Revision, *, is_child: bool = False) -> DeletionDecision:
        taken = replace(known, origin=Origin.REPLICA) if known is not None and known.is_present else known
        return real(taken, revision, is_child=is_child)

    patch.setattr(delivery, "decide_image_deletion", decide)


def _every_delivery_goes_on(patch: Patch) -> None:
    patch.setattr(DeliveryDecision, "is_change", property(lambda _: True))


def _replicas_go_nowhere(patch: Patch) -> None:
    real = replication.plan_replication

    def plan(
        rules: tuple[replication.ReplicationRule, ...], source: NodeId, change: replication.Change
    ) -> tuple[tuple[ReplicateImage, NewJob], ...]:
        return () if change.origin is Origin.REPLICA else real(rules, source, change)

    patch.setattr(replication, "plan_replication", plan)
    patch.setattr(drift, "find_drift", lambda *_, **__: ())


def _a_newer_push_is_dropped(patch: Patch) -> None:
    real = Node.enqueue

    def enqueue(self: Node, job: NewJob, work: ReplicateImage | DeleteReplica) -> None:
        if (job.kind, job.key) not in self.store.jobs:
            real(self, job, work)

    patch.setattr(Node, "enqueue", enqueue)
    patch.setattr(drift, "find_drift", lambda *_, **__: ())


def _an_index_is_taken_without_its_children(patch: Patch) -> None:
    def lacking(self: Node, repository: RepositoryName, digest: Digest, arriving: tuple[Digest, ...]) -> Receipt | None:
        return None

    patch.setattr(Node, "_lacking", lacking)


def _revisions_follow_the_clock_alone(patch: Patch) -> None:
    def next_revision(previous: Revision | None, node: NodeId, now: float, epoch: int = 1) -> Revision:
        return Revision(epoch, int(now * 1000), str(node))

    patch.setattr(revisions, "next_revision", next_revision)


def _a_tag_without_its_image_is_the_first_of_its_revision(patch: Patch) -> None:
    patch.setattr(TagRegister, "rank", property(lambda self: (self.revision, self.digest or "")))


def _a_deleted_image_leaves_its_tag_alone(patch: Patch) -> None:
    real = delivery.decide_delivery

    def decide(
        known: ImageRegister | None, tag: TagRegister | None, sent: ImageDelivery, *, is_mutable: bool
    ) -> DeliveryDecision:
        decision = real(known, tag, sent, is_mutable=is_mutable)
        return replace(decision, tag=None) if decision.outcome is ImageOutcome.DELETED else decision

    patch.setattr(delivery, "decide_delivery", decide)


def _a_tag_stays_where_its_image_is_deleted(patch: Patch) -> None:
    patch.setattr(Store, "tags_of", lambda *_: [])


def _drift_is_not_seen(patch: Patch) -> None:
    patch.setattr(drift, "find_drift", lambda *_, **__: ())


_MUTANTS: tuple[Callable[[Patch], None], ...] = (
    _merge_always_sets,
    _conflicts_go_unreported,
    _tombstones_are_ignored,
    _deletions_ignore_revisions,
    _deletions_ignore_indexes,
    _what_is_pushed_here_is_deleted_by_others,
    _every_delivery_goes_on,
    _replicas_go_nowhere,
    _a_newer_push_is_dropped,
    _an_index_is_taken_without_its_children,
    _revisions_follow_the_clock_alone,
    _drift_is_not_seen,
    _a_tag_without_its_image_is_the_first_of_its_revision,
    _a_deleted_image_leaves_its_tag_alone,
    _a_tag_stays_where_its_image_is_deleted,
)


@pytest.mark.parametrize("mutant", _MUTANTS, ids=lambda one: one.__name__.strip("_"))
def test_a_planted_fault_is_found(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    assert any(run_schedule(seed).violation for seed in range(_SCHEDULES))
