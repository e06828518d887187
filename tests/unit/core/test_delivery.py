"""What a destination makes of deliveries and deletions, in whatever order they come."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.delivery import (
    DeletionDecision,
    ImageDelivery,
    ImageOutcome,
    ImageRegister,
    decide_delivery,
    decide_image_deletion,
    decide_untag,
    hold,
    without_image,
)
from replicator.core.digest import digest_of
from replicator.core.names import parse_node
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER, MergeOutcome, Revision, TagRegister, merge, write

if TYPE_CHECKING:
    from replicator.core.digest import Digest

EU, US = (parse_node(f"{'1' * 12}/{region}") for region in ("eu", "us"))
A, B = digest_of(b"a"), digest_of(b"b")
NOW = 1_750_000_000.0


def revision(counter: int) -> Revision:
    return Revision(1, counter, str(EU))


class TestDelivery:
    @pytest.mark.parametrize(
        ("known", "outcome", "register"),
        [
            (None, ImageOutcome.STORED, ImageRegister(Origin.REPLICA, revision(5))),
            (ImageRegister(None, revision(4)), ImageOutcome.STORED, ImageRegister(Origin.REPLICA, revision(5))),
            (ImageRegister(None, revision(5)), ImageOutcome.DELETED, ImageRegister(None, revision(5))),
            (ImageRegister(None, revision(6)), ImageOutcome.DELETED, ImageRegister(None, revision(6))),
            (
                ImageRegister(Origin.REPLICA, revision(4)),
                ImageOutcome.PRESENT,
                ImageRegister(Origin.REPLICA, revision(5)),
            ),
            (
                ImageRegister(Origin.DIRECT, revision(6)),
                ImageOutcome.PRESENT,
                ImageRegister(Origin.DIRECT, revision(6)),
            ),
            (ImageRegister(Origin.CACHE, NEVER), ImageOutcome.PRESENT, ImageRegister(Origin.CACHE, revision(5))),
        ],
    )
    def test_an_image_without_a_tag(
        self, known: ImageRegister | None, outcome: ImageOutcome, register: ImageRegister
    ) -> None:
        decision = decide_delivery(known, None, ImageDelivery(A, revision(5)), is_mutable=True)
        assert (decision.outcome, decision.image, decision.tag) == (outcome, register, None)
        assert decision.is_change is (outcome is ImageOutcome.STORED)

    def test_the_tag_of_a_deleted_image_points_to_nothing_and_no_longer_to_what_it_replaces(self) -> None:
        here = write(None, B, US, NOW)
        tag = write(here, A, EU, NOW + 1)
        deleted = ImageRegister(None, revision(tag.revision.counter))
        decision = decide_delivery(deleted, here, ImageDelivery(A, revision(5), tag), is_mutable=True)
        assert decision.tag is not None
        assert (decision.outcome, decision.image, decision.is_change) == (ImageOutcome.DELETED, deleted, False)
        assert (decision.tag.register.digest, decision.tag.register.revision) == (None, tag.revision)
        again = decide_delivery(deleted, decision.tag.register, ImageDelivery(A, revision(5), tag), is_mutable=True)
        assert again.tag is not None
        assert again.tag.register == decision.tag.register

    @pytest.mark.parametrize(
        ("here", "is_mutable", "outcome"),
        [
            (write(None, B, US, NOW + 9), True, MergeOutcome.KEPT_NEWER),
            (write(None, B, US, NOW), False, MergeOutcome.KEPT_IMMUTABLE),
        ],
    )
    def test_a_tag_that_stays_stays_although_the_image_of_the_other_is_deleted(
        self, here: TagRegister, is_mutable: bool, outcome: MergeOutcome
    ) -> None:
        tag = write(None, A, EU, NOW + 1)
        deleted = ImageRegister(None, revision(tag.revision.counter))
        decision = decide_delivery(deleted, here, ImageDelivery(A, revision(5), tag), is_mutable=is_mutable)
        assert decision.tag is not None
        assert (decision.tag.outcome, decision.tag.register.digest) == (outcome, B)

    def test_a_tag_that_was_set_after_the_deletion_brings_the_image_back(self) -> None:
        """A slow clock, or a tag that was held, leaves the image's own revision behind."""
        tag = write(None, A, EU, NOW)
        deleted = ImageRegister(None, revision(tag.revision.counter - 1))
        decision = decide_delivery(deleted, None, ImageDelivery(A, revision(5), tag), is_mutable=True)
        assert (decision.outcome, decision.image) == (
            ImageOutcome.STORED,
            ImageRegister(Origin.REPLICA, tag.revision),
        )

    @pytest.mark.parametrize(
        ("known", "is_mutable", "outcome", "is_change"),
        [
            (None, False, MergeOutcome.KEPT_IMMUTABLE, True),
            (None, True, MergeOutcome.SET, True),
            (ImageRegister(Origin.REPLICA, revision(5)), True, MergeOutcome.SET, True),
            (ImageRegister(Origin.REPLICA, revision(5)), False, MergeOutcome.KEPT_IMMUTABLE, False),
        ],
    )
    def test_an_image_is_stored_also_where_its_tag_is_kept(
        self, known: ImageRegister | None, is_mutable: bool, outcome: MergeOutcome, is_change: bool
    ) -> None:
        here, tag = write(None, B, US, NOW), write(None, A, EU, NOW + 1)
        decision = decide_delivery(known, here, ImageDelivery(A, revision(5), tag), is_mutable=is_mutable)
        assert decision.outcome is (ImageOutcome.PRESENT if known else ImageOutcome.STORED)
        assert decision.tag is not None
        assert (decision.tag.outcome, decision.is_change) == (outcome, is_change)

    def test_a_repeated_delivery_is_no_change(self) -> None:
        tag = write(None, A, EU, NOW)
        known = ImageRegister(Origin.REPLICA, revision(5))
        again = decide_delivery(known, tag, ImageDelivery(A, revision(5), tag), is_mutable=True)
        assert again.tag is not None
        assert (again.outcome, again.tag.outcome, again.is_change) == (ImageOutcome.PRESENT, MergeOutcome.SAME, False)


