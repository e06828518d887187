"""A program in a process of its own, with what it writes kept in a file for the report of a failed test."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

_END_TIMEOUT = 40.0
_TAIL = 2500

running: list[Process] = []
"""Every process that was started and not yet seen to end."""


class Process:
    """One run of a program. Its two outputs are appended to `<log>.out` and `<log>.err`."""

    def __init__(
        self, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.output_path = log.with_suffix(".out")
        self.errors_path = log.with_suffix(".err")
        with self.output_path.open("ab") as output, self.errors_path.open("ab") as errors:
            self._offset = errors.tell()
            self._popen = subprocess.Popen(  # noqa: S603 - a command line of a test
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=env, cwd=cwd
            )
        running.append(self)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, minus the signal's number after a signal; None while it runs."""
        code = self._popen.poll()
        if code is not None and self in running:
            running.remove(self)
        return code

    def seconds_in_queue(self) -> float:
        """Return how long its main thread could have run but had no processor; 0 where the system does not say."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def errors(self) -> str:
        """Return what this run has written to standard error so far."""
        with self.errors_path.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal and return at once."""
        self._popen.send_signal(number)

    def terminate(self, timeout: float = _END_TIMEOUT) -> int:
        """Ask it to end (SIGTERM), wait, and return its exit code; kill it when it does not end in time."""
        self._popen.terminate()
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._popen.kill()
        self.wait(_END_TIMEOUT)

    def wait(self, timeout: float = _END_TIMEOUT) -> int:
        """Wait until it ends and return its exit code; raises TimeoutExpired."""
        self._popen.wait(timeout)
        code = self.exit_code
        assert code is not None
        return code

    def tail(self) -> str:
        """Return the end of what it wrote, for people."""
        texts = [path.read_text(errors="replace")[-_TAIL:] for path in (self.output_path, self.errors_path)]
        return "\n".join(text for text in texts if text)
