"""What a figure depends on besides the code: said beside every table."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from replicator.telemetry.system_clock import SystemClock
from tests.support.tools import require


def describe(command: str) -> list[str]:
    """Return the lines that say when, with what and on what was measured."""
    now = datetime.fromtimestamp(SystemClock().now(), UTC)
    registry = subprocess.run(  # noqa: S603
        [require("docker-registry"), "--version"], capture_output=True, text=True, check=False
    )
    load = os.getloadavg()[0]
    return [
        f"Date: {now:%Y-%m-%d %H:%M} UTC; command: `{command}`; commit {_commit()}",
        f"Ours: replicator {version('replicator')}, Python {platform.python_version()}, aiohttp {version('aiohttp')}, "
        f"uvloop {version('uvloop')}; one process; one user by Basic authentication, metrics, JSON logs and the "
        "access log (to a file) on",
        f"Theirs: {registry.stdout.split()[-1]} of Debian; no authentication, access log to a file; "
        "as it is (stock), and with GOGC=1000 (tuned)",
        f"Machine: {os.cpu_count()} cores ({_processor()}), Linux {platform.release()}, "
        f"congestion control {_read('/proc/sys/net/ipv4/tcp_congestion_control')}, "
        f"load average before the run {load:.1f}; clients on the same cores, everything on loopback",
    ]


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    lines = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"
