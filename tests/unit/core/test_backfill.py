"""States of a backfill: what follows from how its images were settled."""

from __future__ import annotations

import pytest

from replicator.core.backfill import BackfillCounts, BackfillState, has_failed, settled

TERMINAL = [BackfillState.COMPLETE, BackfillState.FAILED, BackfillState.STOPPED]


class TestSettled:
    @pytest.mark.parametrize("state", list(BackfillState))
    def test_nothing_ends_while_an_image_is_under_way(self, state: BackfillState) -> None:
        assert settled(state, BackfillCounts(in_progress=1, complete=5, failed=5)) is state

    @pytest.mark.parametrize("state", TERMINAL)
    def test_what_is_over_stays_as_it_is(self, state: BackfillState) -> None:
        assert state.is_terminal
        assert settled(state, BackfillCounts(failed=3)) is state

    def test_preparation_goes_on_although_everything_so_far_is_settled(self) -> None:
        assert settled(BackfillState.PREPARING, BackfillCounts(complete=1)) is BackfillState.PREPARING

    def test_an_empty_backfill_is_complete(self) -> None:
        assert settled(BackfillState.IN_PROGRESS, BackfillCounts()) is BackfillState.COMPLETE

    def test_single_failures_do_not_make_it_fail(self) -> None:
        assert settled(BackfillState.IN_PROGRESS, BackfillCounts(complete=3, failed=2)) is BackfillState.COMPLETE

    def test_half_of_the_images_failed(self) -> None:
        assert settled(BackfillState.IN_PROGRESS, BackfillCounts(complete=2, failed=2)) is BackfillState.FAILED

    def test_it_failed_whatever_became_of_its_images(self) -> None:
        counts = BackfillCounts(complete=2)
        assert settled(BackfillState.IN_PROGRESS, counts, failed=True) is BackfillState.FAILED

    def test_a_stop_ends_in_stopped_even_after_failures(self) -> None:
        assert settled(BackfillState.STOPPING, BackfillCounts(failed=2, stopped=1)) is BackfillState.STOPPED


def test_images_left_undone_count_in_the_total() -> None:
    counts = BackfillCounts(in_progress=1, complete=2, failed=3, stopped=4)
    assert counts.total == 10
    assert not has_failed(counts)
    assert has_failed(BackfillCounts(failed=1, stopped=1))
