"""The signing configuration of a registry, as it was put while it ran (ECR §13.4)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicator.core import texts
from replicator.core.errors import SigningConfigurationNotFound
from replicator.core.signing import SigningConfiguration, SigningRule, check_signing
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

SIGNING = "signing-configuration"


class RunTimeSigning:
    """The signing configuration of one node."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(SIGNING, self._in_force)

    def get(self) -> SigningConfiguration:
        """Return the configuration; raises SigningConfigurationNotFound where there is none."""
        return self._present(_read(self._documents.find(SIGNING)))

    async def put(self, configuration: SigningConfiguration) -> None:
        """Replace the configuration; images pushed from now on go by it. Raises InvalidInput, StorageError."""
        declared = self._documents.declared
        check_signing(configuration, declared.node.region, declared.quotas)
        await self._documents.change(SIGNING, lambda _: _written(configuration))

    async def delete(self) -> SigningConfiguration:
        """Remove the configuration and return it. Raises SigningConfigurationNotFound, StorageError."""
        deleted: list[SigningConfiguration] = []

        def edit(content: str | None) -> str:
            deleted[:] = [self._present(_read(content))]
            return _written(None)

        await self._documents.change(SIGNING, edit)
        return deleted[0]

    def _present(self, configuration: SigningConfiguration | None) -> SigningConfiguration:
        if configuration is None:
            raise SigningConfigurationNotFound(texts.no_signing_configuration(self._documents.declared.node.account))
        return configuration

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        return replace(settings, signing=_read(content) or SigningConfiguration())


def _written(configuration: SigningConfiguration | None) -> str:
    if configuration is None:
        return json.dumps({"rules": None})
    return json.dumps({"rules": [{"profile": one.profile, "filters": one.filters} for one in configuration.rules]})


def _read(content: str | None) -> SigningConfiguration | None:
    return None if content is None else read_document(SIGNING, content, _configuration)


def _configuration(document: dict[str, Any]) -> SigningConfiguration | None:
    rules = document["rules"]
    if rules is None:
        return None
    return SigningConfiguration(tuple(SigningRule(str(one["profile"]), tuple(one["filters"])) for one in rules))
