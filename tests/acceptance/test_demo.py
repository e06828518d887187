"""The demo does what it says, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.tools import require, require_static_busybox
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("demo")]

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "demo.py"
TIMEOUT = 55.0


class Demo:
    """One run of the demo, with its output in a file and the processes it started."""

    def __init__(self, directory: Path, environ: dict[str, str] | None = None) -> None:
        self._path = directory / "output"
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        env = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1", **(environ or {})}
        with self._path.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, str(DEMO)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
            )

    def output(self) -> str:
        """Return what it has said so far."""
        return self._path.read_text()

    def says(self, text: str) -> bool:
        """Tell whether it has said something; fail the test when it ended without."""
        if text in self.output():
            return True
        assert self.process.poll() is None, self.output()
        return False

    def left(self) -> list[str]:
        """Return what is left of it: files, and processes that work with them."""
        files = [str(path) for path in self.temporary.iterdir()]
        commands = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
        return files + [command for command in commands if str(self.temporary) in command]


@pytest.fixture
def tools() -> None:
    require("skopeo")
    require("docker-registry")
    require_static_busybox()


@pytest.fixture
def demo(tmp_path: Path, tools: None) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


def test_every_step_does_what_it_says(demo: Demo) -> None:
    assert demo.process.wait(TIMEOUT) == 0, demo.output()
    said = demo.output()
    for step in range(1, 8):
        assert f"{step}/7  " in said
    for region in ("us-east-1", "eu-west-1", "ap-southeast-1"):
        assert f"/{region}" in said
    assert said.count("the same digest") == 2
    assert "Hello from us-east-1" in said
    assert "pulled warm" in said
    assert "nothing came from the other registry" in said
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(number: signal.Signals, demo: Demo) -> None:
    eventually(lambda: demo.says("2/7  "), "the demo to come to its second step", within=TIMEOUT)
    assert any("replicator serve" in one for one in demo.left())
    eventually(lambda: demo.says("4/7  "), "the demo to come to its fourth step", within=TIMEOUT)
    demo.process.send_signal(number)
    assert demo.process.wait(TIMEOUT) == 130
    assert "everything is stopped" in demo.output()
    assert demo.left() == []


def test_a_demo_without_its_tools_says_what_is_missing(tmp_path: Path) -> None:
    demo = Demo(tmp_path, {"PATH": str(tmp_path)})
    assert demo.process.wait(TIMEOUT) == 1
    assert "missing: skopeo, docker-registry, busybox-static" in demo.output()
    assert "make tools" in demo.output()


def test_a_demo_with_a_failed_step_says_why_and_leaves_nothing_behind(tmp_path: Path, tools: None) -> None:
    broken = tmp_path / "bin" / "docker-registry"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho this registry is broken\nexit 3\n")
    broken.chmod(0o755)
    demo = Demo(tmp_path, {"PATH": f"{broken.parent}:{os.environ['PATH']}"})
    assert demo.process.wait(TIMEOUT) == 1
    assert "upstream ended with exit code 3:\nthis registry is broken" in demo.output()
    assert demo.left() == []


def test_a_demo_goes_elsewhere_when_its_ports_are_taken(tmp_path: Path, tools: None) -> None:
    with contextlib.ExitStack() as stack:
        for port in (5001, 5002, 5003, 5100):
            with contextlib.suppress(OSError):  # somebody else has it: all the better
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        demo = Demo(tmp_path)
        assert demo.process.wait(TIMEOUT) == 0, demo.output()
    assert "127.0.0.1:5001" not in demo.output()
    assert demo.left() == []
