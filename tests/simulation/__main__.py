"""`python -m tests.simulation`: schedules of the replication protocol on all cores, until one fails or all have held.

A failing seed is replayed by `python -m tests.simulation --seed SEED --schedules 1 --trace`, as often as one likes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING

from tests.simulation.scenario import Outcome, run_schedule

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCH = 250
_SHOWN = 10
_PAUSE = 2.0
"""Seconds between lines of progress."""


def main() -> int:
    """Run the schedules; return 0 when no invariant was broken."""
    options = _options()
    began, progress = time.monotonic(), _Progress(options.schedules)
    for done in _batches(options.seed, options.schedules, options.workers):
        progress.add(done)
        if len(progress.failures) >= _SHOWN:
            break
    seconds = time.monotonic() - began
    failures = sorted(progress.failures, key=lambda one: one.seed)
    _say(f"{progress.done} schedules, {progress.events} events, {seconds:.1f} s, {len(failures)} failures")
    if failures or options.trace:
        seed = failures[0].seed if failures else options.seed
        _say(f"\nmake simulate SEED={seed} SCHEDULES=1 replays this:")
        _say("\n".join(run_schedule(seed, traced=True).trace))
    return 1 if failures else 0


class _Progress:
    """What came of the batches so far."""

    def __init__(self, schedules: int) -> None:
        self.done = self.events = 0
        self.failures: list[Outcome] = []
        self._schedules = schedules
        self._shown_at = time.monotonic()

    def add(self, batch: tuple[int, int, list[Outcome]]) -> None:
        """Add a batch, and say how far we are, now and then."""
        done, events, failures = batch
        self.done += done
        self.events += events
        self.failures += failures
        for failure in failures:
            _say(f"seed {failure.seed}: {failure.violation}")
        if time.monotonic() - self._shown_at >= _PAUSE:
            self._shown_at = time.monotonic()
            _say(f"{self.done} of {self._schedules} schedules, {len(self.failures)} failures")


def _batches(first: int, schedules: int, workers: int) -> Iterator[tuple[int, int, list[Outcome]]]:
    end = first + schedules
    ranges = [(start, min(start + _BATCH, end)) for start in range(first, end, _BATCH)]
    if workers < 2 or len(ranges) < 2:
        yield from map(_run, ranges)
        return
    with multiprocessing.Pool(workers) as pool:
        yield from pool.imap_unordered(_run, ranges)


def _run(seeds: tuple[int, int]) -> tuple[int, int, list[Outcome]]:
    outcomes = [run_schedule(seed) for seed in range(*seeds)]
    failures = [outcome for outcome in outcomes if outcome.violation is not None]
    return len(outcomes), sum(outcome.events for outcome in outcomes), failures


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; the others follow")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trace", action="store_true", help="show what happened in the first schedule")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
