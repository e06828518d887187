"""Drift: what a destination lacks or keeps, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.digest import digest_of
from replicator.core.drift import REPAIRABLE, DriftKind, find_drift, fingerprint
from replicator.core.names import Tag
from replicator.core.peer_messages import HeldImage
from replicator.core.revisions import Revision

ONE, TWO = digest_of(b"one"), digest_of(b"two")
V1 = Tag("v1")


def at(counter: int) -> Revision:
    return Revision(1, counter, "111111111111/us-east-1")


def kinds(expected: list[HeldImage], held: list[HeldImage], *, delete_replication: bool = True) -> list[DriftKind]:
    return [drift.kind for drift in find_drift(expected, held, delete_replication=delete_replication)]


IMAGE, TAG = HeldImage(ONE, at(5)), HeldImage(ONE, at(6), V1)
DELETED_IMAGE = HeldImage(ONE, at(9), is_present=False)
DELETED_TAG = HeldImage(None, at(9), V1, is_present=False)


class TestImages:
    def test_what_is_there_is_no_drift(self) -> None:
        assert kinds([IMAGE, TAG], [IMAGE, TAG]) == []

    def test_what_the_destination_holds_beyond_is_no_drift(self) -> None:
        assert kinds([], [IMAGE, TAG]) == []

    def test_an_image_is_missing(self) -> None:
        assert kinds([IMAGE], []) == [DriftKind.MISSING_IMAGE]

    def test_an_image_deleted_there_since_is_not_brought_back(self) -> None:
        assert kinds([IMAGE], [DELETED_IMAGE]) == [DriftKind.DELETED_THERE]
        assert DriftKind.DELETED_THERE not in REPAIRABLE

    def test_an_image_pushed_again_after_its_deletion_there_is_missing(self) -> None:
        assert kinds([HeldImage(ONE, at(10))], [DELETED_IMAGE]) == [DriftKind.MISSING_IMAGE]

    def test_an_image_deleted_at_the_source_goes_only_if_it_is_an_older_replica(self) -> None:
        replica = HeldImage(ONE, at(5), is_replica=True)
        assert kinds([DELETED_IMAGE], [replica]) == [DriftKind.NOT_DELETED]
        assert kinds([DELETED_IMAGE], [replica], delete_replication=False) == []
        assert kinds([DELETED_IMAGE], [IMAGE]) == []
        assert kinds([DELETED_IMAGE], [HeldImage(ONE, at(10), is_replica=True)]) == []
        assert kinds([DELETED_IMAGE], []) == []


class TestTags:
    def test_a_tag_is_missing(self) -> None:
        assert kinds([IMAGE, TAG], [IMAGE]) == [DriftKind.MISSING_TAG]

    def test_a_tag_points_to_an_older_image(self) -> None:
        assert kinds([TAG], [HeldImage(TWO, at(3), V1)]) == [DriftKind.OTHER_DIGEST]

    def test_a_tag_set_there_since_is_left_alone(self) -> None:
        assert kinds([TAG], [HeldImage(TWO, at(8), V1)]) == [DriftKind.NEWER_THERE]
        assert DriftKind.NEWER_THERE not in REPAIRABLE

    def test_a_tag_deleted_there_since_is_not_brought_back(self) -> None:
        assert kinds([TAG], [DELETED_TAG]) == [DriftKind.DELETED_THERE]

    def test_a_tag_set_here_after_its_deletion_there_is_missing(self) -> None:
        assert kinds([HeldImage(ONE, at(10), V1)], [DELETED_TAG]) == [DriftKind.MISSING_TAG]

    def test_a_tag_deleted_at_the_source_goes_with_the_image_it_points_to_there(self) -> None:
        held = HeldImage(TWO, at(6), V1, is_replica=True)
        (drift,) = find_drift([DELETED_TAG], [held], delete_replication=True)
        assert (drift.kind, drift.digest, drift.tag, drift.revision) == (DriftKind.NOT_DELETED, TWO, V1, at(9))

    @pytest.mark.parametrize("held", [HeldImage(TWO, at(6), V1), HeldImage(TWO, at(10), V1, is_replica=True)])
    def test_a_tag_that_was_pushed_or_set_there_since_stays(self, held: HeldImage) -> None:
        assert kinds([DELETED_TAG], [held]) == []

    def test_a_tag_that_went_with_its_image_in_the_same_revision_is_deleted_there(self) -> None:
        gone = HeldImage(None, at(6), V1, is_present=False)
        assert kinds([TAG], [gone]) == [DriftKind.DELETED_THERE]

    def test_a_tag_is_not_brought_to_an_image_that_was_deleted_there_since(self) -> None:
        assert kinds([IMAGE, TAG], [DELETED_IMAGE]) == [DriftKind.DELETED_THERE, DriftKind.DELETED_THERE]
        assert kinds([HeldImage(ONE, at(10), V1)], [DELETED_IMAGE]) == [DriftKind.MISSING_TAG]

    def test_an_immutable_tag_keeps_its_image_and_is_not_repaired_for_ever(self) -> None:
        assert kinds([TAG], [HeldImage(TWO, at(3), V1, is_immutable=True)]) == [DriftKind.KEPT_THERE]
        assert kinds([TAG], [HeldImage(None, at(3), V1, is_present=False, is_immutable=True)]) == [
            DriftKind.MISSING_TAG
        ]
        assert DriftKind.KEPT_THERE not in REPAIRABLE


LINES = st.lists(
    st.builds(
        HeldImage,
        st.sampled_from([ONE, TWO]),
        st.builds(at, st.integers(1, 9)),
        st.sampled_from([None, V1, Tag("v2")]),
        st.booleans(),
    ),
    max_size=6,
)


class TestFingerprint:
    @given(LINES, st.randoms())
    def test_order_revisions_and_deletions_do_not_matter(self, lines: list[HeldImage], chance: object) -> None:
        shuffled = sorted(lines, key=lambda _: chance.random())  # type: ignore[attr-defined] # hypothesis' Random
        newer = [HeldImage(one.digest, at(99), one.tag, one.is_present) for one in shuffled]
        assert fingerprint(newer) == fingerprint(lines)
        assert fingerprint(one for one in lines if one.is_present) == fingerprint(lines)

    def test_every_image_and_tag_matters(self) -> None:
        made = [[], [IMAGE], [TAG], [IMAGE, TAG], [HeldImage(TWO, at(1))], [HeldImage(ONE, at(1), Tag("v2"))]]
        assert len({fingerprint(lines) for lines in made}) == len(made)
