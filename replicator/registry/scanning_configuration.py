"""What a registry has scanned: a document of its store, read in the transaction that goes by it.

So a push is scanned, or not, by what is in force when it is committed, whichever process changed it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import StorageVersion
from replicator.core.events import ScanFrequencyChange
from replicator.core.scanning import RegistryScanning, RepositoryScanning, ScanFrequency, ScanningRule, ScanType
from replicator.registry.events import record_scan_frequency
from replicator.storage.metadata import registry_documents, repositories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

DOCUMENT = "scanning-configuration"
_PAGE = 500


@dataclass(frozen=True, slots=True)
class ScannedRepository:
    """How often a repository is scanned, and whether its own setting has images scanned on push."""

    name: RepositoryName
    scan_on_push: bool
    scanning: RepositoryScanning


class ScanningConfiguration:
    """The scanning configuration of one node's registry."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def get(self) -> RegistryScanning:
        """Return the configuration in force; raises StorageError."""
        return await self._node.database.read(in_force())

    async def put(self, scanning: RegistryScanning) -> None:
        """Replace the configuration; images that are here are not scanned for it. Raises StorageError.

        Of every repository that is scanned at another frequency then, it is told.
        """
        await self._node.database.write(partial(_put, self._node, scanning, self._node.clock.now()))
        self._node.announce_events()

    async def of_repositories(
        self, names: Sequence[RepositoryName]
    ) -> tuple[list[ScannedRepository], list[RepositoryName]]:
        """Return how repositories are scanned, and the names of which there is none; raises StorageError."""
        return await self._node.database.read(_of_repositories(names))


def _put(node: RegistryNode, scanning: RegistryScanning, now: float) -> Steps[None]:
    before = yield from in_force()
    yield from registry_documents.put(DOCUMENT, _write(scanning), now)
    if not node.settings.event_sinks:
        return
    names = yield from repositories.names_after("", _PAGE)
    while names:
        for name in names:
            change = _change(name, before, scanning)
            if change is not None:
                yield from record_scan_frequency(node, change, scanning.scan_type, now)
        names = yield from repositories.names_after(names[-1], _PAGE)


def _change(name: RepositoryName, before: RegistryScanning, now: RegistryScanning) -> ScanFrequencyChange | None:
    former, new = before.of_repository(name).frequency, now.of_repository(name).frequency
    return None if former is new else ScanFrequencyChange(name, new.value, former.value)


def in_force() -> Steps[RegistryScanning]:
    """Return the configuration in force; raises StorageVersion."""
    document = yield from registry_documents.find(DOCUMENT)
    return RegistryScanning() if document is None else _read(document.content)


def _of_repositories(
    names: Sequence[RepositoryName],
) -> Steps[tuple[list[ScannedRepository], list[RepositoryName]]]:
    scanning = yield from in_force()
    found: list[ScannedRepository] = []
    missing: list[RepositoryName] = []
    for name in dict.fromkeys(names):
        repository = yield from repositories.find(name)
        if repository is None or repository.is_public:
            missing.append(name)
        else:
            found.append(ScannedRepository(name, repository.scan_on_push, scanning.of_repository(name)))
    return found, missing


def _write(scanning: RegistryScanning) -> str:
    rules = [{"frequency": rule.frequency.value, "filters": list(rule.filters)} for rule in scanning.rules]
    return json.dumps({"scan_type": scanning.scan_type.value, "rules": rules})


def _read(text: str) -> RegistryScanning:
    try:
        document = json.loads(text)
        rules = [ScanningRule(ScanFrequency(one["frequency"]), tuple(one["filters"])) for one in document["rules"]]
        return RegistryScanning(ScanType(document["scan_type"]), tuple(rules))
    except (ValueError, LookupError, TypeError) as error:
        raise StorageVersion(f"the document {DOCUMENT} of this store cannot be read: {error}") from error
