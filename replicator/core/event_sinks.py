"""Who wants which events: decided in the transaction of the change, so that nothing is stored that nobody wants."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.mutability import matches_wildcard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.events import DetailType, Event, EventResult
    from replicator.core.names import RepositoryName


class EventFormat(enum.StrEnum):
    """How an event is written: as EventBridge does, or as CloudEvents 1.0 in structured mode."""

    ECR = "ecr"
    CLOUDEVENTS = "cloudevents"


class SinkOrder(enum.StrEnum):
    """What a sink gets in order: the events of each image, or all of them."""

    IMAGE = "image"
    ALL = "all"


class DeliveryState(enum.StrEnum):
    """Where the delivery of an event to a sink stands; one that was made is gone.

    ::

    waiting --earlier one of the image is settled--> queued --lease--> leased --accepted--> (gone)
                                                       ^                  |
                                                       +------refused-----+---given up---> dead
    """

    WAITING = "waiting"
    QUEUED = "queued"
    LEASED = "leased"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events a sink wants; an empty choice is all. In `repositories`, `*` stands for any characters."""

    detail_types: frozenset[DetailType] = frozenset()
    repositories: tuple[str, ...] = ()
    results: frozenset[EventResult] = frozenset()

    def wants(self, event: Event) -> bool:
        """Tell whether a sink with this filter gets `event`."""
        return (
            (not self.detail_types or event.detail_type in self.detail_types)
            and (not self.results or event.result in self.results)
            and self._wants_repository(event.repository)
        )

    def _wants_repository(self, repository: RepositoryName) -> bool:
        return not self.repositories or any(matches_wildcard(pattern, repository) for pattern in self.repositories)


@dataclass(frozen=True, slots=True)
class EventSink:
    """Somebody who wants events: a name, which events, and what is kept in order."""

    name: str
    filter: EventFilter = field(default_factory=EventFilter)
    order: SinkOrder = SinkOrder.IMAGE

    def key_of(self, event: Event) -> str:
        """Return what an event is put in a row with: events with the same key are delivered in order."""
        return event.image if self.order is SinkOrder.IMAGE else ""


def sinks_for(sinks: Sequence[EventSink], event: Event) -> list[EventSink]:
    """Return the sinks that want an event."""
    return [sink for sink in sinks if sink.filter.wants(event)]
