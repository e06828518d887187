"""Debian's docker-registry as an upstream: somebody else's server, that asks for credentials and counts requests.

with DockerRegistry(directory, auth=Htpasswd("user", "password")) as upstream:
    ...
    assert upstream.blob_downloads() == []
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from tests.support.http_calls import get
from tests.support.processes import Process
from tests.support.tools import require
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.support.token_server import TokenServer

_LISTENING = re.compile(r"listening on 127\.0\.0\.1:([0-9]+)")
_ACCESS_LINE = re.compile(r'^\S+ \S+ \S+ \[[^]]*\] "([A-Z]+) (\S+) HTTP/[0-9.]+" ([0-9]+) ', re.MULTILINE)


@dataclass(frozen=True)
class Htpasswd:
    """Basic credentials of one user."""

    username: str
    password: str


@dataclass(frozen=True)
class AccessLine:
    """One request that the registry answered."""

    method: str
    path: str
    status: int


class DockerRegistry:
    """A registry on a free loopback port with its data in a directory; can be stopped and started again in place."""

    def __init__(self, directory: Path, auth: Htpasswd | TokenServer | None = None) -> None:
        self._program = require("docker-registry")
        self._directory = directory
        self._auth = auth
        self._port = 0
        self._marks = 0
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The URL to configure as an upstream's."""
        return f"http://{self.address}"

    def start(self) -> None:
        """Listen; after `stop` on the same port again."""
        config = self._directory / "registry.yaml"
        config.write_text(yaml.safe_dump(self._document()))
        self._process = Process([self._program, "serve", str(config)], self._directory / "registry")
        self._port = eventually(self._listening_port, "docker-registry to listen")

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._process is not None and self._process.exit_code is None:
            self._process.kill()

    def requests(self) -> list[AccessLine]:
        """Return every request answered since the first start, in order."""
        self._settle()
        found = _ACCESS_LINE.findall(self._log())
        return [AccessLine(method, path, int(status)) for method, path, status in found if "?mark=" not in path]

    def blob_downloads(self) -> list[str]:
        """Return the path of every blob whose bytes were sent, once for each time."""
        return [
            line.path
            for line in self.requests()
            if line.method == "GET" and line.status in {200, 206, 307} and "/blobs/sha256:" in line.path
        ]

    def _document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._directory / "data")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.address, "secret": "of-a-test"},
        }
        if isinstance(self._auth, Htpasswd):
            document["auth"] = {"htpasswd": {"realm": "tests", "path": str(self._write_htpasswd(self._auth))}}
        elif self._auth is not None:
            roots = self._directory / "token-roots.pem"
            roots.write_bytes(self._auth.root_certificates)
            document["auth"] = {
                "token": {
                    "realm": self._auth.realm,
                    "service": self._auth.service,
                    "issuer": self._auth.issuer,
                    "rootcertbundle": str(roots),
                }
            }
        return document

    def _write_htpasswd(self, auth: Htpasswd) -> Path:
        path = self._directory / "htpasswd"
        command = [require("htpasswd"), "-i", "-n", "-B", "-C", "4", auth.username]
        made = subprocess.run(command, input=auth.password, capture_output=True, text=True, check=True)  # noqa: S603
        path.write_text(made.stdout)
        return path

    def _listening_port(self) -> int:
        assert self._process is not None
        if self._process.exit_code is not None:
            pytest.fail(f"docker-registry ended:\n{self._process.tail()}")
        found = _LISTENING.search(self._process.errors())
        return int(found[1]) if found else 0

    def _settle(self) -> None:
        """Wait until the log holds what was asked before now: a request is logged after it is answered."""
        assert self._process is not None
        if self._process.exit_code is not None:
            return
        self._marks += 1
        mark = f"?mark={self._marks}"
        get(f"{self.url}/v2/{mark}")
        eventually(lambda: f"/v2/{mark} " in self._log(), "docker-registry to log a request")

    def _log(self) -> str:
        assert self._process is not None
        return self._process.output_path.read_text() + self._process.errors_path.read_text()
