"""Registers converge: whatever the order, the delays and the repetitions in which nodes hear of writes."""

from __future__ import annotations

import itertools
from functools import reduce
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput
from replicator.core.names import parse_node
from replicator.core.revisions import (
    MAX_AHEAD,
    MAX_SEEN,
    NEVER,
    Merge,
    MergeOutcome,
    Revision,
    TagRegister,
    is_too_far_ahead,
    merge,
    next_revision,
    parse_revision,
    write,
)

if TYPE_CHECKING:
    from replicator.core.digest import Digest

EU, US, AP = (parse_node(f"{'1' * 12}/{region}") for region in ("eu", "us", "ap"))
A, B, C = (digest_of(text) for text in (b"a", b"b", b"c"))
NOW = 1_750_000_000.0

revisions = st.builds(Revision, st.integers(1, 2), st.integers(0, 5), st.sampled_from([str(EU), str(US), str(AP)]))
registers = st.builds(
    TagRegister,
    st.sampled_from([None, A, B, C]),
    revisions,
    st.dictionaries(st.sampled_from([str(EU), str(US), str(AP)]), st.integers(0, 5)),
)


class TestRevision:
    @given(st.builds(Revision, st.integers(0, 2**50), st.integers(0, 2**50), st.sampled_from([str(EU), str(US)])))
    def test_text_says_it_whole(self, revision: Revision) -> None:
        assert parse_revision(str(revision)) == revision

    def test_the_revision_before_all_writes_can_be_sent(self) -> None:
        assert parse_revision(str(NEVER)) == NEVER

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "1",
            "1.2",
            "1.2.",
            "1.0.",
            "a.2.111111111111/eu",
            "1.-2.111111111111/eu",
            "1.²." + str(EU),
            "1.2.3",
            f"1.{10**18}0.{EU}",
            f" 1.2.{EU}",
        ],
    )
    def test_other_text_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidInput):
            parse_revision(text)

    def test_order_is_by_epoch_counter_node(self) -> None:
        ordered = [
            NEVER,
            Revision(1, 9, str(US)),
            Revision(2, 1, str(EU)),
            Revision(2, 1, str(US)),
            Revision(2, 2, "a"),
        ]
        assert sorted(ordered[index] for index in (3, 0, 4, 2, 1)) == ordered

    def test_the_next_one_is_the_time_and_always_later(self) -> None:
        first = next_revision(None, EU, NOW)
        assert first == Revision(1, int(NOW * 1000), str(EU))
        assert next_revision(first, US, NOW) == Revision(1, int(NOW * 1000) + 1, str(US))
        assert next_revision(first, US, NOW - 3600) == Revision(1, int(NOW * 1000) + 1, str(US))
        assert next_revision(first, US, NOW + 1).counter == int(NOW * 1000) + 1000
        assert next_revision(Revision(3, 1, str(US)), EU, NOW).epoch == 3
        assert next_revision(first, EU, NOW, epoch=2).epoch == 2

    def test_what_lies_more_than_a_day_ahead_is_too_far(self) -> None:
        limit = int((NOW + MAX_AHEAD) * 1000)
        assert not is_too_far_ahead(Revision(1, limit, str(EU)), NOW)
        assert is_too_far_ahead(Revision(1, limit + 1, str(EU)), NOW)
        assert is_too_far_ahead(Revision(2**62 + 1, 1, str(EU)), NOW)


class TestWrites:
    def test_a_write_knows_what_it_replaces(self) -> None:
        first = write(None, A, EU, NOW)
        second = write(first, B, US, NOW + 1)
        assert first == TagRegister(A, first.revision, {str(EU): first.revision.counter})
        assert second.seen == {str(EU): first.revision.counter, str(US): second.revision.counter}
        assert second.knows(first)
        assert second.knows(second)
        assert not first.knows(second)

    def test_a_register_without_a_vector_knows_its_own_node(self) -> None:
        old, new = TagRegister(A, Revision(1, 1, str(EU))), TagRegister(B, Revision(1, 2, str(EU)))
        assert new.knows(old)
        assert not old.knows(new)
        assert write(old, C, US, NOW).knows(old)

    def test_a_vector_forgets_those_that_wrote_longest_ago(self) -> None:
        register = None
        for number in range(MAX_SEEN + 5):
            register = write(register, A, parse_node(f"{'1' * 12}/r{number}"), NOW + number)
        assert register is not None
        assert len(register.seen) == MAX_SEEN
        assert f"{'1' * 12}/r4" not in register.seen
        assert f"{'1' * 12}/r5" in register.seen


