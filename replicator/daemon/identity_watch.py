"""Identities follow the configuration file while the daemon runs.

The file, and the files of secrets and policies that it names, are looked at again every half minute, and at once when
somebody asks (SIGHUP). What they say of identities replaces what was known, as a whole; other sections need a restart,
which is said once. A file that cannot be used changes nothing: the identities of before are kept, and the reason is
logged when it changes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicator.config.loader import load_settings
from replicator.config.references import secrets_of
from replicator.core.errors import ConfigurationError
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.model import Settings
    from replicator.config.secrets import Secret
    from replicator.core.clock import Clock
    from replicator.daemon.secrets import SecretStore
    from replicator.registry.identities import AccessKey, IdentityDirectory
    from replicator.telemetry.redaction import Redactor

INTERVAL = 30.0
"""Seconds between two looks."""
_FOLLOWED = "identities"

_log = get_logger(__name__)


class IdentityWatch:
    """Keeps a directory as the file says. `settings` are those that the daemon started with."""

    def __init__(
        self,
        file: Path,
        environ: Mapping[str, str],
        settings: Settings,
        secrets: SecretStore,
        directory: IdentityDirectory,
        redactor: Redactor,
        clock: Clock,
    ) -> None:
        self._file = file
        self._environ = environ
        self._started_with = settings
        self._secrets = secrets
        self._directory = directory
        self._redactor = redactor
        self._clock = clock
        self._asked = asyncio.Event()
        self._complaint = ""
        self._waiting: tuple[str, ...] = ()

    def ask(self) -> None:
        """Have the file looked at as soon as possible."""
        self._asked.set()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self._pause()
            await self.look()

    async def look(self) -> None:
        """Read the file and what it names, and follow it; says in the log what came of it, and raises nothing of it."""
        try:
            settings, keys, known = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("configuration cannot be used, identities are kept", error=self._complaint)
            return
        self._complaint = ""
        for secret in known:
            self._redactor.add(secret)
        self._report(settings)
        if not self._directory.is_made_of(keys):
            self._directory.replace(keys)
            _log.info("identities were replaced", identities=len(settings.identities), access_keys=len(keys))

    def _read(self) -> tuple[Settings, tuple[AccessKey, ...], tuple[Secret, ...]]:
        settings = load_settings(self._file, self._environ)
        if not self._started_with.identities:
            # Such a node is open, or knows its users only: it does not become another kind of node by itself.
            return settings, (), ()
        return settings, self._secrets.access_keys(settings), secrets_of(settings, self._environ)

    def _report(self, settings: Settings) -> None:
        before = self._started_with
        changed = tuple(name for name in type(before).model_fields if getattr(before, name) != getattr(settings, name))
        if before.identities:
            changed = tuple(name for name in changed if name != _FOLLOWED)
        if changed and changed != self._waiting:
            _log.warning("configuration has changed, a restart is needed", sections=", ".join(changed))
        self._waiting = changed

    async def _pause(self) -> None:
        """Return after a while, or when asked."""
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(self._clock.sleep(INTERVAL)), group.create_task(self._wait_to_be_asked())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _wait_to_be_asked(self) -> None:
        await self._asked.wait()
        self._asked.clear()
