"""Many clients of one cold blob through a real node: one download, every byte right, memory bounded.

With REPLICATOR_CAMPAIGN=1 it is 1,000 clients of 100 MB.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.processes import MemorySampler, cpu_seconds
from tests.benchmarks.processes import memory as resident
from tests.support import crowd
from tests.support.daemon import Daemon, node
from tests.support.http_calls import get
from tests.support.threaded_upstream import ThreadedUpstream

if TYPE_CHECKING:
    from pathlib import Path

CAMPAIGN = bool(os.environ.get("REPLICATOR_CAMPAIGN"))
CLIENTS, SIZE = (1000, 100_000_000) if CAMPAIGN else (200, 8 * 1024 * 1024)
MOST_GROWTH = 400 * 1024 * 1024

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cold-crowd"), pytest.mark.timeout(900 if CAMPAIGN else 90)]


def test_rel_12_crowd_of_a_cold_blob_costs_one_download_and_bounded_memory(tmp_path: Path) -> None:
    layer = random.Random("layer").randbytes(SIZE)  # noqa: S311 - any bytes
    upstream = ThreadedUpstream()
    image = upstream.registry.add_image("library/app", "latest", [layer])
    with upstream:
        document = {
            "upstreams": [{"name": "hub", "url": upstream.url}],
            "nodes": [node(cache={"rules": [{"prefix": "hub", "upstream": "hub"}]})],
        }
        with Daemon(tmp_path, document) as daemon:
            assert get(daemon.url("/v2/hub/library/app/manifests/latest")).body == image.manifest
            path, port = f"/v2/hub/library/app/blobs/{image.layers[0]}", int(daemon.address().rpartition(":")[2])
            before, cpu = resident(daemon.process.pid), cpu_seconds(daemon.process.pid)
            with MemorySampler(daemon.process.pid) as memory:
                outcomes = crowd.pull(port, path, CLIENTS)
            assert outcomes == Counter({f"200 {image.layers[0]}": CLIENTS})
            assert upstream.downloads(image.layers[0]) == 1
            used, peak = cpu_seconds(daemon.process.pid) - cpu, memory.peak
            print(  # noqa: T201 - the figures of a campaign
                f"{CLIENTS} clients of {SIZE / 1e6:.0f} MB: {before / 2**20:.0f} MiB, at most {peak / 2**20:.0f},"
                f" {used:.1f} s of the processor"
            )
            assert peak - before < MOST_GROWTH
            assert list((daemon.data() / "blobs" / "ingest").iterdir()) == []
