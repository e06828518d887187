"""Programs that know passwords: `docker-credential-NAME get`, as Docker asks them.

The program reads the registry's key and writes a JSON object with `Username` and `Secret`; a failure is an exit code
and a message on its standard output. It gets as long as the caller's timeout and may write a bounded amount; it never
outlives the call. What it writes to its standard error is thrown away, because it may hold the secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Final

from replicator.core.errors import UpstreamDenied
from replicator.upstream.credentials import Found
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HELPER_GOOD_FOR: Final = 300.0
"""Seconds for which a program's answer is believed; many of them make tokens that end without saying when."""

_MAX_ANSWER: Final = 1024 * 1024
_NOT_FOUND: Final = "credentials not found"
_MAX_SHOWN: Final = 200
_CHUNK: Final = 64 * 1024
_DRAIN_TIMEOUT: Final = 1.0


class HelperCredentials:
    """A `Search` that asks a program for the first of `keys` that it knows."""

    def __init__(self, name: str, helper: str, keys: Sequence[str], environ: Mapping[str, str]) -> None:
        self._name = name
        self._helper = helper
        self._keys = tuple(keys)
        self._environ = environ

    async def __call__(self) -> Found:
        """Ask the program; nobody in particular if it knows none of the keys."""
        program = f"docker-credential-{self._helper}"
        path = await asyncio.to_thread(shutil.which, program, path=self._environ.get("PATH"))
        if path is None:
            raise UpstreamDenied(f"{self._name}: there is no program {program} on PATH")
        for key in self._keys:
            try:
                code, answer = await _run(path, key, self._environ)
            except OSError as error:
                raise UpstreamDenied(f"{self._name}: {program} cannot be started: {error.strerror}") from error
            if code == 0:
                return Found(_parsed(f"{self._name}: {program}", answer), HELPER_GOOD_FOR)
            message = answer[: 4 * _MAX_SHOWN].decode(errors="replace").strip()
            if _NOT_FOUND not in message.lower():
                shown = "".join(one if one.isprintable() else " " for one in message)[:_MAX_SHOWN]
                raise UpstreamDenied(f"{self._name}: {program} failed with exit code {code}: {shown}")
        return Found(None, HELPER_GOOD_FOR)


async def _run(path: str, key: str, environ: Mapping[str, str]) -> tuple[int, bytes]:
    """Return the exit code and the standard output; a program that writes too much, or is not waited for, is ended."""
    process = await asyncio.create_subprocess_exec(
        path,
        "get",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=dict(environ),
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        with contextlib.suppress(ConnectionError):  # it need not read to fail
            process.stdin.write(key.encode())
            await process.stdin.drain()
        process.stdin.close()
        answer = b""
        while len(answer) <= _MAX_ANSWER and (chunk := await process.stdout.read(_CHUNK)):
            answer += chunk
        if len(answer) > _MAX_ANSWER:
            _end(process)
        return await process.wait(), answer
    finally:
        if process.returncode is None or not process.stdout.at_eof():
            _end(process)
            await _drained(process.stdout)
            await process.wait()


def _end(process: asyncio.subprocess.Process) -> None:
    """End the program with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _drained(output: asyncio.StreamReader) -> None:
    """Read what is left, or its pipe stays open; not for long, for who has left the program's group may hold it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT):
            while await output.read(_CHUNK):
                pass


def _parsed(what: str, answer: bytes) -> Credentials:
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        # Not chained: the decoder's error carries the answer.
        raise UpstreamDenied(f"{what} did not answer with JSON") from None
    username = parsed.get("Username") if isinstance(parsed, dict) else None
    secret = parsed.get("Secret") if isinstance(parsed, dict) else None
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        raise UpstreamDenied(f"{what} did not answer with Username and Secret")
    return Credentials(username, secret)