class TestMerge:
    def test_a_tag_that_is_new_here_is_set(self) -> None:
        incoming = write(None, A, EU, NOW)
        assert merge(None, incoming) == Merge(MergeOutcome.SET, incoming)
        assert merge(None, incoming, is_mutable=False) == Merge(MergeOutcome.SET, incoming)

    def test_a_later_write_that_knew_the_earlier_one_is_no_conflict(self) -> None:
        first = write(None, A, EU, NOW)
        second = write(first, B, EU, NOW + 1)
        assert merge(first, second) == Merge(MergeOutcome.SET, second)
        assert merge(second, first) == Merge(MergeOutcome.KEPT_NEWER, second)
        assert merge(second, second) == Merge(MergeOutcome.SAME, second)

    def test_writes_that_did_not_know_of_each_other_are_a_conflict_told_once(self) -> None:
        early, late = write(None, A, EU, NOW), write(None, B, US, NOW + 1)
        won, kept = merge(early, late), merge(late, early)
        assert (won.outcome, won.register.digest, won.loser) == (MergeOutcome.SET, B, A)
        assert (kept.outcome, kept.register.digest, kept.loser) == (MergeOutcome.KEPT_NEWER, B, A)
        assert won.register == kept.register
        assert merge(won.register, early).loser is None
        assert merge(kept.register, late).loser is None

    def test_the_same_image_set_twice_is_no_conflict(self) -> None:
        assert merge(write(None, A, EU, NOW), write(None, A, US, NOW + 1)).loser is None

    def test_a_deletion_that_did_not_know_of_a_write_loses_or_tells_the_loser(self) -> None:
        early, late = write(None, A, EU, NOW), write(None, None, US, NOW + 1)
        assert (merge(early, late).register.digest, merge(early, late).loser) == (None, A)
        deleted_first, set_later = write(None, None, EU, NOW), write(None, A, US, NOW + 1)
        assert (merge(deleted_first, set_later).register.digest, merge(deleted_first, set_later).loser) == (A, None)

    @pytest.mark.parametrize(
        ("current", "incoming", "outcome"),
        [
            (A, B, MergeOutcome.KEPT_IMMUTABLE),
            (A, A, MergeOutcome.SET),
            (A, None, MergeOutcome.SET),
            (None, B, MergeOutcome.SET),
        ],
    )
    def test_an_immutable_tag_keeps_its_image(
        self, current: Digest | None, incoming: Digest | None, outcome: MergeOutcome
    ) -> None:
        here = write(None, current, EU, NOW)
        found = merge(here, write(None, incoming, US, NOW + 1), is_mutable=False)
        assert found.outcome is outcome
        assert found.register.digest == (current if outcome is MergeOutcome.KEPT_IMMUTABLE else incoming)
        assert outcome is not MergeOutcome.KEPT_IMMUTABLE or (found.register == here and found.loser is None)

    @given(registers, registers)
    def test_the_order_of_two_does_not_matter(self, one: TagRegister, other: TagRegister) -> None:
        assert merge(one, other).register == merge(other, one).register

    @given(registers, registers)
    def test_a_repetition_changes_nothing(self, one: TagRegister, other: TagRegister) -> None:
        merged = merge(one, other).register
        for again in (one, other, merged):
            repeated = merge(merged, again)
            assert repeated.register == merged
            assert repeated.loser is None

    @given(st.lists(registers, min_size=1, max_size=4), st.data())
    def test_every_order_with_any_repetitions_has_one_outcome(
        self, sent: list[TagRegister], data: st.DataObject
    ) -> None:
        repeated = [*sent, *data.draw(st.lists(st.sampled_from(sent), max_size=4))]
        shuffled = data.draw(st.permutations(repeated))
        outcomes = [
            reduce(lambda register, one: merge(register, one).register, rest, first)
            for first, *rest in [*itertools.permutations(sent), shuffled]
        ]
        assert all((each.digest, each.revision) == (outcomes[0].digest, outcomes[0].revision) for each in outcomes)
        assert outcomes[0].rank == max(each.rank for each in sent)