class TestImageDeletion:
    @pytest.mark.parametrize(
        ("known", "is_child", "expected"),
        [
            (None, False, DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, revision(5)))),
            (
                ImageRegister(None, revision(4)),
                False,
                DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, revision(5))),
            ),
            (
                ImageRegister(None, revision(6)),
                False,
                DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, revision(6))),
            ),
            (
                ImageRegister(Origin.REPLICA, revision(4)),
                False,
                DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, revision(5))),
            ),
            (
                ImageRegister(Origin.REPLICA, revision(4)),
                True,
                DeletionDecision(ImageOutcome.KEPT, ImageRegister(Origin.REPLICA, revision(4))),
            ),
            (
                ImageRegister(Origin.REPLICA, revision(5)),
                False,
                DeletionDecision(ImageOutcome.KEPT, ImageRegister(Origin.REPLICA, revision(5))),
            ),
            (
                ImageRegister(Origin.DIRECT, revision(4)),
                False,
                DeletionDecision(ImageOutcome.KEPT, ImageRegister(Origin.DIRECT, revision(4))),
            ),
            (
                ImageRegister(Origin.CACHE, revision(4)),
                False,
                DeletionDecision(ImageOutcome.KEPT, ImageRegister(Origin.CACHE, revision(4))),
            ),
        ],
    )
    def test_only_an_older_replica_that_no_index_lists_goes(
        self, known: ImageRegister | None, is_child: bool, expected: DeletionDecision
    ) -> None:
        assert decide_image_deletion(known, revision(5), is_child=is_child) == expected


class TestUntag:
    def test_a_replica_s_tag_goes_and_a_newer_one_stays(self) -> None:
        first = write(None, A, EU, NOW)
        deletion = write(first, None, EU, NOW + 1)
        assert decide_untag(first, deletion).outcome is MergeOutcome.SET
        newer = write(deletion, B, EU, NOW + 2)
        assert decide_untag(newer, deletion).register == newer
        assert decide_untag(None, deletion).register == deletion

    def test_a_tag_on_an_image_of_our_own_stays_unless_the_deletion_knew_of_it(self) -> None:
        mine = write(None, B, US, NOW)
        ignorant, aware = write(None, None, EU, NOW + 1), write(mine, None, EU, NOW + 1)
        kept = decide_untag(mine, ignorant, is_replica=False)
        assert (kept.outcome, kept.register) == (MergeOutcome.KEPT_NEWER, mine)
        assert decide_untag(mine, ignorant).register.digest is None
        assert decide_untag(mine, aware, is_replica=False).register.digest is None
        later = write(None, B, US, NOW + 2)
        assert decide_untag(later, ignorant, is_replica=False).register.digest == B

    def test_a_tag_that_is_held_is_newer_than_the_deletion_everywhere(self) -> None:
        mine, deletion = write(None, B, US, NOW), write(None, None, EU, NOW + 5)
        held = hold(mine, deletion, US, NOW + 1)
        assert held.digest == B
        assert held.rank > deletion.rank
        assert held.knows(deletion)
        assert held.knows(mine)
        assert decide_untag(held, deletion, is_replica=False).register.digest == B
        assert merge(deletion, held).register.digest == B
        assert merge(deletion, held).loser is None

    def test_a_tag_whose_image_went_makes_room_for_what_was_pushed_before_that(self) -> None:
        """The source moved the tag, then deleted the image it had pointed to; the move comes last."""
        first = write(None, A, EU, NOW)
        moved = write(first, B, EU, NOW + 1)
        gone = without_image(first)
        assert gone.digest is None
        assert merge(gone, moved).register.digest == B
        assert merge(gone, write(first, None, EU, NOW + 1)).register.digest is None

    def test_a_late_copy_does_not_put_a_tag_back_whose_image_went(self) -> None:
        first = write(None, A, EU, NOW)
        gone = without_image(first)
        assert gone.rank > first.rank
        late = merge(gone, first)
        assert (late.outcome, late.register.digest, late.loser) == (MergeOutcome.KEPT_NEWER, None, None)

    def test_a_conflict_with_a_tag_whose_image_went_is_reported_where_the_image_is(self) -> None:
        mine, rival = write(None, A, EU, NOW), write(None, B, US, NOW + 1)
        passed_on = merge(without_image(mine), rival)
        assert passed_on.loser is None
        assert merge(mine, passed_on.register).loser == A


