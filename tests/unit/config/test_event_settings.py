"""Sinks of events: what a file may say, and what it is told when it says something else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from replicator.config.events import EventSettings, SinkSettings
from replicator.core.event_sinks import EventFilter, EventFormat, EventSink, SinkOrder
from replicator.core.events import DetailType, EventResult

HOOK = {"url": "https://ci.example.com/hooks/ecr?token=t"}


def sink(**settings: Any) -> SinkSettings:
    return SinkSettings.model_validate({"name": "ci", **settings})


def test_a_sink_becomes_the_cores_value() -> None:
    made = sink(
        webhook=HOOK,
        detail_types=["ECR Image Action", "ECR Image Scan"],
        repositories=["team/*"],
        results=["failure"],
        format="cloudevents",
    )
    wanted = EventFilter(frozenset({DetailType.IMAGE, DetailType.SCAN}), ("team/*",), frozenset({EventResult.FAILURE}))
    assert made.to_sink() == EventSink("ci", wanted, SinkOrder.IMAGE)
    assert (made.kind, made.format) == ("webhook", EventFormat.CLOUDEVENTS)


def test_streams_are_in_order_altogether() -> None:
    events = EventSettings.model_validate(
        {"sinks": [{"name": "a", "log": {"path": "events.jsonl"}}, {"name": "b", "log": {}}]}
    )
    assert [one.order for one in events.to_sinks()] == [SinkOrder.ALL, SinkOrder.ALL]
    assert [one.kind for one in events.sinks] == ["file", "log"]
    assert EventSettings().to_sinks() == ()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "either webhook or log"),
        ({"webhook": HOOK, "log": {}}, "either webhook or log"),
        ({"webhook": {"url": "ftp://host/x"}}, "expected http://host/path"),
        ({"webhook": {"url": "https://user:pw@host/x"}}, "without a user, password and fragment"),
        ({"webhook": {"url": "https://host/x#y"}}, "without a user, password and fragment"),
        ({"webhook": {"url": 7}}, "expected a URL"),
        ({"webhook": {**HOOK, "headers": [{"name": "Content-Type", "value": {"env": "A"}}]}}, "set by the daemon"),
        ({"webhook": {**HOOK, "headers": [{"name": "Webhook-Signature", "value": {"env": "A"}}]}}, "set by the daemon"),
        ({"webhook": {**HOOK, "headers": [{"name": "a b", "value": {"env": "A"}}]}}, "name of a header"),
        ({"webhook": {**HOOK, "headers": [{"name": "A", "value": "literal"}]}}, "never written here"),
        ({"webhook": {**HOOK, "secrets": ["literal"]}}, "never written here"),
        ({"webhook": {**HOOK, "secrets": [{"env": "A"}, {"env": "B"}, {"env": "C"}]}}, "at most 2"),
        ({"webhook": HOOK, "detail_types": ["ECR Something"]}, "ECR Image Action"),
        ({"webhook": HOOK, "results": ["SUCCESS"]}, "success"),
    ],
)
def test_what_is_wrong_is_said_and_no_url_is_quoted(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        sink(**settings)
    assert expected in str(caught.value)
    assert "pw" not in str(caught.value)
    assert "token=t" not in str(caught.value)
