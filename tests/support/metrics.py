"""What a daemon measures, read as Prometheus would read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.support.http_calls import get

if TYPE_CHECKING:
    from tests.support.daemon import Daemon

Labels = tuple[tuple[str, str], ...]


def samples(daemon: Daemon, name: str, **labels: str) -> dict[Labels, float]:
    """Return the samples of a series that have at least these labels."""
    answer = get(daemon.url("/metrics"))
    assert answer.status == 200
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def total(daemon: Daemon, name: str, **labels: str) -> float:
    """Return the sum of the samples of a series that have at least these labels."""
    return sum(samples(daemon, name, **labels).values())
