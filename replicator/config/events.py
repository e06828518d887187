"""Who is told what happens to a node's images: webhooks and streams of JSON lines."""

from __future__ import annotations

import re
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import Count, FilePath, Model, Name, RepositoryPattern, WorkingPath
from replicator.config.secrets import SecretRef
from replicator.config.units import Duration, shown
from replicator.config.upstreams import InternalNetwork
from replicator.core.event_sinks import EventFilter, EventFormat, EventSink, SinkOrder
from replicator.core.events import DetailType, EventResult

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OUR_HEADERS = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
)


def parse_webhook_url(value: object) -> str:
    """Return the URL of a webhook; raise ValueError, without quoting it, when it is none."""
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise ValueError(f"expected a URL, got {shown(value) if not isinstance(value, str) else 'other text'}")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("expected http://host/path or https://host/path") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ValueError("expected http://host/path or https://host/path")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("expected a URL without a user, password and fragment; use headers")
    return value


def _header_name(value: object) -> str:
    if not isinstance(value, str) or _HEADER.fullmatch(value) is None:
        raise ValueError(f"expected the name of a header, got {shown(value)}")
    if value.lower() in _OUR_HEADERS:
        raise ValueError(f"{value} is set by the daemon")
    return value


class HeaderSettings(Model):
    """A header that goes with every event."""

    name: Annotated[str, BeforeValidator(_header_name), WithJsonSchema({"type": "string"})]
    """Name of the header, such as `Authorization`."""
    value: SecretRef
    """Its value: `{env: NAME}` or `{file: path}`."""


class WebhookSettings(Model):
    """An HTTP endpoint that gets one event in each POST."""

    url: Annotated[
        str,
        BeforeValidator(parse_webhook_url),
        WithJsonSchema({"type": "string", "pattern": "^https?://", "examples": ["https://ci.example.com/hooks/ecr"]}),
    ]
    """Address of the webhook, with its path; it is never logged."""
    headers: tuple[HeaderSettings, ...] = ()
    """Headers that go with every event, for example a token."""
    secrets: Annotated[tuple[SecretRef, ...], Field(max_length=2)] = ()
    """Secrets that events are signed with, `{env: NAME}` or `{file: path}`; two of them while one is exchanged."""
    timeout: Duration = 10.0
    """How long one attempt may take, the connection included."""
    concurrency: Annotated[Count, Field(le=64)] = 8
    """Events that are sent at the same time."""
    ca_file: FilePath | None = None
    """PEM file of the authorities to trust there instead of the system's."""
    networks: tuple[InternalNetwork, ...] = ()
    """Networks that its name may lead to besides the internet; an address or `localhost` in `url` needs none."""


class StreamSettings(Model):
    """A stream of JSON lines, all events in order."""

    path: WorkingPath | None = None
    """File that lines are appended to; it may be renamed away at any time. The daemon's own log, if absent."""


class SinkSettings(Model):
    """Somebody who is told, and of what; a webhook or a log."""

    name: Name
    """Name of the sink in commands, logs and metrics; unique in the node."""
    webhook: WebhookSettings | None = None
    """An HTTP endpoint."""
    log: StreamSettings | None = None
    """A file of JSON lines, or the daemon's log."""
    format: EventFormat = EventFormat.ECR
    """`ecr`: as EventBridge has ECR's events; `cloudevents`: CloudEvents 1.0, JSON in structured mode."""
    detail_types: tuple[DetailType, ...] = ()
    """Kinds of events, by ECR's names such as `ECR Image Action`; all, if absent."""
    repositories: tuple[RepositoryPattern, ...] = ()
    """Repositories, `*` standing for any characters; all, if absent."""
    results: tuple[EventResult, ...] = ()
    """`success`, `failure`, or both, if absent."""
    max_attempts: Count = 185
    """Attempts after which an event is given up."""
    max_age: Duration = 86400.0
    """Age at which an event is given up after a failed attempt."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.webhook is None) == (self.log is None):
            raise ValueError("expected either webhook or log")
        return self

    @property
    def kind(self) -> str:
        """What the sink is: `webhook`, `file` or `log`."""
        if self.webhook is not None:
            return "webhook"
        return "log" if self.log is None or self.log.path is None else "file"

    def to_sink(self) -> EventSink:
        """Return the core's value."""
        wanted = EventFilter(frozenset(self.detail_types), self.repositories, frozenset(self.results))
        return EventSink(self.name, wanted, SinkOrder.IMAGE if self.webhook is not None else SinkOrder.ALL)


class EventSettings(Model):
    """Who is told what happens to images; without a sink nothing is noted."""

    sinks: tuple[SinkSettings, ...] = ()
    """Whom to tell."""
    keep_delivered: Duration = 3600.0
    """How long events that everybody has can be looked up; 10,000 of them at most."""
    keep_dead: Duration = 14 * 86400.0
    """How long events that were given up wait for an operator."""

    def to_sinks(self) -> tuple[EventSink, ...]:
        """Return the core's values."""
        return tuple(one.to_sink() for one in self.sinks)
