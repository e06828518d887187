"""The lag objectives of one node's rules: what was in time, what is overdue, and how fast each objective burns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.lag import WINDOWS, LagCounts, LagHistory, burn_rate
from replicator.storage.metadata import job_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.core.replication import ReplicationRule
    from replicator.storage.metadata.statement import Steps
    from replicator.telemetry.replication_metrics import ReplicationMetrics

Place = tuple[str, str]
"""A rule's name and a destination."""


@dataclass(frozen=True, slots=True)
class ObjectiveReport:
    """How one rule's objective stands at one destination: the counts of each window, those overdue included."""

    rule: str
    destination: str
    objective_seconds: float
    target: float
    overdue: int
    windows: Mapping[str, LagCounts]

    @property
    def burn_rates(self) -> Mapping[str, float]:
        """The burn rate of each window."""
        return {name: burn_rate(counts, self.target) for name, counts in self.windows.items()}

    def to_json(self) -> Mapping[str, object]:
        """Return the JSON form that `status` shows."""
        return {
            "rule": self.rule,
            "destination": self.destination,
            "objective_seconds": self.objective_seconds,
            "target": self.target,
            "overdue": self.overdue,
            "windows": {
                name: {"met": counts.met, "missed": counts.missed, "burn_rate": round(self.burn_rates[name], 3)}
                for name, counts in self.windows.items()
            },
        }


class LagWatch:
    """Watches the objectives of a node's rules; rules without one are not watched. Forgets all when the node stops."""

    def __init__(
        self, source: NodeId, rules: Iterable[ReplicationRule], metrics: ReplicationMetrics, clock: Clock
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._histories: dict[Place, LagHistory] = {}
        self._targets: dict[str, float] = {}
        for rule in rules:
            self._targets[rule.name] = rule.lag_target
            for destination in rule.destinations:
                if rule.lag_objective is not None and destination != source:
                    self._histories[rule.name, str(destination)] = LagHistory(rule.lag_objective)
                    metrics.objective(rule.name, str(destination), rule.lag_objective)

    def note(self, rule: str, destination: str, lag: float) -> None:
        """Note an image that can be pulled at a destination, so long after its push."""
        history = self._histories.get((rule, destination))
        if history is not None:
            history.note(self._clock.monotonic(), lag)

    def find_overdue(self, now: float) -> Steps[Mapping[Place, int]]:
        """Return how many jobs of each rule and destination wait for longer than the objective; `now` is Unix time."""
        found = dict.fromkeys(self._histories, 0)
        lanes: dict[str, float] = {}
        for (_, destination), history in self._histories.items():
            lanes[destination] = min(history.objective, lanes.get(destination, history.objective))
        for lane, objective in lanes.items():
            waiting = yield from job_counts.overdue(lane, now - objective)
            for rule, since in waiting:
                known = self._histories.get((rule, lane))
                if known is not None and now - since > known.objective:
                    found[rule, lane] += 1
        return found

    def report(self, overdue: Mapping[Place, int]) -> list[ObjectiveReport]:
        """Return how every objective stands, after showing it as metrics."""
        now = self._clock.monotonic()
        reports = []
        for (rule, destination), history in self._histories.items():
            late = overdue.get((rule, destination), 0)
            windows = {name: history.counts(now, seconds).with_overdue(late) for name, seconds in WINDOWS.items()}
            one = ObjectiveReport(rule, destination, history.objective, self._targets[rule], late, windows)
            self._metrics.burn(rule, destination, one.burn_rates, late)
            reports.append(one)
        return reports
