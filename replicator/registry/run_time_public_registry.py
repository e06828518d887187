"""The public registry of an account as it came to be while it ran: its alias, and the name that it shows (ECR §16).

The alias is kept from the first public repository on, because it is part of every public name: a file that says another
one later is refused as long as there are public repositories.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicator.core.errors import ConfigurationError
from replicator.core.public_registry import default_alias, parse_alias
from replicator.registry.run_time_documents import read_document
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

PUBLIC_REGISTRY = "public-registry"

_ALIAS = "alias"
_DISPLAY_NAME = "display_name"


class RunTimePublicRegistry:
    """The public registry of one node. `check` it when the documents are loaded."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(PUBLIC_REGISTRY, self._in_force)

    @property
    def display_name(self) -> str | None:
        """The name that the registry shows, if it was given one."""
        return self._documents.node.settings.public_registry.display_name

    async def put_display_name(self, name: str | None) -> None:
        """Show another name, or none; raises StorageError."""
        await self._change(_DISPLAY_NAME, name)

    async def take_alias(self) -> None:
        """Have an alias: the file's, or a random one that no private repository is below. Raises StorageError."""
        if self._stored_alias is None:
            await self._change(_ALIAS, self._documents.declared.public_registry.alias or await self._free_alias())

    async def check(self) -> None:
        """Return if the file's alias can be had; raise ConfigurationError otherwise, or StorageError."""
        declared, stored = self._documents.declared.public_registry.alias, self._stored_alias
        node = self._documents.node
        if declared and stored is not None and stored != declared:
            if await node.database.read(repositories.find_public()) is not None:
                raise ConfigurationError(
                    f"node {node.settings.node}: the public registry has public repositories below the alias {stored};"
                    f" ecr_public.alias cannot become {declared}"
                )
            await self._change(_ALIAS, None)
        if declared and await self._is_taken(declared):
            raise ConfigurationError(
                f"node {node.settings.node}: ecr_public.alias cannot be {declared}: there are private repositories, or"
                f" a cache rule, below {declared}/"
            )

    @property
    def _stored_alias(self) -> str | None:
        content = self._documents.find(PUBLIC_REGISTRY)
        return None if content is None else _values(content).get(_ALIAS)

    async def _free_alias(self) -> str:
        while await self._is_taken(alias := default_alias(secrets.choice)):
            pass
        return alias

    async def _is_taken(self, alias: str) -> bool:
        node, below = self._documents.node, f"{alias}/"
        if any(f"{rule.prefix}/".startswith(below) for rule in node.settings.cache_rules):
            return True
        return await node.database.read(repositories.has_private_below(below))

    async def _change(self, name: str, value: str | None) -> None:
        def edit(content: str | None) -> str:
            values = _values(content)
            # Two first repositories at once: the alias of the one that came first is kept.
            kept = values.get(_ALIAS) if name == _ALIAS and value is not None else None
            return json.dumps({**values, name: kept or value})

        await self._documents.change(PUBLIC_REGISTRY, edit)

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        values = _values(content)
        declared, stored = settings.public_registry, values.get(_ALIAS)
        return replace(
            settings,
            public_registry=replace(
                declared, alias=stored or declared.alias, display_name=values.get(_DISPLAY_NAME) or None
            ),
        )


def _values(content: str | None) -> dict[str, str | None]:
    return {} if content is None else read_document(PUBLIC_REGISTRY, content, _checked)


def _checked(document: dict[str, Any]) -> dict[str, str | None]:
    if document.get(_ALIAS) is not None:
        parse_alias(document[_ALIAS])
    return document
