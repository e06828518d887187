"""The clients of a node's upstreams, which come and go with the cache rules in force.

Every upstream has one client, however many rules name it, so that its limits, its circuit breaker and its pauses hold
for all of them. One that no rule names any more is closed after a while: what is being fetched then may end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from replicator.core.clock import Clock
    from replicator.upstream.client import UpstreamClient

RETIREMENT = 300.0
"""Seconds after which a client that no rule names any more is closed."""


class UpstreamClients(Sequence["UpstreamClient"]):
    """The clients in use, those of `peers` last. `run` it under a supervisor, and close it when done.

    `make` makes a client by its name; raises ConfigurationError when there is none.
    """

    def __init__(
        self, make: Callable[[str], UpstreamClient], clock: Clock, peers: Iterable[UpstreamClient] = ()
    ) -> None:
        self._make = make
        self._clock = clock
        self._peers = tuple(peers)
        self._clients: dict[str, UpstreamClient] = {}
        self._retired: dict[str, tuple[UpstreamClient, float]] = {}

    def use(self, names: Iterable[str]) -> Mapping[str, UpstreamClient]:
        """Return the clients with these names, making those that are missing; retire the others."""
        wanted = {name: self._client(name) for name in dict.fromkeys(names)}
        until = self._clock.monotonic() + RETIREMENT
        for name, client in self._clients.items():
            if name not in wanted:
                self._retired[name] = (client, until)
        self._clients = wanted
        return wanted

    def _client(self, name: str) -> UpstreamClient:
        if name in self._clients:
            return self._clients[name]
        retired = self._retired.pop(name, None)
        return self._make(name) if retired is None else retired[0]

    @overload
    def __getitem__(self, index: int) -> UpstreamClient: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[UpstreamClient]: ...

    def __getitem__(self, index: int | slice) -> UpstreamClient | Sequence[UpstreamClient]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    @property
    def _all(self) -> tuple[UpstreamClient, ...]:
        return (*self._clients.values(), *self._peers)

    async def run(self) -> None:
        """Close what is retired for long enough, until cancelled."""
        while True:
            await self._clock.sleep(RETIREMENT)
            now = self._clock.monotonic()
            for name in [name for name, (_, until) in self._retired.items() if until <= now]:
                client, _ = self._retired.pop(name)
                await client.close()

    async def close(self) -> None:
        """Close every client."""
        for client in (*self._all, *(client for client, _ in self._retired.values())):
            await client.close()
