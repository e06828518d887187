"""What operators ask of events: how sinks are, what was told lately, what was given up, to try it again or drop it.

An event names an image, so who sees them all must be allowed to in all repositories; so must who has them sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.errors import InvalidInput
from replicator.registry_api.operations import EVENTS_PREFIX
from replicator.registry_api.operator_api import OperatorApi
from replicator.registry_api.operator_input import body_fields, query_fields
from replicator.registry_api.operator_request import Asked, answer
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.notifications.operators import DeadLetter, EventOperators, KeptEvent, SinkState
    from replicator.registry_api.authentication import Authenticator
    from replicator.registry_api.operator_input import Fields
    from replicator.storage.metadata.event_deliveries import Delivery
    from replicator.telemetry.requests import Observer

_log = get_logger(__name__)

PAGE = 50
MAX_PAGE = 500


class EventsApi(OperatorApi):
    """Serves `/_replicator/v1/events/` of one node."""

    def __init__(
        self,
        operators: EventOperators,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        super().__init__("events", EVENTS_PREFIX, authenticator, clock, observe, rate_limit)
        self._operators = operators
        self.pages = {
            "sinks": {"GET": self._sinks},
            "latest": {"GET": self._latest},
            "dead": {"GET": self._dead},
            "retry": {"POST": self._retry},
            "discard": {"POST": self._discard},
        }

    async def _sinks(self, asked: Asked) -> web.Response:
        query_fields(asked.request)
        asked.authorize(Action.DESCRIBE_EVENTS, None)
        return answer({"sinks": [_sink_json(one) for one in await self._operators.sinks()]})

    async def _latest(self, asked: Asked) -> web.Response:
        fields = query_fields(asked.request, "limit", "before")
        asked.authorize(Action.DESCRIBE_EVENTS, None)
        limit, before = fields.number("limit", PAGE, MAX_PAGE), _place(fields, "before")
        found = await self._operators.latest(limit, before)
        following = str(found[-1].event.id) if len(found) == limit else None
        return answer({"events": [_event_json(one) for one in found], "next_before": following})

    async def _dead(self, asked: Asked) -> web.Response:
        fields = query_fields(asked.request, "limit", "after", "sink")
        asked.authorize(Action.DESCRIBE_EVENTS, None)
        limit, after = fields.number("limit", PAGE, MAX_PAGE), _place(fields, "after")
        found = await self._operators.dead(fields.find_name("sink"), after or 0, limit)
        following = str(found[-1].event.id) if len(found) >= limit else None
        return answer({"dead": [_dead_json(one) for one in found], "next_after": following})

    async def _retry(self, asked: Asked) -> web.Response:
        fields = await body_fields(asked.request, "sink", "event")
        asked.authorize(Action.MANAGE_EVENTS, None)
        sink, event = fields.find_name("sink"), fields.find_name("event")
        count = await self._operators.retry(sink, event)
        _log.info(
            "events retried by an operator", principal=asked.principal.name, sink=sink, event_id=event, count=count
        )
        return answer({"retried": count})

    async def _discard(self, asked: Asked) -> web.Response:
        fields = await body_fields(asked.request, "sink", "event", "all")
        asked.authorize(Action.MANAGE_EVENTS, None)
        sink, event = fields.find_name("sink"), fields.find_name("event")
        if sink is None and event is None and not fields.flag("all"):
            raise InvalidInput("expected sink, event, or all: true")
        count = await self._operators.discard(sink, event)
        _log.info(
            "events discarded by an operator", principal=asked.principal.name, sink=sink, event_id=event, count=count
        )
        return answer({"discarded": count})


def _place(fields: Fields, name: str) -> int | None:
    text = fields.position(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"expected {name} to be what the page before gave")
    return int(text)


def _sink_json(sink: SinkState) -> dict[str, object]:
    return {
        "name": sink.name,
        "kind": sink.kind,
        "deliveries": {state.value: count for state, count in sink.counts.items()},
        "oldest": {state.value: since for state, since in sink.oldest.items()},
    }


def _event_json(kept: KeptEvent) -> dict[str, object]:
    return {"event": kept.event.document, "deliveries": [_delivery_json(one) for one in kept.deliveries]}


def _dead_json(letter: DeadLetter) -> dict[str, object]:
    return {"event": letter.event.document, **_delivery_json(letter.delivery)}


def _delivery_json(delivery: Delivery) -> dict[str, object]:
    return {
        "sink": delivery.sink,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "enqueued_at": delivery.enqueued_at,
        "retry_at": delivery.retry_at,
        "error": delivery.error,
    }
