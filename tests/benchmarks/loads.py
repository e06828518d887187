"""Load on a server: `wrk` and `hey` for small requests, our copying client for large ones; and the server's price.

Every function here takes one sample and returns a figure with the processor time the server used for it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.media_types import OCI_MANIFEST
from tests.benchmarks.client import Plan, content, run_client
from tests.benchmarks.processes import MemorySampler, cpu_seconds, cpu_seconds_at_rest
from tests.support.http_calls import call
from tests.support.tools import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.servers import Server

CONNECTIONS = 16
GIB = 1024**3
_TOUCHED = GIB // 2


@dataclass(frozen=True)
class Blob:
    """Generated content with its digest."""

    seed: str
    size: int
    digest: str


@dataclass(frozen=True)
class Sample:
    """One measurement. `cpu` is the server's: microseconds per request, or seconds per GB."""

    value: float
    cpu: float | None = None
    more: Mapping[str, float] = field(default_factory=dict)
    """What else was measured, by name."""


def make_blob(seed: str, size: int) -> Blob:
    """Return generated content of a size that no other seed has."""
    hasher = hashlib.sha256()
    for piece in content(seed, 0, size):
        hasher.update(piece)
    return Blob(seed, size, f"sha256:{hasher.hexdigest()}")


def push(server: Server, repository: str, blob: Blob, chunk: int = 0) -> Sample:
    """Push a blob and return MB/s."""
    plan = {"do": "push", "repository": repository, "chunk": chunk}
    return _transfer(server, plan | {"size": blob.size, "seed": blob.seed, "digest": blob.digest}, blob.size)


def pull(server: Server, repository: str, blob: Blob, times: int = 1) -> Sample:
    """Pull a blob a number of times over one connection and return MB/s.

    The price includes what the server goes on with afterwards: a proxy may store later what it has passed on.
    """
    plan = {"do": "get", "path": f"/v2/{repository}/blobs/{blob.digest}", "times": times}
    return _transfer(server, plan, blob.size * times)


def crowd(server: Server, repository: str, blob: Blob, clients: int) -> Sample:
    """Pull a blob with many clients at once: seconds until all have it and a first byte of it, and memory meanwhile."""
    plan = {"do": "crowd", "path": f"/v2/{repository}/blobs/{blob.digest}", "clients": clients}
    before = cpu_seconds(server.pid)
    with MemorySampler(server.pid) as sampler:
        found = run_client(_addressed(server, plan))
    used = cpu_seconds_at_rest(server.pid) - before
    more = {"last_first_byte": found["last_first_byte"], "memory": float(sampler.peak)}
    return Sample(found["seconds"], used / (clients * blob.size) * 1e9, more)


def _transfer(server: Server, plan: Plan, size: int) -> Sample:
    before = cpu_seconds(server.pid)
    found = run_client(_addressed(server, plan))
    used = cpu_seconds_at_rest(server.pid) - before
    return Sample(size / found["seconds"] / 1e6, used / size * 1e9, found)


def _addressed(server: Server, plan: Plan) -> Plan:
    return {**plan, "port": server.port, "headers": server.headers}


def wrk(server: Server, path: str, seconds: int) -> Sample:
    """GET a path over 16 connections and return requests per second."""
    command = [require("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s"]
    before = cpu_seconds(server.pid)
    output = _run([*command, *_header_options(server), _url(server, path)])
    used = cpu_seconds(server.pid) - before
    if "Non-2xx" in output:
        raise RuntimeError(f"errors were measured:\n{output}")
    count = int(_found(r"(\d+) requests in", output))
    return Sample(float(_found(r"Requests/sec:\s*([0-9.]+)", output)), used / count * 1e6)


def hey(server: Server, path: str, seconds: int) -> Sample:
    """HEAD a path over 16 connections and return requests per second (`wrk` waits for a body that never comes)."""
    command = [require("hey"), "-m", "HEAD", "-c", str(CONNECTIONS), "-z", f"{seconds}s"]
    before = cpu_seconds(server.pid)
    output = _run([*command, *_header_options(server), _url(server, path)])
    used = cpu_seconds(server.pid) - before
    statuses = re.findall(r"\[(\d+)\]\t(\d+) responses", output)
    if [code for code, _ in statuses] != ["200"]:
        raise RuntimeError(f"errors were measured:\n{output}")
    return Sample(float(_found(r"Requests/sec:\s*([0-9.]+)", output)), used / int(statuses[0][1]) * 1e6)


def push_image(server: Server, repository: str, tag: str) -> str:
    """Push an image with a manifest of about 1.8 KB; returns its digest."""
    blobs = [make_blob(f"{repository}-layer-{number}", 1024) for number in range(10)]
    for blob in blobs:
        push(server, repository, blob)
    described = [{"digest": blob.digest, "size": blob.size} for blob in blobs]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **described[0]},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **layer} for layer in described[1:]],
        "annotations": {"org.opencontainers.image.description": "x" * 30},
    }
    manifest = json.dumps(document).encode()
    headers = dict(line.split(": ", 1) for line in server.headers) | {"Content-Type": OCI_MANIFEST}
    answer = call("PUT", _url(server, f"/v2/{repository}/manifests/{tag}"), manifest, headers)
    if answer.status != 201:
        raise RuntimeError(f"the manifest was refused: {answer!r}")
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def touch_memory() -> None:
    """Use some memory and give it back: a virtual machine may have lent what lay idle to others."""
    with mmap.mmap(-1, _TOUCHED) as memory:
        memory[:: mmap.PAGESIZE] = b"\1" * (_TOUCHED // mmap.PAGESIZE)


def _url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def _header_options(server: Server) -> list[str]:
    accept = f"Accept: {OCI_MANIFEST}"
    return [option for line in (*server.headers, accept) for option in ("-H", line)]


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-400:]}")
    return done.stdout


def _found(pattern: str, output: str) -> str:
    found = re.search(pattern, output)
    if found is None:
        raise RuntimeError(f"expected {pattern} in {output!r}")
    return found[1]
