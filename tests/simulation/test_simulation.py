"""The replication protocol holds in every schedule that is tried here; `make simulate` tries many more."""

from __future__ import annotations

import pytest

from tests.simulation.scenario import TOPOLOGIES, run_schedule

_BATCHES, _EACH = 15, 100


@pytest.mark.parametrize("batch", range(_BATCHES))
def test_every_invariant_holds(batch: int) -> None:
    for seed in range(batch * _EACH, (batch + 1) * _EACH):
        outcome = run_schedule(seed)
        assert outcome.violation is None, f"make simulate SEED={seed} SCHEDULES=1: {outcome.violation}"


def test_a_seed_is_a_schedule_and_a_trace_changes_nothing() -> None:
    plain, traced = run_schedule(7), run_schedule(7, traced=True)
    assert (plain.events, plain.violation) == (traced.events, traced.violation)
    assert traced.trace == run_schedule(7, traced=True).trace
    assert traced.trace


def test_schedules_differ_and_try_every_topology_and_fault() -> None:
    traces = ["\n".join(run_schedule(seed, traced=True).trace) for seed in range(300)]
    words = [topology.name for topology in TOPOLOGIES]
    words += ["IMMUTABLE", "deletes", "filtered", "is killed", "parted:", "(again)", "gives up", "loses blob", "find"]
    words += ["kept_newer", "kept_immutable", "DELETED", "INCOMPLETE"]
    assert {word for word in words if not any(word in trace for trace in traces)} == set()
