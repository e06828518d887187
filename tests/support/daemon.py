"""The real daemon in a process of its own, as an operator runs it: `replicator serve --config FILE`.

A test hands in the configuration as a document. Every node listens on a port that the system chose; from the first
start on the file names that port, so that a restarted daemon is found where its predecessor was.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from tests.support.http_calls import get
from tests.support.processes import Process
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

START_DEADLINE = 20.0
_COMMAND = (sys.executable, "-m", "replicator")

Document = dict[str, Any]


def node(region: str = "us-east-1", account: str = "111122223333", **settings: object) -> Document:
    """Return the configuration of one node on a loopback port that the system chooses."""
    return {"account": account, "region": region, "listen": "127.0.0.1:0", **settings}


class Daemon:
    """A daemon with the directory it lives in: its configuration, its data and its logs. Use it as a context."""

    def __init__(self, directory: Path, document: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.host = "127.0.0.1"
        self.config = directory / "replicator.yaml"
        self.document: Document = {"version": 1, "storage_root": str(directory / "data"), **document}
        self.environ = {**os.environ, **(environ or {})}
        self._process: Process | None = None
        self._ports: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.exit_code is None:
            self._process.terminate()

    @property
    def process(self) -> Process:
        """The latest run."""
        assert self._process is not None, "the daemon was not started"
        return self._process

    def start(self) -> None:
        """Start, and return when every node is ready to write."""
        self.launch()
        self.wait_until_ready()

    def timed_start(self) -> float:
        """Start, and return how many seconds it took, without those in which other programs had the processor."""
        began = time.monotonic()
        self.start()
        return time.monotonic() - began - self.process.seconds_in_queue()

    def launch(self) -> None:
        """Start, and return at once."""
        self.write_config()
        command = [*self.command_prefix(), *_COMMAND, "serve", "--config", str(self.config)]
        self._process = Process(command, self.directory / "daemon", env=self.environ, cwd=self.directory)

    def command_prefix(self) -> Sequence[str]:
        """Return what stands before the command, where it runs elsewhere."""
        return ()

    def write_config(self) -> None:
        """Write the configuration file, with the ports as far as they are known."""
        for settings in self.document["nodes"]:
            port = self._ports.get(settings["region"])
            if port is not None:
                settings["listen"] = f"{self.host}:{port}"
        self.config.write_text(yaml.safe_dump(self.document, sort_keys=False))

    def wait_until_ready(self) -> None:
        """Return when every node listens and is ready; fail the test when the daemon ends or takes too long."""
        eventually(self._is_listening, "the daemon to listen", within=START_DEADLINE)
        self.write_config()
        for settings in self.document["nodes"]:
            url = f"http://{self.address(settings['region'])}/readyz?mode=write"
            eventually(lambda url=url: self._is_ready(url), f"{url} to be ready", within=START_DEADLINE)  # type: ignore[misc]

    def terminate(self) -> int:
        """Ask the daemon to stop (SIGTERM), wait, and return its exit code."""
        return self.process.terminate()

    def kill(self) -> None:
        """End the daemon at once (SIGKILL)."""
        self.process.kill()

    def restart(self) -> None:
        """Stop the daemon if it runs, and start it on the same directory and ports."""
        if self.process.exit_code is None:
            self.terminate()
        self.start()

    def address(self, region: str | None = None) -> str:
        """Return host and port of a node; of the first one without a region."""
        wanted = region or self.document["nodes"][0]["region"]
        return f"{self.host}:{self._ports[wanted]}"

    def url(self, path: str, region: str | None = None) -> str:
        """Return the URL of a path of a node."""
        return f"http://{self.address(region)}{path}"

    def data(self, region: str | None = None) -> Path:
        """Return the directory of a node's data."""
        found = next(one for one in self.document["nodes"] if region in {None, one["region"]})
        return self.directory / "data" / str(found["account"]) / str(found["region"])

    def events(self) -> list[dict[str, Any]]:
        """Return what the latest run has logged so far, other than requests."""
        lines = self.process.errors().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def output(self) -> str:
        """Return everything that every run wrote."""
        return self.process.output_path.read_text() + self.process.errors_path.read_text()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the program on this configuration's machine, such as `status`."""
        return run_command(*arguments, cwd=self.directory, environ=self.environ)

    def _is_listening(self) -> bool:
        self._check_alive()
        found = {
            event["node"].partition("/")[2]: int(event["url"].rpartition(":")[2])
            for event in self.events()
            if event.get("event") == "node is listening"
        }
        if len(found) < len(self.document["nodes"]):
            return False
        self._ports = found
        return True

    def _is_ready(self, url: str) -> bool:
        self._check_alive()
        with contextlib.suppress(OSError):
            return get(url).status == 200
        return False

    def _check_alive(self) -> None:
        code = self.process.exit_code
        if code is not None:
            pytest.fail(f"the daemon ended with exit code {code}:\n{self.process.errors()}")


def run_command(
    *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run `replicator` with some arguments to its end, and return what it wrote."""
    return subprocess.run(  # noqa: S603 - our own program
        [*_COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
