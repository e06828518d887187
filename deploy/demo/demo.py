#!/usr/bin/env python3
"""The five-minute tour: three regions on this machine, an image that travels, and a cache that outlives its upstream.

Everything runs on loopback and in a temporary directory, and everything is stopped at the end, also after Ctrl-C or a
failure. The exit code is 0 only when every step did what it says.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from busybox_image import LayoutImage, read_file, write_image
from programs import DemoFailed, Programs, find, wait_for
from rich.console import Console

if TYPE_CHECKING:
    from types import FrameType

CONFIG = Path(__file__).parents[2] / "configs" / "three-regions.yaml"
PACKAGES = {"skopeo": "skopeo", "docker-registry": "docker-registry", "busybox": "busybox-static"}
STEPS = 7
DAEMON, UPSTREAM = "replicator", "upstream"
SOURCE, DESTINATIONS = "us-east-1", ("eu-west-1", "ap-southeast-1")
_INTERRUPTED = 130
_UPSTREAM_BYTES = re.compile(r"^replicator_upstream_bytes_total\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)

console = Console(highlight=False, soft_wrap=True)


class Tour:
    """The steps, in order; each says what it does, does it, and says what came of it."""

    def __init__(self, directory: Path, programs: Programs, tools: dict[str, str]) -> None:
        self._directory = directory
        self._programs = programs
        self._tools = tools
        self._document: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
        self._config = directory / "three-regions.yaml"
        self._upstream = ""
        self._step = 0

    def play(self) -> None:
        """Play all steps; raises DemoFailed."""
        self._start_daemon()
        image = self._build_image()
        self._push(image)
        self._watch_it_arrive(image)
        self._pull_through_the_cache()
        self._show_status()
        self._stop()

    def _start_daemon(self) -> None:
        self._say("Start three regional registries in one process")
        self._show_command("replicator", "serve", "--config", str(CONFIG.relative_to(CONFIG.parents[1])))
        self._configure()
        seconds = self._serve() or self._serve_elsewhere()
        self._show(f"ready after {seconds:.1f} s")
        for node in self._document["nodes"]:
            self._show(f"{node['account']}/{node['region']:<15} {node['listen']}")

    def _configure(self) -> None:
        """Take the configuration for newcomers, in a directory of the demo's own."""
        self._document["storage_root"] = str(self._directory / "data")
        self._document["log"] = {"format": "json"}
        for node in self._document["nodes"]:
            node["listen"] = f"127.0.0.1:{free_port(int(node['listen'].rpartition(':')[2]))}"
        local = next(one for one in self._document["upstreams"] if one["name"] == "local")
        self._start_upstream(int(local["url"].rpartition(":")[2]))
        local["url"] = f"http://{self._upstream}"

    def _serve(self) -> float | None:
        """Start the daemon and return how many seconds it took; None when somebody else was given one of its ports."""
        self._config.write_text(yaml.safe_dump(self._document, sort_keys=False))
        began = time.monotonic()
        self._programs.start(DAEMON, [sys.executable, "-m", "replicator", "serve", "--config", str(self._config)])
        wait_for(self._has_started_or_ended, "the daemon to start")
        if '"event": "started"' in self._programs.tail(DAEMON):
            return time.monotonic() - began
        if "Address already in use" in self._programs.tail(DAEMON):
            return None
        raise DemoFailed(f"the daemon ended:\n{self._programs.tail(DAEMON)}")

    def _serve_elsewhere(self) -> float:
        for node in self._document["nodes"]:
            node["listen"] = f"127.0.0.1:{free_port(0)}"
        self._programs.forget(DAEMON)
        seconds = self._serve()
        if seconds is None:
            raise DemoFailed("every port that was free a moment ago is taken")
        return seconds

    def _has_started_or_ended(self) -> bool:
        return '"event": "started"' in self._programs.tail(DAEMON) or self._programs.has_ended(DAEMON)

    def _build_image(self) -> LayoutImage:
        self._say("Build an image from this machine's static busybox")
        image = self._write_image("busybox", "Hello from us-east-1, wherever you read this.")
        self._show(f"{image.size / 2**20:.1f} MiB in two layers, {image.digest}")
        return image

    def _push(self, image: LayoutImage) -> None:
        self._say(f"Push it to {SOURCE} with skopeo")
        seconds = self._skopeo_copy(image.source, f"docker://{self._address(SOURCE)}/demo/busybox:1.0")
        self._show(f"pushed in {seconds:.2f} s")

    def _watch_it_arrive(self, image: LayoutImage) -> None:
        self._say("Watch it arrive in the other two regions")
        for region in DESTINATIONS:
            digest = wait_for(partial(self._digest_in, region, "demo/busybox"), f"the image in {region}")
            expect(digest == image.digest, f"expected {image.digest} in {region}, got {digest}")
        lags = wait_for(self._lags, "the lag to be measured")
        for destination, seconds in sorted(lags.items()):
            self._show(f"{destination:<30} the same digest, {seconds:.2f} s after the push")
        self._run_what_arrived(DESTINATIONS[-1])

    def _run_what_arrived(self, region: str) -> None:
        layout = self._directory / "arrived"
        self._skopeo_copy(f"docker://{self._address(region)}/demo/busybox:1.0", f"oci:{layout}:busybox")
        program, greeting = self._directory / "busybox", self._directory / "greeting"
        program.write_bytes(read_file(layout, "bin/busybox"))
        program.chmod(0o700)
        greeting.write_bytes(read_file(layout, "greeting"))
        said = self._programs.run([str(program), "cat", str(greeting)]).decode().strip()
        self._show(f"pulled from {region} and run, it says: {said}")

    def _pull_through_the_cache(self) -> None:
        self._say("Pull an image of another registry through the cache")
        image = self._write_image("hello", "Hello from somebody else's registry.")
        self._skopeo_copy(image.source, f"docker://{self._upstream}/library/hello:1.0")
        self._show(f"somebody else's registry runs on {self._upstream}; it has library/hello:1.0")
        cached = f"docker://{self._address(SOURCE)}/local/library/hello:1.0"
        self._pull_cached(cached, image, "cold", from_upstream=True)
        self._pull_cached(cached, image, "warm", from_upstream=False)
        self._programs.stop(UPSTREAM)
        self._show("the other registry is stopped")
        self._pull_cached(cached, image, "without it", from_upstream=False)

    def _start_upstream(self, port: int) -> None:
        """Start somebody else's registry, on another port where somebody took the wanted one meanwhile."""
        for wanted in (port, 0):
            self._upstream = f"127.0.0.1:{free_port(wanted)}"
            self._write_upstream_config()
            config = self._directory / "registry.yaml"
            self._programs.start(UPSTREAM, [self._tools["docker-registry"], "serve", str(config)])
            wait_for(self._upstream_answers_or_ended, "the other registry")
            if "address already in use" not in self._programs.tail(UPSTREAM):
                break
            self._programs.forget(UPSTREAM)
        self._programs.check(UPSTREAM)

    def _write_upstream_config(self) -> None:
        document = {
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "upstream")}},
            "http": {"addr": self._upstream, "secret": "of-the-demo"},
        }
        (self._directory / "registry.yaml").write_text(yaml.safe_dump(document))

    def _upstream_answers_or_ended(self) -> bool:
        return self._programs.has_ended(UPSTREAM) or answers_ok(self._upstream, "/v2/")

    def _pull_cached(self, source: str, image: LayoutImage, how: str, *, from_upstream: bool) -> None:
        before = self._fetched_bytes()
        layout = f"oci:{self._directory / how.replace(' ', '-')}:hello"
        seconds = self._skopeo_copy(source, layout)
        fetched = self._fetched_bytes() - before
        expect(self._digest_of(layout) == image.digest, f"the {how} pull gave another image")
        expect((fetched > image.size // 2) is from_upstream, f"the {how} pull fetched {fetched:.0f} bytes")
        amount = f"{fetched / 2**20:.1f} MiB" if fetched else "nothing"
        self._show(f"pulled {how} in {seconds:.2f} s; {amount} came from the other registry")

    def _show_status(self) -> None:
        self._say("Ask how everything is")
        self._show_command("replicator", "status", "--config", "...")
        command = [sys.executable, "-m", "replicator", "status", "--config", str(self._config)]
        console.print(self._programs.run(command).decode().rstrip(), markup=False)

    def _stop(self) -> None:
        self._say("Stop everything")
        code = self._programs.stop(DAEMON)
        expect(code == 0, f"the daemon ended with exit code {code}:\n{self._programs.tail(DAEMON)}")
        self._show("the daemon let its requests end, closed its stores and exited with 0")

    # Helpers

    def _write_image(self, name: str, greeting: str) -> LayoutImage:
        return write_image(self._directory / f"{name}-image", Path(self._tools["busybox"]), name, greeting)

    def _address(self, region: str) -> str:
        return next(str(node["listen"]) for node in self._document["nodes"] if node["region"] == region)

    def _digest_in(self, region: str, repository: str) -> str | None:
        self._programs.check(DAEMON)
        status, headers, _ = request("HEAD", self._address(region), f"/v2/{repository}/manifests/1.0")
        return headers.get("Docker-Content-Digest") if status == 200 else None

    def _lags(self) -> dict[str, float] | None:
        """Return the lag of every destination as the daemon measured it; None until it has."""
        _, _, body = request("GET", self._address(SOURCE), "/_replicator/v1/status")
        found = json.loads(body)["replication"]["destinations"]
        lags = {one["destination"]: one["last_lag_seconds"] for one in found}
        return lags if len(lags) == len(DESTINATIONS) and None not in lags.values() else None

    def _fetched_bytes(self) -> float:
        _, _, body = request("GET", self._address(SOURCE), "/metrics")
        return sum(float(value) for value in _UPSTREAM_BYTES.findall(body.decode()))

    def _digest_of(self, layout: str) -> str:
        raw = self._programs.run([self._tools["skopeo"], "--insecure-policy", "inspect", "--raw", layout])
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def _skopeo_copy(self, source: str, destination: str) -> float:
        """Copy an image and return how many seconds it took."""
        plain_http = ["--src-tls-verify=false"] if source.startswith("docker:") else []
        plain_http += ["--dest-tls-verify=false"] if destination.startswith("docker:") else []
        shown = [part.replace(str(self._directory), "...") for part in (*plain_http, source, destination)]
        self._show_command("skopeo", "copy", *shown)
        began = time.monotonic()
        self._programs.run([self._tools["skopeo"], "--insecure-policy", "copy", *plain_http, source, destination])
        return time.monotonic() - began

    def _say(self, what: str) -> None:
        self._step += 1
        console.print(f"\n[bold]{self._step}/{STEPS}  {what}[/bold]")

    def _show(self, text: str) -> None:
        console.print(f"     {text}", markup=False)

    def _show_command(self, *words: str) -> None:
        console.print(f"   $ {' '.join(words)}", style="dim", markup=False)


def expect(holds: bool, otherwise: str) -> None:
    """Raise DemoFailed unless something holds."""
    if not holds:
        raise DemoFailed(otherwise)


def free_port(wanted: int) -> int:
    """Return the wanted port if nobody has it, and another one otherwise."""
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoFailed("this machine has no free port")


def request(method: str, address: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Send one request and return status, headers and body; raises OSError when nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def answers_ok(address: str, path: str) -> bool:
    """Tell whether a GET is answered with 200."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return request("GET", address, path)[0] == 200
    return False


def check_static(busybox: str) -> None:
    """Raise DemoFailed when busybox needs libraries, which an image of it alone would not have."""
    needs = subprocess.run(["ldd", busybox], capture_output=True, check=False)  # noqa: S603, S607 - a look at a file
    expect(needs.returncode != 0, f"{busybox} needs libraries. The package busybox-static has one that does not.")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Play the demo and return the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        tools = find(PACKAGES)
        check_static(tools["busybox"])
        with tempfile.TemporaryDirectory(prefix="replicator-demo-") as directory:
            path = Path(directory)
            with Programs(path) as programs:
                Tour(path, programs, tools).play()
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything is stopped.")
        return _INTERRUPTED
    except (DemoFailed, OSError) as error:
        console.print("\nThe demo failed:", style="bold red")
        console.print(str(error), markup=False)
        return 1
    console.print("\nThat was it. To try it yourself: make run", style="bold")
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
