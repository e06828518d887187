"""How the upstreams of a node are doing, shown as metrics when these are scraped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.circuit_breaker import BreakerState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.telemetry.upstream_health import UpstreamHealthMetrics
    from replicator.upstream.client import UpstreamClient, UpstreamHealth


class UpstreamGauges:
    """Shows the clients of one node by the names of their endpoints; `show` returns the view for a name.

    A peer that is asked as several registries has several clients: it is as bad as the worst of them. An upstream that
    has no client any more is shown as one that nothing is wrong with.
    """

    def __init__(self, clients: Sequence[UpstreamClient], show: Callable[[str], UpstreamHealthMetrics]) -> None:
        self._clients = clients
        self._show = show
        self._shown: dict[str, UpstreamHealthMetrics] = {}

    def refresh(self) -> None:
        """Show what the clients know now; nobody is asked anything."""
        found: dict[str, list[UpstreamHealth]] = {name: [] for name in self._shown}
        for client in self._clients:
            found.setdefault(client.endpoint.name, []).append(client.health)
        for name, health in found.items():
            if name not in self._shown:
                self._shown[name] = self._show(name)
            _show(self._shown[name], health)


def _show(shown: UpstreamHealthMetrics, found: Sequence[UpstreamHealth]) -> None:
    shown.circuit(is_open=any(health.breaker is not BreakerState.CLOSED for health in found))
    paused: dict[str, float] = {}
    for health in found:
        for kind, seconds in health.paused_for.items():
            paused[kind] = max(seconds, paused.get(kind, 0.0))
    shown.paused(paused)
    limits = [health.rate_limit for health in found if health.rate_limit is not None]
    if limits:
        tightest = min(limits, key=lambda one: one.remaining)
        shown.rate_limit(tightest.limit, tightest.remaining)
