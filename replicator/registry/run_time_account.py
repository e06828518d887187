"""The account settings of a registry, as they were put while it ran (ECR §13.6)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replicator.core.account_settings import AccountSettingName, check_setting_value
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

ACCOUNT_SETTINGS = "account-settings"


class RunTimeAccount:
    """The account settings of one node: what was never put is as the node's settings say."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(ACCOUNT_SETTINGS, self._in_force)

    def get(self, name: AccountSettingName) -> str:
        """Return a setting as it is in force."""
        return self._documents.node.settings.account_settings.value(name)

    async def put(self, name: AccountSettingName, value: str) -> None:
        """Change a setting. Raises InvalidInput for a value that it cannot have, StorageError."""
        check_setting_value(name, value)
        await self._documents.change(
            ACCOUNT_SETTINGS, lambda content: json.dumps({**_values(content), name.value: value})
        )

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        return replace(settings, account_settings=settings.account_settings.changed_by(_values(content)))


def _values(content: str | None) -> dict[str, str]:
    return {} if content is None else read_document(ACCOUNT_SETTINGS, content, _checked)


def _checked(document: dict[str, Any]) -> dict[str, str]:
    for name, value in document.items():
        check_setting_value(AccountSettingName(name), value)
    return document
