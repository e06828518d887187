"""How an event is written for its receiver."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from replicator.core import cloud_events
from replicator.core.event_sinks import EventFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.storage.metadata.events import StoredEvent

_PLAIN = "application/json"


def document_of(event: StoredEvent, style: EventFormat) -> Mapping[str, object]:
    """Return an event as EventBridge has it, or as a CloudEvent."""
    if style is EventFormat.CLOUDEVENTS:
        return cloud_events.cloud_event(event.document, event.subject)
    return event.document


def body_of(event: StoredEvent, style: EventFormat) -> bytes:
    """Return an event as JSON in one line."""
    return json.dumps(document_of(event, style), separators=(",", ":")).encode()


def content_type_of(style: EventFormat) -> str:
    """Return the media type of `body_of`."""
    return cloud_events.CONTENT_TYPE if style is EventFormat.CLOUDEVENTS else _PLAIN
