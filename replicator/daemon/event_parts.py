"""The events of one node: what delivers them, what tidies them, what operators see of them. Nothing without sinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ConfigurationError, InvalidInput
from replicator.core.event_sinks import DeliveryState
from replicator.core.webhook_signature import signing_key
from replicator.notifications.operators import EventOperators
from replicator.notifications.sinks import FileSink, LogSink, WebhookSink
from replicator.notifications.upkeep import EventUpkeep, Retention
from replicator.notifications.worker import DeliveryPolicy, SinkWorker
from replicator.storage.metadata import event_deliveries
from replicator.upstream.addresses import Network
from replicator.upstream.webhooks import WebhookClient, WebhookEndpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.config.events import SinkSettings, WebhookSettings
    from replicator.config.nodes import NodeSettings
    from replicator.daemon.secrets import SecretStore
    from replicator.daemon.supervisor import Service
    from replicator.notifications.sinks import Sink
    from replicator.registry.node import RegistryNode
    from replicator.telemetry.event_metrics import EventMetrics
    from replicator.telemetry.metrics import Metrics

_LEASE_BEYOND = 30.0
"""Seconds for which a delivery is leased beyond the time that its attempt may take."""


@dataclass(frozen=True, slots=True)
class EventParts:
    """The events of one node, built but not started."""

    workers: Sequence[SinkWorker]
    upkeep: EventUpkeep
    operators: EventOperators
    gauges: EventGauges

    def services(self) -> dict[str, Service]:
        """Return the background work by name: each sink by itself, so that none of them ends another."""
        found: dict[str, Service] = {f"event sink {worker.name}": worker.run for worker in self.workers}
        if self.workers:
            found["events"] = self.upkeep.run
        return found

    async def close(self) -> None:
        """Let go of the sinks."""
        for worker in self.workers:
            await worker.close()


class EventGauges:
    """Looks up how many events wait, when metrics are scraped."""

    def __init__(self, node: RegistryNode, metrics: Mapping[str, EventMetrics]) -> None:
        self._node = node
        self._metrics = metrics

    async def refresh(self) -> None:
        """Show what waits for each sink; raises StorageError."""
        if not self._metrics:
            return
        counts, now = await self._node.database.read(event_deliveries.counts()), self._node.clock.now()
        for name, metrics in self._metrics.items():
            own = [one for one in counts if one.sink == name]
            pending = [one.oldest for one in own if one.state is not DeliveryState.DEAD]
            states = {state.value: 0 for state in DeliveryState} | {one.state.value: one.count for one in own}
            metrics.queue(states, max(0.0, now - min(pending)) if pending else 0.0)


class EventBuilder:
    """Builds the events of one node."""

    def __init__(self, node: NodeSettings, registry: RegistryNode, secrets: SecretStore, metrics: Metrics) -> None:
        self._node = node
        self._registry = registry
        self._secrets = secrets
        self._metrics = metrics

    def build(self) -> EventParts:
        """Return the parts; nothing is opened or started. Raises ConfigurationError."""
        events, name = self._node.events, str(self._node.id)
        metrics = {one.name: self._metrics.events(name, one.name) for one in events.sinks}
        workers = [
            SinkWorker(self._registry, one.name, self._sink(one), metrics[one.name], _policy(one))
            for one in events.sinks
        ]
        return EventParts(
            workers,
            EventUpkeep(self._registry, Retention(events.keep_delivered, events.keep_dead)),
            EventOperators(self._registry, workers, {one.name: one.kind for one in events.sinks}),
            EventGauges(self._registry, metrics),
        )

    def _sink(self, settings: SinkSettings) -> Sink:
        if settings.webhook is not None:
            client = WebhookClient(self._endpoint(settings.name, settings.webhook), self._registry.clock)
            return WebhookSink(client, settings.format)
        path = None if settings.log is None else settings.log.path
        return LogSink(settings.name, settings.format) if path is None else FileSink(path, settings.format)

    def _endpoint(self, name: str, settings: WebhookSettings) -> WebhookEndpoint:
        try:
            keys = tuple(signing_key(self._secrets.value(one)) for one in settings.secrets)
        except InvalidInput as error:
            raise ConfigurationError(f"secrets of event sink {name}: {error}") from error
        return WebhookEndpoint(
            name,
            settings.url,
            {one.name: self._secrets.value(one.value) for one in settings.headers},
            keys,
            settings.ca_file,
            settings.timeout,
            frozenset({Network.PUBLIC, *(Network(one.value) for one in settings.networks)}),
        )


def _policy(settings: SinkSettings) -> DeliveryPolicy:
    webhook = settings.webhook
    return DeliveryPolicy(
        concurrency=1 if webhook is None else webhook.concurrency,
        max_attempts=settings.max_attempts,
        max_age=settings.max_age,
        lease=_LEASE_BEYOND + (0.0 if webhook is None else webhook.timeout),
    )
