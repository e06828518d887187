"""Identities and users follow the configuration file while the daemon runs.

The file, and the files of secrets and policies that it names, are looked at again every half minute, and at once when
somebody asks (SIGHUP). What they say of identities, of users and of their grants replaces what was known, as a whole;
other sections need a restart, which is said once. A configuration file or a policy that cannot be used changes nothing:
what was known before is kept, and the reason is logged when it changes. A secret that is not there any more, or is
empty, is another matter: whoever had it is nobody from then on, and everybody else stays.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicator.config.loader import load_for_reload
from replicator.core.errors import ConfigurationError
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.model import Settings
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.daemon.secrets import Callers, SecretStore
    from replicator.registry.identities import IdentityDirectory
    from replicator.registry_api.users import UserDirectory
    from replicator.telemetry.redaction import Redactor

INTERVAL = 30.0
"""Seconds between two looks."""

_log = get_logger(__name__)


class IdentityWatch:
    """Keeps directories as the file says. `settings` are those that the daemon started with.

    `users` are the directories of the nodes that started with users or anonymous grants.
    """

    def __init__(
        self,
        file: Path,
        settings: Settings,
        secrets: SecretStore,
        directory: IdentityDirectory,
        redactor: Redactor,
        clock: Clock,
        users: Mapping[NodeId, UserDirectory] | None = None,
    ) -> None:
        self._file = file
        self._started_with = settings
        self._secrets = secrets
        self._directory = directory
        self._redactor = redactor
        self._clock = clock
        self._users = {} if users is None else users
        self._asked = asyncio.Event()
        self._complaint = ""
        self._waiting: tuple[str, ...] = ()
        self._gone: tuple[str, ...] = ()

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
            settings, callers = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("configuration cannot be used, identities are kept", error=self._complaint)
            return
        self._complaint = ""
        for secret in callers.secrets:
            self._redactor.add(secret)
        self._report(settings, callers.gone)
        self._follow_identities(settings, callers)
        self._follow_users(settings, callers)

    def _read(self) -> tuple[Settings, Callers]:
        settings = load_for_reload(self._file)
        return settings, self._secrets.callers(settings)

    def _follow_identities(self, settings: Settings, callers: Callers) -> None:
        # A node without identities is open, or knows its users only: it does not become another kind by itself.
        if self._started_with.identities and not self._directory.is_made_of(callers.access_keys):
            self._directory.replace(callers.access_keys)
            count, keys = len(settings.identities), len(callers.access_keys)
            _log.info("identities were replaced", identities=count, access_keys=keys)

    def _follow_users(self, settings: Settings, callers: Callers) -> None:
        nodes = {node.id: node for node in settings.nodes}
        for name, directory in self._users.items():
            grants = nodes[name].anonymous_grants() if name in nodes else ()
            known = callers.users.get(name, ())
            if directory.replace(known, grants):
                _log.info("users were replaced", node=str(name), users=len(known))

    def _report(self, settings: Settings, gone: tuple[str, ...]) -> None:
        for what in set(gone) - set(self._gone):
            _log.warning("a secret cannot be used, whoever had it is refused", what=what)
        self._gone = gone
        before = self._started_with
        changed = tuple(
            name
            for name in type(before).model_fields
            if self._not_followed(name, before, before) != self._not_followed(name, settings, before)
        )
        if changed and changed != self._waiting:
            _log.warning("configuration has changed, a restart is needed", sections=", ".join(changed))
        self._waiting = changed

    def _not_followed(self, section: str, settings: Settings, started_with: Settings) -> object:
        """Return what of a section is read at the start only."""
        if section == "identities" and started_with.identities:
            return None
        if section == "nodes":
            return [
                node.model_copy(update={"auth": None}) if node.id in self._users else node for node in settings.nodes
            ]
        return getattr(settings, section)

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
