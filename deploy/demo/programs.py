"""The programs of the demo: found before anything starts, their output kept in files, all stopped at the end.

Each runs in a session of its own, so that Ctrl-C reaches the demo alone, which then stops them in order.
"""
# ruff: noqa: INP001 - beside a script, not in a package

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

STOP_TIMEOUT = 20.0
RUN_TIMEOUT = 60.0
WAIT_TIMEOUT = 30.0
_PAUSE = 0.01
_TAIL = 2000


class DemoFailed(Exception):
    """A step did not do what it says; the message is for whoever watches."""


def find(packages: Mapping[str, str]) -> dict[str, str]:
    """Return the path of each program; raises DemoFailed with the packages of those that are missing."""
    found = {name: shutil.which(name) for name in packages}
    missing = [packages[name] for name, path in found.items() if path is None]
    if missing:
        raise DemoFailed(f"missing: {', '.join(missing)}. As root on Debian or Ubuntu, `make tools` installs them.")
    return {name: path for name, path in found.items() if path is not None}


def wait_for(question: Callable[[], T | None], what: str) -> T:
    """Return the first true answer; raises DemoFailed when there is none in time."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {WAIT_TIMEOUT:.0f} s in vain for {what}")
        time.sleep(_PAUSE)
    return answer


class Programs:
    """What the demo has started. Leaving the context stops all of it, the latest first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {**os.environ, "HOME": str(directory), "TMPDIR": str(directory)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._running)):
            with contextlib.suppress(DemoFailed):
                self.stop(name)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a program that goes on in the background."""
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(  # noqa: S603 - the demo's own command lines
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )

    def has_ended(self, name: str) -> bool:
        """Tell whether a program has ended."""
        return self._running[name].poll() is not None

    def forget(self, name: str) -> None:
        """Drop a program that has ended, and what it wrote."""
        del self._running[name]
        self.log(name).unlink()

    def check(self, name: str) -> None:
        """Raise DemoFailed when a program has ended."""
        if self.has_ended(name):
            code = self._running[name].returncode
            raise DemoFailed(f"{name} ended with exit code {code}:\n{self.tail(name)}")

    def stop(self, name: str) -> int:
        """Stop a program and return its exit code; raises DemoFailed when it had to be killed."""
        process = self._running.pop(name)
        process.terminate()
        try:
            return process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{name} did not stop within {STOP_TIMEOUT:.0f} s") from None
        finally:
            process.kill()
            process.wait()

    def run(self, command: Sequence[str]) -> bytes:
        """Run a program to its end and return what it printed; raises DemoFailed when it fails."""
        try:
            done = subprocess.run(  # noqa: S603 - the demo's own command lines
                list(command),
                capture_output=True,
                check=False,
                timeout=RUN_TIMEOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._directory,
                env=self._environment,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"{' '.join(command)}: not done within {RUN_TIMEOUT:.0f} s") from None
        if done.returncode != 0:
            raise DemoFailed(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def log(self, name: str) -> Path:
        """Return the file with a program's output."""
        return self._directory / f"{name}.log"

    def tail(self, name: str) -> str:
        """Return the end of a program's output."""
        return self.log(name).read_text(errors="replace")[-_TAIL:]
