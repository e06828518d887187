"""Hosts on a network of their own: a namespace each, joined by a switch, with a packet filter between any two.

Everything is made inside new namespaces; the machine's own network is not touched. Needs root, `ip` and `nft`. While a
`Network` is open, the thread that opened it is on it, as one more host, and so are the programs that it starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from tests.support.daemon import Daemon
from tests.support.tools import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

PORT = 5000
_CLONE_NEWNET = 0x40000000
_numbers = count(1)


def is_possible() -> str | None:
    """Return why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    probe = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)  # noqa: S603, S607
    return None


class Network:
    """A switch with a host for each name. Addresses are the same in every network: nobody else is on it."""

    def __init__(self, names: Sequence[str]) -> None:
        self._ip, self._nft = require("ip"), require("nft")
        self._names = tuple(names)
        self._mark = f"rn{os.getpid()}x{next(_numbers)}"
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            switch = self._make(stack, "switch")
            self._run("-n", switch, "link", "add", "br0", "type", "bridge")
            self._run("-n", switch, "address", "add", "10.98.0.254/24", "dev", "br0")
            self._run("-n", switch, "link", "set", "br0", "up")
            self._run("-n", switch, "link", "set", "lo", "up")
            for number, name in enumerate(self._names, 1):
                host = self._make(stack, name)
                port = f"port{number}"
                self._run("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host)
                self._run("-n", switch, "link", "set", port, "master", "br0", "up")
                self._run("-n", host, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
                self._run("-n", host, "link", "set", "eth0", "up")
                self._run("-n", host, "link", "set", "lo", "up")
            stack.enter_context(_inside(switch))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def address(self, name: str) -> str:
        """Return a host's address."""
        return f"10.98.0.{self._names.index(name) + 1}"

    def command(self, name: str) -> list[str]:
        """Return what to put before a command so that it runs on a host."""
        return [self._ip, "netns", "exec", self._namespace(name)]

    def drop(self, source: str, destination: str, condition: str = "") -> None:
        """Drop the packets from one host to another, all or those under a condition of nft's."""
        self._filter(destination, f"add rule inet faults input ip saddr {self.address(source)} {condition} drop")

    def split(self, *groups: Iterable[str]) -> None:
        """Drop every packet between hosts of different groups; a host in no group is alone."""
        self.heal()
        of = {name: number for number, group in enumerate(groups) for name in group}
        for source in self._names:
            for destination in self._names:
                if source != destination and of.get(source, source) != of.get(destination, destination):
                    self.drop(source, destination)

    def heal(self) -> None:
        """Let every packet pass."""
        for name in self._names:
            self._filter(name, "delete table inet faults", missing_ok=True)
            self._filter(
                name, "add table inet faults; add chain inet faults input { type filter hook input priority 0; }"
            )

    def _namespace(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _make(self, stack: contextlib.ExitStack, name: str) -> str:
        namespace = self._namespace(name)
        self._run("netns", "add", namespace)
        stack.callback(self._run, "netns", "del", namespace)
        return namespace

    def _run(self, *words: str) -> None:
        subprocess.run([self._ip, *words], check=True, capture_output=True)  # noqa: S603 - our own command lines

    def _filter(self, name: str, rule: str, *, missing_ok: bool = False) -> None:
        command = [*self.command(name), self._nft, rule]
        subprocess.run(command, check=not missing_ok, capture_output=True)  # noqa: S603 - our own command lines


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Move this thread into a namespace, and back."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(home)
        os.close(there)
        os.close(home)


def _enter(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class HostedDaemon(Daemon):
    """A daemon with one node, on a host of a network."""

    def __init__(
        self, directory: Path, document: Mapping[str, Any], environ: Mapping[str, str], network: Network, name: str
    ) -> None:
        super().__init__(directory, document, environ)
        self.host = network.address(name)
        self._prefix = network.command(name)
        for settings in self.document["nodes"]:
            settings |= {"listen": f"{self.host}:{PORT}", "allow_unauthenticated_network": True}

    def command_prefix(self) -> Sequence[str]:
        """Return the command that enters the host."""
        return self._prefix
