from __future__ import annotations

import json
from dataclasses import replace

from replicator.daemon.observers import RequestRecorder
from replicator.telemetry.access_log import AccessLog
from replicator.telemetry.metrics import Metrics
from replicator.telemetry.redaction import Redactor
from replicator.telemetry.requests import Outcome
from tests.support.clock import FakeClock

OUTCOME = Outcome(
    request_id="r-1",
    route="manifest",
    method="GET",
    path="/v2/library/alpine/manifests/latest?ns=docker.io",
    status=200,
    seconds=0.001,
    sent=10,
    received=0,
    principal="ci",
    remote="127.0.0.1",
    agent="containerd/1.7",
)


def test_a_line_says_what_the_answer_said_of_the_cache() -> None:
    written: list[bytes] = []
    log = AccessLog(FakeClock(), Redactor(), write=written.append)
    record = RequestRecorder("n/us", Metrics("1.0").request_observer("n/us"), log)
    record(replace(OUTCOME, cache="stale", upstream="hub"))
    record(OUTCOME)
    log.close()
    cached, own = (json.loads(line) for line in b"".join(written).splitlines())
    assert {name: cached[name] for name in ("path", "request_id", "agent", "cache", "upstream")} == {
        "path": "/v2/library/alpine/manifests/latest",
        "request_id": "r-1",
        "agent": "containerd/1.7",
        "cache": "stale",
        "upstream": "hub",
    }
    assert "cache" not in own


def test_without_an_access_log_requests_are_counted_still() -> None:
    metrics = Metrics("1.0")
    RequestRecorder("n/us", metrics.request_observer("n/us"), None)(OUTCOME)
    assert b"replicator_http_requests_total{" in metrics.render()[0]