@dataclass
class Place:
    """A destination that does what the decisions say, as `registry` does."""

    images: dict[Digest, ImageRegister] = field(default_factory=dict)
    tag: TagRegister | None = None

    def deliver(self, delivery: ImageDelivery) -> None:
        decision = decide_delivery(self.images.get(delivery.digest), self.tag, delivery, is_mutable=True)
        self.images[delivery.digest] = decision.image
        if decision.tag is not None:
            self.tag = decision.tag.register

    def delete(self, digest: Digest, since: Revision) -> None:
        decision = decide_image_deletion(self.images.get(digest), since)
        assert decision.image is not None
        self.images[digest] = decision.image
        if decision.outcome is ImageOutcome.DELETED and self.tag is not None and self.tag.digest == digest:
            self.tag = without_image(self.tag)

    def untag(self, deletion: TagRegister) -> None:
        self.tag = decide_untag(self.tag, deletion).register

    @property
    def visible(self) -> tuple[frozenset[Digest], Digest | None]:
        present = frozenset(digest for digest, register in self.images.items() if register.is_present)
        return present, self.tag.digest if self.tag else None


@dataclass
class Source:
    """The history of one tag at its source: what it sent on the way, and what is true at the end."""

    messages: list[tuple[str, object]] = field(default_factory=list)
    images: dict[Digest, Revision] = field(default_factory=dict)
    tag: TagRegister | None = None
    counter: int = 0

    def push(self, digest: Digest) -> None:
        self.counter += 1
        self.images[digest] = revision(self.counter)
        self.tag = write(self.tag, digest, EU, self.counter / 1000)
        self.messages.append(("deliver", ImageDelivery(digest, self.images[digest], self.tag)))

    def untag(self) -> None:
        self.counter += 1
        if self.tag is not None and self.tag.digest is not None:
            self.tag = write(self.tag, None, EU, self.counter / 1000)
            self.messages.append(("untag", self.tag))

    def delete(self, digest: Digest) -> None:
        self.counter += 1
        if digest not in self.images:
            return
        del self.images[digest]
        self.messages.append(("delete", (digest, revision(self.counter))))
        if self.tag is not None and self.tag.digest == digest:
            self.untag()

    @property
    def visible(self) -> tuple[frozenset[Digest], Digest | None]:
        return frozenset(self.images), self.tag.digest if self.tag else None


def receive(place: Place, message: tuple[str, object]) -> None:
    match message:
        case ("deliver", ImageDelivery() as delivery):
            place.deliver(delivery)
        case ("untag", TagRegister() as deletion):
            place.untag(deletion)
        case ("delete", (str() as digest, Revision() as since)):
            place.delete(digest, since)  # type: ignore[arg-type] # a digest is text
        case _:
            raise AssertionError(message)


steps = st.lists(st.sampled_from(["push a", "push b", "untag", "delete a", "delete b"]), min_size=1, max_size=6)


def history(actions: list[str]) -> Source:
    source = Source()
    for action in actions:
        verb, _, what = action.partition(" ")
        if verb == "untag":
            source.untag()
        else:
            (source.push if verb == "push" else source.delete)({"a": A, "b": B}[what])
    return source


@given(steps, st.data())
def test_any_order_with_any_repetitions_ends_where_the_source_is(actions: list[str], data: st.DataObject) -> None:
    source = history(actions)
    repeated = data.draw(st.lists(st.sampled_from(source.messages), max_size=4)) if source.messages else []
    place = Place()
    for message in data.draw(st.permutations([*source.messages, *repeated])):
        receive(place, message)
    assert place.visible == source.visible


def test_every_order_of_every_short_history() -> None:
    for actions in itertools.product(["push a", "push b", "untag", "delete a"], repeat=4):
        source = history(list(actions))
        for order in itertools.permutations(source.messages):
            place = Place()
            for message in order:
                receive(place, message)
            assert place.visible == source.visible, (actions, order)
