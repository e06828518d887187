"""Answers of DNS that a test makes up."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult


class Names(AbstractResolver):
    """Answers with scripted addresses: the next one at each question, the last one from then on.

    An underscore in a name stands for a dot.
    """

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the address that it is the turn of."""
        self.asked.append(host)
        addresses = self.names[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Do nothing."""


class Diverted(AbstractResolver):
    """Lets `registry.test` pass for public: its name has a public address as well as the one we connect to."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the next two addresses of the registry, the second one first."""
        found = await self._names.resolve(host, port, family)
        if host == "registry.test":
            # A mixture counts as public; the reachable address comes first.
            found = [*await self._names.resolve(host, port, family), *found]
        return found

    async def close(self) -> None:
        """Do nothing."""
