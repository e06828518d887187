"""Background work that must not end silently.

Every service runs until it is cancelled. One that raises or returns is logged and started again after a pause that
grows, so a fault in one of them is visible, bounded, and does not take the others with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from replicator.core.retry import Backoff
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.core.clock import Clock

_log = get_logger(__name__)

Service = Callable[[], Awaitable[None]]

_RESTART = Backoff(initial=0.5, maximum=60.0)
_SOUND = 60.0
"""Seconds after which a service that then fails is taken to have been sound: its pause starts small again."""


class Supervisor:
    """Keeps services running."""

    def __init__(self, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._jitter = jitter

    async def run(self, services: Mapping[str, Service]) -> None:
        """Run all services until cancelled; then wait until each has ended."""
        async with asyncio.TaskGroup() as group:
            for name, service in services.items():
                group.create_task(self._keep(name, service), name=name)

    async def _keep(self, name: str, service: Service) -> None:
        failures = 0
        while True:
            started = self._clock.monotonic()
            try:
                await service()
                _log.error("service ended by itself", service=name)
            except Exception:  # noqa: BLE001 - the one place where a fault of background work ends
                _log.exception("service failed", service=name)
            failures = 1 if self._clock.monotonic() - started > _SOUND else failures + 1
            await self._clock.sleep(_RESTART.delay(failures, self._jitter()))
