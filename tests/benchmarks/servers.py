"""The servers that are compared, each in a process and a directory of its own, on a free loopback port.

Ours runs as it is shipped and asks for a password: metrics, the access log and JSON logs are on. Debian's
docker-registry runs with the settings its package installs, but without its password file (checking bcrypt hashes
would cost it far more than anything measured here), once as it is and once with a rarer garbage collection.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

import yaml

from tests.support.daemon import Daemon, node
from tests.support.http_calls import basic, get
from tests.support.processes import Process
from tests.support.tools import require
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

OURS, STOCK, TUNED = "ours", "stock", "tuned"
CACHE_PREFIX = "upstream"
RTT, LINK = 0.03, 125e6
"""Seconds, and bytes a second: a public registry as a node has it."""
_USER, _PASSWORD = "bench", "a-password-of-benchmarks"
_LISTENING = re.compile(r"listening on 127\.0\.0\.1:([0-9]+)")


class Server(Protocol):
    """A registry that is measured."""

    name: str
    headers: list[str]

    @property
    def port(self) -> int:
        """The loopback port."""
        ...

    @property
    def pid(self) -> int:
        """The process that serves."""
        ...

    def cached(self, repository: str) -> str:
        """Return the name under which a repository of the upstream is pulled through this server."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Replicator:
    """Our daemon: nodes with one user each, and a cache rule when there is an upstream."""

    name = OURS

    def __init__(self, directory: Path, upstream: str | None = None, nodes: int = 1) -> None:
        auth = {
            "users": [
                {"name": _USER, "password": {"env": "BENCH"}, "grants": [{"actions": ["pull", "push", "delete"]}]}
            ]
        }
        cache = {"rules": [{"prefix": CACHE_PREFIX, "upstream": CACHE_PREFIX}]} if upstream else {}
        regions = ("us-east-1", "eu-west-1", "ap-southeast-1")[:nodes]
        document: dict[str, Any] = {
            "nodes": [{**node(region), "auth": auth, "cache": cache} for region in regions],
            "log": {"format": "json", "access_log": True},
        }
        if upstream:
            document["upstreams"] = [{"name": CACHE_PREFIX, "url": upstream}]
        self._daemon = Daemon(directory, document, {"BENCH": _PASSWORD})
        self.headers = [f"{name}: {value}" for name, value in basic(_USER, _PASSWORD).items()]

    def __enter__(self) -> Self:
        self._daemon.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._daemon.__exit__(kind, error, trace)

    @property
    def port(self) -> int:
        """The port of the first node."""
        return int(self._daemon.address().rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return self._daemon.process.pid

    def cached(self, repository: str) -> str:
        """Return the name below the cache rule's prefix."""
        return f"{CACHE_PREFIX}/{repository}"


class DockerRegistry:
    """Debian's docker-registry, as a registry or, with an upstream, as a proxy of it."""

    def __init__(self, directory: Path, name: str, gogc: int | None = None, upstream: str | None = None) -> None:
        self.name = name
        self.headers: list[str] = []
        self._directory = directory
        self._environ = dict(os.environ) | ({"GOGC": str(gogc)} if gogc else {})
        self._upstream = upstream
        self._process: Process | None = None
        self._marks = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "registry.yaml"
        config.write_text(yaml.safe_dump(self._document()))
        command = [require("docker-registry"), "serve", str(config)]
        self._process = Process(command, self._directory / "registry", env=self._environ)
        self.port = eventually(self._listening_port, "docker-registry to listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.exit_code is None:
            self._process.kill()

    @property
    def pid(self) -> int:
        """The registry's process."""
        assert self._process is not None
        return self._process.pid

    def cached(self, repository: str) -> str:
        """Return the repository's own name: a proxy has one upstream and no prefixes."""
        return repository

    def downloads(self, digest: str) -> int:
        """Return how often a blob was sent, by the access log."""
        assert self._process is not None
        output = self._process.output_path
        self._marks += 1
        mark = f"/v2/?mark={self._marks} "
        get(f"http://127.0.0.1:{self.port}{mark.strip()}")
        eventually(lambda: mark in output.read_text(), "the access log")
        return len(re.findall(rf'"GET /v2/\S+/blobs/{digest} HTTP/1.1" 20[06]', output.read_text()))

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "version": "0.1",
            "log": {"fields": {"service": "registry"}},
            "storage": {
                "cache": {"blobdescriptor": "inmemory"},
                "filesystem": {"rootdirectory": str(self._directory / "data")},
                "delete": {"enabled": True},
            },
            "http": {
                "addr": "127.0.0.1:0",
                "secret": "of-a-benchmark",
                "headers": {"X-Content-Type-Options": ["nosniff"]},
            },
            "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        }
        if self._upstream:
            document["proxy"] = {"remoteurl": self._upstream}
        return document

    def _listening_port(self) -> int:
        assert self._process is not None
        if self._process.exit_code is not None:
            raise RuntimeError(f"docker-registry ended:\n{self._process.tail()}")
        found = _LISTENING.search(self._process.errors())
        return int(found[1]) if found else 0


class Link:
    """A long link to a port of this machine, in a process of its own: see `tests/support/wan.py`."""

    def __init__(self, log: Path, target: int, rtt: float, rate: float) -> None:
        self._log = log
        self._command = [sys.executable, "-m", "tests.support.wan", "--target", str(target)]
        self._command += ["--rtt", str(rtt), "--rate", str(rate)]
        self._process: Process | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self._process = Process(self._command, self._log)
        self.port = int(eventually(self._ports, "the link")[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()

    def _ports(self) -> list[str]:
        assert self._process is not None
        return re.findall(r"127\.0\.0\.1:(\d+)", self._process.output_path.read_text())


class Distant:
    """A registry at the other end of a link, for clients that only pull."""

    def __init__(self, registry: DockerRegistry, link: Link) -> None:
        self.name = registry.name
        self.headers = registry.headers
        self.port = link.port
        self.pid = registry.pid

    def cached(self, repository: str) -> str:
        """Return the repository's own name."""
        return repository

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave both running: whoever started them ends them."""


class Field:
    """The three servers side by side, and the upstream behind them if they are to be caches; far away, if asked for."""

    def __init__(self, directory: Path, *, caches: bool = False, distant: bool = False) -> None:
        self._directory = directory
        self._caches = caches
        self._distant = distant
        self._stack = ExitStack()
        self.upstream: DockerRegistry | None = None
        self.way: Server | None = None
        """The upstream as the caches reach it."""
        self.servers: list[Server] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            url = None
            if self._caches:
                self.upstream = stack.enter_context(DockerRegistry(self._directory / "upstream", "upstream", 1000))
                self.way = self.upstream
                if self._distant:
                    link = Link(self._directory / "link", self.upstream.port, RTT, LINK)
                    self.way = Distant(self.upstream, stack.enter_context(link))
                url = f"http://127.0.0.1:{self.way.port}"
            self.servers = [
                stack.enter_context(Replicator(self._directory / OURS, url)),
                stack.enter_context(DockerRegistry(self._directory / STOCK, STOCK, None, url)),
                stack.enter_context(DockerRegistry(self._directory / TUNED, TUNED, 1000, url)),
            ]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
