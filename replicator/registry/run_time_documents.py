"""The documents of a registry that can be written while it runs, and how they come into force.

They are rows of the node's store, besides what the configuration file declares. A document that changed replaces
`RegistryNode.settings`, from which everybody reads at the moment of use: the change is in effect in this process when
the call returns. Other processes on the same store see it within `REFRESH` seconds, and until then work by what was
before; so does this process if the caller is cancelled while the change is being stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.core.errors import DeclaredInFile, InvalidInput, StorageError, StorageVersion
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import registry_documents
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.registry_documents import RegistryDocument
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

T = TypeVar("T")

REFRESH = 30.0
"""Seconds between two looks for what another process has set."""

InForce = Callable[[RegistrySettings, str | None], RegistrySettings]
"""Returns the settings with what a document says, which is None when it was never written; raises StorageVersion."""

Edit = Callable[[str | None], str]
"""Returns a document as it is to be, from what it is; raises an error of the core, and changes nothing then."""


class RunTimeDocuments:
    """The documents of one node. `load` them before anything else runs, then `run` under a supervisor.

    What the node's settings say at first is taken for the configuration file's, which errors call `file`.
    """

    def __init__(self, node: RegistryNode, file: str = "the configuration file") -> None:
        self.node = node
        self.declared = node.settings
        self._file = file
        self._in_force: dict[str, InForce] = {}
        self._documents: Mapping[str, RegistryDocument] = {}

    def add(self, name: str, in_force: InForce) -> None:
        """Have a document brought into force by `in_force`, from the next change or load on."""
        self._in_force[name] = in_force

    def find(self, name: str) -> str | None:
        """Return a document as it is in force, or None when it was never written."""
        document = self._documents.get(name)
        return None if document is None else document.content

    def refusal(self, what: str) -> DeclaredInFile:
        """Return the error for an attempt to change what the file declares."""
        return DeclaredInFile(f"{what} is declared in {self._file}, and only there it can be changed")

    async def load(self) -> None:
        """Take over what is stored; raises StorageError."""
        self._take_over(await self.node.database.read(registry_documents.all_documents()))

    async def run(self) -> None:
        """Look every so often for what another process has set, until cancelled."""
        while True:
            await self.node.clock.sleep(REFRESH)
            try:
                await self.load()
            except StorageError as error:
                name = str(self.declared.node)
                _log.warning("settings made at run time could not be read", node=name, error=str(error))

    async def change(self, name: str, edit: Edit) -> None:
        """Write a document and bring it into force. Raises what `edit` raises, and StorageError."""
        now = self.node.clock.now()
        self._take_over([await self.node.database.write(partial(_edited, name, edit, now))])

    def _take_over(self, documents: Iterable[RegistryDocument]) -> None:
        """Put newer documents in force; changes may come here in another order than they were stored in."""
        newer = {one.name: one for one in documents if one.revision > self._revision(one.name)}
        if not newer:
            return
        found, settings = {**self._documents, **newer}, self.declared
        for name, in_force in self._in_force.items():
            document = found.get(name)
            settings = in_force(settings, None if document is None else document.content)
        self._documents = found
        self.node.change_settings(settings)

    def _revision(self, name: str) -> int:
        known = self._documents.get(name)
        return 0 if known is None else known.revision


def _edited(name: str, edit: Edit, now: float) -> Steps[RegistryDocument]:
    found = yield from registry_documents.find(name)
    content = edit(None if found is None else found.content)
    return (yield from registry_documents.put(name, content, now))


def read_document(name: str, text: str, parse: Callable[[dict[str, Any]], T]) -> T:
    """Return a document of JSON as a value.

    What cannot be read back was written by another version or damaged: StorageVersion, never a setting left out.
    """
    try:
        return parse(json.loads(text))
    except (InvalidInput, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StorageVersion(f"the document {name} of this store cannot be read: {error}") from error
