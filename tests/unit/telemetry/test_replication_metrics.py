from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from replicator.telemetry.metrics import Metrics
from replicator.telemetry.replication_metrics import QueuedJobs

PREFIX = "replicator_replication_"


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return the sample of node `n` with exactly these labels; None when there is none."""
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            if sample.name == PREFIX + name and sample.labels == {"node": "n", **labels}:
                return sample.value
    return None


def test_lag_is_a_histogram_of_rule_and_destination() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.complete("rule", "d", 0.4)
    replication.complete("rule", "d", -1.0)
    replication.complete("other", "d", 7200.0)
    for bound, count in (("0.05", 1), ("0.5", 2), ("3600.0", 2)):
        assert value(metrics, "lag_seconds_bucket", rule="rule", destination="d", le=bound) == count
    assert value(metrics, "lag_seconds_bucket", rule="other", destination="d", le="3600.0") == 0
    assert value(metrics, "lag_seconds_count", rule="other", destination="d") == 1


def test_attempts_are_counted_by_destination() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.attempt("d", "complete")
    replication.attempt("d", "failed")
    replication.attempt("e", "retry")
    replication.failure("d", "AccessDenied:ecr:ReplicateImage")
    replication.failure("d", "AccessDenied:ecr:ReplicateImage")
    replication.retry("e")
    replication.sent("d", 100)
    replication.sent("d", 20)
    assert value(metrics, "attempts_total", destination="d", outcome="complete") == 1
    assert value(metrics, "attempts_total", destination="e", outcome="retry") == 1
    assert value(metrics, "failures_total", destination="d", code="AccessDenied:ecr:ReplicateImage") == 2
    assert value(metrics, "retries_total", destination="e") == 1
    assert value(metrics, "bytes_total", destination="d") == 120


def test_drift_is_counted_by_destination_and_kind() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.drift_found("d", "missing-tag", 2)
    replication.drift_found("d", "newer-there")
    replication.drift_repaired("d", "missing-tag")
    assert value(metrics, "drift_found_total", destination="d", kind="missing-tag") == 2
    assert value(metrics, "drift_found_total", destination="d", kind="newer-there") == 1
    assert value(metrics, "drift_repaired_total", destination="d", kind="missing-tag") == 1
    assert value(metrics, "drift_repaired_total", destination="d", kind="newer-there") is None


def test_conflicts_are_counted_by_where_they_came_from() -> None:
    metrics = Metrics("1")
    metrics.replication("n").conflict("111111111111/eu-west-1")
    assert value(metrics, "conflicts_total", source="111111111111/eu-west-1") == 1


def test_an_objective_is_shown_with_its_burn() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.objective("rule", "d", 60.0)
    replication.burn("rule", "d", {"5m": 2.5, "1h": 0.5}, overdue=4)
    assert value(metrics, "lag_objective_seconds", rule="rule", destination="d") == 60
    assert value(metrics, "lag_burn_rate", rule="rule", destination="d", window="5m") == 2.5
    assert value(metrics, "lag_burn_rate", rule="rule", destination="d", window="1h") == 0.5
    assert value(metrics, "overdue_jobs", rule="rule", destination="d") == 4


def test_a_queue_that_has_emptied_shows_nothing_left() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.queue([QueuedJobs("d", "push", "queued", 3), QueuedJobs("d", "background", "queued", 9)], {"d": 12.5})
    assert value(metrics, "jobs", destination="d", priority_class="push", state="queued") == 3
    assert value(metrics, "jobs", destination="d", priority_class="background", state="queued") == 9
    assert value(metrics, "oldest_pending_seconds", destination="d") == 12.5
    replication.queue([QueuedJobs("d", "push", "queued", 1)], {})
    assert value(metrics, "jobs", destination="d", priority_class="push", state="queued") == 1
    assert value(metrics, "jobs", destination="d", priority_class="background", state="queued") == 0
    assert value(metrics, "oldest_pending_seconds", destination="d") == 0


def test_backfills_are_shown_by_state() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.backfills({"IN_PROGRESS": 2})
    replication.backfills({"COMPLETE": 2})
    assert value(metrics, "backfills", state="IN_PROGRESS") == 0
    assert value(metrics, "backfills", state="COMPLETE") == 2


def test_superseded_images_are_shown_by_destination() -> None:
    metrics = Metrics("1")
    replication = metrics.replication("n")
    replication.superseded({"d": 3, "e": 1})
    replication.superseded({"d": 4})
    assert value(metrics, "superseded_images", destination="d") == 4
    assert value(metrics, "superseded_images", destination="e") == 0
